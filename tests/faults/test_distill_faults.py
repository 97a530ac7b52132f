"""Faults of distillation, done for real: kill -9 at random moments, signals to a process, a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attar.errors import DiskFull
from attar.loop import fit
from attar.sources import module
from attar.students import mlp
from attar.testing.small import SmallMLP, small_table
from attar.verbs.distill import distill

# What all of these processes train; slow enough that a checkpoint is written, once a second, while they do.
JOB = """
import os, random, signal, sys, time
import scipy.optimize, scipy.special, scipy.stats  # what is imported when used: not once for each child
from attar.loop import Stopped, fit
from attar.signal import NOTHING
from attar.sources import module
from attar.students import mlp
from attar.testing.small import SmallMLP, small_table
from attar.verbs.distill import distill

class Slow:
    def __init__(self, source):
        self.source, self.fingerprint, self.prepare = source, source.fingerprint, source.prepare
    def __call__(self, batch, taps=NOTHING):
        time.sleep(0.01)
        return self.source(batch, taps)

data = small_table(400)
teacher = Slow(module(SmallMLP(data.schema).eval()))

def job(out, resume, listen=lambda event: None):
    how = fit(epochs=60, lr=0.01, batch=25, seeds=1, patience=60, threads=1, way="one")
    return distill(teacher, mlp(width=8, depth=1, dropout=0.1), data, fit=how, out=out, resume=resume, listen=listen)
"""

# One process imports once and forks: each child distils and is killed with SIGKILL after a random time, until one comes through.
KILLED = (
    JOB
    + """
draw, kills = random.Random(0), 0
while True:
    child = os.fork()
    if not child:
        job(sys.argv[1], kills > 0)
        os._exit(0)
    time.sleep(draw.uniform(0.3, 1.8) + 0.2 * kills)  # a busy machine gets on, too
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert status == 0, status
        break
    kills += 1
print(kills)
"""
)

# Two seeds of each arm as one tensor program, whose rows are brought for several steps at once.
TOGETHER = JOB
for one, other in (
    ('way="one"', 'way="cohort"'),
    ("seeds=1", "seeds=2"),
    ("epochs=60", "epochs=25"),
    (", dropout=0.1", ""),
    ("0.01)", "0.06)"),
):
    TOGETHER = TOGETHER.replace(one, other)

STOPPED = (
    JOB
    + """
try:
    job(sys.argv[1], False, lambda event: print(event.stage, flush=True))
except Stopped as stop:
    print("stopped", stop.signal, flush=True)
    sys.exit(130)
"""
)
RESUMED = JOB + "job(sys.argv[1], True)"


def command(code: str, out: Path) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-c", code, str(out)], {**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}


def run(code: str, out: Path) -> str:
    words, environment = command(code, out)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_same(one: Path, other: Path) -> None:
    for name in ("student.safetensors", "arms/student-0.safetensors", "arms/labels-0.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    assert len((one / "history.jsonl").read_text().splitlines()) == len((other / "history.jsonl").read_text().splitlines())
    assert not [p for p in one.rglob("*") if p.name.endswith((".tmp", ".pt"))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nobody disturbed."""
    out = tmp_path_factory.mktemp("distill") / "whole"
    run(JOB + "job(sys.argv[1], False)", out)
    return out


def test_killed_at_random_moments_and_resumed_it_gives_the_weights_of_an_undisturbed_run(tmp_path: Path, whole: Path) -> None:
    kills = int(run(KILLED, tmp_path / "killed"))
    assert kills >= 2
    check_same(tmp_path / "killed", whole)


def test_a_cohort_killed_at_random_moments_gives_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    run(TOGETHER + "job(sys.argv[1], False)", tmp_path / "whole")
    kills = int(run(KILLED.replace(JOB, TOGETHER), tmp_path / "killed"))
    assert kills >= 2
    check_same(tmp_path / "killed", tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "killed" / "history.jsonl").read_text().splitlines()]
    assert any(line.get("together") == 2 for line in lines)  # one that is left when the other is kept already goes on by itself


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_in_order_and_resuming_gives_the_same_weights(tmp_path: Path, whole: Path, number: int) -> None:
    words, environment = command(STOPPED, tmp_path / "stopped")
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "distill student seed 0\n"
        time.sleep(0.05)  # into the next epoch
        process.send_signal(number)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert said.endswith(f"stopped {number}\n")
    assert (tmp_path / "stopped" / "checkpoints" / "student-0.pt").exists()
    run(RESUMED, tmp_path / "stopped")
    check_same(tmp_path / "stopped", whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_what_was_finished_is_kept(small_disk: Path) -> None:
    data = small_table(200)
    teacher, student = module(SmallMLP(data.schema).eval()), mlp(width=48, depth=2)
    how = fit(epochs=2, batch=50, seeds=6, threads=1)
    with pytest.raises(DiskFull, match="full"):
        distill(teacher, student, data, fit=how, out=small_disk / "run")
    finished = list((small_disk / "run" / "arms").iterdir())
    assert finished
    assert all(load_file(path) for path in finished)  # none is torn
    assert not list((small_disk / "run").rglob("*.tmp"))
