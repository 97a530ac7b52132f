"""Rows of data on the page, and only where they are asked for: pictures, texts and columns of the rows that students lose."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attar.certificate import Certificate
from attar.certificate.harm import EXAMPLES, Example
from attar.data import Split
from attar.errors import EvidenceError
from attar.signal import Inputs, Schema, Texts

__all__ = ["Shown", "check_rows", "png", "shown"]

SIDE = 128  # pixels of a picture at most; a larger one is thinned
LETTERS = 600  # of a text


@dataclass(frozen=True)
class Shown:
    """One row: what was decided, and its content. picture: a data URI, "" for none. parts: (name, text) of texts or columns."""

    example: Example
    picture: str
    parts: tuple[tuple[str, str], ...]


def shown(c: Certificate, split: Split, count: int) -> list[Shown]:
    """The first `count` of the certificate's rows that differ, with what they hold."""
    pies = c.harm.pies if c.harm is not None else None
    if pies is None or count < 1:
        return []
    place = {id_: at for at, id_ in reversed(list(enumerate(split.ids.tolist())))}
    found = []
    for example in pies.examples[:count]:
        inputs = split.rows(torch.tensor([place[example.id]]))
        found.append(Shown(example, _picture(inputs, split.schema), tuple(_parts(inputs, split.schema))))
    return found


def check_rows(count: int) -> None:
    """Raise EvidenceError for a number of rows that the page cannot show."""
    if not 0 <= count <= EXAMPLES:
        raise EvidenceError(f"show_rows={count}", hint=f"how many rows the page shows, 0 to {EXAMPLES}")


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of (1 or 3, H, W) uint8: grey or colour, 8 bits. ISO/IEC 15948."""
    channels, height, width = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.transpose(1, 2, 0).reshape(height, -1)], axis=1)  # no filter

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b"")


def _picture(inputs: Inputs, schema: Schema) -> str:
    if schema.kind != "images" or not isinstance(inputs, Tensor):
        return ""
    pixels = inputs[0]
    step = math.ceil(max(pixels.shape[1:]) / SIDE)
    return "data:image/png;base64," + base64.b64encode(png(pixels[:, ::step, ::step].contiguous().numpy())).decode()


def _parts(inputs: Inputs, schema: Schema) -> list[tuple[str, str]]:
    if not isinstance(inputs, Mapping):
        return [] if schema.kind == "images" else [("row", f"{' × '.join(map(str, schema.shape))} numbers, not shown")]
    if schema.kind == "text":
        blocks = [(name, inputs[name]) for name in schema.texts]
        return [(name, _cut(block[0])) for name, block in blocks if isinstance(block, Texts)]
    numbers, codes = iter(_values(inputs.get("numbers"))), iter(_values(inputs.get("categories")))
    parts = []
    for column in schema.columns:
        if column.kind == "category":
            code = int(next(codes))
            parts.append((column.name, column.categories[code - 1] if code else "missing or unknown"))
        else:
            value = next(numbers)
            said = "missing" if math.isnan(value) else ("no", "yes")[int(value)] if column.kind == "boolean" else f"{value:.6g}"
            parts.append((column.name, said))
    return [(name, _cut(text)) for name, text in parts]


def _values(block: Tensor | Texts | None) -> list[float]:
    return block[0].tolist() if isinstance(block, Tensor) else []


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
