"""A taught teacher answers each training row by a member that has not seen it, and knows which rows those are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attar.errors import DataError, TapError, TeacherError
from attar.loop import fit
from attar.signal import Schema, Schooled
from attar.sources import cached, lightgbm, module, taught
from attar.sources.boosting import grow
from attar.sources.taught import Folds, Taught, TaughtNets, TaughtTrees, ids_of, record_of
from attar.sources.trees import LightGBM
from attar.students import mlp
from attar.task import Task, classification, regression, task_for
from attar.testing.small import SmallMLP, small_table
from attar.verbs.teach import teach

DATA = small_table(400)
TREES = lightgbm(trees=12, leaves=6, min_rows=3, row_share=1.0, learning_rate=0.3)
ALL = torch.arange(100)


def trees(path: Path, folds: int = 3, **settings) -> Taught:
    return taught(TREES, at=str(path), folds=folds, **settings)


def test_a_training_row_is_answered_by_the_member_that_has_not_seen_it(tmp_path: Path) -> None:
    source = teach(trees(tmp_path / "t.txt"), DATA)
    assert isinstance(source, TaughtTrees)
    fold, task = source.folds.of(DATA.train.ids), task_for(DATA.schema).bind(DATA.schema)
    answers = source(DATA.train.batch(ALL)).output
    for k in range(3):
        unseen = DATA.train.batch((fold == k).nonzero().squeeze(1))
        text = grow(TREES, source.rounds[k], task, DATA.schema, DATA.train.batch((fold != k).nonzero().squeeze(1)), seed=k)
        member = LightGBM.parse(text, "member")
        assert torch.allclose(answers[fold == k], member(unseen).output, atol=1e-5)


def test_any_other_row_is_answered_by_the_mean_of_all_members(tmp_path: Path) -> None:
    source = teach(trees(tmp_path / "t.txt"), DATA)
    assert isinstance(source, TaughtTrees)
    batch = DATA.test.batch(ALL)
    rows = source.model.matrix(batch)
    each = np.stack([source.raw(rows, batch, k) for k in range(3)])
    assert np.allclose(source(batch).output[:, 1], each.mean(0), atol=1e-5)
    assert np.abs(each - each.mean(0)).max() > 0.1


@pytest.mark.parametrize("builder", [TREES, SmallMLP])
def test_a_teacher_of_noise_does_not_remember_its_training_labels(builder, tmp_path: Path) -> None:
    assert DATA.train.labels is not None
    noise = torch.randint(0, 2, (100,), generator=torch.Generator().manual_seed(0))
    data = replace(DATA, train=replace(DATA.train, labels=noise), valid=replace(DATA.valid, labels=None))
    at = tmp_path / ("t.txt" if builder is TREES else "t.safetensors")
    source = teach(taught(builder, at=str(at), folds=3), data, fit=fit(epochs=60, lr=0.03, threads=1))
    task = classification().bind(data.schema)
    batch = data.train.batch(ALL)
    stranger = replace(batch, ids=torch.full((100,), -1))  # what an answer by all members would be
    assert task.measure(source(stranger).output, noise)["auroc"] > 0.8
    assert task.measure(source(batch).output, noise)["auroc"] < 0.62


def test_equal_rows_lie_in_one_fold_and_folds_are_of_like_size() -> None:
    ids = torch.randint(-(2**62), 2**62, (9000,), generator=torch.Generator().manual_seed(0))
    folds = Folds.deal(3, 0, torch.cat([ids, ids[:50]]))
    assert torch.equal(folds.of(ids)[:50], folds.of(ids[:50]))
    assert len(folds.ids) == 9000
    sizes = torch.bincount(folds.of(ids), minlength=3)
    assert ((sizes - 3000) ** 2 / 3000).sum() < 13.8  # chi-square, 2 degrees of freedom, p = 0.001
    assert not torch.equal(Folds.deal(3, 1, ids).of(ids), folds.of(ids))


def test_it_knows_its_training_rows_and_refuses_rows_without_ids(tmp_path: Path) -> None:
    source = teach(trees(tmp_path / "t.txt"), DATA)
    assert isinstance(source, Schooled)
    assert source.training_ids is not None
    assert torch.equal(source.training_ids, DATA.train.ids.unique())
    with pytest.raises(TeacherError, match="without ids"):
        source(replace(DATA.test.batch(ALL), ids=None))


def test_rows_without_a_label_were_not_taught_and_are_answered_by_all(tmp_path: Path) -> None:
    assert DATA.train.labels is not None
    labels = torch.where(ALL < 60, DATA.train.labels, -100)
    source = teach(trees(tmp_path / "t.txt"), replace(DATA, train=replace(DATA.train, labels=labels)))
    assert isinstance(source, TaughtTrees)
    assert source.training_ids.tolist() == DATA.train.ids[:60].sort().values.tolist()
    batch = DATA.train.batch(torch.arange(60, 100))
    want = source.model(batch).output
    assert torch.equal(source(batch).output, want)


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_nets_answer_their_mean_and_their_training_rows_out_of_fold(kind: str, tmp_path: Path) -> None:
    data = small_table(200, kind=kind)
    rows = torch.arange(50)
    task = Task("multilabel", "auroc").bind(data.schema) if kind == "multilabel" else task_for(data.schema).bind(data.schema)
    source = teach(taught(SmallMLP, at=str(tmp_path / "t.safetensors")), data, task, fit=fit(epochs=2, threads=1))
    assert isinstance(source, TaughtNets)
    assert source.folds.count == 3
    test, train = data.test.batch(rows), data.train.batch(rows)
    each = torch.stack([task.canonical(net(test.inputs)) for net in source.members])
    want = each.mean(0) if kind == "regression" else each.softmax(-1).mean(0).log()
    assert torch.allclose(source(test).output, want, atol=1e-5)
    fold = source.folds.of(data.train.ids)
    own = torch.stack([task.canonical(net(train.inputs)) for net in source.members])
    picked = own[fold, rows]
    assert torch.allclose(source(train).output, picked, atol=1e-5)


def test_a_regression_of_trees_answers_out_of_fold_in_the_labels_unit(tmp_path: Path) -> None:
    data = small_table(400, kind="regression")
    source = teach(trees(tmp_path / "t.txt"), data)
    task = regression().bind(data.schema)
    for split in (data.train, data.test):
        assert split.labels is not None
        figures = task.measure(source(split.batch(ALL)).output, split.labels)
        assert figures["rmse"] < split.labels.std() * 0.95


def test_what_has_not_been_taught_refuses_with_the_verb() -> None:
    teacher = taught(lightgbm(), at="teacher.txt")
    for ask in (lambda: teacher(DATA.test.batch(ALL)), lambda: teacher.prepare(DATA.test.batch(ALL))):
        with pytest.raises(TeacherError, match=r"(?s)has not been taught.*attar.teach"):
            ask()
    assert repr(teacher).startswith("taught(lightgbm(trees=600,")
    assert repr(teacher).endswith('at="teacher.txt", folds=5, seed=0)')
    assert taught(mlp(), at="t.safetensors").folds == 3


def test_what_cannot_be_taught_is_refused_at_once() -> None:
    with pytest.raises(TeacherError, match="folds=1"):
        taught(lightgbm(), at="t.txt", folds=1)
    with pytest.raises(TeacherError, match=r"\.safetensors"):
        taught(mlp(), at="t.txt")
    with pytest.raises(TeacherError, match=r"(?s)ready-made.*module\(net\)"):
        taught(SmallMLP(DATA.schema), at="t.safetensors")  # pyright: ignore[reportArgumentType] what a user may try


def test_a_function_that_builds_is_named_by_its_source() -> None:
    def wide(schema: Schema, seed: int) -> nn.Module:
        return SmallMLP(schema, seed, width=32)

    def narrow(schema: Schema, seed: int) -> nn.Module:
        return SmallMLP(schema, seed, width=8)

    a, b = taught(wide, at="t.safetensors"), taught(narrow, at="t.safetensors")
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == taught(wide, at="t.safetensors").fingerprint


@pytest.mark.parametrize("which", ["the file", "the ids", "the record"])
def test_a_damaged_file_is_named(which: str, tmp_path: Path) -> None:
    teacher = trees(tmp_path / "t.txt")
    teach(teacher, DATA)
    at = tmp_path / "t.txt"
    path = {"the file": at, "the ids": ids_of(at), "the record": record_of(at)}[which]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if which != "the record" else content[: len(content) // 2])
    with pytest.raises(TeacherError, match=path.name):
        teach(teacher, DATA)
    path.unlink()
    if which != "the record":
        with pytest.raises(TeacherError, match=f"{path.name} is missing"):
            teach(teacher, DATA)


def test_the_file_is_one_plain_booster_that_lightgbm_reads(tmp_path: Path) -> None:
    import lightgbm as lgb

    source = teach(trees(tmp_path / "t.txt"), DATA)
    plain = lgb.Booster(model_file=str(tmp_path / "t.txt"))
    assert isinstance(source, TaughtTrees)
    batch = DATA.test.batch(ALL)
    raw = np.asarray(plain.predict(source.model.matrix(batch), raw_score=True), np.float32)
    assert np.array_equal(source(batch).output[:, 1], raw)
    assert torch.equal(lightgbm(str(tmp_path / "t.txt"))(batch).output, source(batch).output)


def test_a_split_that_shares_rows_with_training_is_refused(tmp_path: Path) -> None:
    data = replace(DATA, test=replace(DATA.test, ids=torch.cat([DATA.train.ids[:3], DATA.test.ids[3:]])))
    with pytest.raises(DataError, match="3 test rows are also training rows"):
        teach(trees(tmp_path / "t.txt"), data)
    assert not list(tmp_path.iterdir())


def test_a_module_from_elsewhere_does_not_know_its_training_rows() -> None:
    source = module(SmallMLP(DATA.schema))
    assert isinstance(source, Schooled)
    assert source.training_ids is None


NETS = taught(mlp(width=8, depth=1), at="t.safetensors", folds=1)


def test_one_net_learns_from_every_training_row_and_says_that_it_answers_them_in_fold(tmp_path: Path) -> None:
    source = teach(NETS, DATA, at=tmp_path / "t.safetensors", fit=fit(epochs=3, threads=1))
    assert isinstance(source, TaughtNets)
    assert (len(source.members), source.in_fold) == (1, True)
    assert torch.equal(source.training_ids, DATA.train.ids.sort().values)
    net, batch = source.members[0], DATA.train.batch(ALL)
    assert torch.equal(source(batch).output, net(batch.inputs).detach())
    assert cached(source).in_fold
    several = teach(replace(NETS, folds=2), DATA, at=tmp_path / "s.safetensors", fit=fit(epochs=1, threads=1))
    assert isinstance(several, TaughtNets)
    assert not several.in_fold


def test_one_net_can_be_tapped_and_several_refuse_before_they_are_taught(tmp_path: Path) -> None:
    source = teach(NETS, DATA, at=tmp_path / "t.safetensors", fit=fit(epochs=1, threads=1))
    assert isinstance(source, TaughtNets)
    batch = DATA.test.batch(ALL)
    path = next(name for name, part in source.members[0].named_modules() if isinstance(part, nn.Linear))
    signal = source(batch, frozenset({path}))
    assert set(signal.taps) == {path}
    assert not signal.taps[path].requires_grad
    assert torch.equal(signal.output, source(batch).output)
    three = replace(NETS, folds=3)
    with pytest.raises(TapError, match="is 3 nets, each with insides of its own") as caught:
        three.refuse(frozenset({path}))
    assert "folds=1" in caught.value.hint
    with pytest.raises(TapError, match="3 nets"):
        teach(three, DATA, at=tmp_path / "s.safetensors", fit=fit(epochs=1, threads=1))(batch, frozenset({path}))
    with pytest.raises(TapError, match="lightgbm has no taps"):
        taught(TREES, at="t.txt").refuse(frozenset({path}))


def test_trees_want_two_folds_and_nets_one() -> None:
    with pytest.raises(TeacherError, match=r"folds=1\): at least 2"):
        taught(TREES, at="t.txt", folds=1)
    with pytest.raises(TeacherError, match=r"folds=0\): at least 1"):
        taught(mlp(), at="t.safetensors", folds=0)
    assert repr(NETS).endswith("folds=1, seed=0)")
