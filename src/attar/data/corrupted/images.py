"""Corruptions of images, (B, C, H, W) uint8 → the same: what cameras, files and weather do to them.

After ImageNet-C, Hendrycks and Dietterich, ICLR 2019 (arXiv:1903.12261), with its constants where they do not depend on the size of the
image, and as shares of its sides where they do: its blur of 1 to 6 pixels is made for 224, and a third of a pixel with a share of the
side is near it there, and near CIFAR-10-C's 0.4 to 1 pixels at 32. Sums over pixels are of whole numbers, everything else is
elementwise, and each pixel is rounded once: so a row does not depend on its batch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from attar.data.augment import Maps, move
from attar.data.draws import normals, uniform, uniforms
from attar.identity import mix
from attar.signal import Schema

__all__ = ["KINDS", "changes"]

Change = Callable[[Tensor, np.ndarray, int], Tensor]

NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, as a share of the range from black to white
BLUR = (0.005, 0.01, 0.015, 0.02, 0.03)  # standard deviation: a third of a pixel, and such a share of the shorter side
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the brightest channel
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # what is left of the distance from the mean
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.75, 1.5), (3.0, 1.4))  # how thick (theirs is 2.5 twice), how fast finer structure fades
JPEG = (25, 18, 15, 10, 7)  # quality
PIXELATION = (0.6, 0.5, 0.4, 0.3, 0.25)  # resolution that is left, as a share
OCCLUSION = (0.2, 0.3, 0.4, 0.5, 0.6)  # side of the patch, as a share of the image's sides
ROTATION = (5.0, 10.0, 20.0, 30.0, 45.0)  # degrees

KINDS = {
    "noise": "Gaussian noise on each pixel",
    "blur": "a Gaussian blur",
    "brightness": "brighter",
    "contrast": "less contrast",
    "fog": "fog, a field of noise at all scales",
    "jpeg": "JPEG of low quality",
    "pixelation": "a coarser resolution",
    "occlusion": "a grey patch somewhere",
    "rotation": "a turn to one side",
}


def changes(schema: Schema) -> dict[str, Change | str]:
    """What does each kind to images of this schema; a text says why it cannot be done."""
    grey = np.floor(np.array(schema.pixel_mean) + 0.5).astype(np.uint8)
    found: dict[str, Change | str] = {
        "noise": noise,
        "blur": blur,
        "brightness": brightness,
        "contrast": contrast,
        "fog": fog,
        "jpeg": jpeg,
        "pixelation": pixelation,
        "occlusion": partial(occlusion, grey=grey),
        "rotation": rotation,
    }
    if find_spec("PIL") is None:
        found["jpeg"] = 'it needs Pillow: pip install "attar[images]"'
    return found


def noise(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """x + N(0, σ²), the same noise at every severity, scaled."""
    drawn = normals(keys, images[0].numel()).reshape(images.shape)
    return _rounded(images.numpy() + np.float32(255 * NOISE[severity - 1]) * drawn)


def blur(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """A Gaussian, cut at three standard deviations; beyond the edge the edge goes on."""
    del keys
    std = 1 / 3 + BLUR[severity - 1] * min(images.shape[-2:])
    reach = max(1, math.ceil(3 * std))
    weights = [math.exp(-0.5 * (k / std) ** 2) for k in range(-reach, reach + 1)]
    out = images.numpy().astype(np.float32)
    for axis in (2, 3):
        side, total = out.shape[axis], np.zeros_like(out)
        for k, weight in zip(range(-reach, reach + 1), weights, strict=True):
            at = np.clip(np.arange(side) + k, 0, side - 1)
            total += np.float32(weight / sum(weights)) * out.take(at, axis)
        out = total
    return _rounded(out)


def brightness(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """The value of HSV raised: the brightest channel grows by a constant, up to white, and the others in proportion."""
    del keys
    pixels = images.numpy().astype(np.float32)
    value = pixels.max(1, keepdims=True)
    raised = np.minimum(value + np.float32(255 * BRIGHTNESS[severity - 1]), 255)
    return _rounded(np.where(value > 0, pixels * (raised / np.maximum(value, 1)), raised))


def contrast(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """Each channel drawn towards its mean: (x − mean) · c + mean."""
    del keys
    pixels = images.numpy()
    mean = pixels.sum((2, 3), dtype=np.int64, keepdims=True) / np.prod(pixels.shape[2:])
    return _rounded((pixels - mean) * CONTRAST[severity - 1] + mean)


def fog(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """(x + c · fog) · max / (max + c), in shares of white. The fog is noise at octaves instead of the authors' diamond and square."""
    thick, fades = FOG[severity - 1]
    height, width = images.shape[-2:]
    field = np.zeros((len(images), height, width))
    for octave in range(max(1, int(math.log2(max(height, width)))) + 1):
        field += fades**-octave * _smooth(keys, octave, height, width)
    low, high = field.min((1, 2), keepdims=True), field.max((1, 2), keepdims=True)
    field = ((field - low) / np.maximum(high - low, 1e-12))[:, None]
    pixels = images.numpy() / 255
    most = pixels.max((1, 2, 3), keepdims=True)
    return _rounded(255 * (pixels + thick * field) * (most / (most + thick)))


