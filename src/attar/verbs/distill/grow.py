"""Trees as students: they are grown once on blended targets, and validation rows choose how many rounds are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attar.errors import StudentError
from attar.loop import Trained
from attar.objective import Objective
from attar.objective.terms import Divergence, Labels, LogitDistance
from attar.objective.weights import Number
from attar.signal import Inputs, Signal
from attar.students.trees import Blend, Trees, classes
from attar.task import Task
from attar.verbs.distill.judge import Judge
from attar.verbs.distill.rows import Rows

__all__ = ["Nothing", "blend_of", "grow"]

CHUNK = 4096  # rows asked at a time
HINT = "blend(kl(temperature=2), labels(), weight=0.9)"


class Nothing(nn.Module):
    """Logits of 0: who stands for trees in the self-test, before they have grown."""

    def __init__(self, outcomes: int) -> None:
        super().__init__()
        self.outcomes = outcomes

    def forward(self, inputs: Inputs) -> Tensor:
        rows = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
        return torch.zeros(len(rows), self.outcomes, device=rows.device)


def blend_of(objective: Objective) -> Blend:
    """What trees regress for this objective. Raises StudentError where they cannot: another term, two teachers' terms, a moving weight."""
    share, temperature, smoothing = {"teacher": 0.0, "labels": 0.0}, 1.0, 0.0
    for weight, term in zip(objective.weights, objective.terms, strict=True):
        if not isinstance(weight, Number) or weight.value < 0:
            raise StudentError(f"trees take plain weights, {weight!r} is none", hint=HINT)
        side = "labels" if isinstance(term, Labels) else "teacher"
        if share[side]:
            raise StudentError(f"trees take one term of the teacher and one of labels, {objective!r} has more", hint=HINT)
        share[side] = weight.value
        if isinstance(term, Labels):
            smoothing = term.smoothing
        elif isinstance(term, Divergence) and term.word == "kl" and not isinstance(term.temperature, Tensor):
            temperature = term.temperature
        elif not isinstance(term, LogitDistance):
            raise StudentError(f"trees regress logits: kl, mse and labels, not {term!r}", hint=HINT)
    total = sum(share.values())
    if not total:
        raise StudentError(f"{objective!r} weighs nothing", hint=HINT)
    return Blend(share["teacher"] / total, temperature, smoothing)


def grow(
    model: Trees,
    objective: Objective,
    rows: Rows,
    task: Task,
    judge: Judge,
    *,
    stage: str,
    seed: int,
    record: Callable[[Mapping[str, Any]], None],
) -> Trained:
    """Grow `model` on the rows of an arm and keep as many rounds as score best on validation rows.

    An "epoch" of the history is a number of rounds, its loss the mean squared distance from the targets on training rows.
    """
    start = time.perf_counter()
    blend = blend_of(objective)
    batches, answers = [], []
    for index in torch.arange(len(rows)).split(CHUNK):
        batch, signal = rows(index, 1)
        batches.append(batch)
        answers.append(signal)
    inputs = _joined([batch.inputs for batch in batches])
    teacher = _outputs(answers, task) if blend.share else None
    labels = None if batches[0].labels is None else torch.cat([batch.labels for batch in batches if batch.labels is not None])
    weight = None if batches[0].weight is None else torch.cat([batch.weight for batch in batches if batch.weight is not None])
    logistic = teacher is None and task.kind != "regression" and not blend.smoothing
    if logistic:
        assert labels is not None  # an objective of labels alone was checked to have some
        targets = classes(labels, task)
    else:
        targets = blend.targets(teacher, labels, task)
    model.grow(inputs, targets, weight, logistic=logistic)
    history: list[Mapping[str, Any]] = []
    for rounds in model.stages:
        score = judge.rated(lambda asked, rounds=rounds: model.answers(asked, rounds))
        line = {"stage": stage, "seed": seed, "epoch": rounds, "loss": _distance(model, inputs, targets, rounds, logistic), "parts": {}}
        history.append({**line, "valid": score, "seconds": round(time.perf_counter() - start, 3)})
        record(history[-1])
    best = max(history, key=lambda line: line["valid"])  # of equals the fewest rounds
    model.keep(best["epoch"])
    return Trained(tuple(history), best["epoch"], best["valid"], model.stages[-1], time.perf_counter() - start)


def _distance(model: Trees, inputs: Inputs, targets: Tensor, rounds: int, logistic: bool) -> float:
    found = model.raw(inputs, rounds)
    there = ~targets.isnan()
    return float((((torch.sigmoid(found) if logistic else found) - targets)[there]).square().mean())


def _outputs(answers: list[Signal | None], task: Task) -> Tensor:
    return torch.cat([task.canonical(signal.output).float().cpu() for signal in answers if signal is not None])


def _joined(parts: list[Inputs]) -> Inputs:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return {name: torch.cat([part[name] for part in parts if not isinstance(part, Tensor)]) for name in first}
