"""Whoever answers: teachers, stores, files, ensembles, and the controls that wrap them."""

from __future__ import annotations

# A file and its word may share a name. Importing the file binds the name to the file, so the words are bound here, after it, once
# and for all: whatever is imported first, `attar.sources.module` is the word.
from attar.sources.adjusted import adjusted
from attar.sources.cached import cached
from attar.sources.cascade import Cascade, cascade
from attar.sources.controls import hard, shuffled, smooth
from attar.sources.corrected import corrected
from attar.sources.ema import Ema, ema
from attar.sources.ensemble import ensemble
from attar.sources.estimator import estimator
from attar.sources.hf import hf
from attar.sources.module import module
from attar.sources.onnx import onnx
from attar.sources.pca import pca
from attar.sources.taught import Taught, taught
from attar.sources.trees import lightgbm, xgboost
from attar.sources.vision import Pretrained, timm, torchvision

__all__ = [
    "Cascade",
    "Ema",
    "Pretrained",
    "Taught",
    "adjusted",
    "cached",
    "cascade",
    "corrected",
    "ema",
    "ensemble",
    "estimator",
    "hard",
    "hf",
    "lightgbm",
    "module",
    "onnx",
    "pca",
    "shuffled",
    "smooth",
    "taught",
    "timm",
    "torchvision",
    "xgboost",
]
