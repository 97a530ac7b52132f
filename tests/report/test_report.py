"""The page: whole in itself, everything shown is escaped, every kind of task and every missing part, readable words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

import attar
from attar.certificate import Certificate, Figure, Foreign, Quality, Requirement, Shifted, Verdict, compare
from attar.certificate.harm import Cell, Family, Harm
from attar.cost import budget
from attar.data.base import Data, Memory, Split
from attar.errors import MissingExtra
from attar.identity import uniform
from attar.report import write_report
from attar.report.answers import replies
from attar.signal import NOTHING, Batch, Schema, Signal
from attar.sources import module
from attar.task import Task, classification, embedding, multilabel, regression
from attar.testing.certificates import small_certificate
from attar.testing.texts import small_pairs, small_text_model, small_text_teacher
from attar.verbs.evaluate import evaluate

ALWAYS = ["helped", "differs", "replaces", "cost", "identity"]
USUAL = ["helped", "differs", "harm", "reliability", "replaces", "cost", "tables", "limits", "identity"]
NOT_SAID = r"\b(nan|NaN|None|inf|Infinity|undefined|Figure)\b"
VOID = {"meta", "link", "br", "line", "circle", "rect", "path", "polygon", "img", "hr", "input"}


class Page(HTMLParser):
    """A page as a reader meets it: its tags with their attributes, its texts, and the tags that nobody closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def sections(page: Page) -> list[str | None]:
    return [attributes["id"] for attributes in page.named("section") if attributes.get("id")]


def figure(value: float | None, spread: float = 0.01, **facts: Any) -> Figure:
    return Figure(None, **facts) if value is None else Figure(value, value - spread, value + spread, **{"n": 6000, **facts})


def share(value: float, n: int = 600) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "unit": "", "n": n, "how": "Wilson interval"}


def certificate(**changes: Any) -> Certificate:
    quality = Quality(
        better=1,
        teacher=figure(0.8057, how="BCa bootstrap over rows"),
        student=figure(0.8045),
        difference=Figure(-0.0012, -0.0034, 0.0009, n=6000, how="paired score interval (Tango)"),
        files={"student.onnx": figure(0.8045), "student.int8.onnx": figure(0.8031)},
        arms={"student": figure(0.8056, n=3), "labels": figure(0.7770, n=3)},
        gains={"labels": Figure(0.0286, 0.0194, 0.0378, n=3, how="t over seeds and rows")},
        seeds={"student": (0.80, 0.81, 0.805), "labels": (0.77, 0.78, float("nan"))},
    )
    log_loss = replace(quality, better=-1, difference=Figure(0.02, 0.01, 0.03, n=6000), files={}, arms={}, gains={}, seeds={})
    time = {"latency_p95_ms": Figure(0.0134, 0.0131, 0.0137, "ms", 900, "1 thread"), "size_mb": Figure(0.0469, unit="MB")}
    bins = {"low": [0.0, 0.5], "high": [0.5, 1.0], "count": [3.0, 500.0], "said": [0.3, 0.8], "came": [0.0, 0.81]}
    values: dict[str, Any] = {
        "identity": {
            "task": 'classification(metric="accuracy")', "data": "d" * 32, "look": 2, "when": "2026-11-24T04:19:44+00:00",
            "rows": {"test": 6000, "labelled": 5900, "distinct": 5990},
            "teacher": {"text": 'lightgbm("teacher.txt")', "fingerprint": "t" * 32, "training_rows": "known"},
            "student": {
                "text": 'onnx("student")', "fingerprint": "s" * 32, "file": "student.onnx", "temperature": 1.25,
                "files": {"student.onnx": {"precision": "float32", "bytes": 46855, "temperature": 1.25, "digest": "s" * 32}},
            },
            "versions": {"attar": "0.1.0"}, "machine": "a machine", "classes": ["no", "yes"], "seeds": {"student": 3, "labels": 3},
        },
        "claim": {"metric": "accuracy", "margin": 0.005, "decision": "the likeliest outcome", "thresholds": {"teacher": None}},
        "non_inferior": Verdict("yes", "NON-INFERIOR to the teacher: accuracy 0.8045, the teacher's 0.8057", quality.difference, 0.005),
        "helped": Verdict("helped", "DISTILLATION HELPED: accuracy +0.0286", quality.gains["labels"], 0.005),
        "against": {"labels": Verdict("helped", "DISTILLATION HELPED: accuracy +0.0286", quality.gains["labels"], 0.005)},
        "quality": {"accuracy": quality, "log_loss": log_loss},
        "fidelity": {
            "agreement": figure(0.9936, 0.002), "agreement_teacher_right": figure(0.996, 0.001), "kl": Figure(0.0002, unit="nats", n=6000),
        },
        "calibration": {"teacher": {"ece": figure(0.017)}, "student raw": {"ece": figure(0.03)}, "student": {"ece": figure(0.0147)}},
        "cost": {
            "teacher": {"latency_p95_ms": Figure(0.0875, 0.08, 0.09, "ms", 900), "size_mb": Figure(2.11, unit="MB")},
            "student": time,
            "ratio": {"latency_p95_ms": Figure(6.52, 5.9, 7.0, "×"), "size_mb": Figure(45.0, unit="×")},
            "student.int8.onnx": {**time, "size_mb": Figure(0.0207, unit="MB")},
        },
        "requirements": (),
        "limits": ("no guard was fitted: the student answers every row",),
        "pictures": {
            "reliability": {"teacher": bins, "student raw": bins, "student": bins},
        },
        "harm": harm({"no": 0.995, "yes": 0.981}),
    }  # fmt: skip
    return Certificate(**{**values, **changes})


