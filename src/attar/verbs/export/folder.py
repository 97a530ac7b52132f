"""A folder that appears whole or not at all, whatever is killed meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attar.errors import RunError
from attar.reading.text import TOKENIZER
from attar.sources.onnx import MANIFEST

__all__ = ["FLOAT", "INT8", "claim", "replacing", "write"]

FLOAT, INT8 = "student.onnx", "student.int8.onnx"


def claim(at: Path) -> None:
    """Refuse a place that holds anything but an exported folder; clear away what a killed export left beside it."""
    if at.exists() and not at.is_dir():
        raise RunError(f"{at} is a file, not a folder", hint="choose another place")
    if at.is_dir() and (other := sorted(p.name for p in at.iterdir() if p.name not in (FLOAT, INT8, MANIFEST, TOKENIZER))):
        raise RunError(f"{at} holds other things: {', '.join(other[:5])}", hint="export replaces its folder whole: choose an empty place")
    for left in at.parent.glob(f".{at.name}.*.old"):
        if not at.exists() and not _alive(left):
            os.rename(left, at)  # killed between two renames: what was there before is put back
    for left in (*at.parent.glob(f".{at.name}.*.tmp"), *at.parent.glob(f".{at.name}.*.old")):
        if not _alive(left):
            shutil.rmtree(left)


def _alive(left: Path) -> bool:
    """Whether the process that a temporary name carries is still there."""
    pid = left.name.split(".")[-2]
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


@contextmanager
def replacing(at: Path) -> Iterator[Path]:
    """A temporary folder beside `at`; on leaving it is synced and takes the place of `at`. Removed if the block raises."""
    at.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (at.with_name(f".{at.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    temporary.mkdir()
    try:
        yield temporary
        _sync(temporary)
        if at.exists():
            os.rename(at, old)
        os.rename(temporary, at)
        _sync(at.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
