"""How far accuracy told without labels can be believed: `python benchmarks/shift.py [--data FOLDER]`.

Pairs of a teacher and a student that learned from it or beside it, on digits, credit customers and film reviews; every corruption at five
severities, 1,000 test rows each, and reviews of other things. With --data, a folder that holds medmnist_pneumonia/pneumoniamnist.npz and
heart_uci_4site/processed.*.data, also on X-rays and on patients of four hospitals; and with nslkdd/raw, ethereum_fraud and
clinc150/data/data_full.json in it on data that were not looked at when the alarm's thresholds were chosen: connections, later ones with
attacks of other types, accounts, and sentences of 150 intents.

Printed for each data set, and for pairs with and without alarm: the mean of |estimate − accuracy by labels| of four ways to tell it without
labels: the accuracy at home; the bare agreement; home's accuracy less what the student's mean confidence lost (difference of
confidences, Guillory et al. 2021); and `agreement_accuracy`. Then what the alarm catches, for thresholds around those chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import attar
from attar.cost import machine
from attar.data import Data, Split, corruptions
from attar.statistics.shift import CONFIDENCE, DECISIONS, agreement_accuracy, departure
from attar.verbs.evaluate import fitted

RECIPES = Path(__file__).parent.parent / "recipes" / "data"
Ask = Callable[[Any, Any], np.ndarray]
"""(model, raw rows) → (N, C) probabilities."""


class Cell(NamedTuple):
    """One pair under one corruption or on one other data set."""

    data: str
    truth: float
    home: float
    agreement: float
    confidences: float
    told: float
    decisions: float
    confidence: float

    def off(self, way: str) -> float:
        return abs(getattr(self, way) - self.truth)

    def alarm(self, decisions: float = DECISIONS, confidence: float = CONFIDENCE) -> bool:
        return self.decisions > decisions or self.confidence > confidence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of X-rays and hospitals")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    print(f"python {' '.join(sys.argv)} · {machine()}\n")
    held_out: list[Cell] = []
    cells = [*digits("digits", attar.data.mnist5k(test=0.4).read()), *credit(), *reviews()]
    if options.data is not None:
        found = np.load(options.data / "medmnist_pneumonia" / "pneumoniamnist.npz")
        x, y = (np.concatenate([found[f"{part}_{what}"] for part in ("train", "val", "test")]) for what in ("images", "labels"))
        cells += [*digits("X-rays", attar.data.arrays(x, y.ravel()).read()), *hospitals(options.data / "heart_uci_4site")]
    table(cells)
    for name, make in (("nslkdd", connections), ("ethereum_fraud", accounts), ("clinc150", intents)):
        if options.data is not None and (options.data / name).is_dir():
            held_out += make(options.data / name)
    if held_out:
        print("\nnot looked at when the thresholds were chosen")
        table(held_out)


def table(cells: Sequence[Cell]) -> None:
    """A line for each data set, believed and not, and what other thresholds would do."""
    ways = ("home", "agreement", "confidences", "told")
    print(f"{'mean |estimate − truth|':<30}{'cells':>6}" + "".join(f"{way:>13}" for way in ways))
    for name in [*dict.fromkeys(cell.data for cell in cells), ""]:
        for alarm in (False, True):
            these = [c for c in cells if c.data == (name or c.data) and c.alarm() is alarm]
            if these:
                said = f"{name or 'all'}, {'alarm' if alarm else 'believed'}"
                print(f"{said:<30}{len(these):>6}" + "".join(f"{np.mean([c.off(way) for c in these]):>13.3f}" for way in ways))
    print(
        f"\n{'thresholds':<24}{'believed':>9}{'off by':>8}{'95 in 100 by':>14}{'most':>7}{'of off > .1, alarmed':>22}{'of off < .05':>14}"
    )
    for decisions in (0.03, 0.05, 0.075, 0.1):
        for confidence in (0.05, 0.1, 0.2):
            threshold(cells, decisions, confidence)


def threshold(cells: Sequence[Cell], decisions: float, confidence: float) -> None:
    alarm, off = np.array([c.alarm(decisions, confidence) for c in cells]), np.array([c.off("told") for c in cells])
    kept = off[~alarm]
    numbers = f"{len(kept):>9}{kept.mean():>8.3f}{np.quantile(kept, 0.95):>14.3f}{kept.max():>7.3f}"
    print(f"{f'{decisions:g}, {confidence:g}':<24}{numbers}{alarm[off > 0.1].mean():>22.0%}{alarm[off < 0.05].mean():>14.0%}")


def told(name: str, data: Data, teachers: Sequence[Any], students: Sequence[Any], ask: Ask, elsewhere: dict[str, Split]) -> Iterator[Cell]:
    """Every pair under every corruption and on every other data set."""
    ready = corruptions().of(data)
    some = ready.some(data.test)
    splits = [ready.split(some, kind, severity) for kind in ready.changes for severity in ready.spec.severities]
    splits += elsewhere.values()
    rows = [_rows(split) for split in splits]
    at_home, y = _rows(data.test), _labels(data.test)
    answers = {id(model): (ask(model, at_home), [ask(model, x) for x in rows]) for model in (*teachers, *students)}
    for teacher in teachers:
        for student in students:
            (ht, here_t), (hs, here_s) = answers[id(teacher)], answers[id(student)]
            home = float((hs.argmax(1) == y).mean())
            for split, t, s in zip(splits, here_t, here_s, strict=True):
                alike = t.argmax(1) == s.argmax(1)
                moved = departure((ht.argmax(1), ht.max(1)), (t.argmax(1), t.max(1)), t.shape[1])
                yield Cell(
                    data=name,
                    truth=float((s.argmax(1) == _labels(split)).mean()),
                    home=home,
                    agreement=float(alike.mean()),
                    confidences=home - float(hs.max(1).mean() - s.max(1).mean()),
                    told=agreement_accuracy(ht.argmax(1) == hs.argmax(1), hs.argmax(1) == y, alike)[0],
                    decisions=moved.decisions,
                    confidence=moved.confidence,
                )


def digits(name: str, data: Data) -> Iterator[Cell]:
    """Convolutional teachers; students that learned from the first of them."""
    x, classes = _pixels(_rows(data.train)), len(data.schema.classes)
    hard = torch.nn.functional.one_hot(torch.from_numpy(_labels(data.train)), classes).float()
    teachers = [_learn(_cnn(24, 2, classes), x, hard, 8), _learn(_cnn(32, 3, classes), x, hard, 4)]
    soft = torch.from_numpy(_asked(teachers[0], _rows(data.train))).float()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 32), nn.ReLU(), nn.Linear(32, classes))
    students = [_learn(_cnn(6, 2, classes), x, soft, 8), _learn(flat, x, soft, 10), _learn(_cnn(4, 1, classes), x, soft, 4)]
    return told(name, data, teachers, students, _asked, {})


def credit() -> Iterator[Cell]:
    """A boosted teacher; linear, neural and smaller boosted students."""
    data = attar.data.table(str(RECIPES / "credit.csv.gz"), label="default").read()
    x, y = _flat(_rows(data.train)), _labels(data.train)
    teacher = HistGradientBoostingClassifier(random_state=0).fit(x, y)
    said = teacher.predict(x)
    students = [
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=300)).fit(x, said),
        make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((32,), max_iter=15, random_state=0)).fit(x, y),
        HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=8, random_state=0).fit(x, said),
    ]
    return told("credit", data, [teacher], students, lambda model, rows: model.predict_proba(_flat(rows)), {})


def connections(folder: Path) -> Iterator[Cell]:
    """Is it an attack? Later connections have types of attack that were not there in training."""

    def read(name: str) -> Data:
        frame = pd.read_csv(folder / "raw" / name, header=None).drop(columns=42)
        frame.columns = [f"x{i}" for i in range(41)] + ["y"]
        frame["y"] = np.where(frame["y"] == "normal", "normal", "attack")
        return attar.data.frame(frame, label="y").read()

    data = read("KDDTrain+_20Percent.txt")
    return _boosted("connections", data, {"later": fitted("later", read("KDDTest+.txt"), data)})


def accounts(folder: Path) -> Iterator[Cell]:
    """Is it a fraud?"""
    frame = pd.read_csv(folder / "transaction_dataset.csv")
    frame = frame.select_dtypes("number").drop(columns=["Index", "Unnamed: 0"], errors="ignore")
    return _boosted("accounts", attar.data.frame(frame, label="FLAG").read(), {})


def intents(folder: Path) -> Iterator[Cell]:
    """Which of 150 things is wanted? Teachers of words and of letters, students of fewer words."""
    found = json.loads((folder / "data" / "data_full.json").read_text(encoding="utf-8"))
    rows = [row for part in ("train", "val", "test") for row in found[part]]
    with tempfile.TemporaryDirectory() as at:
        path = Path(at) / "intents.jsonl"
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows), encoding="utf-8")
        data = attar.data.text(str(path), text="text", label="label").read()
    return _written("intents", data, {})


def _boosted(name: str, data: Data, elsewhere: dict[str, Split]) -> Iterator[Cell]:
    x, y = _flat(_rows(data.train)), _labels(data.train)
    teacher = HistGradientBoostingClassifier(random_state=0).fit(x, y)
    said, filled = teacher.predict(x), SimpleImputer(keep_empty_features=True)
    students = [
        make_pipeline(filled, StandardScaler(), LogisticRegression(max_iter=300)).fit(x, said),
        HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=4, random_state=0).fit(x, said),
    ]
    return told(name, data, [teacher], students, lambda model, rows: model.predict_proba(_flat(rows)), elsewhere)


def hospitals(folder: Path) -> Iterator[Cell]:
    """Patients of Cleveland, and of three hospitals elsewhere."""
    names = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"]

    def read(place: str, valid: float = 0.1, calibration: float = 0.1, test: float = 0.2) -> Data:
        frame = pd.read_csv(folder / f"processed.{place}.data", header=None, names=names, na_values="?")
        frame["num"] = np.where(frame["num"] > 0, "sick", "well")
        return attar.data.frame(frame, label="num", valid=valid, calibration=calibration, test=test).read()

    data = read("cleveland", 0.05, 0.05, 0.4)
    elsewhere = {place: fitted(place, read(place), data) for place in ("hungarian", "switzerland", "va")}
    x, y = _flat(_rows(data.train)), _labels(data.train)
    filled = SimpleImputer(keep_empty_features=True)
    teacher = make_pipeline(filled, RandomForestClassifier(400, min_samples_leaf=3, random_state=0)).fit(x, y)
    said = teacher.predict(x)
    students = [
        make_pipeline(filled, StandardScaler(), LogisticRegression(C=0.1)).fit(x, said),
        make_pipeline(filled, RandomForestClassifier(3, max_depth=3, random_state=1)).fit(x, said),
    ]
    return told("hospitals", data, [teacher], students, lambda model, rows: model.predict_proba(_flat(rows)), elsewhere)


def reviews() -> Iterator[Cell]:
    """Films at home; products, tweets and newspapers elsewhere. Teachers of words and of letters, students of fewer words."""

    def read(name: str) -> Data:
        return attar.data.text(str(RECIPES / "vader" / f"{name}.tsv"), text="text", label="label", unlabelled="keep").read()

    data = read("movies")
    data = replace(data, train=_labelled(data.train), test=_labelled(data.test))
    elsewhere = {name: _labelled(fitted(name, read(name), data)) for name in ("amazon", "tweets", "nyt")}
    elsewhere = {name: split.take(torch.arange(min(1500, len(split)))) for name, split in elsewhere.items()}
    return _written("reviews", data, elsewhere)


def _written(name: str, data: Data, elsewhere: dict[str, Split]) -> Iterator[Cell]:
    x, y = list(_rows(data.train)["text"]), _labels(data.train)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    teachers = [make_pipeline(reads, LogisticRegression(C=10, max_iter=300)).fit(x, y) for reads in (words, letters)]
    few = HashingVectorizer(n_features=2048), TfidfVectorizer(max_features=1000)
    answers = teachers[1].predict(x), y
    students = [make_pipeline(reads, LogisticRegression(max_iter=300)).fit(x, said) for reads, said in zip(few, answers, strict=True)]
    return told(name, data, teachers, students, lambda model, rows: model.predict_proba(list(rows["text"])), elsewhere)


def _rows(split: Split) -> Any:
    return split.rows(torch.arange(len(split)))


def _labels(split: Split) -> np.ndarray:
    assert split.labels is not None
    return split.labels.numpy()


def _labelled(split: Split) -> Split:
    return split.take(torch.from_numpy(np.flatnonzero(_labels(split) >= 0)))


def _flat(rows: Any) -> np.ndarray:
    return np.concatenate([block.double().numpy() for block in rows.values()], 1)


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def _cnn(width: int, depth: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Conv2d(width if k else 1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * width, classes))


def _learn(net: nn.Module, x: torch.Tensor, targets: torch.Tensor, epochs: int) -> nn.Module:
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            (-(targets[at] * torch.log_softmax(net(x[at]), 1)).sum(1).mean()).backward()
            optimizer.step()
    return net.eval()


def _asked(net: nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(torch.cat([net(_pixels(part)) for part in images.split(500)]), 1).double().numpy()


if __name__ == "__main__":
    main()