def harm(agreements: dict[str, float | None]) -> Harm:
    """By class: so much agreement, and the teacher right more often."""
    shares = figure(0.8), figure(0.7), figure(-0.1, how="paired score interval (Tango)")
    cells = [Cell("", name, 600, figure(a, n=600), *shares, 0.01, 0.02, "worse") for name, a in agreements.items()]
    return Harm({"class": Family("label", "accuracy", 1, tuple(cells), len(cells), next(iter(agreements)), figure(0.1))})


def written(tmp_path: Path, **changes: Any) -> Page:
    return Page(write_report(certificate(**changes), tmp_path).read_text(encoding="utf-8"))


def history(tmp_path: Path, arms: tuple[str, ...] = ("labels", "student"), seeds: int = 3, epochs: int = 30) -> None:
    lines = [
        {"arm": arm, "seed": seed, "epoch": e, "valid": 0.8 - 0.5 / e**2 - 0.001 * seed, "metric": "accuracy", "loss": 1.0}
        for arm in arms
        for seed in range(seeds)
        for e in range(1, epochs + 1 - seed)
    ]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"arm": "student", "se')


def test_the_four_questions_are_answered_at_the_top_with_their_evidence(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("student: mlp(width=64)\n")
    words = written(tmp_path).words
    order = [
        "Did distillation help?",
        "Where does the student differ from the teacher?",
        "What does it cost, and which student is this?",
        "May I put it in place of the teacher, under which guarantee?",
    ]
    assert sorted(order, key=words.index) == order
    assert "help? Yes: better than labels only +0.0286 [+0.0194, +0.0378] accuracy over labels only, 3 seeds" in words
    assert "teacher? On 0.6 % of decisions 99.4 % [99.2, 99.6] of decisions alike 99.6 % [99.5, 99.7] where the teacher is right" in words
    assert "Of classes the least is 98.1 % [97.1, 99.1], on “yes”. 2 of 2 classes are served worse" in words
    assert "Not asked: rows from elsewhere, corruptions, foreign rows, groups." in words
    assert "which student is this? 6.5× faster, 45× smaller 13.4 µs [13.1, 13.7] for one row, 95th percentile" in words
    assert "the teacher takes 87.5 µs [80, 90]" in words
    assert "It is student.onnx, mlp(width=64), float32, fitted temperature 1.250, fingerprint ssssssssssss." in words
    assert "under which guarantee? Yes: worse by less than 0.005 −0.0012 [−0.0034, +0.0009] accuracy, student − teacher" in words
    assert "of the single answer nothing is guaranteed" in words


@pytest.mark.parametrize(
    ("helped", "word"),
    [("no difference", "No: no difference"), ("hurt", "No: it hurt"), ("insufficient evidence", "Insufficient evidence")],
)
def test_a_verdict_is_a_word_and_not_only_a_colour(tmp_path: Path, helped: Any, word: str) -> None:
    verdict = Verdict(helped, f"{helped.upper()} by distillation: accuracy +0.0001. About 9 seeds would suffice.", figure(0.0001), 0.005)
    page = written(tmp_path, helped=verdict, against={"labels": verdict})
    assert f"Did distillation help? {word} +0.0286 [+0.0194, +0.0378]" in page.words
    assert "About 9 seeds would suffice. Labels only is the only control that was trained." in page.words


def test_the_gain_that_is_told_is_the_least_one(tmp_path: Path) -> None:
    q = certificate().quality["accuracy"]
    gains = {"labels": figure(0.03), "hard": figure(0.02), "smooth": figure(0.04)}
    against = {name: Verdict("helped", f"DISTILLATION HELPED: accuracy {f.value}", f, 0.005) for name, f in gains.items()}
    told = replies(certificate(against=against, quality={"accuracy": replace(q, gains=gains)}))[0]
    assert (told.word, told.figure) == ("Yes: better than each control", "+0.0200 [+0.0100, +0.0300]")
    assert told.of.startswith("accuracy over hard teacher labels")
    assert told.text == "+0.0300 [+0.0200, +0.0400] over labels only, +0.0400 [+0.0300, +0.0500] over label smoothing."


def test_an_answer_of_which_less_is_better_has_the_sign_of_its_table(tmp_path: Path) -> None:
    q = replace(certificate().quality["accuracy"], better=-1)
    told = replies(certificate(quality={"accuracy": q}))[3]  # the verdict's difference is turned: more is better
    assert told.figure == "+0.0012 [−0.0009, +0.0034]"
    assert told.of.startswith("accuracy (less is better), student − teacher")


def test_what_was_not_asked_is_said_and_no_verdict(tmp_path: Path) -> None:
    q = replace(certificate().quality["accuracy"], gains={}, arms={}, seeds={})
    unsure = Verdict("insufficient evidence", "INSUFFICIENT EVIDENCE that distillation helped: no control was trained beside the student")
    told = replies(certificate(helped=unsure, against={}, quality={"accuracy": q}))[0]
    assert (told.tone, told.word, told.figure) == ("unasked", "Not asked", "")
    assert "rows from elsewhere" not in replies(certificate(shift=somewhere("books")))[1].text.split("Not asked")[1]


def test_no_figure_of_an_answer_stands_without_its_interval(tmp_path: Path) -> None:
    for reply in replies(certificate(shift=somewhere("books"))):
        assert re.fullmatch(r".+ \[.+, .+\]", reply.figure), reply


def test_what_is_required_is_listed_and_withholds_the_yes(tmp_path: Path) -> None:
    required = (Requirement("worse by less than 0.005", "met", ""), Requirement("size_mb ≤ 0.02", "not met", "It is 0.0469."))
    words = written(tmp_path, requirements=required).words
    assert "size_mb ≤ 0.02 not met. It is 0.0469." in words
    assert "guarantee? As good, but not as required" in words
    assert "which student is this? Over budget, 6.5× faster" in words


def test_hostile_names_are_shown_and_never_run(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    classes = harm({f"{evil}{k}": 0.9 for k in range(2)})
    q = certificate().quality["accuracy"]
    arms = replace(q, arms={**q.arms, evil: figure(0.7)}, gains={**q.gains, evil: figure(0.1)}, seeds={**q.seeds, evil: (0.7, 0.7, 0.7)})
    (tmp_path / "recipe.yaml").write_text(f'data: table("{evil}.csv")  # </pre><img src=x onerror=alert(1)>\n')
    history(tmp_path, ("student", evil, '"><svg onload=alert(1)>'))
    c = certificate()
    identity = {**c.identity, "classes": [evil], "machine": evil, "teacher": {"text": evil, "fingerprint": "t", "training_rows": evil}}
    page = written(
        tmp_path, harm=classes, identity=identity, limits=(evil,),
        helped=Verdict("hurt", evil), against={}, quality={"accuracy": arms, evil: arms}, cost={**c.cost, evil: c.cost["student"]},
        calibration={"student": {evil: figure(0.1)}}, requirements=(Requirement(evil, "met", evil),),
    )  # fmt: skip
    assert not page.named("script")
    assert not page.named("img")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.words.count('<script>alert("1")</script>') >= 6
    assert page.open == []


@pytest.mark.parametrize("name", ["report.html"])
def test_the_page_needs_nothing_else(tmp_path: Path, name: str) -> None:
    history(tmp_path)
    (tmp_path / "recipe.yaml").write_text("student: mlp(width=64)\n")
    page = written(tmp_path)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert re.findall(r"https?:|@import|url\((?!#)|//\w", text) == []
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "img")
        for key in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:,"))
    assert len(text.encode()) < 300_000
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_every_section_and_picture_is_there(tmp_path: Path) -> None:
    history(tmp_path)
    (tmp_path / "recipe.yaml").write_text("student: mlp(width=64)\n")
    page = written(tmp_path)
    assert sections(page) == USUAL
    headings = ["Gain over the controls", "Learning curves", "Agreement by class", "Teacher", "Student, raw", "Student, as it ships"]
    for heading in [*headings, "Cost against quality", "Student against teacher", "The recipe"]:
        assert heading in page.words
    assert "mlp(width=64)" in page.words
    pictures = [svg for svg in page.named("svg") if svg.get("role") == "img"]
    assert len(pictures) == 10
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    for picture in pictures:  # each says what it shows to those who do not see it
        assert set((picture["aria-labelledby"] or "").split()) <= set(ids)
    assert len(page.named("caption")) == len(page.named("table")) == 6
    assert all(th.get("scope") in ("col", "row") for th in page.named("th"))


def test_every_link_of_the_page_leads_somewhere(tmp_path: Path) -> None:
    history(tmp_path)
    page = written(tmp_path, shift=somewhere("books"))
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] or "" for attributes in page.named("a")]
    assert len(links) >= 4 + 6  # the questions, and from the pictures to the tables
    assert {link.removeprefix("#") for link in links} <= ids


