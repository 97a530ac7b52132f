"""Evaluate: ask the deployed student, the teacher and the controls the same questions, and write the certificate."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

import attar
from attar.certificate import MARGIN, MARGIN_SHARE, Certificate, Figure, Guarding, Require, Shifted
from attar.certificate.corrupted import Corrupted
from attar.cost import Budget, Candidate, Compared, Cost, compare, machine
from attar.data import Corruptions, Data, Split
from attar.data.unlabelled import Unlabelled
from attar.errors import EvidenceError
from attar.files import write_json
from attar.progress import Event, Listener, silent
from attar.signal import Remembering, Schooled, Source, Weighed
from attar.sources.onnx import Onnx
from attar.task import Task, task_for
from attar.verbs.evaluate.corrupted import corrupted, corruptor
from attar.verbs.evaluate.elsewhere import elsewhere, fitted
from attar.verbs.evaluate.evidence import evidence
from attar.verbs.evaluate.foreign import foreign as told_apart
from attar.verbs.evaluate.foreign import strangers, unseen
from attar.verbs.evaluate.guarding import guarding
from attar.verbs.evaluate.harm import harm
from attar.verbs.evaluate.harm import limits as harm_limits
from attar.verbs.evaluate.label_free import Answered
from attar.verbs.evaluate.likeness import calibration, fidelity, pictures, positions
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, gather, judge
from attar.verbs.evaluate.scoring import drawn, quality
from attar.verbs.evaluate.verdicts import against, helped, non_inferior, requirements

__all__ = ["corruptor", "evaluate", "fitted", "margin_of", "strangers"]

MANY = 256  # rows of the second cost figure
UNRANKED = "the guard promises decisions, not ranking: of AUROC or average precision behind it nothing is promised"
COST_SECONDS = 1.0  # for each model
NO_SHIFT: Mapping[str, Data | Corruptions] = MappingProxyType({})
NO_FOREIGN: Mapping[str, Data | Unlabelled] = MappingProxyType({})
NO_ARMS: Mapping[str, Sequence[Source]] = MappingProxyType({})


def evaluate(
    student: str | Path | Source,
    teacher: Source,
    data: Data,
    task: Task | None = None,
    *,
    arms: Mapping[str, Sequence[Source]] = NO_ARMS,
    shift: Mapping[str, Data | Corruptions] = NO_SHIFT,
    foreign: Mapping[str, Data | Unlabelled] = NO_FOREIGN,
    require: Require | None = None,
    budget: Budget | None = None,
    out: str | Path | None = None,
    listen: Listener = silent,
) -> Certificate:
    """The certificate of `student` on the test rows of `data`.

    student: the folder that `export` wrote, or any source. teacher: stored answers will do; its cost is that of answering anew.
    arms: by name, one source for each seed, in the same order of seeds: "student" is the procedure, every other name a control.
        They have not been exported: each gets its temperature from the validation rows, as export would give it.
    shift: other data sets by name, of the same columns and classes: all their rows are asked as well, but for those that student or
        teacher learned from. `attar.data.corruptions()` among them, under any name: test rows under corruptions. Nothing is chosen on
        any of them, and nothing required of them.
    foreign: rows by name that are not of the task, of the same columns, shape or texts; labels do not matter. The certificate says how well
        student and teacher tell them from test rows: by confidence, by energy, and by features where `export(features=True)` gave some.
    require, budget: what must be so; the certificate's exit code is 3 where it is not. Without `require` the margin is the default.
    out: the run folder: certificate.json goes there, and the test rows that students lose, by id, as harm.parquet (harm.csv without
        pyarrow); its manifest counts how often this test split has been opened.

    The claim, decision rules and temperatures are fixed before the test rows are asked. Where no test row has a label, nothing can be said
    of quality, and the first verdict says how like the teacher the student answers instead.
    Raises EvidenceError where the teacher was trained on test or calibration rows, or where there is no test row; DataError for a data
    set of `shift` whose rows or labels are of another form, and one of `foreign` whose rows are.
    """
    task = (task or task_for(data.schema, data.kind)).bind(data.schema)
    _check(task, teacher, data, require)
    abroad = {name: other for name, other in shift.items() if isinstance(other, Data)}
    others = {name: fitted(name, other, data) for name, other in abroad.items()}
    ready = corruptor([*shift.values()], data)
    unlike = {name: strangers(name, other, data) for name, other in foreign.items()}
    judged = judge(student)
    listen(Event("evaluate", text="fixing decision rules on the validation rows"))
    models = gather(judged, teacher, arms, data, task)
    margin = margin_of(require, models[TEACHER], data, task)

    # from here on the test split is open
    look = None if out is None else _open_test(Path(out) / "manifest.json", data, judged)
    listen(Event("evaluate", text=f"{len(data.test):,} test rows" + ("" if look is None else f", look {look}")))
    answers = {}
    for done, (who, model) in enumerate(models.items()):
        listen(Event("evaluate", done, len(models), text=f"asking {model.name}"))
        answers[who] = model.ask(data.test)
    listen(Event("evaluate", len(models), len(models), text="resampling rows"))
    rows = Rows.of(data.test, task)
    at = positions(models, answers, rows, judged) if task.kind in ("classification", "multilabel") else None
    draws = drawn(models, answers, rows)
    faithful = fidelity(answers, at, rows, judged, task)
    first = non_inferior(draws, models, answers, rows, judged, task, margin, faithful)
    each = against(draws, models, rows, task, margin)
    second = helped(each, rows.n > 0)
    qualities = quality(draws, models, answers, rows, judged, task)
    away, home = {}, Answered(answers, rows)
    for name, split in others.items():
        listen(Event("evaluate", text=f"elsewhere: {len(split):,} rows of {name}"))
        away[name] = elsewhere(split, abroad[name], _seen(data, teacher), models, judged, task, (qualities, faithful), home)
    worse = None if ready is None else corrupted(ready, data.test, models, judged, task, home, listen)
    apart = told_apart(unlike, _seen(data, teacher), models, answers, judged, data, task, lambda text: listen(Event("evaluate", text=text)))
    harmed = harm(at, models, answers, rows, judged, task, data, None if out is None else Path(out))
    listen(Event("evaluate", text="measuring cost"))
    compared = _compare(judged, teacher, data.test)
    special = None if budget is None or budget.usual else _bounded(judged, data.test, budget)
    guard = guarding(models, answers, rows, judged, data, compared, unseen(unlike, _seen(data, teacher), data))
    certificate = Certificate(
        identity=_identity(judged, teacher, data, task, arms, rows, look),
        claim=_claim(task, margin, models, judged),
        non_inferior=first,
        helped=second,
        against=each,
        quality=qualities,
        fidelity=faithful,
        calibration=calibration(at),
        cost=_cost(compared, judged) | ({} if special is None else {"budget": _as_bounded(special)}),
        requirements=requirements(require, budget, first, second, faithful, special or compared.costs[judged.file], rows.n > 0),
        limits=_limits(data, teacher, arms, rows, look, task, away, worse, tuple(apart), harm_limits(harmed, task, data, abroad), guard),
        pictures=pictures(at, answers, judged, data, task),
        shift=away,
        corrupted=worse,
        foreign=apart,
        evidence=evidence(models, answers, rows, judged, data, task),
        harm=harmed,
        guard=guard,
    )
    if out is not None:
        certificate.write(Path(out) / "certificate.json")
    return certificate


def _check(task: Task, teacher: Source, data: Data, require: Require | None) -> None:
    """Whatever can go wrong before anyone is asked."""
    if not len(data.test):
        raise EvidenceError("the test split is empty: nothing can be shown", hint="test=0.2 keeps a fifth of the rows for it")
    if require is not None and require.min_agreement is not None and task.kind in ("regression", "embedding"):
        what = "a regression: numbers" if task.kind == "regression" else "an embedding: vectors"
        raise EvidenceError(f"min_agreement of {what} do not agree or disagree", hint="require a margin instead")
    if not isinstance(teacher, Schooled) or teacher.training_ids is None:
        return
    for split in (data.test, data.calibration):
        seen = int(torch.isin(split.ids, teacher.training_ids).sum())
        if seen:
            raise EvidenceError(
                f"the teacher was trained on {seen:,} of {len(split):,} {split.name} rows: its figures on them would be too good",
                hint="split the data as they were when the teacher was taught, or teach it again",
            )


def margin_of(require: Require | None, teacher: Model, data: Data, task: Task) -> float:
    """What was asked for; else the default, which for an error with a unit is a share of the teacher's on validation rows."""
    if require is not None and require.margin is not None:
        return require.margin
    if task.metric not in ("rmse", "mae"):
        return MARGIN
    labels = data.valid.labels
    if not data.test.labelled:  # nothing will be claimed by it
        return 0.0
    if labels is None or not bool(task.known(labels).any()):
        raise EvidenceError(
            f"the default margin of {task.metric} is {MARGIN_SHARE:.0%} of the teacher's on validation rows, which have no labels",
            hint="name a margin in the label's unit: require(margin=…)",
        )
    return MARGIN_SHARE * task.measure(teacher.ask(data.valid), labels, data.valid.weight)[task.metric]


