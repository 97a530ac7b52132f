"""Evaluate: figures against a naive loop, verdicts that know when they do not know, and nothing chosen on the test split."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

from attar.certificate import Certificate, Figure, Verdict, require
from attar.cost import budget
from attar.data.base import Data, Memory, Split
from attar.errors import EvidenceError, TeacherError
from attar.identity import uniform
from attar.signal import IGNORE, NOTHING, Batch, Schema, Signal
from attar.sources.module import module
from attar.statistics import clopper_pearson, metrics, vectors
from attar.statistics.tests import Effect
from attar.task import classification, embedding, multilabel, regression
from attar.testing.texts import small_pairs, small_text_model, small_text_teacher
from attar.verbs.evaluate import _as_bounded, _bounded, evaluate
from attar.verbs.evaluate.models import judge
from attar.verbs.evaluate.verdicts import _against, _more, helped
from attar.verbs.export import export


@dataclass(frozen=True, eq=False)
class Toy:
    """A source that answers with its rows: column 0 and on are its logits, plus noise fixed by its name."""

    name: str
    noise: float = 0.0
    scale: float = 1.0
    bias: float = 0.0
    training_ids: Tensor | None = None
    in_fold: bool = False
    asked: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"toy({self.name})"

    def answer(self, x: Tensor, ids: Tensor) -> Tensor:
        noise = np.stack([special.ndtri(uniform(ids.numpy(), f"{self.name} {column}")) for column in range(x.shape[1])], -1)
        return (x + self.noise * torch.tensor(noise, dtype=torch.float32)) * self.scale + self.bias

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert isinstance(batch.inputs, Tensor)
        assert batch.ids is not None
        self.asked.append("valid" if int(batch.ids[0]) < 10_000 else "test")
        return Signal(self.answer(batch.inputs, batch.ids))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        inputs = batch.inputs
        assert isinstance(inputs, Tensor)
        return lambda: inputs + 1


def rows(task_kind: str, columns: int, n: int = 1500, classes: tuple[str, ...] = ("no", "yes"), noise: float = 1.0) -> Data:
    """Rows whose columns are the true logits (or numbers), with labels drawn from them."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(n, columns)) * 1.5, dtype=torch.float32)
    if task_kind == "regression":
        y = x[:, 0] + torch.tensor(rng.normal(size=n) * noise, dtype=torch.float32)
    elif task_kind == "multilabel":
        y = (torch.sigmoid(x) > torch.tensor(rng.random((n, columns)))).long()
    elif columns == 1:
        y = (torch.sigmoid(x[:, 0]) > torch.tensor(rng.random(n))).long()
    else:
        y = torch.tensor([rng.choice(columns, p=p / p.sum()) for p in x.double().softmax(-1).numpy()])
    schema = Schema("tensor", shape=(columns,), classes=classes)
    ids = torch.arange(n)

    def split(name: str, low: int, high: int, start: int) -> Split:
        return Split(name, ids[low:high] + start, y[low:high], None, schema, Memory(x[low:high]))

    valid, test = split("valid", 0, 400, 0), split("test", 400, n, 10_000)
    empty = split("train", 0, 1, 50_000)
    return Data(schema, task_kind, empty, valid, replace(empty, name="calibration"), test, "fingerprint")  # pyright: ignore[reportArgumentType] a str of the kinds