def test_pictures_come_first_and_tables_after(tmp_path: Path) -> None:
    history(tmp_path)
    page = written(tmp_path, shift=somewhere("books"))
    tags = [tag if attributes.get("role") != "img" else "picture" for tag, attributes in page.tags]
    assert max(k for k, tag in enumerate(tags) if tag == "picture") < tags.index("table")
    assert sections(page).index("tables") < sections(page).index("limits")


def test_a_certificate_with_little_in_it_makes_a_page_with_little_in_it(tmp_path: Path) -> None:
    nothing = Figure(None)
    none = Quality(1, nothing, nothing, nothing)
    bare = {
        "task": "classification()", "data": "d", "look": None, "rows": {"test": 10, "labelled": 0},
        "teacher": {"text": "t", "fingerprint": "t"}, "student": {"text": "s", "fingerprint": "s"}, "versions": {}, "machine": "m",
    }  # fmt: skip
    unsure = Verdict("insufficient evidence", "INSUFFICIENT EVIDENCE: no test row has a label")
    empty: dict[str, Any] = {
        "identity": bare, "claim": {"metric": "accuracy", "decision": "d"}, "non_inferior": unsure, "helped": unsure, "against": {},
        "calibration": {}, "cost": {}, "fidelity": {}, "pictures": {}, "limits": (), "harm": None,
    }  # fmt: skip
    for k, quality in enumerate([{}, {"accuracy": none}]):
        page = written(tmp_path, **empty, quality=quality)
        assert [s for s in sections(page) if s != "tables"] == ALWAYS
        assert page.words.count("In numbers") == 2 * bool(quality)
        assert "under which guarantee? Insufficient evidence No test row has a label." in page.words
        assert "which student is this? Not measured" in page.words
        assert re.search(NOT_SAID, page.words) is None, k


