"""Further evidence: figures against plain loops, and refusals that say how many rows would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from attar.certificate import Evidence
from attar.certificate.evidence import lines
from attar.data.base import Data, Memory, Split
from attar.signal import IGNORE, NOTHING, Batch, Schema, Signal
from attar.statistics import auroc_difference, prediction_powered
from attar.task import classification, regression
from attar.verbs.evaluate.evidence import evidence
from attar.verbs.evaluate.models import TEACHER, Model, Rows, Who, judge


@dataclass(frozen=True)
class Columns:
    """A source that answers with some of its rows' columns."""

    first: int
    width: int
    fingerprint: str = "columns"

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, Tensor)
        return Signal(batch.inputs[:, self.first : self.first + self.width])

    def prepare(self, batch: Batch) -> Callable[[], Signal]:
        return lambda: self(batch)


def drawn(classes: int, *, calibration: int = 300, test: int = 1500) -> Data:
    """Rows that hold a good teacher's logits and a worse student's, and labels that follow neither exactly."""
    rng = np.random.default_rng(0)
    n = calibration + test
    truth = rng.normal(size=(n, classes)) * 2
    answers = np.concatenate([truth + rng.normal(size=truth.shape) * noise for noise in (0.3, 1.0)], -1)
    p = np.exp(truth * 1.5)
    labels = ((p / p.sum(-1, keepdims=True)).cumsum(-1) < rng.random((n, 1))).sum(-1)
    x, y = torch.tensor(answers), torch.tensor(labels)
    schema = Schema("tensor", shape=(2 * classes,), classes=tuple("abcdefgh"[:classes]))

    def split(name: str, low: int, high: int) -> Split:
        return Split(name, torch.arange(low, high), y[low:high], None, schema, Memory(x[low:high]))

    none = split("train", 0, 0)
    return Data(
        schema,
        "classification",
        none,
        replace(none, name="valid"),
        split("calibration", 0, calibration),
        split("test", calibration, n),
        "drawn",
    )


def found(data: Data, metric: str = "accuracy") -> Evidence:
    classes = len(data.schema.classes)
    task = classification(metric).bind(data.schema)
    judged = judge(Columns(classes, classes))
    models = {TEACHER: Model("teacher", Columns(0, classes), task), judged.who: Model("student", judged.source, task)}
    answers: dict[Who, Tensor] = {who: model.ask(data.test) for who, model in models.items()}
    section = evidence(models, answers, Rows.of(data.test, task), judged, data, task)
    assert section is not None
    assert max(map(len, lines(section))) <= 80
    return section


def without(data: Data, keep: int) -> Data:
    """Only the first test rows keep their label."""
    assert data.test.labels is not None
    labels = data.test.labels.clone()
    labels[keep:] = IGNORE
    return replace(data, test=replace(data.test, labels=labels))