@pytest.fixture(scope="module", autouse=True)
def resamples(quick: None) -> Iterator[None]:
    """Enough of them that an interval is where formulas have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attar.verbs.evaluate.scoring.RESAMPLES", 500)
        yield


def arms(gain: float, n: int = 5) -> dict[str, list[Toy]]:
    return {
        "student": [Toy(f"s{i}", 0.3) for i in range(n)],
        "labels": [Toy(f"c{i}", 0.3 + gain) for i in range(n)],
    }


def test_two_classes_are_judged_as_a_naive_loop_would() -> None:
    data = rows("classification", 1)
    teacher, student = Toy("t", 0.1), Toy("s", 0.5)
    found = evaluate(student, teacher, data, classification(metric="auroc"))
    test = data.test.batch(torch.arange(len(data.test)))
    assert isinstance(test.inputs, Tensor)
    assert test.ids is not None
    assert test.labels is not None
    y = test.labels.numpy()
    t, s = (m.answer(test.inputs, test.ids)[:, 0].double().numpy() for m in (teacher, student))
    q = found.quality
    assert next(iter(q)) == "auroc"
    assert q["accuracy"].student.value == pytest.approx(((s > 0) == y).mean())
    assert q["auroc"].difference.value == pytest.approx(float(metrics.auroc(s, y == 1) - metrics.auroc(t, y == 1)))
    p = 1 / (1 + np.exp(-t))
    assert q["log_loss"].teacher.value == pytest.approx(-np.log(np.where(y == 1, p, 1 - p)).mean(), rel=1e-6)
    alike, right = (t > 0) == (s > 0), (t > 0) == y
    assert found.fidelity["agreement"].value == pytest.approx(alike.mean())
    assert found.fidelity["agreement_teacher_right"].value == pytest.approx(alike[right].mean())
    assert found.fidelity["agreement_teacher_wrong"].value == pytest.approx(alike[~right].mean())
    assert found.fidelity["agreement_teacher_positive"].value == pytest.approx(alike[t > 0].mean())
    r = 1 / (1 + np.exp(-s))
    kl = (p * np.log(p / r) + (1 - p) * np.log((1 - p) / (1 - r))).mean()
    assert found.fidelity["kl"].value == pytest.approx(kl, rel=1e-5)
    assert found.harm is not None
    by_class = {c.name: c for c in found.harm.families["class"].cells}
    assert sorted(by_class) == ["no", "yes"]
    assert by_class["yes"].student.value == pytest.approx((s[y == 1] > 0).mean())
    for quality in q.values():
        for figure in (quality.teacher, quality.student, quality.difference):
            assert figure.low is not None
            assert figure.high is not None
            assert figure.value is not None
            assert figure.low <= figure.value <= figure.high
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert max(map(len, found.lines())) <= 80


def test_a_student_that_is_the_teacher_is_non_inferior_and_one_without_skill_is_not() -> None:
    data = rows("classification", 1, n=2400)
    teacher = Toy("t", 0.1)
    same = evaluate(teacher, teacher, data, require=require(margin=0.01, min_agreement=0.99))
    assert same.non_inferior.answer == "yes"
    assert same.exit_code == 0
    worse = evaluate(Toy("s", 9.0), teacher, data, require=require(margin=0.01, min_agreement=0.99))
    assert worse.non_inferior.answer == "no"
    assert [r.answer for r in worse.requirements] == ["not met", "not met"]
    assert worse.exit_code == 3
    assert evaluate(Toy("s", 9.0), teacher, data).exit_code == 0  # nothing was required


def test_few_rows_are_insufficient_evidence_and_the_missing_rows_are_named() -> None:
    data = rows("classification", 1, n=500)
    found = evaluate(Toy("s", 0.3), Toy("t", 0.3), data, require=require(margin=0.005))
    assert found.non_inferior.answer == "insufficient evidence"
    assert found.non_inferior.rows_needed is not None
    assert found.non_inferior.rows_needed > 500
    assert f"{found.non_inferior.rows_needed:,} labelled test rows (there are 100)" in found.non_inferior.sentence
    assert found.exit_code == 3


def test_the_verdict_rests_on_one_sided_bounds() -> None:
    found = evaluate(Toy("s", 0.5), Toy("t", 0.1), rows("classification", 1), classification(metric="auroc"))
    one_sided, two_sided = found.non_inferior.difference, found.quality["auroc"].difference
    assert one_sided and one_sided.low and one_sided.high and two_sided.low and two_sided.high
    assert (one_sided.high - one_sided.low) / (two_sided.high - two_sided.low) == pytest.approx(1.645 / 1.960, abs=0.06)


def test_two_perfect_rankings_of_few_rows_are_no_evidence() -> None:
    data = rows("classification", 1, n=440)
    inputs = data.test.batch(torch.arange(len(data.test))).inputs
    assert isinstance(inputs, Tensor)
    data = replace(data, test=replace(data.test, labels=(inputs[:, 0] > 0).long()))
    same = {"student": [Toy(f"s{i}") for i in range(5)], "labels": [Toy(f"c{i}") for i in range(5)]}
    found = evaluate(Toy("s"), Toy("t"), data, classification(metric="auroc"), arms=same)
    assert found.quality["auroc"].student.value == 1.0
    assert (found.non_inferior.answer, found.non_inferior.rows_needed) == ("insufficient evidence", 598)
    assert "About 598 labelled test rows (there are 40) would decide it" in found.non_inferior.sentence
    assert found.helped.answer == "insufficient evidence"


def test_a_share_of_0_or_1_has_an_interval_all_the_same() -> None:
    data = rows("classification", 1, n=440)
    inputs = data.test.batch(torch.arange(len(data.test))).inputs
    assert isinstance(inputs, Tensor)
    data = replace(data, test=replace(data.test, labels=(inputs[:, 0] > 0).long()))
    found = evaluate(Toy("s"), Toy("t"), data)
    accuracy, exact = found.quality["accuracy"].student, clopper_pearson(40, 40)
    assert (accuracy.value, accuracy.low, accuracy.high) == (1.0, pytest.approx(exact[0]), 1.0)
    assert accuracy.how == "exact interval (Clopper and Pearson), all of 40 alike"
    positive = int((inputs[:, 0] > 0).sum())
    assert found.quality["auroc"].teacher.low == pytest.approx(clopper_pearson(k := min(positive, 40 - positive), k)[0])
    weight = torch.tensor([1.0, 3.0]).repeat(20)
    weighed = evaluate(Toy("s"), Toy("t"), replace(data, test=replace(data.test, weight=weight)))
    for figure in (weighed.quality["accuracy"].student, weighed.fidelity["agreement"]):
        assert figure.low == pytest.approx(0.025 ** (1 / 32))  # 80² / 200 rows
        assert "all of 32 alike" in figure.how


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_a_handful_of_rows_decides_nothing_and_breaks_nothing(n: int) -> None:
    for kind, tasks in {
        "classification": [classification(metric="auroc"), classification(metric="brier"), classification()],
        "regression": [regression(), regression(metric="r2")],
    }.items():
        data = rows(kind, 1, n=400 + n, classes=("no", "yes") if kind == "classification" else ())
        for task in tasks:
            found = evaluate(Toy("s", 0.3), Toy("t"), data, task, arms=arms(1.0))
            assert found.non_inferior.answer == "insufficient evidence"
            assert found.helped.answer == "insufficient evidence"


def test_rows_of_weight_0_alone_decide_nothing() -> None:
    data = rows("classification", 1, n=500)
    data = replace(data, test=replace(data.test, weight=torch.zeros(len(data.test))))
    found = evaluate(Toy("s", 0.3), Toy("t"), data, arms=arms(1.0), require=require(min_agreement=0.9))
    assert [found.non_inferior.answer, found.helped.answer] == ["insufficient evidence"] * 2
    assert [r.answer for r in found.requirements] == ["insufficient evidence"] * 2


def test_rare_positives_leave_the_effect_undecided() -> None:
    data = rows("classification", 1)
    labels = torch.zeros(len(data.test), dtype=torch.long)
    labels[:2] = 1  # of a seventh of the resamples neither is part
    data = replace(data, test=replace(data.test, labels=labels))
    found = evaluate(Toy("s", 0.4), Toy("t"), data, classification(metric="auroc"), arms=arms(2.0))
    assert found.quality["auroc"].student.value is not None
    assert found.helped.answer == "insufficient evidence"


def test_rows_out_of_reach_are_not_promised_to_suffice() -> None:
    assert _more(3_000_000, None, 6_000) == (
        "The difference seen lies so near the bound that no number of rows in reach would decide it (there are 6,000)."
    )
    assert "About 598 labelled test rows" in _more(598, None, 2)
    assert "About 30,000 labelled test rows (there are 6,000) would decide it" in _more(30_000, None, 6_000)


def test_distillation_helps_only_if_it_beats_every_control_over_five_seeds() -> None:
    data = rows("classification", 1)
    task = classification(metric="auroc")
    clear = evaluate(Toy("s0", 0.3), Toy("t", 0.1), data, task, arms=arms(2.0))
    assert clear.helped.answer == "helped"
    assert clear.against["labels"].difference is not None
    assert clear.quality["auroc"].gains["labels"].value == pytest.approx(clear.against["labels"].difference.value)
    both = arms(2.0) | {"smooth": [Toy(f"s{i}", 0.3) for i in range(5)]}
    assert evaluate(Toy("s0", 0.3), Toy("t", 0.1), data, task, arms=both).helped.answer == "no difference"
    few = evaluate(Toy("s0", 0.3), Toy("t", 0.1), data, task, arms=arms(2.0, n=3))
    assert few.helped.answer == "insufficient evidence"
    assert few.helped.seeds_needed == 5
    hurt = arms(2.0)
    hurt = {"student": hurt["labels"], "labels": hurt["student"]}
    assert evaluate(Toy("s0", 0.3), Toy("t", 0.1), data, task, arms=hurt, require=require(margin=0.5, helped=True)).exit_code == 3
    assert evaluate(Toy("s0", 0.3), Toy("t", 0.1), data, task).helped.answer == "insufficient evidence"


def test_where_one_control_is_no_worse_more_seeds_are_not_asked_for() -> None:
    def verdict(answer: Any, low: float, seeds: int | None = None) -> Verdict:
        return Verdict(answer, f"{answer}: {low}", Figure(low + 0.01, low, low + 0.02), 0.005, None, seeds)

    each = {"labels": verdict("insufficient evidence", -0.02, 9), "smooth": verdict("no difference", -0.004)}
    found = helped(each, labelled=True)
    assert (found.answer, found.sentence, found.seeds_needed) == ("no difference", each["smooth"].sentence, None)
    hurt = helped({**each, "hard": verdict("hurt", -0.9)}, labelled=True)
    assert hurt.answer == "hurt"
    two = helped({"labels": verdict("helped", 0.03), "smooth": verdict("helped", 0.01)}, labelled=True)
    assert two.difference == Figure(0.02, 0.01, 0.03)  # the least favourable, whatever the order
    assert helped({"labels": each["labels"]}, labelled=True).seeds_needed == 9


def test_an_interval_over_seeds_ends_where_the_metric_ends() -> None:
    data = rows("classification", 1, n=500)
    few = {"student": [Toy("a"), Toy("b", 4.0)], "labels": [Toy("c", 9.0), Toy("d")]}
    q = evaluate(Toy("s"), Toy("t"), data, classification(metric="auroc"), arms=few).quality["auroc"]
    assert (q.arms["student"].low, q.arms["student"].high) == (0.0, 1.0)  # t of one degree of freedom is 12.7 standard errors
    assert "cut off where the metric ends" in q.arms["student"].how
    assert (q.gains["labels"].low, q.gains["labels"].high) == (-1.0, 1.0)


def test_an_arm_gets_its_temperature_from_validation_rows() -> None:
    data = rows("classification", 1)
    hot = {"student": [Toy("x", 0.2, scale=6.0)], "labels": [Toy("x", 0.2)]}
    q = evaluate(Toy("x", 0.2), Toy("t"), data, arms=hot).quality["log_loss"]
    assert q.arms["student"].value == pytest.approx(q.arms["labels"].value or 0, rel=1e-3)


def test_rules_are_fixed_before_the_test_rows_are_asked_each_model_its_own(tmp_path: Path) -> None:
    data = rows("classification", 1, n=4000)
    teacher, student = Toy("t", 0.1), Toy("s", 0.2, bias=1.5)
    found = evaluate(student, teacher, data, classification(metric="recall_at_fpr", recall_at_fpr=0.1), out=tmp_path)
    for model in (teacher, student):
        assert model.asked.index("test") >= model.asked.count("valid") > 0
    thresholds = found.claim["thresholds"]
    assert thresholds["student"] > thresholds["teacher"] + 0.1
    assert found.quality["false_positive_rate"].student.value == pytest.approx(0.1, abs=0.03)
    assert found.quality["false_positive_rate"].better == -1


def test_each_look_at_the_test_split_is_counted_beside_what_else_the_manifest_says(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"attar": "0.1.0", "openings": [{"data": "other", "when": "", "student": ""}]}))
    data = rows("classification", 1)
    looks = [evaluate(Toy("s", 0.1), Toy("t"), data, out=tmp_path) for _ in range(2)]
    assert [c.identity["look"] for c in looks] == [1, 2]
    assert "look 2" in str(looks[1])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["attar"] == "0.1.0"
    assert len(manifest["openings"]) == 3
    assert Certificate.read(tmp_path / "certificate.json") == looks[1]


def test_a_teacher_that_saw_test_rows_is_refused_before_anyone_is_asked() -> None:
    data = rows("classification", 1)
    teacher = Toy("t", training_ids=data.test.ids[:7])
    with pytest.raises(EvidenceError, match="7 of 1,100 test rows"):
        evaluate(Toy("s"), teacher, data)
    assert not teacher.asked
    known = evaluate(Toy("s"), Toy("t", training_ids=torch.tensor([5]), in_fold=True), data)
    assert any("as one net that had seen their labels" in limit for limit in known.limits)
    assert not any("training rows are unknown" in limit for limit in known.limits)
    assert any("trained on 1 of 400 validation rows" in limit for limit in known.limits)
    unknown = evaluate(Toy("s"), Toy("t"), data)
    assert any("training rows are unknown" in limit for limit in unknown.limits)
    assert not any("had seen their labels" in limit for limit in unknown.limits)


def test_many_classes_with_unlabelled_and_weighted_rows() -> None:
    data = rows("classification", 4, classes=("a", "b", "c", "d"))
    labels = data.test.labels
    assert labels is not None
    labels = labels.clone()
    labels[::3] = IGNORE
    weight = torch.rand(len(labels), generator=torch.Generator().manual_seed(0))
    data = replace(data, test=replace(data.test, labels=labels, weight=weight))
    found = evaluate(Toy("s", 0.4), Toy("t"), data)
    test = data.test.batch(torch.arange(len(data.test)))
    assert isinstance(test.inputs, Tensor)
    assert test.ids is not None
    t, s = (m.answer(test.inputs, test.ids).argmax(-1).numpy() for m in (Toy("t"), Toy("s", 0.4)))
    known, w, y = labels.numpy() != IGNORE, weight.double().numpy(), labels.numpy()
    assert found.quality["accuracy"].student.value == pytest.approx(np.average((s == y)[known], weights=w[known]))
    assert found.fidelity["agreement"].value == pytest.approx(np.average(s == t, weights=w))
    assert found.fidelity["agreement_teacher_wrong"].value == pytest.approx(
        np.average((s == t)[known & (t != y)], weights=w[known & (t != y)])
    )
    assert any("367 of 1,100 test rows have no label" in limit for limit in found.limits)
    assert found.identity["rows"]["labelled"] == 733


def test_without_any_label_there_is_fidelity_and_no_verdict() -> None:
    data = rows("classification", 1)
    data = replace(data, test=replace(data.test, labels=None))
    found = evaluate(Toy("s", 0.4), Toy("t"), data, arms=arms(1.0), require=require())
    assert found.quality == {}
    assert found.calibration == {}
    assert found.fidelity["agreement"].n == 1100
    assert (found.non_inferior.answer, found.helped.answer) == ("insufficient evidence", "insufficient evidence")
    assert found.exit_code == 3
    assert max(map(len, found.lines())) <= 80
    agreement = found.fidelity["agreement"]
    assert agreement.low is not None
    assert f"both decide alike in {agreement.value:.4f} of cases [{agreement.low:.4f}" in found.non_inferior.sentence
    assert found.helped.sentence.endswith("no test row has a label")
    assert any("nothing is claimed of how often the student is right" in limit for limit in found.limits)
    assert not any("quality on" in line for line in found.lines())


@pytest.mark.parametrize(("least", "code"), [(0.5, 0), (0.999, 3)])
def test_without_any_label_agreement_can_be_required(least: float, code: int) -> None:
    data = rows("classification", 1)
    data = replace(data, test=replace(data.test, labels=torch.full_like(as_labels(data.test), IGNORE)))
    found = evaluate(Toy("s", 0.4), Toy("t"), data, require=require(min_agreement=least))
    assert [r.what for r in found.requirements] == [f"agreement ≥ {least:g}"]
    assert found.exit_code == code
    also = evaluate(Toy("s", 0.4), Toy("t"), data, require=require(margin=0.01, min_agreement=least))
    assert also.requirements[0].answer == "insufficient evidence"
    assert also.exit_code == 3


def as_labels(split: Split) -> Tensor:
    assert split.labels is not None
    return split.labels


def test_without_labels_numbers_are_apart_by_so_much_and_no_margin_is_needed() -> None:
    data = rows("regression", 1, classes=())
    for name in ("valid", "test"):
        split = data.splits[name]
        data = replace(data, **{name: replace(split, labels=torch.full_like(as_labels(split), math.nan))})
    found = evaluate(Toy("s", 0.4), Toy("t"), data)
    assert "their numbers are 0.4" in found.non_inferior.sentence
    assert any("no validation row has a label" in limit for limit in found.limits)
    with pytest.raises(EvidenceError, match="numbers do not agree"):
        evaluate(Toy("s", 0.4), Toy("t"), data, require=require(min_agreement=0.9))


def test_vectors_are_judged_by_their_cosines() -> None:
    data = small_pairs(400)
    teacher, student = small_text_teacher(data.schema), small_text_model(data.schema, 1, answers=5)
    found = evaluate(module(student), module(teacher), data, arms={"student": [module(student)], "labels": [module(student)]})
    test = data.test.batch(torch.arange(len(data.test)))
    assert test.labels is not None
    t, s = (m(test.inputs).detach().double().numpy() for m in (teacher, student))
    t, s = (v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12) for v in (t, s))
    near = {name: (v[:, 0] * v[:, 1]).sum(-1).round(6) for name, v in (("t", t), ("s", s))}
    assert list(found.quality) == ["spearman", "pearson"]
    expected = {name: float(metrics.spearman(v, test.labels.numpy())) for name, v in near.items()}
    assert found.quality["spearman"].teacher.value == pytest.approx(expected["t"])
    assert found.quality["spearman"].student.value == pytest.approx(expected["s"])
    assert list(found.fidelity) == ["similarity_correlation", "neighbour_overlap", "cka"]  # no cosine with a vector of another width
    assert found.fidelity["cka"].value == pytest.approx(vectors.cka(t.reshape(200, -1), s.reshape(200, -1)), abs=0.2)
    assert found.non_inferior.answer == "no"
    assert found.calibration == {}
    assert found.claim["decision"] == "nothing: it answers vectors"
    assert found.pictures.keys() == {"similarities"}
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert max(map(len, found.lines())) <= 80
    with pytest.raises(EvidenceError, match="vectors do not agree"):
        evaluate(module(student), module(teacher), data, require=require(min_agreement=0.9))


def test_documents_are_retrieved_without_any_score() -> None:
    data = small_pairs(200, labelled=0.0)
    teacher = small_text_teacher(data.schema)
    found = evaluate(module(teacher), module(teacher), data, embedding(metric="recall_at_k", k=3))
    assert list(found.quality) == ["recall_at_k", "reciprocal_rank"]
    assert found.identity["rows"]["labelled"] == 50
    assert found.quality["recall_at_k"].difference.value == 0


def test_a_vector_that_is_no_number_is_named_with_its_row() -> None:
    class Broken(nn.Module):
        def forward(self, inputs: Any) -> Tensor:
            out = torch.ones(len(inputs["one"]), 2, 300)
            out[-1, 1, 7] = -math.inf
            return out

    data = small_pairs(80)
    with pytest.raises(TeacherError, match=r"answered -inf, 1, 1, 1, … \(600 numbers\) to test row 19"):
        evaluate(module(Broken()), module(small_text_teacher(data.schema)), data)


def test_one_class_alone_among_the_test_rows_leaves_ranking_undecided() -> None:
    data = rows("classification", 1)
    labels = torch.zeros(len(data.test), dtype=torch.long)
    data = replace(data, test=replace(data.test, labels=labels))
    found = evaluate(Toy("s", 0.4), Toy("t"), data, classification(metric="auroc"), arms=arms(1.0))
    assert found.quality["auroc"].student.value is None
    assert found.non_inferior.answer == "insufficient evidence"
    assert found.helped.answer == "insufficient evidence"
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_several_labels_a_row() -> None:
    data = rows("multilabel", 3, classes=("a", "b", "c"))
    found = evaluate(Toy("s", 0.4), Toy("t"), data, multilabel(), arms=arms(1.5))
    test = data.test.batch(torch.arange(len(data.test)))
    assert isinstance(test.inputs, Tensor)
    assert test.ids is not None
    t, s = (m.answer(test.inputs, test.ids) > 0 for m in (Toy("t"), Toy("s", 0.4)))
    assert found.fidelity["agreement"].value == pytest.approx(float((t == s).double().mean()))
    assert found.helped.answer == "helped"
    assert found.harm is not None
    assert sorted(c.name for c in found.harm.families["class"].cells) == ["a", "b", "c"]
    assert found.calibration["teacher"]["ece"].value == pytest.approx(0, abs=0.04)


def test_numbers_are_judged_by_their_errors_in_their_unit() -> None:
    data = rows("regression", 1, classes=(), noise=20.0)
    found = evaluate(Toy("s", 0.1), Toy("t"), data, regression(), arms=arms(30.0), require=require())
    assert found.claim["margin"] == pytest.approx(0.2, rel=0.15)  # 1 % of an RMSE of 20
    assert found.non_inferior.answer == "yes"
    assert found.helped.answer == "helped"  # less error is better
    assert "RMSE −" in found.helped.sentence  # student − control, as in the tables
    assert found.quality["rmse"].better == -1
    assert (found.quality["rmse"].gains["labels"].value or 0) < -5
    assert found.fidelity["correlation"].value == pytest.approx(1, abs=0.02)
    assert found.fidelity["mean_distance"].value == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.1)
    assert max(map(len, found.lines())) <= 80
    with pytest.raises(EvidenceError, match="min_agreement of a regression"):
        evaluate(Toy("s"), Toy("t"), data, regression(), require=require(min_agreement=0.9))


def test_an_answer_that_is_no_number_is_named_with_its_row() -> None:
    data = rows("classification", 1)
    with pytest.raises(TeacherError, match=r"answered .*nan.* to test row 0 \(id 10400\)"):
        evaluate(Toy("s", bias=math.nan), Toy("t"), data)


def test_an_empty_test_split_is_refused() -> None:
    data = rows("classification", 1)
    nothing = replace(data.test, ids=data.test.ids[:0], labels=None)
    with pytest.raises(EvidenceError, match="the test split is empty"):
        evaluate(Toy("s"), Toy("t"), replace(data, test=nothing))


class Net(nn.Module):
    def __init__(self, outcomes: int, spread: float) -> None:
        super().__init__()
        self.map = nn.Linear(outcomes, outcomes)
        with torch.no_grad():
            noise = torch.randn(outcomes, outcomes, generator=torch.Generator().manual_seed(0))
            self.map.weight.copy_(2.5 * (torch.eye(outcomes) + spread * noise))
            self.map.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


def test_an_exported_folder_is_judged_file_by_file_and_held_against_its_budget(tmp_path: Path) -> None:
    data = rows("classification", 3, classes=("a", "b", "c"))
    student = Net(3, 0.02)
    train = replace(data.valid, name="train", ids=data.valid.ids + 5000)
    data = replace(data, train=train)
    exported = export(student, data, at=tmp_path / "student")
    found = evaluate(
        tmp_path / "student",
        module(Net(3, 0.0)),
        data,
        arms={"student": [module(student)]},
        budget=budget(latency_ms=1000, size_mb=1e-6, parameters=100),
        out=tmp_path,
    )
    files = found.quality["accuracy"].files
    assert set(files) == set(exported.files)
    assert files["student.onnx"] == found.quality["accuracy"].student
    # the net's logits are 2.5 times too sharp: raw it is overconfident, as shipped it is not
    assert exported.temperature == pytest.approx(2.5, rel=0.15)
    ece = {who: figures["ece"].value or 0 for who, figures in found.calibration.items()}
    assert ece["student raw"] > 0.08 > ece["student"]
    assert found.calibration["student raw"]["ece"].value == pytest.approx(ece["teacher"], abs=0.02)
    q = found.quality["log_loss"]
    assert q.arms["student"].value == pytest.approx(q.student.value or 0, abs=1e-3)  # tempered as export does it
    assert [r.answer for r in found.requirements] == ["met", "not met", "met"]
    assert found.exit_code == 3
    assert found.identity["student"]["files"]["student.onnx"]["digest"]
    assert set(found.cost) >= {"teacher", "student", "ratio"}
    assert "budget" not in found.cost
    other = _bounded(judge(tmp_path / "student"), data.test, budget(batch=4, many=64, threads=2))
    assert (other.batch, other.rows, other.threads, other.size_bytes) == (4, 64, 2, exported.files["student.onnx"].bytes)
    assert {name: _as_bounded(other)[name].value for name in ("batch", "many", "threads")} == {"batch": 4, "many": 64, "threads": 2}


def test_no_difference_at_all_is_a_sentence_without_holes() -> None:
    found = Effect("no difference", 0.0, -0.002, 0.0, 0.005, 3, 0.0, 0.001, 90)
    assert _against(found, "accuracy", "labels", 1.0).endswith("accuracy 0.0000 [−0.0020, 0.0000] over labels (3 seeds)")


@pytest.mark.parametrize("seeds", [2, 5])
def test_an_interval_beyond_0_of_too_few_seeds_says_why_it_decides_nothing(seeds: int) -> None:
    found = Effect("insufficient evidence", 0.06, 0.01, 0.12, 0.005, seeds, 0.0, 0.001, 90, seeds_needed=5)
    assert ("Fewer than 5 seeds decide nothing." in _against(found, "AUROC", "labels", 1.0)) == (seeds < 5)
