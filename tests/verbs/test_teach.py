"""Teaching: the same seed the same teacher, once taught it is opened, stopped it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attar.data import Split
from attar.errors import DataError, RunError, TeacherError
from attar.loop import Fit, fit
from attar.progress import Event
from attar.sources import lightgbm, taught
from attar.sources.taught import Record, Taught, TaughtTrees, record_of
from attar.task import classification, multilabel
from attar.testing.small import SmallMLP, small_images, small_table
from attar.testing.store import plain_data
from attar.verbs.teach import teach

DATA = small_table(400)
TREES = lightgbm(trees=12, leaves=4, min_rows=3)
QUICK = fit(epochs=3, lr=0.01, threads=1)


def trees(folder: Path, **settings) -> Taught:
    return taught(TREES, at=str(folder / "t.txt"), folds=3, **settings)


def nets(folder: Path, **settings) -> Taught:
    return taught(SmallMLP, at=str(folder / "t.safetensors"), folds=2, **settings)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", [trees, nets])
def test_the_same_seed_gives_the_same_files(kind, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        teach(kind(tmp_path / name, seed=seed), DATA, fit=QUICK)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a if not name.endswith(".npy"))
    assert len(a) == 3  # the file, its record, its training rows; nothing else is left


@pytest.mark.parametrize("kind", [trees, nets])
def test_a_teacher_that_is_there_is_opened_and_not_taught_again(kind, tmp_path: Path) -> None:
    first = teach(kind(tmp_path), DATA, fit=QUICK)
    before, said = content(tmp_path), []
    again = teach(kind(tmp_path), DATA, fit=QUICK, listen=said.append)
    assert content(tmp_path) == before
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again(DATA.train.batch(torch.arange(50))).output, first(DATA.train.batch(torch.arange(50))).output)
    assert [e.text for e in said] == [f"{kind(tmp_path).at} was taught before: opened"]


def test_another_teacher_in_the_way_is_told_with_what_differs(tmp_path: Path) -> None:
    teach(trees(tmp_path), DATA)
    before = content(tmp_path)
    with pytest.raises(RunError, match=r"(?s)seed: there 0, wanted 1"):
        teach(trees(tmp_path, seed=1), DATA)
    with pytest.raises(RunError, match=r"(?s)builder: there 'lightgbm\(trees=12.*wanted 'lightgbm\(trees=13"):
        teach(replace(trees(tmp_path), builder=lightgbm(trees=13, leaves=4, min_rows=3)), DATA)
    with pytest.raises(RunError, match=r"data: there"):
        teach(trees(tmp_path), small_table(400, seed=1), classification())
    assert content(tmp_path) == before


def test_nets_taught_otherwise_are_another_teacher(tmp_path: Path) -> None:
    teach(nets(tmp_path), DATA, fit=QUICK)
    with pytest.raises(RunError, match="fit: there"):
        teach(nets(tmp_path), DATA, fit=replace(QUICK, epochs=4))
    teach(nets(tmp_path), DATA, fit=replace(QUICK, seeds=9))  # how many students there are is nothing to a teacher


def test_a_file_that_was_not_taught_here_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("precious")
    with pytest.raises(RunError, match="in the way"):
        teach(trees(tmp_path), DATA)
    assert content(tmp_path) == {"t.txt": b"precious"}


class Enough(Exception):
    """What a test stops a verb with."""


def stopping(text: str):
    def listen(event: Event) -> None:
        if event.text.startswith(text):
            raise Enough

    return listen


@pytest.mark.parametrize("kind", [trees, nets])
@pytest.mark.parametrize("last", ["member 1", "member 2"])
def test_what_was_stopped_goes_on_with_the_members_that_are_finished(kind, last: str, tmp_path: Path) -> None:
    teach(kind(tmp_path / "whole"), DATA, fit=QUICK)
    with pytest.raises(Enough):
        teach(kind(tmp_path / "torn"), DATA, fit=QUICK, listen=stopping(last))
    desk = next((tmp_path / "torn").glob("*.members"))
    finished = {p: p.stat().st_mtime_ns for p in desk.iterdir() if p.stem.isdigit()}
    assert finished
    renewed: list[str] = []

    def look(event: Event) -> None:
        renewed.extend(p.name for p, time in finished.items() if p.exists() and p.stat().st_mtime_ns != time)

    teach(kind(tmp_path / "torn"), DATA, fit=QUICK, resume=True, listen=look)
    assert not renewed
    assert content(tmp_path / "torn") == content(tmp_path / "whole")


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(Enough):
        teach(trees(tmp_path), DATA, listen=stopping("member 1"))
    (tmp_path / "t.txt.members" / "0.txt").write_text("old")
    teach(trees(tmp_path), DATA)
    teach(trees(tmp_path / "other"), DATA)
    assert (tmp_path / "t.txt").read_bytes() == (tmp_path / "other" / "t.txt").read_bytes()


def test_members_of_another_teacher_are_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(Enough):
        teach(trees(tmp_path), DATA, listen=stopping("member 1"))
    with pytest.raises(RunError, match="seed: there 0, wanted 3"):
        teach(trees(tmp_path, seed=3), DATA, resume=True)


def test_validation_rows_choose_the_number_of_rounds(tmp_path: Path) -> None:
    greedy = lightgbm(trees=240, leaves=8, min_rows=2, learning_rate=0.5, row_share=1.0, l2=0.0)
    source = teach(taught(greedy, at=str(tmp_path / "a.txt"), folds=2), DATA)
    assert isinstance(source, TaughtTrees)
    assert source.rounds[0] == source.rounds[1] < 60
    blind = replace(DATA, valid=replace(DATA.valid, labels=None))
    whole = teach(taught(greedy, at=str(tmp_path / "b.txt"), folds=2), blind)
    assert isinstance(whole, TaughtTrees)
    assert whole.rounds == (120, 120)
    task = classification(metric="log_loss").bind(DATA.schema)
    loss = [task.measure(s(DATA.test.batch(torch.arange(100))).output, labels(DATA.test))["log_loss"] for s in (source, whole)]
    assert loss[0] < loss[1]


def test_of_few_rounds_each_number_is_tried(tmp_path: Path) -> None:
    """Teachers of 1, 2 … 8 rounds, none of them chosen by anybody, show which number the choice among 8 must fall on."""
    task = classification(metric="log_loss").bind(DATA.schema)
    blind = replace(DATA, valid=replace(DATA.valid, labels=None))
    rows = DATA.valid.batch(torch.arange(len(DATA.valid)))

    def grown(rounds: int):
        return lightgbm(trees=2 * rounds, leaves=8, min_rows=2, learning_rate=0.9, row_share=1.0, l2=0.0)

    losses = []
    for rounds in range(1, 9):
        whole = teach(taught(grown(rounds), at=str(tmp_path / f"{rounds}.txt"), folds=2), blind)
        losses.append(task.measure(whole(rows).output, labels(DATA.valid))["log_loss"])
    said: list[Event] = []
    source = teach(taught(grown(8), at=str(tmp_path / "chosen.txt"), folds=2), DATA, listen=said.append)
    assert isinstance(source, TaughtTrees)
    best = 1 + min(range(8), key=losses.__getitem__)
    assert best < 8
    assert source.rounds == (best, best)
    assert any(f"{best} of 8 rounds" in event.text for event in said)


def labels(split: Split) -> Tensor:
    assert split.labels is not None
    return split.labels


@pytest.mark.parametrize("kind", [trees, nets])
def test_metrics_on_validation_rows_are_told_and_kept(kind, tmp_path: Path) -> None:
    said: list[Event] = []
    task = classification(metric="auroc").bind(DATA.schema)
    source = teach(kind(tmp_path), DATA, task, fit=QUICK, listen=said.append)
    want = task.measure(source(DATA.valid.batch(torch.arange(100))).output, labels(DATA.valid))
    assert said[-1].numbers["valid auroc"] == pytest.approx(want["auroc"], abs=1e-6)
    assert Record.read(record_of(Path(kind(tmp_path).at))).valid == pytest.approx(want, abs=1e-6)


def test_data_that_teach_nothing_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    bare = replace(DATA, train=replace(DATA.train, labels=torch.full((100,), -100)))
    with pytest.raises(DataError, match="no training row has a label"):
        teach(trees(tmp_path), bare)
    few = replace(DATA, train=replace(DATA.train, labels=torch.where(torch.arange(100) < 1, labels(DATA.train), -100)))
    with pytest.raises(DataError, match="1 labelled training rows are too few for 3 folds"):
        teach(trees(tmp_path), few)
    many = small_table(80, kind="multilabel")
    with pytest.raises(TeacherError, match="lightgbm has one label"):
        teach(trees(tmp_path / "many"), many, multilabel())
    with pytest.raises(TeacherError, match="grows on tables"):
        teach(trees(tmp_path / "images"), small_images(80))
    assert not list(tmp_path.iterdir())


def test_an_epoch_of_augmented_rows_sees_a_view_of_its_own(tmp_path: Path) -> None:
    data = plain_data(rows=100, classes=2, views=2)
    seen: list[set[int]] = []
    rows = data.train.seen
    assert rows is not None

    def look(index: Tensor, ids: Tensor, views: Tensor):
        seen.append(set(views.tolist()))
        return rows(index, ids, views)

    class Linear(torch.nn.Linear):
        def __init__(self, schema, seed) -> None:
            super().__init__(2, 2)

    data = replace(data, train=replace(data.train, seen=look))
    teach(taught(Linear, at=str(tmp_path / "t.safetensors"), folds=2), data, fit=Fit(epochs=3, batch=100, threads=1))
    assert seen == [{1}, {2}, {3}] * 2


def test_a_teacher_is_kept_where_it_says_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = taught(TREES, at="deep/t.txt", folds=2)
    teach(teacher, DATA)
    teach(teacher, DATA, at=tmp_path / "elsewhere" / "u.txt")
    assert (tmp_path / "deep" / "t.txt").read_bytes() == (tmp_path / "elsewhere" / "u.txt").read_bytes()


def test_weights_of_rows_count(tmp_path: Path) -> None:
    heavy = replace(DATA, train=replace(DATA.train, weight=1.0 + 9.0 * labels(DATA.train).float()))
    batch = DATA.test.batch(torch.arange(100))
    for kind, name in ((trees, "trees"), (nets, "nets")):
        plain = teach(kind(tmp_path / name / "plain"), DATA, fit=QUICK)(batch).output
        more = teach(kind(tmp_path / name / "heavy"), heavy, fit=QUICK)(batch).output
        assert (more[:, 1] - more[:, 0]).mean() > (plain[:, 1] - plain[:, 0]).mean()
