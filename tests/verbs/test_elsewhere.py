"""Rows from elsewhere: another data set's rows as home lays them out, counted, judged like test rows, and never learned from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from attar.certificate import Certificate, Figure
from attar.data import Data, table
from attar.errors import DataError
from attar.signal import IGNORE, Texts
from attar.sources import module
from attar.testing.small import SmallMLP, fitted, small_table
from attar.testing.texts import small_pairs, small_text_model, small_text_teacher, small_texts
from attar.verbs.evaluate import evaluate
from attar.verbs.evaluate import fitted as laid_out
from attar.verbs.evaluate.elsewhere import _less


def moved(data: Data, by: int = 10_000) -> Data:
    """The same rows as other ones: ids that home does not know."""
    return replace(data, **{name: replace(split, ids=split.ids + by) for name, split in data.splits.items()})


def unlabelled(data: Data) -> Data:
    for name, split in data.splits.items():
        assert split.labels is not None
        data = replace(data, **{name: replace(split, labels=torch.full_like(split.labels, IGNORE))})
    return data


def everything(data: Data) -> tuple[dict[str, list[str]], Tensor]:
    batches = [split.batch(torch.arange(len(split))) for split in data.splits.values()]
    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])
    blocks = [batch.inputs for batch in batches if not isinstance(batch.inputs, Tensor)]
    return {name: [str(text) for block in blocks for text in block[name]] for name in data.schema.texts}, labels


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def test_all_rows_of_all_splits_are_judged_as_a_naive_loop_would() -> None:
    home, other = small_texts(200), moved(small_texts(120, seed=5))
    teacher, student, control = small_text_teacher(home.schema), small_text_model(home.schema, 1), small_text_model(home.schema, 2)
    arms = {"student": [module(student)], "labels": [module(control)]}
    found = evaluate(module(student), module(teacher), home, shift={"other": other}, arms=arms)
    texts, labels = everything(other)
    answers = {name: m({"text": texts["text"]}).argmax(-1) for name, m in (("t", teacher), ("s", student), ("c", control))}
    there, q = found.shift["other"], found.shift["other"].quality["accuracy"]
    assert (there.kind, there.data, there.rows, there.labelled, there.left_out) == ("data", other.fingerprint, 120, 120, 0)
    right = {name: float((answer == labels).double().mean()) for name, answer in answers.items()}
    assert (q.teacher.value, q.student.value) == pytest.approx((right["t"], right["s"]))
    assert q.arms["labels"].value == pytest.approx(right["c"])
    assert there.fidelity["agreement"].value == pytest.approx(float((answers["t"] == answers["s"]).double().mean()))
    at_home = found.quality["accuracy"]
    assert there.lost["student"].value == pytest.approx(value(at_home.student) - right["s"])
    assert there.lost["difference"].value == pytest.approx(value(at_home.difference) - (right["s"] - right["t"]))
    assert there.lost["agreement"].value == pytest.approx(value(found.fidelity["agreement"]) - value(there.fidelity["agreement"]))
    for figure in (q.teacher, q.student, q.difference, *there.lost.values()):
        assert figure.value is not None
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high


def test_rows_that_were_learned_from_are_left_out_and_counted() -> None:
    home = small_texts(200)
    known = replace(home.train, ids=home.train.ids)
    other = moved(small_texts(120, seed=5))
    other = replace(other, train=replace(other.train, ids=torch.cat([known.ids[:7], other.train.ids[7:]])))
    found = evaluate(module(small_text_model(home.schema)), module(small_text_teacher(home.schema)), home, shift={"other": other})
    assert (found.shift["other"].rows, found.shift["other"].left_out) == (113, 7)
    same = replace(home, test=home.train, valid=home.train, calibration=home.train)
    with pytest.raises(DataError, match="all 200 rows are among those learned from"):
        evaluate(module(small_text_model(home.schema)), module(small_text_teacher(home.schema)), home, shift={"same": same})


def test_rows_without_labels_are_judged_by_likeness_alone_and_it_is_said() -> None:
    home = small_texts(200)
    models = module(small_text_model(home.schema)), module(small_text_teacher(home.schema))
    found = evaluate(*models, home, shift={"other": unlabelled(moved(small_texts(80, seed=5)))})
    there = found.shift["other"]
    assert (there.rows, there.labelled, there.quality) == (80, 0, {})
    assert there.lost.keys() == {"agreement"}
    assert any(limit.startswith("other: no row has a label") for limit in found.limits)


def test_the_limit_of_untested_shift_goes_when_some_was_tested() -> None:
    home = small_texts(120)
    models = module(small_text_model(home.schema)), module(small_text_teacher(home.schema))
    before, after = evaluate(*models, home), evaluate(*models, home, shift={"books": moved(small_texts(80, seed=5))})
    assert any("no shifted, no corrupted and no foreign inputs were tested" in limit for limit in before.limits)
    assert not any("no shifted" in limit for limit in after.limits)
    assert any("only the rows of books were tested, no corrupted and no foreign inputs" in limit for limit in after.limits)


def test_a_certificate_with_shift_reads_back_and_fits_the_terminal(tmp_path: Path) -> None:
    home = small_texts(200)
    arms = {"student": [module(small_text_model(home.schema, 1))], "labels": [module(small_text_model(home.schema, 2))]}
    shift = {"a data set with a long name, longer than its column": moved(small_texts(80, seed=5)), "books": moved(small_texts(60, seed=6))}
    found = evaluate(arms["student"][0], module(small_text_teacher(home.schema)), home, arms=arms, shift=shift)
    found.write(tmp_path / "certificate.json")
    again = Certificate.read(tmp_path / "certificate.json")
    assert again.to_dict() == found.to_dict()
    assert again.lines() == found.lines()
    assert max(map(len, found.lines())) <= 80
    assert sum(line.startswith("  books ") for line in found.lines()) == 4  # quality, what is lost, agreement, told without labels


def test_columns_and_categories_of_a_table_are_found_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.3f},{rng.choice(['red', 'blue'])},{rng.choice(['no', 'yes'])}" for _ in range(80)]
    other = [f"{rng.choice(['no', 'yes'])},{rng.choice(['amber', 'blue', 'red'])},{rng.normal():.3f}" for _ in range(60)]
    (tmp_path / "home.csv").write_text("size,colour,sold\n" + "\n".join(lines))
    (tmp_path / "other.csv").write_text("sold,colour,size\n" + "\n".join(other))
    home, foreign = (table(str(tmp_path / f"{name}.csv"), label="sold").read() for name in ("home", "other"))
    split = laid_out("other", foreign, home)
    batch = split.batch(torch.arange(len(split)))
    rows = sorted(line.split(",") for line in other)
    assert not isinstance(batch.inputs, Tensor)
    assert batch.labels is not None
    names = ("?", *home.schema.categories[0].categories)
    read = [
        [home.schema.classes[int(y)], names[int(c)], f"{float(x):.3f}"]
        for y, c, x in zip(batch.labels, batch.inputs["categories"][:, 0], batch.inputs["numbers"][:, 0], strict=True)
    ]
    assert sorted(read) == sorted([y, "?" if c == "amber" else c, x] for y, c, x in rows)


def test_a_row_at_any_position_is_the_same_row() -> None:
    home, other = small_texts(80), small_texts(50, seed=5)
    split = laid_out("other", other, home)
    whole = split.batch(torch.arange(50))
    index = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:23]
    some = split.batch(index)
    assert whole.ids is not None
    assert isinstance(whole.inputs, dict)
    assert isinstance(some.inputs, dict)
    assert some.inputs["text"] == whole.inputs["text"][index]
    assert isinstance(some.inputs["text"], Texts)
    assert some.ids is not None
    assert torch.equal(some.ids, whole.ids[index])


def test_classes_are_mapped_by_name_and_strangers_refused() -> None:
    home, other = small_texts(80), small_texts(60, seed=5)
    turned = replace(other, schema=replace(other.schema, classes=("wood", "sea")))
    straight, exchanged = laid_out("other", other, home).labels, laid_out("other", turned, home).labels
    assert straight is not None
    assert exchanged is not None
    assert torch.equal(exchanged, 1 - straight)
    with pytest.raises(DataError, match=r"shift 'x' has the classes 'sea', 'town', the data at home have 'sea', 'wood'") as found:
        laid_out("x", replace(other, schema=replace(other.schema, classes=("sea", "town"))), home)
    assert "'town' is not in both" in found.value.hint


def test_texts_have_their_places_and_not_their_columns_names() -> None:
    home, other = small_texts(80), small_texts(60, seed=5)
    named = replace(other.schema, texts=("review",))
    renamed = replace(other, schema=named, **{n: replace(s, rows=_called(s.rows, "review")) for n, s in other.splits.items()})
    batch = laid_out("other", renamed, home).batch(torch.arange(3))
    assert not isinstance(batch.inputs, Tensor)
    assert batch.inputs.keys() == {"text"}


def _called(rows: Any, name: str) -> Any:
    return lambda index: {name: rows(index)["text"]}


def test_data_of_another_form_are_refused_by_name() -> None:
    home = small_texts(80)
    with pytest.raises(DataError, match="shift 'pairs' is of the kind embedding, the data at home are of the kind classification"):
        laid_out("pairs", small_pairs(40), home)
    with pytest.raises(DataError, match="shift 'rows'"):
        laid_out("rows", small_table(40), home)


def test_what_is_lost_has_the_interval_of_both_and_more_is_worse_whichever_way_a_metric_counts() -> None:
    lost = _less(Figure(0.9, 0.88, 0.91), Figure(0.7, 0.6, 0.85), 1)
    assert (lost.value, lost.low, lost.high) == pytest.approx((0.2, 0.2 - np.hypot(0.02, 0.15), 0.2 + np.hypot(0.01, 0.1)))
    error = _less(Figure(1.0, 0.9, 1.2), Figure(1.5, 1.4, 1.8), -1)
    assert (error.value, error.low, error.high) == pytest.approx((0.5, 0.5 - np.hypot(0.2, 0.1), 0.5 + np.hypot(0.1, 0.3)))
    assert _less(Figure(None), Figure(0.5), 1) == Figure(None)
    assert _less(Figure(0.5), Figure(0.25, 0.2, 0.3), 1).low is None


def test_numbers_and_vectors_are_judged_elsewhere_as_well() -> None:
    home = small_table(200, kind="regression")
    model = fitted(SmallMLP(home.schema), home).eval()
    found = evaluate(module(model), module(model), home, shift={"later": moved(small_table(120, kind="regression", seed=3))})
    assert found.shift["later"].quality["rmse"].difference.value == 0
    assert found.shift["later"].lost.keys() == {"teacher", "student", "difference", "correlation"}
    pairs = small_pairs(160)
    teacher, student = module(small_text_teacher(pairs.schema)), module(small_text_model(pairs.schema))
    found = evaluate(student, teacher, pairs, shift={"later": moved(small_pairs(80, seed=3))})
    assert value(found.shift["later"].quality["spearman"].teacher) > 0.5
    assert found.shift["later"].fidelity.keys() == found.fidelity.keys()


def test_figures_elsewhere_are_those_of_the_metric_itself() -> None:
    home, other = small_pairs(160), moved(small_pairs(80, seed=3))
    teacher = small_text_teacher(home.schema)
    found = evaluate(module(small_text_model(home.schema)), module(teacher), home, shift={"other": other})
    texts, labels = everything(other)
    out = teacher(texts).detach().double().numpy()
    cosine = [round(float(a @ b / np.sqrt((a @ a) * (b @ b))), 6) for a, b in out]
    assert found.shift["other"].quality["spearman"].teacher.value == pytest.approx(spearmanr(cosine, labels.numpy())[0])
