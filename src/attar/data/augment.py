"""Augmentation of images, declared and replayable: a view of a row is a pure function of (id, view).

All draws come from a counter, `mix` of (id, view, place of the word in the list, number of the draw), so that the order of the
batches, their size and the number of workers change nothing, and a teacher's stored answer belongs to the very pixels that the
student will see. Every operation on pixels is elementwise and rounded once, for a matrix product may round otherwise in another
batch. View 0 is the image as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attar.data.draws import normals, uniform
from attar.errors import DataError
from attar.identity import mix
from attar.notation import say
from attar.signal import Inputs

__all__ = ["Augmentation", "Geometry", "Maps", "Pixels", "Views", "augmented", "crop", "flip", "move", "noise", "rotate", "shift"]

MEMO_BYTES = 512 << 20  # views are kept once computed where all of a split's fit into as much

Maps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Where a pixel of the view comes from, one number for each row: x' = a x + b y + e, y' = c x + d y + f, as (a, b, c, d, e, f).

x to the right and y downwards, in pixels from the image's centre.
"""


class Augmentation:
    """One word of an augmentation: `Geometry` moves pixels, `Pixels` changes them."""


class Geometry(Augmentation, ABC):
    """Moves pixels. Neighbours in the list become one mapping, so that pixels are interpolated once at most."""

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Whether pixels land on pixels, so that nothing is interpolated."""

    @abstractmethod
    def maps(self, draw: Callable[[int], np.ndarray], height: int, width: int) -> Maps:
        """The mapping of each row; `draw(i)` is its i-th number, (B,) float64 in [0, 1)."""


class Pixels(Augmentation, ABC):
    """Changes pixels where they are."""

    @abstractmethod
    def change(self, images: Tensor, keys: np.ndarray) -> Tensor:
        """(B, C, H, W) uint8 and (B,) uint64 keys to draw from → (B, C, H, W) uint8."""


def shift(pixels: int = 2) -> Augmentation:
    """Move the image by up to so many whole pixels each way, each offset equally likely; black comes in.

    >>> shift(pixels=3)
    shift(pixels=3)
    """
    _positive("shift", "pixels", pixels)
    return _Shift(int(pixels))


def crop(pixels: int = 4) -> Augmentation:
    """Cut a window `pixels` narrower and lower at a random place, and scale it back to the image's size.

    Unlike `shift`, nothing comes in from outside: choose it for photographs, shift for drawings on black.
    """
    _positive("crop", "pixels", pixels)
    return _Crop(int(pixels))


def flip(axis: Literal["horizontal", "vertical"] = "horizontal") -> Augmentation:
    """Mirror every second image: left to right, or top to bottom. Not for digits or letters."""
    if axis not in ("horizontal", "vertical"):
        raise DataError(f"flip(axis={axis!r})", hint='axis="horizontal" or axis="vertical"')
    return _Flip(axis)


def rotate(degrees: float = 10.0) -> Augmentation:
    """Turn about the centre by up to so many degrees either way; bilinear, black comes in."""
    _positive("rotate", "degrees", degrees)
    return _Rotate(float(degrees))


def noise(std: float = 0.05) -> Augmentation:
    """Add Gaussian noise to each pixel and channel; std as a share, 0..1, of the range from black to white."""
    if not 0 < std <= 1:
        raise DataError(f"noise(std={std:g}) is not a share of the range from black to white", hint="noise(std=0.05)")
    return _Noise(float(std))


def augmented(images: Tensor, ids: Tensor, views: Tensor, words: Sequence[Augmentation]) -> Tensor:
    """(B, C, H, W) uint8, (B,) ids, (B,) views → (B, C, H, W) uint8; rows of view 0 are as they were."""
    keys = mix(mix(ids.numpy().view(np.uint64)) ^ mix(views.numpy().view(np.uint64)))
    out, height, width = images, *images.shape[-2:]
    moving: list[Geometry] = []
    maps: Maps | None = None
    for place, word in enumerate(words):
        with np.errstate(over="ignore"):
            own = mix(keys + np.uint64(place))  # (B,)
        if isinstance(word, Geometry):
            new = word.maps(lambda i, own=own: uniform(own, i), height, width)
            maps = new if maps is None else _after(maps, new)
            moving.append(word)
            continue
        if maps is not None:
            out, maps, moving = move(out, maps, whole=all(w.whole for w in moving)), None, []
        assert isinstance(word, Pixels)
        out = word.change(out, own)
    if maps is not None:
        out = move(out, maps, whole=all(w.whole for w in moving))
    return torch.where((views == 0)[:, None, None, None], images, out)


@dataclass(eq=False)
class Views:
    """The views of a split's rows, kept once computed as long as all of them fit into memory.

    rows: positions → images as they are. count: views 1..count are asked for again and again; 0 keeps none.
    """

    rows: Callable[[Tensor], Inputs]
    words: Sequence[Augmentation]
    length: int
    count: int
    _kept: Tensor | None = None  # (length × (count + 1), C, H, W) uint8
    _there: Tensor | None = None  # (length × (count + 1),) bool

    def __call__(self, index: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """(B,) positions, ids and views → (B, C, H, W) uint8."""
        slots = index * (self.count + 1) + views
        low, high = views.aminmax()
        if low < 0:
            raise DataError(f"view {int(low)} was asked for", hint="views count from 0, the image as it is")
        if self._kept is None or self._there is None or high > self.count:
            out = augmented(self._images(index), ids, views, self.words)
            if self._kept is None and 0 < high <= self.count and out[0].numel() * self.length * (self.count + 1) <= MEMO_BYTES:
                self._kept = torch.empty(self.length * (self.count + 1), *out.shape[1:], dtype=torch.uint8)
                self._there = torch.zeros(len(self._kept), dtype=torch.bool)
            return out
        new = ~self._there.index_select(0, slots)
        if new.any():
            out = augmented(self._images(index[new]), ids[new], views[new], self.words)
            self._kept[slots[new]] = out
            self._there[slots[new]] = True
        return self._kept.index_select(0, slots)

    def _images(self, index: Tensor) -> Tensor:
        inputs = self.rows(index)
        assert isinstance(inputs, Tensor)  # images are one tensor
        return inputs


@dataclass(frozen=True)
class _Shift(Geometry):
    pixels: int

    def __repr__(self) -> str:
        return say("shift", pixels=self.pixels)

    @property
    def whole(self) -> bool:
        return True

    def maps(self, draw: Callable[[int], np.ndarray], height: int, width: int) -> Maps:
        x, y = (np.floor(draw(i) * (2 * self.pixels + 1)) - self.pixels for i in (0, 1))
        one, zero = np.ones_like(x), np.zeros_like(x)
        return one, zero, zero, one, x, y


@dataclass(frozen=True)
class _Crop(Geometry):
    pixels: int

    def __repr__(self) -> str:
        return say("crop", pixels=self.pixels)

    @property
    def whole(self) -> bool:
        return False

    def maps(self, draw: Callable[[int], np.ndarray], height: int, width: int) -> Maps:
        if self.pixels >= min(height, width):
            raise DataError(f"crop(pixels={self.pixels}) leaves nothing of {height} × {width} pixels", hint="fewer pixels")
        zero = np.zeros_like(draw(0))
        # Corner pixels of the view are corner pixels of the window.
        a, d = (zero + (side - 1 - self.pixels) / max(1, side - 1) for side in (width, height))
        x, y = ((draw(i) - 0.5) * self.pixels for i in (0, 1))
        return a, zero, zero, d, x, y


@dataclass(frozen=True)
class _Flip(Geometry):
    axis: Literal["horizontal", "vertical"]

    def __repr__(self) -> str:
        return say("flip", axis=self.axis)

    @property
    def whole(self) -> bool:
        return True

    def maps(self, draw: Callable[[int], np.ndarray], height: int, width: int) -> Maps:
        sign = np.where(draw(0) < 0.5, -1.0, 1.0)
        one, zero = np.ones_like(sign), np.zeros_like(sign)
        return (sign, zero, zero, one, zero, zero) if self.axis == "horizontal" else (one, zero, zero, sign, zero, zero)


@dataclass(frozen=True)
class _Rotate(Geometry):
    degrees: float

    def __repr__(self) -> str:
        return say("rotate", degrees=self.degrees)

    @property
    def whole(self) -> bool:
        return False

    def maps(self, draw: Callable[[int], np.ndarray], height: int, width: int) -> Maps:
        angles = ((2 * draw(0) - 1) * math.radians(self.degrees)).tolist()
        # math, not numpy: a vectorised sine may differ in its last bit with the place in the vector.
        cos, sin = np.array([math.cos(a) for a in angles]), np.array([math.sin(a) for a in angles])
        zero = np.zeros_like(cos)
        return cos, -sin, sin, cos, zero, zero


@dataclass(frozen=True)
class _Noise(Pixels):
    std: float

    def __repr__(self) -> str:
        return say("noise", std=self.std)

    def change(self, images: Tensor, keys: np.ndarray) -> Tensor:
        picked = normals(keys, images[0].numel()).reshape(images.shape)
        out = images.numpy() + np.float32(255 * self.std) * picked
        return torch.from_numpy(np.floor(np.clip(out, 0, 255) + np.float32(0.5)).astype(np.uint8))


def _after(first: Maps, then: Maps) -> Maps:
    """`first`, and `then` on its result, as one mapping: a pixel of the view is looked up through `then`, then through `first`."""
    a, b, c, d, e, f = first
    A, B, C, D, E, F = then
    return a * A + b * C, a * B + b * D, c * A + d * C, c * B + d * D, a * E + b * F + e, c * E + d * F + f


def move(images: Tensor, maps: Maps, *, whole: bool) -> Tensor:
    """(B, C, H, W) uint8 → the same through one mapping for each row; black outside."""
    count, channels, height, width = images.shape
    a, b, c, d, e, f = (torch.from_numpy(m).float()[:, None, None] for m in maps)  # (B, 1, 1)
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2  # (W,)
    y = (torch.arange(height, dtype=torch.float32) - (height - 1) / 2)[:, None]  # (H, 1)
    column, row = a * x, d * y  # (B, 1, W), (B, H, 1): they stay so small unless something turns
    if b.any() or c.any():
        column, row = column + b * y, row + c * x  # (B, H, W)
    # Clamped to one black pixel around the image, which is where everything outside comes from.
    column = (column + e + (width - 1) / 2).clamp_(-1, width)
    row = (row + f + (height - 1) / 2).clamp_(-1, height)
    stride = width + 3  # one black pixel before, two behind: column `width` has a neighbour too
    framed = images.new_zeros(count, channels, height + 3, stride)
    framed[:, :, 1 : height + 1, 1 : width + 1] = images
    framed = framed.flatten(2)

    def pick(at: Tensor) -> Tensor:
        return framed.gather(2, at.reshape(count, 1, -1).expand(-1, channels, -1)).reshape(images.shape)

    if whole:
        return pick((row.round().long() + 1) * stride + column.round().long() + 1)
    left, top = column.floor(), row.floor()
    u, v = (column - left)[:, None], (row - top)[:, None]  # (B, 1, …), as far as they go
    at = (top.long() + 1) * stride + left.long() + 1
    upper = pick(at) * (1 - u) + pick(at + 1) * u
    lower = pick(at + stride) * (1 - u) + pick(at + stride + 1) * u
    return (upper * (1 - v) + lower * v + 0.5).floor_().clamp_(0, 255).to(torch.uint8)


def _positive(word: str, name: str, value: int | float) -> None:
    if not value > 0:
        raise DataError(f"{word}({name}={value:g}) changes nothing", hint=f"{name} above 0")
