"""Annotate: every row once, what is there is kept, and what cannot be right stops it at the first batch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attar.data import Split
from attar.errors import DataError, DiskFull, StoreError, TeacherError
from attar.progress import Event
from attar.signal import NOTHING, Batch, Signal
from attar.sources import module
from attar.store import Store
from attar.task import multilabel
from attar.testing.store import Plain, plain_data
from attar.testing.texts import small_pairs, small_text_model, small_texts
from attar.verbs.annotate import annotate


def truth(split: Split, view: int = 0) -> Tensor:
    index = torch.arange(len(split))
    return Plain()(split.batch(index, torch.full_like(index, view) if view else None)).output


@pytest.mark.parametrize("on_disk", [True, False])
def test_every_row_of_every_split_and_view_is_asked_once(tmp_path: Path, on_disk: bool) -> None:
    data, teacher = plain_data(200, views=3), Plain()
    answers = annotate(teacher, data, at=tmp_path if on_disk else None, precision="float32", batch=32)
    assert teacher.asked == 120 * 4 + 20 + 20 + 40
    for view in range(4):
        rows = answers.locate(data.train.ids, torch.full((120,), view))
        assert torch.equal(answers.signal(rows).output, truth(data.train, view))
    for split in (data.valid, data.calibration, data.test):
        assert torch.equal(answers.signal(answers.locate(split.ids)).output, truth(split))


@pytest.mark.parametrize("on_disk", [True, False])
def test_equal_rows_are_asked_once(tmp_path: Path, on_disk: bool) -> None:
    data, teacher = plain_data(100, repeat=10), Plain()
    assert len(data.train) == 70
    answers = annotate(teacher, data, at=tmp_path if on_disk else None, precision="float32")
    assert teacher.asked == 100
    assert torch.equal(answers.signal(answers.locate(data.train.ids)).output, truth(data.train))


def test_a_new_row_costs_one_row_and_a_new_view_its_rows(tmp_path: Path) -> None:
    data, teacher = plain_data(200, views=2), Plain()
    annotate(teacher, data, at=tmp_path, splits=["train"], views=0)
    assert teacher.asked == 120
    one_more = replace(data, valid=replace(data.valid, ids=data.valid.ids[:1]))
    annotate(teacher, one_more, at=tmp_path, splits=["train", "valid"], views=0)
    assert teacher.asked == 121
    annotate(teacher, data, at=tmp_path, splits=["train"], views=2)
    assert teacher.asked == 121 + 240
    annotate(teacher, data, at=tmp_path)
    assert teacher.asked == 121 + 240 + 79


def test_the_order_of_rows_and_the_size_of_batches_change_no_byte(tmp_path: Path) -> None:
    data = plain_data(200)
    backwards = replace(data, train=reordered(data.train, torch.arange(119, -1, -1)))
    annotate(Plain(), data, at=tmp_path / "a", batch=32, shard=64)
    annotate(Plain(), backwards, at=tmp_path / "b", batch=7, shard=1000)
    for name in ("output.1.bin", "ids.1.bin", "views.1.bin"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def reordered(split: Split, order: Tensor) -> Split:
    assert split.labels is not None
    return replace(split, ids=split.ids[order], labels=split.labels[order], rows=lambda index: split.rows(order[index]))


def test_classes_are_stored_in_half_and_numbers_in_single_precision(tmp_path: Path) -> None:
    data = plain_data(50, classes=1)
    numbers = replace(data, kind="regression", schema=replace(data.schema, classes=()))
    annotate(Plain(), numbers, at=tmp_path / "numbers")
    annotate(Plain(), plain_data(50), at=tmp_path / "classes")
    assert Store.open(tmp_path / "numbers").output.dtype == torch.float32
    assert Store.open(tmp_path / "classes").output.dtype == torch.float16


def test_many_labels_are_what_the_task_or_the_data_say(tmp_path: Path) -> None:
    data = plain_data(50)  # three labels
    answers = annotate(Plain(), data, at=tmp_path, task=multilabel())
    assert answers.signal(answers.locate(data.train.ids)).output.shape == (30, 3)
    annotate(Plain(), replace(data, kind="multilabel"), at=tmp_path)


def test_taps_are_stored_when_asked_for(tmp_path: Path) -> None:
    data = plain_data(50)
    answers = annotate(Plain(), data, at=tmp_path, taps=frozenset({"body"}), precision="float32")
    signal = answers.signal(answers.locate(data.test.ids))
    assert torch.equal(signal.taps["body"], truth(data.test) / 2 + 1)


@pytest.mark.parametrize("on_disk", [True, False])
def test_taps_as_long_as_the_longest_row_of_a_batch_are_not_stored_and_it_is_said(tmp_path: Path, on_disk: bool) -> None:
    data = small_texts(80)
    teacher, heard = module(small_text_model(data.schema)), list[Event]()
    at = tmp_path if on_disk else None
    answers = annotate(teacher, data, at=at, taps=frozenset({"net.words", "net.body"}), precision="float32", listen=heard.append)
    assert not answers.signal(answers.locate(data.train.ids)).taps
    assert "net.words: as long as the longest row of a batch" in heard[0].text
    batch = data.train.batch(torch.arange(5))
    live = answers(batch, frozenset({"net.words", "net.body"}))
    assert torch.equal(live.taps["net.words"], teacher(batch, frozenset({"net.words"})).taps["net.words"])
    assert live.masks.keys() == {"net.words"}


def test_pooled_taps_of_texts_are_stored(tmp_path: Path) -> None:
    data = small_texts(80)
    teacher = module(small_text_model(data.schema))
    answers = annotate(teacher, data, at=tmp_path, taps=frozenset({"net.body"}), precision="float32")
    stored = answers.signal(answers.locate(data.test.ids)).taps["net.body"]
    live = teacher(data.test.batch(torch.arange(len(data.test))), frozenset({"net.body"})).taps["net.body"]
    torch.testing.assert_close(stored, live)


def test_vectors_are_stored_for_each_text_and_a_classifier_of_texts_is_no_teacher_of_them(tmp_path: Path) -> None:
    data = small_pairs(80)
    answers = annotate(module(small_text_model(data.schema, answers=5)), data, at=tmp_path / "vectors")
    assert answers.signal(answers.locate(data.test.ids)).output.shape == (20, 2, 5)
    assert Store.open(tmp_path / "vectors").identity.precision == "float16"
    single = replace(data.schema, embeds=False, classes=("a", "b"))
    with pytest.raises(TeacherError, match="a vector for each of 2 texts"):
        annotate(module(small_text_model(single)), data, at=tmp_path / "other")


class Wrong(Plain):
    """Answers otherwise than it should, in one row of the batch or in all."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        output = super().__call__(batch, taps).output
        if self.change == "five":
            output = torch.cat((output, output[:, :2]), 1)
        elif self.change == "short":
            output = output[:-1]
        elif self.change == "half impossible":
            output[:, 0] = -torch.inf
        elif self.change == "impossible":
            output[3] = -torch.inf
        else:
            output[3, 1] = float(self.change)
        return Signal(output)


