"""Terms add and scale: the sum is an Objective, the only place where positions are reduced; a Distiller wraps it with a student."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from attar.errors import ObjectiveError
from attar.objective.balancing import pull
from attar.objective.weights import Number, Weight, as_weight
from attar.signal import IGNORE, NOTHING, Batch, Schema, Signal
from attar.tap import observe
from attar.task import Task, classification, multilabel, regression, task_for

__all__ = ["Distiller", "Loss", "Objective", "Property", "Term", "as_objective", "blend"]

Property = Literal["zero", "positive", "rows", "shift", "scale", "rotation", "accumulation"]
"""What a term may promise, and the contract battery tests:

zero: 0, and without gradient, where the student answers as the teacher does · positive: above 0 elsewhere · rows: the order of rows
does not matter · shift: nor does a number added to all logits of a position, of taps one vector added to the features of every row ·
scale: nor a factor common to all logits, or features, of both · rotation: nor an orthogonal map of tapped features · accumulation: the
mean over equal parts of a batch is that over the batch.
"""


class Loss(NamedTuple):
    """total: () what is to be minimised, with its gradient. parts: each term by name, () without weight and gradient."""

    total: Tensor
    parts: dict[str, Tensor]


class Term(nn.Module, abc.ABC):
    """Compares two signals, one number for each position; the kinds of comparison below it are final.

    needs_teacher: whether `measure` looks at the teacher at all.
    compares_outputs: whether it compares the answers themselves, which must then have one shape; terms of taps alone do not.
    min_outcomes: with fewer the idea is empty, and the term refuses.
    keeps: the properties that hold, and no others do.
    student_taps, teacher_taps: module paths whose activations `measure` reads.

    `0.9 * term`, `term + term` and `-term` are objectives; equality is that of the text, `repr`, which a recipe reads back.
    """

    needs_teacher: ClassVar[bool] = True
    compares_outputs: ClassVar[bool] = True
    min_outcomes: ClassVar[int] = 1
    keeps: ClassVar[frozenset[Property]] = frozenset()
    student_taps: frozenset[str] = NOTHING
    teacher_taps: frozenset[str] = NOTHING
    task: Task

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> None:
        """Sees one pair of signals before training: refuses what it cannot compare, makes its projectors, keeps the task.

        Raises ObjectiveError: fewer outcomes than `min_outcomes`, no teacher where one is needed, outputs of different shapes.
        """
        if task.outcomes < self.min_outcomes:
            what = "a regression answers with 1 number" if task.outcomes == 1 else f"the task has {task.outcomes} outcomes"
            what = "an embedding's coordinates are none" if task.kind == "embedding" else what
            raise ObjectiveError(f"{self!r} compares at least {self.min_outcomes} outcomes, {what}", hint=_instead(task))
        if self.needs_teacher:
            if teacher is None:
                raise ObjectiveError(f"{self!r} needs a teacher, there is none", hint="labels() does without")
            ours, theirs = tuple(student.output.shape), tuple(teacher.output.shape)
            if self.compares_outputs and ours != theirs:
                if task.kind == "embedding" and ours[:-1] == theirs[:-1]:
                    raise ObjectiveError(
                        f"{self!r}: the student answers {ours[-1]} coordinates, the teacher {theirs[-1]}",
                        hint=f"cosine(align='auto') bears it, or give the teacher as many: pca(..., dimensions={ours[-1]})",
                    )
                raise ObjectiveError(
                    f"{self!r}: the student answers {ours}, the teacher {theirs}", hint="one outcome axis for both, in one order"
                )
        self.task = task

    @abc.abstractmethod
    def measure(self, student: Signal, teacher: Signal | None, batch: Batch) -> Tensor:
        """The unreduced number of each position, (...), or of each row, (B,), or of the batch, (). Sums over outcomes alone."""

    def known(self, batch: Batch) -> Tensor | None:
        """(...) bool, the positions this term can say something about; None: all. Elsewhere `measure` gives 0. For terms of labels."""
        return None

    @property
    def word(self) -> str:
        """The name in recipes, logs and `Loss.parts`."""
        return repr(self).partition("(")[0]

    @abc.abstractmethod
    def __repr__(self) -> str:
        """The text that reads back to this term."""

    def __add__(self, other: Term | Objective) -> Objective:
        return as_objective(self) + other

    def __mul__(self, factor: float | Tensor | Weight) -> Objective:
        return as_objective(self) * factor

    def __rmul__(self, factor: float | Tensor | Weight) -> Objective:
        return as_objective(self) * factor

    def __neg__(self) -> Objective:
        return as_objective(self) * -1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term | Objective) and repr(self) == repr(other)

    # By identity, though equality is by text: PyTorch collects the modules of a tree in a set, where two equal terms are two modules.
    __hash__ = nn.Module.__hash__


class Objective(nn.Module):
    """A weighted sum of terms, and the one masked and weighted mean.

    Each term's value is Σ w ℓ / Σ w over positions, w = row weight × mask × (for terms of labels) whether the label is known. So weights
    are relative, a row of weight 0 is a row that is not there, and unlabelled rows take no part in `labels` while they teach through the
    others. Where nothing counts the value is 0 and so is every gradient, never NaN; what lies at a masked position cannot be seen.
    The mean is that of the batch at hand: over micro-batches or processes, the average of their losses is the loss of the whole where
    their Σ w agree (equal sizes, when nothing is masked or weighted).

    >>> from attar.objective import kl, labels
    >>> 0.9 * kl(temperature=4) + 0.1 * labels()
    0.9 * kl(temperature=4.0) + 0.1 * labels(smoothing=0.0)
    """

    def __init__(self, parts: Iterable[tuple[Weight, Term]]) -> None:
        super().__init__()
        pairs = tuple(parts)
        self.weights = tuple(weight for weight, _ in pairs)
        self.terms = nn.ModuleList(term for _, term in pairs)
        self._parts = pairs  # the same again, typed, and without a look-up by name in each step
        self.knobs = nn.ModuleList({id(part): part for w in self.weights for part in w.held}.values())
        self.student_taps: frozenset[str] = frozenset().union(*(t.student_taps for _, t in pairs))
        self.teacher_taps: frozenset[str] = frozenset().union(*(t.teacher_taps for _, t in pairs))
        self.needs_teacher = any(t.needs_teacher or w.needs_teacher for w, t in pairs)
        self.balanced = tuple((s, every, t) for w, t in pairs for s, every in w.measured)
        self.reference = next((i for i, (w, _) in enumerate(pairs) if not w.measured), None)  # by number: a module has one place
        self.names = _names([t.word for _, t in pairs])
        self.task: Task | None = None

    def build(self, student: Signal, teacher: Signal | None, task: Task) -> Objective:
        """Shows one pair of signals to every term, which makes its projectors or refuses with ObjectiveError. Returns itself."""
        if self.needs_teacher and teacher is None and (asking := [w for w, t in self._parts if w.needs_teacher and not t.needs_teacher]):
            raise ObjectiveError(f"{asking[0]!r} asks a teacher, there is none", hint='gate("labelled") does without')
        if self.balanced and self.reference is None:
            raise ObjectiveError(f"{self!r} has no term to be balanced against", hint="balance() * x + y: the first without balance is it")
        student, teacher = _canonical(student, task), None if teacher is None else _canonical(teacher, task)
        for weight, term in self._parts:
            weight.check(task)
            term.build(student, teacher, task)
        self.task = task
        return self

    def forward(
        self,
        student: Signal,
        teacher: Signal | None,
        batch: Batch,
        progress: float = 1.0,
        trained: Sequence[Tensor] | None = None,
    ) -> Loss:
        """Signals of the same rows → Loss. No gradient reaches the teacher.

        progress: share of training done, 0..1, for ramps. trained: the student's weights, by whose gradients `balance` measures; a
        Distiller hands them over.
        """
        if self.task is None:
            raise ObjectiveError("an objective that has not been built", hint="objective.build(student_signal, teacher_signal, task) first")
        student = _canonical(student, self.task)
        if teacher is not None:
            teacher = _still(_canonical(teacher, self.task))
        elif self.needs_teacher:
            raise ObjectiveError(f"{self!r} needs a teacher's answers, there are none")
        counts = _counting(batch)
        if counts is not None:
            student = _blank(student, counts)
            teacher = None if teacher is None else _blank(teacher, counts)
        if self.balanced and self.training and torch.is_grad_enabled():
            self._balance(student, teacher, batch, counts, trained)
        total: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for name, (weight, term) in zip(self.names, self._parts, strict=True):
            measured = term.measure(student, teacher, batch)
            value = _mean(measured, counts, term.known(batch), batch.weight)
            parts[name] = value.detach()
            if weight.by_rows:
                gated = _gated(measured, weight.rows(progress, teacher, batch, self.task), weight, term)
                value, factor = _mean(gated, counts, term.known(batch), batch.weight), 1.0
            else:
                factor = weight.at(progress)
            if total is None:
                total = value if isinstance(factor, float) and factor == 1.0 else value * factor
            elif isinstance(factor, float):
                total = torch.add(total, value, alpha=factor)  # one kernel for two
            else:
                total = total + value * factor
        assert total is not None  # an objective has a term, by construction
        return Loss(total, parts)

    def _balance(
        self, student: Signal, teacher: Signal | None, batch: Batch, counts: Tensor | None, trained: Sequence[Tensor] | None
    ) -> None:
        """Measures what is due: the gradients of the reference and of the balanced terms, before they meet in one loss."""
        if trained is None:
            raise ObjectiveError("balance() compares gradients, and nobody said whose", hint="objective(..., trained=[*net.parameters()])")
        due = [(scale, term) for scale, every, term in self.balanced if scale.due(every)]
        if not due:
            return
        assert self.reference is not None  # `build` has seen to it

        def pulls(term: Term) -> Tensor:
            return pull(_mean(term.measure(student, teacher, batch), counts, term.known(batch), batch.weight), trained)

        reference = pulls(self._parts[self.reference][1])
        for scale, term in due:
            scale.note(reference, pulls(term))

    def __add__(self, other: Term | Objective) -> Objective:
        if not isinstance(other, Term | Objective):
            return NotImplemented
        return Objective([*self._parts, *as_objective(other)._parts])

    def __mul__(self, factor: float | Tensor | Weight) -> Objective:
        if not isinstance(factor, int | float | Tensor | Weight):
            return NotImplemented
        by = as_weight(factor)
        return Objective((weight.scaled(by), term) for weight, term in self._parts)

    def __rmul__(self, factor: float | Tensor | Weight) -> Objective:
        return self * factor

    def __neg__(self) -> Objective:
        return self * -1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term | Objective) and repr(self) == repr(other)

    __hash__ = nn.Module.__hash__  # see Term

    def __repr__(self) -> str:
        return " + ".join(repr(term) if weight == Number(1.0) else f"{weight!r} * {term!r}" for weight, term in self._parts)


class Distiller(nn.Module):
    """A student and its objective as one module: exactly what trains, so exactly what DDP or FSDP wraps. The teacher is never inside.

    task: what is asked; None infers it from the batch that `build` sees (its schema, else the type of its labels).
    `.student` holds the student and nothing else; projectors live in `.objective`, and in no checkpoint of the student.

    >>> from attar.objective import kl, labels
    >>> student, batch = nn.Linear(3, 2), Batch(torch.zeros(4, 3), labels=torch.tensor([0, 1, 1, 0]))
    >>> teacher = Signal(torch.tensor([[1.0, -1.0]]).expand(4, 2))
    >>> distiller = Distiller(student, 0.9 * kl(temperature=2) + 0.1 * labels()).build(batch, teacher)
    >>> loss = distiller(batch, teacher)
    >>> loss.total.backward()
    >>> sorted(loss.parts)
    ['kl', 'labels']
    """

    def __init__(self, student: nn.Module, objective: Term | Objective, task: Task | None = None) -> None:
        super().__init__()
        self.student = student
        self.objective = as_objective(objective)
        self.task = task

    def build(self, batch: Batch, teacher: Signal | None = None) -> Distiller:
        """Makes projectors and tries one loss on `batch`, without a gradient and in evaluation mode: no statistic moves. Returns itself.

        Raises ObjectiveError, TapError or StudentError for what cannot be compared, before a teacher-hour is spent.
        """
        modes = [(module, module.training) for module in self.student.modules()]
        self.student.eval()
        try:
            with torch.no_grad():
                student = observe(self.student, batch, self.objective.student_taps)
                if self.task is None:
                    self.task = _infer(batch, student)
                _check_labels(batch, self.task)
                self.objective.build(student, teacher, self.task)
                self.objective(student, teacher, batch)
        finally:
            for module, training in modes:
                module.training = training
        return self

    def forward(self, batch: Batch, teacher: Signal | None = None, progress: float = 1.0) -> Loss:
        """One step's loss: rows and the teacher's answers to them → Loss. progress: share of training done, 0..1, for ramps."""
        objective = self.objective
        student = observe(self.student, batch, objective.student_taps)
        if objective.balanced:
            return objective(student, teacher, batch, progress, [p for p in self.student.parameters() if p.requires_grad])
        return objective(student, teacher, batch, progress)


def as_objective(value: Term | Objective) -> Objective:
    """A term alone is the objective `1 * term`; an objective is itself."""
    if isinstance(value, Objective):
        return value
    if isinstance(value, Term):
        return Objective([(Number(1.0), value)])
    raise ObjectiveError(
        f"{value!r} is a {type(value).__name__}, not a term or a sum of terms", hint="0.9 * kl(temperature=2) + 0.1 * labels()"
    )


def blend(first: Term | Objective, second: Term | Objective, weight: float | Tensor | Weight = 0.9) -> Objective:
    """`weight * first + (1 − weight) * second`: one number to search, for a share of the teacher against the labels.

    weight: of the first, 0..1; a number, a `ramp`, a `gate`, or a 0-dimensional tensor. 0.9 is what Hinton's followers use on CIFAR-100
        (mdistiller, RepDistiller), with terms in attar's unit. It does not carry over to references that average over outcomes or leave
        out T².

    >>> from attar.objective import kl, labels
    >>> blend(kl(temperature=2), labels(), weight=0.9)
    0.9 * kl(temperature=2.0) + 0.1 * labels(smoothing=0.0)
    """
    share = as_weight(weight)
    if isinstance(share, Number) and not 0 <= share.value <= 1:
        raise ObjectiveError(f"blend(weight={share.value:g}) is not a share", hint="0 ≤ weight ≤ 1; for other factors write a * x + b * y")
    return as_objective(first) * share + as_objective(second) * share.rest()


def _names(words: list[str]) -> tuple[str, ...]:
    """kl, kl_2, labels: the second of a kind has a number."""
    seen: dict[str, int] = {}
    for word in words:
        seen[word] = seen.get(word, 0) + 1
    count: dict[str, int] = {}
    names = []
    for word in words:
        count[word] = count.get(word, 0) + 1
        names.append(word if count[word] == 1 else f"{word}_{count[word]}")
    return tuple(names)


def _canonical(signal: Signal, task: Task) -> Signal:
    output = task.canonical(signal.output)
    return signal if output is signal.output else Signal(output, signal.taps, signal.masks)


def _still(signal: Signal) -> Signal:
    """The signal without gradients."""
    return Signal(signal.output.detach(), _each_detached(signal.taps) if signal.taps else signal.taps, signal.masks)


def _each_detached(taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {path: tensor.detach() for path, tensor in taps.items()}


def _counting(batch: Batch) -> Tensor | None:
    """(B, ...) or (B,) bool, where mask and row weight let a position count; None: everywhere."""
    if batch.weight is None:
        return batch.mask
    there = batch.weight != 0
    return there if batch.mask is None else batch.mask & _spread(there, batch.mask.dim())


def _blank(signal: Signal, counts: Tensor) -> Signal:
    """What does not count answers 0 with no gradient, so that a NaN or an infinity there cannot leak through 0 · NaN."""
    output = signal.output.masked_fill(~_spread(counts, signal.output.dim()), 0.0)
    return Signal(output, signal.taps, signal.masks)


def _spread(values: Tensor, dims: int) -> Tensor:
    """(B, ...) → (B, ..., 1, 1): axes appended until there are `dims`."""
    return values if values.dim() >= dims else values.reshape(values.shape + (1,) * (dims - values.dim()))


def _mean(positions: Tensor, counts: Tensor | None, known: Tensor | None, weight: Tensor | None) -> Tensor:
    """Σ w ℓ / Σ w: (...) → (). A number for the whole batch, (), is taken as it is; one for a row counts where any position of it does."""
    if counts is None:
        if known is None:
            return positions.mean()
        return positions.sum() / known.sum().clamp(min=1)  # what is not known is 0 already
    dims = positions.dim()
    if dims == 0:
        return positions
    counts = counts.flatten(dims).any(-1) if counts.dim() > dims else _spread(counts, dims).expand_as(positions)
    counts = counts if known is None else counts & known
    positions = positions.masked_fill(~counts, 0.0)
    if weight is None:
        total = counts.sum().to(positions.dtype)
    else:
        weight = _spread(weight, dims)
        positions, total = positions * weight, (weight * counts).sum().to(positions.dtype)
    return positions.sum() / total.clamp(min=torch.finfo(total.dtype).tiny)  # 0 / tiny is 0 where nothing counts


def _gated(measured: Tensor, factors: float | Tensor, weight: Weight, term: Term) -> Tensor:
    """Numbers of positions, (...) or (B,), times the factor of each; where that is 0 neither a value nor a gradient is left."""
    if measured.dim() == 0:
        raise ObjectiveError(
            f"{weight!r} weighs rows, and {term!r} gives one number for the whole batch", hint="weigh it by a number or a ramp"
        )
    assert isinstance(factors, Tensor)  # who differs from row to row says so with a tensor
    if factors.shape != measured.shape:  # of a row that the term takes as a whole, or by other positions: the mean over its own
        factors = _spread(factors.flatten(1).mean(1) if factors.dim() > 1 else factors, measured.dim())
    return measured.masked_fill(factors == 0, 0.0) * factors.to(measured.dtype)


def _infer(batch: Batch, student: Signal) -> Task:
    """The task that a batch without a task implies."""
    if batch.schema is not None:
        return task_for(batch.schema)
    labels, output = batch.labels, student.output
    if labels is not None and labels.dtype.is_floating_point:
        return regression().bind(Schema("tensor"))
    if labels is not None and output.shape in (labels.shape, (*labels.shape, 2)) and labels.dim() == 2 and labels.shape[-1] > 1:
        return multilabel().bind(_numbered(labels.shape[-1]))
    if labels is None and output.shape[-1] == 1:
        raise ObjectiveError("one output and no labels: two classes or a number?", hint="Distiller(student, objective, task=...)")
    return classification().bind(_numbered(max(output.shape[-1], 2) if output.dim() > 1 else 2))


def _check_labels(batch: Batch, task: Task) -> None:
    """Classes out of range are refused here, where they can be named; inside a loss they are an index error or worse."""
    if batch.labels is None or batch.labels.dtype.is_floating_point:
        return
    known = batch.labels[batch.labels != IGNORE]
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < task.outcomes:
        raise ObjectiveError(
            f"labels from {int(known.min())} to {int(known.max())}, the task has {task.outcomes} outcomes",
            hint=f"classes are 0..{task.outcomes - 1}, unknown ones {IGNORE}",
        )


def _numbered(classes: int) -> Schema:
    return Schema("tensor", classes=tuple(str(i) for i in range(classes)))


def _instead(task: Task) -> str:
    if task.kind == "embedding":
        return "cosine() compares vectors"
    return "mse() compares numbers" if task.outcomes == 1 else "kl() compares two outcomes as well as more"
