"""Boosted trees as sources: LightGBM text files and XGBoost JSON or UBJ files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from attar.errors import MissingExtra, TeacherError
from attar.identity import digest
from attar.notation import InPath, say
from attar.signal import NOTHING, Batch, Schema, Signal
from attar.sources.answers import as_logits, checked, home_of, no_taps, order_of, said
from attar.sources.boosting import Growing
from attar.sources.features import Feature, matrix
from attar.sources.tree_files import bytes_of, fault_of, head_of, load_lightgbm, text_of_file, whole

__all__ = ["LightGBM", "XGBoost", "lightgbm", "xgboost"]

FEW_ROWS = 10_000  # below it waking threads costs more than they save

# ------------------------------------------------------------------------------------------------------------------------ lightgbm


@overload
def lightgbm(path: str, *, classes: list[str] | None = None) -> LightGBM: ...
@overload
def lightgbm(
    path: None = None,
    *,
    trees: int = ...,
    leaves: int = ...,
    learning_rate: float = ...,
    min_rows: int = ...,
    column_share: float = ...,
    row_share: float = ...,
    l2: float = ...,
) -> Growing: ...
def lightgbm(
    path: InPath | None = None,
    *,
    classes: list[str] | None = None,
    trees: int = 600,
    leaves: int = 15,
    learning_rate: float = 0.05,
    min_rows: int = 50,
    column_share: float = 0.5,
    row_share: float = 0.8,
    l2: float = 1.0,
) -> LightGBM | Growing:
    """With a path the boosted trees in a LightGBM text file: raw scores as (B, C) logits, of a regression predictions (B, 1).
    Without one a description of trees to grow: `taught(lightgbm(trees=600), at="teacher.txt")`.

    path: as `Booster.save_model` writes it. Features are matched to columns by name (LightGBM writes blanks as "_"), pandas categories
        by their text; a category that the file does not know counts as missing, as in LightGBM itself.
    classes: with a path, names of the file's outcomes in their order, by the data's names; left out, the data's own order.
    trees: boosting rounds of the whole teacher, shared among its folds; of several classes each round is a tree for each.
    leaves, learning_rate, min_rows (in a leaf), column_share and row_share (drawn for each tree, 0..1), l2: as in LightGBM.

    Binary z is answered as [0, z], exactly what sigmoid makes of it; one-against-all as log σ(z). Nothing in the file is executed.
    Raises TeacherError for a file that is not such a text, or whose columns, outcomes or objective are not the data's.

    >>> lightgbm(trees=300)
    lightgbm(trees=300, leaves=15, learning_rate=0.05, min_rows=50, column_share=0.5, row_share=0.8, l2=1.0)
    """
    growing = Growing(trees, leaves, learning_rate, min_rows, column_share, row_share, l2)
    if path is None:
        if classes is not None:
            raise TeacherError("lightgbm(classes=…) without a path", hint="trees that are still to grow take the data's classes")
        return growing
    if growing != Growing():
        raise TeacherError(f'lightgbm("{path}", …) is grown already: only classes= goes with a path', hint=f"without the path: {growing}")
    return LightGBM.read(path, classes)


@dataclass(frozen=True, eq=False)
class LightGBM:
    """See `lightgbm`. booster: LightGBM's own, for whoever wants to export it."""

    path: str
    classes: tuple[str, ...] | None
    booster: Any
    features: tuple[Feature, ...]
    objective: str
    digest: str
    size_bytes: int

    training_ids = None  # of a model from elsewhere nobody knows
    parameters = None  # trees are not counted in numbers learnt

    @classmethod
    def read(cls, path: str, classes: Sequence[str] | None = None) -> LightGBM:
        """Open a text file; see `lightgbm`."""
        return cls.parse(text_of_file(path, "tree\n", "LightGBM", "Booster.save_model(path) writes one"), path, classes)

    @classmethod
    def parse(cls, text: str, path: str, classes: Sequence[str] | None = None) -> LightGBM:
        """The same from the text itself; `path` is only its name."""
        lgb, head = load_lightgbm(), head_of(text)
        if fault := fault_of(text, head):
            raise TeacherError(f"{path} is damaged: {fault}", hint="save the booster again")
        try:
            booster = lgb.Booster(model_str=text)
        except lgb.basic.LightGBMError as error:
            raise TeacherError(f"{path} is damaged: {error}", hint="save the booster again") from error
        features = _features(head, text, booster.pandas_categorical)
        objective = head.get("objective", "")
        return cls(path, tuple(classes) if classes else None, booster, features, objective, digest(text), len(text.encode()))

    def __repr__(self) -> str:
        return say("lightgbm", self.path, classes=self.classes)

    @property
    def fingerprint(self) -> str:
        return digest("lightgbm", self.digest, self.classes)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, self._who())
        return Signal(self.logits(self.raw(self.matrix(batch), batch), batch))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The booster's own predict on a float64 matrix made beforehand, one thread."""
        rows, booster = self.matrix(batch), self.booster
        return lambda: booster.predict(rows, raw_score=True, num_threads=1)

    def matrix(self, batch: Batch) -> np.ndarray:
        """(B, F) float64, the file's features in its order."""
        return matrix(self.features, batch, self._who())

    def raw(self, rows: np.ndarray, batch: Batch, start: int = 0, rounds: int | None = None) -> np.ndarray:
        """(B, F) → (B,) or (B, C) raw scores of `rounds` boosting rounds from `start` on (None: all); predictions of a regression."""
        regression = batch.schema is not None and not batch.schema.classes
        self._suits(regression, batch.schema)
        count = -1 if rounds is None else rounds
        threads = 1 if len(rows) < FEW_ROWS else 0
        given = self.booster.predict(rows, raw_score=not regression, start_iteration=start, num_iteration=count, num_threads=threads)
        return checked(np.asarray(given), self._who())

    def logits(self, raw: np.ndarray, batch: Batch) -> Tensor:
        """What `raw` gave for a batch → (B, C) logits in the data's order, float32."""
        settings = self.objective.split()
        if batch.schema is None or batch.schema.classes:
            raw = raw * next((float(s.split(":")[1]) for s in settings if s.startswith("sigmoid:")), 1.0)
        if "multiclassova" in settings:
            raw = -np.logaddexp(0, -raw)  # log σ(z)
        return _ordered(raw, batch, self.classes, self._who())

    def _suits(self, regression: bool, schema: Schema | None) -> None:
        name = (self.objective.split() or ["custom"])[0]
        classes = name in ("binary", "cross_entropy", "multiclass", "multiclassova")
        if name != "custom" and schema is not None and classes == regression:  # a custom raw score is taken for log-odds, or the number
            raise TeacherError(
                f"{self._who()} was grown for {self.objective!r}, the data have {said(schema)}",
                hint="classes are answered by the objectives binary, cross_entropy, multiclass and multiclassova, numbers by the others",
            )

    def _who(self) -> str:
        return f"lightgbm {self.path}"


