"""What a certificate says of a guard: figures against a naive loop, the cascade as the source itself answers, nothing without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from attar.certificate import Certificate, Kept
from attar.certificate.guarding import lines
from attar.data import Data, Split
from attar.data.groups import Group
from attar.guards import Guard, guard
from attar.report import write_report
from attar.sources import cascade, module, onnx
from attar.statistics import paired_proportions, wilson
from attar.task import Task, classification
from attar.testing.small import SmallMLP, fitted, small_table
from attar.verbs.evaluate import evaluate
from attar.verbs.evaluate.guarding import _broken
from attar.verbs.evaluate.scoring import share
from attar.verbs.export import export

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def table() -> Data:
    return small_table()


@pytest.fixture(scope="module")
def teacher(table: Data) -> Any:
    return module(fitted(SmallMLP(table.schema, 1, width=32), table, steps=150))


def judged(asked: Guard, teacher: Any, table: Data, at: Path, task: Task | None = None) -> Certificate:
    export(fitted(SmallMLP(table.schema), table), table, task, at=at / "student", guard=asked, teacher=teacher)
    return evaluate(at / "student", teacher, table, task)


@pytest.fixture(scope="module")
def folder(teacher: Any, table: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a guard that is certified."""
    at = tmp_path_factory.mktemp("run")
    judged(guard(epsilon=0.1, delta=0.2), teacher, table, at).write(at / "certificate.json")
    return at


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Certificate:
    """As it reads back."""
    return Certificate.read(folder / "certificate.json")


def test_the_figures_are_those_of_a_naive_loop_and_of_the_cascade_itself(teacher: Any, table: Data, tmp_path: Path) -> None:
    task = classification(metric="auroc", recall_at_fpr=0.2)  # with a rule, so that student and teacher decide from different log-odds
    c = judged(guard(epsilon=0.1, delta=0.2), teacher, table, tmp_path, task)
    g = c.guard
    assert g is not None
    assert g.certified
    batch, valid = (s.batch(torch.arange(len(s))) for s in (table.test, table.valid))
    student = onnx(str(tmp_path / "student"))
    assert valid.labels is not None
    rules = [task.bind(table.schema).fix(who(valid).output.double(), valid.labels) for who in (student, teacher)]
    s, t = (rule.decide(who(batch).output.double()).numpy() for rule, who in zip(rules, (student, teacher), strict=True))
    answer = student.guarded(batch).answer.numpy()
    assert g.whole.answered.value == pytest.approx(answer.mean())
    assert g.whole.errors.value == pytest.approx((s != t)[answer].mean())
    assert g.whole.unguarded.value == pytest.approx((s != t).mean())
    assert (g.whole.errors.low, g.whole.errors.high) == pytest.approx(wilson(int((s != t)[answer].sum()), int(answer.sum())))
    for i, (name, cell) in enumerate(g.cells.items()):
        assert name == table.schema.classes[i]
        mine = t == i
        assert (cell.rows, cell.answered.n) == (mine.sum(), mine.sum())
        assert cell.answered.value == pytest.approx(answer[mine].mean())
        assert cell.errors.value == pytest.approx((s != t)[mine & answer].mean())
        assert cell.bound == student.promise.cells[i].bound
    y = table.test.labels
    assert y is not None
    both = rules[1].decide(cascade(student, teacher)(batch).output.double()).numpy()
    np.testing.assert_array_equal(both, np.where(answer, s, t))
    accuracy = g.cascade["accuracy"]
    for who, decided in (("teacher", t), ("student", s), ("cascade", both)):
        assert accuracy[who].value == pytest.approx((decided == y.numpy()).mean())
        assert accuracy[who].low is not None
    assert accuracy["difference"].value == pytest.approx((both == y.numpy()).mean() - (t == y.numpy()).mean())
    assert next(iter(g.cascade)) == task.metric
    assert g.cascade["teacher_asked"]["cascade"].value == pytest.approx(1 - answer.mean())
    ms = {who: f.value for who, f in g.cascade["latency_ms"].items()}
    assert None not in ms.values()
    assert ms["cascade"] == pytest.approx(ms["student"] + (1 - answer.mean()) * ms["teacher"])  # pyright: ignore[reportOptionalOperand] checked above


