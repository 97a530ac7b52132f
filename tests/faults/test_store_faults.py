"""Faults of stored answers, done for real: kill -9, a full disk, flipped bytes, another teacher's folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from attar.errors import DiskFull, StoreError
from attar.progress import Event
from attar.store import Store, complete_rows
from attar.testing.store import Plain, plain_data
from attar.verbs.annotate import annotate

FILES = ("output.1.bin", "ids.1.bin", "views.1.bin")

# One process imports once and forks: each child annotates and is killed with SIGKILL after a random time, until one comes through.
KILLED = """
import os, random, signal, sys, time
from attar.store import complete_rows
from attar.testing.store import Plain, plain_data
from attar.verbs.annotate import annotate

folder, seed = sys.argv[1], int(sys.argv[2])
data, draw = plain_data(2000, classes=50), random.Random(seed)

class Slow(Plain):
    def __call__(self, batch, taps=frozenset()):
        time.sleep(0.01)
        return super().__call__(batch, taps)

kills, complete = 0, [0]
while True:
    child = os.fork()
    if not child:
        annotate(Slow(), data, at=folder, batch=10, shard=50)
        os._exit(0)
    time.sleep(draw.uniform(0, 0.4))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert status == 0, status
        break
    kills += 1
    complete.append(complete_rows(folder) if os.path.exists(folder) else 0)
    assert complete[-1] >= complete[-2], complete
print(kills)
"""


@pytest.mark.parametrize("seed", [0])
def test_killed_at_random_moments_and_resumed_it_gives_the_bytes_of_an_undisturbed_run(tmp_path: Path, seed: int) -> None:
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    annotate(Plain(), plain_data(2000, classes=50), at=tmp_path / "whole")
    for name in FILES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not [p for p in (tmp_path / "killed").iterdir() if p.suffix in (".tmp", ".safetensors")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_answers_that_cannot_fit_are_refused_before_the_second_batch(small_disk: Path) -> None:
    teacher = Plain()
    with pytest.raises(DiskFull, match=r"storing 2,000 answers needs 0\.5 MB, 0\.3 MB are free"):
        annotate(teacher, plain_data(2000, classes=50), at=small_disk / "answers", batch=100)
    assert teacher.asked == 100
    assert complete_rows(small_disk / "answers") == 0


def test_a_disk_that_fills_up_while_answers_are_written_loses_none_that_were_complete(small_disk: Path, tmp_path: Path) -> None:
    data, folder, ballast = plain_data(500, classes=50), small_disk / "answers", small_disk / "ballast"

    def fill_up(event: Event) -> None:
        if event.done == 200:
            with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))

    with pytest.raises(DiskFull, match="the disk is full while writing .*shard"):
        annotate(Plain(), data, at=folder, batch=50, shard=50, listen=fill_up)
    kept = complete_rows(folder)
    assert 150 <= kept <= 250
    with pytest.raises(DiskFull):  # still full: nothing gets worse
        annotate(Plain(), data, at=folder, batch=50, shard=50)
    assert complete_rows(folder) == kept
    ballast.unlink()
    teacher = Plain()
    annotate(teacher, data, at=folder, batch=50, shard=50)
    assert teacher.asked == 500 - kept
    annotate(Plain(), data, at=tmp_path / "whole")
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_disk_that_is_full_when_answers_are_compacted_keeps_the_shards(small_disk: Path) -> None:
    data, folder, ballast = plain_data(800, classes=50), small_disk / "answers", small_disk / "ballast"

    def fill_up(event: Event) -> None:
        if event.done == event.total:
            with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))

    with pytest.raises(DiskFull):
        annotate(Plain(), data, at=folder, batch=100, shard=100, listen=fill_up)
    assert complete_rows(folder) == 800
    ballast.unlink()
    teacher = Plain()
    annotate(teacher, data, at=folder)
    assert teacher.asked == 0
    assert not list(folder.glob("shard.*"))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@dataclass
class Stopping(Plain):
    """Is interrupted after so many rows."""

    after: int = 0

    def __call__(self, batch, taps=frozenset()):
        if self.asked >= self.after:
            raise KeyboardInterrupt
        return super().__call__(batch, taps)


def test_a_flipped_byte_in_a_shard_is_named_and_only_its_rows_are_asked_again(tmp_path: Path) -> None:
    data = plain_data(400)
    with pytest.raises(KeyboardInterrupt):
        annotate(Stopping(after=200), data, at=tmp_path / "a", batch=50, shard=50)
    flip(tmp_path / "a" / "shard.0.0.000001.safetensors", 400)
    said: list[str] = []
    teacher = Plain()
    annotate(teacher, data, at=tmp_path / "a", listen=lambda event: said.append(event.text))
    assert "shard.0.0.000001.safetensors does not match its checksum (50 rows)" in said[0]
    assert teacher.asked == 250
    annotate(Plain(), data, at=tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("harm", ["flip", "cut"])
@pytest.mark.parametrize("name", FILES)
def test_damage_in_a_compacted_file_is_named_and_only_its_block_is_asked_again(tmp_path: Path, harm: str, name: str) -> None:
    data = plain_data(9000)
    annotate(Plain(), data, at=tmp_path)
    whole = {f: (tmp_path / f).read_bytes() for f in FILES}
    if harm == "flip":
        flip(tmp_path / name, len(whole[name]) - 7)
    else:
        (tmp_path / name).write_bytes(whole[name][:-7])
    with pytest.raises(StoreError, match=rf"damaged: {name}, 1 of 3 blocks between rows 8,192 and 8,999"):
        Store.open(tmp_path)
    said: list[str] = []
    teacher = Plain()
    annotate(teacher, data, at=tmp_path, listen=lambda event: said.append(event.text))
    assert name in said[0]
    assert teacher.asked == 9000 - 8192
    for before in FILES:
        assert (tmp_path / before.replace(".1.", ".2.")).read_bytes() == whole[before]


def test_a_store_of_another_teacher_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    data = plain_data(100)
    annotate(Plain(scale=2.0), data, at=tmp_path)
    other = Plain(scale=3.0)
    with pytest.raises(StoreError) as error:
        annotate(other, data, at=tmp_path)
    assert f"another teacher (stored '{Plain(2.0).fingerprint}', asked '{other.fingerprint}')" in str(error.value)
    assert "hint: choose another folder" in str(error.value)
    assert other.asked == 0
    assert torch.equal(Store.open(tmp_path).output, annotate(Plain(2.0), data, at=tmp_path).store.output)  # pyright: ignore[reportOptionalMemberAccess]  (it has one)


def test_duplicate_ids_are_stored_once_and_found_each_time(tmp_path: Path) -> None:
    data = plain_data(200, repeat=30)
    teacher = Plain()
    answers = annotate(teacher, data, at=tmp_path, precision="float32")
    assert teacher.asked == len(Store.open(tmp_path)) == 200
    rows = answers.locate(data.train.ids)
    assert len(rows) == 150
    assert torch.equal(rows[:30], rows[120:])