def test_figures_that_are_not_there_are_dashes(tmp_path: Path) -> None:
    history(tmp_path, seeds=1, epochs=1)
    q = certificate().quality["accuracy"]
    one = replace(
        q,
        gains={"labels": Figure(0.0286, n=1)},
        seeds={"student": (0.8,), "labels": (0.77,)},
        arms={"student": Figure(0.8, n=1), "labels": Figure(0.7, n=1)},
    )
    cost = {
        "teacher": {"latency_p95_ms": Figure(None, unit="ms"), "memory_mb": Figure(0.0, unit="MB")},
        "student": certificate().cost["student"],
    }
    page = written(
        tmp_path,
        quality={"accuracy": one, "recall": Quality(1, Figure(None), Figure(None), Figure(None))},
        cost=cost,
        harm=harm({"no": 0.9, "rare": None}),
    )
    assert "–" in page.words
    assert "One seed has no interval." in page.words
    assert re.search(NOT_SAID, page.words) is None
    drawn = next(text for text in page.texts if text.startswith("no: 90.0"))
    assert "rare" not in drawn  # no row, nothing to draw


def test_many_classes_are_cut_to_those_that_agree_least(tmp_path: Path) -> None:
    page = written(tmp_path, harm=harm({f"class {k}": 0.5 + k / 4000 for k in range(1000)}))
    assert "the 24 of 1,000 with the greatest loss" in page.words
    assert "class 23" in page.words
    assert "class 24" not in page.words
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_right_is_better_in_pictures_of_differences_and_tables_keep_the_sign(tmp_path: Path) -> None:
    page = written(tmp_path)  # log-loss is 0.02 higher than the teacher's, and less is better
    described = next(text for text in page.texts if text.startswith("accuracy: −0.0012"))
    assert "log-loss, nats: −0.0200 [−0.0300, −0.0100]" in described
    assert "+0.0200 [+0.0100, +0.0300]" in page.words


