"""What could be put in place without a search: the teacher, its int8 file, a part of it, a student on labels alone; each measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from attar.certificate import Figure
from attar.cost import Budget, Candidate, Compared, Cost, compare
from attar.data import Data, Split
from attar.errors import AttarError
from attar.progress import Event, Listener, silent
from attar.searched import Competitor, Priced
from attar.signal import Batch, Source, Weighed
from attar.sources.answers import order_of
from attar.sources.hf import HF
from attar.sources.module import Module
from attar.sources.onnx import Onnx
from attar.sources.taught import TaughtNets, TaughtTrees
from attar.sources.trees import LightGBM, XGBoost
from attar.sources.vision import Pretrained
from attar.statistics import Draws, bootstrap, paired_proportions
from attar.task import Task
from attar.verbs.evaluate.models import Model, Rows
from attar.verbs.evaluate.scoring import figure, resamples
from attar.verbs.export import export
from attar.verbs.export.folder import FLOAT, INT8
from attar.verbs.search.parts import Cut, Mean, Trees, cuts_of, fewer_layers, narrowed, numbers_of, tree_graph
from attar.verbs.search.pricing import priced

__all__ = ["LABELS", "TEACHER", "Beside", "beside"]

TEACHER, LABELS = "teacher", "labels alone"
INT8_TEACHER, PART = "teacher in int8", "part of the teacher"

SECONDS = 2.0  # for each candidate
GLANCE = 0.3  # for one tree and for all of them, by which it is told how many keep the budget
PARTS = 3  # of trees: the most that keep the budget, half of these, a quarter
SAFE = 0.9  # of a bound: what a part is chosen for, so that it keeps the bound when it is measured again
HALF = 0.5  # of a net's channels or layers

Precision = Literal["float", "int8"]


@dataclass(frozen=True)
class Beside:
    """Everything that could be put in place, measured side by side in one run.

    teacher: as it is. competitors: what could be had without a search, those that cannot be made among them. finalists: what each costs,
    by name. compared: the costs behind it, so that ratios are paired; a competitor's name is its key.
    """

    teacher: Competitor
    competitors: tuple[Competitor, ...]
    finalists: Mapping[str, Priced]
    compared: Compared


@dataclass(frozen=True)
class _Form:
    """One competitor before it is measured. faces: sources that answer alike, by how they are asked; the fastest counts. why: what it is,
    or, without faces, why it is not there."""

    name: str
    why: str
    faces: Mapping[str, Source]
    precision: Precision = "float"


def beside(
    teacher: Source,
    data: Data,
    task: Task,
    rows: Split,
    *,
    bounds: Budget,
    at: str | Path,
    finalists: Mapping[str, Source] | None = None,
    labels: nn.Module | Source | None = None,
    seconds: float = SECONDS,
    listen: Listener = silent,
) -> Beside:
    """Ask the teacher and whatever can be had without a search about `rows`, and measure what they cost beside the finalists.

    teacher: live, not its stored answers, for it is timed. data: on whose validation rows thresholds and temperatures are fixed; `rows`
        are others, the half that no choice has seen. at: a folder for the graphs that are made. finalists: exported, by name. labels: the
        best student of those that learnt from labels alone, trained or exported.

    The competitors, each with its metric on `rows` and its difference to the teacher, paired:
    - the teacher by the fastest way to ask it: as it is, or as a graph in ONNX Runtime where one can be made that answers alike;
    - in int8: nets, as `export` quantises; trees have no such form;
    - a part of it: of boosted trees the most first rounds that keep the budget, and fewer; of a cross-fitted teacher's nets one; of
      attar's mlp and cnn the strongest half of the channels; of a model of texts half of the layers. Nothing is trained
      afterwards, so that of nets little may be left;
    - a student that learnt from labels alone.
    What cannot be made is there without a figure, and says why. Costs are of calls such as the budget names, as
    `attar.cost.compare` measures them.
    """
    at = Path(at)
    listen(Event("competitors", text="making what could be put in place without a search"))
    some = rows.batch(torch.arange(bounds.many) % len(rows))
    forms = list(_forms(teacher, data, task, some, bounds, at, labels))
    candidates = {f"{form.name}, {how}": _candidate(face, some, bounds) for form in forms for how, face in form.faces.items()}
    candidates |= {name: _candidate(source, some, bounds) for name, source in (finalists or {}).items()}
    listen(Event("competitors", text=f"measuring {len(candidates)} models side by side"))
    compared = compare(candidates, seconds=seconds, threads=bounds.threads, undisturbed=True)
    fastest = {form.name: _fastest(form, compared) for form in forms if form.faces}
    asked = {name: Model(name, form_face[1], task) for name, form_face in fastest.items()}
    quality = _Quality.of(asked, data, task, rows)
    found = []
    for form in forms:
        if form.name not in fastest:
            found.append(Competitor(form.name, None, Priced(None), False, form.why))
            continue
        how, _ = fastest[form.name]
        cost = compared.costs[f"{form.name}, {how}"]
        why = form.why if len(form.faces) == 1 else f"{form.why}; {how}, the faster way to ask it"
        score, difference = quality.of_one(form.name)
        difference = None if form.name == TEACHER else difference
        price, within = priced(cost, form.precision), _within(bounds, cost)
        found.append(Competitor(form.name, score, price, within, why, difference, quality.first[form.name]))
    names = {f"{form.name}, {how}": form.name for form in forms if form.faces for how in [fastest[form.name][0]]}
    kept = {names.get(key, key): key for key in candidates if key in names or key in (finalists or {})}
    told = Compared(
        {name: compared.costs[key] for name, key in kept.items()},
        {name: compared.seconds_one[key] for name, key in kept.items()},
        {name: compared.seconds_many[key] for name, key in kept.items()},
    )
    prices = {name: priced(compared.costs[name], _precision(source)) for name, source in (finalists or {}).items()}
    return Beside(found[0], tuple(found[1:]), prices, told)


# --------------------------------------------------------------------------------------------------------------------- what there is


def _forms(
    teacher: Source, data: Data, task: Task, some: Batch, bounds: Budget, at: Path, labels: nn.Module | Source | None
) -> Iterator[_Form]:
    """The teacher first."""
    if isinstance(teacher, LightGBM | XGBoost | TaughtTrees):
        yield from _forms_of_trees(teacher, some, bounds)
    elif (net := _net_of(teacher, some)) is not None:
        yield from _forms_of_net(teacher, net, data, task, bounds.threads, at)
    elif isinstance(teacher, Onnx):
        yield _Form(TEACHER, "as it is", {"as it is": teacher})
        yield _int8_beside(teacher)
        yield _Form(PART, "a finished graph is not cut", {})
    else:
        yield _Form(TEACHER, "as it is", {"as it is": teacher})
        yield _Form(INT8_TEACHER, "no int8: this teacher is no net that can be exported", {})
        yield _Form(PART, "nobody knows which part of this teacher would answer by itself", {})
    yield _form_of_labels(labels, data, task, bounds.threads, at)


def _form_of_labels(labels: nn.Module | Source | None, data: Data, task: Task, threads: int, at: Path) -> _Form:
    if labels is None:
        return _Form(LABELS, "no student learnt from labels alone", {})
    why = "the best student of those that learnt from labels alone, tuned as the others were"
    if not isinstance(labels, nn.Module):
        return _Form(LABELS, why, {"exported": labels}, _precision(labels))
    try:
        exported = export(labels, data, task, at=at / "labels")
    except AttarError as error:
        return _Form(LABELS, error.message, {})
    return _Form(LABELS, why, {"exported": Onnx(str(exported.folder), threads=threads)})


def _forms_of_trees(teacher: Trees, some: Batch, bounds: Budget) -> Iterator[_Form]:
    cuts = cuts_of(teacher)
    whole = cuts(1 << 40)
    yield _Form(TEACHER, f"as it is, {whole.whole:,} trees", _faces(teacher, some, bounds))
    yield _Form(INT8_TEACHER, "trees have no int8 form: their thresholds and leaves are compared and added, not multiplied", {})
    parts = _affordable(cuts, whole, some, bounds)
    for cut in parts:
        yield _Form(
            f"{TEACHER}, {cut.trees:,} of {cut.whole:,} trees", f"{cut.words}, without distillation", _faces(cut.make(), some, bounds)
        )
    if not parts:
        yield _Form(PART, "the teacher is a single tree", {})


def _affordable(cuts: Callable[[int], Cut], whole: Cut, some: Batch, bounds: Budget) -> list[Cut]:
    """The most rounds that keep the budget, their half and their quarter; where all do, of all; where none does, one round."""
    if whole.rounds == 1:
        return []
    most, one = whole.rounds, cuts(1)
    glanced = {str(cut.rounds): _glanced(cut, some, bounds) for cut in (one, whole)}
    costs = compare(glanced, seconds=GLANCE, threads=bounds.threads, undisturbed=True).costs
    least, all_of_it = (_values(costs[str(cut.rounds)]) for cut in (one, whole))
    for limit in bounds.hold(all_of_it):
        here, there, bound = least[limit.name], limit.value, limit.limit
        if limit.ok or here is None or there is None:
            continue
        if limit.name == "rows_per_second":
            here, there, bound = 1 / here, 1 / there, 1 / bound
        if there > here:  # what a tree costs is a straight line
            share = (SAFE * bound - here) / (there - here)
            most = min(most, one.rounds + int(max(0.0, share) * (whole.rounds - one.rounds)))
    most = most if most < whole.rounds else whole.rounds // 2
    return list({(cut := cuts(max(1, most >> step))).rounds: cut for step in range(PARTS)}.values())


def _glanced(cut: Cut, some: Batch, bounds: Budget) -> Candidate:
    """A part as it is most probably asked fastest, its memory left out."""
    face = list(_faces(cut.make(), some, bounds).values())[-1]
    return replace(_candidate(face, some, bounds), memory=None)


def _values(cost: Cost) -> dict[str, float | None]:
    named = {"latency_ms": cost.latency_ms.p95.value, "size_mb": cost.size_mb, "parameters": cost.parameters}
    return {**named, "rows_per_second": cost.rows_per_second.value}


def _faces(trees: Trees, some: Batch, bounds: Budget) -> Mapping[str, Source]:
    graph = tree_graph(trees, some, bounds.threads)
    by = "XGBoost" if isinstance(trees, XGBoost) else "LightGBM"
    native: dict[str, Source] = {f"by {by}": trees}
    return native if isinstance(graph, str) else {**native, "by ONNX Runtime": graph}


def _net_of(teacher: Source, some: Batch) -> nn.Module | None:
    """The module whose answers are the teacher's as they stand; None where there is none, or its outcomes have another order."""
    if isinstance(teacher, TaughtNets):
        return Mean.of(teacher)
    if isinstance(teacher, Module) and teacher.reads == "inputs" and teacher.classes is None:
        return teacher.net
    if isinstance(teacher, Pretrained) and teacher.classes is None:
        return teacher.net
    if isinstance(teacher, HF):
        named = teacher.classes or teacher.folder.classes
        return teacher.model_for(some) if not named or order_of(named, some.schema, repr(teacher)) is None else None
    return None