def test_the_curve_goes_through_the_certified_point_and_ends_where_every_row_is_answered(certificate: Certificate) -> None:
    g = certificate.guard
    assert g is not None
    shares, errors = np.array(g.curve["answered"]), np.array(g.curve["errors"])
    assert (np.diff(shares) > 0).all()
    assert shares[-1] == 1
    assert errors[-1] == pytest.approx(g.whole.unguarded.value)
    assert g.whole.answered.value is not None
    assert g.whole.errors.value is not None
    nearest = int(np.abs(shares - g.whole.answered.value).argmin())
    assert errors[nearest] == pytest.approx(g.whole.errors.value, abs=0.01)
    assert all(low <= e <= high for low, e, high in zip(g.curve["low"], errors, g.curve["high"], strict=True))


def test_what_is_promised_by_answer_or_of_labels_is_told_so(teacher: Any, table: Data, tmp_path: Path) -> None:
    c = judged(guard(epsilon=0.3, delta=0.2, target="labels", per="answer"), teacher, table, tmp_path)
    g = c.guard
    assert g is not None
    assert set(g.said) == {"no", "yes"}
    assert g.said["no"].bound is not None
    assert g.cells["no"].bound is None
    test = table.test.batch(torch.arange(len(table.test)))
    assert test.labels is not None
    student = onnx(str(tmp_path / "student"))
    found = student.guarded(test)
    wrong = (found.output.argmax(-1) != test.labels)[found.answer]
    assert g.whole.errors.value == pytest.approx(float(wrong.float().mean()))
    said = "\n".join(c.lines())
    assert "it says no" in said
    assert "label is yes" in said


def test_the_cascade_of_a_guard_of_labels_decides_by_each_ones_own_rule(teacher: Any, table: Data, tmp_path: Path) -> None:
    task = classification(metric="auroc", recall_at_fpr=0.02)
    g = judged(guard(0.3, 0.2, target="labels", per="all"), teacher, table, tmp_path, task).guard
    assert g is not None
    assert g.certified
    batch, valid, student = *(s.batch(torch.arange(len(s))) for s in (table.test, table.valid)), onnx(str(tmp_path / "student"))
    assert valid.labels is not None
    assert batch.labels is not None
    rules = [task.bind(table.schema).fix(who(valid).output.double(), valid.labels) for who in (student, teacher)]
    s, t = (rule.decide(who(batch).output.double()) for rule, who in zip(rules, (student, teacher), strict=True))
    both = torch.where(student.guarded(batch).answer, s, t)
    assert g.cascade["accuracy"]["cascade"].value == pytest.approx(float((both == batch.labels).float().mean()))


def test_a_cascade_that_never_differs_from_the_teacher_has_an_interval_all_the_same(teacher: Any, table: Data, tmp_path: Path) -> None:
    g = judged(guard(epsilon=0.05, delta=0.2, per="all"), teacher, table, tmp_path).guard
    assert g is not None
    assert g.certified
    batch = table.test.batch(torch.arange(len(table.test)))
    a, b = (who(batch).output.argmax(-1) for who in (cascade(onnx(str(tmp_path / "student")), teacher), teacher))
    assert batch.labels is not None
    gained, lost = (int(((one == batch.labels) & (other != batch.labels)).sum()) for one, other in ((a, b), (b, a)))
    difference = g.cascade["accuracy"]["difference"]
    assert (difference.low, difference.high) == pytest.approx(paired_proportions(gained, lost, len(batch.labels)))
    assert difference.low is not None
    assert difference.low < 0


def test_calibration_rows_that_repeat_are_a_limit_of_what_is_promised(
    certificate: Certificate, teacher: Any, table: Data, tmp_path: Path
) -> None:
    assert not any("calibration rows repeat" in limit for limit in certificate.limits)
    few = replace(table, calibration=table.calibration.take(torch.arange(200) % 50))
    c = judged(guard(epsilon=0.1, delta=0.2), teacher, few, tmp_path)
    said = "150 calibration rows repeat another one, and the guard and conformal sets take rows as independent: they promise too much"
    assert said in c.limits


