"""attar: put in a teacher, data and a budget; get the smallest student that still behaves like the teacher, with a certificate."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees is what `_HOME` loads
    from attar import data, objective, sources, students
    from attar.certificate import Certificate, require
    from attar.cost import Budget, Cost, budget
    from attar.guards import Guard, guard, unguarded
    from attar.loop import Fit, fit
    from attar.objective import (
        Distiller,
        Objective,
        Term,
        alpha_beta,
        blend,
        jsd,
        kl,
        labels,
        mse,
        ramp,
        reverse_kl,
        skew_kl,
        total_variation,
    )
    from attar.signal import IGNORE, Batch, Schema, Signal, Source, Student
    from attar.sources import (
        cached,
        cascade,
        ensemble,
        estimator,
        hard,
        lightgbm,
        module,
        onnx,
        shuffled,
        smooth,
        taught,
        xgboost,
    )
    from attar.task import Task, classification, embedding, multilabel, regression
    from attar.verbs.annotate import annotate
    from attar.verbs.check import check
    from attar.verbs.distill import distill
    from attar.verbs.evaluate import evaluate
    from attar.verbs.export import export
    from attar.verbs.run import Result, run
    from attar.verbs.search import search
    from attar.verbs.teach import teach

__version__ = "0.1.0"

# Which module holds each public name. Nothing is imported before it is asked for: `attar --help` must not wait for torch.
_HOME = {
    name: home
    for home, names in {
        "attar.certificate": ("Certificate", "require"),
        "attar.cost": ("Budget", "Cost", "budget"),
        "attar.guards": ("Guard", "guard", "unguarded"),
        "attar.loop": ("Fit", "fit"),
        "attar.objective": (
            "Distiller",
            "Objective",
            "Term",
            "alpha_beta",
            "blend",
            "jsd",
            "kl",
            "labels",
            "mse",
            "ramp",
            "reverse_kl",
            "skew_kl",
            "total_variation",
        ),
        "attar.signal": ("IGNORE", "Batch", "Schema", "Signal", "Source", "Student"),
        "attar.sources": (
            "cached",
            "cascade",
            "ensemble",
            "estimator",
            "hard",
            "lightgbm",
            "module",
            "onnx",
            "shuffled",
            "smooth",
            "taught",
            "xgboost",
        ),
        "attar.task": ("Task", "classification", "embedding", "multilabel", "regression"),
        "attar.verbs.annotate": ("annotate",),
        "attar.verbs.check": ("check",),
        "attar.verbs.distill": ("distill",),
        "attar.verbs.evaluate": ("evaluate",),
        "attar.verbs.export": ("export",),
        "attar.verbs.run": ("Result", "run"),
        "attar.verbs.search": ("search",),
        "attar.verbs.teach": ("teach",),
    }.items()
    for name in names
}
_ROOMS = ("data", "objective", "sources", "students")

__all__ = [
    "IGNORE",
    "Batch",
    "Budget",
    "Certificate",
    "Cost",
    "Distiller",
    "Fit",
    "Guard",
    "Objective",
    "Result",
    "Schema",
    "Signal",
    "Source",
    "Student",
    "Task",
    "Term",
    "alpha_beta",
    "annotate",
    "blend",
    "budget",
    "cached",
    "cascade",
    "check",
    "classification",
    "data",
    "distill",
    "embedding",
    "ensemble",
    "estimator",
    "evaluate",
    "export",
    "fit",
    "guard",
    "hard",
    "jsd",
    "kl",
    "labels",
    "lightgbm",
    "module",
    "mse",
    "multilabel",
    "objective",
    "onnx",
    "ramp",
    "regression",
    "require",
    "reverse_kl",
    "run",
    "search",
    "shuffled",
    "skew_kl",
    "smooth",
    "sources",
    "students",
    "taught",
    "teach",
    "total_variation",
    "unguarded",
    "xgboost",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"attar.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'attar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
