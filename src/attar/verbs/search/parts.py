"""What of a teacher can be had without teaching anybody: fewer trees, one of its nets, fewer channels, fewer layers."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.errors import MissingExtra, TeacherError
from attar.identity import digest
from attar.notation import say
from attar.pretrained.freezing import FrozenEncoder
from attar.pretrained.text import blocks_of
from attar.reading import TextModel
from attar.signal import NOTHING, Batch, Inputs, Signal
from attar.sources.answers import no_taps
from attar.sources.boosting import first_rounds
from attar.sources.onnx import open_graph
from attar.sources.taught import TaughtNets, TaughtTrees
from attar.sources.trees import LightGBM, XGBoost
from attar.students.cnn import Convolutional
from attar.students.mlp import Perceptron
from attar.students.shrink import spread_over
from attar.task import Task
from attar.verbs.export.trees import from_lightgbm

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["Cut", "Mean", "TreeGraph", "cuts_of", "fewer_layers", "narrowed", "numbers_of", "tree_graph"]

PLAIN = frozenset({"binary", "regression", "regression_l1", "regression_l2", "huber", "fair", "quantile", "mape"})  # answer the raw score
SAME = 1e-3  # of scores, relative to the largest: a graph splits on float32 and may part a row in ten thousand otherwise
ALIKE = 0.999  # share of rows on which a graph of trees and the trees agree

Trees = LightGBM | XGBoost | TaughtTrees

# ------------------------------------------------------------------------------------------------------------------------------ trees


@dataclass(frozen=True)
class Cut:
    """The first `rounds` of a teacher's boosting rounds. of: how many it has. trees: in the part. members, folds: whole boosters in it,
    of how many that were averaged; 0 and 1 of a booster that is no average."""

    rounds: int
    of: int
    make: Callable[[], Trees]
    trees: int
    whole: int
    members: int = 0
    folds: int = 1

    @property
    def words(self) -> str:
        """What it is."""
        first = f"the first {self.trees:,} trees" if self.trees > 1 else "the first tree"
        if self.folds == 1:
            return f"{first} of {self.whole:,}"
        if not self.members:
            return f"{first} of one of its {self.folds} boosters, of {self.whole:,} trees in all"
        these = "one" if self.members == 1 else f"{self.members}"
        return f"{these} of its {self.folds} boosters, {self.trees:,} of {self.whole:,} trees"


def cuts_of(teacher: Trees) -> Callable[[int], Cut]:
    """rounds → the part of at most so many boosting rounds; one at least. `.of` says how many the whole has.

    Boosting adds tree after tree to what those before it left over, so that its first rounds are a coarser model of the same thing. Of a
    cross-fitted teacher, whose boosters lie one after the other, a part is the first rounds of its first booster, or whole boosters.
    """
    if isinstance(teacher, TaughtTrees):
        ends = list(accumulate(teacher.rounds))
        text = teacher.model.booster.model_to_string(num_iteration=-1)
        each = teacher.model.booster.num_model_per_iteration()

        def of_many(rounds: int) -> Cut:
            whole = sum(end <= rounds for end in ends)
            kept = ends[whole - 1] if whole else max(1, min(rounds, ends[0]))
            factor = len(ends) / max(1, whole)

            def make() -> LightGBM:
                return LightGBM.parse(first_rounds(text, kept, factor), f"{teacher.model.path}[:{kept}]", teacher.model.classes)

            return Cut(kept, ends[-1], make, kept * each, ends[-1] * each, whole, len(ends))

        return of_many
    if isinstance(teacher, LightGBM):
        booster = teacher.booster
        text = booster.model_to_string(num_iteration=-1)
        each, most = booster.num_model_per_iteration(), booster.current_iteration()

        def of_one(rounds: int) -> Cut:
            kept = max(1, min(rounds, most))

            def make() -> LightGBM:
                return LightGBM.parse(first_rounds(text, kept), f"{teacher.path}[:{kept}]", teacher.classes)

            return Cut(kept, most, make, kept * each, most * each)

        return of_one
    most = teacher.booster.num_boosted_rounds()
    each = len(teacher.booster.get_dump()) // max(1, most)

    def of_xgboost(rounds: int) -> Cut:
        kept = max(1, min(rounds, most))

        def make() -> XGBoost:
            booster = teacher.booster[:kept]
            booster.set_param({"nthread": 1})
            content = bytes(booster.save_raw("ubj"))
            return replace(teacher, path=f"{teacher.path}[:{kept}]", booster=booster, digest=digest(content), size_bytes=len(content))

        return Cut(kept, most, make, kept * each, most * each)

    return of_xgboost


def numbers_of(trees: Trees) -> int:
    """Numbers that trees have learnt: a threshold for each split, a value for each leaf."""
    if isinstance(trees, XGBoost):
        return sum(dump.count("\n") for dump in trees.booster.get_dump())  # a line for each node
    model = trees.model if isinstance(trees, TaughtTrees) else trees
    leaves = re.findall(r"(?m)^num_leaves=(\d+)$", model.booster.model_to_string(num_iteration=-1))
    return sum(2 * int(count) - 1 for count in leaves)


@dataclass(frozen=True, eq=False)
class TreeGraph:
    """A LightGBM's trees as an ONNX graph, (N, F) float32 → (N, 1) raw scores; what these mean is the file's."""

    trees: LightGBM
    content: bytes
    parameters: int
    threads: int = 1
    opened: dict[int, InferenceSession] = field(default_factory=dict, repr=False)  # by process: the runtime's threads survive no fork

    training_ids = None

    def __repr__(self) -> str:
        return say("onnx", self.trees.path)

    @property
    def fingerprint(self) -> str:
        return digest("tree graph", self.trees.fingerprint, self.content)

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        no_taps(taps, repr(self))
        (scores,) = self.session.run(None, {"matrix": self._matrix(batch)})
        return Signal(self.trees.logits(np.asarray(scores, np.float64)[:, 0], batch))

    def prepare(self, batch: Batch) -> Callable[[], Any]:
        """The bare call of the runtime on a float32 matrix made beforehand."""
        return partial(self.session.run, None, {"matrix": self._matrix(batch)})

    @property
    def session(self) -> InferenceSession:
        if os.getpid() not in self.opened:
            self.opened[os.getpid()] = open_graph(self.content, self.threads, self.trees.path)
        return self.opened[os.getpid()]

    def _matrix(self, batch: Batch) -> np.ndarray:
        return self.trees.matrix(batch).astype(np.float32)


def tree_graph(trees: Trees, rows: Batch, threads: int = 1) -> TreeGraph | str:
    """The trees as a graph, or why there is none: ONNX Runtime answers one row in less time than LightGBM's own predict.

    rows: by which the graph is compared with the trees; one that parts them otherwise is not the same model, and is not taken.
    """
    model = trees.model if isinstance(trees, TaughtTrees) else trees
    if not isinstance(model, LightGBM):
        return "XGBoost's trees are not made a graph"
    if (model.objective.split() or ["custom"])[0] not in PLAIN or model.booster.num_model_per_iteration() > 1:
        return f"trees grown for {model.objective or 'an objective of their own'!r} are not made a graph"
    text = model.booster.model_to_string(num_iteration=-1)
    if "\naverage_output\n" in text or "is_linear=1" in text:
        return "averaged and linear trees are not made a graph"
    try:
        graph = TreeGraph(model, from_lightgbm(model.booster, len(model.features)).SerializeToString(), numbers_of(model), threads)
    except MissingExtra as error:
        return error.message
    theirs, ours = model(rows).output, graph(rows).output
    near = (theirs - ours).abs().flatten(1).amax(1) <= SAME * max(1.0, float(theirs.abs().max()))
    if float(near.double().mean()) < ALIKE:
        return f"a graph of these trees answers {int((~near).sum()):,} of {len(near):,} rows otherwise"
    return graph


# ------------------------------------------------------------------------------------------------------------------------------- nets


class Mean(nn.Module):
    """Several nets as one: the log of their mean probability, of a regression their mean, as `TaughtNets` answers new rows."""

    def __init__(self, members: Sequence[nn.Module], task: Task) -> None:
        super().__init__()
        self.members, self.task = nn.ModuleList(members), task

    @classmethod
    def of(cls, nets: TaughtNets) -> nn.Module:
        """The nets of a taught teacher as one module; one net as it is."""
        return nets.members[0] if len(nets.members) == 1 else cls(nets.members, nets.task)

    def forward(self, inputs: Inputs) -> Tensor:
        answers = torch.stack([self.task.canonical(member(inputs)) for member in self.members])  # (K, B, C)
        if answers.shape[-1] == 1:
            return answers.mean(0)
        return answers.log_softmax(-1).logsumexp(0) - math.log(len(self.members))


def narrowed(net: nn.Module, share: float) -> nn.Module | None:
    """A copy of one of attar's own nets with the strongest `share` of each layer's channels, otherwise untouched; None for other nets.

    A ReLU of an mlp weighs ‖w_in‖ ‖w_out‖, a channel of a cnn |γ| ‖w_out‖ with γ of its normalisation. That is pruning by magnitude (Li et
    al. 2017, arXiv:1608.08710) without the training that mends it: the least that cutting a net can be, and the least it costs.
    """
    net = copy.deepcopy(net).cpu()
    if isinstance(net, Perceptron):
        layers = [layer for layer in net.hidden if isinstance(layer, nn.Linear)]
        chain: list[nn.Module] = [*layers, net.head.linear]
        for before, after in zip(layers, chain[1:], strict=True):
            assert isinstance(after, nn.Linear)
            strength = before.weight.norm(dim=1) * after.weight.norm(dim=0)
            _keep(before, after, _strongest(strength, share))
        return net.eval()
    if isinstance(net, Convolutional):
        layers = list(net.features)
        for i in range(0, len(layers), 3):
            conv, norm = layers[i], layers[i + 1]
            after = layers[i + 3] if i + 3 < len(layers) else net.head.linear
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(after, nn.Conv2d | nn.Linear)
            strength = norm.weight.abs() * after.weight.transpose(0, 1).flatten(1).norm(dim=1)
            kept = _strongest(strength, share)
            _keep(conv, after, kept)
            for name in ("weight", "bias", "running_mean", "running_var"):
                vars(norm)["_parameters" if name in ("weight", "bias") else "_buffers"][name] = _picked(getattr(norm, name), kept, 0)
            norm.num_features = len(kept)
        return net.eval()
    return None


def fewer_layers(net: nn.Module, share: float) -> tuple[nn.Module, int, int] | None:
    """A copy of a model of texts with this share of its layers, evenly spread, and how many of how many; None for other nets.

    The layers are chosen as `shrink` chooses them, frozen ones among them, and nothing is trained afterwards.
    """
    if not isinstance(net, TextModel):
        return None
    smaller = copy.deepcopy(net).cpu()
    try:
        if isinstance(smaller.net, FrozenEncoder):
            kept, count = _spread(smaller.net.layers, share)
            smaller.net = smaller.net.thinned(kept)
        else:
            body = smaller.net.get_submodule("body")
            at, blocks = blocks_of(body, type(net).__name__)
            kept, count = _spread(len(blocks), share)
            parent, _, name = at.rpartition(".")
            body.get_submodule(parent).add_module(name, nn.ModuleList(blocks[i] for i in kept))
    except (AttributeError, TeacherError):
        return None
    return (smaller.eval(), len(kept), count) if count > 1 else None


def _spread(count: int, share: float) -> tuple[tuple[int, ...], int]:
    return spread_over(max(1, round(count * share)), count), count


def _strongest(strength: Tensor, share: float) -> Tensor:
    return strength.detach().topk(max(1, round(share * len(strength)))).indices.sort().values


def _keep(before: nn.Linear | nn.Conv2d, after: nn.Linear | nn.Conv2d, kept: Tensor) -> None:
    """These outputs of one layer and inputs of the next alone; changed in place."""
    before.weight = _picked(before.weight, kept, 0)
    if before.bias is not None:
        before.bias = _picked(before.bias, kept, 0)
    after.weight = _picked(after.weight, kept, 1)
    for layer, count in ((before, "out"), (after, "in")):
        setattr(layer, f"{count}_{'features' if isinstance(layer, nn.Linear) else 'channels'}", len(kept))


def _picked(value: Tensor, kept: Tensor, dim: int) -> Any:
    picked = value.detach().index_select(dim, kept).clone()
    return nn.Parameter(picked) if isinstance(value, nn.Parameter) else picked
