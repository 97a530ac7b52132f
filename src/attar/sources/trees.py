"""Boosted trees as sources: LightGBM text files and XGBoost JSON files; how a LightGBM is grown, and how several become one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from attar.errors import MissingExtra, TeacherError
from attar.identity import digest
from attar.notation import InPath, say
from attar.signal import NOTHING, Batch, Schema, Signal
from attar.sources.answers import as_logits, checked, home_of, no_taps, order_of, said, text_of
from attar.task import Task

__all__ = ["Feature", "Growing", "LightGBM", "XGBoost", "grow", "lightgbm", "matrix", "merge", "xgboost"]


FEW_ROWS = 10_000  # below it waking threads costs more than they save
FEW_CELLS = 1_000_000  # rows × columns of a table on which trees are grown by one thread: threads wait for each other at every leaf

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


@dataclass(frozen=True)
class Growing:
    """LightGBM's trees before they are grown; see `lightgbm`. Asked as a teacher it refuses."""

    trees: int = 600
    leaves: int = 15
    learning_rate: float = 0.05
    min_rows: int = 50
    column_share: float = 0.5
    row_share: float = 0.8
    l2: float = 1.0

    training_ids = None

    def __post_init__(self) -> None:
        for name, least in (("trees", 1), ("leaves", 2), ("min_rows", 1)):
            if getattr(self, name) < least:
                raise TeacherError(f"lightgbm({name}={getattr(self, name)}): at least {least} is needed", hint=f"{name}={least}")
        for name in ("learning_rate", "column_share", "row_share"):
            if not 0 < getattr(self, name) <= 1:
                raise TeacherError(f"lightgbm({name}={getattr(self, name)}): above 0 and not above 1", hint="leave it out for the default")
        if not (self.l2 >= 0 and math.isfinite(self.l2)):
            raise TeacherError(f"lightgbm(l2={self.l2}): not negative, please", hint="leave it out for the default")

    def __repr__(self) -> str:
        return say("lightgbm", **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @property
    def fingerprint(self) -> str:
        return digest("unfitted", repr(self))

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        raise self._unfitted()

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        raise self._unfitted()

    def _unfitted(self) -> TeacherError:
        return TeacherError(
            f"{self} has not been grown",
            hint='taught(lightgbm(…), at="teacher.txt") teaches it; lightgbm("file.txt") reads one that is finished',
        )


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
        return cls.parse(_text_file(path, "tree\n", "LightGBM", "Booster.save_model(path) writes one"), path, classes)

    @classmethod
    def parse(cls, text: str, path: str, classes: Sequence[str] | None = None) -> LightGBM:
        """The same from the text itself; `path` is only its name."""
        lgb, head = _lightgbm(), _head(text)
        if fault := _fault(text, head):
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


# --------------------------------------------------------------------------------------------------------------------------- growing


def grow(growing: Growing, rounds: int, task: Task, schema: Schema, asked: Batch, seed: int) -> str:
    """Grow `rounds` boosting rounds on the labelled rows of `asked` → the text of a LightGBM file that knows columns and categories.

    The same rows, settings and seed give the same trees on any number of threads: all of a large table's, one of a small one's.
    Raises TeacherError for many labels, which one booster cannot answer.
    """
    lgb = _lightgbm()
    if task.kind == "multilabel":
        raise TeacherError("lightgbm has one label, the data have many", hint="taught(mlp(…), …), or an estimator that answers many labels")
    assert asked.labels is not None
    known = task.known(asked.labels)
    features = features_of(schema)
    rows = matrix(features, asked, "lightgbm")[known.numpy()]
    labels = asked.labels[known].numpy()
    weight = None if asked.weight is None else asked.weight[known].numpy()
    objective: dict[str, Any] = {"objective": "regression"} if task.kind == "regression" else {"objective": "binary"}
    if task.kind == "classification" and task.outcomes > 2:
        objective = {"objective": "multiclass", "num_class": task.outcomes}
    settings = {
        **objective,
        "num_leaves": growing.leaves,
        "learning_rate": growing.learning_rate,
        "min_data_in_leaf": growing.min_rows,
        "feature_fraction": growing.column_share,
        "bagging_fraction": growing.row_share,
        "bagging_freq": 1,
        "lambda_l2": growing.l2,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,  # else the layout, and with it the rounding, is chosen by a race
        "num_threads": 1 if rows.size < FEW_CELLS else 0,
        "verbosity": -1,
    }
    told = [i for i, f in enumerate(features) if f.categories is not None]
    names = [f.name for f in features]
    data = lgb.Dataset(rows, labels, weight=weight, feature_name=names, categorical_feature=told, params={"verbosity": -1})
    booster = lgb.train(settings, data, num_boost_round=rounds)
    lists = [list(f.categories) for f in features if f.categories is not None]
    # What pandas' categories would have left in the file: so that plain LightGBM reads a DataFrame of texts with it.
    text = booster.model_to_string(num_iteration=-1)
    return re.sub(r"(?m)^pandas_categorical:.*$", lambda _: "pandas_categorical:" + json.dumps(lists or None), text)


def merge(texts: Sequence[str], rounds: int | None = None) -> tuple[str, list[int]]:
    """Several boosters' texts → one whose raw score is the mean of theirs, and how many rounds each has in it, one after the other.

    rounds: of each, at most. Every leaf is divided by the number of boosters K and the trees are put one after the other, so that
    member k alone is K times `predict(raw_score=True, start_iteration=<rounds before it>, num_iteration=<its rounds>)`. Where boosting
    starts from the average, that score is in each first tree's leaves and is averaged with them.
    """
    lgb = _lightgbm()
    parts = [lgb.Booster(model_str=t).model_to_string(num_iteration=rounds or -1) for t in texts]
    blocks = [_blocks(p) for p in parts]
    width = int(_head(parts[0])["num_tree_per_iteration"])
    trees = [_scaled(tree, len(texts)) for _, *own in blocks for tree in own]
    trees = [re.sub(r"^Tree=\d+", f"Tree={i}", tree) for i, tree in enumerate(trees)]
    ranges = [_head(p)["feature_infos"].split(" ") for p in parts]
    head = re.sub(r"(?m)^tree_sizes=.*\n", "", blocks[0][0])  # LightGBM then reads tree after tree, and writes the sizes itself
    head = re.sub(r"(?m)^feature_infos=.*$", lambda _: "feature_infos=" + " ".join(map(_union, zip(*ranges, strict=True))), head)
    tail = re.sub(r"(?s)\nfeature_importances:.*?\n\n", "\n", parts[0].split("\nend of trees", 1)[1])
    merged = head + "".join(trees) + "end of trees\n" + tail
    last = merged.rstrip().rsplit("\n", 1)[1]  # pandas_categorical, which Booster keeps apart
    text = lgb.Booster(model_str=merged).model_to_string(num_iteration=-1)
    text = re.sub(r"(?m)^pandas_categorical:.*$", lambda _: last, text)
    return text, [(len(own) - 1) // width for own in blocks]


def _scaled(tree: str, members: int) -> str:
    if "is_linear=1" in tree:
        raise TeacherError("linear trees cannot be merged", hint="grow them with linear_tree=False")

    def divide(match: re.Match[str]) -> str:
        return match[1] + " ".join(f"{float(v) / members:.17g}" for v in match[2].split())

    return re.sub(r"(?m)^((?:leaf|internal)_value=)(.*)$", divide, tree)


def _union(infos: tuple[str, ...]) -> str:
    """One feature's ranges "[−1:2]" or categories "0:1:3" in several files → what all of them saw."""
    seen = [i for i in infos if i != "none"]
    if not seen:
        return "none"
    if seen[0].startswith("["):
        ends = [i[1:-1].split(":") for i in seen]
        return f"[{min(float(e[0]) for e in ends):.17g}:{max(float(e[1]) for e in ends):.17g}]"
    return ":".join(str(c) for c in sorted({int(c) for i in seen for c in i.split(":")}))


# -------------------------------------------------------------------------------------------------------------------------- xgboost


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
    content = _bytes_of(path)
    if not content.startswith(b"{"):
        raise TeacherError(f"{path} is not an XGBoost JSON or UBJ file", hint='Booster.save_model("model.json") writes one')
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


# -------------------------------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class Feature:
    """One feature of a tree file. categories: its values, whose position is the number the trees split on; None for a plain number.
    () for categories that are whole numbers themselves."""

    name: str
    categories: tuple[Any, ...] | None = None


def features_of(schema: Schema) -> tuple[Feature, ...]:
    """A table's columns as features, names spelled as LightGBM bears them."""
    if schema.kind != "table":
        raise TeacherError(f"lightgbm grows on tables, the data are {schema.kind}", hint="taught(cnn(…), …) for images")
    return tuple(Feature(_spelled(c.name), c.categories if c.kind == "category" else None) for c in schema.columns)


def matrix(features: Sequence[Feature], batch: Batch, who: str) -> np.ndarray:
    """(B, F) float64 of a table's rows, in the order of `features`; raises TeacherError for a column that the data lack."""
    schema = batch.schema
    if isinstance(batch.inputs, Tensor) or (schema is None and set(batch.inputs) != {"numbers"}):
        raise TeacherError(f"{who} wants the named columns of a table, these rows have none", hint="is this the teacher of these data?")
    blocks = {name: block.cpu().numpy() for name, block in batch.inputs.items()}
    if schema is None or _nameless(features, schema):
        if blocks["numbers"].shape[1] != len(features):
            raise TeacherError(f"{who} wants {len(features)} columns, these rows have {blocks['numbers'].shape[1]}", hint="name them")
        return np.array(blocks["numbers"], np.float64, order="C")
    places = {_spelled(c.name): ("numbers", i, c) for i, c in enumerate(schema.numbers)}
    places |= {_spelled(c.name): ("categories", i, c) for i, c in enumerate(schema.categories)}
    if absent := [f.name for f in features if _spelled(f.name) not in places]:
        have = [c.name for c in schema.columns]
        raise TeacherError(f"{who} wants the columns {absent}, the data have {have}", hint="is this the teacher of these data?")
    rows = np.empty((len(batch), len(features)), np.float64)
    for j, feature in enumerate(features):
        block, i, column = places[_spelled(feature.name)]
        values = blocks[block][:, i]
        if block == "categories":
            rows[:, j] = np.array([math.nan, *_codes(column.categories, feature, who)])[values]
        elif not feature.categories:
            rows[:, j] = values
        else:
            seen, inverse = np.unique(values, return_inverse=True)
            rows[:, j] = np.array(_codes([float(v) for v in seen], feature, who))[inverse]
    return rows


def _codes(values: Sequence[Any], feature: Feature, who: str) -> list[float]:
    """The number the trees split on for each of `values`: NaN where the file does not know it."""
    if feature.categories:
        position = {_same(c): float(i) for i, c in enumerate(feature.categories)}
        return [position.get(_same(v), math.nan) for v in values]
    try:
        return [float(v) for v in values]  # the file has whole numbers for categories, or a plain number
    except ValueError:
        raise TeacherError(
            f"{who} takes {feature.name!r} for a number, in the data it is a category: {list(values)[:6]}",
            hint="train the teacher on a DataFrame whose column is a pandas category, or give the data the numbers it was trained on",
        ) from None


def _same(value: Any) -> str:
    """Categories are compared as text; True is also 1, and 1.0 is also 1."""
    return text_of(float(value)) if isinstance(value, bool) else text_of(value)


def _nameless(features: Sequence[Feature], schema: Schema) -> bool:
    """Whether a file fitted on a bare matrix meets a table of numbers only: then columns go by position."""
    return not schema.categories and all(re.fullmatch(r"Column_\d+|f\d+", f.name) for f in features)


def _spelled(name: str) -> str:
    """A column's name as LightGBM bears it: no blanks, and none of the signs that JSON uses."""
    return re.sub(r'[\s",:\[\]{}]', "_", name)


# ------------------------------------------------------------------------------------------------------------------------------ files


def _head(text: str) -> dict[str, str]:
    """The lines before the first tree of a LightGBM file, by name."""
    lines = text.split("\nTree=", 1)[0].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _blocks(text: str) -> list[str]:
    """A LightGBM file without its tail → its head, and each tree."""
    return re.split(r"(?m)^(?=Tree=\d+$)", text.split("\nend of trees", 1)[0] + "\n")


def _fault(text: str, head: dict[str, str]) -> str:
    """What is wrong with a LightGBM file, "" if nothing: LightGBM itself does not refuse a torn file, it ends the whole process."""
    if "\nend of trees\n" not in text:
        return "it ends before its last tree"
    if lacking := [
        k for k in ("num_class", "num_tree_per_iteration", "max_feature_idx", "feature_names", "feature_infos") if k not in head
    ]:
        return f"no {lacking[0]}"
    features = int(head["max_feature_idx"]) + 1 if head["max_feature_idx"].isdigit() else -1
    if not len(head["feature_names"].split(" ")) == len(head["feature_infos"].split(" ")) == features:
        return "its features are not as many as it says"
    trees = _blocks(text)[1:]
    if "tree_sizes" in head and [str(len(t.encode())) for t in trees] != head["tree_sizes"].split():
        return "its trees are not as long as it says"
    for number, tree in enumerate(trees):
        part = dict(line.split("=", 1) for line in tree.splitlines() if "=" in line)
        try:
            leaves = int(part["num_leaves"])
            children = [int(c) for side in ("left_child", "right_child") for c in part[side].split()]
            splits = [int(f) for f in part["split_feature"].split()]
            values, thresholds = part["leaf_value"].split(), part["threshold"].split()
        except (KeyError, ValueError) as error:
            return f"tree {number}: {error}"
        sound = len(values) == leaves and len(thresholds) == len(splits) == leaves - 1 and len(children) == 2 * (leaves - 1)
        if not sound or not all(-leaves <= c < leaves - 1 for c in children) or not all(0 <= f < features for f in splits):
            return f"tree {number} is not as large as it says"
    return ""


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


def _text_file(path: str, start: str, kind: str, hint: str) -> str:
    content = _bytes_of(path)
    if not content.startswith(start.encode()):
        raise TeacherError(f"{path} is not a {kind} text file", hint=hint)
    return content.decode("utf-8", errors="replace")


def _bytes_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise TeacherError(f"no file {path}", hint="paths in a recipe are relative to the recipe's folder") from None
    except IsADirectoryError:
        raise TeacherError(f"{path} is a folder", hint="name the file in it") from None


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra("lightgbm", "trees") from None
    return lightgbm
