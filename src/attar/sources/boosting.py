"""How a LightGBM is grown, and how several become one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attar.errors import TeacherError
from attar.identity import digest
from attar.notation import say
from attar.signal import NOTHING, Batch, Schema, Signal
from attar.sources.features import features_of, matrix
from attar.sources.tree_files import blocks_of, head_of, load_lightgbm
from attar.task import Task

__all__ = ["Growing", "can_grow", "first_rounds", "grow", "merge"]

# The defaults were chosen by the log loss out of fold on the credit recipe's training rows: `python benchmarks/defaults.py` shows it
# beside its neighbours. They are all alike there, so the smaller and faster one is taken.
FEW_CELLS = 1_000_000  # rows × columns of a table on which trees are grown by one thread: threads wait for each other at every leaf


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


def can_grow(task: Task, schema: Schema) -> None:
    """Raise TeacherError for data that LightGBM cannot learn: images, and many labels, which one booster cannot answer."""
    load_lightgbm()
    features_of(schema)
    if task.kind == "multilabel":
        raise TeacherError("lightgbm has one label, the data have many", hint="taught(mlp(…), …), or an estimator that answers many labels")


def grow(growing: Growing, rounds: int, task: Task, schema: Schema, asked: Batch, seed: int) -> str:
    """Grow `rounds` boosting rounds on the labelled rows of `asked` → the text of a LightGBM file that knows columns and categories.

    The same rows, settings and seed give the same trees on any number of threads: all of a large table's, one of a small one's.
    """
    lgb = load_lightgbm()
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
    lgb = load_lightgbm()
    parts = [lgb.Booster(model_str=t).model_to_string(num_iteration=rounds or -1) for t in texts]
    blocks = [blocks_of(p) for p in parts]
    width = int(head_of(parts[0])["num_tree_per_iteration"])
    trees = [_scaled(tree, len(texts)) for _, *own in blocks for tree in own]
    trees = [re.sub(r"^Tree=\d+", f"Tree={i}", tree) for i, tree in enumerate(trees)]
    ranges = [head_of(p)["feature_infos"].split(" ") for p in parts]
    head = re.sub(r"(?m)^tree_sizes=.*\n", "", blocks[0][0])  # LightGBM then reads tree after tree, and writes the sizes itself
    head = re.sub(r"(?m)^feature_infos=.*$", lambda _: "feature_infos=" + " ".join(map(_union, zip(*ranges, strict=True))), head)
    tail = re.sub(r"(?s)\nfeature_importances:.*?\n\n", "\n", parts[0].split("\nend of trees", 1)[1])
    merged = head + "".join(trees) + "end of trees\n" + tail
    last = merged.rstrip().rsplit("\n", 1)[1]  # pandas_categorical, which Booster keeps apart
    text = lgb.Booster(model_str=merged).model_to_string(num_iteration=-1)
    text = re.sub(r"(?m)^pandas_categorical:.*$", lambda _: last, text)
    return text, [(len(own) - 1) // width for own in blocks]


def first_rounds(text: str, rounds: int, factor: float = 1.0) -> str:
    """The first `rounds` boosting rounds of a LightGBM text as a text of their own, every leaf times `factor`.

    Of a booster that `merge` made of K, the first member alone is its rounds with a factor of K, m whole members theirs with K / m.
    Raises TeacherError for linear trees where the factor is not 1.
    """
    lgb = load_lightgbm()
    cut = lgb.Booster(model_str=text).model_to_string(num_iteration=rounds)
    if factor == 1:
        return cut
    head, *trees = blocks_of(cut)
    head = re.sub(r"(?m)^tree_sizes=.*\n", "", head)
    tail = re.sub(r"(?s)\nfeature_importances:.*?\n\n", "\n", cut.split("\nend of trees", 1)[1])
    scaled = head + "".join(_scaled(tree, 1 / factor) for tree in trees) + "end of trees\n" + tail
    whole = lgb.Booster(model_str=scaled).model_to_string(num_iteration=-1)
    return re.sub(r"(?m)^pandas_categorical:.*$", lambda _: cut.rstrip().rsplit("\n", 1)[1], whole)


def _scaled(tree: str, members: float) -> str:
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
