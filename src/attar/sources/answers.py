"""What a model gives → logits with the data's outcomes in the data's order, or an error that shows both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar.errors import TapError, TeacherError
from attar.signal import Batch, Schema

__all__ = ["FLOOR", "as_logits", "checked", "home_of", "log_probabilities", "no_taps", "order_of", "said", "take", "text_of"]

FLOOR = 1e-7
"""ε: the least probability that a source of probabilities answers, so that log p ≥ −16.1. A forest that says 0 has seen no such row
among its few neighbours; it does not know that there is none. 1e-7 is what float32 just tells from 1 − p = 1."""


def as_logits(output: Tensor, batch: Batch, who: str, order: Tensor | None = None) -> Tensor:
    """(B,), (B, 1), (B, C) or (B, L, 2) as a model gives it → float logits whose last axis is the data's outcomes.

    One logit z of two classes becomes [0, z]; one logit for each of L labels (B, L, 2), where the batch's labels show that there are
    many; the number of a regression (B, 1). order: (C,) which of the model's outcomes each class is. Without a schema only the
    number of rows is checked. Raises TeacherError where the number of rows or outcomes differs from the data's.
    """
    if output.ndim == 1:
        output = output.unsqueeze(-1)
    if len(output) != len(batch):
        raise TeacherError(f"{who} gives {len(output)} answers to {len(batch)} rows", hint="one answer for each row, in their order")
    output = output if output.dtype in (torch.float32, torch.float64) else output.float()
    schema = batch.schema
    if schema is None:
        return output if order is None else output.index_select(-1, order.to(output.device))
    if schema.embeds:
        return _as_vectors(output, schema, who)
    many = batch.labels is not None and batch.labels.ndim == 2
    outcomes = max(len(schema.classes), 1)
    if outcomes == 2 and output.shape[1:] == (1,) and not many:
        output = torch.cat((torch.zeros_like(output), output), -1)
    if output.ndim == 3 and output.shape[1:] == (outcomes, 2):
        return output
    if output.ndim != 2 or output.shape[-1] != outcomes:
        raise TeacherError(
            f"{who} answers {tuple(output.shape[1:])} for each row, the data have {said(schema)}",
            hint="is this the teacher of these data? a teacher that knows more classes cannot be cut to fewer",
        )
    if order is not None:
        output = output.index_select(-1, order.to(output.device))
    return torch.stack((torch.zeros_like(output), output), -1) if many else output


def _as_vectors(output: Tensor, schema: Schema, who: str) -> Tensor:
    """(B, D) of rows of one text, or (B, K, D) → (B, K, D)."""
    texts = max(len(schema.texts), 1)
    vectors = output.unsqueeze(1) if output.ndim == 2 and texts == 1 else output
    if vectors.ndim != 3 or vectors.shape[1] != texts:
        raise TeacherError(
            f"{who} answers {tuple(output.shape[1:])} for each row, asked is a vector for each of {texts} texts", hint=f"({texts}, D) a row"
        )
    return vectors


def log_probabilities(probabilities: np.ndarray, floor: float = FLOOR) -> Tensor:
    """(B, C) probabilities → (B, C) float32 log p, no p below `floor`."""
    return torch.from_numpy(np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), floor)).astype(np.float32))


def checked(output: np.ndarray, who: str) -> np.ndarray:
    """The answers as they are, if none is NaN; raises TeacherError that says which row is."""
    if np.isnan(output).any():
        row = int(np.flatnonzero(np.isnan(output).reshape(len(output), -1).any(1))[0])
        raise TeacherError(
            f"{who} answers NaN, first at row {row} of this batch", hint="does it bear missing values? fill them in a pipeline"
        )
    return output


def order_of(own: Sequence[Any], schema: Schema | None, who: str) -> Tensor | None:
    """Names of a model's outcomes in its own order → (C,) position of each of the data's classes among them; None where alike.

    Names are compared as text; 1, 1.0 and True are also "1". Raises TeacherError with both lists where they differ by more than order.
    """
    if schema is None or not schema.classes:
        return None
    names = [text_of(n) for n in own]
    if sorted(names) != sorted(schema.classes):
        bare = [_bare(n) for n in names]
        if sorted(bare) != sorted(_bare(c) for c in schema.classes) or len(set(bare)) < len(bare):
            hint = f"`classes=` names the teacher's outputs, in their order, by the data's names: classes={list(schema.classes)}"
            if len(names) != len(schema.classes):
                hint = f"these are {len(names)} outcomes, and {len(schema.classes)} are asked: a teacher of these data, or taught on them"
            raise TeacherError(f"{who} answers the classes {names}, the data have {list(schema.classes)}", hint=hint)
        found = [bare.index(_bare(c)) for c in schema.classes]
    else:
        found = [names.index(c) for c in schema.classes]
    return None if found == list(range(len(found))) else torch.tensor(found)


def no_taps(taps: frozenset[str], who: str) -> None:
    """Raise TapError if any tap is asked of something that has no insides to tap."""
    if taps:
        raise TapError(
            f"{who} has no taps, asked for {sorted(taps)}",
            hint="networks have taps: module, hf, timm, torchvision; or choose an objective of outputs alone",
        )


def home_of(batch: Batch) -> torch.device:
    """Where a batch's rows lie."""
    return batch.inputs.device if isinstance(batch.inputs, Tensor) else next(iter(batch.inputs.values())).device


def take(batch: Batch, index: Tensor) -> Batch:
    """The rows of a batch at (n,) positions."""

    def pick(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.index_select(0, index)

    inputs = batch.inputs
    picked = inputs.index_select(0, index) if isinstance(inputs, Tensor) else {k: v.index_select(0, index) for k, v in inputs.items()}
    parts = {name: pick(getattr(batch, name)) for name in ("labels", "mask", "weight", "ids", "views")}
    return replace(batch, inputs=picked, **parts)


def said(schema: Schema) -> str:
    """The data's outcomes in words."""
    if not schema.classes:
        return f"one number, {schema.label!r}"
    names = ", ".join(schema.classes[:8]) + (", …" if len(schema.classes) > 8 else "")
    return f"{len(schema.classes)} classes of {schema.label!r}: {names}"


def text_of(value: Any) -> str:
    """A class or category as the data would write it: 1.0 is "1"."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _bare(name: str) -> str:
    """Spellings of one truth: "True", "true", "1.0" and "1"."""
    lower = name.strip().lower()
    return {"true": "1", "false": "0"}.get(lower, lower.removesuffix(".0"))
