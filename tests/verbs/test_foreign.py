"""Foreign rows: read as home's whatever their labels, left out where they are home's own, and told as a naive loop tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from sklearn.metrics import roc_auc_score
from torch import Tensor

from attar.certificate import Certificate, Figure, Foreign
from attar.certificate.foreign import lines
from attar.data import Data, table, unlabelled
from attar.errors import DataError, TapError, TeacherError
from attar.signal import NOTHING, Batch, Signal
from attar.sources import module
from attar.students import mlp
from attar.task import task_for
from attar.testing.small import SmallMLP, fitted, small_images, small_table
from attar.testing.texts import small_text_model, small_text_teacher, small_texts
from attar.verbs.evaluate import evaluate, strangers
from attar.verbs.evaluate.foreign import foreign
from attar.verbs.evaluate.models import TEACHER, gather, judge
from attar.verbs.export import export

DETECTORS = ["confidence", "energy", "knn", "mahalanobis", "relative_mahalanobis"]


def stretched(data: Data, by: float = 4.0) -> Data:
    """Other rows: numbers so many times as large, and ids that home does not know."""

    def farther(rows: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        return lambda index: {**rows(index), "numbers": rows(index)["numbers"] * by}

    return replace(data, **{n: replace(s, ids=s.ids + 10_000, rows=farther(s.rows)) for n, s in data.splits.items()})


@pytest.fixture(scope="module")
def home() -> Data:
    return small_table(600)


@pytest.fixture(scope="module")
def teacher(home: Data) -> Any:
    return fitted(mlp(width=12, depth=2)(home.schema, 1), home).eval()


@pytest.fixture(scope="module")
def student(home: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    net = fitted(mlp(width=8, depth=2)(home.schema, 2), home).eval()
    folder = tmp_path_factory.mktemp("exported") / "student"
    export(net, home, at=folder, features=True)
    return net, folder


def told(student: Any, teacher: Any, home: Data, **others: Any) -> dict[str, Foreign]:
    """The section alone, as `evaluate` asks for it."""
    judged, task = judge(student), task_for(home.schema, home.kind).bind(home.schema)
    models = gather(judged, teacher, {}, home, task)
    models = {who: models[who] for who in (TEACHER, judged.who)}
    answers = {who: model.ask(home.test) for who, model in models.items()}
    strange = {name: strangers(name, other, home) for name, other in others.items()}
    return foreign(strange, home.train.ids, models, answers, judged, home, task, lambda text: None)


def inputs(data: Data) -> dict[str, Tensor]:
    batches = [split.batch(torch.arange(len(split))).inputs for split in data.splits.values()]
    return {name: torch.cat([b[name] for b in batches if isinstance(b, Mapping)]) for name in ("numbers", "categories")}


def test_figures_are_those_of_a_naive_loop_on_the_deployed_file(home: Data, teacher: Any, student: tuple[Any, Path]) -> None:
    net, folder = student
    away = stretched(small_table(240, seed=5))
    found = told(folder, module(teacher), home, far=away)["far"]
    test = home.test.batch(torch.arange(len(home.test))).inputs
    for who, model in (("teacher", teacher), ("student", net)):
        logits = [model(part).detach().double().numpy() for part in (test, inputs(away))]
        p = np.concatenate([special.softmax(z, 1).max(1) for z in logits])
        lse = np.concatenate([np.log(np.exp(z).sum(1)) for z in logits])
        is_home = np.arange(150 + 240) < 150
        for detector, score in (("confidence", p), ("energy", lse)):
            figure = getattr(found.detectors[detector]["auroc"], who)
            assert figure.value == pytest.approx(roc_auc_score(is_home, score), abs=1e-4)
    assert list(found.detectors) == DETECTORS
    assert (found.rows, found.home, found.left_out, found.rows_needed, found.notes) == (240, 150, 0, None, ())
    for by in found.detectors.values():
        for q in by.values():
            for figure in (q.teacher, q.student, q.difference):
                assert figure.value is not None
                assert figure.low is not None
                assert figure.high is not None
                assert figure.low <= figure.value <= figure.high
                assert figure.low < figure.high
            assert value(q.difference) == pytest.approx(value(q.student) - value(q.teacher))
    assert value(found.detectors["mahalanobis"]["auroc"].student) > 0.8


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def test_features_of_the_file_tell_as_those_of_the_net_do(home: Data, teacher: Any, student: tuple[Any, Path]) -> None:
    net, folder = student
    away = stretched(small_table(120, seed=5))
    file, live = (told(s, module(teacher), home, far=away)["far"].detectors for s in (folder, module(net)))
    for detector in DETECTORS:
        assert value(file[detector]["auroc"].student) == pytest.approx(value(live[detector]["auroc"].student), abs=1e-3)


def test_a_file_without_features_has_confidence_and_energy_alone_and_it_is_said(home: Data, teacher: Any, tmp_path: Path) -> None:
    export(teacher, home, at=tmp_path / "student")
    found = told(tmp_path / "student", module(teacher), home, far=stretched(small_table(120, seed=5)))["far"]
    assert found.detectors["knn"]["auroc"].student.value is None
    assert found.detectors["knn"]["auroc"].difference.value is None
    assert found.detectors["knn"]["auroc"].teacher.value is not None
    assert any("the student shows no features (a run with foreign inputs exports them)" in note for note in found.notes)
    hidden = told(module(SmallMLP(home.schema)), module(teacher), home, far=stretched(small_table(120, seed=5)))["far"]
    assert any("the student shows no features (it cannot be tapped at `embedding`)" in note for note in hidden.notes)


@dataclass(frozen=True)
class Says:
    """A source that answers what it is told to."""

    answer: Callable[[Batch], Tensor]
    inside: Callable[[Batch], Tensor] | None = None
    fingerprint: str = "says"

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        if taps and self.inside is None:
            raise TapError("it has no taps")
        return Signal(self.answer(batch), {tap: self.inside(batch) for tap in taps} if self.inside else {})

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: None


def test_log_probabilities_have_no_energy_and_it_is_said(home: Data, teacher: Any) -> None:
    sure = Says(lambda batch: torch.log_softmax(teacher(batch.inputs).detach(), -1).half().float())
    found = told(sure, module(teacher), home, far=stretched(small_table(120, seed=5)))["far"]
    assert found.detectors["energy"]["auroc"].student.value is None
    assert found.detectors["energy"]["auroc"].teacher.value is not None
    assert "the student answers log-probabilities, whose energy is 0 for every row" in found.notes


def test_rows_of_home_are_left_out_and_counted_and_few_rows_are_too_few(home: Data, teacher: Any) -> None:
    source, away = module(teacher), stretched(small_table(120, seed=5))
    mixed = replace(away, train=replace(away.train, ids=torch.cat([home.train.ids[:4], home.test.ids[:3], away.train.ids[7:]])))
    few = replace(away, **{n: s.take(torch.arange(5)) for n, s in away.splits.items()})
    found = told(source, source, home, mixed=mixed, few=few)
    assert (found["mixed"].rows, found["mixed"].left_out) == (113, 7)
    assert found["few"] == Foreign(found["few"].data, 20, 150, 0, 30)
    assert lines("few", found["few"])[0] == "foreign: few"
    assert "INSUFFICIENT EVIDENCE: 20 foreign and 150 test rows; at least 30 of each" in " ".join(
        " ".join(lines("few", found["few"])).split()
    )


def test_what_no_row_contradicts_has_an_interval_all_the_same(home: Data, teacher: Any) -> None:
    """Every foreign row far outside: AUROC is 1 on every resample, and its interval has a width."""

    def apart(batch: Batch) -> Tensor:
        assert not isinstance(batch.inputs, Tensor)
        sure = 1 + 9 * (batch.inputs["numbers"].nan_to_num().abs().amax(1) < 2000).float()
        return torch.stack([sure, -sure], 1) + 0.01 * batch.inputs["numbers"][:, :1].nan_to_num().tanh()

    far = stretched(small_table(120, seed=5), by=1e6)
    q = told(Says(apart), Says(apart), home, far=far)["far"].detectors["confidence"]
    assert (q["auroc"].student.value, q["fpr_at_95"].student.value) == (1.0, 0.0)
    assert 0.9 < (q["auroc"].student.low or 0) < 1
    assert 0 < (q["fpr_at_95"].student.high or 0) < 0.05
    assert (q["auroc"].difference.low or 0) < 0 < (q["auroc"].difference.high or 0)


def test_features_that_are_no_numbers_are_refused_by_row(home: Data, teacher: Any) -> None:
    def broken(batch: Batch) -> Tensor:
        assert batch.ids is not None
        return torch.where(batch.ids[:, None] == 10_003, torch.nan, torch.ones(len(batch), 3) + torch.rand(len(batch), 3))

    source = Says(lambda batch: teacher(batch.inputs).detach(), broken)
    with pytest.raises(TeacherError, match="the student has features that are no numbers for far row"):
        told(source, module(teacher), home, far=stretched(small_table(120, seed=5)))
    nothing = Says(lambda batch: teacher(batch.inputs).detach() * torch.where(batch.ids == 10_003, torch.nan, 1.0)[:, None])  # pyright: ignore[reportArgumentType] it has ids
    with pytest.raises(TeacherError, match=r"answered \[nan, nan\] to far row"):
        told(nothing, module(teacher), home, far=stretched(small_table(120, seed=5)))


def test_labels_and_classes_do_not_matter_and_rows_are_laid_out_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.3f},{rng.choice(['red', 'blue'])},{rng.choice(['no', 'yes'])}" for _ in range(80)]
    (tmp_path / "home.csv").write_text("size,colour,sold\n" + "\n".join(lines))
    (tmp_path / "odd.csv").write_text("kind,colour,size\n" + "\n".join(f"{'abc'[k % 3]},amber,{k}" for k in range(40)))
    (tmp_path / "bare.csv").write_text("colour,size,extra\n" + "\n".join(f"red,{k},x" for k in range(40)))
    (tmp_path / "long.csv").write_text("kind,colour,length\n" + "\n".join(f"{'abc'[k % 3]},red,{k}" for k in range(40)))
    home = table(str(tmp_path / "home.csv"), label="sold").read()
    for other in (
        table(str(tmp_path / "odd.csv"), label="kind").read(),
        unlabelled(str(tmp_path / "odd.csv")),
        unlabelled(str(tmp_path / "bare.csv")),
    ):
        split = strangers("odd", other, home)
        batch = split.batch(torch.arange(len(split)))
        assert batch.labels is None
        assert isinstance(batch.inputs, Mapping)
        assert sorted(batch.inputs["numbers"][:, 0].tolist()) == list(range(40))
    with pytest.raises(DataError, match="foreign 'x'.*'size', which home reads, is missing"):
        strangers("x", table(str(tmp_path / "long.csv"), label="kind").read(), home)


def test_what_cannot_be_foreign_is_refused_by_name(home: Data) -> None:
    with pytest.raises(DataError, match="foreign 'pictures'"):
        strangers("pictures", small_images(40), home)
    with pytest.raises(DataError, match="foreign 'same': all 600 rows are among those at home"):
        strangers("same", home, home)
    with pytest.raises(DataError, match="foreign 'x': the task asks for numbers"):
        strangers("x", small_table(40), small_table(80, kind="regression"))
    empty = replace(home, **{n: s.take(torch.arange(0)) for n, s in home.splits.items()})
    with pytest.raises(DataError, match="foreign 'nothing' has no rows"):
        strangers("nothing", empty, home)


def test_a_file_of_foreign_rows_that_holds_none_is_not_said_to_be_the_home_rows(tmp_path: Path) -> None:
    rows = "".join(f"{k},{k % 7},{'ab'[k % 3 == 0]}\n" for k in range(80))
    (tmp_path / "home.csv").write_text("x,z,kind\n" + rows)
    (tmp_path / "none.csv").write_text("x,z\n")
    with pytest.raises(DataError, match="foreign 'none' has no rows"):
        strangers("none", unlabelled(str(tmp_path / "none.csv")), table(str(tmp_path / "home.csv"), label="kind").read())


def test_a_certificate_with_foreign_rows_reads_back_and_fits_the_terminal(tmp_path: Path) -> None:
    home = small_texts(200)
    (tmp_path / "odd.txt").write_text("\n".join(f"quite another thing number {k}" for k in range(50)))
    teacher, net = module(small_text_teacher(home.schema)), module(small_text_model(home.schema))
    found = evaluate(net, teacher, home, foreign={"a set with a long name": unlabelled(str(tmp_path / "odd.txt"))})
    assert found.foreign["a set with a long name"].rows == 50
    limit = "rows from elsewhere or later: only a set with a long name as foreign inputs were tested, no shifted and no corrupted inputs"
    assert limit in found.limits
    found.write(tmp_path / "certificate.json")
    again = Certificate.read(tmp_path / "certificate.json")
    assert again.to_dict() == found.to_dict()
    assert again.lines() == found.lines()
    assert max(map(len, found.lines())) <= 80


def test_of_several_labels_the_likeliest_and_the_joint_energy_tell(tmp_path: Path) -> None:
    home = small_table(400, kind="multilabel")
    net = module(mlp(width=8, depth=2)(home.schema, 1))
    found = told(net, net, home, far=stretched(small_table(120, kind="multilabel", seed=5)))["far"]
    assert list(found.detectors) == ["confidence", "energy", "knn"]
    assert all(by["auroc"].difference.value == 0 for by in found.detectors.values())
