"""Corruptions: each is the formula it says, grows with severity, needs what it needs, and refuses in plain words."""

from __future__ import annotations

import colorsys
import difflib
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from attar.data import Data, arrays, corruptions, munge
from attar.data.corrupted import KINDS, SEVERITIES, images, tables, texts
from attar.errors import DataError
from attar.notation import read
from attar.signal import Texts
from attar.testing.small import small_images, small_table
from attar.testing.texts import small_pairs, small_texts


def colours(count: int = 40, channels: int = 3) -> Data:
    """Smooth pictures in three colours, which are not square."""
    rng = np.random.default_rng(0)
    pixels = ndimage.gaussian_filter(rng.normal(size=(count, channels, 17, 23)), (0, 0, 2, 2)) * 600 + 128
    return arrays(np.clip(pixels, 0, 255).astype(np.uint8), np.arange(count) % 2).read()


def signals() -> Data:
    rng = np.random.default_rng(0)
    return arrays(rng.normal(size=(200, 2, 30)) * np.linspace(1, 9, 30), np.arange(200) % 2).read()


def under(data: Data, kind: str, severity: int) -> tuple[object, object]:
    """The test rows as they are, and corrupted."""
    corrupted = corruptions(kinds=[kind]).of(data).split(data.test, kind, severity)
    every = torch.arange(len(data.test))
    return data.test.batch(every).inputs, corrupted.batch(every).inputs


def pixels(data: Data, kind: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = under(data, kind, severity)
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    return a.numpy(), b.numpy()


def blocks(data: Data, kind: str, severity: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    a, b = under(data, kind, severity)
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    return {n: v.numpy() for n, v in a.items()}, {n: v.numpy() for n, v in b.items()}


def written(data: Data, kind: str, severity: int, name: str = "text") -> tuple[list[str], list[str]]:
    a, b = under(data, kind, severity)
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    return a[name].tolist(), b[name].tolist()


def distance(data: Data, kind: str, severity: int) -> float:
    """How far from the clean rows: of texts by what a comparison finds in common, else by squares, or by the share of cells."""
    a, b = under(data, kind, severity)
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return float(((a.double() - b.double()) ** 2).mean())
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    if isinstance(next(iter(a.values())), Texts):
        pairs = [(x, y) for name in a for x, y in zip(a[name], b[name], strict=True) if x]
        return 1 - float(np.mean([difflib.SequenceMatcher(None, x, y, autojunk=False).ratio() for x, y in pairs]))
    spread = np.array([c.std for c in data.schema.numbers])
    x, y = (block["numbers"].double().numpy() / spread for block in (a, b))
    lost = np.isnan(y) & ~np.isnan(x)
    far = np.where(lost, 1.0, np.arctan(np.nan_to_num(np.abs(x - y)))).mean()
    return float(far) + float((a["categories"] != b["categories"]).double().mean())


MODALITIES = {"images": colours, "grey": lambda: colours(channels=1), "table": small_table, "text": small_texts, "tensor": signals}


@pytest.mark.parametrize("modality", MODALITIES)
def test_rows_are_farther_from_the_clean_ones_at_every_severity(modality: str) -> None:
    data = MODALITIES[modality]()
    for kind in KINDS[data.schema.kind]:
        far = [0.0, *(distance(data, kind, severity) for severity in SEVERITIES)]
        assert all(a < b for a, b in pairwise(far)), f"{kind}: {far}"


def test_blur_is_a_gaussian_of_a_share_of_the_shorter_side() -> None:
    data = colours()
    for severity in (1, 3, 5):
        clean, found = pixels(data, "blur", severity)
        std = 1 / 3 + images.BLUR[severity - 1] * 17
        reach = max(1, int(np.ceil(3 * std)))
        there = ndimage.gaussian_filter(clean.astype(float), (0, 0, std, std), mode="nearest", radius=(0, 0, reach, reach))
        assert np.abs(found - there).max() <= 0.5 + 1e-3


def test_noise_is_normal_and_of_the_size_it_says() -> None:
    grey = arrays(np.full((60, 30, 30), 98, dtype=np.uint8) + np.arange(60, dtype=np.uint8)[:, None, None], np.arange(60) % 2).read()
    clean, found = pixels(grey, "noise", 1)
    drawn = (found.astype(float) - clean).ravel() / 255
    assert drawn.std() == pytest.approx(images.NOISE[0], rel=0.03)
    assert abs(drawn.mean()) < 4 * images.NOISE[0] / np.sqrt(drawn.size)
    assert stats.kstest(drawn + np.random.default_rng(0).uniform(-0.5, 0.5, drawn.size) / 255, "norm", (0, images.NOISE[0])).pvalue > 1e-3


def test_brightness_raises_the_value_and_keeps_hue_and_saturation() -> None:
    clean, found = pixels(colours(), "brightness", 2)
    for x, y in zip(clean[:3].transpose(0, 2, 3, 1).reshape(-1, 3), found[:3].transpose(0, 2, 3, 1).reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(x / 255))
        there = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + images.BRIGHTNESS[1]))) * 255
        assert np.abs(there - y).max() <= 0.5 + 1e-3


