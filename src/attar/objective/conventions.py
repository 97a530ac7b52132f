"""The start-up self-test: a handful of rows show whether teacher, store, student and objective mean the same, before hours are spent."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attar.errors import AttarError, ObjectiveError, StoreError, TeacherError
from attar.objective.algebra import Objective, Term, as_objective
from attar.objective.tempered import Tempered
from attar.objective.weights import number_in
from attar.signal import Batch, Signal, Source
from attar.tap import observe
from attar.task import Task

__all__ = ["Check", "Conventions", "check"]

Verdict = Literal["ok", "warning", "failed", "skipped"]

NEGLIGIBLE = 1e-3  # of the largest gradient: below it a term is there in name only
SIGNIFICANT = 1e-3  # one-sided level of the class-order test
STORED = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}  # relative to the row's largest logit: two units in the last place
ANSWERED = 1e-4  # the same for float32: kernels differ with the batch size


@dataclass(frozen=True)
class Check:
    """One convention. verdict: "warning" is said, "failed" stops, "skipped" says why. text: one sentence. values: the figures behind it."""

    name: str
    verdict: Verdict
    text: str
    values: Mapping[str, float] = field(default_factory=dict)
    error: type[AttarError] = ObjectiveError
    hint: str = ""


@dataclass(frozen=True)
class Conventions:
    """What the self-test found. `ok`: nothing failed; `lines()` for a terminal; `as_dict()` for a manifest."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(c.verdict != "failed" for c in self.checks)

    def lines(self) -> list[str]:
        """One line for each check: mark, name, sentence."""
        marks = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "–"}
        width = max((len(c.name) for c in self.checks), default=0)
        return [f"{marks[c.verdict]} {c.name:<{width}}  {c.text}" for c in self.checks]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; what is not finite becomes None."""
        return {
            "ok": self.ok,
            "checks": [
                {
                    "name": c.name,
                    "verdict": c.verdict,
                    "text": c.text,
                    "values": {k: v if math.isfinite(v) else None for k, v in c.values.items()},
                }
                for c in self.checks
            ],
        }

    def raise_if_failed(self) -> None:
        """Raises the error of the first failed check: ObjectiveError, TeacherError or StoreError, with all failures in its message."""
        if failed := [c for c in self.checks if c.verdict == "failed"]:
            raise failed[0].error("\n".join(f"{c.name}: {c.text}" for c in failed), hint=failed[0].hint)


def check(
    objective: Term | Objective,
    student: nn.Module,
    teacher: Source | None,
    batch: Batch,
    task: Task,
    stored: Signal | None = None,
) -> Conventions:
    """Tests the conventions on the rows of one batch; nothing given is changed, and the student is asked in evaluation mode.

    teacher: answers live. stored: the store's answers to the same rows, if there is a store. A few dozen labelled rows are enough for all
    but the class order, which is the better the more there are.

    - equality: each term that keeps "zero" is 0, and pulls nowhere, where the student answers as the teacher does.
    - temperature: far above the logits, the pull of a tempered term no longer depends on the temperature: T² (or T) is in place, once.
    - teacher: its answers carry no gradient, come out the same twice, row by row as in a batch, and asking leaves its fingerprint alone.
    - store: rows answered live equal the stored ones within the store's precision.
    - class order: no permutation of the teacher's outcomes fits the labels significantly better than their own order.
    - weights: no term has a negative one, which would push the student away from what it is to learn, and not all are zero.
    - balance: no term pulls at the student's weights less than a thousandth as hard as the strongest; a warning, for it may be meant, and
      a student that starts from its teacher has nothing to be pulled to. Ramps count at their larger end, balanced terms not at all.
    """
    goal = copy.deepcopy(as_objective(objective))
    checks: list[Check] = []
    answered: Signal | None = None
    if teacher is not None:
        answered = teacher(batch, goal.teacher_taps)
        checks.append(_frozen(teacher, answered, batch))
        answered = replace(answered, output=task.canonical(answered.output.detach()))
        if stored is not None:
            checks.append(_aligned(answered.output, task.canonical(stored.output), stored.output.dtype))
        checks.append(_order(answered.output, batch, task))
    with _evaluating(student):
        seen = observe(student, batch, goal.student_taps)
        seen = replace(seen, output=task.canonical(seen.output))
        goal.build(seen, answered, task)
        if answered is not None:
            checks.extend(_equal(goal, seen, answered, batch, task))
            checks.extend(_tempered(goal, answered, batch))
        checks.append(_weights(goal))
        checks.append(_balance(goal, seen, answered, batch, student))
    return Conventions(tuple(checks))


class _evaluating:  # noqa: N801 (reads as a verb where it is used)
    """Evaluation mode for a while; each module's own mode afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.modes = model, [(m, m.training) for m in model.modules()]

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self.modes:
            module.training = training