@dataclass(frozen=True)
class Toy:
    """A source that answers with its rows and a little noise."""

    fingerprint: str
    noise: float

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        inputs = batch.inputs
        assert isinstance(inputs, torch.Tensor)
        assert batch.ids is not None
        columns = range(inputs.shape[1])
        noise = np.stack([special.ndtri(uniform(batch.ids.numpy(), f"{self.fingerprint} {k}")) for k in columns], -1)
        return Signal(inputs + self.noise * torch.tensor(noise, dtype=torch.float32))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        return lambda: self(batch)


def judged(task: Task, columns: int, classes: tuple[str, ...]) -> Certificate:
    if task.kind == "embedding":
        data = small_pairs(300)
        arms = {name: [module(small_text_model(data.schema, seed)) for seed in range(2)] for name in ("student", "labels")}
        return evaluate(module(small_text_model(data.schema)), module(small_text_teacher(data.schema)), data, task, arms=arms)
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(700, columns)) * 1.5, dtype=torch.float32)
    y = {
        "regression": lambda: x[:, 0] + torch.tensor(rng.normal(size=700), dtype=torch.float32),
        "multilabel": lambda: (torch.sigmoid(x) > torch.tensor(rng.random(x.shape))).long(),
        "classification": lambda: torch.tensor(rng.integers(len(classes), size=700)),
    }[task.kind]()
    schema = Schema("tensor", shape=(columns,), classes=classes)

    def split(name: str, low: int, high: int) -> Split:
        return Split(name, torch.arange(low, high), y[low:high], None, schema, Memory(x[low:high]))

    parts = split("train", 0, 1), split("valid", 1, 300), split("calibration", 300, 301), split("test", 301, 700)
    data = Data(schema, task.kind, *parts, "fingerprint")
    arms = {"student": [Toy(f"s{i}", 0.3) for i in range(2)], "labels": [Toy(f"c{i}", 0.9) for i in range(2)]}
    return evaluate(Toy("s", 0.3), Toy("t", 0.1), data, task, arms=arms, budget=budget(latency_ms=1000))


