"""Harm: cells against a naive loop, what may be said of them and what not, populations of students, and rows that are shown on request."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from attar.certificate import Certificate, Harm, Verdict
from attar.certificate.harm import Cell, said
from attar.data.base import Data, Memory, Split
from attar.data.groups import Group
from attar.errors import EvidenceError
from attar.report import check_rows, write_report
from attar.report.rows import png, shown
from attar.signal import IGNORE, NOTHING, Batch, Column, Schema, Signal, Texts
from attar.statistics import paired_proportions, wilson
from attar.task import Task, classification, embedding, multilabel, regression
from attar.verbs.evaluate import evaluate
from attar.verbs.evaluate.harm import harm, limits
from attar.verbs.evaluate.likeness import positions
from attar.verbs.evaluate.models import Rows, gather, judge

N = 900


@dataclass(frozen=True, eq=False)
class Told:
    """A source that answers what it was told, by row id."""

    name: str
    answers: Tensor
    asked: list[int] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return self.name

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert batch.ids is not None
        return Signal(self.answers[batch.ids % 10_000])

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: None


def groups(n: int = N) -> dict[str, Group]:
    """Sex in halves, ward in three parts of which one has three rows."""
    ward = torch.where(torch.arange(n) < 3, 2, torch.arange(n) // 3 % 2)
    return {"sex": Group(("F", "M"), torch.arange(n) % 2), "ward": Group(("A", "B", "C"), ward)}


def data(labels: Tensor, kind: Any = "classification", classes: tuple[str, ...] = ("no", "yes"), **facts: Any) -> Data:
    schema = Schema("tensor", shape=(1,), classes=classes, label="ill")
    n = len(labels)

    def split(name: str, start: int, **more: Any) -> Split:
        return Split(name, torch.arange(n) + start, labels, None, schema, Memory(torch.zeros(n, 1)), **more)

    train, valid, calibration = split("train", 20_000), split("valid", 0), split("calibration", 30_000)
    test = split("test", 10_000, **{"groups": groups(n), **facts})
    return Data(schema, kind, train, valid, calibration, test, "fingerprint")


def logits(decided: Tensor, outcomes: int, sure: float = 2.0) -> Tensor:
    return torch.nn.functional.one_hot(decided, outcomes).float() * sure


def decisions(labels: Tensor, outcomes: int, right: Tensor, seed: int) -> Tensor:
    """Decisions that are right with a probability for each row."""
    rng = np.random.default_rng(seed)
    u = torch.tensor(np.random.default_rng(99).random(len(labels)) * 0.7 + rng.random(len(labels)) * 0.3)  # mostly the same rows
    return torch.where(u < right, labels, (labels + 1) % outcomes)


def harmed(found: Certificate) -> Harm:
    assert found.harm is not None
    return found.harm


def compared(
    student: Told, teacher: Told, rows: Data, task: Task, *, arms: dict[str, list[Told]] | None = None, out: Path | None = None
) -> Harm:
    """What `evaluate` finds of harm, without the rest of it."""
    task = task.bind(rows.schema)
    judged = judge(student)
    models = gather(judged, teacher, arms or {}, rows, task)
    answers = {who: model.ask(rows.test) for who, model in models.items()}
    asked = Rows.of(rows.test, task)
    at = positions(models, answers, asked, judged) if task.kind != "regression" else None
    found = harm(at, models, answers, asked, judged, task, rows, out)
    assert found is not None
    return found


def cell(harm: Harm, family: str, title: str) -> Cell:
    return next(c for c in harm.families[family].cells if c.title == title)


def two() -> tuple[Data, Tensor, Tensor, Tensor]:
    """Two classes; the student loses much on women, nothing on men."""
    rng = np.random.default_rng(0)
    y = torch.tensor(rng.integers(0, 2, N))
    right = torch.where(torch.arange(N) % 2 == 0, 0.35, 0.6)
    return data(y), y, decisions(y, 2, torch.full((N,), 0.6), 1), decisions(y, 2, right, 2)


def test_cells_are_what_a_naive_loop_finds() -> None:
    rows, y, t, s = two()
    found = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), rows, classification())
    sex, ward = np.arange(N) % 2, rows.test.groups["ward"].codes.numpy()
    masks = {"sex F": sex == 0, "sex M": sex == 1, "ward A": ward == 0, "ward B": ward == 1, "ward C": ward == 2}
    t_right, s_right = (t == y).numpy(), (s == y).numpy()
    pvalues = {}
    for title, mask in masks.items():
        for family, rest in (("group", np.ones(N, dtype=bool)), ("recall", (y == 1).numpy())):
            mine, it = mask & rest, cell(found, family, title)
            assert it.rows == mine.sum()
            assert it.teacher.value == pytest.approx(t_right[mine].mean())
            assert it.student.value == pytest.approx(s_right[mine].mean())
            only_s, only_t = int((s_right & ~t_right)[mine].sum()), int((t_right & ~s_right)[mine].sum())
            assert it.agreement is not None
            assert it.agreement.value == pytest.approx((t == s).numpy()[mine].mean())
            assert (it.agreement.low, it.agreement.high) == pytest.approx(wilson(int((t == s).numpy()[mine].sum()), int(mine.sum())))
            assert (it.difference.low, it.difference.high) == pytest.approx(paired_proportions(only_s, only_t, int(mine.sum())))
            if title != "ward C":
                assert it.p == pytest.approx(stats.binomtest(only_s, only_s + only_t).pvalue)
                pvalues[family, title] = it.p
    for family in ("group", "recall"):
        titles = [title for title in masks if title != "ward C"]
        adjusted = stats.false_discovery_control([pvalues[family, title] for title in titles])
        assert [cell(found, family, title).adjusted for title in titles] == pytest.approx(adjusted.tolist())
    assert cell(found, "group", "sex F").answer == "worse"
    assert cell(found, "group", "sex M").answer == "not shown"
    family = found.families["group"]
    assert family.worst == "sex F"
    assert family.regret.value == pytest.approx(-(s_right[sex == 0].mean() - t_right[sex == 0].mean()))
    ends = [
        sorted(-x for x in paired_proportions(*_discordant(s_right[m], t_right[m]), int(m.sum()), 1 - 0.05 / 4))
        for m in masks.values()
        if m.sum() > 30
    ]
    assert (family.regret.low, family.regret.high) == pytest.approx((max(e[0] for e in ends), max(e[1] for e in ends)))
    classes = found.families["class"]
    assert {c.title: c.rows for c in classes.cells} == {"no": int((y == 0).sum()), "yes": int((y == 1).sum())}
    assert any("significantly worse" in text and "sex F" in text for text in said(found))


def _discordant(s: np.ndarray, t: np.ndarray) -> tuple[int, int]:
    return int((s & ~t).sum()), int((t & ~s).sum())


def test_a_group_of_three_rows_gets_no_verdict_and_says_what_it_lacks() -> None:
    rows, y, _, s = two()
    s = torch.where(torch.arange(N) < 3, 1 - y, s)  # wrong on all three
    certificate = evaluate(Told("s", logits(s, 2)), Told("t", logits(y, 2)), rows, classification())
    few = cell(harmed(certificate), "group", "ward C")
    assert (few.rows, few.answer, few.p, few.adjusted, few.rows_needed) == (3, "too few rows", None, None, 30)
    assert few.difference.value == -1.0
    family = harmed(certificate).families["group"]
    assert family.tested == 4
    assert family.worst != "ward C"
    assert family.cells[-1] is few  # the worst come first, and nothing is known of it
    text = str(certificate)
    assert "ward C: too few test rows to say whether the student does worse" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_equal_models_are_not_called_worse_more_often_than_promised() -> None:
    false = 0
    for seed in range(20):
        y = torch.tensor(np.random.default_rng(seed).integers(0, 2, N))
        t, s = (decisions(y, 2, torch.full((N,), 0.6), 100 + 2 * seed + k) for k in range(2))
        at = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), data(y), classification())
        false += any(c.answer in ("worse", "better") for family in at.families.values() for c in family.cells)
    assert false <= 5  # of 20: three families, each at most at 5 %, and exact tests are cautious


def test_how_far_groups_lie_apart_is_fairlearns_difference() -> None:
    rows, y, t, s = two()
    found = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), rows, classification()).parity
    parts = {
        name: [g == code for code in g.unique()] for name, g in (("sex", torch.arange(N) % 2), ("ward", rows.test.groups["ward"].codes))
    }
    for name, masks in parts.items():
        masks = [m for m in masks if m.sum() > 30]
        for who, d in (("teacher", t), ("student", s)):
            rate = [float((d[m] == 1).double().mean()) for m in masks]
            recall = [float((d[m & (y == 1)] == 1).double().mean()) for m in masks]
            alarm = [float((d[m & (y == 0)] == 1).double().mean()) for m in masks]
            assert getattr(found[name]["demographic parity"], who).value == pytest.approx(max(rate) - min(rate))
            odds = max(max(recall) - min(recall), max(alarm) - min(alarm))
            assert getattr(found[name]["equalised odds"], who).value == pytest.approx(odds)
    assert found["ward"]["demographic parity"].left_out == ("C",)


def test_without_labels_there_is_agreement_and_no_verdict(tmp_path: Path) -> None:
    _, y, t, s = two()
    rows = data(torch.full_like(y, IGNORE))
    certificate = evaluate(Told("s", logits(s, 2)), Told("t", logits(t, 2)), rows, classification(), out=tmp_path)
    found = harmed(certificate)
    assert set(found.families) == {"class", "group"}
    for family in found.families.values():
        assert family.tested == 0
        assert {c.answer for c in family.cells} == {"no labels"}
    f = cell(found, "group", "sex F")
    assert f.agreement is not None
    assert f.agreement.value == pytest.approx(float((t == s)[::2].double().mean()))
    assert f.difference.value is None
    assert "demographic parity" in found.parity["sex"]
    assert "equalised odds" not in found.parity["sex"]
    assert found.pies is not None
    assert found.pies.lost.value is None
    assert found.pies.differ.value == pytest.approx(float((t != s).double().mean()))
    assert set(pd.read_parquet(tmp_path / "harm.parquet")["what"]) == {"no label"}
    assert "Agreement by group" in write_report(certificate, tmp_path).read_text(encoding="utf-8")


def test_weights_and_rows_with_several_labels_widen_intervals(tmp_path: Path) -> None:
    rows, _, t, s = two()
    plain = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), rows, classification())
    weight = torch.tensor(np.random.default_rng(1).gamma(0.5, size=N), dtype=torch.float32)
    heavy = replace(rows, test=replace(rows.test, weight=weight))
    weighted = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), heavy, classification())
    a, b = (cell(c, "group", "sex F") for c in (plain, weighted))
    right = (s[::2] == rows.test.labels[::2]).double()  # pyright: ignore[reportOptionalSubscript] there are labels
    assert b.student.value == pytest.approx(float((weight[::2].double() * right).sum() / weight[::2].double().sum()))
    assert _width(b) > 1.2 * _width(a)
    assert "Korn and Graubard" in b.difference.how

    rng = np.random.default_rng(2)
    y = torch.tensor(np.repeat(rng.integers(0, 2, (N, 1)), 3, axis=1))  # three labels that are one
    t3, s3 = (decisions(y[:, 0], 2, torch.full((N,), p), k)[:, None].repeat(1, 3) for p, k in ((0.6, 1), (0.5, 2)))
    many = data(y, "multilabel", ("red", "green", "blue"))
    found = compared(Told("s", logits(s3, 2)), Told("t", logits(t3, 2)), many, multilabel(), out=tmp_path)
    red, sex = cell(found, "class", "red"), cell(found, "group", "sex F")
    assert (red.rows, sex.rows) == (N, 3 * N / 2)
    one = data(y[:, 0])
    single = compared(Told("s", logits(s3[:, 0], 2)), Told("t", logits(t3[:, 0], 2)), one, classification())
    assert _width(sex) == pytest.approx(_width(cell(single, "group", "sex F")), rel=0.02)  # thrice the same tells no more
    assert set(pd.read_parquet(tmp_path / "harm.parquet")["of"]) == {"red", "green", "blue"}


def _width(it: Cell) -> float:
    assert it.difference.high is not None
    assert it.difference.low is not None
    return it.difference.high - it.difference.low


def test_of_numbers_the_mean_absolute_errors_are_compared() -> None:
    rng = np.random.default_rng(0)
    y = torch.tensor(rng.normal(size=N), dtype=torch.float32)
    noise = torch.tensor(rng.normal(size=(2, N)), dtype=torch.float32)
    t, s = y + 0.3 * noise[0], y + torch.where(torch.arange(N) % 2 == 0, 0.6, 0.3) * noise[1]
    found = compared(Told("s", s[:, None]), Told("t", t[:, None]), data(y, "regression", ()), regression())
    family = found.families["group"]
    f = cell(found, "group", "sex F")
    off_s, off_t = (s - y).abs()[::2].double().numpy(), (t - y).abs()[::2].double().numpy()
    test = stats.ttest_rel(off_s, off_t)
    assert f.student.value == pytest.approx(off_s.mean(), rel=1e-5)
    assert f.p == pytest.approx(test.pvalue, rel=1e-3)
    assert (f.difference.low, f.difference.high) == pytest.approx(tuple(test.confidence_interval()), rel=1e-3)
    assert (f.answer, family.worst, family.better) == ("worse", "sex F", -1)
    assert cell(found, "group", "ward C").difference.value is None
    plain = data(y, "regression", (), groups={})
    assert limits(None, regression(), plain) == ["groups of rows: none were declared (groups=), so that none were compared"]


def test_the_mode_of_the_students_is_what_a_naive_count_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    y = torch.tensor(rng.integers(0, 3, N))
    t = decisions(y, 3, torch.full((N,), 0.7), 1)
    seeds = [decisions(y, 3, torch.full((N,), 0.55), 10 + k) for k in range(5)]
    rows = data(y, classes=("a", "b", "c"))
    arms = {
        "student": [Told(f"s{k}", logits(d, 3)) for k, d in enumerate(seeds)],
        "labels": [Told(f"c{k}", logits(d, 3)) for k, d in enumerate(seeds)],
    }
    certificate = evaluate(arms["student"][0], Told("t", logits(t, 3)), rows, classification(), arms=arms, out=tmp_path)
    pies = harmed(certificate).pies
    assert pies is not None
    table = pd.read_parquet(tmp_path / "harm.parquet")
    assert (pies.seeds, pies.file, pies.listed) == (5, "harm.parquet", len(table))
    assert table["id"].dtype == np.int64
    by_id = table.set_index("id")
    differ = lost = 0
    for i in range(N):
        votes = Counter(int(d[i]) for d in seeds)
        mode, count = votes.most_common(1)[0]
        if list(votes.values()).count(count) > 1:
            continue
        differ += mode != int(t[i])
        lost += mode != int(t[i]) == int(y[i])
        assert (i + 10_000 in by_id.index) == (mode != int(t[i]))
        if mode != int(t[i]):
            line = by_id.loc[i + 10_000]
            assert (line["students"], line["teacher"], line["label"]) == ("abc"[mode], "abc"[int(t[i])], "abc"[int(y[i])])
            assert (line["alike"], line["ships"]) == (count / 5, "abc"[int(seeds[0][i])])
            expected = "lost" if t[i] == y[i] else "gained" if mode == y[i] else "both wrong"
            assert line["what"] == expected
            assert line["group sex"] == "FM"[i % 2]
    assert pies.differ.value == pytest.approx(differ / N, abs=0.01)  # but for ties
    assert pies.lost.value == pytest.approx(lost / N, abs=0.01)
    assert table["what"].tolist() == sorted(table["what"], key=lambda w: w != "lost")
    again = Certificate.from_dict(json.loads(json.dumps(certificate.to_dict(), allow_nan=False)))
    assert repr(again.harm) == repr(certificate.harm)


def test_a_tie_goes_to_what_the_seeds_are_surer_of_and_confidence_finds_what_is_lost() -> None:
    y = torch.tensor(np.random.default_rng(4).integers(0, 2, N))
    split, both = torch.arange(N) % 10 == 0, torch.arange(N) % 10 == 5  # where one seed is wrong, where both are
    first = logits(torch.where(split | both, 1 - y, y), 2, 1.0) * torch.where(split, 1.5, 3.0)[:, None]
    second = logits(torch.where(both, 1 - y, y), 2, 1.0) * torch.where(split, 0.1, 3.0)[:, None]  # right, and hardly sure
    arms = {"student": [Told("s0", first), Told("s1", second)]}
    pies = compared(arms["student"][0], Told("t", logits(y, 2)), data(y), classification(), arms=arms).pies
    assert pies is not None
    assert pies.lost.value == pytest.approx(0.2)
    assert {(e.id % 10, e.alike) for e in pies.examples} == {(0, 0.5), (5, 1.0)}
    unsure = 1 - torch.softmax(first.double(), -1).amax(-1)
    assert pies.lost_found.value == pytest.approx(roc_auc_score((split | both).numpy(), unsure.numpy()))
    assert pies.lost_found.low is not None
    assert pies.file == ""


@pytest.mark.parametrize("task", [classification(threshold=0.9), classification(metric="auroc", recall_at_fpr=0.1)])
def test_under_a_rule_with_a_cut_unsure_is_who_lies_near_it(task: Task) -> None:
    rng = np.random.default_rng(6)
    z = torch.tensor(rng.normal(2, 2, N))
    y = (torch.sigmoid(z - 2) > torch.tensor(rng.random(N))).long()
    near = z + torch.tensor(rng.normal(0, 0.3, N))
    student, teacher = (Told(name, torch.stack((torch.zeros(N).double(), v), -1)) for name, v in (("s", near), ("t", z)))
    rows = data(y)
    pies = compared(student, teacher, rows, task).pies
    assert pies is not None
    at_test = rows.test.batch(torch.arange(N))
    fixed = [task.bind(rows.schema).fix(told(at_test).output.double(), y) for told in (student, teacher)]  # valid has the same rows
    s, t = (rule.decide(told(at_test).output.double()) for rule, told in zip(fixed, (student, teacher), strict=True))
    assert fixed[0].decides_from is not None
    distance = (near - fixed[0].decides_from).abs()
    assert pies.differ_found.value == pytest.approx(roc_auc_score((s != t).numpy(), -distance.numpy()))
    assert (pies.differ_found.value or 0) > 0.8  # they differ where the student is near the cut


def test_without_pyarrow_rows_are_listed_as_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _, t, s = two()
    (tmp_path / "harm.parquet").write_bytes(b"of an earlier look")
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None if name == "pyarrow" else find(name, package))
    pies = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), rows, classification(), out=tmp_path).pies
    assert pies is not None
    assert pies.file == "harm.csv"
    assert len(pd.read_csv(tmp_path / "harm.csv")) == pies.listed == int((t != s).sum())
    assert not (tmp_path / "harm.parquet").exists()


def test_what_was_not_compared_is_a_limit() -> None:
    rows, _, t, s = two()
    task = classification().bind(rows.schema)
    found = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), rows, task)
    assert "groups by two columns at once, such as sex × ward" in " ".join(limits(found, task, rows))
    plain = replace(rows, test=replace(rows.test, groups={}))
    told = " ".join(limits(compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), plain, task), task, plain))
    assert "none were declared (groups=), so that none were compared but by class" in told
    assert "one student is no population" in told
    assert "groups of rows from elsewhere (abroad): they were not compared by group" in limits(found, task, rows, {"abroad": rows})
    assert "vectors are not right or wrong" in " ".join(limits(None, embedding(), rows))


# --- rows on the page --------------------------------------------------------------------------------------------------------------

EVIL = "<img src=x onerror=alert(1)>"


def shown_page(tmp_path: Path, split: Split, show_rows: int) -> str:
    rows, _, t, s = two()
    found = compared(Told("s", logits(s, 2)), Told("t", logits(t, 2)), rows, classification())
    test = replace(split, ids=rows.test.ids)
    return write_report(bare(found), tmp_path, test=test, show_rows=show_rows).read_text(encoding="utf-8")


def bare(found: Harm) -> Certificate:
    """A certificate that holds nothing else."""
    unsure = Verdict("insufficient evidence", "INSUFFICIENT EVIDENCE")
    identity = {
        "task": "classification()", "data": "d", "look": None, "rows": {"test": N, "labelled": N}, "versions": {}, "machine": "m",
        "teacher": {"text": "t", "fingerprint": "t"}, "student": {"text": "s", "fingerprint": "s"},
    }  # fmt: skip
    claim = {"metric": "accuracy", "decision": "d"}
    return Certificate(identity, claim, unsure, unsure, {}, {}, {}, {}, {}, (), (), {}, harm=found)


def test_rows_are_shown_only_on_request_and_escaped(tmp_path: Path) -> None:
    schema = Schema("text", texts=("text",), classes=("no", "yes"))
    texts = Texts([f"secret {i} {EVIL}" for i in range(N)])
    split = Split("test", torch.arange(N), None, None, schema, Memory({"text": texts}))
    assert "secret" not in shown_page(tmp_path, split, 0)
    page = shown_page(tmp_path, split, 3)
    assert page.count("secret") == 3
    assert "<img" not in page
    assert "&lt;img src=x onerror" in page


def test_columns_and_pictures_are_shown_as_they_are(tmp_path: Path) -> None:
    columns = (Column("age", "number"), Column("town", "category", ("here", EVIL)), Column("smokes", "boolean"))
    numbers = torch.stack([torch.arange(N) + 0.5, torch.arange(N) % 2], 1)
    numbers[:, 0] = torch.where(torch.arange(N) % 2 == 0, numbers[:, 0], math.nan)
    inputs = {"numbers": numbers, "categories": torch.arange(N)[:, None] % 3}
    split = Split("test", torch.arange(N), None, None, Schema("table", columns, classes=("no", "yes")), Memory(inputs))
    page = shown_page(tmp_path, split, 20)
    for text in ("missing or unknown", "here", "&lt;img", "<dt>smokes</dt><dd>yes</dd>", "<dt>age</dt><dd>missing</dd>"):
        assert text in page
    assert "<img" not in page
    pixels = torch.randint(0, 255, (N, 3, 20, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split("test", torch.arange(N), None, None, Schema("images", shape=(3, 20, 300), classes=("no", "yes")), Memory(pixels))
    assert shown_page(tmp_path, split, 2).count('<img src="data:image/png;base64,') == 2


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 2)])
def test_a_png_is_read_back_by_pillow(shape: tuple[int, int, int], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    found = np.asarray(image.open(tmp_path / "a.png"))
    assert np.array_equal(found.reshape(*shape[1:], -1), pixels.transpose(1, 2, 0))


def test_a_number_of_rows_that_cannot_be_shown_is_refused() -> None:
    for count in (-1, 101):
        with pytest.raises(EvidenceError, match=f"show_rows={count}"):
            check_rows(count)
    check_rows(0)


def test_nothing_is_shown_of_a_certificate_without_such_rows() -> None:
    rows, y, _, _ = two()
    found = compared(Told("s", logits(y, 2)), Told("t", logits(y, 2)), rows, classification())
    assert shown(bare(found), rows.test, 5) == []
    assert shown(replace(bare(found), harm=None), rows.test, 5) == []
