from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attar.errors import DiskFull
from attar.files import append_line, explain_disk, free_bytes, need_space, replacing, write_atomic, write_json


def test_an_error_while_writing_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folders_are_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x" / "y" / "a.txt", b"\x00")
    assert (tmp_path / "x" / "y" / "a.txt").read_bytes() == b"\x00"


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert not (tmp_path / "a.json").exists()


def test_lines_are_appended(tmp_path: Path) -> None:
    for i in range(3):
        append_line(tmp_path / "a.jsonl", json.dumps({"i": i}))
    assert [json.loads(line)["i"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [0, 1, 2]


def test_a_full_disk_is_explained_and_other_errors_are_not_touched(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="the disk is full while writing"), explain_disk(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), explain_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_need_of_space_is_told_before_work_starts(tmp_path: Path) -> None:
    need_space(tmp_path / "not" / "yet" / "there", 1, "a byte")
    with pytest.raises(DiskFull, match="the answers needs .* MB"):
        need_space(tmp_path, free_bytes(tmp_path) * 2, "the answers")


def test_a_kill_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    """A child rewrites a file for as long as it lives; whenever it is killed, what is there is whole."""
    path = tmp_path / "a.json"
    code = (
        "import sys, itertools\nfrom attar.files import write_json\n"
        "for i in itertools.count():\n    write_json(sys.argv[1], {'i': i, 'same': [i] * 2000})\n"
    )
    for delay in (0.05, 0.11, 0.23):
        child = subprocess.Popen([sys.executable, "-c", code, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        value = json.loads(path.read_text())
        assert value["same"] == [value["i"]] * 2000