def rows_of(data: Data, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of teacher and student, and labels."""
    it = data.splits[split]
    x, classes = it.batch(torch.arange(len(it))).inputs, len(data.schema.classes)
    assert isinstance(x, Tensor) and it.labels is not None
    return x[:, :classes].numpy(), x[:, classes:].numpy(), it.labels.numpy()


def test_unlabelled_rows_narrow_the_students_accuracy() -> None:
    data = without(drawn(3), 300)
    powered = found(data).powered
    assert powered is not None and not powered.refused
    t, s, y = (v if v.ndim == 1 else v.argmax(-1) for v in rows_of(data, "test"))
    by_hand = (s == t)[300:].mean() + ((s == y)[:300].mean() - (s == t)[:300].mean())
    assert powered.accuracy.value == pytest.approx(by_hand)
    assert powered.plain.value == pytest.approx((s == y)[:300].mean())
    expected = prediction_powered((s == y)[:300], (s == t)[:300], (s == t)[300:])
    assert (powered.accuracy.low, powered.accuracy.high) == pytest.approx((expected.low, expected.high))
    assert (powered.labelled, powered.unlabelled) == (300, 1200)


@pytest.mark.parametrize("keep", [0, 6])
def test_few_labels_are_refused_with_the_number_that_would_do(keep: int) -> None:
    powered = found(without(drawn(3), keep)).powered
    assert powered is not None
    assert powered.accuracy.value is None and powered.accuracy.low is None
    assert f"labelled rows, and 5 are needed; about {powered.labels_needed} labels" in powered.refused
    assert powered.labels_needed is not None and powered.labels_needed > keep
    assert (powered.plain.value is None) == (keep == 0)


def test_with_all_labels_nothing_stands_in_for_them() -> None:
    assert found(drawn(3)).powered is None


@pytest.mark.parametrize("form", ["all classes", "each class"])
def test_conformal_sets_are_those_of_a_plain_loop(form: str) -> None:
    data = drawn(3)
    sets = found(data).sets[form]
    calibration, test = rows_of(data, "calibration"), rows_of(data, "test")
    sizes = {}
    for who, fitted, asked in (("teacher", calibration[0], test[0]), ("student", calibration[1], test[1])):
        p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (fitted, asked))
        held = np.zeros(q.shape, dtype=bool)
        for c in range(3):
            right = sorted(1 - p[i, y] for i, y in enumerate(calibration[2]) if form == "all classes" or y == c)
            bound = right[int(np.ceil((len(right) + 1) * 0.9)) - 1]
            held[:, c] = 1 - q[:, c] <= bound + 1e-12
        sizes[who] = held.sum(-1).mean()
        assert sets.size[who].value == pytest.approx(sizes[who])
        assert sets.coverage[who].value == pytest.approx(held[np.arange(len(q)), test[2]].mean())
    assert sets.ratio.value == pytest.approx(sizes["student"] / sizes["teacher"])
    assert sets.ratio.low is not None and sets.ratio.high is not None and sets.ratio.value is not None
    assert 1 < sets.ratio.low < sets.ratio.value < sets.ratio.high


def test_calibration_rows_that_do_not_suffice_are_named_with_the_number_that_would() -> None:
    few = found(drawn(3, calibration=8)).sets
    assert {form: sets.refused for form, sets in few.items()} == dict.fromkeys(
        ("all classes", "each class"), "refused: 8 calibration rows have a label, and 9 are needed"
    )
    data = drawn(3)
    labels = data.calibration.labels
    assert labels is not None
    kept = data.calibration.take(torch.nonzero(labels != 1)[:, 0])
    sets = found(replace(data, calibration=kept)).sets
    assert not sets["all classes"].refused
    assert sets["each class"].refused == "refused: 1 of 3 classes has fewer than 9 labelled calibration rows: 'b' 0"
    assert sets["each class"].rows_needed == 9 and sets["each class"].size == {}
    none = found(replace(data, calibration=data.calibration.take(torch.arange(0)))).sets
    assert none["all classes"].refused.startswith("refused: 0 calibration rows")


def test_weighted_rows_are_refused() -> None:
    data = without(drawn(2), 300)
    data = replace(data, test=replace(data.test, weight=torch.ones(1500)))
    section = found(data, "auroc")
    assert section.powered is not None and "weighted" in section.powered.refused
    assert all("weighted" in sets.refused for sets in section.sets.values())
    assert section.delong == {}


def test_delong_stands_beside_the_bootstrap_where_auroc_is_the_metric() -> None:
    data = drawn(2)
    section = found(data, "auroc")
    t, s, y = rows_of(data, "test")
    expected = auroc_difference(s[:, 1] - s[:, 0], t[:, 1] - t[:, 0], y == 1)
    difference = section.delong["difference"]
    assert (difference.value, difference.low, difference.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert section.delong_p == pytest.approx(expected.p)
    assert found(data).delong == {}


def test_other_tasks_have_no_such_section() -> None:
    data = drawn(2)
    assert evidence({}, {}, Rows(0, None, torch.zeros(0), torch.zeros(0), None), judge(Columns(0, 1)), data, regression()) is None