def test_contrast_draws_each_channel_to_its_mean() -> None:
    clean, found = pixels(colours(), "contrast", 3)
    mean = clean.mean((2, 3), keepdims=True)
    assert np.abs(found - ((clean - mean) * images.CONTRAST[2] + mean)).max() <= 0.5 + 1e-6


def test_fog_is_a_field_of_its_own_for_each_row_and_fits_between_black_and_the_brightest() -> None:
    data = colours()
    clean, found = pixels(data, "fog", 3)
    most = clean.reshape(len(clean), -1).max(1)
    assert (found.reshape(len(found), -1).max(1) <= most).all()
    thick = images.FOG[2][0]
    field = (found / 255 * (most[:, None, None, None] / 255 + thick) / (most[:, None, None, None] / 255) - clean / 255) / thick
    assert np.abs(field[:, 0] - field[:, 1]).max() < 0.02  # the same in every channel
    assert field.min() > -0.02
    assert field.max() < 1.02
    assert np.corrcoef(field[0, 0].ravel(), field[1, 0].ravel())[0, 1] < 0.9
    assert np.corrcoef(field[0, 0, :, :-1].ravel(), field[0, 0, :, 1:].ravel())[0, 1] > 0.5  # neighbours are alike, as in a cloud


def test_pixelation_gives_each_cell_its_mean() -> None:
    clean, found = pixels(colours(), "pixelation", 4)
    high, wide = int(17 * images.PIXELATION[3]), int(23 * images.PIXELATION[3])
    for y in range(17):
        for x in range(23):
            ys = [j for j in range(17) if j * high // 17 == y * high // 17]
            xs = [i for i in range(23) if i * wide // 23 == x * wide // 23]
            assert np.abs(found[:, :, y, x] - clean[:, :, ys][:, :, :, xs].mean((2, 3))).max() <= 0.5


def test_occlusion_is_one_grey_patch_that_grows() -> None:
    data = colours()
    grey = np.floor(np.array(data.schema.pixel_mean) + 0.5)
    before: np.ndarray = np.zeros(0, dtype=bool)
    for severity in SEVERITIES:
        clean, found = pixels(data, "occlusion", severity)
        hidden = (found != clean).any(1)
        assert (found.transpose(0, 2, 3, 1)[hidden] == grey).all()
        assert not before.size or (hidden | ~before).mean() > 0.99  # but for pixels that are that grey by chance
        before = hidden


def test_rotation_turns_each_row_to_its_own_side() -> None:
    data = small_images(120)
    clean, found = pixels(data, "rotation", 5)
    sides = set()
    for x, y in zip(clean[:, 0].astype(float), found[:, 0].astype(float), strict=True):
        turned = {side: ndimage.rotate(x, side * 45, reshape=False, order=1, mode="grid-constant") for side in (-1, 1)}
        off = {side: np.abs(there - y).max() for side, there in turned.items()}
        best = min(off, key=off.__getitem__)
        assert off[best] <= 1.0
        sides.add(best)
    assert sides == {-1, 1}


def test_jpeg_is_what_pillow_makes_of_it() -> None:
    clean, found = pixels(small_images(40), "jpeg", 3)
    import io

    for x, y in zip(clean[:, 0], found[:, 0], strict=True):
        file = io.BytesIO()
        Image.fromarray(x).save(file, "JPEG", quality=images.JPEG[2])
        assert np.array_equal(np.asarray(Image.open(file)), y)


def test_without_pillow_jpeg_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.data.corrupted.images.find_spec", lambda name: None)
    found = corruptions().of(small_images(40))
    assert "jpeg" not in found.changes
    assert "pip install" in found.left_out["jpeg"]
    with pytest.raises(DataError, match="none of the corruptions can be done to these data: jpeg: it needs Pillow"):
        corruptions(kinds=["jpeg"]).of(small_images(40))


def test_missing_values_are_nan_and_code_0_in_the_share_of_cells_it_says() -> None:
    clean, found = blocks(small_table(4000), "missing", 3)
    there = ~np.isnan(clean["numbers"])
    assert np.isnan(found["numbers"][there]).mean() == pytest.approx(tables.MISSING[2], abs=0.03)
    assert np.array_equal(found["numbers"][~np.isnan(found["numbers"])], clean["numbers"][~np.isnan(found["numbers"])])
    known = clean["categories"] > 0
    assert (found["categories"][known] == 0).mean() == pytest.approx(tables.MISSING[2], abs=0.03)


def test_quantile_noise_moves_by_ranks_among_the_training_values() -> None:
    data = small_table(2000)
    clean, found = blocks(data, "quantile_noise", 4)
    train = data.train.rows(torch.arange(len(data.train)))
    assert isinstance(train, dict)
    for j, column in enumerate(data.schema.numbers):
        known = train["numbers"][:, j].numpy()
        known = known[~np.isnan(known)]
        x, y = clean["numbers"][:, j], found["numbers"][:, j]
        assert np.array_equal(np.isnan(x), np.isnan(y))
        if column.kind == "boolean":
            assert np.array_equal(x, y, equal_nan=True)
            continue
        moved = y[(x != y) & ~np.isnan(x)]
        assert np.isin(moved, known).all()
        inner = ~np.isnan(x) & (np.abs(stats.percentileofscore(known, np.nan_to_num(x)) - 50) < 5)
        steps = (stats.percentileofscore(known, y[inner]) - stats.percentileofscore(known, x[inner])) / 100
        assert steps.std() == pytest.approx(tables.QUANTILE_NOISE[3], rel=0.3)


def test_units_are_wrong_by_a_power_of_ten_and_booleans_have_none() -> None:
    data = small_table(3000)
    clean, found = blocks(data, "units", 5)
    ratio = found["numbers"][:, :4] / clean["numbers"][:, :4]
    powers = Counter(np.round(np.log10(ratio[~np.isnan(ratio)])).astype(int).tolist())
    assert set(powers) == {-3, -1, 0, 1, 3}
    assert 1 - powers[0] / powers.total() == pytest.approx(tables.UNITS[4], abs=0.03)
    assert np.array_equal(found["numbers"][:, 4], clean["numbers"][:, 4], equal_nan=True)
    assert np.array_equal(found["categories"], clean["categories"])


def test_a_number_that_would_not_fit_keeps_its_unit() -> None:
    data = small_table(400)
    big = {"numbers": torch.full((100, 5), 3e38), "categories": torch.ones(100, 2, dtype=torch.long)}
    huge = replace(data, test=replace(data.test, rows=lambda at: {n: b[at] for n, b in big.items()}))
    _, found = blocks(huge, "units", 5)
    assert np.isfinite(found["numbers"]).all()


def test_shuffling_keeps_each_columns_distribution_and_breaks_its_company() -> None:
    data = small_table(8000)
    clean, found = blocks(data, "shuffle", 5)
    for j in range(4):
        x, y = clean["numbers"][:, j], found["numbers"][:, j]
        assert float(stats.ks_2samp(x[~np.isnan(x)], y[~np.isnan(y)])[1]) > 1e-3  # pyright: ignore[reportArgumentType] a tuple, says its stub
        both = ~np.isnan(x) & ~np.isnan(y)
        assert np.corrcoef(x[both], y[both])[0, 1] == pytest.approx(1 - tables.SHUFFLE[4], abs=0.08)
    assert (found["categories"] != clean["categories"]).any()


def test_categories_are_all_unseen_at_the_highest_severity_and_numbers_stay() -> None:
    clean, found = blocks(small_table(400), "unseen", 5)
    assert not found["categories"].any()
    assert np.array_equal(found["numbers"], clean["numbers"], equal_nan=True)


def test_typos_hit_letters_alone_in_the_share_it_says_and_neighbours_on_the_keyboard() -> None:
    assert texts._BESIDE["g"] == "fhtyvb"
    line = "the quick brown fox jumps over the lazy dog 1234567890 !?"
    found = [texts._typos(line, np.uint64(k), 3) for k in range(400)]
    assert all("1234567890 !?" in text for text in found)
    same = np.mean([difflib.SequenceMatcher(None, line, text, autojunk=False).ratio() for text in found])
    assert 0.85 < same < 0.98
    assert len(set(found)) > 300
    assert texts._typos("Ж", np.uint64(1), 5) in ("Ж", "ЖЖ", "")  # no key is known beside it


def test_casing_truncation_and_dropout_do_what_they_say() -> None:
    line = "Every word of this NASA text"
    assert texts._casing(line, np.uint64(3), 5) == "EVERY WORD OF THIS nasa TEXT"
    assert texts._truncated(f"  {line}", np.uint64(0), 3) == line[:13]
    assert texts._truncated("x", np.uint64(0), 5) == "x"
    for key in range(50):
        kept = texts._thinned(line, np.uint64(key), 5).split()
        assert kept
        assert kept == [word for word in line.split() if word in kept]
    assert texts._thinned("alone", np.uint64(1), 5) == "alone"


def test_a_text_that_is_not_there_stays_away_and_no_other_becomes_blank() -> None:
    data = small_pairs(160)
    a, b = under(data, "typos", 5)
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    for name in a:
        assert [bool(t) for t in a[name]] == [bool(t) for t in b[name]]
    short = Texts(["a", "b c", ""])
    for change in texts.changes().values():
        assert not isinstance(change, str)
        for key in range(40):
            made = change({"text": short}, np.full(3, key, dtype=np.uint64), 5)
            assert isinstance(made, dict)
            assert [bool(t.strip()) for t in made["text"]] == [True, True, False]


def test_two_texts_of_a_row_are_damaged_apart() -> None:
    same = {"a": Texts(["one two three four five six seven eight"]), "b": Texts(["one two three four five six seven eight"])}
    change = texts.changes()["word_dropout"]
    assert not isinstance(change, str)
    made = [change(same, np.array([key], dtype=np.uint64), 3) for key in range(20)]
    assert any(isinstance(m, dict) and m["a"] != m["b"] for m in made)


def test_signals_lose_a_stretch_to_the_training_mean_and_noise_follows_each_place() -> None:
    data = signals()
    clean, found = pixels(data, "occlusion", 5)
    hidden = found != clean
    runs = [np.flatnonzero(row) for row in hidden.any(1)]
    assert all(len(run) == np.ptp(run) + 1 for run in runs)
    assert max(map(len, runs)) == 15
    clean, found = pixels(data, "noise", 5)
    drawn = (found - clean).std((0, 1))
    assert drawn[-1] / drawn[0] == pytest.approx(9, rel=0.4)


def test_so_many_rows_are_asked_and_they_are_chosen_by_id() -> None:
    data = small_table(800)
    corruptor = corruptions(rows=50).of(data)
    some = corruptor.some(data.test)
    assert len(some) == 50
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    assert set(corruptor.some(data.test.take(order)).ids.tolist()) == set(some.ids.tolist())
    assert len(corruptions(rows=10_000).of(data).some(data.test)) == len(data.test)


def test_what_a_table_lacks_is_left_out_and_said() -> None:
    rng = np.random.default_rng(0)
    numbers = arrays(rng.normal(size=(200, 3)), np.arange(200) % 2).read()
    found = corruptions().of(numbers)
    assert (set(found.changes), dict(found.left_out)) == (
        {"missing", "quantile_noise", "units", "shuffle"},
        {"unseen": "no column holds categories"},
    )
    with pytest.raises(DataError, match="none of the corruptions can be done to these data: unseen: no column holds categories"):
        corruptions(kinds=["unseen"]).of(numbers)


def test_words_that_do_not_fit_are_refused_with_near_ones() -> None:
    with pytest.raises(DataError, match="there is no corruption 'nois'") as found:
        corruptions(kinds=["nois"])
    assert "noise" in found.value.hint
    with pytest.raises(DataError, match=r"severity 6 of a corruption"):
        corruptions(severities=(1, 6))
    with pytest.raises(DataError, match=r"kinds=\[\]\): none is asked"):
        corruptions(kinds=[])
    with pytest.raises(DataError, match=r"severities=\[\]\): none is asked"):
        corruptions(severities=())
    with pytest.raises(DataError, match=r"rows=0\) asks nothing"):
        corruptions(rows=0)
    with pytest.raises(DataError, match="corruption 'typos' is one of text, and these data are images") as found:
        corruptions(kinds=["typos"]).of(small_images(40))
    assert "noise, blur" in found.value.hint


def test_the_text_reads_back_to_the_same_corruptions() -> None:
    words = {"corruptions": corruptions, "munge": munge}
    for spec in (corruptions(), corruptions(kinds=["noise", "blur"], severities=(5, 1, 1), rows=200)):
        assert read(repr(spec), words) == spec
    assert repr(corruptions(kinds=["blur"], severities=(3, 1))) == 'corruptions(kinds=["blur"], severities=[1, 3], rows=1000)'
