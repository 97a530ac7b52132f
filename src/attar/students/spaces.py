"""Which students suit which data, and over which sizes a search tries each of them where nothing else is said."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NoReturn

from attar.errors import StudentError
from attar.notation import say
from attar.signal import Schema

__all__ = ["RATES", "Auto", "Encoded", "auto", "rates", "spaces"]

Family = Literal["cnn", "forest", "lightgbm", "mlp", "ngrams", "shrink", "static_embedding", "timm"]

# Learning rates worth trying, by word. Nets that begin at random: `fit` tells what was measured of 1e-3 to 8e-3. Those that begin from
# weights want less (`hf` and `timm`), bags of words more (`ngrams`, `static_embedding`). Trees have a rate of their own.
RATES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "mlp": (1e-3, 2e-2),
        "cnn": (1e-3, 2e-2),
        "timm": (5e-4, 1e-2),
        "torchvision": (5e-4, 1e-2),
        "hf": (5e-5, 1e-3),
        "shrink": (5e-5, 1e-3),
        "static_embedding": (2e-3, 2e-2),
        "ngrams": (5e-3, 5e-2),
    }
)
BACKBONES = ("lcnet_035", "lcnet_050", "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_small_100")  # 0.5 to 2.5 M weights
LARGE = 64  # pixels of the shorter side, from which backbones are tried: their last map is 32 times smaller


@dataclass(frozen=True)
class Encoded:
    """The encoder that a student of texts may begin from: how a recipe writes it, and how many layers and channels it has."""

    text: str
    layers: int
    width: int


@dataclass(frozen=True, repr=False)
class Auto:
    """See `auto`. It is a space, and builds nothing: a search settles it by `spaces`."""

    families: tuple[Family, ...] = ()

    def __repr__(self) -> str:
        return say("auto", *self.families)

    def __call__(self, schema: Schema, seed: int) -> NoReturn:
        raise StudentError(f"{self!r} is a space, of which a search takes one value", hint="attar search chooses; mlp() names a student")


def auto(*families: Family) -> Auto:
    """The students that suit the data, each over its sizes: what a search chooses from where nothing else is said.

    families: these alone, such as auto("mlp"); left out, those that suit.

    Of tables and tensors `mlp(width=integer(8, 128, log=True), depth=integer(1, 4))` and `lightgbm(trees=integer(10, 300, log=True),
    leaves=integer(3, 31, log=True))`, or `forest` where LightGBM is not installed. Of images `cnn(width=integer(4, 64, log=True),
    depth=integer(2, 5))`, less deep where they are small, and from 64 pixels on the smallest backbones of `timm`, where it is installed.
    Of texts `ngrams`, and where the teacher begins from a folder `shrink` and `static_embedding` of the same one, the latter not where
    vectors are asked: that wants an objective such as `similarity_kl`.

    Raises StudentError for a family that cannot read the data, and where none can.

    >>> auto("mlp", "lightgbm")
    auto("mlp", "lightgbm")
    """
    return Auto(families)


def spaces(schema: Schema, encoder: Encoded | None = None, families: Collection[Family] = ()) -> dict[str, str]:
    """The text of each family's space, by its word, of those that suit the data.

    encoder: what students of texts may begin from. families: these alone, whether one would try them by itself or not.
    Raises StudentError for a family that cannot read the data, and where none can.

    >>> spaces(Schema("images", shape=(1, 28, 28), classes=("a", "b")))
    {'cnn': 'cnn(width=integer(4, 64, log=True), depth=integer(2, 3))'}
    """
    able = _able(schema, encoder)
    if unfit := next((f for f in families if f not in able), None):
        what = "without a folder that the teacher begins from" if unfit in ("shrink", "static_embedding") else f"of {_data(schema)}"
        known = f"{', '.join(able)} can" if able else "name a student"
        raise StudentError(f"auto({unfit!r}): there is no such student {what}", hint=known)
    chosen = families or [f for f in able if _suits(f, schema)]
    if not chosen:
        raise StudentError(f"auto(): no student is known of {_data(schema)}", hint="name one: student: static_embedding(hf(folder))")
    return {family: able[family] for family in able if family in chosen}


def rates(words: Collection[str]) -> tuple[float, float] | None:
    """The learning rates, from and to, that suit students written with these words; None where none has one, as trees.

    >>> rates(["mlp", "lightgbm"]), rates(["forest"])
    ((0.001, 0.02), None)
    """
    named = set(words) - ({"hf"} if {"shrink", "static_embedding"} & set(words) else set())  # their encoder is only where they begin
    found = [RATES[word] for word in named if word in RATES]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _able(schema: Schema, encoder: Encoded | None) -> dict[str, str]:
    """The space of every family that can read such data."""
    if schema.kind == "text":
        return _of_texts(schema, encoder)
    found = {"mlp": "mlp(width=integer(8, 128, log=True), depth=integer(1, 4))"}
    if len(schema.shape) == 3:
        side = min(schema.shape[1:])
        deepest = max(2, min(5, int(math.log2(side)) - 1)) if side > 1 else 1  # the last map is 2 × 2 or more
        depth = f"integer(2, {deepest})" if deepest > 2 else str(deepest)
        found["cnn"] = f"cnn(width=integer(4, 64, log=True), depth={depth})"
    if schema.kind == "images":
        names = ", ".join(f'"{name}"' for name in BACKBONES)
        found["timm"] = f"timm(choice({names}){_sizes(min(schema.shape[1:]))})"
    else:
        found["lightgbm"] = "lightgbm(trees=integer(10, 300, log=True), leaves=integer(3, 31, log=True))"
        found["forest"] = "forest(trees=integer(1, 30, log=True), depth=integer(3, 10))"
    return found


def _of_texts(schema: Schema, encoder: Encoded | None) -> dict[str, str]:
    found: dict[str, str] = {}
    if not schema.embeds:
        found["ngrams"] = "ngrams(buckets=choice(16384, 65536, 262144), words=integer(1, 2))"
    if encoder is not None:
        widths = [n for n in (64, 128, 256) if n <= encoder.width] or [encoder.width]
        head = "" if schema.embeds else ", hidden=choice(0, 64)"
        found["static_embedding"] = f"static_embedding({encoder.text}, dimensions={_one_of(widths)}{head})"
        layers = f"integer(1, {encoder.layers - 1})" if encoder.layers > 2 else "1"
        width = "" if schema.embeds or encoder.width < 4 else f", width=choice({encoder.width // 2}, {encoder.width})"
        found["shrink"] = f"shrink({encoder.text}, layers={layers}{width})"
    return found


def _sizes(side: int) -> str:
    """Of the pixels that a backbone reads: those that make no image larger; nothing where that is none."""
    smaller = [n for n in (64, 96, 128, 224) if n < side]
    return f", size={_one_of(smaller)}" if smaller else ""


def _one_of(numbers: list[int]) -> str:
    return f"choice({', '.join(map(str, numbers))})" if len(numbers) > 1 else str(numbers[0])


def _suits(family: str, schema: Schema) -> bool:
    """Whether one would try this family by itself."""
    images = len(schema.shape) == 3
    match family:
        case "mlp":
            return not images
        case "timm":
            return min(schema.shape[1:]) >= LARGE and _installed("timm")
        case "lightgbm":
            return not images and _installed("lightgbm")
        case "forest":
            return not images and not _installed("lightgbm") and _installed("sklearn")
        case "static_embedding":
            return not schema.embeds  # the default objective of vectors compares coordinates, of which these have fewer
        case _:
            return True


def _installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _data(schema: Schema) -> str:
    what = {"table": "a table", "images": "images", "tensor": "tensors", "text": "texts"}[schema.kind]
    return f"{what} that are to become vectors" if schema.embeds else what