def test_a_promise_that_test_rows_contradict_is_called_so(teacher: Any, table: Data, tmp_path: Path) -> None:
    labels = table.test.labels
    assert labels is not None
    later = replace(table, test=replace(table.test, labels=1 - labels))  # as where something has changed since calibration
    export(fitted(SmallMLP(table.schema), table), table, at=tmp_path / "student", guard=guard(0.3, 0.2, target="labels", per="all"))
    now, then = (evaluate(tmp_path / "student", teacher, data) for data in (table, later))
    assert now.guard is not None
    assert then.guard is not None
    assert now.guard.certified
    assert (now.guard.broken, then.guard.broken) == ((), ("all",))
    assert Certificate.from_dict(then.to_dict()).guard == then.guard
    assert any("promise is not kept on test rows" in limit for limit in then.limits)
    assert "BUT the guard's promise is not kept" in "\n".join(then.lines())
    assert max(map(len, then.lines())) <= 80


@pytest.mark.parametrize(("wrong", "broken"), [(5, ()), (9, ()), (12, ("b",))])
def test_a_cell_is_called_broken_only_where_its_test_rows_show_it(wrong: int, broken: tuple[str, ...]) -> None:
    cells = {name: Kept(100, share(100, 100), share(hits, 100), share(hits, 100)) for name, hits in (("a", 5), ("b", wrong))}
    cells["c"] = Kept(0, share(0, 0), share(0, 0), share(0, 0))
    assert _broken(0.05, cells) == broken
    assert (binomtest(wrong, 100, 0.05, alternative="greater").pvalue <= 0.05 / 2) == bool(broken)


def test_a_certificate_with_a_guard_reads_back_and_is_said_within_80_columns(certificate: Certificate) -> None:
    c = certificate
    assert Certificate.from_dict(c.to_dict()).guard == c.guard
    said = c.lines(80)
    assert max(map(len, said)) <= 80
    assert any("CERTIFIED at 80 % confidence" in line for line in said)
    assert any("promises nothing" in limit for limit in c.limits)
    assert any("decisions, not ranking" in limit for limit in c.limits)


def test_a_guard_that_is_not_certified_is_a_finding_and_no_error(teacher: Any, table: Data, tmp_path: Path) -> None:
    c = judged(guard(epsilon=0.001), teacher, table, tmp_path)
    g = c.guard
    assert g is not None
    assert g.state == "too few rows"
    assert g.whole.answered.value == 0
    assert g.whole.errors.value is None
    assert g.cascade["teacher_asked"]["cascade"].value == 1
    assert g.cascade["accuracy"]["cascade"].value == g.cascade["accuracy"]["teacher"].value
    assert "NOT CERTIFIED, too few calibration rows" in " ".join("\n".join(c.lines()).split())
    assert c.exit_code == 0
    assert any("guard is not certified" in limit for limit in c.limits)
    assert not any("decisions, not ranking" in limit for limit in c.limits)
    page = write_report(c, tmp_path).read_text(encoding="utf-8")
    assert "NOT CERTIFIED, too few calibration rows" in page
    assert "Until it is, every row goes to the teacher." in page
    assert "Diamond: the guard" not in page


def test_without_a_guard_nothing_is_said_of_one(teacher: Any, table: Data, tmp_path: Path) -> None:
    c = evaluate(module(SmallMLP(table.schema)), teacher, table)
    assert c.guard is None
    assert "no guard was fitted: the student answers every row" in c.limits
    assert 'id="guard"' not in write_report(c, tmp_path).read_text(encoding="utf-8")


def test_the_page_shows_the_curve_the_cells_and_the_cascade(certificate: Certificate, tmp_path: Path) -> None:
    c = certificate
    page = write_report(c, tmp_path).read_text(encoding="utf-8")
    for text in (
        'id="guard-curve-t"',
        "promised: at most 10",
        "teacher decides yes",
        "cascade − teacher",
        "Diamond: the guard as it ships",
    ):
        assert text in page
    assert not {"None", "nan"} & set(page[page.index('id="guard"') : page.index('id="limits"')].replace("<", " ").replace(">", " ").split())


def test_a_cascade_is_judged_as_a_student_like_any_other(folder: Path, certificate: Certificate, teacher: Any, table: Data) -> None:
    c, alone = evaluate(cascade(onnx(str(folder / "student")), teacher), teacher, table), certificate
    assert c.fidelity["agreement"].value is not None
    assert alone.fidelity["agreement"].value is not None
    assert c.fidelity["agreement"].value > alone.fidelity["agreement"].value
    assert c.guard is None
    assert c.quality["accuracy"].student.value == pytest.approx(alone.guard.cascade["accuracy"]["cascade"].value)  # pyright: ignore[reportOptionalMemberAccess] it has one