def test_a_teacher_of_other_outcomes_is_refused_at_the_first_batch(tmp_path: Path) -> None:
    teacher = Wrong("five")
    with pytest.raises(TeacherError, match=r"answers 5 outcomes, the data have 3 classes: class 0, class 1, class 2"):
        annotate(teacher, plain_data(500), at=tmp_path, batch=20)
    assert teacher.asked == 20
    with pytest.raises(TeacherError, match="answers 5 outcomes"):
        annotate(teacher, plain_data(500), batch=20)


def test_a_classifier_for_a_regression_is_refused(tmp_path: Path) -> None:
    data = plain_data(50)
    numbers = replace(data, kind="regression", schema=replace(data.schema, classes=()))
    with pytest.raises(TeacherError, match=r"answers \(3,\) a row, the data have one number, 'label'"):
        annotate(Plain(), numbers, at=tmp_path)


@pytest.mark.parametrize(
    ("change", "said"), [("nan", "answers NaN"), ("inf", r"answers \+∞"), ("impossible", "answers −∞ for every outcome")]
)
def test_answers_that_cannot_be_are_refused_with_the_ids_of_their_rows(tmp_path: Path, change: str, said: str) -> None:
    data = plain_data(100)
    with pytest.raises(TeacherError, match=rf"{said}; 1 such of the 20 rows of this batch, ids {int(data.train.ids[3])}\n"):
        annotate(Wrong(change), data, at=tmp_path, batch=20)


def test_an_absent_outcome_is_kept(tmp_path: Path) -> None:
    data = plain_data(50)
    answers = annotate(Wrong("half impossible"), data, at=tmp_path)
    assert bool((answers.signal(answers.locate(data.train.ids)).output[:, 0] == -torch.inf).all())