def jpeg(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """Written as JPEG by Pillow, and read again."""
    del keys
    from PIL import Image

    out = np.empty(images.shape, dtype=np.uint8)
    for i, pixels in enumerate(images.numpy()):
        file = io.BytesIO()
        picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        picture.save(file, "JPEG", quality=JPEG[severity - 1])
        read = np.asarray(Image.open(file))
        out[i] = read if read.ndim == 2 else read.transpose(2, 0, 1)
    return torch.from_numpy(out)


def pixelation(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """Each cell of a coarser grid is its mean."""
    del keys
    sums, counts = images.numpy().astype(np.int64), np.ones((), dtype=np.int64)
    cells = []
    for axis in (2, 3):
        side = images.shape[axis]
        coarse = max(1, int(side * PIXELATION[severity - 1]))
        cell = np.arange(side) * coarse // side
        starts = np.searchsorted(cell, np.arange(coarse))
        sums = np.add.reduceat(sums, starts, axis)
        counts = np.multiply.outer(counts, np.bincount(cell))
        cells.append(cell)
    means = (2 * sums + counts) // (2 * counts)  # rounded to the nearest
    return torch.from_numpy(means[:, :, cells[0]][:, :, :, cells[1]].astype(np.uint8))


def occlusion(images: Tensor, keys: np.ndarray, severity: int, *, grey: np.ndarray) -> Tensor:
    """A patch of the training images' mean colour, somewhere; with severity it grows about one place. As Cutout, arXiv:1708.04552."""
    out = images.numpy().copy()
    inside = np.ones((len(out), 1, *out.shape[2:]), dtype=bool)
    for number, axis in ((0, 2), (1, 3)):
        side = out.shape[axis]
        middle = uniform(keys, number) * side
        off = np.abs(np.arange(side) + 0.5 - middle[:, None])  # (B, side)
        near = off <= OCCLUSION[severity - 1] * side / 2
        inside &= near[:, None, :, None] if axis == 2 else near[:, None, None, :]
    return torch.from_numpy(np.where(inside, grey[:, None, None], out))


def rotation(images: Tensor, keys: np.ndarray, severity: int) -> Tensor:
    """About the centre, to a side that is the row's own; bilinear, black comes in."""
    angle = math.radians(ROTATION[severity - 1])
    side = np.where(uniform(keys, 0) < 0.5, -1.0, 1.0)
    cos, sin, zero = np.full(len(side), math.cos(angle)), side * math.sin(angle), np.zeros(len(side))
    maps: Maps = (cos, -sin, sin, cos, zero, zero)
    return move(images, maps, whole=False)


def _smooth(keys: np.ndarray, octave: int, height: int, width: int) -> np.ndarray:
    """(B, H, W) in [0, 1]: draws on a grid of 2^octave cells each way, bilinear between."""
    cells = 2**octave
    with np.errstate(over="ignore"):
        own = mix(keys + np.uint64(octave))
    grid = uniforms(own, (cells + 1) ** 2).reshape(-1, cells + 1, cells + 1)
    y, x = ((np.arange(side) + 0.5) / side * cells for side in (height, width))
    top, left = y.astype(np.int64), x.astype(np.int64)
    v, u = (y - top)[:, None], x - left
    rows, below = grid[:, top], grid[:, top + 1]
    upper = rows[:, :, left] * (1 - u) + rows[:, :, left + 1] * u
    lower = below[:, :, left] * (1 - u) + below[:, :, left + 1] * u
    return upper * (1 - v) + lower * v


def _rounded(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.floor(np.clip(pixels, 0, 255) + 0.5).astype(np.uint8))