def _features(head: dict[str, str], text: str, lists: list[list[Any]] | None) -> tuple[Feature, ...]:
    names = head["feature_names"].split(" ")
    told = re.search(r"(?m)^\[categorical_feature: ([\d,]+)\]$", text)
    places = {int(i) for i in told[1].split(",")} if told else set()
    if not places:  # a file without its parameters: the range of a category is a list
        places = {i for i, info in enumerate(head["feature_infos"].split(" ")) if info != "none" and not info.startswith("[")}
    if lists and len(lists) != len(places):
        raise TeacherError(f"the file has {len(lists)} lists of categories for {len(places)} categorical features", hint="save it again")
    values = iter(lists or [])
    return tuple(Feature(n, tuple(next(values, ())) if i in places else None) for i, n in enumerate(names))


# ------------------------------------------------------------------------------------------------------------------------- xgboost


def xgboost(path: InPath, *, classes: list[str] | None = None) -> XGBoost:
    """The boosted trees in an XGBoost file: margins as (B, C) logits, of a regression predictions (B, 1).

    path: as `Booster.save_model("model.json")` or `.ubj` writes it. Features are matched to columns by name; without names by position,
        where the data have numbers only. Categories are matched by their text, which XGBoost ≥ 3.1 writes into the file; one that the
        file does not know counts as missing.
    classes: names of the file's outcomes in their order, by the data's names; left out, the data's own order.

    Binary z is answered as [0, z]. Nothing in the file is executed. XGBoost splits on float32.
    Raises TeacherError for a file that is not such a text, or whose columns, outcomes or objective are not the data's.
    """
    try:
        import xgboost as xgb
    except ImportError:
        raise MissingExtra("xgboost", "xgboost") from None
    content = bytes_of(path)
    if not content.startswith(b"{"):
        raise TeacherError(f"{path} is not an XGBoost JSON or UBJ file", hint='Booster.save_model("model.json") writes one')
    if not whole(content):
        raise TeacherError(f"{path} is damaged: it is not whole", hint="save the booster again")
    booster = xgb.Booster()
    try:
        booster.load_model(bytearray(content))
    except (xgb.core.XGBoostError, UnicodeDecodeError) as error:  # of some damage XGBoost's own message does not decode
        raise TeacherError(f"{path} is damaged: XGBoost cannot read it", hint="save the booster again") from error
    booster.set_param({"nthread": 1})
    learner = json.loads(booster.save_raw("json"))["learner"]
    names, kinds = learner["feature_names"], learner["feature_types"]
    names = names or [f"Column_{i}" for i in range(booster.num_features())]
    kept = learner["gradient_booster"].get("model", {}).get("cats", {}).get("enc", [])
    lists = [_unpacked(kept[i]) if i < len(kept) else () for i in range(len(names))]
    features = []
    for name, kind, values in zip(names, kinds or ["float"] * len(names), lists, strict=True):
        if kind == "c" and not values:
            raise TeacherError(f"{path} does not say what the categories of {name!r} are", hint="save it with XGBoost 3.1 or newer")
        features.append(Feature(name, tuple(values) if kind == "c" else None))
    objective = learner["objective"]["name"]
    return XGBoost(path, tuple(classes) if classes else None, booster, tuple(features), objective, digest(content), len(content))


