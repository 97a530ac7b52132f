"""Anything with predict_proba or predict as a source, fed the matrix or the DataFrame it was fitted on."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from attar.errors import MissingExtra, TeacherError, TrustError
from attar.identity import digest
from attar.notation import InPath, located, say
from attar.signal import NOTHING, Batch, Column, Schema, Signal
from attar.sources.answers import FLOOR, checked, home_of, log_probabilities, no_taps, order_of, said, text_of
from attar.sources.module import spelled

__all__ = ["Estimator", "Predictor", "estimator", "frame", "trusting_pickles"]


@runtime_checkable
class Predictor(Protocol):
    """What scikit-learn calls a fitted estimator; one that also has predict_proba is asked for probabilities."""

    def predict(self, X: Any, /) -> Any: ...


@runtime_checkable
class _Probable(Protocol):
    def predict_proba(self, X: Any, /) -> Any: ...


def estimator(
    model: InPath | Predictor,
    *,
    classes: list[str] | None = None,
    floor: float = FLOOR,
    reads: Callable[[Batch], Any] | None = None,
) -> Estimator:
    """log p of `model.predict_proba` with no p below `floor`, (B, C); without predict_proba the decision of `predict` alone, p = 1;
    for a regression the number of `predict`, (B, 1).

    model: fitted, in scikit-learn's manner; or the path of a pickle, which is read only within `trusting_pickles()`, for reading it can
        run anything: no recipe can give that leave, `--trust pickle` on the command line does.
    classes: names of the model's outputs, in their order, by the data's names; left out, its own `classes_` are matched by name.
    floor: ε, the least probability answered.
    reads: a function Batch → what `predict` takes. Left out: a DataFrame of the columns in `feature_names_in_` if the model has those,
        else the number columns as a matrix. In a DataFrame numbers are float64, categories pandas categories of texts, booleans bool
        (object where one is missing), missing values NaN, unseen categories missing.

    In-memory models are fingerprinted by their pickle: the same model fitted twice may count as two.
    Raises TeacherError where columns, classes or outcomes do not match the data's, TrustError for a pickle without trust.
    """
    if not 0 < floor < 0.5:
        raise TeacherError(f"estimator(floor={floor}): ε lies between 0 and 0.5", hint=f"leave it out for {FLOOR:g}")
    path = model if isinstance(model, str) else ""
    return Estimator(_unpickled(path) if isinstance(model, str) else model, tuple(classes) if classes else None, floor, reads, path)


_TRUSTING: ContextVar[bool] = ContextVar("trusting pickles", default=False)


@contextmanager
def trusting_pickles() -> Iterator[None]:
    """Within the block `estimator(path)` reads pickles, which can run any code. It is no argument, so that no recipe can say it.

    >>> with trusting_pickles():                          # doctest: +SKIP
    ...     teacher = estimator("model.pkl")
    """
    token = _TRUSTING.set(True)
    try:
        yield
    finally:
        _TRUSTING.reset(token)


def _unpickled(path: str) -> Predictor:
    if not _TRUSTING.get():
        raise TrustError(
            f"{path} is a pickle: reading it can run any code that its writer put there",
            hint="if you trust its writer: --trust pickle on the command line, `with trusting_pickles():` in Python. "
            "Safer: export the model to ONNX, or give a booster's own text or JSON file",
        )
    try:
        with open(located(path), "rb") as file:
            model = pickle.load(file)
    except FileNotFoundError:
        raise TeacherError(f"no file {path}", hint="paths in a recipe are relative to the recipe's folder") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError) as error:
        raise TeacherError(
            f"{path} does not unpickle: {error}", hint="the same versions of the same libraries must be installed"
        ) from error
    if not isinstance(model, Predictor):
        raise TeacherError(f"{path} holds a {type(model).__name__}, which has no predict", hint="a fitted estimator is needed")
    return model


@dataclass(frozen=True, eq=False)
class Estimator:
    """See `estimator`."""

    model: Predictor
    classes: tuple[str, ...] | None = None
    floor: float = FLOOR
    reads: Callable[[Batch], Any] | None = None
    path: str = ""

    training_ids = None  # of a model from elsewhere nobody knows

    def __repr__(self) -> str:
        return say("estimator", self.path or type(self.model).__name__, classes=self.classes, floor=self.floor)

    @property
    def fingerprint(self) -> str:
        return digest("estimator", _pickled(self.model), self.classes, self.floor, "" if self.reads is None else spelled(self.reads))

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, self._who())
        return Signal(self._answer(self._read(batch), batch).to(home_of(batch)))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """`predict_proba` or `predict` alone, on the matrix or DataFrame made beforehand."""
        rows = self._read(batch)
        face = self.model.predict_proba if self._probable(batch.schema) and isinstance(self.model, _Probable) else self.model.predict
        return lambda: face(rows)

    def _answer(self, rows: Any, batch: Batch) -> Tensor:
        schema, who = batch.schema, self._who()
        if self._probable(schema):
            assert isinstance(self.model, _Probable)
            given = self.model.predict_proba(rows)
            if isinstance(given, list):  # scikit-learn's multi-label: one (B, 2) for each label
                p = np.stack([checked(np.asarray(g, np.float64), who) for g in given], 1)
            else:
                p = checked(np.asarray(given, np.float64), who)
            return self._ordered(log_probabilities(p, self.floor), schema)
        answer = np.asarray(self.model.predict(rows))
        if schema is None or not schema.classes:
            return torch.from_numpy(checked(answer.astype(np.float64), who).astype(np.float32)).reshape(len(batch), -1)
        known = self._names() or [str(c) for c in schema.classes]
        position = {name: i for i, name in enumerate(known)}
        try:
            decided = [position[text_of(a)] for a in answer.reshape(len(batch))]
        except KeyError as unknown:
            raise TeacherError(
                f"{who} decides {unknown}, the data have {said(schema)}", hint="is this the teacher of these data?"
            ) from None
        return self._ordered(log_probabilities(np.eye(len(known))[decided], self.floor), schema)

    def _ordered(self, output: Tensor, schema: Schema | None) -> Tensor:
        if schema is None:
            return output
        who, names = self._who(), list(self.classes) if self.classes else self._names()
        if output.ndim == 3:
            if output.shape[1:] != (len(schema.classes), 2):
                raise TeacherError(f"{who} answers {output.shape[1]} labels, the data have {said(schema)}", hint="is this their teacher?")
            return output
        if names is None:
            names = list(schema.classes) if output.shape[-1] == len(schema.classes) else [f"output {i}" for i in range(output.shape[-1])]
        if len(names) != output.shape[-1]:
            raise TeacherError(f"{who} gives {output.shape[-1]} probabilities, classes= names {len(names)}: {names}", hint="one name each")
        order = order_of(names, schema, who)
        return output if order is None else output.index_select(-1, order)

    def _names(self) -> list[str] | None:
        """The model's own class names, as text, in the order of its outputs."""
        own = getattr(self.model, "classes_", None)  # scikit-learn's convention for classifiers; others have none
        return None if own is None or isinstance(own, list) else [text_of(c) for c in own]

    def _probable(self, schema: Schema | None) -> bool:
        return isinstance(self.model, _Probable) and (schema is None or bool(schema.classes))

    def _read(self, batch: Batch) -> Any:
        if self.reads is not None:
            return self.reads(batch)
        names = getattr(self.model, "feature_names_in_", None)  # scikit-learn's convention for "fitted on a DataFrame"
        if names is not None:
            return frame(batch, [str(n) for n in names], self._who())
        inputs = batch.inputs
        if isinstance(inputs, Tensor):
            rows = inputs.reshape(len(batch), -1).cpu().numpy().astype(np.float64)
        elif set(inputs) == {"numbers"}:
            rows = inputs["numbers"].cpu().numpy().astype(np.float64)
        else:
            raise TeacherError(
                f"{self._who()} was fitted without column names, and these rows have categories",
                hint="fit it on a DataFrame, in a pipeline that encodes them; or say reads=: Batch → what predict takes",
            )
        wanted = getattr(self.model, "n_features_in_", None)
        if wanted is not None and wanted != rows.shape[1]:
            raise TeacherError(f"{self._who()} was fitted on {wanted} columns, these rows have {rows.shape[1]}", hint="or say reads=")
        return rows

    def _who(self) -> str:
        return f"estimator {self.path or type(self.model).__name__}"


