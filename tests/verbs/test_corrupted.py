"""Corruptions in a certificate: what a naive loop finds, every kind of task, what cannot be answered, and what is told without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attar.certificate import Certificate, Figure
from attar.certificate.corrupted import Corrupted
from attar.data import Corruptions, Data, corruptions
from attar.errors import DataError, TeacherError
from attar.progress import silent
from attar.signal import IGNORE, NOTHING, Batch, Signal
from attar.sources import cached, module
from attar.statistics import Draws
from attar.task import classification, task_for
from attar.testing.small import SmallCNN, SmallMLP, fitted, small_images, small_table
from attar.testing.texts import small_pairs, small_text_model, small_text_teacher, small_texts
from attar.verbs.evaluate import evaluate
from attar.verbs.evaluate.corrupted import _figure, _off, corrupted
from attar.verbs.evaluate.label_free import Answered
from attar.verbs.evaluate.models import Rows, gather, judge


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def found(student: Any, teacher: Any, data: Data, spec: Corruptions) -> Corrupted:
    """The section alone, as `evaluate` makes it."""
    task, judged = task_for(data.schema, data.kind), judge(student)
    models = gather(judged, teacher, {}, data, task)
    answers = {who: model.ask(data.test) for who, model in models.items()}
    return corrupted(spec.of(data), data.test, models, judged, task, Answered(answers, Rows.of(data.test, task)), silent)


@pytest.fixture(scope="module")
def pictures() -> tuple[Data, SmallCNN, SmallCNN]:
    """Data of which a fifth of the test labels are wrong, so that nobody is ever right everywhere; a teacher and a worse student."""
    data = small_images(400)
    labels = data.test.labels
    assert labels is not None
    labels = torch.where(torch.arange(len(labels)) % 5 == 0, (labels + 1) % 3, labels)
    data = replace(data, test=replace(data.test, labels=labels))
    return data, fitted(SmallCNN(data.schema), data, steps=8).eval(), fitted(SmallCNN(data.schema, 1), data, steps=4).eval()


def test_every_figure_is_what_a_naive_loop_finds(pictures: tuple[Data, SmallCNN, SmallCNN]) -> None:
    data, teacher, student = pictures
    spec = corruptions(kinds=["fog", "blur"], severities=(2, 5), rows=80)
    section = found(module(student), module(teacher), data, spec)
    ready = spec.of(data)
    some = ready.some(data.test)
    assert (section.rows, section.labelled, section.metric, section.alike_by) == (80, 80, "accuracy", "agreement")
    every, ratios, errors = torch.arange(80), [], {}
    for who, model in (("t", teacher), ("s", student)):
        clean = some.batch(every)
        errors[who, "clean"] = float((model(clean.inputs).argmax(-1) != clean.labels).double().mean())
    for kind in ("fog", "blur"):
        for severity in (2, 5):
            batch = ready.split(some, kind, severity).batch(every)
            t, s = (model(batch.inputs).argmax(-1) for model in (teacher, student))
            assert batch.labels is not None
            errors["t", kind, severity] = float((t != batch.labels).double().mean())
            errors["s", kind, severity] = float((s != batch.labels).double().mean())
            there = section.kinds[kind].severities[str(severity)]
            assert value(there.teacher) == pytest.approx(1 - errors["t", kind, severity])
            assert value(there.student) == pytest.approx(1 - errors["s", kind, severity])
            assert value(there.likeness) == pytest.approx(float((t == s).double().mean()))
        ratios.append((errors["s", kind, 2] + errors["s", kind, 5]) / (errors["t", kind, 2] + errors["t", kind, 5]))
        assert value(section.kinds[kind].error) == pytest.approx(ratios[-1])
        assert value(section.kinds[kind].student) == pytest.approx(1 - (errors["s", kind, 2] + errors["s", kind, 5]) / 2)
    assert value(section.error) == pytest.approx(sum(ratios) / 2)
    assert section.error.how.startswith("mean over 2 of 2 kinds; paired BCa bootstrap over rows")
    lost = [errors["s", "fog", n] - errors["s", "clean"] for n in (2, 5)]
    theirs = [errors["t", "fog", n] - errors["t", "clean"] for n in (2, 5)]
    assert value(section.kinds["fog"].relative) == pytest.approx(sum(lost) / sum(theirs))
    for figure in (section.error, section.kinds["fog"].error, section.clean.teacher, section.clean.likeness):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= value(figure) <= figure.high


def test_a_student_that_is_its_teacher_has_the_error_one(pictures: tuple[Data, SmallCNN, SmallCNN]) -> None:
    data, teacher, _ = pictures
    section = found(module(teacher), module(teacher), data, corruptions(severities=(4,), rows=60))
    assert [value(kind.error) for kind in section.kinds.values() if kind.error.value is not None] == pytest.approx([1.0] * 9)
    assert value(section.error) == pytest.approx(1.0)
    assert all(value(kind.likeness) == 1 for kind in section.kinds.values())


def test_stored_answers_to_clean_rows_are_never_taken_for_corrupted_ones(pictures: tuple[Data, SmallCNN, SmallCNN]) -> None:
    data, teacher, student = pictures
    spec = corruptions(kinds=["noise"], severities=(1, 5), rows=60)
    live, stored = (found(module(student), source, data, spec) for source in (module(teacher), cached(module(teacher))))
    assert stored.kinds["noise"] == live.kinds["noise"]


def test_a_certificate_with_corruptions_reads_back_and_fits_the_terminal(pictures: tuple[Data, SmallCNN, SmallCNN], tmp_path: Path) -> None:
    data, teacher, student = pictures
    c = evaluate(module(student), module(teacher), data, shift={"x": corruptions(kinds=["noise", "occlusion"], severities=(1, 3), rows=60)})
    c.write(tmp_path / "certificate.json")
    again = Certificate.read(tmp_path / "certificate.json")
    assert again.to_dict() == c.to_dict()
    assert isinstance(again.corrupted, Corrupted)
    assert again.lines() == c.lines()
    assert max(map(len, c.lines())) <= 80
    assert any(line.startswith("  noise ") for line in c.lines())
    assert any(line.startswith("  mean over kinds (mCE)") for line in c.lines())
    limit = next(limit for limit in c.limits if limit.startswith("rows from elsewhere"))
    assert limit == "rows from elsewhere or later: only noise, occlusion as corruptions were tested, no shifted and no foreign inputs"
    assert evaluate(module(student), module(teacher), data).corrupted is None


def test_tables_texts_numbers_and_vectors_are_corrupted_as_well() -> None:
    table = small_table(240, kind="regression")
    model = fitted(SmallMLP(table.schema), table).eval()
    section = found(module(model), module(model), table, corruptions(severities=(3,), rows=50))
    assert list(section.kinds) == ["missing", "quantile_noise", "units", "shuffle", "unseen"]
    assert (section.metric, section.better, section.alike_by) == ("rmse", -1, "root_mean_square_distance")
    assert value(section.error) == pytest.approx(1.0)
    assert section.told.value is None
    many = small_table(240, kind="multilabel")
    student, teacher = (module(SmallMLP(many.schema, k, outcomes=(3, 2)).eval()) for k in (0, 1))
    section = found(student, teacher, many, corruptions(severities=(3,), rows=50))
    assert 0 < value(section.kinds["missing"].likeness) < 1
    texts = small_texts(240)
    section = found(
        module(small_text_model(texts.schema)), module(small_text_teacher(texts.schema)), texts, corruptions(severities=(3,), rows=50)
    )
    assert list(section.kinds) == ["typos", "casing", "truncation", "word_dropout"]
    pairs = small_pairs(240)
    section = found(
        module(small_text_model(pairs.schema)), module(small_text_teacher(pairs.schema)), pairs, corruptions(severities=(3,), rows=50)
    )
    assert (section.metric, section.alike_by) == ("spearman", "similarity_correlation")


def test_without_labels_likeness_alone_is_told(pictures: tuple[Data, SmallCNN, SmallCNN]) -> None:
    data, teacher, student = pictures
    assert data.test.labels is not None
    blank = replace(data, test=replace(data.test, labels=torch.full_like(data.test.labels, IGNORE)))
    section = found(module(student), module(teacher), blank, corruptions(kinds=["noise"], severities=(1,), rows=60))
    assert (section.labelled, section.error.value, section.clean.teacher.value) == (0, None, None)
    assert 0 < value(section.kinds["noise"].likeness) <= 1
    assert section.kinds["noise"].severities["1"].label_free is None


@dataclass(frozen=True)
class Picky:
    """A source that refuses rows with missing numbers, as many models do."""

    source: Any
    error: Exception
    fingerprint: str = "picky"

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, dict)
        if len(batch) > 30 and batch.inputs["numbers"].isnan().float().mean() > 0.1:
            raise self.error
        return self.source(batch, taps)

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: self(batch)


@pytest.mark.parametrize("error", [TeacherError("too many holes"), ValueError("too many holes\nlong story")])
def test_what_a_model_cannot_answer_is_left_out_with_what_it_said(error: Exception) -> None:
    data = small_table(400)
    teacher = module(fitted(SmallMLP(data.schema), data).eval())
    spec = corruptions(kinds=["missing", "units"], severities=(1, 5), rows=60)
    section = found(Picky(teacher, error), teacher, data, spec)
    assert list(section.kinds) == ["units"]
    assert section.left_out == {"missing": "too many holes"}
    with pytest.raises(DataError, match="no corruption could be answered: missing: too many holes"):
        found(Picky(teacher, error), teacher, data, corruptions(kinds=["missing"], severities=(5,), rows=60))


def test_corruptions_that_do_not_fit_are_refused_before_anyone_is_asked(pictures: tuple[Data, SmallCNN, SmallCNN]) -> None:
    data, teacher, student = pictures
    with pytest.raises(DataError, match="corruption 'typos' is one of text"):
        evaluate(module(student), module(teacher), data, shift={"x": corruptions(kinds=["typos"])})
    with pytest.raises(DataError, match="corruptions stand 2 times under shift"):
        evaluate(module(student), module(teacher), data, shift={"a": corruptions(), "b": corruptions()})


@dataclass(frozen=True)
class Scripted:
    """A source that answers as it is told to."""

    answers: Callable[[Batch], Tensor]
    fingerprint: str

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return Signal(self.answers(batch))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: self(batch)


def test_a_teacher_that_collapses_is_not_believed_and_one_that_holds_is() -> None:
    base = small_images(1600)

    def scripted(right: float, salt: int, breaks: int) -> Scripted:
        """Right on so many rows; above a mean brightness it says one class, and is sure of it."""

        def answers(batch: Batch) -> Tensor:
            assert isinstance(batch.inputs, Tensor)
            assert batch.labels is not None
            drawn = ((batch.inputs.long().sum((1, 2, 3)) * 2654435761 + salt * 40503) % 9973).double() / 9973
            said = torch.where(drawn < right, batch.labels, (batch.labels + 1) % 3)
            said = torch.where(batch.inputs.float().mean((1, 2, 3)) > breaks, 0, said)
            return 3.0 * torch.nn.functional.one_hot(said, 3).double()

        return Scripted(answers, f"{right} {salt} {breaks}")

    spec = corruptions(kinds=["brightness"], severities=(1, 5), rows=400)
    section = found(scripted(0.8, 1, 400), scripted(0.95, 2, 400), base, spec)
    held = section.kinds["brightness"].severities["1"].label_free
    assert held is not None
    assert held.believed
    assert abs(value(held.estimate) - value(held.truth)) < 0.06
    assert (section.believed, section.doubted) == (2, 0)
    assert value(section.told) < 0.06
    assert section.told.low is None  # of one kind
    section = found(scripted(0.8, 1, 190), scripted(0.95, 2, 190), base, spec)
    broken = section.kinds["brightness"].severities["5"].label_free
    assert broken is not None
    assert not broken.believed
    assert value(broken.estimate) - value(broken.truth) > 0.3
    assert section.doubted >= 1


def test_rows_elsewhere_have_an_accuracy_told_without_labels_beside_the_truth() -> None:
    home, other = small_texts(400), small_texts(200, seed=5)
    other = replace(other, **{name: replace(split, ids=split.ids + 10_000) for name, split in other.splits.items()})
    models = module(small_text_model(home.schema)), module(small_text_teacher(home.schema))
    free = evaluate(*models, home, shift={"other": other}).shift["other"].label_free
    assert free is not None
    assert free.believed
    assert free.estimate.low is not None
    assert free.estimate.high is not None
    assert free.estimate.low <= value(free.truth) <= free.estimate.high
    rule = evaluate(*models, home, classification(recall_at_fpr=0.1), shift={"other": other}).shift["other"]
    assert rule.label_free is not None
    assert rule.label_free.truth.value == pytest.approx(value(rule.quality["accuracy"].student))


@pytest.mark.parametrize(("without", "there"), [(0, True), (9, True), (30, False), (150, False)])
def test_a_ratio_counts_the_resamples_in_which_the_teacher_loses_nothing(without: int, there: bool) -> None:
    draws = np.random.default_rng(0).normal(1.5, 0.1, 1000)
    draws[:without] = np.nan
    found = _figure(Draws(1.5, draws, draws[-100:], 300))
    assert (found.value is not None) == (found.low is not None) == (found.high is not None) == there
    assert (f"{without} left out in which the teacher loses nothing" in found.how) == (0 < without < 10)
    assert there or f"nothing in {without} of 1,000 resamples" in found.how


def test_how_far_estimates_are_off_has_an_interval_over_kinds() -> None:
    off = _off(np.array([0.01, -0.02, 0.03, 0.05]), np.array([0, 0, 1, 1]), "how")
    assert (off.value, off.low, off.n) == (pytest.approx(0.0275), 0.0, 4)  # no distance is below 0
    assert off.high is not None
    assert off.high > 0.05
