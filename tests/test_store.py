"""The store: what is written is read, sizes are told, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attar.errors import StoreError
from attar.signal import Signal
from attar.store import BLOCK, Identity, Store, Writer, complete_rows, estimate
from attar.testing.store import kill_at_any_byte

HALF = Identity("teacher", precision="float16")
SINGLE = Identity("teacher", precision="float32")


def keys(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-(2**62), 2**62, (rows,), generator=torch.Generator().manual_seed(seed))


def answer(ids: torch.Tensor, views: torch.Tensor, width: int = 3) -> torch.Tensor:
    """(R,) → (R, width), a function of the key alone; exact in float32."""
    return torch.stack([(ids % (97 + k)).float() + 1000 * views for k in range(width)], 1)


def fill(
    folder: Path, ids: torch.Tensor, views: torch.Tensor, identity: Identity = SINGLE, *, shard: int = 50, compact: bool = True
) -> None:
    with Writer.open(folder, identity, shard=shard) as writer:
        lacking = (~writer.has(ids, views)).nonzero().squeeze(1)
        for at in lacking.split(25) if len(lacking) else ():
            writer.add(ids[at], views[at], Signal(answer(ids[at], views[at])))
        if compact:
            writer.compact()


def test_what_is_stored_is_read_back_by_id_and_view(tmp_path: Path) -> None:
    ids, views = keys(200).repeat(3), torch.arange(3).repeat_interleave(200)
    fill(tmp_path, ids, views)
    store = Store.open(tmp_path, SINGLE)
    asked = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    rows = store.locate(ids[asked], views[asked])
    assert torch.equal(store.output[rows], answer(ids[asked], views[asked]))
    assert rows.dtype == torch.int64


def test_no_views_asked_is_view_zero(tmp_path: Path) -> None:
    ids = keys(40)
    fill(tmp_path, ids.repeat(2), torch.arange(2).repeat_interleave(40))
    store = Store.open(tmp_path)
    assert torch.equal(store.output[store.locate(ids)], answer(ids, torch.zeros_like(ids)))


@pytest.mark.parametrize("views", [torch.zeros(30, dtype=torch.int64), torch.arange(30) % 3])
def test_look_ups_agree_with_a_dictionary(views: torch.Tensor) -> None:
    ids = keys(15).repeat(2)
    store = Store.of(HALF, [{"ids": ids, "views": views.int(), "output": answer(ids, views).half()}])
    known = {(int(i), int(v)): row for row, (i, v) in enumerate(zip(store.ids, store.views, strict=True))}
    asked, seen = torch.cat((ids, keys(15, seed=1))), torch.arange(45) % 5 - 1
    expected = [known.get((int(i), int(v)), -1) for i, v in zip(asked, seen, strict=True)]
    assert store.find(asked, seen).tolist() == expected


def test_rows_without_an_answer_are_counted_and_shown(tmp_path: Path) -> None:
    ids = keys(30)
    fill(tmp_path, ids[:20], torch.zeros(20, dtype=torch.int64))
    with pytest.raises(StoreError, match=rf"10 of 30 rows have no stored answer, such as id {int(ids[20])} view 0"):
        Store.open(tmp_path).locate(ids)


def test_output_is_mapped_and_what_is_written_to_it_stays_in_memory(tmp_path: Path) -> None:
    ids = keys(30)
    fill(tmp_path, ids, torch.zeros_like(ids))
    before = (tmp_path / "output.1.bin").read_bytes()
    Store.open(tmp_path).output.fill_(7)
    assert (tmp_path / "output.1.bin").read_bytes() == before


def test_bytes_a_row_are_two_for_each_class_and_twelve_for_the_key(tmp_path: Path) -> None:
    # "dense fp16, C=10 / 1000: C×2: 20 / 2,000 bytes"
    for classes, expected in [(10, 20), (1000, 2000)]:
        ids = keys(30)
        folder = tmp_path / str(classes)
        with Writer.open(folder, HALF) as writer:
            writer.add(ids, torch.zeros_like(ids), Signal(torch.zeros(30, classes)))
            writer.compact()
        store = Store.open(folder)
        assert store.bytes_per_row == expected == estimate(30, (classes,), "float16").bytes_per_row
        sizes = {p.name.split(".")[0]: p.stat().st_size for p in folder.glob("*.bin")}
        assert sizes == {"output": 30 * expected, "ids": 30 * 8, "views": 30 * 4}
        assert store.key_bytes_per_row == 12


def test_sixteen_million_rows_of_ten_classes_are_a_third_of_a_gigabyte() -> None:
    size = estimate(16_000_000, (10,), "float16")
    assert size.rows * size.bytes_per_row == pytest.approx(0.32e9)
    assert size.bytes == 16_000_000 * 32


def test_the_estimate_is_what_is_written(tmp_path: Path) -> None:
    ids = keys(5000)
    fill(tmp_path, ids, torch.zeros_like(ids), shard=1000)
    size = estimate(5000, (3,), "float32")
    assert sum(p.stat().st_size for p in tmp_path.glob("*.bin")) == size.bytes
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= size.peak


def test_half_precision_keeps_eleven_bits_and_impossible_outcomes(tmp_path: Path) -> None:
    ids = keys(100)
    output = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) * 20
    output[:, 3] = -torch.inf
    with Writer.open(tmp_path, HALF) as writer:
        writer.add(ids, torch.zeros_like(ids), Signal(output))
        writer.compact()
    store = Store.open(tmp_path)
    read = store.output[store.locate(ids)].float()
    torch.testing.assert_close(read[:, :3], output[:, :3], rtol=2**-11, atol=0)
    assert bool((read[:, 3] == -torch.inf).all())


def test_a_number_beyond_half_precision_is_refused_with_its_row(tmp_path: Path) -> None:
    ids = keys(3)
    output = torch.tensor([[1.0, 2.0], [70_000.0, 0.0], [0.0, 0.0]])
    with (
        pytest.raises(StoreError, match=rf"row id {int(ids[1])} is 70000, beyond ±65504 of float16\nhint: precision=\"float32\""),
        Writer.open(tmp_path, HALF) as writer,
    ):
        writer.add(ids, torch.zeros_like(ids), Signal(output))


def test_taps_and_their_masks_are_stored_beside_the_output(tmp_path: Path) -> None:
    identity = Identity("teacher", taps=("body.0", "head"), precision="float32")
    ids = keys(20)
    body, mask = torch.randn(20, 4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(80).reshape(20, 4) % 3 > 0
    with Writer.open(tmp_path, identity) as writer:
        writer.add(ids, torch.zeros_like(ids), Signal(torch.zeros(20, 2), {"body.0": body, "head": body[:, 0]}, {"body.0": mask}))
        writer.compact()
    store = Store.open(tmp_path)
    rows = store.locate(ids)
    assert torch.equal(store.taps["body.0"][rows], body)
    assert torch.equal(store.taps["head"][rows], body[:, 0])
    assert torch.equal(store.masks["body.0"][rows], mask)
    assert store.bytes_per_row == 4 * (2 + 20 + 5) + 4


def test_answers_of_two_shapes_are_refused(tmp_path: Path) -> None:
    ids = keys(4)
    with pytest.raises(StoreError, match=r"output \(5,\), before \(3,\)"), Writer.open(tmp_path, SINGLE) as writer:
        writer.add(ids[:2], torch.zeros(2), Signal(torch.zeros(2, 3)))
        writer.add(ids[2:], torch.zeros(2), Signal(torch.zeros(2, 5)))


def test_the_first_of_equal_keys_counts(tmp_path: Path) -> None:
    ids = keys(5)
    with Writer.open(tmp_path, SINGLE, shard=5) as writer:
        for number in range(3):
            writer.add(ids, torch.zeros(5), Signal(torch.full((5, 2), float(number))))
        writer.compact()
    store = Store.open(tmp_path)
    assert len(store) == 5
    assert bool((store.output == 0).all())


def test_shards_that_are_not_compacted_are_read_all_the_same(tmp_path: Path) -> None:
    ids = keys(120)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids[:60], views[:60])
    fill(tmp_path, ids[60:], views[60:], compact=False)
    assert complete_rows(tmp_path) == 120
    store = Store.open(tmp_path)
    assert torch.equal(store.output[store.locate(ids)], answer(ids, views))


def test_rows_that_come_later_are_appended_and_those_before_stay_where_they_are(tmp_path: Path) -> None:
    ids = keys(BLOCK + 900)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids[:700], views[:700])
    first = (tmp_path / "output.1.bin").read_bytes()
    for low, high in [(700, 701), (701, BLOCK + 100), (BLOCK + 100, BLOCK + 900)]:  # within a block, over its end, in the next
        fill(tmp_path, ids[low:high], views[low:high])
    store = Store.open(tmp_path)
    assert torch.equal(store.output[store.locate(ids)], answer(ids, views))
    assert (tmp_path / "output.1.bin").read_bytes().startswith(first)
    assert not list(tmp_path.glob("shard*"))


def test_a_store_open_for_reading_is_not_disturbed_by_rows_that_come_later(tmp_path: Path) -> None:
    ids = keys(100)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids[:50], views[:50])
    store = Store.open(tmp_path)
    fill(tmp_path, ids, views)
    assert len(store) == 50
    assert torch.equal(store.output[store.locate(ids[:50])], answer(ids[:50], views[:50]))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Identity("somebody else"), "another teacher (stored 'teacher', asked 'somebody else')"),
        (Identity("teacher", augmentation="flip()"), "another augmentation (stored '', asked 'flip()')"),
        (Identity("teacher", taps=("head",)), "other taps (stored (), asked ('head',))"),
        (Identity("teacher", precision="float16"), "another precision (stored 'float32', asked 'float16')"),
    ],
)
def test_answers_of_another_identity_are_refused_by_reader_and_writer(tmp_path: Path, other: Identity, said: str) -> None:
    fill(tmp_path, keys(5), torch.zeros(5))
    for door in (Store.open, Writer.open):
        with pytest.raises(StoreError) as error:
            door(tmp_path, other)
        assert said in str(error.value)


def test_a_folder_without_answers_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no answers at"):
        Store.open(tmp_path)
    with Writer.open(tmp_path, SINGLE):
        pass
    with pytest.raises(StoreError, match="no answers at"):
        Store.open(tmp_path)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    with Writer.open(tmp_path, SINGLE), pytest.raises(StoreError, match="another process is writing"):
        Writer.open(tmp_path, SINGLE)
    with Writer.open(tmp_path, SINGLE):
        pass


def test_without_resume_a_folder_that_holds_answers_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, keys(5), torch.zeros(5))
    with pytest.raises(StoreError, match="5 answers are at"):
        Writer.open(tmp_path, SINGLE, resume=False)


def test_the_manifest_states_counts_form_and_byte_order(tmp_path: Path) -> None:
    fill(tmp_path, keys(BLOCK + 1), torch.zeros(BLOCK + 1))
    header = json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[0])
    assert header["rows"] == BLOCK + 1
    assert header["identity"]["source"] == "teacher"
    output = header["tensors"]["output"]
    assert (output["dtype"], output["shape"], len(output["blocks"])) == ("float32", [3], 2)
    raw = np.fromfile(tmp_path / output["file"], "<f4").reshape(-1, 3)
    assert np.array_equal(raw, Store.open(tmp_path).output.numpy())


def test_killed_at_any_byte_it_is_right_and_goes_on(tmp_path: Path) -> None:
    ids, views = keys(60).repeat(2), torch.arange(2).repeat_interleave(60)
    looked = kill_at_any_byte(lambda folder: fill(folder, ids, views), answer, tmp_path)
    assert looked > 50


def test_killed_at_any_byte_of_an_addition_it_is_right_and_goes_on(tmp_path: Path) -> None:
    ids = keys(60)
    views = torch.zeros_like(ids)

    def twice(folder: Path) -> None:
        fill(folder, ids[:40], views[:40])
        fill(folder, ids, views)

    kill_at_any_byte(twice, answer, tmp_path)


def test_the_battery_catches_a_file_that_is_written_in_place(tmp_path: Path) -> None:
    ids = keys(60)
    views = torch.zeros_like(ids)

    def careless(folder: Path) -> None:
        fill(folder, ids, views)
        output = folder / "output.1.bin"
        output.write_bytes(output.read_bytes())  # a kill between emptying and writing loses what was complete

    with pytest.raises(StoreError, match=r"damaged: output.1.bin"):
        kill_at_any_byte(careless, answer, tmp_path)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_of_a_compacted_file_costs_its_block_alone(tmp_path: Path) -> None:
    rows = 3 * BLOCK - 5
    ids = keys(rows)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids, views, shard=BLOCK)
    whole = (tmp_path / "output.1.bin").read_bytes()
    flip(tmp_path / "output.1.bin", BLOCK * 12 + 5)
    with pytest.raises(StoreError, match=r"damaged: output.1.bin, 1 of 3 blocks between rows 4,096 and 8,191"):
        Store.open(tmp_path)
    with Writer.open(tmp_path, SINGLE) as writer:
        assert writer.damage == ["output.1.bin, 1 of 3 blocks between rows 4,096 and 8,191"]
        lacking = ~writer.has(ids, views)
        assert int(lacking.sum()) == BLOCK
        writer.add(ids[lacking], views[lacking], Signal(answer(ids[lacking], views[lacking])))
        writer.compact()
    assert (tmp_path / "output.2.bin").read_bytes() == whole
    assert not (tmp_path / "output.1.bin").exists()
    Store.open(tmp_path)


@pytest.mark.parametrize("name", ["output", "ids", "views"])
def test_a_truncated_or_lost_compacted_file_is_named_and_mended(tmp_path: Path, name: str) -> None:
    ids = keys(BLOCK + 100)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids, views)
    whole = Store.open(tmp_path).output.clone()
    for cut in (True, False):
        path = next(tmp_path.glob(f"{name}.*.bin"))
        content = path.read_bytes()
        path.unlink()
        if cut:
            path.write_bytes(content[:-10])
        with pytest.raises(StoreError, match=path.name):
            Store.open(tmp_path, verify=False)
        with Writer.open(tmp_path, SINGLE) as writer:
            assert int((~writer.has(ids, views)).sum()) == (100 if cut else len(ids))
        fill(tmp_path, ids, views)
        assert torch.equal(Store.open(tmp_path).output, whole)


@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
def test_a_damaged_shard_is_named_and_only_its_rows_are_missing(tmp_path: Path, harm: str) -> None:
    ids = keys(200)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids, views, compact=False)
    shard = tmp_path / "shard.0.0.000002.safetensors"
    content = shard.read_bytes()
    if harm == "flip":
        flip(shard, len(content) - 3)
    elif harm == "cut":
        shard.write_bytes(content[:-1])
    else:
        shard.unlink()
    with pytest.raises(StoreError, match=shard.name):
        Store.open(tmp_path)
    with Writer.open(tmp_path, SINGLE) as writer:
        assert len(writer.damage) == 1
        assert shard.name in writer.damage[0]
        assert (~writer.has(ids, views)).nonzero().squeeze(1).tolist() == list(range(100, 150))
    fill(tmp_path, ids, views)
    store = Store.open(tmp_path)
    assert torch.equal(store.output[store.locate(ids)], answer(ids, views))


def test_damaged_rows_that_nobody_asks_for_again_are_dropped(tmp_path: Path) -> None:
    ids = keys(100)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids, views, compact=False)
    flip(tmp_path / "shard.0.0.000001.safetensors", 300)
    with Writer.open(tmp_path, SINGLE) as writer:
        writer.compact()
    store = Store.open(tmp_path)
    assert len(store) == 50
    flip(tmp_path / "output.1.bin", 0)
    with Writer.open(tmp_path, SINGLE) as writer:
        writer.compact()
    assert complete_rows(tmp_path) == 0


def test_a_changed_byte_in_the_manifest_is_noticed(tmp_path: Path) -> None:
    ids = keys(100)
    views = torch.zeros_like(ids)
    fill(tmp_path, ids, views, compact=False)
    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text(lines[0] + lines[1].replace('"rows": 50', '"rows": 51') + lines[2])
    assert complete_rows(tmp_path) == 50  # that shard does not count, and is asked again
    manifest.write_text(lines[0].replace("teacher", "preacher") + lines[1])
    with pytest.raises(StoreError, match="first line of .* does not read"):
        Store.open(tmp_path)