@pytest.mark.parametrize(
    ("task", "columns", "classes"),
    [
        (classification(metric="auroc", recall_at_fpr=0.05), 1, ("no", "yes")),
        (classification(), 4, ("a", "b", "c", "d")),
        (multilabel(), 3, ("red", "green", "blue")),
        (regression(), 1, ()),
        (embedding(), 0, ()),
    ],
)
def test_the_certificate_of_every_kind_of_task_makes_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task, columns: int, classes: tuple[str, ...]
) -> None:
    monkeypatch.setattr("attar.verbs.evaluate.COST_SECONDS", 0.02)
    monkeypatch.setattr("attar.verbs.evaluate.scoring.RESAMPLES", 200)
    found = judged(task, columns, classes)
    found.write(tmp_path / "certificate.json")
    path = write_report(Certificate.read(tmp_path / "certificate.json"), tmp_path)
    assert path == tmp_path / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    further = ["evidence"] if task.kind == "classification" else []
    without = {"reliability"} if task.kind not in ("classification", "multilabel") else set()
    without |= {"harm"} if found.harm is None else set()
    assert sections(page) == [s for s in [*USUAL[:-3], *further, *USUAL[-3:]] if s not in without]
    assert re.search(NOT_SAID, page.words) is None
    assert ("Number by number" in page.words) == (task.kind == "regression")
    assert ("Similarity by similarity" in page.words) == (task.kind == "embedding")
    assert ("Agreement by class" in page.words) == (task.kind not in ("regression", "embedding"))
    assert path.stat().st_size < 300_000
    again = path.read_bytes()
    write_report(Certificate.read(tmp_path / "certificate.json"), tmp_path)
    assert path.read_bytes() == again  # the same certificate makes the same page


def somewhere(name: str, labelled: bool = True) -> dict[str, Shifted]:
    c = certificate()
    lost = {"teacher": figure(0.02), "student": figure(0.05), "difference": figure(0.03), "agreement": figure(0.01)}
    quality = {"accuracy": c.quality["accuracy"]} if labelled else {}
    return {name: Shifted("data", "f" * 32, 900, 900 if labelled else 0, 7, quality, c.fidelity, lost)}


def test_rows_from_elsewhere_have_a_picture_and_a_table(tmp_path: Path) -> None:
    page = written(tmp_path, shift=somewhere("<books>"))
    assert "On rows from elsewhere" in page.words
    assert "shift" in sections(page)
    assert "Accuracy at home and elsewhere" in page.words
    assert "<books>" in page.words
    assert "7 rows that student or teacher had learned from are left out." in page.words
    assert {"shift-t shift-d", "elsewhere-t elsewhere-d"} <= {svg.get("aria-labelledby") for svg in page.named("svg")}
    (tmp_path / "again").mkdir()
    assert "shift" not in sections(written(tmp_path / "again"))


def test_rows_from_elsewhere_without_labels_show_likeness_alone(tmp_path: Path) -> None:
    page = written(tmp_path, shift=somewhere("books", labelled=False))
    assert "agreement with the teacher" in page.words
    assert "elsewhere-t elsewhere-d" not in {svg.get("aria-labelledby") for svg in page.named("svg")}  # it would say the same
    assert "student − teacher" not in page.words.split("At home and elsewhere rows")[1].split("Calibration of")[0]


