"""Trees as students: they regress the centred logits of teacher and labels blended, one model for each of them."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attar.errors import MissingExtra, StudentError
from attar.notation import say
from attar.signal import IGNORE, Inputs, Schema
from attar.students.ends import at_least
from attar.task import Task

__all__ = ["Blend", "Forest", "LightGBM", "Trees", "classes", "forest", "lightgbm"]

FLOOR = 1e-6  # of a probability, before its logarithm: labels alone would be infinite
FEW_CELLS = 1_000_000  # rows × columns below which one thread grows faster than several
STAGES = 20  # into which boosting rounds are cut when validation rows choose how many to keep


@dataclass(frozen=True)
class Blend:
    """What the trees regress. share: of the teacher against the labels, 0..1. temperature: at which both are blended. smoothing: of labels.

    Of classes p = share · softmax(z_t / T) + (1 − share) · label, and the target is T (log p − mean log p): the teacher's centred logits
    where share is 1. Rows without a label have the teacher's. Of a regression it is share · teacher + (1 − share) · label.
    """

    share: float
    temperature: float = 1.0
    smoothing: float = 0.0

    def targets(self, teacher: Tensor | None, labels: Tensor | None, task: Task) -> Tensor:
        """(N, C) or (N, L, 2) canonical logits and labels → (N, E): the number of a regression, z of two outcomes, else each logit.

        NaN where there is neither a teacher nor a label. Raises StudentError where the teacher answers NaN or +∞.
        """
        if teacher is not None and bool((teacher.isnan() | teacher.isposinf()).any()):
            raise StudentError("trees: the teacher answers NaN or infinity", hint="ask it by itself: does it take missing values?")
        if labels is None:
            assert teacher is not None  # one of the two is there
            labels = torch.full(teacher.shape[:-1], math.nan if task.kind == "regression" else IGNORE)
        known = task.known(labels)
        share = torch.where(known, self.share, 1.0)  # (N,) or (N, L)
        label = torch.where(known, labels, 0)
        if task.kind == "regression":
            answer = torch.full_like(label, math.nan) if teacher is None else teacher[:, 0]
            return torch.where(share == 0, label, share * answer + (1 - share) * label)[:, None]
        hard = nn.functional.one_hot(label, task.outcomes).float()
        p = (1 - share)[..., None] * ((1 - self.smoothing) * hard + self.smoothing / task.outcomes)
        if teacher is not None:
            p = p + share[..., None] * torch.softmax(teacher.float() / self.temperature, -1)
        log_p = self.temperature * p.clamp(min=FLOOR).log()
        if teacher is None:
            log_p = log_p.masked_fill(~known[..., None], math.nan)
        if task.outcomes == 2:
            return (log_p[..., 1] - log_p[..., 0]).reshape(len(log_p), -1)
        return log_p - log_p.mean(-1, keepdim=True)


def classes(labels: Tensor, task: Task) -> Tensor:
    """(N,) or (N, L) labels → (N, E) of 0 and 1, NaN where unknown: what trees learn of labels alone."""
    known = task.known(labels)
    label = torch.where(known, labels, 0)
    if task.kind == "classification" and task.outcomes > 2:
        return nn.functional.one_hot(label, task.outcomes).double().masked_fill(~known[:, None], math.nan)
    return label.double().masked_fill(~known, math.nan).reshape(len(label), -1)


@dataclass(frozen=True, repr=False)
class LightGBM:
    """See `lightgbm`; called with (schema, seed) it gives trees that are still to grow."""

    trees: int = 200
    leaves: int = 15
    learning_rate: float = 0.1
    min_rows: int = 20
    row_share: float = 0.8

    def __repr__(self) -> str:
        return say("lightgbm", **{name: getattr(self, name) for name in self.__dataclass_fields__})

    def __call__(self, schema: Schema, seed: int) -> Trees:
        return Trees(schema, seed, self)

    def grow(self, rows: NDArray[np.float32], target: NDArray[np.float64], weight: NDArray | None, seed: int, logistic: bool) -> bytes:
        lgb = _lightgbm()
        settings = {
            "objective": "cross_entropy" if logistic else "regression",
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_rows,
            "bagging_fraction": self.row_share,
            "bagging_freq": 1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,  # else the layout, and with it the rounding, is chosen by a race
            "num_threads": 1 if rows.size < FEW_CELLS else 0,
            "verbosity": -1,
        }
        booster = lgb.train(settings, lgb.Dataset(rows, target, weight=weight, params={"verbosity": -1}), num_boost_round=self.trees)
        return _single_precision(booster.model_to_string(num_iteration=-1)).encode()

    def load(self, content: bytes) -> Any:
        return _lightgbm().Booster(model_str=content.decode())

    def cut(self, content: bytes, rounds: int) -> bytes:
        return self.load(content).model_to_string(num_iteration=rounds).encode()

    def predict(self, model: Any, rows: NDArray[np.float32], rounds: int | None) -> NDArray[np.float64]:
        return model.predict(rows, num_iteration=rounds, raw_score=True)


@dataclass(frozen=True, repr=False)
class Forest:
    """See `forest`; called with (schema, seed) it gives trees that are still to grow."""

    trees: int = 30
    depth: int = 8
    min_rows: int = 20

    def __repr__(self) -> str:
        return say("forest", **{name: getattr(self, name) for name in self.__dataclass_fields__})

    def __call__(self, schema: Schema, seed: int) -> Trees:
        return Trees(schema, seed, self)

    def grow(self, rows: NDArray[np.float32], target: NDArray[np.float64], weight: NDArray | None, seed: int, logistic: bool) -> bytes:
        ensemble, _, _ = _sklearn()
        shape = {"n_estimators": self.trees, "max_depth": self.depth, "min_samples_leaf": self.min_rows}
        model = ensemble.RandomForestRegressor(**shape, bootstrap=self.trees > 1, max_features=1.0, random_state=seed)
        model.fit(rows, _clipped_log_odds(target) if logistic else target, sample_weight=weight)
        file = io.BytesIO()
        arrays: dict[str, Any] = {"features": np.array(rows.shape[1])}
        for i, tree in enumerate(model.estimators_):
            state = tree.tree_.__getstate__()
            arrays |= {f"{i}.nodes": state["nodes"], f"{i}.values": state["values"], f"{i}.depth": np.array(state["max_depth"])}
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    def load(self, content: bytes) -> Any:
        """The forest from its arrays: a scikit-learn model without a pickle."""
        ensemble, tree, inner = _sklearn()
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            features = int(arrays["features"])
            model = ensemble.RandomForestRegressor(n_estimators=self.trees, max_depth=self.depth, min_samples_leaf=self.min_rows)
            model.estimators_ = []
            for i in range(self.trees):
                one = tree.DecisionTreeRegressor(max_depth=self.depth, min_samples_leaf=self.min_rows)
                one.tree_ = inner(features, np.array([1], dtype=np.intp), 1)
                nodes, values = arrays[f"{i}.nodes"], arrays[f"{i}.values"]
                one.tree_.__setstate__({"max_depth": int(arrays[f"{i}.depth"]), "node_count": len(nodes), "nodes": nodes, "values": values})
                one.n_features_in_, one.n_outputs_, one.max_features_ = features, 1, features
                model.estimators_.append(one)
        model.n_features_in_, model.n_outputs_ = features, 1
        return model

    def cut(self, content: bytes, rounds: int) -> bytes:
        return content

    def predict(self, model: Any, rows: NDArray[np.float32], rounds: int | None) -> NDArray[np.float64]:
        return model.predict(rows)


def lightgbm(trees: int = 200, leaves: int = 15, learning_rate: float = 0.1, min_rows: int = 20, row_share: float = 0.8) -> LightGBM:
    """`trees` boosting rounds by LightGBM (arXiv:1603.02754 is the idea) that regress centred logits: tables and tensors → (B, C) logits.

    leaves, learning_rate, min_rows (in a leaf), row_share (drawn for each tree, 0..1; it is what makes seeds differ): as in LightGBM.
    Of several classes each round is a tree for each.
    Validation rows choose how many rounds are kept. LightGBM's own loss of several classes takes no soft labels, hence the regression;
    the objective may be `kl`, at one temperature, or `mse`, and `labels`. A control that learns labels alone grows by cross-entropy, a
    class against the rest.
    Missing numbers are filled with the median, and categories are split by their code.

    >>> lightgbm(trees=50)
    lightgbm(trees=50, leaves=15, learning_rate=0.1, min_rows=20, row_share=0.8)
    """
    at_least("lightgbm", trees=(trees, 1), leaves=(leaves, 2), min_rows=(min_rows, 1))
    for name, value in (("learning_rate", learning_rate), ("row_share", row_share)):
        if not 0 < value <= 1:
            raise StudentError(f"lightgbm({name}={value}): above 0 and not above 1", hint="leave it out for the default")
    return LightGBM(trees, leaves, learning_rate, min_rows, row_share)


def forest(trees: int = 30, depth: int = 8, min_rows: int = 20) -> Forest:
    """`trees` regression trees of scikit-learn, averaged, on centred logits: tables and tensors → (B, C) logits; `trees=1` can be read.

    depth: of each tree, at most. min_rows: in a leaf. One tree sees every row, several see bootstraps. Otherwise as `lightgbm`, but that
    labels alone are regressed as log-odds of 1 %: ranked right, and sure of themselves only after `export` has fitted a temperature.

    >>> forest(trees=1, depth=4)
    forest(trees=1, depth=4, min_rows=20)
    """
    at_least("forest", trees=(trees, 1), depth=(depth, 1), min_rows=(min_rows, 1))
    return Forest(trees, depth, min_rows)


class Trees(nn.Module):
    """Trees that answer as a student does; grown, not trained by gradients.

    kind: which library grew them. estimators: one fitted model for each number answered: of two outcomes z, which is answered as
    [−z/2, z/2]; of a regression the number; of many labels z for each; else each class's logit.
    read: a plain module, inputs → the (B, F) float32 matrix that they split; no NaN is left in it.
    grown: their bytes as one buffer, so that `state_dict` holds the whole student, and no pickle does.
    """

    grown: Tensor

    def __init__(self, schema: Schema, seed: int, how: LightGBM | Forest) -> None:
        super().__init__()
        self.how, self.seed = how, seed
        self.kind: Literal["lightgbm", "sklearn"] = "lightgbm" if isinstance(how, LightGBM) else "sklearn"
        self.numeric, self.outcomes = not schema.classes, len(schema.classes)
        self.read = _Matrix(schema, how)
        self.register_buffer("grown", torch.zeros(0, dtype=torch.uint8))
        self._models: list[Any] | None = None

    def extra_repr(self) -> str:
        return repr(self.how)

    @property
    def estimators(self) -> list[Any]:
        if self._models is None:
            if not len(self.grown):
                raise StudentError(f"{self.how!r} has not grown yet", hint="distill grows it")
            self._models = [self.how.load(content) for content in _unpacked(self.grown)]
        return self._models

    def forward(self, inputs: Inputs) -> Tensor:
        return self.answers(inputs)

    def answers(self, inputs: Inputs, rounds: int | None = None) -> Tensor:
        """(B, C) logits of the first `rounds`; None: of all."""
        output = self.raw(inputs, rounds)
        return torch.cat((-0.5 * output, 0.5 * output), 1) if self.outcomes == 2 and output.shape[1] == 1 else output

    def raw(self, inputs: Inputs, rounds: int | None = None) -> Tensor:
        """(B, E), a column for each estimator."""
        rows = self.read(inputs)
        found = [self.how.predict(model, rows.cpu().numpy(), rounds) for model in self.estimators]
        return torch.from_numpy(np.stack(found, 1).astype(np.float32)).to(rows.device)

    def grow(self, inputs: Inputs, targets: Tensor, weight: Tensor | None, *, logistic: bool) -> None:
        """Grow on these rows: (N, E) targets, a column for each estimator; rows of NaN are left out.

        logistic: targets are 0 and 1, and are learned by cross-entropy where the library can.
        """
        rows = self.read(inputs).cpu().numpy()
        share = None if weight is None else weight.double().cpu().numpy()
        contents = []
        for column in targets.double().cpu().numpy().T:
            there = ~np.isnan(column)
            if not there.any():
                raise StudentError(f"{self.how!r}: no row has a target", hint="give it a teacher, or labels")
            contents.append(self.how.grow(rows[there], column[there], None if share is None else share[there], self.seed, logistic))
        self.grown, self._models = _packed(contents), None

    @property
    def stages(self) -> list[int]:
        """Numbers of rounds worth comparing on validation rows."""
        if isinstance(self.how, Forest):
            return [self.how.trees]
        return sorted({round(self.how.trees * (i + 1) / STAGES) for i in range(STAGES)} - {0})

    def keep(self, rounds: int) -> None:
        """Forget what was grown after so many rounds."""
        self.grown, self._models = _packed([self.how.cut(content, rounds) for content in _unpacked(self.grown)]), None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self.grown, self._models = torch.zeros_like(state_dict[f"{prefix}grown"]), None  # of whatever length
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class _Matrix(nn.Module):
    """Raw rows → (B, F) float32: numbers filled with the median where missing, categories by code, 0 for missing and unseen."""

    median: Tensor
    most: Tensor

    def __init__(self, schema: Schema, how: LightGBM | Forest) -> None:
        super().__init__()
        if schema.kind == "images":
            raise StudentError(f"{how!r} reads tables, the data are images", hint="cnn() reads them")
        if schema.kind == "table" and not schema.columns:
            raise StudentError(f"{how!r}: the table has no column but the label", hint="look at the columns of the data")
        self.table = schema.kind == "table"
        self.numbers, self.categories = bool(schema.numbers), bool(schema.categories)
        self.register_buffer("median", torch.tensor([c.median for c in schema.numbers]))
        self.register_buffer("most", torch.tensor([len(c.categories) for c in schema.categories], dtype=torch.int64))

    def forward(self, inputs: Inputs) -> Tensor:
        if isinstance(inputs, Tensor):
            if self.table:
                raise StudentError(f"this student reads a table, and is given {tuple(inputs.shape)}", hint="ask it with the data's batches")
            return inputs.flatten(1).float()
        blocks = []
        if self.numbers:
            numbers = inputs["numbers"].float()
            blocks.append(torch.where(numbers.isnan(), self.median, numbers))
        if self.categories:
            codes = inputs["categories"]
            blocks.append(torch.where(codes <= self.most, codes, 0).clamp(min=0).float())
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)


def _packed(contents: Sequence[bytes]) -> Tensor:
    """Several files as one row of bytes: a line of JSON with their lengths, then they."""
    head = json.dumps([len(content) for content in contents]).encode() + b"\n"
    return torch.from_numpy(np.frombuffer(head + b"".join(contents), dtype=np.uint8).copy())


def _unpacked(grown: Tensor) -> list[bytes]:
    content = grown.cpu().numpy().tobytes()
    head, _, rest = content.partition(b"\n")
    found = []
    for length in json.loads(head):
        found.append(rest[:length])
        rest = rest[length:]
    return found


def _single_precision(text: str) -> str:
    """Thresholds as the greatest float32 not above them: for float32 rows x ≤ t stays what it was, here and in graphs of float32.

    The sizes of the trees in the text's head no longer hold then, and LightGBM reads without them.
    """

    def lowered(match: re.Match[str]) -> str:
        exact = np.array([float(t) for t in match[1].split()])
        near = exact.astype(np.float32)
        lower = np.where(near.astype(np.float64) > exact, np.nextafter(near, np.float32(-np.inf)), near)
        return "threshold=" + " ".join(repr(float(t)) for t in lower)

    return re.sub(r"(?m)^threshold=(.*)$", lowered, re.sub(r"(?m)^tree_sizes=.*\n", "", text))


def _clipped_log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    p = p.clip(0.01, 0.99)
    return np.log(p / (1 - p))


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra("lightgbm", "trees") from None
    return lightgbm


def _sklearn() -> tuple[Any, Any, Any]:
    """(sklearn.ensemble, sklearn.tree, its Tree)"""
    try:
        from sklearn import ensemble, tree
        from sklearn.tree._tree import Tree
    except ImportError:
        raise MissingExtra("scikit-learn", "trees") from None
    return ensemble, tree, Tree