def test_a_source_that_leaves_rows_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="19 answers to 20 rows"):
        annotate(Wrong("short"), plain_data(100), at=tmp_path, batch=20)


def test_answers_beyond_half_precision_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"hint: precision=\"float32\""):
        annotate(Wrong("1e6"), plain_data(50), at=tmp_path)
    annotate(Wrong("1e6"), plain_data(50), at=tmp_path / "single", precision="float32")


def test_stored_answers_of_another_shape_than_the_data_ask_are_refused(tmp_path: Path) -> None:
    data = plain_data(50)
    annotate(Plain(), data, at=tmp_path)
    with pytest.raises(TeacherError, match="answers 3 outcomes, the data have 4 classes"):
        annotate(Plain(), replace(data, schema=replace(data.schema, classes=("a", "b", "c", "d"))), at=tmp_path)


def test_views_without_an_augmentation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="views=2 of data that declare no augmentation"):
        annotate(Plain(), plain_data(50), at=tmp_path, views=2)


def test_an_unknown_split_names_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'tran'\nhint: did you mean 'train'"):
        annotate(Plain(), plain_data(50), at=tmp_path, splits=["tran"])


def test_without_resume_a_folder_with_answers_is_refused(tmp_path: Path) -> None:
    annotate(Plain(), plain_data(50), at=tmp_path, resume=False)
    with pytest.raises(StoreError, match="50 answers are at"):
        annotate(Plain(), plain_data(50), at=tmp_path, resume=False)


def test_the_size_is_told_before_and_the_speed_while_it_writes(tmp_path: Path) -> None:
    events: list[Event] = []
    annotate(Plain(), plain_data(100), at=tmp_path, batch=10, shard=20, listen=events.append)
    assert events[0].text.startswith("100 rows of 6 + 12 bytes, 0.0 MB")
    assert [e.done for e in events] == [0, 20, 40, 60, 80, 100]
    assert all(e.total == 100 for e in events)
    assert all(e.numbers["rows_per_second"] > 0 for e in events[1:])
    events.clear()
    annotate(Plain(), plain_data(100), at=tmp_path, listen=events.append)
    assert not events


def test_what_does_not_fit_the_disk_is_refused_after_one_batch(tmp_path: Path) -> None:
    class Wide(Plain):
        def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
            return Signal(super().__call__(batch).output, {"wide": torch.zeros(1).expand(len(batch), 10**12)})

    teacher = Wide()
    with pytest.raises(DiskFull, match=r"storing 100 answers needs .* MB are free"):
        annotate(teacher, plain_data(100), at=tmp_path, taps=frozenset({"wide"}), batch=10)
    assert teacher.asked == 10 + 2 * 8  # one batch, and the rows by which a tap was seen to be even


class Interrupted(Plain):
    """Someone presses Ctrl-C while it answers its sixth batch."""

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        if self.asked >= 50:
            raise KeyboardInterrupt
        return super().__call__(batch, taps)


def test_an_interruption_comes_out_and_loses_no_answer(tmp_path: Path) -> None:
    data = plain_data(100)
    with pytest.raises(KeyboardInterrupt):
        annotate(Interrupted(), data, at=tmp_path, batch=10, shard=20)
    teacher = Plain()
    annotate(teacher, data, at=tmp_path)
    assert teacher.asked == 50


def test_a_slow_teacher_is_written_before_the_shard_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.store.writer.SHARD_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        annotate(Interrupted(), plain_data(100), at=tmp_path, batch=10, shard=10**6)
    assert len(list(tmp_path.glob("shard.*"))) == 5


RANK = """
import sys
from attar.testing.store import Plain, plain_data
from attar.testing.texts import small_pairs, small_text_model, small_texts
from attar.verbs.annotate import annotate
data, teacher = plain_data(400, views=1), Plain()
answers = annotate(teacher, data, at=sys.argv[1], batch=16, shard=32)
print(teacher.asked, len(answers.locate(data.train.ids)))
"""


def test_processes_with_ranks_share_the_rows_and_give_what_one_gives(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path / "two")], env=environment | {"RANK": str(r)}, stdout=subprocess.PIPE)
        for r in range(2)
    ]
    said = [rank.communicate(timeout=120)[0].split() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert sum(int(asked) for asked, _ in said) == 400 + 240
    assert min(int(asked) for asked, _ in said) > 200
    annotate(Plain(), plain_data(400, views=1), at=tmp_path / "one")
    for name in ("output.1.bin", "ids.1.bin", "views.1.bin"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not list((tmp_path / "two").glob("shard.*"))