def _forms_of_net(teacher: Source, net: nn.Module, data: Data, task: Task, threads: int, at: Path) -> Iterator[_Form]:
    graph, small = _exported(net, data, task, threads, at / "teacher")
    yield _Form(TEACHER, "as it is", {"by PyTorch": teacher} | ({} if isinstance(graph, str) else {"by ONNX Runtime": graph}))
    if isinstance(small, str):
        yield _Form(INT8_TEACHER, small, {})
    else:
        yield _Form(INT8_TEACHER, "quantised without further training", {"by ONNX Runtime": small}, "int8")
    first = net
    if isinstance(net, Mean):
        first, count = net.members[0], len(net.members)
        graph, small = _exported(first, data, task, threads, at / "one-net")
        name = f"{TEACHER}, one of its {count} nets"
        why = f"the first of the {count} nets whose mean the teacher is, without distillation"
        yield _Form(name, graph, {}) if isinstance(graph, str) else _Form(name, why, {"by ONNX Runtime": graph})
        if not isinstance(small, str):
            yield _Form(f"{name}, in int8", f"{why}, quantised", {"by ONNX Runtime": small}, "int8")
    if (thin := narrowed(first, HALF)) is not None:
        what = "the strongest half of each layer's channels" + (" of one of its nets" if first is not net else "")
        yield _part(f"{TEACHER}, half as wide", f"{what}, without any training afterwards", thin, data, task, threads, at / "half-width")
    elif (shallow := fewer_layers(first, HALF)) is not None:
        low, count, of = shallow
        why = f"{count} of its {of} layers, evenly spread, without any training afterwards"
        yield _part(f"{TEACHER}, {count} of {of} layers", why, low, data, task, threads, at / "half-depth")
    elif first is net:
        yield _Form(PART, "nobody knows which part of this net would answer by itself", {})


