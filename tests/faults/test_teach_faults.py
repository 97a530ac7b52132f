"""Faults of teaching, done for real: kill -9 at random moments, then on it goes to the teacher that nobody killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attar.loop import fit
from attar.sources import lightgbm, taught
from attar.testing.small import SmallMLP, small_table
from attar.verbs.teach import teach

# One process imports once and forks: each child teaches and is killed with SIGKILL after a random time, until one comes through.
KILLED = """
import os, random, signal, sys, time
import lightgbm, scipy.optimize, scipy.special, scipy.stats, torch._dynamo  # what is imported when used: not once for each child
from attar.loop import fit
from attar.sources import lightgbm, taught
from attar.testing.small import SmallMLP, small_table
from attar.verbs.teach import teach

data, draw, kills = small_table(400), random.Random(0), 0
folder, builder = sys.argv[1], {"trees": lightgbm(trees=60, leaves=8, min_rows=3), "nets": SmallMLP}[sys.argv[2]]
teacher = taught(builder, at=folder + {"trees": "/t.txt", "nets": "/t.safetensors"}[sys.argv[2]], folds=3)

def slow(event):
    time.sleep(0.08 if sys.argv[2] == "trees" else 0.02)

while True:
    child = os.fork()
    if not child:
        teach(teacher, data, fit=fit(epochs=40, lr=0.01, batch=20, patience=40, threads=1), resume=True, listen=slow)
        os._exit(0)
    patience = 1 + kills / 10  # a busy machine gets on, too
    time.sleep(patience * (draw.uniform(0.02, 0.3) if sys.argv[2] == "trees" else draw.uniform(0.3, 1.8)))  # a net is kept once a second
    if os.waitpid(child, os.WNOHANG) == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    else:
        break
    if kills > 60:
        sys.exit("never came through")
print(kills)
"""


@pytest.mark.parametrize(("kind", "name"), [("trees", "t.txt"), ("nets", "t.safetensors")])
def test_killed_at_random_moments_it_goes_on_to_the_same_teacher(kind: str, name: str, tmp_path: Path) -> None:
    torn, whole = tmp_path / "torn", tmp_path / "whole"
    torn.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(torn), kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 2
    builder = lightgbm(trees=60, leaves=8, min_rows=3) if kind == "trees" else SmallMLP
    teacher = taught(builder, at=str(whole / name), folds=3)
    teach(teacher, small_table(400), fit=fit(epochs=40, lr=0.01, batch=20, patience=40, threads=1))
    files = {p.name: p.read_bytes() for p in whole.iterdir()}
    assert {p.name: p.read_bytes() for p in torn.iterdir() if not p.name.startswith(".")} == files
