"""A cached source answers as its source does, and asks it less often."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attar.errors import StoreError
from attar.signal import Batch, Schooled, Signal, Source, Stored
from attar.sources.cached import Cached, cached
from attar.store import Identity, Writer
from attar.testing.store import Plain, plain_data
from attar.verbs.annotate import annotate

DATA = plain_data(100, views=2)
TRAIN = torch.arange(len(DATA.train))


def rows(low: int, high: int, view: int = 0) -> Batch:
    index = torch.arange(low, high)
    return DATA.train.batch(index, torch.full_like(index, view))


def test_in_memory_each_row_is_asked_once() -> None:
    teacher = Plain()
    source = cached(teacher)
    first = source(rows(0, 20)).output
    assert teacher.asked == 20
    again = source(rows(10, 30)).output  # half of them are known
    assert teacher.asked == 30
    assert torch.equal(first, Plain()(rows(0, 20)).output)
    assert torch.equal(again, Plain()(rows(10, 30)).output)


def test_in_memory_views_are_rows_of_their_own() -> None:
    teacher = Plain()
    source = cached(teacher)
    assert not torch.equal(source(rows(0, 5)).output, source(rows(0, 5, view=1)).output)
    assert teacher.asked == 10


def test_rows_remembered_are_located_and_answered_by_row() -> None:
    source = cached(Plain())
    with pytest.raises(StoreError, match="5 of 5 rows have no stored answer"):
        source.locate(DATA.train.ids[:5])
    source(rows(0, 60))
    handles = source.locate(DATA.train.ids[:60])
    assert torch.equal(source.signal(handles).output, Plain()(rows(0, 60)).output)


def test_memory_grows_past_its_first_room() -> None:
    data = plain_data(5000)
    source, index = cached(Plain()), torch.arange(3000)
    for part in index.split(700):
        source(data.train.batch(part))
    handles = source.locate(data.train.ids)
    assert torch.equal(source.signal(handles).output, Plain()(data.train.batch(index)).output)


def test_over_a_store_known_rows_are_not_asked_and_the_others_are(tmp_path: Path) -> None:
    annotate(Plain(), DATA, at=tmp_path, splits=["train"], precision="float32")
    teacher = Plain()
    source = cached(teacher, at=str(tmp_path))
    assert torch.equal(source(rows(0, 60)).output, Plain()(rows(0, 60)).output)
    assert teacher.asked == 0
    test = DATA.test.batch(torch.arange(5))
    assert torch.equal(source(test).output, Plain()(test).output)
    assert teacher.asked == 5
    both = Batch(torch.cat((rows(0, 2).inputs, test.inputs)), ids=torch.cat((DATA.train.ids[:2], DATA.test.ids[:5])))  # pyright: ignore[reportArgumentType, reportCallIssue]  (both are tensors)
    assert torch.equal(source(both).output, Plain()(both).output)
    assert teacher.asked == 10


def test_over_a_folder_that_is_not_there_yet_it_is_live(tmp_path: Path) -> None:
    source = cached(Plain(), at=str(tmp_path / "later"))
    assert torch.equal(source(rows(0, 5)).output, Plain()(rows(0, 5)).output)
    with pytest.raises(StoreError, match="have no stored answer"):
        source.locate(DATA.train.ids)
    annotate(Plain(), DATA, at=tmp_path / "later")
    assert len(source.locate(DATA.train.ids)) == 60


def test_augmented_views_are_looked_up_only_where_the_augmentation_is_known(tmp_path: Path) -> None:
    annotate(Plain(), DATA, at=tmp_path, precision="float32")
    teacher = Plain()
    stranger = cached(teacher, at=str(tmp_path))
    known = annotate(teacher, DATA, at=tmp_path, precision="float32")
    for source, asked in [(stranger, 5), (known, 0)]:
        teacher.asked = 0
        assert torch.equal(source(rows(0, 5, view=1)).output, Plain()(rows(0, 5, view=1)).output)
        assert teacher.asked == asked
        source(rows(0, 5))
        assert teacher.asked == asked


def test_a_store_of_another_teacher_is_refused(tmp_path: Path) -> None:
    annotate(Plain(scale=2), DATA, at=tmp_path)
    source = cached(Plain(scale=3), at=str(tmp_path))
    with pytest.raises(StoreError, match=f"another teacher .stored '{Plain(2).fingerprint}', asked '{Plain(3).fingerprint}'"):
        source(rows(0, 5))


def test_half_precision_answers_are_float32_and_near(tmp_path: Path) -> None:
    source = annotate(Plain(), DATA, at=tmp_path)
    signal = source.signal(source.locate(DATA.train.ids))
    assert signal.output.dtype == torch.float32
    torch.testing.assert_close(signal.output, Plain()(rows(0, 60)).output, rtol=2**-11, atol=1e-7)


def test_exactly_the_taps_asked_for_are_answered(tmp_path: Path) -> None:
    taps = frozenset({"a", "b"})
    stored = annotate(Plain(), DATA, at=tmp_path, taps=taps, precision="float32")
    for source in (stored, cached(Plain())):
        for asked in (taps, frozenset({"b"}), frozenset()):
            assert source(rows(0, 7), asked).taps.keys() == asked
        tap = source(rows(3, 9), frozenset({"a"})).taps["a"]
        assert torch.equal(tap, Plain()(rows(3, 9), frozenset({"a"})).taps["a"])
    assert stored.signal(stored.locate(DATA.train.ids[:4])).taps.keys() == taps


def test_taps_that_are_not_stored_are_asked_live(tmp_path: Path) -> None:
    teacher = Plain()
    source = annotate(teacher, DATA, at=tmp_path, precision="float32")
    teacher.asked = 0
    assert source(rows(0, 4), frozenset({"c"})).taps.keys() == {"c"}
    assert teacher.asked == 4


def test_a_batch_without_ids_is_asked_live() -> None:
    teacher = Plain()
    source = cached(teacher)
    batch = Batch(torch.ones(3, 3))
    source(batch)
    source(batch)
    assert teacher.asked == 6


def test_it_is_a_source_with_stored_answers_and_its_fingerprint_is_its_sources() -> None:
    source = cached(Plain())
    assert isinstance(source, Source)
    assert isinstance(source, Stored)
    assert isinstance(source, Schooled)
    assert source.training_ids is None
    assert source.fingerprint == Plain().fingerprint


def test_it_says_what_it_was_made_of() -> None:
    assert repr(cached(Plain(), at="answers")) == 'cached(Plain(scale=2.0, asked=0), at="answers")'
    assert repr(cached(Plain())) == "cached(Plain(scale=2.0, asked=0))"


def test_what_is_timed_is_the_teacher() -> None:
    teacher = Plain()
    source = cached(teacher)
    source(rows(0, 5))
    source.prepare(rows(0, 5))()
    assert teacher.asked == 10


class Straying(Plain):
    """Keeps its gradient and answers in double precision."""

    def __call__(self, batch: Batch, taps: frozenset[str] = frozenset()) -> Signal:
        assert isinstance(batch.inputs, Tensor)
        return Signal(batch.inputs.double() * torch.ones(1, requires_grad=True))


def test_live_answers_are_float32_without_gradient_like_stored_ones() -> None:
    source = cached(Straying())
    for _ in range(2):
        output = source(rows(0, 4)).output
        assert output.dtype == torch.float32
        assert not output.requires_grad


def test_a_damaged_store_is_not_read(tmp_path: Path) -> None:
    annotate(Plain(), DATA, at=tmp_path)
    path = tmp_path / "output.1.bin"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged: output.1.bin"):
        cached(Plain(), at=str(tmp_path))(rows(0, 3))


def test_stored_and_live_answers_of_two_shapes_do_not_mix(tmp_path: Path) -> None:
    identity = Identity(Plain().fingerprint)
    with Writer.open(tmp_path, identity) as writer:
        writer.add(DATA.train.ids[:3], torch.zeros(3), Signal(torch.zeros(3, 7)))
        writer.compact()
    with pytest.raises(StoreError, match=r"stored answers have the shape \(7,\), live ones \(3,\)"):
        Cached(Plain(), tmp_path)(rows(0, 6))
