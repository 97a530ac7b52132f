"""distill trains student and controls alike, resumes them exactly, and writes what a run folder promises."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attar.data import Data, arrays, shift
from attar.errors import DataError, NotationError, ObjectiveError, RunError, StudentError, TeacherError
from attar.loop import Stopped, fit
from attar.objective import Distiller, as_objective, blend, cosine, hint, kl, labels, mse, ramp, reverse_kl
from attar.progress import Event, silent
from attar.signal import IGNORE, NOTHING, Batch, Signal, Source
from attar.sources import ema, module
from attar.students import Trees, cnn, forest, lightgbm, mlp
from attar.task import classification, multilabel, regression
from attar.testing.small import SmallMLP, fitted, small_images, small_table
from attar.testing.texts import small_pairs, small_text_model, small_text_teacher, small_texts
from attar.verbs.annotate import annotate
from attar.verbs.distill import distill
from attar.verbs.distill.grow import blend_of
from attar.verbs.distill.plan import Plan, default_controls
from attar.verbs.distill.rows import Rows

TABLE = small_table(600)
TEACHER = module(fitted(SmallMLP(TABLE.schema, width=32), TABLE, steps=40).eval())
STUDENT = mlp(width=8, depth=1)
FIT = fit(epochs=3, lr=0.01, batch=32, seeds=2, threads=1)
LABELS = ("labels",)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class Watched:
    """A source that notes the ids and views it is asked."""

    def __init__(self, source: Source) -> None:
        self.source, self.asked = source, list[Batch]()

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        self.asked.append(batch)
        return self.source(batch, taps)

    def prepare(self, batch: Batch) -> Any:
        return self.source.prepare(batch)


class Changed(Watched):
    """A source whose logits are changed on the way."""

    def __init__(self, source: Source, change: Any) -> None:
        super().__init__(source)
        self.change = change

    @property
    def fingerprint(self) -> str:
        return "changed " + self.source.fingerprint

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        return replace(self.source(batch, taps), output=self.change(self.source(batch, taps).output))


def unlabelled(data: Data, split: str = "train", keep: int = 0) -> Data:
    """The same data, the labels of all but the first `keep` rows of one split unknown."""
    own = data.splits[split]
    assert own.labels is not None
    hidden = own.labels.clone()
    hidden[keep:] = IGNORE
    return replace(data, **{split: replace(own, labels=hidden)})


# ------------------------------------------------------------------------------------------------------------------------- arms


def test_arms_come_seed_by_seed_and_the_first_student_ships() -> None:
    done = distill(TEACHER, STUDENT, TABLE, fit=FIT, controls=("labels", "hard"))
    assert [(a.name, a.seed) for a in done.arms] == [(n, s) for s in (0, 1) for n in ("student", "labels", "hard")]
    assert done.student is done.arms[0].model
    assert not done.student.training
    assert done.threads == 1
    assert not done.ready_made
    assert done.conventions.ok
    assert done.arms[0].valid.keys() >= {"accuracy", "auroc", "log_loss"}


def test_arms_of_a_seed_begin_alike_and_see_the_same_rows_in_the_same_order() -> None:
    starts: dict[str, list[Tensor]] = {}
    seen: dict[str, list[Tensor]] = {}

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = STUDENT(TABLE.schema, 7)
            self.name = ""

        def forward(self, inputs: Any) -> Tensor:
            if self.training:
                starts.setdefault(arm[-1], [p.detach().clone() for p in self.net.parameters()])
                seen.setdefault(arm[-1], []).append(inputs["numbers"])
            return self.net(inputs)

    arm = ["?"]

    def listen(event: Event) -> None:
        arm.append(event.stage)

    how = replace(FIT, seeds=1, epochs=1, way="one")  # nothing is timed beforehand
    done = distill(TEACHER, lambda schema, seed: Noting(), TABLE, controls=LABELS, fit=how, listen=listen)
    assert len(done.arms) == 2
    first, second = seen.values()
    assert len(first) == len(second)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*starts.values(), strict=True))


def test_the_student_learns_the_teacher_better_than_labels_alone_do() -> None:
    noisy = small_table(600)
    assert noisy.train.labels is not None
    flip = torch.rand(len(noisy.train), generator=torch.Generator().manual_seed(0)) < 0.3
    noisy = replace(noisy, train=replace(noisy.train, labels=torch.where(flip, 1 - noisy.train.labels, noisy.train.labels)))
    done = distill(TEACHER, STUDENT, noisy, kl(), controls=LABELS, fit=replace(FIT, epochs=20, seeds=1))
    student, control = (a.valid["log_loss"] for a in done.arms)
    assert student < control


def test_the_same_call_gives_the_same_weights() -> None:
    one, other = (distill(TEACHER, STUDENT, TABLE, fit=replace(FIT, seeds=1)) for _ in range(2))
    assert all(same(a.model, b.model) for a, b in zip(one.arms, other.arms, strict=True))


def test_labels_alone_never_ask_the_teacher() -> None:
    teacher = Watched(TEACHER)
    done = distill(teacher, STUDENT, TABLE, labels(), fit=replace(FIT, seeds=1), controls=())
    assert not teacher.asked
    assert len(done.arms) == 1


def test_stored_and_live_answers_train_the_same_student() -> None:
    stored = annotate(TEACHER, TABLE, precision="float32")
    teacher = Watched(TEACHER)
    live = distill(teacher, STUDENT, TABLE, fit=replace(FIT, seeds=1), controls=())
    from_store = distill(stored, STUDENT, TABLE, fit=replace(FIT, seeds=1), controls=())
    assert len(teacher.asked) > 3
    for a, b in zip(live.student.parameters(), from_store.student.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_stored_teacher_is_asked_in_the_self_test_only() -> None:
    teacher = Watched(TEACHER)
    stored = annotate(teacher, TABLE)
    before = len(teacher.asked)
    distill(stored, STUDENT, TABLE, fit=FIT)
    assert len(teacher.asked) - before <= 4  # twice, by halves, and once more


def test_validation_chooses_by_the_tasks_metric() -> None:
    done = distill(TEACHER, STUDENT, TABLE, task=classification(metric="log_loss"), fit=replace(FIT, seeds=1, epochs=6), controls=())
    arm = done.arms[0]
    values = [line["valid"] for line in arm.history]
    assert values[arm.best_epoch - 1] == min(values)
    assert arm.valid["log_loss"] == pytest.approx(min(values), rel=1e-6)
    assert {line["metric"] for line in arm.history} == {"log_loss"}


def test_a_ready_made_module_is_copied_for_each_arm_and_stays_as_it_is() -> None:
    own = STUDENT(TABLE.schema, 5)
    before = {n: v.clone() for n, v in own.state_dict().items()}
    done = distill(TEACHER, own, TABLE, fit=FIT)
    assert done.ready_made
    assert all(torch.equal(v, before[n]) for n, v in own.state_dict().items())
    assert not same(done.arms[0].model, done.arms[2].model)  # seeds vary the order of rows


def test_regression_and_many_labels_take_their_default_objective() -> None:
    for kind, task in (("regression", regression()), ("multilabel", multilabel())):
        data = small_table(400, kind=kind)
        outcomes = (3, 2) if kind == "multilabel" else ()
        teacher = module(fitted(SmallMLP(data.schema, outcomes=outcomes), data, steps=5).eval())
        done = distill(teacher, STUDENT, data, task=task, fit=replace(FIT, seeds=1))
        assert done.objective == repr(blend_text(task.objective))
        assert task.metric in done.arms[0].valid
        assert distill(teacher, STUDENT, data, fit=replace(FIT, seeds=1, epochs=1), controls=()).objective == done.objective


def blend_text(text: str) -> object:
    return {"mse": blend(mse(), labels(), weight=0.9), "kl": blend(kl(temperature=2.0), labels(), weight=0.9)}[
        "mse" if "mse" in text else "kl"
    ]


def test_every_control_trains_on_images_too() -> None:
    data = small_images(200)
    teacher = module(cnn(width=4, depth=2)(data.schema, 1).eval())
    controls = ("labels", "hard", "shuffled", "smooth")
    done = distill(annotate(teacher, data), cnn(width=2, depth=1), data, fit=replace(FIT, seeds=1, epochs=1), controls=controls)
    assert [a.name for a in done.arms] == ["student", *controls]


# ------------------------------------------------------------------------------------------------------------------------- rows


def augmented() -> Data:
    plain = small_images(200)
    pixels = plain.train.batch(torch.arange(len(plain.train))).inputs
    return arrays(pixels, plain.train.labels, augment=[shift(pixels=1)], views=3).read()  # pyright: ignore[reportArgumentType]  # images


def test_a_row_shows_its_stored_views_in_turn_with_the_answers_to_them() -> None:
    data = augmented()
    teacher = module(cnn(width=4, depth=1)(data.schema, 0).eval())
    rows = Rows(data, annotate(teacher, data, precision="float32"), NOTHING, torch.arange(len(data.train)), torch.device("cpu"))
    index = torch.arange(len(data.train))
    shown = []
    for epoch in (1, 2, 3, 4):
        batch, signal = rows(index, epoch)
        assert batch.views is not None
        assert signal is not None
        torch.testing.assert_close(signal.output, teacher(batch).output, rtol=1e-4, atol=1e-5)
        shown.append(batch.views)
    assert torch.equal(shown[0], shown[3])
    assert all(sorted(v) == [1, 2, 3] for v in torch.stack(shown[:3], 1).tolist())
    assert len(shown[0].unique()) == 3  # one epoch has all of them


def test_fewer_rows_take_turns_so_that_steps_are_as_many() -> None:
    rows = Rows(TABLE, None, NOTHING, torch.tensor([3, 5, 8]), torch.device("cpu"))
    batch, _ = rows(torch.arange(7), 1)
    assert batch.ids is not None
    assert torch.equal(batch.ids, TABLE.train.ids[torch.tensor([3, 5, 8, 3, 5, 8, 3])])


def test_a_batch_says_that_every_label_is_known_and_its_loss_is_the_same() -> None:
    index = torch.arange(20)
    batch = TABLE.train.batch(index)
    assert batch.complete
    assert not unlabelled(TABLE, keep=10).train.batch(torch.arange(10)).complete  # of the split, not of these rows
    distiller = Distiller(STUDENT(TABLE.schema, 0), labels(), classification().bind(TABLE.schema)).build(batch)
    torch.testing.assert_close(distiller(batch).total, distiller(replace(batch, complete=False)).total)


def test_the_labels_control_makes_as_many_steps_on_the_labelled_rows_alone() -> None:
    data = unlabelled(TABLE, keep=40)
    done = distill(TEACHER, STUDENT, data, controls=LABELS, fit=replace(FIT, seeds=1))
    student, control = done.arms
    assert len(student.history) == len(control.history)
    assert control.history[0]["loss"] > 0
    goal = blend(kl(), labels())
    plan = Plan(TEACHER, STUDENT, data, goal, classification().bind(data.schema), FIT, ("labels", "hard"), silent)
    assert len(plan.rows("labels")) == 40
    assert len(plan.rows("hard")) == len(plan.rows("student")) == len(data.train)


def test_each_other_explanation_of_a_gain_is_a_control_where_it_makes_sense() -> None:
    binary = classification().bind(TABLE.schema)
    tapped = kl() + hint("hidden.0", "hidden")
    assert default_controls(binary, as_objective(kl() + labels()), 10) == ("labels", "smooth", "hard", "shuffled")
    assert default_controls(binary, as_objective(kl()), 0) == ("hard",)
    assert default_controls(binary, as_objective(labels()), 10) == default_controls(binary, as_objective(tapped), 10) == ("labels",)
    assert default_controls(binary, as_objective(kl() + labels()), 10, ema()) == ("labels", "smooth")
    assert default_controls(multilabel(), as_objective(kl()), 10) == ("labels", "smooth", "hard")
    assert default_controls(regression(), as_objective(mse()), 10) == ("labels",)
    assert default_controls(regression(), as_objective(mse()), 0) == ()
    done = distill(annotate(TEACHER, TABLE), STUDENT, TABLE, fit=replace(FIT, seeds=1, epochs=1))
    assert [arm.name for arm in done.arms] == ["student", "labels", "smooth", "hard", "shuffled"]


# ----------------------------------------------------------------------------------------------------------------------- folder


def test_the_folder_holds_history_arms_and_the_student(tmp_path: Path) -> None:
    done = distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    expected = [(a.name, a.seed, e) for a in done.arms for e in range(1, len(a.history) + 1)]
    assert [(li["arm"], li["seed"], li["epoch"]) for li in lines] == expected
    assert [dict(h) for a in done.arms for h in a.history] == lines
    kept = load_file(tmp_path / "student.safetensors")
    assert all(torch.equal(v, kept[n]) for n, v in done.student.state_dict().items())
    assert not list((tmp_path / "checkpoints").glob("*.pt"))


def test_finished_arms_are_read_and_not_trained_again(tmp_path: Path) -> None:
    done = distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path)
    teacher, events = Watched(TEACHER), list[Event]()
    again = distill(teacher, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path, resume=True, listen=events.append)
    assert {e.stage for e in events} == {"distill"}  # no epoch was run
    for a, b in zip(done.arms, again.arms, strict=True):
        assert same(a.model, b.model)
        assert (a.best_epoch, dict(a.valid), a.history) == (b.best_epoch, dict(b.valid), b.history)


def test_more_seeds_may_be_added_later(tmp_path: Path) -> None:
    few = distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=replace(FIT, seeds=1), out=tmp_path)
    more = distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path, resume=True)
    assert [a.seed for a in more.arms] == [0, 0, 1, 1]
    assert same(few.student, more.student)


def test_a_folder_in_use_is_refused_and_so_is_another_training(tmp_path: Path) -> None:
    distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path)
    with pytest.raises(RunError, match="holds a training already"):
        distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path)
    with pytest.raises(RunError, match="of another training"):
        distill(TEACHER, STUDENT, TABLE, kl(temperature=4), controls=LABELS, fit=FIT, out=tmp_path, resume=True)
    with pytest.raises(RunError, match="of another training"):
        distill(TEACHER, mlp(width=8, depth=1, dropout=0.1), TABLE, controls=LABELS, fit=FIT, out=tmp_path, resume=True)


def test_a_damaged_arm_is_named(tmp_path: Path) -> None:
    distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path)
    (tmp_path / "arms" / "labels-1.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match=r"labels-1.safetensors is damaged"):
        distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path, resume=True)


def test_a_torn_line_of_history_is_dropped(tmp_path: Path) -> None:
    whole = distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path / "whole")
    torn = tmp_path / "torn"
    distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=replace(FIT, seeds=1), out=torn)
    (torn / "arms" / "labels-0.safetensors").unlink()
    text = (torn / "history.jsonl").read_text()
    (torn / "history.jsonl").write_text(text[:-25])
    distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=torn, resume=True)

    def lines(folder: Path) -> list[Mapping[str, Any]]:
        return [json.loads(line) | {"seconds": 0} for line in (folder / "history.jsonl").read_text().splitlines()]

    assert lines(torn) == lines(tmp_path / "whole")
    assert len(whole.arms) == 4


def test_a_signal_stops_cleanly_and_resuming_gives_the_same_arms(tmp_path: Path) -> None:
    whole = distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path / "whole")

    def stop(event: Event) -> None:
        if (event.stage, event.done) == ("distill labels seed 0", 2):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match="SIGTERM stopped distill labels seed 0 in epoch 2"):
        distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path / "parts", listen=stop)
    assert (tmp_path / "parts" / "checkpoints" / "labels-0.pt").exists()
    again = distill(TEACHER, STUDENT, TABLE, controls=LABELS, fit=FIT, out=tmp_path / "parts", resume=True)
    assert all(same(a.model, b.model) for a, b in zip(whole.arms, again.arms, strict=True))


# ------------------------------------------------------------------------------------------------------------------------ trees


@pytest.mark.parametrize("builder", [lightgbm(trees=40, leaves=7), forest(trees=20, depth=6, min_rows=3)], ids=repr)
def test_trees_learn_the_teacher_and_their_control_the_labels(builder: Any, tmp_path: Path) -> None:
    done = distill(TEACHER, builder, TABLE, controls=LABELS, fit=replace(FIT, seeds=1), out=tmp_path)
    student, control = done.arms
    batch = TABLE.test.batch(torch.arange(len(TABLE.test)))
    theirs = TEACHER(batch).output
    z = student.model(batch.inputs)
    assert torch.corrcoef(torch.stack((z[:, 1] - z[:, 0], theirs[:, 1] - theirs[:, 0])))[0, 1] > 0.8
    assert control.valid["auroc"] > 0.6
    assert isinstance(student.model, Trees)
    assert student.best_epoch == (student.model.estimators[0].num_trees() if student.model.kind == "lightgbm" else 20)
    again = distill(TEACHER, builder, TABLE, controls=LABELS, fit=replace(FIT, seeds=1), out=tmp_path, resume=True)
    assert torch.equal(again.student(batch.inputs), z)


@pytest.mark.parametrize(
    "goal",
    [reverse_kl(), kl() + kl(temperature=4), ramp(0, 1) * kl() + labels(), kl() + labels() + labels(), -1.0 * kl() + labels()],
    ids=repr,
)
def test_trees_refuse_what_they_cannot_regress(goal: Any) -> None:
    with pytest.raises(StudentError, match="trees"):
        distill(TEACHER, lightgbm(trees=5), TABLE, goal, fit=FIT)


def test_weights_of_a_blend_are_shares() -> None:
    assert blend_of(3.0 * kl(temperature=4) + 1.0 * labels(smoothing=0.1)) == blend_of(blend(kl(4), labels(0.1), weight=0.75))
    assert blend_of(mse() * 1.0).share == 1.0


# ----------------------------------------------------------------------------------------------------------------------- errors


def test_an_unknown_control_names_its_neighbours() -> None:
    with pytest.raises(NotationError, match="did you mean 'labels'"):
        distill(TEACHER, STUDENT, TABLE, fit=FIT, controls=("label",))
    with pytest.raises(NotationError, match="twice"):
        distill(TEACHER, STUDENT, TABLE, fit=FIT, controls=("labels", "labels"))
    with pytest.raises(NotationError, match="for classes"):
        distill(TEACHER, STUDENT, small_table(200, kind="regression"), fit=FIT, controls=("hard",))
    with pytest.raises(NotationError, match="'hard' changes what the teacher says, and .* asks no teacher"):
        distill(TEACHER, STUDENT, TABLE, labels(), fit=FIT, controls=("labels", "hard"))
    many = small_table(200, kind="multilabel")
    never = Watched(module(SmallMLP(many.schema, outcomes=(3, 2)).eval()))
    with pytest.raises(NotationError, match="'shuffled' exchanges answers among rows of one label"):
        distill(never, STUDENT, many, task=multilabel(), fit=FIT, controls=("shuffled",))
    assert not never.asked


def test_labels_that_are_needed_and_missing_are_said_before_training() -> None:
    data = unlabelled(TABLE)
    with pytest.raises(DataError, match="needs labels, no training row has one"):
        distill(TEACHER, STUDENT, data, blend(kl(), labels()), fit=FIT)
    with pytest.raises(DataError, match="control 'labels' needs labels") as found:
        distill(TEACHER, STUDENT, data, kl(), fit=FIT, controls=("labels",))
    assert "hard" in found.value.hint
    with pytest.raises(DataError, match="no validation row has a label and no teacher is asked"):
        distill(TEACHER, STUDENT, unlabelled(TABLE, "valid"), labels(), fit=FIT)


def test_without_labelled_training_rows_a_student_learns_from_the_teacher_alone() -> None:
    done = distill(TEACHER, STUDENT, unlabelled(TABLE), fit=replace(FIT, seeds=1))
    assert [arm.name for arm in done.arms] == ["student", "hard"]
    assert done.objective == repr(kl())
    assert done.arms[0].valid["accuracy"] > 0.5


def bare(data: Data) -> Data:
    """The same data without any label: where labels were numbers, NaN."""
    for name, split in data.splits.items():
        assert split.labels is not None
        unknown = torch.full_like(split.labels, float("nan") if split.labels.is_floating_point() else IGNORE)
        data = replace(data, **{name: replace(split, labels=unknown)})
    return data


@pytest.mark.parametrize(
    ("kind", "metric", "controls"),
    [
        ("classification", "agreement", ["hard"]),
        ("multilabel", "agreement", ["hard"]),
        ("regression", "root_mean_square_distance", []),
        ("embedding", "similarity_correlation", []),
    ],
)
def test_without_any_label_the_epoch_most_like_the_teacher_is_kept(tmp_path: Path, kind: str, metric: str, controls: list[str]) -> None:
    data = bare(small_pairs(200) if kind == "embedding" else small_table(200, kind=kind))
    outcomes = (3, 2) if kind == "multilabel" else ()
    build = small_text_model if kind == "embedding" else partial(SmallMLP, outcomes=outcomes)
    teacher, heard = module(build(data.schema, 5).eval()), list[Event]()
    task = {"multilabel": multilabel()}.get(kind)
    done = distill(teacher, build, data, task=task, fit=replace(FIT, seeds=1, epochs=4), out=tmp_path, listen=heard.append)
    assert [arm.name for arm in done.arms] == ["student", *controls]
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    own = [line["valid"] for line in lines if line["arm"] == "student"]
    assert {line["metric"] for line in lines} == {metric}
    best = min(own) if metric.endswith("distance") else max(own)
    assert own[done.arms[0].best_epoch - 1] == best == pytest.approx(done.arms[0].valid[metric])
    assert f"{metric.replace('_', ' ')} with the teacher" in heard[-1].text
    for batch in [data.valid.batch(torch.arange(len(data.valid)))]:  # and it is what it says
        if metric == "agreement":
            ours, theirs = (m(batch.inputs).argmax(-1) for m in (done.student, build(data.schema, 5).eval()))
            assert done.arms[0].valid[metric] == pytest.approx(float((ours == theirs).double().mean()))


def test_embeddings_are_distilled_and_the_control_learns_scores_alone() -> None:
    data = small_pairs(240, labelled=0.5)
    done = distill(module(small_text_teacher(data.schema)), small_text_model, data, fit=replace(FIT, seeds=1, epochs=20, lr=0.02))
    assert [arm.name for arm in done.arms] == ["student", "labels"]
    assert done.objective == repr(as_objective(cosine()))
    assert done.arms[0].valid["spearman"] > 0.6
    assert done.arms[1].valid["spearman"] > 0.2


def test_a_student_of_fewer_coordinates_is_judged_like_any_other() -> None:
    data = small_pairs(240)
    narrow = partial(small_text_model, answers=4)
    done = distill(module(small_text_teacher(data.schema)), narrow, data, fit=replace(FIT, seeds=1, epochs=20, lr=0.02), controls=())
    assert done.student(data.test.batch(torch.arange(3)).inputs).shape == (3, 2, 4)
    assert done.arms[0].valid["spearman"] > 0.4


def test_widths_that_differ_name_the_words_that_bear_it() -> None:
    data = small_pairs(80)
    with pytest.raises(ObjectiveError, match="the student answers 4 coordinates, the teacher 8") as found:
        distill(module(small_text_teacher(data.schema)), partial(small_text_model, answers=4), data, mse(), fit=FIT)
    assert "cosine" in found.value.hint
    assert "pca" in found.value.hint


def test_embeddings_have_no_control_that_decides() -> None:
    data = small_pairs(80)
    with pytest.raises(NotationError, match="'hard' is for classes, this is an embedding"):
        distill(module(small_text_model(data.schema)), small_text_model, data, fit=FIT, controls=("hard",))


def test_token_taps_that_are_not_stored_are_asked_as_training_goes() -> None:
    data = small_texts(120)
    teacher = Watched(module(small_text_model(data.schema, 1)))
    taps = frozenset({"net.words"})
    answers = annotate(teacher, data, taps=taps)
    before = len(teacher.asked)
    rows = Rows(data, answers, taps, torch.arange(len(data.train)), torch.device("cpu"))
    batch, signal = rows(torch.arange(7), 1)
    assert signal is not None
    assert len(teacher.asked) == before + 1
    assert torch.equal(signal.taps["net.words"], teacher(batch, taps).taps["net.words"])
    pooled = annotate(teacher, data, taps=frozenset({"net.body"}))
    before = len(teacher.asked)
    stored = Rows(data, pooled, frozenset({"net.body"}), torch.arange(len(data.train)), torch.device("cpu"))(torch.arange(7), 1)[1]
    assert stored is not None
    assert stored.taps["net.body"].shape == (7, 12)
    assert len(teacher.asked) == before


def test_a_teacher_of_nan_is_refused_before_training() -> None:
    bad = Changed(TEACHER, lambda z: torch.where(torch.arange(len(z))[:, None] == 3, torch.nan, z))
    with pytest.raises(TeacherError, match="NaN or infinity to 1 of"):
        distill(bad, STUDENT, TABLE, fit=FIT)


def test_a_teacher_in_another_order_of_classes_is_refused_before_training() -> None:
    with pytest.raises(TeacherError, match="exchanged"):
        distill(Changed(TEACHER, lambda z: z.flip(1)), STUDENT, TABLE, fit=FIT)


def test_a_teacher_of_other_classes_is_refused_before_training() -> None:
    with pytest.raises(ObjectiveError, match=r"expected \(..., 2\)"):
        distill(Changed(TEACHER, lambda z: torch.cat((z, z), 1)), STUDENT, TABLE, fit=FIT)


def test_a_teacher_that_was_trained_on_test_rows_is_refused() -> None:
    class Leaky(Watched):
        training_ids = TABLE.test.ids[:3].sort().values

    with pytest.raises(DataError, match=r"trained on 3 of the 150 test rows"):
        distill(Leaky(TEACHER), STUDENT, TABLE, fit=FIT)
    held_out = replace(TABLE, calibration=TABLE.test, test=TABLE.calibration)
    with pytest.raises(DataError, match=r"trained on 3 of the 150 test rows"):  # the split keeps its name, wherever it stands
        distill(Leaky(TEACHER), STUDENT, held_out, fit=FIT)


def test_a_builder_that_builds_no_module_is_refused() -> None:
    with pytest.raises(StudentError, match="built a int"):
        distill(TEACHER, lambda schema, seed: seed, TABLE, fit=FIT)  # pyright: ignore[reportArgumentType]  # wrong on purpose