def sexed(data: Data) -> Data:
    """The same rows, parted by a column that nobody gives the student; of a few it is not known."""
    rng = np.random.default_rng(0)

    def parts(split: Split) -> Split:
        codes = rng.integers(0, 2, len(split))
        codes[:7] = -1
        return replace(split, groups={"sex": Group(("F", "M"), torch.from_numpy(codes))})

    return replace(data, **{name: parts(split) for name, split in data.splits.items()})


def test_a_promise_of_groups_is_told_by_group_in_the_terminal_and_on_the_page(teacher: Any, table: Data, tmp_path: Path) -> None:
    data = sexed(table)
    c = judged(guard(epsilon=0.15, delta=0.2, groups=True), teacher, data, tmp_path)
    g = c.guard
    assert g is not None
    assert g.certified
    student = onnx(str(tmp_path / "student"))
    batch = data.test.batch(torch.arange(len(data.test)))
    found, codes = student.guarded(batch), data.test.groups["sex"].codes
    wrong = found.output.argmax(-1) != teacher(batch).output.argmax(-1)
    assert list(g.groups["sex"]) == ["F", "M", "missing"]
    for code, (name, cell) in zip((0, 1, -1), g.groups["sex"].items(), strict=True):
        mine = codes == code
        assert (cell.rows, cell.answered.value) == (int(mine.sum()), pytest.approx(float(found.answer[mine].float().mean())))
        assert cell.errors.value == pytest.approx(float(wrong[mine & found.answer].float().mean()))
        promised = {p.name: p.bound for p in student.promise.cells if p.of == "sex"}
        assert cell.bound == promised.get(name)
    assert g.groups["sex"]["missing"].bound is None
    said = c.lines(80)
    assert max(map(len, said)) <= 80
    assert [line[:8] for line in lines(g) if line.startswith("  sex ")] == ["  sex F ", "  sex M "]
    unpromised = {"sex": {name: replace(cell, bound=None) for name, cell in g.groups["sex"].items()}}
    assert "sex F" not in "\n".join(lines(replace(g, groups=unpromised)))
    assert "each group by 'sex'" in " ".join(" ".join(said).split())
    page = write_report(c, tmp_path).read_text(encoding="utf-8")
    assert {"sex F", "sex missing"} <= {cell.split("<")[0].strip() for cell in page.split(">")}
    assert Certificate.from_dict(c.to_dict()).guard == g


def test_the_terminal_tells_how_sure_the_share_answered_is(certificate: Certificate) -> None:
    g = certificate.guard
    assert g is not None
    share = g.whole.answered
    row = next(line for line in certificate.lines(80) if line.startswith("  all "))
    assert f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]" in row
    assert not any("[ " in line for line in certificate.lines(80))


# ── who is answered ───────────────────────────────────────────────────────────────────────────────────────────────────


def stretched(data: Data, by: float = 4.0, *, known: int = 0) -> Data:
    """Rows with numbers so many times as large; ids that home does not know, but for the first test rows."""

    def farther(split: Split) -> Split:
        def rows(index: torch.Tensor) -> Any:
            found: Any = split.rows(index)
            return {**found, "numbers": found["numbers"] * by}

        return replace(split, ids=torch.where(torch.arange(len(split)) < known, split.ids, split.ids + 10_000), rows=rows)

    return replace(data, **{name: farther(split) for name, split in data.splits.items()})


@pytest.fixture(scope="module")
def with_floor(teacher: Any, table: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Certificate]:
    at = tmp_path_factory.mktemp("floored")
    asked = guard(epsilon=0.1, delta=0.2, energy=0.9)
    export(fitted(SmallMLP(table.schema), table), table, at=at / "student", guard=asked, teacher=teacher)
    away = {"far": stretched(table, known=3), "farther": stretched(table, 50)}
    evaluate(at / "student", teacher, table, foreign=away).write(at / "certificate.json")
    return at, Certificate.read(at / "certificate.json")


