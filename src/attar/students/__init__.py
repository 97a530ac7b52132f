"""Who learns: builders of small models, called with (schema, seed)."""

# A file and its word share a name. Importing the file binds the name to the file, so the words are bound here, after it, once and for
# all: whatever is imported first, `attar.students.mlp` is the word.
from attar.students.cnn import cnn
from attar.students.graft import graft
from attar.students.hf import hf
from attar.students.mlp import mlp
from attar.students.ngrams import ngrams
from attar.students.shrink import shrink
from attar.students.spaces import auto
from attar.students.static_embedding import static_embedding
from attar.students.trees import Trees, forest, lightgbm
from attar.students.vision import timm, torchvision

__all__ = [
    "Trees",
    "auto",
    "cnn",
    "forest",
    "graft",
    "hf",
    "lightgbm",
    "mlp",
    "ngrams",
    "shrink",
    "static_embedding",
    "timm",
    "torchvision",
]