def _part(name: str, why: str, net: nn.Module, data: Data, task: Task, threads: int, at: Path) -> _Form:
    graph, _ = _exported(net, data, task, threads, at)
    return _Form(name, graph, {}) if isinstance(graph, str) else _Form(name, why, {"by ONNX Runtime": graph})


def _exported(net: nn.Module, data: Data, task: Task, threads: int, at: Path) -> tuple[Onnx | str, Onnx | str]:
    """The net's graph in float and in int8, or why there is none."""
    try:
        exported = export(net, data, task, at=at)
    except AttarError as error:
        return error.message, f"no int8: {error.message}"
    why = next((note for note in exported.notes if note.startswith(f"no {INT8}")), f"no {INT8}")
    small = Onnx(str(at / INT8), threads=threads) if INT8 in exported.files else why
    return Onnx(str(at / FLOAT), threads=threads), small


def _int8_beside(teacher: Onnx) -> _Form:
    """Of an exported folder the graph in int8 that lies in it."""
    if teacher.file.name != INT8 and teacher.manifest is not None and INT8 in teacher.manifest["files"]:
        return _Form(INT8_TEACHER, "as it was exported", {"as it is": Onnx(str(teacher.file.parent / INT8))}, "int8")
    why = "it is in int8 already" if teacher.file.name == INT8 else "a graph from elsewhere is not quantised: export the net that it was"
    return _Form(INT8_TEACHER, why, {})