def _frozen(teacher: Source, answered: Signal, batch: Batch) -> Check:
    name = "teacher frozen"
    hint = "put it into evaluation mode, and answer under torch.no_grad()"

    def failed(text: str, **values: float) -> Check:
        return Check(name, "failed", text, values, TeacherError, hint)

    if answered.output.requires_grad or any(t.requires_grad for t in answered.taps.values()):
        return failed("its answers carry a gradient")
    before = teacher.fingerprint
    again, half = teacher(batch).output, teacher(_head(batch, max(len(batch) // 2, 1))).output
    twice, alone = _gap(answered.output, again), _gap(answered.output[: len(half)], half)
    if twice > ANSWERED:
        return failed(f"the same rows, asked twice, differ by {twice:.2g} of the largest logit: dropout left on?", twice=twice)
    if alone > ANSWERED:
        return failed(f"rows are answered {alone:.2g} of the largest logit apart in half a batch: batch statistics left on?", alone=alone)
    if teacher.fingerprint != before:
        return failed("asking changed its fingerprint")
    return Check(name, "ok", "no gradient, the same answer twice, rows independent", {"twice": twice, "alone": alone})


def _aligned(live: Tensor, stored: Tensor, precision: torch.dtype) -> Check:
    allowed = STORED.get(precision, STORED[torch.float16])  # a store of half precision hands out float32
    name = "store aligned"
    if live.shape != stored.shape:
        text = f"live answers {tuple(live.shape)}, stored ones {tuple(stored.shape)}"
        return Check(name, "failed", text, {}, StoreError, "annotate again with this teacher")
    rows = torch.tensor([_gap(a, b) for a, b in zip(live, stored, strict=True)])
    wrong, worst = int((rows > allowed).sum()), float(rows.max())
    values = {"rows": float(len(rows)), "wrong": float(wrong), "worst": worst, "allowed": allowed}
    if wrong:
        text = f"{wrong} of {len(rows)} rows answered live differ from the stored answers, by up to {worst:.2g} of the row's largest logit"
        return Check(name, "failed", text, values, StoreError, "the store is of another teacher or other rows: annotate again")
    return Check(name, "ok", f"{len(rows)} rows answered live equal the stored ones within {max(worst, 0):.1g}", values)


def _order(output: Tensor, batch: Batch, task: Task) -> Check:
    name = "class order"
    if task.kind != "classification" or batch.labels is None:
        why = "no labels in the batch" if task.kind == "classification" else f"not for {task.kind}"
        return Check(name, "skipped", why)
    known = task.known(batch.labels)
    y = batch.labels[known].reshape(-1).cpu().numpy()
    log_p = torch.log_softmax(output.detach()[known].reshape(-1, task.outcomes).double(), -1).clamp(min=-50.0).cpu().numpy()
    if not len(y):
        return Check(name, "skipped", "no row has a label")
    kinds = len(np.unique(y))
    if len(y) < 20 or kinds < 2:
        of = f"{kinds} classes" if kinds > 1 else "one class"
        return Check(name, "skipped", f"too few labels to tell: {len(y)}, of {of}")
    gain, p, order = _better_order(log_p, y)
    values = {"gain": gain, "p": p}
    if p < SIGNIFICANT:
        swapped = [f"{i}→{int(j)}" for i, j in enumerate(order) if i != j]
        text = f"the labels fit better with outcomes exchanged ({', '.join(swapped[:6])}{', …' if len(swapped) > 6 else ''}; p = {p:.1g})"
        return Check(name, "failed", text, values, TeacherError, "classes= of the teacher names its outcomes in its own order")
    return Check(name, "ok", f"no other order of the outcomes fits {len(y)} labels better", values)


def _better_order(log_p: NDArray, y: NDArray) -> tuple[float, float, NDArray]:
    """(N, C) log-probabilities, (N,) classes → mean gain of the best other order in nats, its one-sided p-value, that order.

    Outcomes are centred over rows and classes weighed alike, so that a teacher who merely prefers an outcome, or was trained on another
    balance, is not taken for one who mixes outcomes up. The order is chosen on one half of the rows and judged on the other, both ways,
    so that having searched all C! of them costs no significance; the test is a paired t-test on rows.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and needed once in a run
    from scipy.special import stdtr

    outcomes = log_p.shape[1]
    score = log_p - log_p.mean(0)
    balance = (1 / np.bincount(y, minlength=outcomes).clip(1))[y]
    balance /= balance.mean()
    half = np.zeros(len(y), dtype=bool)
    for c in range(outcomes):  # every class in both halves
        half[np.flatnonzero(y == c)[::2]] = True

    def best(rows: NDArray) -> NDArray:
        fit = np.zeros((outcomes, outcomes))
        np.add.at(fit, y[rows], score[rows] * balance[rows, None])
        return linear_sum_assignment(fit, maximize=True)[1]

    gain = np.empty(len(y))
    for rows in (half, ~half):
        order = best(~rows)
        gain[rows] = (score[rows, order[y[rows]]] - score[rows, y[rows]]) * balance[rows]
    mean, error = gain.mean(), gain.std(ddof=1) / math.sqrt(len(gain))
    if error == 0:
        return float(mean), 0.0 if mean > 0 else 1.0, best(np.ones(len(y), dtype=bool))
    return float(mean), float(stdtr(len(gain) - 1, -mean / error)), best(np.ones(len(y), dtype=bool))


def _equal(goal: Objective, student: Signal, teacher: Signal, batch: Batch, task: Task) -> list[Check]:
    checks = []
    theirs = _double(teacher.output)
    for name, term in _named(goal):
        if not term.needs_teacher or "zero" not in term.keeps or term.student_taps:
            continue
        if student.output.shape != teacher.output.shape or any(True for _ in term.parameters()):
            continue  # a projector lies between them, and nobody answers as the teacher does before it is trained
        value, pull = _pull(term, theirs, theirs, batch)
        other, usual = _pull(term, _double(student.output), theirs, batch)
        values = {"value": value, "gradient": pull}
        if value > 1e-6 * (1 + other) or pull > 1e-6 * (1 + usual):
            text = f"{term!r} is {value:.3g}, with a gradient of {pull:.2g}, where the student answers as the teacher"
            checks.append(Check(f"{name} at equality", "failed", text, values))
        else:
            checks.append(Check(f"{name} at equality", "ok", "0, without gradient, where student and teacher agree", values))
    return checks


def _tempered(goal: Objective, teacher: Signal, batch: Batch) -> list[Check]:
    checks = []
    theirs = _double(teacher.output)
    noise = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0), dtype=theirs.dtype).to(theirs.device)
    high = 100 * float(theirs.abs().max().clamp(min=1.0))
    for name, term in _named(goal):
        if not isinstance(term, Tempered):
            continue
        pulls = []
        for temperature in (high, 2 * high):
            hot = term.at(temperature)
            hot.build(Signal(theirs), Signal(theirs), term.task)
            pulls.append(_pull(hot, theirs + noise, theirs, batch)[1])
        if not any(pulls) and (batch.labels is None or not bool(term.task.known(batch.labels).any())):
            checks.append(Check(f"{name} temperature", "skipped", "no known label in the batch"))
            continue
        ratio = pulls[0] / pulls[1] if pulls[1] else math.nan
        values = {"ratio": ratio, "temperature": number_in(term.temperature)}
        if abs(ratio - 1) < 0.05:
            text = f"{('no T', 'T', 'T²')[term.order]} in place: the gradient does not depend on a high temperature (ratio {ratio:.3f})"
            checks.append(Check(f"{name} temperature", "ok", text, values))
        else:
            text = f"{term!r}: doubling a high temperature divides the gradient by {ratio:.2f}, not by 1"
            hint = f"order={term.order} is the power of T: 2 for what is quadratic near equality, 1 for what is linear"
            checks.append(Check(f"{name} temperature", "failed", text, values, hint=hint))
    return checks


def _weights(goal: Objective) -> Check:
    ends = {name: w.extremes for name, w in zip(goal.names, goal.weights, strict=True)}
    least, most = min(min(e) for e in ends.values()), max(max(e) for e in ends.values())
    values = {name: max(e) for name, e in ends.items()}
    if least < 0:
        wrong = next(name for name, e in ends.items() if min(e) < 0)
        return Check("weights", "failed", f"{wrong} weighs {least:g}: it pushes the student away", values, hint="weights are 0 or more")
    if most == 0:
        return Check(
            "weights", "failed", "every weight is 0: there is nothing to learn", values, hint="1.0 * kl(), or leave the weight out"
        )
    return Check("weights", "ok", "none is negative, not all are 0", values)


def _balance(goal: Objective, student: Signal, teacher: Signal | None, batch: Batch, model: nn.Module) -> Check:
    trained = [p for p in model.parameters() if p.requires_grad]
    if len(goal.terms) < 2 or not trained:
        return Check("balance", "skipped", "one term" if trained else "the student has nothing to train")
    pulls: dict[str, float] = {}
    for name, weight, (_, term) in zip(goal.names, goal.weights, _named(goal), strict=True):
        if weight.measured:
            continue  # it will pull as was asked
        value = Objective([(weight, term)])
        value.task = goal.task
        size = max((abs(number_in(weight.at(progress))), progress) for progress in (0.0, 1.0))  # the larger end of a ramp
        total = value(student, teacher, batch, size[1]).total
        grads = torch.autograd.grad(total, trained, retain_graph=True, allow_unused=True) if total.requires_grad else ()
        pulls[name] = math.sqrt(sum(float(g.double().square().sum()) for g in grads if g is not None))
    largest = max(pulls.values())
    shares = {name: pull / largest if largest else math.nan for name, pull in pulls.items()}
    said = ", ".join(f"{name} {share:.2g}" for name, share in shares.items())
    if weak := [name for name, share in shares.items() if share < NEGLIGIBLE]:
        text = f"{', '.join(weak)} hardly pulls at the student beside the others (gradient norms {said})"
        return Check("balance", "warning", text, shares)
    return Check("balance", "ok", f"gradient norms beside the largest: {said}", shares)


def _named(goal: Objective) -> list[tuple[str, Term]]:
    return [(name, term) for name, term in zip(goal.names, goal.terms, strict=True) if isinstance(term, Term)]


def _pull(term: Term, student: Tensor, teacher: Tensor, batch: Batch) -> tuple[float, float]:
    """Mean of |term| and norm of its gradient to the student's output, over positions that are there, without weights."""
    output = student.detach().clone().requires_grad_()
    measured = term.measure(Signal(output), Signal(teacher), batch)
    if batch.mask is not None and batch.mask.shape == measured.shape:  # what is not there is no answer to agree on
        measured = measured.masked_fill(~batch.mask, 0.0)
    (grad,) = torch.autograd.grad(measured.mean(), output)
    return float(measured.detach().abs().mean()), float(grad.norm())


def _double(output: Tensor) -> Tensor:
    """In float64; what is infinite becomes a logit of 50 below the rest, so that each divergence is finite."""
    wide = output.detach().double()
    finite = wide[torch.isfinite(wide)]
    low = float(finite.min()) - 50.0 if finite.numel() else -50.0
    return torch.nan_to_num(wide, nan=math.nan, neginf=low)


def _gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest finite number of the first (or 1); equal infinities are equal, NaN differs from all."""
    one, other = one.detach().double(), other.detach().double().to(one.device)
    same = one == other
    size = torch.where(torch.isfinite(one), one.abs(), 0).max().clamp(min=1.0)
    gap = torch.where(same, 0.0, (one - other).abs() / size)
    return float(torch.nan_to_num(gap, nan=math.inf).max())


def _head(batch: Batch, rows: int) -> Batch:
    def cut(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:rows]

    inputs = batch.inputs
    return replace(
        batch,
        inputs=inputs[:rows] if isinstance(inputs, Tensor) else {k: v[:rows] for k, v in inputs.items()},
        labels=cut(batch.labels),
        mask=cut(batch.mask),
        weight=cut(batch.weight),
        ids=cut(batch.ids),
        views=cut(batch.views),
    )