def _open_test(manifest: Path, data: Data, judged: Judged) -> int:
    """Write into the run's manifest that the test split is being opened, and count how often it has been."""
    known: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        try:
            known = json.loads(manifest.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise EvidenceError(f"{manifest} does not read: {error}", hint="it counts the looks at the test split; restore it") from error
    when = datetime.now(UTC).isoformat(timespec="seconds")
    openings = [*known.get("openings", []), {"data": data.fingerprint, "when": when, "student": judged.source.fingerprint}]
    write_json(manifest, {**known, "openings": openings})
    return sum(opening["data"] == data.fingerprint for opening in openings)


def _claim(task: Task, margin: float, models: Mapping[Any, Model], judged: Judged) -> dict[str, Any]:
    rules = {who: models[key].task.threshold for who, key in (("teacher", TEACHER), ("student", judged.who))}
    if task.kind in ("regression", "embedding"):
        decision = "nothing: it answers " + ("a number" if task.kind == "regression" else "vectors")
    elif task.recall_at_fpr is not None:
        decision = f"by a threshold with a false-positive rate of {task.recall_at_fpr:g} on validation rows"
    elif task.threshold is not None:
        decision = f"positive where p ≥ {task.threshold:g}"
    else:
        decision = "the likeliest outcome"
    return {"metric": task.metric, "margin": margin, "confidence": 0.95, "decision": decision, "thresholds": rules}


def _compare(judged: Judged, teacher: Source, test: Split) -> Compared:
    """The costs of the teacher and of every exported graph, in the same run."""
    one = many = test.batch(torch.arange(MANY) % len(test))  # one: its rows, each by itself
    candidates = {}
    for name, source in {"teacher": teacher, **judged.files}.items():
        size, parameters = (source.size_bytes, source.parameters) if isinstance(source, Weighed) else (None, None)
        candidates[name] = Candidate.of(source, one, many, size_bytes=size, parameters=parameters)
    return compare(candidates, seconds=COST_SECONDS, undisturbed=True)


def _bounded(judged: Judged, test: Split, budget: Budget) -> Cost:
    """The student's cost in calls of as many rows, on as many threads, as the budget is about."""
    source = judged.source
    size, parameters = (source.size_bytes, source.parameters) if isinstance(source, Weighed) else (None, None)
    asked = source.on(budget.threads) if isinstance(source, Onnx) else source
    rows = test.batch(torch.arange(max(budget.many, MANY)) % len(test))
    many = rows if budget.many == len(rows) else test.batch(torch.arange(budget.many) % len(test))
    candidate = Candidate.of(asked, rows, many, size_bytes=size, parameters=parameters, batch=budget.batch)
    return compare({"": candidate}, seconds=COST_SECONDS, threads=budget.threads, undisturbed=True).costs[""]


def _as_bounded(cost: Cost) -> dict[str, Figure]:
    """The figures that a budget bounds, and of which calls they are."""
    return _costs(cost) | {"batch": Figure(cost.batch), "many": Figure(cost.rows), "threads": Figure(cost.threads)}


def _cost(compared: Compared, judged: Judged) -> dict[str, dict[str, Figure]]:
    """Costs of teacher and student, how many times dearer the teacher is, and the other graphs."""
    costs = compared.costs
    ratio = {}
    for name, share, many in (("latency_p95_ms", 0.95, False), ("batch_ms", 0.5, True)):
        times = compared.ratio("teacher", judged.file, share=share, many=many)
        ratio[name] = Figure.of(*times, unit="×", how="paired over rounds of measuring")
    mine, theirs = _costs(costs[judged.file]), _costs(costs["teacher"])
    for name in ("latency_p50_ms", "size_mb", "parameters", "memory_mb"):
        a, b = theirs[name].value, mine[name].value
        if a and b:
            ratio[name] = Figure.of(a / b, unit="×")
    others = {name: _costs(costs[name]) for name in judged.files if name != judged.file}
    return {"teacher": theirs, "student": mine, "ratio": ratio, **others}


def _costs(cost: Cost) -> dict[str, Figure]:
    how = f"{cost.threads} thread{'s' * (cost.threads > 1)}, without what other programs took, bootstrap over rounds of measuring"
    one, many = cost.latency_ms, cost.latency_many_ms
    return {
        "latency_p50_ms": Figure.of(*one.p50, unit="ms", n=one.calls, how=how),
        "latency_p95_ms": Figure.of(*one.p95, unit="ms", n=one.calls, how=how),
        "batch_ms": Figure.of(*many.p50, unit="ms", n=many.calls, how=how),
        "rows_per_second": Figure.of(*cost.rows_per_second, n=many.calls, how=how),
        "size_mb": Figure(cost.size_mb, unit="MB"),
        "parameters": Figure(cost.parameters),
        "memory_mb": Figure(cost.memory_mb, unit="MB", how="growth of the resident set during a batch"),
    }


def _identity(
    judged: Judged, teacher: Source, data: Data, task: Task, arms: Mapping[str, Sequence[Source]], rows: Rows, look: int | None
) -> dict[str, Any]:
    versions = {"attar": attar.__version__, "python": sys.version.split()[0]}
    for library in ("torch", "numpy", "scipy", "onnxruntime"):
        with suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return {
        "task": repr(task),
        "data": data.fingerprint,
        "rows": {"test": rows.count, "labelled": rows.n, "distinct": len(data.test.ids.unique())},
        "look": look,
        "teacher": {"text": repr(teacher), "fingerprint": teacher.fingerprint, "training_rows": _schooling(teacher)},
        "student": {
            "text": repr(judged.source),
            "fingerprint": judged.source.fingerprint,
            "file": judged.file,
            "files": dict(judged.manifest["files"]) if judged.manifest is not None else {},
            "temperature": judged.temperature,
        },
        "seeds": {arm: len(sources) for arm, sources in arms.items()},
        "classes": list(data.schema.classes),
        "machine": machine(),
        "versions": versions,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _schooling(teacher: Source) -> str:
    return "known" if isinstance(teacher, Schooled) and teacher.training_ids is not None else "unknown"


def _seen(data: Data, teacher: Source) -> Tensor:
    """Ids of the rows that student or teacher learned from, and of those on which epoch, temperature and rules were chosen."""
    learnt = teacher.training_ids if isinstance(teacher, Schooled) else None
    parts = [data.train.ids, data.valid.ids, data.calibration.ids]
    return torch.cat([*parts, learnt] if learnt is not None else parts)


def _limits(
    data: Data,
    teacher: Source,
    arms: Mapping[str, Sequence[Source]],
    rows: Rows,
    look: int | None,
    task: Task,
    away: Mapping[str, Shifted],
    worse: Corrupted | None,
    apart: Sequence[str],
    of_groups: Sequence[str],
    guard: Guarding | None,
) -> tuple[str, ...]:
    """What was not tested, and what the figures rest on."""
    limits = []
    if not rows.n:
        limits.append(_without_labels(task))
    if _schooling(teacher) == "unknown":
        limits.append("the teacher's training rows are unknown: if test rows were among them, its figures are too good")
    learnt = teacher.training_ids if isinstance(teacher, Schooled) else None
    if learnt is not None and (seen := int(torch.isin(data.valid.ids, learnt).sum())):
        limits.append(f"the teacher was trained on {seen:,} of {len(data.valid):,} validation rows, on which rules and margins were fixed")
    if isinstance(teacher, Remembering) and teacher.in_fold:
        limits.append("the teacher answered the training rows as one net that had seen their labels: it taught some of its memory of them")
    if look is not None and look > 1:
        limits.append(f"this is look {look} at this test split: what was chosen after an earlier look is judged too kindly")
    if not bool(task.judged(data.valid.labels, len(data.valid), data.valid.mask).any()):
        limits.append("no validation row has a label: epochs were chosen by likeness to the teacher, and no temperature was fitted")
    if 0 < rows.n < rows.count:
        limits.append(f"{rows.count - rows.n:,} of {rows.count:,} test rows have no label: they enter {_without_label(task)} alone")
    repeats = rows.count - len(data.test.ids.unique())
    if repeats:
        limits.append(f"{repeats:,} test rows repeat another one, and intervals take rows as independent")
    repeats = len(data.calibration) - len(data.calibration.ids.unique())
    if repeats and task.kind == "classification":
        what = "conformal sets take" if guard is None else "the guard and conformal sets take"
        limits.append(f"{repeats:,} calibration rows repeat another one, and {what} rows as independent: they promise too much")
    if rows.weight is not None:
        limits.append("rows are weighted: intervals resample rows and keep the weights")
    if arms and rows.n:
        limits.append("the arms behind “helped” were measured before export, the student that ships on its file")
    if unlabelled := [name for name, shifted in away.items() if not shifted.labelled]:
        limits.append(f"{', '.join(unlabelled)}: no row has a label, so that only the likeness to the teacher is known there")
    limits += [
        _not_from_elsewhere(away, worse, apart),
        *of_groups,
        _guarded(guard, rows),
        *([UNRANKED] if guard is not None and guard.certified else []),
        "another machine, and more than one thread: costs are those of this one",
    ]
    return tuple(limits)


def _without_label(task: Task) -> str:
    """What a test row without a label is good for."""
    return "the fidelity and the prediction-powered accuracy" if task.kind == "classification" else "the fidelity"


def _without_labels(task: Task) -> str:
    """What cannot be claimed where no test row has what the metric needs."""
    what = {
        "regression": "how far the student is off",
        "embedding": "how many documents are found" if task.metric == "recall_at_k" else "how well cosines follow scores",
    }.get(task.kind, "how often the student is right")
    return (
        f"no test row has a label: nothing is claimed of {what}, nor of the teacher, nor whether distillation helped; "
        "only how like the teacher the student answers is known, and the teacher's errors count as what it should answer"
    )


def _guarded(guard: Guarding | None, rows: Rows) -> str:
    if guard is None:
        return "no guard was fitted: the student answers every row"
    if not guard.certified:
        return "the guard is not certified: asked for its answer, the student gives none"
    if guard.broken:
        return f"{guard.contradicted}; of rows like the test rows it promises nothing"
    weighted = ", each counting once whatever it weighs" if rows.weight is not None else ""
    return f"the guard promises of rows like those of calibration{weighted}: of shifted or foreign rows it promises nothing"


def _not_from_elsewhere(away: Mapping[str, Shifted], worse: Corrupted | None, apart: Sequence[str]) -> str:
    tested = [f"the rows of {', '.join(away)}"] if away else []
    tested += [f"{', '.join(worse.kinds)} as corruptions".replace("_", " ")] if worse is not None else []
    tested += [f"{', '.join(apart)} as foreign inputs"] if apart else []
    untested = [name for name, there in (("shifted", away), ("corrupted", worse is not None), ("foreign", apart)) if not there]
    if not tested:
        return "rows from elsewhere or later: no shifted, no corrupted and no foreign inputs were tested"
    rest = f", no {' and no '.join(untested)} inputs" if untested else ""
    return f"rows from elsewhere or later: only {'; '.join(tested)} were tested{rest}"