def frame(batch: Batch, names: list[str], who: str) -> Any:
    """The columns `names` of a table's rows as a pandas DataFrame, as `estimator` describes it; raises TeacherError for one not there."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtra("pandas", "table") from None
    schema = batch.schema
    if schema is None or schema.kind != "table" or isinstance(batch.inputs, Tensor):
        raise TeacherError(f"{who} was fitted on named columns, these rows have none", hint="say reads=: Batch → what predict takes")
    columns = {c.name: c for c in schema.columns}
    if absent := [n for n in names if n not in columns]:
        raise TeacherError(f"{who} wants the columns {absent}, the data have {list(columns)}", hint="is this the teacher of these data?")
    made = {}
    for kept, block in ((schema.numbers, "numbers"), (schema.categories, "categories")):
        for i, column in enumerate(kept):
            if column.name in names:
                made[column.name] = _series(pd, column, batch.inputs[block][:, i].cpu().numpy())
    return pd.DataFrame({n: made[n] for n in names})


def _series(pd: Any, column: Column, values: np.ndarray) -> Any:
    if column.kind == "category":
        return pd.Categorical.from_codes(values - 1, categories=list(column.categories))
    if column.kind == "boolean":
        if not np.isnan(values).any():
            return values.astype(bool)
        return np.array([None if np.isnan(v) else bool(v) for v in values], dtype=object)
    return values.astype(np.float64)


def _pickled(thing: Any) -> bytes:
    """Bytes that move when the thing does. Without a memo they do not depend on which texts happen to be one object."""
    for fast in (True, False):  # the memo is needed for what refers to itself
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, protocol=5)
        pickler.fast = fast
        try:
            pickler.dump(thing)
            return buffer.getvalue()
        except (ValueError, RecursionError):
            continue
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TeacherError(
                f"no fingerprint of {type(thing).__name__}: it does not pickle ({error})",
                hint="define its functions at the top of a module, not inside another function or as a lambda",
            ) from error
    raise TeacherError(f"no fingerprint of {type(thing).__name__}: it does not pickle", hint="it refers to itself too deeply")
