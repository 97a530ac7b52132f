"""Files of boosted trees: what they hold, and whether they are whole, found out before their libraries see them."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

from attar.errors import MissingExtra, TeacherError
from attar.notation import located

__all__ = ["blocks_of", "bytes_of", "fault_of", "head_of", "load_lightgbm", "text_of_file", "whole"]


def head_of(text: str) -> dict[str, str]:
    """The lines before the first tree of a LightGBM file, by name."""
    lines = text.split("\nTree=", 1)[0].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def blocks_of(text: str) -> list[str]:
    """A LightGBM file without its tail → its head, and each tree."""
    return re.split(r"(?m)^(?=Tree=\d+$)", text.split("\nend of trees", 1)[0] + "\n")


def fault_of(text: str, head: dict[str, str]) -> str:
    """What is wrong with a LightGBM file, "" if nothing: LightGBM itself does not refuse a torn file, it ends the whole process."""
    if "\nend of trees\n" not in text:
        return "it ends before its last tree"
    if lacking := [
        k for k in ("num_class", "num_tree_per_iteration", "max_feature_idx", "feature_names", "feature_infos") if k not in head
    ]:
        return f"no {lacking[0]}"
    features = int(head["max_feature_idx"]) + 1 if head["max_feature_idx"].isdigit() else -1
    if not len(head["feature_names"].split(" ")) == len(head["feature_infos"].split(" ")) == features:
        return "its features are not as many as it says"
    trees = blocks_of(text)[1:]
    if "tree_sizes" in head and [str(len(t.encode())) for t in trees] != head["tree_sizes"].split():
        return "its trees are not as long as it says"
    for number, tree in enumerate(trees):
        part = dict(line.split("=", 1) for line in tree.splitlines() if "=" in line)
        try:
            leaves = int(part["num_leaves"])
            children = [int(c) for side in ("left_child", "right_child") for c in part[side].split()]
            splits = [int(f) for f in part["split_feature"].split()]
            values, thresholds = part["leaf_value"].split(), part["threshold"].split()
        except (KeyError, ValueError) as error:
            return f"tree {number}: {error}"
        sound = len(values) == leaves and len(thresholds) == len(splits) == leaves - 1 and len(children) == 2 * (leaves - 1)
        if not sound or not all(-leaves <= c < leaves - 1 for c in children) or not all(0 <= f < features for f in splits):
            return f"tree {number} is not as large as it says"
    return ""


def whole(content: bytes) -> bool:
    """Whether JSON or UBJ ends where it says. XGBoost itself does not refuse a torn UBJ file: it asks for memory without end."""
    if content[1:2].isspace() or content[1:2] in b'"}':
        try:
            json.loads(content)
        except (ValueError, RecursionError):
            return False
        return True
    try:
        return _skip(content, 0) == len(content)
    except (IndexError, struct.error, RecursionError):
        return False


_WIDTH = {b"i": 1, b"U": 1, b"C": 1, b"I": 2, b"l": 4, b"d": 4, b"L": 8, b"D": 8, b"Z": 0, b"N": 0, b"T": 0, b"F": 0}
_WHOLE = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}


def _skip(content: bytes, at: int, kind: bytes = b"") -> int:
    """Where the UBJ value that begins at `at` ends; kind: its marker, where a typed array has said it. Raises IndexError if nowhere."""

    def number(at: int) -> tuple[int, int]:
        layout = _WHOLE.get(content[at : at + 1])
        if layout is None:
            raise IndexError(at)
        (value,) = struct.unpack_from(layout, content, at + 1)
        if value < 0:
            raise IndexError(at)
        return value, at + 1 + struct.calcsize(layout)

    if not kind:
        kind, at = content[at : at + 1], at + 1
    if kind in _WIDTH:
        end = at + _WIDTH[kind]
    elif kind == b"S":
        length, at = number(at)
        end = at + length
    elif kind in (b"[", b"{"):
        inner, count = b"", None
        if content[at : at + 1] == b"$":
            inner, at = content[at + 1 : at + 2], at + 2
        if content[at : at + 1] == b"#":
            count, at = number(at + 1)
        if count is not None and inner in _WIDTH and kind == b"[":
            end = at + count * _WIDTH[inner]
        else:
            close = b"]" if kind == b"[" else b"}"
            while content[at : at + 1] != close if count is None else count > 0:
                if kind == b"{":
                    length, at = number(at)
                    at += length
                at = _skip(content, at, inner)
                count = None if count is None else count - 1
            end = at + (count is None)
    else:
        raise IndexError(at)
    if end > len(content):
        raise IndexError(at)
    return end


def text_of_file(path: str, start: str, kind: str, hint: str) -> str:
    content = bytes_of(path)
    if not content.startswith(start.encode()):
        raise TeacherError(f"{path} is not a {kind} text file", hint=hint)
    return content.decode("utf-8", errors="replace")


def bytes_of(path: str) -> bytes:
    try:
        return located(path).read_bytes()
    except FileNotFoundError:
        raise TeacherError(f"no file {path}", hint="paths in a recipe are relative to the recipe's folder") from None
    except IsADirectoryError:
        raise TeacherError(f"{path} is a folder", hint="name the file in it") from None


def load_lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra("lightgbm", "trees") from None
    return lightgbm