def strange() -> dict[str, Foreign]:
    def both(value: float, better: int, teacher: float | None = 0.9) -> Quality:
        how = "BCa bootstrap; raw logits, T = 1"
        difference = None if teacher is None else value - teacher
        return Quality(better, figure(teacher, how=how), figure(value, how=how), figure(difference, how=how))

    detectors = {
        "energy": {"auroc": both(0.91, 1), "fpr_at_95": both(0.31, -1)},
        "confidence": {"auroc": both(0.89, 1), "fpr_at_95": both(0.29, -1)},
        "knn": {"auroc": both(0.93, 1, None), "fpr_at_95": both(0.21, -1, None)},
    }
    curve = {"foreign": (0.0, 0.2, 1.0), "home": (0.0, 0.8, 1.0)}
    whole = Foreign("f" * 32, 900, 6000, 3, None, detectors, {"teacher": curve, "student": curve}, ("the teacher shows no features",))
    return {"<letters>": whole, "few": Foreign("f" * 32, 12, 6000, 0, 30)}


def test_foreign_rows_have_a_curve_and_a_table_and_too_few_of_them_say_so(tmp_path: Path) -> None:
    page = written(tmp_path, foreign=strange())
    assert "Does it notice inputs that are not of the task?" in page.words
    assert "<letters>: 900 foreign rows beside 6,000 test rows" in page.words
    assert "nearest neighbours – 0.9300" in page.words
    assert "The teacher shows no features. 3 rows that are among those at home" in page.words
    assert "Energy: raw logits, T = 1." in page.words
    assert "INSUFFICIENT EVIDENCE: 12 foreign and 6,000 test rows; at least 30 of each are needed." in page.words
    assert [svg["aria-labelledby"] for svg in page.named("svg") if "foreign" in str(svg.get("aria-labelledby"))] == [
        "foreign-0-t foreign-0-d"
    ]
    assert page.open == []
    assert re.search(NOT_SAID, page.words) is None
    (tmp_path / "again").mkdir()
    assert "not of the task" not in written(tmp_path / "again").words


def test_without_labels_the_page_says_so_and_shows_by_what_epochs_were_chosen(tmp_path: Path) -> None:
    lines = [{"arm": "student", "seed": 0, "epoch": e, "valid": 0.5 + 0.01 * e, "metric": "agreement"} for e in range(1, 9)]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = written(tmp_path, quality={}, against={}, calibration={})
    assert "No test row has a label, so that student and controls cannot be compared." in page.words
    assert "Learning curves" in page.words
    assert "Best validation agreement" in page.words
    assert re.search(NOT_SAID, page.words) is None


def test_what_a_terminal_would_obey_is_shown_as_signs(tmp_path: Path) -> None:
    c = small_certificate()
    name = "a\x1b[31m\x07\x9b2J\u202eb\nc"
    hostile = replace(c, limits=(f"groups {name}: not compared",), identity={**c.identity, "classes": [name, "yes"]})
    hostile = replace(hostile, shift={name: Shifted("data", "d", 40, 0, 0, {}, {"agreement": Figure(0.9, 0.8, 0.95, n=40)}, {})})
    obeyed = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
    hostile.write(tmp_path / "certificate.json")
    said = "\n".join([*hostile.lines(), *compare(tmp_path, tmp_path).lines()])
    page = write_report(hostile, tmp_path).read_text(encoding="utf-8")
    for text in (said, page):
        assert obeyed.search(text) is None
    assert "␛[31m␇\ufffd2J\ufffdb" in said
    assert "␛[31m␇" in page


def test_the_history_may_lie_elsewhere_and_one_without_this_metric_draws_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    history(tmp_path)
    assert "Learning curves" not in written(tmp_path / "run").words
    page = Page(write_report(certificate(), tmp_path / "run", history=tmp_path / "history.jsonl").read_text(encoding="utf-8"))
    assert "Learning curves" in page.words
    other = {**certificate().claim, "metric": "log_loss"}
    assert "Learning curves" not in written(tmp_path, claim=other).words


def test_without_jinja2_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match="jinja2") as caught:
        write_report(certificate(), tmp_path)
    assert "attar[report]" in caught.value.hint


def test_a_wheel_carries_the_templates(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    root = Path(attar.__file__).parents[2]
    if not (root / "pyproject.toml").exists():
        pytest.skip("not a checkout")
    assert builder
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=root, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"attar/report/templates/{name}" for name in ("report.html", "style.css", "pieces.html", "sections/helped.html")} <= set(names)
