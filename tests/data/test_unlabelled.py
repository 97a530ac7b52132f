"""Unlabelled rows: they join the training split and nothing else, and none that is held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from attar import data as room
from attar.data import Data, arrays, as_data, frame, images, shift, table, text, unlabelled
from attar.errors import DataError, NotationError
from attar.notation import map_paths, parse, read, write
from attar.signal import IGNORE
from attar.testing.data import check_batches, check_inputs, check_splits, check_views

VOCABULARY = {name: getattr(room, name) for name in room.__all__}


def put(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return str(path)


def tsv(count: int = 100, start: int = 0) -> str:
    return "text\ty\n" + "".join(f"sentence {i}\t{'no' if i % 3 else 'yes'}\n" for i in range(start, start + count))


def lines(numbers: range) -> str:
    return "".join(f"sentence {i}\n" for i in numbers)


def held(data: Data, split: str, name: str = "text") -> list[str]:
    s = data.splits[split]
    inputs = s.batch(torch.arange(len(s))).inputs
    assert not isinstance(inputs, torch.Tensor)
    return inputs[name].tolist()


def unchanged(before: Data, after: Data) -> None:
    """All but what stands behind the training rows is as it was."""
    assert after.schema == before.schema
    for name, split in before.splits.items():
        rows = torch.arange(len(split))
        one, other = split.batch(rows), after.splits[name].batch(rows)
        assert one.ids is not None and other.ids is not None and torch.equal(one.ids, other.ids)
        assert one.labels is not None and other.labels is not None
        assert torch.equal(one.labels.nan_to_num(), other.labels.nan_to_num())
        assert name == "train" or len(after.splits[name]) == len(split)
    assert after.fingerprint != before.fingerprint


# --- texts --------------------------------------------------------------------------------------------------------------------------


def test_only_new_rows_that_are_not_held_out_join_the_training_split(tmp_path: Path) -> None:
    labelled = text(put(tmp_path / "a.tsv", tsv()), label="y")
    more = put(tmp_path / "more.txt", lines(range(50, 130)) + lines(range(120, 140)) + "\n")
    before, after = labelled.read(), (labelled + unlabelled(more)).read()
    unchanged(before, after)
    new = held(after, "train")[len(before.train) :]
    assert new == [f"sentence {i}" for i in range(100, 140)]
    late = after.train.batch(torch.arange(len(before.train), len(after.train)))
    assert late.labels is not None and late.labels.eq(IGNORE).all() and not late.complete
    assert after.train.labelled == len(before.train)
    lie = sum(1 for name in ("valid", "calibration", "test") for t in held(before, name) if int(t.split()[1]) >= 50)
    repeat = sum(1 for t in held(before, "train") if int(t.split()[1]) >= 50) + 10
    assert f"{more}: 40 rows without labels join the training split; {lie} that lie in valid, calibration or test are left out; " in str(
        after.notes
    )
    assert any(note.endswith(f"; {repeat} that repeat a training row are left out") for note in after.notes)
    assert any("1 rows without their text are left out" in note for note in after.notes)
    check_splits(after)
    check_inputs(after)
    check_batches(lambda: (labelled + unlabelled(more)).read())


def test_the_columns_of_texts_are_those_of_the_data_or_are_told(tmp_path: Path) -> None:
    labelled = text(put(tmp_path / "a.tsv", tsv()), label="y")
    renamed = put(tmp_path / "more.csv", "id,words,other\n" + "".join(f"{i},new {i},x\n" for i in range(20)))
    with pytest.raises(DataError, match="is called like one of texts"):
        (labelled + unlabelled(renamed)).read()
    data = (labelled + unlabelled(renamed, text="words")).read()
    assert held(data, "train")[-20:] == [f"new {i}" for i in range(20)]
    folder = tmp_path / "folder"
    put(folder / "b.tsv", tsv(20, 200))
    put(folder / "c.tsv", tsv(20, 300))
    assert held((labelled + unlabelled(str(folder))).read(), "train")[-1] == "sentence 319"


def test_pairs_take_pairs_only_unless_each_text_is_answered_by_itself(tmp_path: Path) -> None:
    def pair(i: int, **more: Any) -> str:
        return json.dumps({"sentence1": f"one {i}", "sentence2": f"two {i}", **more}) + "\n"

    labelled = put(tmp_path / "a.jsonl", "".join(pair(i, score=i / 7, y="ab"[i % 2]) for i in range(100)))
    alone = put(tmp_path / "alone.txt", "".join(f"{'one' if i % 2 else 'two'} {i}\n" for i in range(90, 140)))
    more = put(tmp_path / "more.jsonl", "".join(pair(i) for i in range(90, 140)))
    classes = text(labelled, label="y")
    with pytest.raises(DataError, match="gives 1 texts to a row, 'text'; the data have 2"):
        (classes + unlabelled(alone)).read()
    assert held((classes + unlabelled(more)).read(), "train", "sentence2")[-1] == "two 139"

    scored = text(labelled, label="score")
    before, data = scored.read("embedding"), (scored + unlabelled(alone) + unlabelled(more)).read("embedding")
    unchanged(before, data)
    forbidden = {t for name in ("valid", "calibration", "test") for n in ("sentence1", "sentence2") for t in held(before, name, n)}
    assert any(int(t.split()[1]) >= 90 for t in forbidden), "the test must be able to fail"
    new = range(len(before.train), len(data.train))
    batch = data.train.batch(torch.tensor(list(new)))
    assert batch.mask is not None and batch.labels is not None and not isinstance(batch.inputs, torch.Tensor)
    first, second = batch.inputs["sentence1"].tolist(), batch.inputs["sentence2"].tolist()
    assert batch.mask.tolist() == [[bool(a), bool(b)] for a, b in zip(first, second, strict=True)]
    assert [True, False] in batch.mask.tolist() and [True, True] in batch.mask.tolist()
    assert batch.labels.isnan().all()
    assert forbidden.isdisjoint(first) and forbidden.isdisjoint(second)
    check_inputs(data)


def test_data_without_any_label_can_be_joined(tmp_path: Path) -> None:
    base = text(put(tmp_path / "a.txt", lines(range(100))), classes=["no", "yes"])
    data = (base + unlabelled(put(tmp_path / "b.txt", lines(range(100, 110))))).read()
    assert data.schema.classes == ("no", "yes")
    assert sum(split.labelled for split in data.splits.values()) == 0
    assert len(data.train) == len(base.read().train) + 10


# --- tables -------------------------------------------------------------------------------------------------------------------------


def rows(count: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    member, colour = rng.random(count) < 0.5, rng.choice(["red", "green"], count)
    return pd.DataFrame({"x": rng.normal(size=count).round(9), "colour": colour, "member": member, "y": rng.choice(["no", "yes"], count)})


def save(df: pd.DataFrame, path: Path) -> str:
    df.to_csv(path, index=False)
    return str(path)


def test_a_table_reads_its_unlabelled_rows_as_the_labelled_ones(tmp_path: Path) -> None:
    labelled = table(save(rows(), tmp_path / "a.csv"), label="y")
    more = rows(50, seed=1).loc[:, ["member", "colour", "x"]]
    more.loc[0, "colour"] = "ultraviolet"
    more.loc[1, "x"] = np.nan
    more = pd.concat([more, rows().drop(columns="y")], ignore_index=True)
    more["note"] = "not read"
    before, after = labelled.read(), (labelled + unlabelled(save(more, tmp_path / "more.csv"))).read()
    unchanged(before, after)
    late = after.train.batch(torch.arange(len(before.train), len(after.train)))
    assert not isinstance(late.inputs, torch.Tensor) and late.labels is not None
    assert late.labels.eq(IGNORE).all() and len(late.labels) == 50
    numbers, codes = late.inputs["numbers"], late.inputs["categories"]
    assert numbers.dtype == torch.float64, "as the labelled rows"
    np.testing.assert_array_equal(numbers.numpy(), more.loc[:49, ["x", "member"]].to_numpy(dtype=float))
    assert codes[:, 0].tolist() == [0 if c == "ultraviolet" else 1 if c == "green" else 2 for c in more.loc[:49, "colour"]]
    assert any("'ultraviolet' in 1 rows, never in train" in note for note in after.notes)
    assert "more.csv: 'note' not read" in after.notes
    assert any(f"{200 - len(before.train)} that lie in valid, calibration or test are left out" in note for note in after.notes)
    check_splits(after)
    check_inputs(after)


def test_a_table_that_differs_is_refused(tmp_path: Path) -> None:
    labelled = table(save(rows(), tmp_path / "a.csv"), label="y")

    def refused(df: pd.DataFrame, said: str) -> None:
        with pytest.raises(DataError, match=said):
            (labelled + unlabelled(save(df, tmp_path / "more.csv"))).read()

    refused(rows(20, 1).drop(columns="x"), "has no column 'x'")
    refused(rows(20, 1).assign(x="blue"), "column 'x' of .*more.csv is a category, elsewhere a number")
    refused(rows(20, 1).assign(member=range(20)), "column 'member' of .*more.csv is a number, elsewhere a boolean")
    refused(rows(), "0 rows without labels join the training split")
    with pytest.raises(DataError, match="leave text out"):
        (labelled + unlabelled("more.csv", text="x")).read()


def test_weights_of_joined_rows_are_one(tmp_path: Path) -> None:
    labelled = frame(rows().assign(w=0.5), label="y", weight="w")
    data = (labelled + unlabelled(save(rows(30, 1), tmp_path / "more.csv"))).read()
    assert data.train.weight is not None
    assert data.train.weight.tolist() == [0.5] * (len(data.train) - 30) + [1.0] * 30


def test_a_table_without_labels_has_the_classes_that_are_declared(tmp_path: Path) -> None:
    path = save(rows().drop(columns="y"), tmp_path / "a.csv")
    with pytest.raises(DataError, match="no label that would say what is asked"):
        table(path).read()
    data = table(path, classes=["no", "yes"]).read()
    assert (data.kind, data.schema.classes, data.schema.label) == ("classification", ("no", "yes"), "label")
    assert "no row has a label" in data.notes
    assert all(split.labels is not None and split.labels.eq(IGNORE).all() for split in data.splits.values())
    assert table(path).read("regression").train.labelled == 0
    with pytest.raises(DataError, match="this is a table"):
        table(path).read("embedding")
    declared = table(save(rows(), tmp_path / "b.csv"), label="y", classes=["yes", "no"]).read()
    assert declared.schema.classes == ("yes", "no")
    with pytest.raises(DataError, match=r"label 'y' is 'yes' in row \d+, which classes=\['maybe', 'no'\]"):
        table(str(tmp_path / "b.csv"), label="y", classes=["maybe", "no"]).read()
    with pytest.raises(DataError, match=r"so it is with \d+ rows and 1 class in all"):
        table(str(tmp_path / "b.csv"), label="y", classes=["maybe", "no"]).read()


# --- images -------------------------------------------------------------------------------------------------------------------------


def pictures(root: Path, numbers: range, *, folders: bool = True, size: tuple[int, int] = (8, 10)) -> str:
    for i in numbers:
        path = root / (("cat" if i % 2 else "dog") if folders else f"deep{i % 3}") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    return str(root)


def test_a_folder_of_images_joins_with_its_views(tmp_path: Path) -> None:
    labelled = images(pictures(tmp_path / "a", range(80)), augment=[shift(pixels=2)], views=2)
    more = pictures(tmp_path / "more", range(70, 100), folders=False)
    before, after = labelled.read(), (labelled + unlabelled(more)).read()
    unchanged(before, after)
    assert len(after.train) == len(before.train) + 20
    mixed = torch.tensor([len(after.train) - 1, 0, len(before.train), 1])
    block = after.train.batch(mixed).inputs
    assert isinstance(block, torch.Tensor)
    shown = {bytes(np.array(Image.open(path))) for path in Path(more).rglob("*.png")}
    assert [row.permute(1, 2, 0).numpy().tobytes() in shown for row in block] == [True, False, True, False]
    check_splits(after)
    check_inputs(after)
    check_views(after)
    check_batches(lambda: (labelled + unlabelled(more)).read())


def test_images_that_cannot_join_are_named(tmp_path: Path) -> None:
    labelled = images(pictures(tmp_path / "a", range(80)))
    with pytest.raises(DataError, match=r"10\d\.png .* 9 × 9"):
        (labelled + unlabelled(pictures(tmp_path / "b", range(100, 103), size=(9, 9)))).read()
    scaled = images(str(tmp_path / "a"), size=[8, 10]) + unlabelled(str(tmp_path / "b"))
    assert scaled.read().notes[-1].startswith(str(tmp_path / "b") + ": 3 rows")
    put(tmp_path / "b" / "broken.png", "no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        scaled.read()
    skipped = (images(str(tmp_path / "a"), size=[8, 10]) + unlabelled(str(tmp_path / "b"), corrupt="skip")).read()
    assert len(skipped.train) == len(scaled.data.read().train) + 3
    assert "1 of 4 images of b cannot be decoded and are left out: broken.png" in skipped.notes
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        (labelled + unlabelled(str(tmp_path / "none"))).read()
    with pytest.raises(DataError, match="there is no folder"):
        (labelled + unlabelled(str(tmp_path / "nowhere"))).read()


# --- the sum ------------------------------------------------------------------------------------------------------------------------


def test_a_sum_reads_back_and_its_paths_are_paths() -> None:
    made = text("a.tsv", label="y") + unlabelled("more/") + unlabelled("b.csv", "words", separator=";")
    assert repr(made).endswith(' + unlabelled("more/") + unlabelled("b.csv", text="words", separator=";")')
    again = read(repr(made), VOCABULARY)
    assert again == made and repr(again) == repr(made)
    moved = read('table("a.csv", label="y") + unlabelled("b.csv")', VOCABULARY, base=Path("/recipes"))
    assert "/recipes/a.csv" in repr(moved) and "/recipes/b.csv" in repr(moved)
    mapped = map_paths(parse('text("a.tsv") + unlabelled("more")'), VOCABULARY, lambda path, of: f"{of}/{path}")
    assert write(mapped) == 'text("recipe/a.tsv") + unlabelled("recipe/more")'


def test_data_that_are_read_can_be_joined_as_well(tmp_path: Path) -> None:
    labelled = text(put(tmp_path / "a.tsv", tsv()), label="y")
    more = unlabelled(put(tmp_path / "b.txt", lines(range(100, 120))))
    at_once = labelled.read() + more
    assert isinstance(at_once, Data)
    assert at_once.fingerprint == as_data(labelled + more).fingerprint


def test_a_sum_in_another_order_or_of_other_things_is_refused() -> None:
    with pytest.raises(DataError, match="stands first in a sum"):
        _ = unlabelled("a.txt") + text("b.tsv")
    with pytest.raises(DataError, match="stands first in a sum"):
        read('unlabelled("a.txt") + text("b.tsv")', VOCABULARY)
    with pytest.raises(NotationError, match="unsupported operand"):
        read('text("a.tsv") + text("b.tsv")', VOCABULARY)
    with pytest.raises(TypeError):
        _ = "a.tsv" + unlabelled("b.txt")  # pyright: ignore[reportOperatorIssue] what it must refuse
    with pytest.raises(DataError, match="Unlabelled is not data"):
        as_data(unlabelled("a.txt"))
    tensors = arrays(np.random.default_rng(0).normal(size=(60, 2, 3)), np.arange(60) % 2) + unlabelled("a.txt")
    with pytest.raises(DataError, match="cannot join tensors"):
        tensors.read()
