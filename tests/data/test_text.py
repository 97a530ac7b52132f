"""Texts: what is read, what is refused and with which words, and that nothing leaks."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attar import data as room
from attar.data import Data, text
from attar.data.base import Asked
from attar.data.records import read_records
from attar.errors import DataError, NotationError
from attar.notation import map_paths, parse, read, write
from attar.signal import IGNORE, Texts

VADER = Path(__file__).parents[2] / "recipes" / "data" / "vader"
VOCABULARY = {name: getattr(room, name) for name in room.__all__}


def put(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def tsv(count: int = 60, start: int = 0, *, head: str = "text\ty", ends: str = "\n") -> str:
    rows = (f"sentence number {i}\t{'no' if i % 3 else 'yes'}" for i in range(start, start + count))
    return ends.join([head, *rows]) + ends


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def pairs(count: int = 60, *, start: int = 0) -> list[dict[str, Any]]:
    return [{"sentence1": f"one {i}", "sentence2": f"two {i}", "score": i / 10} for i in range(start, start + count)]


def held(data: Data, split: str, name: str = "text") -> list[str]:
    s = data.splits[split]
    inputs = s.batch(torch.arange(len(s))).inputs
    assert not isinstance(inputs, torch.Tensor)
    return inputs[name].tolist()


def every(data: Data, name: str = "text") -> list[str]:
    return [t for split in data.splits for t in held(data, split, name)]


def labels(data: Data, split: str = "train") -> torch.Tensor:
    found = data.splits[split].labels
    assert found is not None
    return found


def refused(*says: str, path: str, kind: Any = "auto", **arguments: Any) -> None:
    with pytest.raises(DataError) as caught:
        text(path, **arguments).read(kind)
    for said in says:
        assert said in str(caught.value)
    assert caught.value.hint, "every error offers a way out"


# --- the shipped sentences ----------------------------------------------------------------------------------------------------------


def test_the_shipped_domains_have_their_sentences_and_their_labels() -> None:
    counts = {"amazon": (3708, 723), "movies": (10605, 533), "nyt": (5190, 2220), "tweets": (4200, 768)}
    domains = text(str(VADER), label="label", unlabelled="keep").domains()
    assert set(domains) == set(counts)
    for name, (rows, neutral) in counts.items():
        data = domains[name].read()
        assert sum(map(len, data.splits.values())) == rows
        assert data.schema.classes == ("negative", "positive")
        assert rows - sum(split.labelled for split in data.splits.values()) == neutral


def test_a_shipped_label_is_the_side_of_its_score() -> None:
    for path in VADER.iterdir():
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                score = float(row["score"])
                assert -4 <= score <= 4
                assert row["label"] == ("" if abs(score) < 0.5 else "positive" if score > 0 else "negative"), row


def test_a_folder_is_the_union_of_its_files() -> None:
    data = text(str(VADER), label="score").read()
    assert data.kind == "regression"
    assert "4 files: amazon 3,708, movies 10,605, nyt 5,190, tweets 4,200" in data.notes
    alone = text(str(VADER / "nyt.tsv"), label="score").read()
    assert sorted(every(alone)) == sorted(every(text(str(VADER), label="score").domains()["nyt"].read()))
    assert Counter(every(alone)) <= Counter(every(data))


# --- forms --------------------------------------------------------------------------------------------------------------------------


def test_every_form_reads_to_the_same_rows(tmp_path: Path) -> None:
    rows = [(f'{i}: "so", he said;\tand\nwent — “é” 😀', "no" if i % 3 else "yes") for i in range(60)]

    def separated(separator: str) -> str:
        out = io.StringIO()
        csv.writer(out, delimiter=separator, lineterminator="\r\n").writerows([("text", "y"), *rows])
        return out.getvalue()

    forms = {"a.jsonl": jsonl([{"text": t, "y": y} for t, y in rows]), "a.csv": separated(","), "a.tsv": separated("\t")}
    for name, content in dict(forms).items():
        forms[f"{name}.gz"] = ""
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
        put(tmp_path / name, content)
    found = [text(str(tmp_path / name), label="y").read() for name in forms]
    for data in found:
        assert sorted(every(data)) == sorted(t for t, _ in rows)
        assert data.fingerprint == found[0].fingerprint


def test_a_marked_file_with_windows_lines_reads_as_a_plain_one(tmp_path: Path) -> None:
    plain = text(put(tmp_path / "plain.tsv", tsv()), label="y").read()
    windows = text(put(tmp_path / "windows.tsv", b"\xef\xbb\xbf" + tsv(ends="\r\n").encode()), label="y").read()
    old = text(put(tmp_path / "old.tsv", tsv(ends="\r")), label="y").read()
    unended = text(put(tmp_path / "unended.tsv", tsv().rstrip("\n")), label="y").read()
    assert plain.fingerprint == windows.fingerprint == old.fingerprint == unended.fingerprint


def test_lines_are_texts_and_only_line_feeds_end_them(tmp_path: Path) -> None:
    lines = [f"line {i} with a separator of lines and a page\x0c, which are text" for i in range(40)]
    data = text(put(tmp_path / "a.txt", "\n".join(lines) + "\n")).read("embedding")
    assert sorted(every(data)) == sorted(lines)


def test_quotes_in_a_file_of_tabs_are_signs_unless_they_are_written_as_quotes(tmp_path: Path) -> None:
    raw = ['"Hello" he said', 'they say "no', 'a "b" c', '"whole"'] * 10
    lines = "".join(f"{i} {t}\tyes\n{t} {i}\tno\n" for i, t in enumerate(raw))
    data = text(put(tmp_path / "glue.tsv", "text\ty\n" + lines), label="y").read()
    assert set(every(data)) == {f"{i} {t}" for i, t in enumerate(raw)} | {f"{t} {i}" for i, t in enumerate(raw)}
    quoted = "".join(f'"{i} ""Hello"" he said"\t{"no" if i % 2 else "yes"}\n' for i in range(40))
    data = text(put(tmp_path / "csv.tsv", "text\ty\n" + quoted), label="y").read()
    assert set(every(data)) == {f'{i} "Hello" he said' for i in range(40)}


def test_a_line_number_counts_the_lines_of_quoted_texts(tmp_path: Path) -> None:
    path = Path(put(tmp_path / "a.csv", 'text,y\n"one\ntwo\nthree",a\n\nfour,b\n'))
    records = read_records(path)
    assert records.columns["text"].tolist() == ["one\ntwo\nthree", "four"]
    assert [records.place(i) for i in range(2)] == [f"{path}, line 2", f"{path}, line 6"]


def test_a_million_characters_are_a_text(tmp_path: Path) -> None:
    long = "word " * 200_000
    rows = [{"text": f"{i} {long}" if i == 7 else f"{i} short", "y": "ab"[i % 2]} for i in range(60)]
    as_csv = "text,y\n" + "".join(f'"{r["text"]}",{r["y"]}\n' for r in rows)
    before = csv.field_size_limit()
    for path in (put(tmp_path / "a.jsonl", jsonl(rows)), put(tmp_path / "a.csv", as_csv)):
        assert max(map(len, every(text(path, label="y").read()))) == 1_000_002
    assert csv.field_size_limit() == before, "the process-wide limit is as it was"


# --- columns ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["id", "text", "y"], ("text",)),
        (["Sentence", "note", "y"], ("Sentence",)),
        (["sentence2", "y", "sentence1"], ("sentence1", "sentence2")),
        (["premise", "hypothesis", "y"], ("premise", "hypothesis")),
        (["anything", "y"], ("anything",)),
    ],
)
def test_usual_names_are_found(tmp_path: Path, columns: list[str], found: tuple[str, ...]) -> None:
    rows = "".join("\t".join("ab"[i % 2] if c == "y" else f"{c} {i}" for c in columns) + "\n" for i in range(60))
    assert text(put(tmp_path / "a.tsv", "\t".join(columns) + "\n" + rows), label="y").read().schema.texts == found


def test_where_several_columns_could_hold_the_texts_none_is_guessed(tmp_path: Path) -> None:
    two = put(tmp_path / "two.tsv", tsv(head="text\tsentence"))
    refused("'text' or 'sentence'?", "text= one of 'text', 'sentence'", path=two, kind="embedding")
    none = put(tmp_path / "none.csv", "alpha,beta,y\n1,2,3\n")
    refused("no column", "is called like one of texts", "'alpha', 'beta'", path=none, label="y")


def test_a_name_that_is_not_there_is_told_with_its_neighbours(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", tsv())
    refused("text: there is no column 'txt'", "did you mean 'text'?", path=path, text="txt", label="y")
    refused("label: there is no column 'stars'", "'text', 'y'", path=path, label="stars")
    refused("group: there is no column 'who'", path=path, label="y", group="who")
    refused("'y' is named as text and as label", path=path, text="y", label="y")
    refused("label: there is no column 'y'", path=put(tmp_path / "a.txt", "one\ntwo\n"), label="y")


def test_pairs_are_read_in_the_order_that_is_told(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", jsonl([{**p, "y": "ab"[i % 2]} for i, p in enumerate(pairs())]))
    data = text(path, text=["sentence2", "sentence1"], label="y").read()
    assert data.schema.texts == ("sentence2", "sentence1")
    assert held(data, "train", "sentence2")[0].startswith("two")
    assert data.train.mask is None
    swapped = text(path, label="y").read()
    assert set(swapped.train.ids.tolist()).isdisjoint(data.train.ids.tolist()), "the order of a pair is part of it"


# --- labels -------------------------------------------------------------------------------------------------------------------------


def test_labels_are_classes_numbers_or_several(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "c": "ab"[i % 2], "n": i / 7, "flag": i % 2 == 0, "p": i % 2, "q": i % 3 % 2} for i in range(80)]
    path = put(tmp_path / "a.jsonl", jsonl(rows))
    assert text(path, label="c").read().schema.classes == ("a", "b")
    assert text(path, label="flag").read().schema.classes == ("False", "True")
    assert text(path, label="p").read().schema.classes == ("0", "1")
    numbers = text(path, label="n").read()
    assert numbers.kind == "regression"
    assert numbers.schema.label_mean == pytest.approx(labels(numbers).double().mean().item(), rel=1e-6)
    several = text(path, label=["p", "q"]).read()
    assert several.kind == "multilabel"
    assert labels(several).shape[1] == 2
    for name in several.splits:
        for sentence, row in zip(held(several, name), labels(several, name).tolist(), strict=True):
            i = int(sentence.split()[1])
            assert row == [i % 2, i % 3 % 2]


def test_unlabelled_rows_are_refused_or_kept(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "y": None if i % 5 == 3 else "ab"[i % 2]} for i in range(100)]
    path = put(tmp_path / "a.jsonl", jsonl(rows))
    refused("missing in 20 of 100 rows, first in", "a.jsonl, line 4", 'unlabelled="keep"', path=path, label="y")
    data = text(path, label="y", unlabelled="keep").read()
    assert sum(split.labelled for split in data.splits.values()) == 80
    assert sum(int((labels(data, name) == IGNORE).sum()) for name in data.splits) == 20
    assert not data.test.complete or data.test.labelled == len(data.test)


def test_labels_of_mixed_types_are_named_with_their_lines(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", jsonl([{"text": "a", "y": "pos"}, {"text": "b", "y": 1}, {"text": "c", "y": True}]))
    refused("label 'y' mixes 'pos'", "a.jsonl, line 1", "and 1 (", "line 2", "True", path=path, label="y")
    nested = put(tmp_path / "b.jsonl", jsonl([{"text": "a", "y": "pos"}, {"text": "b", "y": ["pos"]}]))
    refused("label 'y' is ['pos'] in", "line 2", path=nested, label="y")


def test_declared_classes_keep_their_order_and_admit_no_other(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", tsv())
    data = text(path, label="y", classes=["yes", "no", "perhaps"]).read()
    assert data.schema.classes == ("yes", "no", "perhaps")
    for sentence, label in zip(held(data, "train"), labels(data).tolist(), strict=True):
        assert label == (1 if int(sentence.split()[2]) % 3 else 0)
    assert "no train row has y 'perhaps'" in data.notes
    refused("label 'y' is 'no' in", "a.tsv, line 3", "classes=['yes', 'nope']", path=path, label="y", classes=["yes", "nope"])
    one_sided = put(tmp_path / "b.tsv", "text\ty\n" + "".join(f"t {i}\tyes\n" for i in range(60)))
    refused("one class only", path=one_sided, label="y")
    with pytest.raises(DataError, match="fewer than two classes"):
        text(one_sided, label="y", classes=["no", "yes"]).read()


def test_a_class_that_only_the_test_file_has_is_said(tmp_path: Path) -> None:
    test = "text\ty\n" + "".join(f"other {i}\t{['no', 'yes', 'maybe'][i % 3]}\n" for i in range(12))
    data = text(put(tmp_path / "a.tsv", tsv()), label="y", test=put(tmp_path / "test.tsv", test)).read()
    assert data.schema.classes == ("maybe", "no", "yes")
    assert "no train row has y 'maybe'" in data.notes


# --- no label at all ----------------------------------------------------------------------------------------------------------------


def test_without_labels_the_task_says_what_is_asked(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "".join(f"line {i}\n" for i in range(60)))
    refused("no label that would say what is asked", "classes=", path=path)
    refused("which classes there are", path=path, kind="classification")
    refused("task regression, but classes=['a', 'b']", path=path, kind="regression", classes=["a", "b"])
    refused("classes=['a']", path=path, classes=["a"])
    kinds: list[Asked] = ["auto", "classification", "multilabel"]
    for kind in kinds:
        data = text(path, classes=["a", "b"]).read(kind)
        assert data.kind == ("classification" if kind == "auto" else kind)
        assert data.schema.classes == ("a", "b")
        for name, split in data.splits.items():
            assert labels(data, name).eq(IGNORE).all()
            assert labels(data, name).shape == ((len(split), 2) if kind == "multilabel" else (len(split),))
            assert split.labelled == 0 and not split.complete
        assert "no row has a label" in data.notes
    kinds = ["regression", "embedding"]
    for kind in kinds:
        data = text(path).read(kind)
        assert data.kind == kind and data.schema.classes == ()
        assert labels(data).dtype == torch.float32 and labels(data).isnan().all()
        assert (data.schema.label_mean, data.schema.label_std) == (0, 1)
        assert data.schema.embeds == (kind == "embedding")


# --- scores of pairs ----------------------------------------------------------------------------------------------------------------


def test_scores_pairs_and_sentences_alone_lie_side_by_side(tmp_path: Path) -> None:
    rows = pairs(80)
    rows[5] = {"sentence1": "alone", "sentence2": " ", "score": None}
    rows[6] = {"sentence1": "alone with a score", "sentence2": None, "score": 3.5}
    rows[7] = {"sentence1": None, "sentence2": "alone, the second"}
    rows[8]["score"] = float("nan")
    path = put(tmp_path / "a.jsonl", jsonl(rows))
    refused("label 'score' is missing in 1 of 80 rows, first in", "line 9", path=path, label="score", kind="embedding")
    data = text(path, label="score", unlabelled="keep").read("embedding")
    assert (data.kind, data.schema.embeds, data.schema.texts) == ("embedding", True, ("sentence1", "sentence2"))
    assert "3 rows hold one text and no pair" in data.notes
    assert any("1 scores of rows that hold no pair are left out, the first in" in n and n.endswith("line 7") for n in data.notes)
    seen = 0
    for name, split in data.splits.items():
        batch = split.batch(torch.arange(len(split)))
        assert batch.mask is not None and batch.labels is not None and batch.labels.dtype == torch.float32
        for one, two, mask, score in zip(
            held(data, name, "sentence1"), held(data, name, "sentence2"), batch.mask.tolist(), batch.labels.tolist(), strict=True
        ):
            assert mask == [bool(one), bool(two)]
            if one and two:
                number = int(one.split()[1])
                assert two == f"two {number}"
                assert math.isnan(score) if number == 8 else score == pytest.approx(number / 10)
            else:
                assert math.isnan(score)
            seen += 1
    assert seen == 80


def test_scores_must_be_numbers_of_pairs(tmp_path: Path) -> None:
    words = put(tmp_path / "a.tsv", "sentence1\tsentence2\tscore\n" + "".join(f"a {i}\tb {i}\t{i}\n" for i in range(30)) + "c\td\thigh\n")
    refused("label 'score' is 'high' in", "a.tsv, line 32: a score is a number", path=words, label="score", kind="embedding")
    alone = put(tmp_path / "b.tsv", "".join(["text\tscore\n", *(f"a {i}\t{i}\n" for i in range(30))]))
    refused("scores pairs of texts, but no row holds two", path=alone, label="score", kind="embedding")
    refused("task embedding, but classes=['a', 'b']", path=alone, label="score", kind="embedding", classes=["a", "b"])


def test_a_sentence_that_train_and_test_pairs_share_is_said(tmp_path: Path) -> None:
    train = put(tmp_path / "a.jsonl", jsonl(pairs()))
    test = put(tmp_path / "t.jsonl", jsonl([{"sentence1": f"one {i}", "sentence2": f"new {i}", "score": 1.0} for i in range(60)]))
    data = text(train, label="score", test=test).read("embedding")
    shared = set(held(data, "train", "sentence1"))
    assert f"{len(shared):,} of the 120 texts of test stand in a training row as well" in data.notes


# --- splits -------------------------------------------------------------------------------------------------------------------------


def test_equal_texts_lie_in_one_split_and_rows_added_move_none(tmp_path: Path) -> None:
    few = text(put(tmp_path / "few.tsv", tsv(200)), label="y").read()
    many = text(put(tmp_path / "many.tsv", tsv(300) + tsv(300).split("\n", 1)[1]), label="y").read()
    assert "300 rows repeat another row; equal rows lie in one split" in many.notes
    for name in few.splits:
        assert set(held(few, name)) <= set(held(many, name))
    where = Counter(t for name in many.splits for t in set(held(many, name)))
    assert set(where.values()) == {1}
    other = text(str(tmp_path / "few.tsv"), label="y", seed=1).read()
    assert set(held(other, "test")) != set(held(few, "test"))


def test_a_row_is_called_by_its_texts_and_not_by_its_columns(tmp_path: Path) -> None:
    one = text(put(tmp_path / "a.tsv", tsv()), label="y").read()
    other = text(put(tmp_path / "b.tsv", tsv(head="review\tstars")), label="stars").read()
    for name in one.splits:
        assert torch.equal(one.splits[name].ids, other.splits[name].ids)
    assert one.fingerprint != other.fingerprint


def test_a_group_lies_in_one_split(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"t {i}", "y": "ab"[i % 2], "who": f"author {i % 40}"} for i in range(400)]
    data = text(put(tmp_path / "a.jsonl", jsonl(rows)), label="y", group="who").read()
    where: dict[int, set[str]] = {}
    for name in data.splits:
        for t in held(data, name):
            where.setdefault(int(t.split()[1]) % 40, set()).add(name)
    assert len(where) == 40 and all(len(names) == 1 for names in where.values())
    rows[17]["who"] = None
    refused("group 'who' is missing in", "line 18", path=put(tmp_path / "b.jsonl", jsonl(rows)), label="y", group="who")
    with pytest.raises(DataError, match="leave one of them out"):
        text("a.tsv", label="y", group="who", test="test.tsv")


def test_official_splits_lie_in_files_of_their_own(tmp_path: Path) -> None:
    train = put(tmp_path / "train.tsv", tsv(100))
    valid = put(tmp_path / "dev.tsv", tsv(30, 90))  # ten of them are training rows as well
    test = put(tmp_path / "test.tsv", tsv(30, 115))  # five of them are of the file before
    data = text(train, label="y", valid=valid, test=test).read()
    assert sorted(held(data, "test")) == sorted(f"sentence number {i}" for i in range(115, 145))
    assert sorted(held(data, "valid")) == sorted(f"sentence number {i}" for i in range(90, 115))
    assert set(held(data, "train")) | set(held(data, "calibration")) == {f"sentence number {i}" for i in range(90)}
    assert 0 < len(data.calibration) < 25, "a tenth of what is dealt"
    assert "15 rows repeat a row of a split that has its own file, or of a later such split, and are left out" in data.notes
    lacking = put(tmp_path / "lacking.tsv", tsv(head="text\tlabel"))
    refused("there is no column 'y' in", "lacking.tsv", path=train, label="y", test=lacking)


def test_an_unlabelled_row_of_the_test_file_is_kept_and_counted(tmp_path: Path) -> None:
    test = put(tmp_path / "test.tsv", tsv(20, 200) + "no label here\t\n")
    data = text(put(tmp_path / "a.tsv", tsv()), label="y", test=test, unlabelled="keep").read()
    assert (len(data.test), data.test.labelled, data.test.complete) == (21, 20, False)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_shares_are_checked_when_they_are_written(share: float) -> None:
    with pytest.raises(DataError, match="not a share"):
        text("a.tsv", label="y", valid=share)
    with pytest.raises(DataError, match="nothing is left"):
        text("a.tsv", label="y", valid=0.5, calibration=0.3, test=0.2)
    text("a.tsv", label="y", valid=0.5, calibration=0.4, test="test.tsv")


# --- bad input ----------------------------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_text_are_named_by_line_and_place(tmp_path: Path) -> None:
    nul = put(tmp_path / "nul.tsv", b"text\ty\na\tx\nb\0c\ty\n")
    refused("nul.tsv, line 3 holds a NUL byte, byte 13 of the file", path=nul, label="y")
    latin = put(tmp_path / "latin.tsv", "text\ty\na\tx\ncafé\ty\n".encode("latin-1"))
    refused("latin.tsv, line 3 is not UTF-8: byte 15 of the file is 0xe9, after", "caf", "save the file as UTF-8", path=latin, label="y")
    marked = put(tmp_path / "marked.tsv", b"\xef\xbb\xbftext\ty\ncaf\xe9\ty\n")
    refused("line 2 is not UTF-8: byte 14 of the file is 0xe9", path=marked, label="y")
    refused("is UTF-16", path=put(tmp_path / "wide.tsv", tsv().encode("utf-16")), label="y")
    escaped = put(tmp_path / "nul.jsonl", '{"text": "a", "y": "1"}\n{"text": "b\\u0000c", "y": "2"}\n')
    refused("holds a NUL byte in", "nul.jsonl, line 2", path=escaped, label="y")
    half = put(tmp_path / "half.jsonl", '{"text": "a", "y": "1"}\n{"text": "b \\ud83d c", "y": "2"}\n')
    refused("half of a surrogate pair in", "half.jsonl, line 2", path=half, label="y")


def test_texts_of_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", tsv() + "\tyes\n   \tno\n")
    data = text(path, label="y").read()
    assert len(every(data)) == 60
    assert any("2 rows without their text are left out, the first in" in n and n.endswith("a.tsv, line 62") for n in data.notes)
    nothing = put(tmp_path / "b.tsv", "text\ty\n \tyes\n\tno\n")
    refused("has a text in 'text'", path=nothing, label="y")
    half = [{**p, "y": "ab"[i % 2]} for i, p in enumerate(pairs())]
    half[3]["sentence2"] = ""
    assert len(every(text(put(tmp_path / "c.jsonl", jsonl(half)), label="y").read(), "sentence1")) == 59


def test_rows_of_another_width_are_named(tmp_path: Path) -> None:
    refused("a.tsv, line 62 has 1 columns, the first line has 2: 'cut off", path=put(tmp_path / "a.tsv", tsv() + "cut off\n"), label="y")
    refused("b.csv, line 3 has 3 columns", '","', path=put(tmp_path / "b.csv", "text,y\na,x\nb, c,y\n"), label="y")
    stray = tsv() + 'he said "no\n"so\tyes\n'
    refused("c.tsv, line 62 has 1 columns", path=put(tmp_path / "c.tsv", stray), label="y")


def test_a_quote_that_does_not_close_is_named_by_the_line_where_it_opens(tmp_path: Path) -> None:
    refused("a.csv, line 3: unexpected end of data: '\"open", path=put(tmp_path / "a.csv", 'text,y\na,x\n"open,y\nb,z\n'), label="y")
    refused("b.csv, line 2: ',' expected after '\"'", path=put(tmp_path / "b.csv", 'text,y\n"a" b,x\nb,z\n'), label="y")


def test_a_header_must_name_each_column_once(tmp_path: Path) -> None:
    refused("several columns are called 'text'", path=put(tmp_path / "a.tsv", "text\ttext\na\tb\n"))
    refused("has no rows", path=put(tmp_path / "b.tsv", "text\ty\n"), label="y")
    refused("reads as one column, 'text;y'", 'separator=";"', path=put(tmp_path / "c.csv", "text;y\na;b\n"), label="y")
    assert text(put(tmp_path / "d.csv", tsv().replace("\t", ";")), label="y", separator=";").read().schema.classes == ("no", "yes")


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    good = '{"text": "a", "y": "1"}\n\n'
    refused("a.jsonl, line 3 is no JSON: Expecting ',' delimiter", path=put(tmp_path / "a.jsonl", good + '{"text": "b" "y"}\n'), label="y")
    refused("b.jsonl, line 3 is no object: '[1, 2]'", path=put(tmp_path / "b.jsonl", good + "[1, 2]\n"), label="y")
    deep = "[" * 100_000
    refused("c.jsonl, line 3 is no JSON", path=put(tmp_path / "c.jsonl", good + deep), label="y")
    refused(
        "text 'text' is 7 in", "d.jsonl, line 3, of type int", path=put(tmp_path / "d.jsonl", good + '{"text": 7, "y": "1"}'), label="y"
    )
    refused("one object on each line", path=put(tmp_path / "e.json", "[]"))


def test_files_and_folders_that_hold_no_texts_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "reviews.tsv", tsv())
    refused("there is no file or folder", "did you mean 'reviews.tsv'?", path=str(tmp_path / "review.tsv"))
    refused("is empty", path=put(tmp_path / "empty.tsv", ""), label="y")
    refused("is empty", path=put(tmp_path / "blank.txt", "\n\n \n"))
    refused("no file of texts by its suffix", path=put(tmp_path / "a.docx", "x"))
    refused("does not unpack", path=put(tmp_path / "a.tsv.gz", "no gzip"))
    refused("does not unpack", path=put(tmp_path / "cut.tsv.gz", gzip.compress(tsv().encode())[:-20]))
    refused("separator=';'", path=put(tmp_path / "s.txt", "a\nb\n"), separator=";")
    (tmp_path / "none").mkdir()
    refused("holds no text files", path=str(tmp_path / "none"))
    put(tmp_path / "none" / "picture.png", "x")
    refused("holds no text files, but picture.png", path=str(tmp_path / "none"))


def test_a_folder_has_one_form_and_one_set_of_columns(tmp_path: Path) -> None:
    put(tmp_path / "mixed" / "a.tsv", tsv())
    put(tmp_path / "mixed" / "b.jsonl", "{}")
    refused("files of several forms: a.tsv, b.jsonl", path=str(tmp_path / "mixed"), label="y")
    put(tmp_path / "other" / "a.tsv", tsv())
    put(tmp_path / "other" / "b.tsv", tsv(head="text\tz"))
    refused("b.tsv has the columns 'text', 'z', a.tsv has 'text', 'y'", path=str(tmp_path / "other"), label="y")
    put(tmp_path / "good" / "a.tsv", tsv())
    put(tmp_path / "good" / "b.tsv.gz", gzip.compress(tsv(60, 60).encode()))
    put(tmp_path / "good" / "LICENSE", "x")
    put(tmp_path / "good" / ".hidden.csv", "x")
    data = text(str(tmp_path / "good"), label="y").read()
    assert len(every(data)) == 120
    assert "1 files of good that are no text by their suffix are left out" in data.notes
    assert "2 files: a 60, b 60" in data.notes


# --- the word -----------------------------------------------------------------------------------------------------------------------


def test_the_word_reads_back_and_its_paths_are_paths() -> None:
    made = text("a.tsv", ["one", "two"], "y", classes=["a", "b"], test="official.tsv", valid=0.2)
    assert read(repr(made), VOCABULARY) == made
    assert repr(made).startswith('text("a.tsv", text=["one", "two"], label="y", classes=["a", "b"]')
    moved = read('text("a.tsv", label="y", test="t.tsv", valid=0.3)', VOCABULARY, base=Path("/recipes"))
    assert (moved.path, moved.test, moved.valid) == ("/recipes/a.tsv", "/recipes/t.tsv", 0.3)
    mapped = map_paths(parse('text("a.tsv", label="y", test="t.tsv")'), VOCABULARY, lambda path, of: f"{of}/{path}")
    assert write(mapped) == 'text("recipe/a.tsv", label="y", test="recipe/t.tsv")'
    with pytest.raises(NotationError, match="valid of text"):
        read('text("a.tsv", valid=[1])', VOCABULARY)


def test_text_of_two_hundred_thousand_lines_holds_little_more_than_the_strings(tmp_path: Path) -> None:
    path = put(tmp_path / "big.tsv", tsv(200_000))
    data = text(path, label="y").read()
    assert sum(map(len, data.splits.values())) == 200_000
    block = data.train.rows(torch.arange(5))
    assert not isinstance(block, torch.Tensor) and isinstance(block["text"], Texts)
    assert np.mean([labels(data, n).float().mean().item() for n in data.splits]) == pytest.approx(1 / 3, abs=0.01)