@dataclass(frozen=True, eq=False)
class XGBoost:
    """See `xgboost`. booster: XGBoost's own, for whoever wants to export it."""

    path: str
    classes: tuple[str, ...] | None
    booster: Any
    features: tuple[Feature, ...]
    objective: str
    digest: str
    size_bytes: int

    training_ids = None  # of a model from elsewhere nobody knows
    parameters = None  # trees are not counted in numbers learnt

    def __repr__(self) -> str:
        return say("xgboost", self.path, classes=self.classes)

    @property
    def fingerprint(self) -> str:
        return digest("xgboost", self.digest, self.classes)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, self._who())
        regression = batch.schema is not None and not batch.schema.classes
        self._suits(regression, batch.schema)
        kind = "value" if regression else "margin"
        given = self.booster.inplace_predict(self._matrix(batch), predict_type=kind, validate_features=False)
        return Signal(_ordered(checked(np.asarray(given), self._who()), batch, self.classes, self._who()))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The booster's in-place predict on a float32 matrix made beforehand, one thread."""
        rows, booster = self._matrix(batch), self.booster
        return lambda: booster.inplace_predict(rows, predict_type="margin", validate_features=False)

    def _matrix(self, batch: Batch) -> np.ndarray:
        return matrix(self.features, batch, self._who()).astype(np.float32)

    def _suits(self, regression: bool, schema: Schema | None) -> None:
        classes = self.objective in ("binary:logistic", "binary:logitraw", "reg:logistic", "multi:softprob", "multi:softmax")
        if schema is not None and regression == (classes and self.objective != "reg:logistic"):
            raise TeacherError(
                f"{self._who()} was grown for {self.objective!r}, the data have {said(schema)}", hint="is this the teacher of these data?"
            )

    def _who(self) -> str:
        return f"xgboost {self.path}"


def _ordered(scores: np.ndarray, batch: Batch, classes: tuple[str, ...] | None, who: str) -> Tensor:
    """(B,) or (B, C) scores of a booster → (B, C) float32 logits in the data's order."""
    logits = torch.from_numpy(np.array(scores, np.float32)).to(home_of(batch))
    order = None if classes is None else order_of(classes, batch.schema, who)
    if order is not None and logits.ndim == 1:
        logits = torch.stack((torch.zeros_like(logits), logits), -1)
    return as_logits(logits, batch, who, order)


def _unpacked(entry: dict[str, Any]) -> list[Any]:
    """The categories of one feature as XGBoost writes them: numbers as they are, texts as one row of UTF-8 bytes with offsets."""
    offsets, values = entry.get("offsets", []), entry.get("values", [])
    if not offsets:
        return values
    content = bytes(v & 255 for v in values)
    return [content[a:b].decode() for a, b in pairwise(offsets)]