# --------------------------------------------------------------------------------------------------------------------- what it costs


def _candidate(source: Source, some: Batch, bounds: Budget) -> Candidate:
    size, parameters = (source.size_bytes, source.parameters) if isinstance(source, Weighed) else (None, None)
    if isinstance(source, LightGBM | XGBoost | TaughtTrees):
        parameters = numbers_of(source)
    return Candidate.of(source, some, some, size_bytes=size, parameters=parameters, batch=bounds.batch)


def _fastest(form: _Form, compared: Compared) -> tuple[str, Source]:
    return min(form.faces.items(), key=lambda face: compared.costs[f"{form.name}, {face[0]}"].latency_ms.p95.value)


def _within(bounds: Budget, cost: Cost) -> bool:
    return all(limit.ok for limit in bounds.check(cost))


def _precision(source: Source) -> Precision:
    return "int8" if isinstance(source, Onnx) and source.file.name == INT8 else "float"


# ------------------------------------------------------------------------------------------------------------------------ how good it is


@dataclass(frozen=True)
class _Quality:
    """The metric of everyone on the same resamples of the rows; where no row has a label, likeness to the teacher.

    right: (n,) whether each labelled row is decided rightly, by name; None where no share of right answers is the metric. first: the same
    metric on the validation rows that were given to choose by, where they have labels.
    """

    draws: Mapping[str, Draws]
    better: int
    right: Mapping[str, Tensor] | None
    first: Mapping[str, float | None]

    @classmethod
    def of(cls, models: Mapping[str, Model], data: Data, task: Task, rows: Split) -> _Quality:
        ruled, first = dict(models), dict.fromkeys(models)
        labels, weight = data.valid.labels, data.valid.weight
        if data.valid.labelled and labels is not None:
            for name, model in models.items():
                answer = model.ask(data.valid)
                ruled[name] = replace(model, task=task.fix(answer, labels, weight))
                first[name] = task.measure(answer, labels, weight)[task.metric]
        answers = {name: model.ask(rows) for name, model in ruled.items()}
        asked = Rows.of(rows, task)
        if not asked.n:
            metric = task.alike_by
            figures = {name: task.likeness(answers[TEACHER], answer, asked.mask)[metric] for name, answer in answers.items()}
            return cls(
                bootstrap(figures, asked.count, resamples=resamples(asked.count), weight=asked.weight),
                task.better(metric),
                None,
                dict.fromkeys(models),
            )
        figures = {
            name: model.task.figures(answers[name][asked.labelled], asked.labels_known, asked.texts_known)[task.metric]
            for name, model in ruled.items()
        }
        right = None
        if task.metric == "accuracy" and task.kind == "classification" and asked.weight is None:
            right = {n: model.task.decide(answers[n][asked.labelled]) == asked.labels_known for n, model in ruled.items()}
        draws = bootstrap(figures, asked.n, resamples=resamples(asked.n), weight=asked.labelled_weight)
        return cls(draws, task.better(task.metric), right, first)

    def of_one(self, name: str) -> tuple[Figure, Figure]:
        """The metric, and its difference to the teacher, more is better."""
        value = (self.draws[name] - self.draws[TEACHER]) * self.better
        if self.right is None:
            return figure(self.draws[name]), figure(value, paired=True)
        ours, theirs = self.right[name], self.right[TEACHER]
        only, other = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        low, high = paired_proportions(only, other, len(ours))
        difference = Figure.of(value.value, low, high, n=len(ours), how="paired score interval (Tango)")
        return figure(self.draws[name]), difference