def test_how_many_rows_are_answered_with_the_floor_and_without_is_as_a_naive_loop_counts(
    with_floor: tuple[Path, Certificate], table: Data
) -> None:
    at, c = with_floor
    g, source = c.guard, onnx(str(at / "student"))
    assert g is not None
    assert g.home is not None
    assert g.certified
    assert source.promise.floor == g.floor
    limits = source.promise.limits
    for name, passing in (("home", g.home), *g.foreign.items()):
        splits = [table.test] if name == "home" else [*stretched(table, 4 if name == "far" else 50).splits.values()]
        answered = confident = below = count = 0
        for split in splits:
            skipped = 3 if name == "far" else 0  # rows that home knows
            found = source.guarded(split.batch(torch.arange(skipped, len(split))))
            assert found.energy is not None
            for z, p, energy in zip(found.output, found.confidence.numpy(), found.energy.numpy(), strict=True):
                low, sure = energy < np.float32(g.floor), p >= limits[int(z.argmax())]  # pyright: ignore[reportArgumentType] it has one
                answered, confident, below, count = answered + (sure and not low), confident + sure, below + low, count + 1
        assert passing.rows == count
        for figure, hits in ((passing.answered, answered), (passing.confident, confident), (passing.below, below)):
            assert figure.value == pytest.approx(hits / count)
            assert (figure.low, figure.high) == pytest.approx(wilson(int(hits), count))
    assert g.home.below.value == pytest.approx(0.1, abs=0.06)
    assert g.whole.answered.value == g.home.answered.value


def test_the_terminal_the_page_and_the_answers_tell_who_is_answered(with_floor: tuple[Path, Certificate]) -> None:
    at, c = with_floor
    g, said = c.guard, c.lines(80)
    assert g is not None
    assert max(map(len, said)) <= 80
    head = next(i for i, line in enumerate(said) if line.startswith("  who it answers share [95 %]"))
    assert "by confidence alone  below the floor" in said[head]
    for line, (name, passing) in zip(said[head + 1 : head + 4], (("test rows", g.home), *g.foreign.items()), strict=True):
        assert passing is not None
        assert line.split()[: len(name.split())] == name.split()
        for figure in (passing.answered, passing.confident, passing.below):
            assert f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" in line
    page = write_report(c, at).read_text(encoding="utf-8")
    assert "Who is answered: rows of the task, and foreign ones" in page
    assert "by confidence alone" in page
    assert "Of foreign rows nothing is promised" in page
    most = max(g.foreign.items(), key=lambda item: item[1].answered.value or 0)[0]
    assert f"Of rows that are not of the task nothing is promised: of {most} it answers" in page


def test_the_curve_with_a_floor_goes_through_the_certified_point(with_floor: tuple[Path, Certificate]) -> None:
    g = with_floor[1].guard
    assert g is not None
    assert g.whole.answered.value is not None
    shares, errors = np.array(g.curve["answered"]), np.array(g.curve["errors"])
    nearest = int(np.abs(shares - g.whole.answered.value).argmin())
    assert errors[nearest] == pytest.approx(g.whole.errors.value, abs=0.01)
    assert shares[-1] == 1
    assert errors[-1] == pytest.approx(g.whole.unguarded.value)


def test_without_a_floor_foreign_rows_are_told_and_nothing_of_floors(
    certificate: Certificate, teacher: Any, table: Data, folder: Path
) -> None:
    assert not any("who it answers" in line for line in certificate.lines())
    assert certificate.guard is not None
    c = evaluate(folder / "student", teacher, table, foreign={"far": stretched(table)})
    assert c.guard is not None
    far = c.guard.foreign["far"]
    assert (far.answered, far.below.value) == (far.confident, None)
    text = "\n".join(c.lines(80))
    assert "who it answers" in text
    assert "floor" not in text
    assert "below the floor" not in write_report(c, folder).read_text(encoding="utf-8")


def test_a_certificate_from_before_there_were_floors_still_reads(certificate: Certificate) -> None:
    old = certificate.to_dict()
    for name in ("floor", "home", "foreign"):
        del old["guard"][name]
    read = Certificate.from_dict(old).guard
    assert read is not None
    assert (read.floor, read.home, dict(read.foreign)) == (None, None, {})
    assert Certificate.from_dict(old).lines()
