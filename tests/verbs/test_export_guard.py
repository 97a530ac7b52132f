"""A guard in an exported graph: what the graph answers is what was promised, for each precision, and nothing without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attar.data import Data
from attar.errors import EvidenceError, ExportError, TeacherError
from attar.guards import guard
from attar.signal import IGNORE, NOTHING, Batch, Signal
from attar.sources import cascade, module, onnx
from attar.sources.onnx import open_graph, seal
from attar.students import mlp, trees
from attar.task import Task, classification, regression
from attar.testing.small import SmallCNN, SmallMLP, fitted, small_images, small_table
from attar.testing.sources import check_source
from attar.verbs.export import Exported, export
from attar.verbs.export.guarding import check_student, cut_of

pytest.importorskip("onnxruntime")

EASY = guard(epsilon=0.08, delta=0.2)  # 200 calibration rows are few


@pytest.fixture(scope="module")
def table() -> Data:
    return small_table()


@pytest.fixture(scope="module")
def student(table: Data) -> nn.Module:
    return fitted(SmallMLP(table.schema), table)


@pytest.fixture(scope="module")
def teacher(table: Data) -> Any:
    return module(fitted(SmallMLP(table.schema, 1, width=32), table, steps=150))


@pytest.fixture(scope="module")
def exported(student: nn.Module, teacher: Any, table: Data, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(student, table, classification(), at=tmp_path_factory.mktemp("run") / "student", guard=EASY, teacher=teacher)


def everything(split: Any) -> Batch:
    return split.batch(torch.arange(len(split)))


@pytest.mark.parametrize("name", ["student.onnx", "student.int8.onnx"])
def test_each_graph_says_how_sure_it_is_and_answers_by_its_own_promise(name: str, exported: Exported, teacher: Any, table: Data) -> None:
    source = onnx(str(exported.folder / name))
    promise = source.promise
    assert promise.certified
    assert promise == exported.files[name].guard
    batch = everything(table.calibration)
    found = source.guarded(batch)
    p = found.output.double().softmax(-1)
    torch.testing.assert_close(found.confidence.double(), p.max(-1).values, atol=1e-6, rtol=0)
    decision = found.output.argmax(-1)
    assert torch.equal(found.answer, found.confidence >= torch.from_numpy(promise.limits)[decision])
    right = teacher(batch).output.argmax(-1)
    assert promise.rows == len(table.calibration)
    for c, cell in enumerate(promise.cells):
        mine = found.answer & (right == c)
        assert (cell.name, cell.rows) == (table.schema.classes[c], int((right == c).sum()))
        assert (cell.answered, cell.answered_wrong) == (int(mine.sum()), int((decision != right)[mine].sum()))


def test_each_precision_has_a_guard_of_its_own(exported: Exported) -> None:
    promises = [file.guard for file in exported.files.values()]
    assert None not in promises
    assert promises[0] != promises[1]


def test_the_folder_says_what_its_graphs_answer(exported: Exported) -> None:
    said = json.loads((exported.folder / "student.json").read_text(encoding="utf-8"))
    assert said["outputs"] == ["logits", "probabilities", "confidence", "answer"]
    session = open_graph((exported.folder / "student.onnx").read_bytes(), 1, "student.onnx")
    assert [(o.name, o.type, len(o.shape)) for o in session.get_outputs()][2:] == [
        ("confidence", "tensor(float)", 1),
        ("answer", "tensor(bool)", 1),
    ]


def test_logits_and_temperature_are_those_of_the_same_student_without_a_guard(
    exported: Exported, student: nn.Module, table: Data, tmp_path: Path
) -> None:
    plain = export(student, table, classification(), at=tmp_path / "student")
    batch = everything(table.test)
    assert plain.temperature == exported.temperature
    assert torch.equal(plain.source(batch).output, exported.source(batch).output)
    assert torch.equal(exported.source.guarded(batch).output, exported.source(batch).output)


@pytest.mark.parametrize("rule", [classification(recall_at_fpr=0.1), classification(threshold=0.3)])
def test_with_a_decision_rule_confidence_is_that_of_the_side_of_the_cut(
    rule: Task, student: nn.Module, teacher: Any, table: Data, tmp_path: Path
) -> None:
    source = export(student, table, rule, at=tmp_path / "student", guard=EASY, teacher=teacher).source
    promise, valid = source.promise, table.valid
    assert valid.labels is not None
    fixed = rule.bind(table.schema).fix(source(everything(valid)).output.double(), valid.labels)
    assert promise.cut == pytest.approx(cut_of(fixed))
    assert promise.cut is not None
    batch = everything(table.calibration)
    found = source.guarded(batch)
    odds = found.output[:, 1] - found.output[:, 0]
    torch.testing.assert_close(found.confidence, torch.sigmoid((odds - promise.cut).abs()), atol=1e-6, rtol=0)
    decision = fixed.decide(found.output.double())
    assert torch.equal(found.answer, found.confidence >= torch.from_numpy(promise.limits)[decision])
    theirs = rule.bind(table.schema).fix(teacher(everything(valid)).output.double(), valid.labels)
    assert promise.target_cut == pytest.approx(cut_of(theirs))
    right = theirs.decide(teacher(batch).output.double())
    assert [cell.rows for cell in promise.cells] == [int((right == c).sum()) for c in (0, 1)]
    joint = cascade(source, teacher)(batch).output.double()
    assert torch.equal(theirs.decide(joint), torch.where(found.answer, decision, right))


def test_errors_against_labels_are_certified_on_the_rows_that_have_one(student: nn.Module, table: Data, tmp_path: Path) -> None:
    labels = table.calibration.labels
    assert labels is not None
    some = torch.where(torch.arange(len(labels)) < 150, labels, IGNORE)
    data = replace(table, calibration=replace(table.calibration, labels=some))
    source = export(student, data, classification(), at=tmp_path / "student", guard=guard(0.3, 0.2, target="labels", per="all")).source
    assert source.promise.rows == 150
    wrong = source(everything(table.calibration)).output.argmax(-1)[:150] != labels[:150]
    assert source.promise.cells[0].wrong == int(wrong.sum())


def test_a_cascade_keeps_what_was_promised_of_labels_where_both_decide_from_different_log_odds(
    student: nn.Module, teacher: Any, table: Data, tmp_path: Path
) -> None:
    rule, asked = classification(metric="auroc", recall_at_fpr=0.02), guard(0.3, 0.2, target="labels", per="all")
    source = export(student, table, rule, at=tmp_path / "student", guard=asked, teacher=teacher).source
    assert source.promise.certified
    valid, test = everything(table.valid), everything(table.test)
    assert table.valid.labels is not None
    ours, theirs = (rule.bind(table.schema).fix(who(valid).output.double(), table.valid.labels) for who in (source, teacher))
    found = source.guarded(test)
    alone, rest = ours.decide(found.output.double()), theirs.decide(teacher(test).output.double())
    assert (alone != theirs.decide(found.output.double()))[found.answer].any()  # the rules differ where it matters
    joint = cascade(source, teacher)(test).output.double()
    assert torch.equal(theirs.decide(joint), torch.where(found.answer, alone, rest))

    class Turned:
        """The teacher of data whose classes lie the other way round."""

        fingerprint = "turned"

        def prepare(self, batch: Batch) -> Callable[[], Any]:
            return lambda: self(batch)

        def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
            return Signal(teacher(batch).output.flip(-1))

    turned = replace(test, schema=replace(table.schema, classes=table.schema.classes[::-1]))
    assert torch.equal(cascade(source, Turned())(turned).output.double().flip(-1), joint)


def test_a_cascade_asks_for_the_teachers_rule_where_nobody_has_told_it(
    student: nn.Module, teacher: Any, table: Data, tmp_path: Path
) -> None:
    rule, asked = classification(metric="auroc", recall_at_fpr=0.02), guard(0.3, 0.2, target="labels", per="all")
    source = export(student, table, rule, at=tmp_path / "student", guard=asked).source
    with pytest.raises(TeacherError, match="from which log-odds the teacher decides was not known"):
        cascade(source, teacher)


def test_a_quantised_guard_says_on_how_large_calls_it_was_fitted(exported: Exported) -> None:
    assert any("the guard was fitted on calls of up to 1,024 rows" in note for note in exported.notes)


def test_a_teacher_that_was_trained_on_calibration_rows_certifies_nothing(
    student: nn.Module, teacher: Any, table: Data, tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class Knows:
        training_ids: torch.Tensor
        fingerprint: str = "knows"

        def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
            return teacher(batch, taps)

        def prepare(self, batch: Batch) -> Callable[[], Any]:
            return teacher.prepare(batch)

    knows = Knows(torch.cat([table.train.ids, table.calibration.ids[:7]]))
    with pytest.raises(EvidenceError, match="trained on 7 of 200 calibration rows"):
        export(student, table, at=tmp_path / "student", guard=EASY, teacher=knows)


def test_images_and_several_classes_have_a_guard_too(tmp_path: Path) -> None:
    data = small_images()
    exported = export(
        fitted(SmallCNN(data.schema), data),
        data,
        classification(),
        at=tmp_path / "student",
        guard=EASY,
        teacher=module(SmallCNN(data.schema, 3)),
    )
    batch = everything(data.test)
    for name in exported.files:
        source = onnx(str(exported.folder / name))
        found = source.guarded(batch)
        limits = torch.from_numpy(source.promise.limits)
        assert torch.equal(found.answer, found.confidence >= limits[found.output.argmax(-1)])


def test_classes_in_another_order_turn_the_logits_and_nothing_else(exported: Exported, table: Data) -> None:
    batch = everything(table.test)
    source = exported.source
    turned = replace(batch, schema=replace(table.schema, classes=("yes", "no")))
    a, b = source.guarded(batch), source.guarded(turned)
    assert torch.equal(a.output.flip(1), b.output)
    assert torch.equal(a.answer, b.answer)


def test_a_guard_that_cannot_be_certified_ships_and_answers_nothing(student: nn.Module, teacher: Any, table: Data, tmp_path: Path) -> None:
    heard: list[str] = []
    strict = guard(epsilon=0.001)
    made = export(student, table, at=tmp_path / "student", guard=strict, teacher=teacher, listen=lambda event: heard.append(event.text))
    assert made.source.promise.state == "too few rows"
    assert not made.source.guarded(everything(table.test)).answer.any()
    assert any("too few calibration rows" in text for text in heard)


def test_a_folder_without_a_guard_says_so_when_it_is_asked_for(student: nn.Module, teacher: Any, table: Data, tmp_path: Path) -> None:
    source = export(student, table, at=tmp_path / "student").source
    for ask in (lambda: source.promise, lambda: source.guarded(everything(table.test)), lambda: cascade(source, teacher)):
        with pytest.raises(TeacherError, match=r"student.onnx has no guard") as found:
            ask()
        assert "guard()" in found.value.hint
    with pytest.raises(TeacherError, match="has no guard"):
        cascade(teacher, teacher)


def test_a_folder_from_before_there_were_guards_still_reads(exported: Exported, student: nn.Module, table: Data, tmp_path: Path) -> None:
    at = tmp_path / "student"
    export(student, table, at=at)
    said = json.loads((at / "student.json").read_text(encoding="utf-8"))
    for file in said["files"].values():
        del file["guard"]
    (at / "student.json").write_text(json.dumps(seal(said)), encoding="utf-8")
    batch = everything(table.test)
    assert torch.equal(onnx(str(at))(batch).output, exported.source(batch).output)
    with pytest.raises(TeacherError, match="has no guard"):
        _ = onnx(str(at)).promise


def test_a_guard_without_a_teacher_or_of_numbers_is_refused_before_anything_is_written(
    student: nn.Module, table: Data, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="needs the teacher's answers"):
        export(student, table, at=tmp_path / "student", guard=guard())
    numbers = small_table(kind="regression")
    with pytest.raises(EvidenceError, match="a number is not right or wrong"):
        export(SmallMLP(numbers.schema), numbers, regression(), at=tmp_path / "student", guard=guard())
    assert not (tmp_path / "student").exists()


@dataclass(frozen=True)
class Broken:
    """A teacher that answers its calibration rows with NaN."""

    fingerprint: str = "broken"

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return Signal(torch.full((len(batch), 2), np.nan))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: None


def test_a_teacher_that_answers_nan_is_refused(student: nn.Module, table: Data, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="200 of 200 valid rows with NaN"):
        export(student, table, at=tmp_path / "student", guard=guard(), teacher=Broken())


# ── the cascade ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cascade_keeps_the_contract_of_sources(exported: Exported, teacher: Any, table: Data) -> None:
    source = exported.source
    batch = table.test.batch(torch.arange(40))
    answered = source.guarded(batch).answer
    assert answered.any()
    assert not answered.all()

    def changed() -> list[Any]:
        other = module(SmallMLP(table.schema, 7))
        return [cascade(source, other), cascade(onnx(str(exported.folder / "student.int8.onnx")), teacher)]

    check_source(cascade(source, teacher), batch, outcomes=2, changed=changed)


def test_a_cascade_answers_as_the_student_where_it_may_and_asks_the_teacher_the_rest_alone(
    exported: Exported, teacher: Any, table: Data
) -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Listening:
        fingerprint: str = "listening"

        def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
            asked.append(len(batch))
            return teacher(batch)

        def prepare(self, batch: Batch) -> Callable[[], Any]:
            return lambda: asked.append(len(batch))

    batch = everything(table.test)
    student = exported.source
    found = student.guarded(batch)
    both = cascade(student, Listening())
    output = both(batch).output
    assert torch.equal(output[found.answer], found.output[found.answer])
    torch.testing.assert_close(output[~found.answer], teacher(batch).output[~found.answer])
    assert asked == [int((~found.answer).sum())]
    both.prepare(batch)()
    assert asked == [asked[0]] * 2
    sure = table.test.batch(found.answer.nonzero().squeeze(1))
    both(sure)
    both.prepare(sure)()
    assert len(asked) == 2
    assert repr(both) == f"cascade({student!r}, {Listening()!r})"


def test_a_cascade_weighs_what_both_weigh_and_knows_training_rows_if_both_do(exported: Exported, teacher: Any) -> None:
    both = cascade(exported.source, teacher)
    assert both.parameters == exported.source.parameters + teacher.parameters
    assert both.training_ids is None


@pytest.mark.parametrize("nobody", [None, "the teacher"])
def test_a_cascade_without_a_teacher_is_refused_when_it_is_made(nobody: Any, exported: Exported) -> None:
    with pytest.raises(TeacherError, match="is no teacher to ask the rest of"):
        cascade(exported.source, nobody)


def test_guards_of_one_run_that_meet_the_same_calibration_rows_are_counted(
    student: nn.Module, teacher: Any, table: Data, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text('{"data": "kept"}')

    def tried(epsilon: float, data: Data = table) -> int:
        asked = guard(epsilon, 0.2)
        return export(student, data, classification(), at=tmp_path / "student", guard=asked, teacher=teacher).source.promise.tried

    assert [tried(0.08), tried(0.08), tried(0.1)] == [1, 1, 2]
    assert "BUT 2 guards were fitted on these calibration rows" in onnx(str(tmp_path / "student")).promise.sentence
    others = replace(table, calibration=table.calibration.take(torch.arange(150)))
    assert tried(0.1, others) == 1
    said = json.loads((tmp_path / "manifest.json").read_text())
    assert said["data"] == "kept"
    assert len(said["guards"]) == 3
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(EvidenceError, match="manifest.json does not read"):
        tried(0.08)


def test_a_guard_of_labels_without_labels_is_refused_before_anything_is_written(student: nn.Module, table: Data, tmp_path: Path) -> None:
    bare = replace(table, calibration=replace(table.calibration, labels=torch.full((len(table.calibration),), IGNORE)))
    with pytest.raises(EvidenceError, match="no row of calibration has a label"):
        export(student, bare, at=tmp_path / "student", guard=guard(target="labels"))
    assert not (tmp_path / "student").exists()


# ── a floor of energy ─────────────────────────────────────────────────────────────────────────────────────────────────

FLOORED = guard(epsilon=0.08, delta=0.2, energy=0.9)


@pytest.mark.parametrize("task", [classification(), classification(threshold=0.3)])
def test_a_graph_with_a_floor_answers_as_its_promise_does_in_each_precision(
    task: Task, student: nn.Module, teacher: Any, table: Data, tmp_path: Path
) -> None:
    made = export(student, table, task, at=tmp_path / "student", guard=FLOORED, teacher=teacher)
    said = json.loads((made.folder / "student.json").read_text(encoding="utf-8"))
    assert said["outputs"] == ["logits", "probabilities", "energy", "confidence", "answer"]
    rule = task.bind(table.schema)
    numbers = torch.from_numpy(np.random.default_rng(0).normal(size=(500, len(table.schema.numbers))).astype(np.float32) * 3)
    random = table.test.batch(torch.arange(500) % len(table.test))
    assert not isinstance(random.inputs, torch.Tensor)
    random = replace(random, inputs={**random.inputs, "numbers": numbers})
    floors = []
    for name in made.files:
        source = onnx(str(made.folder / name))
        promise = source.promise
        assert promise == made.files[name].guard
        assert promise.floor is not None
        floors.append(promise.floor)
        for batch in (everything(table.valid), everything(table.calibration), random):
            found = source.guarded(batch)
            assert found.energy is not None
            torch.testing.assert_close(found.energy.double(), found.output.double().logsumexp(-1), atol=1e-5, rtol=1e-6)
            sure = found.confidence >= torch.from_numpy(promise.limits)[rule.decide(found.output)]
            assert torch.equal(found.answer, sure & (found.energy >= promise.floor))
        kept = source.guarded(everything(table.valid)).energy
        assert kept is not None
        assert float((kept >= promise.floor).double().mean()) == pytest.approx(0.9, abs=0.01)
        below = source.guarded(everything(table.calibration)).energy
        assert below is not None
        assert promise.below == int((below < promise.floor).sum())
    assert len({*floors}) == len(made.files) == 2


def test_rows_far_from_all_others_are_stopped_by_the_floor_alone(tmp_path: Path) -> None:
    """A student that sees how near a row is: where nothing is near, all logits are low, and the greatest is as much the greatest."""

    class Near(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = fitted(SmallMLP(table.schema), table)

        def forward(self, inputs: Any) -> torch.Tensor:
            return self.inner(inputs) - inputs["numbers"][:, :1].nan_to_num().square()

    table = small_table()
    asked = guard(epsilon=0.3, delta=0.2, per="all", energy=0.98)
    made = export(Near(), table, at=tmp_path / "student", guard=asked, teacher=module(fitted(SmallMLP(table.schema, 1), table)))
    batch = everything(table.test)
    assert not isinstance(batch.inputs, torch.Tensor)
    far = replace(batch, inputs={**batch.inputs, "numbers": batch.inputs["numbers"].nan_to_num() + torch.tensor([30.0, 0, 0, 0, 0])})
    for name in made.files:
        source = onnx(str(made.folder / name))
        assert source.promise.certified
        found = source.guarded(far)
        sure = found.confidence >= torch.from_numpy(source.promise.limits)[found.output.argmax(-1)]
        assert float(sure.float().mean()) > 0.9  # far away it is surer than ever
        assert not found.answer.any()
        assert float(source.guarded(batch).answer.float().mean()) > 0.5


def test_without_a_floor_the_graph_says_nothing_of_energy(exported: Exported, table: Data) -> None:
    session = open_graph((exported.folder / "student.onnx").read_bytes(), 1, "student.onnx")
    assert "energy" not in [o.name for o in session.get_outputs()]
    assert exported.source.guarded(everything(table.test)).energy is None


def test_a_cascade_asks_the_teacher_what_lies_below_the_floor(student: nn.Module, teacher: Any, table: Data, tmp_path: Path) -> None:
    source = export(student, table, at=tmp_path / "student", guard=FLOORED, teacher=teacher).source
    batch = everything(table.test)
    found = source.guarded(batch)
    assert found.energy is not None
    below = found.energy < source.promise.floor  # pyright: ignore[reportOperatorIssue] it has one
    assert below.any()
    assert torch.equal(cascade(source, teacher)(batch).output[below], teacher(batch).output[below])


def test_an_older_student_json_without_a_floor_still_reads(exported: Exported, table: Data, tmp_path: Path) -> None:
    import shutil

    at = tmp_path / "student"
    shutil.copytree(exported.folder, at)
    said = json.loads((at / "student.json").read_text(encoding="utf-8"))
    for file in said["files"].values():
        del file["guard"]["floor"], file["guard"]["below"]
    (at / "student.json").write_text(json.dumps(seal(said)), encoding="utf-8")
    batch = everything(table.test)
    assert torch.equal(onnx(str(at)).guarded(batch).answer, exported.source.guarded(batch).answer)


class OneLogit(nn.Module):
    """A student of two outcomes with one logit."""

    def __init__(self, table: Data) -> None:
        super().__init__()
        self.inner = SmallMLP(table.schema)

    def forward(self, inputs: Any) -> torch.Tensor:
        z = self.inner(inputs)
        return z[:, 1:] - z[:, :1]


def test_a_student_of_one_logit_or_of_log_probabilities_has_no_floor(teacher: Any, table: Data, tmp_path: Path) -> None:
    class Normalised(OneLogit):
        def forward(self, inputs: Any) -> torch.Tensor:
            return self.inner(inputs).log_softmax(-1)

    for model, why in ((OneLogit(table), "one log-odds"), (Normalised(table), "log-probabilities")):
        with pytest.raises(EvidenceError, match=f"this student answers {why}"):
            export(model, table, at=tmp_path / "student", guard=FLOORED, teacher=teacher)
    assert not (tmp_path / "student").exists()


def test_that_there_is_one_logit_is_told_before_anything_is_trained(table: Data) -> None:
    task = classification().bind(table.schema)
    for one in (OneLogit(table), trees.lightgbm()):
        with pytest.raises(EvidenceError, match="one log-odds"):
            check_student(FLOORED, one, table, task)
        check_student(EASY, one, table, task)
    check_student(FLOORED, mlp(), table, task)
