"""Files that a kill at any moment leaves either old or new, never half."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attar.errors import DiskFull

__all__ = ["append_line", "explain_disk", "free_bytes", "need_space", "replacing", "write_atomic", "write_json"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on leaving it is synced and renamed over `path`.

    If the block raises, the temporary file is removed and `path` is untouched. Raises DiskFull where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_disk(path):
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write `content` to a temporary name, sync it, rename it to `path`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, value: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """`write_atomic` of `value` as indented JSON; NaN and infinity are refused, for they are not JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=default) + "\n")


def append_line(path: str | Path, line: str) -> None:
    """Append one line and sync; a kill may leave one torn last line, which readers of JSONL must skip."""
    with explain_disk(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def free_bytes(path: str | Path) -> int:
    """Bytes free on the disk that holds `path` or its nearest existing parent."""
    folder = Path(path).resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def need_space(path: str | Path, need: int, what: str) -> None:
    """Raise DiskFull before work starts if `need` bytes for `what` do not fit beside `path`."""
    if (free := free_bytes(path)) < need:
        raise DiskFull(
            f"{what} needs {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free at {path}",
            hint="free some space, or choose another folder with --out",
        )


@contextmanager
def explain_disk(path: str | Path) -> Iterator[None]:
    """Turn `No space left on device` into DiskFull, which says where."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"the disk is full while writing {path}",
                hint="what was complete is kept; free some space and start again with --resume",
            ) from error
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
