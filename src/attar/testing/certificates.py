"""A small certificate to test with: made in microseconds, and nobody was asked anything for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from attar.certificate import Certificate, Figure, Quality, Requirement, Verdict

__all__ = ["small_certificate"]


def small_certificate(**changes: Any) -> Certificate:
    """What 6,000 test rows might have shown of two classes; `changes` are fields of the certificate."""
    accuracy = Quality(
        better=1,
        teacher=Figure(0.8057, 0.7957, 0.8157, n=6000),
        student=Figure(0.8045, 0.7945, 0.8145, n=6000),
        difference=Figure(-0.0012, -0.0038, 0.0014, n=6000, how="paired score interval (Tango)"),
        files={"student.onnx": Figure(0.8045, n=6000)},
        arms={"student": Figure(0.8056, n=5), "labels": Figure(0.7770, n=5)},
        gains={"labels": Figure(0.0286, 0.0194, 0.0378, n=5, how="t over seeds and rows")},
        seeds={"student": (0.80, 0.81, 0.805, 0.81, 0.80), "labels": (0.77, 0.78, 0.78, 0.77, 0.78)},
    )
    log_loss = Quality(
        better=-1,
        teacher=Figure(0.43, 0.42, 0.44, n=6000),
        student=Figure(0.45, 0.44, 0.46, n=6000),
        difference=Figure(0.02, 0.01, 0.03, n=6000),
    )
    verdict = Figure(-0.0012, -0.0034, 0.0009, n=6000, how="paired score interval (Tango); one-sided bounds at 95 %")
    gain = Verdict("helped", "DISTILLATION HELPED: accuracy +0.0286 [+0.0194, +0.0378]", accuracy.gains["labels"], 0.005)
    values: dict[str, Any] = {
        "identity": {
            "task": 'classification(metric="accuracy")',
            "data": "d" * 32,
            "look": 1,
            "when": "2026-11-24T04:19:44+00:00",
            "rows": {"test": 6000, "labelled": 6000, "distinct": 6000},
            "teacher": {"text": 'lightgbm("teacher.txt")', "fingerprint": "t" * 32, "training_rows": "known"},
            "student": {
                "text": 'onnx("student")',
                "fingerprint": "s" * 32,
                "file": "student.onnx",
                "temperature": 1.25,
                "files": {"student.onnx": {"precision": "float32", "bytes": 46855, "temperature": 1.25, "digest": "s" * 32}},
            },
            "seeds": {"student": 5, "labels": 5},
            "classes": ["no", "yes"],
            "versions": {"attar": "0.1.0"},
            "machine": "a machine",
        },
        "claim": {"metric": "accuracy", "margin": 0.005, "confidence": 0.95, "decision": "the likeliest outcome", "thresholds": {}},
        "non_inferior": Verdict("yes", "NON-INFERIOR to the teacher: accuracy 0.8045, the teacher's 0.8057", verdict, 0.005),
        "helped": gain,
        "against": {"labels": gain},
        "quality": {"accuracy": accuracy, "log_loss": log_loss},
        "fidelity": {"agreement": Figure(0.9936, 0.9912, 0.9953, n=6000), "kl": Figure(0.0002, unit="nats", n=6000)},
        "calibration": {"teacher": {"ece": Figure(0.017, 0.012, 0.021)}, "student": {"ece": Figure(0.0147, 0.011, 0.019)}},
        "cost": {
            "teacher": {"latency_p95_ms": Figure(0.0875, 0.08, 0.09, "ms", 900), "size_mb": Figure(2.11, unit="MB")},
            "student": {
                "latency_p95_ms": Figure(0.0134, 0.0131, 0.0137, "ms", 900),
                "size_mb": Figure(0.0469, unit="MB"),
                "parameters": Figure(9000),
                "memory_mb": Figure(None, unit="MB"),
            },
            "ratio": {"latency_p95_ms": Figure(6.52, 5.9, 7.0, "×"), "size_mb": Figure(45.0, unit="×")},
        },
        "requirements": (Requirement("worse by less than 0.005", "met", ""),),
        "limits": ("another machine, and more than one thread: costs are those of this one",),
        "pictures": {},
    }
    return replace(Certificate(**values), **changes)
