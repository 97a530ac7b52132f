"""What of a student its price depends on, without building it: sizes of layers, by family."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from attar.pretrained import Backbone
from attar.pretrained.transformer import Transformer
from attar.signal import Schema, Student
from attar.students.cnn import CNN
from attar.students.mlp import MLP
from attar.students.shrink import Shrunk
from attar.students.static_embedding import Static
from attar.students.trees import Forest, LightGBM
from attar.task import Task

__all__ = ["FAMILIES", "Shape", "Shapes", "family_of"]

BLOCK, ALIGNED = 16, 4  # channels, see `_cnn`

FAMILIES: dict[type, str] = {
    MLP: "mlp",
    CNN: "cnn",
    LightGBM: "lightgbm",
    Forest: "forest",
    Shrunk: "shrink",
    Transformer: "hf",
    Static: "static_embedding",
}


@dataclass(frozen=True)
class Shape:
    """A student as numbers.

    features: what its latency is a sum of, each times a price that is not negative; the first is 1. bytes: the same of its file's size.
    structure: equal for students whose graphs have the same nodes; None where nobody knows.
    parameters, macs: exact; None where they are only known once it is built.
    """

    features: tuple[float, ...]
    bytes: tuple[float, ...]
    structure: Hashable = None
    parameters: int | None = None
    macs: int | None = None


def family_of(student: Student) -> str:
    """The word that makes such students; of a backbone the library."""
    if isinstance(student, Backbone):
        return student.library
    return FAMILIES.get(type(student), type(student).__name__.lower())


@dataclass
class Shapes:
    """Shapes of students for one schema and task. `of` takes microseconds: what a family shares is found once."""

    schema: Schema
    task: Task
    _ends: dict[int, tuple[int, int, int]] = field(default_factory=dict, init=False, repr=False)

    def of(self, student: Student) -> Shape | None:
        """The shape; None where no formula gives the price of a family, so that each of its students is measured."""
        match student:
            case MLP():
                return self._mlp(student)
            case CNN():
                return self._cnn(student)
            case LightGBM():
                return self._trees(student.trees, student.leaves, student.leaves)
            case Forest():
                return self._trees(student.trees, 2**student.depth, 2**student.depth)
            case _:
                return None

    def _mlp(self, how: MLP) -> Shape:
        """Products of one row with matrices: what counts are numbers multiplied, numbers made, and layers."""
        if how.embed not in self._ends:
            self._ends[how.embed] = self._measured_ends(how)
        read, table, outputs = self._ends[how.embed]
        inner = (how.depth - 1) * how.width**2
        macs = read * how.width + inner + how.width * outputs
        parameters = table + macs + how.depth * how.width + outputs
        units = how.depth * how.width
        counts, stored = (1, how.depth, units, macs, table), (1, how.depth, units, macs, table * how.embed)
        return Shape(tuple(map(float, counts)), tuple(map(float, stored)), how.depth, parameters, macs)

    def _measured_ends(self, how: MLP) -> tuple[int, int, int]:
        """(numbers that the first layer reads, weights of the reading, outputs), from the smallest such net."""
        net: Any = MLP(width=1, depth=1, embed=how.embed)(self.schema, 0)
        table = sum(p.numel() for p in net.read.parameters())
        return net.read.width, table, net.head.linear.out_features

    def _cnn(self, how: CNN) -> Shape:
        """Convolutions: multiply-adds of those for which ONNX Runtime has its direct kernel, and of those that it makes matrix products.

        The direct one takes channels in blocks (NCHWc of MLAS; of 16 on processors with AVX-512), and reads fewer channels than a block
        has, or a multiple of 4. Of nets on 28 × 28 pixels, 2 to 31 channels wide, this took the
        held-out error from 12 % to 4 %: 19 channels take twice the time of 16.
        """
        channels, height, width = self.schema.shape
        outputs = max(1, len(self.schema.classes))
        macs = made = direct = products = turned = weighing = units = 0
        out = how.width
        for _ in range(how.depth):
            height, width = (height + 1) // 2, (width + 1) // 2
            weights, places = 9 * channels * out, height * width
            if channels < BLOCK or channels % ALIGNED == 0:
                direct += 9 * channels * -(-out // ALIGNED) * ALIGNED * places
            else:
                products += weights * places
                turned += 1
            macs += weights * places
            made += out * places
            weighing, units = weighing + weights, units + out
            channels, out = out, 2 * out
        macs += channels * outputs
        weighing += channels * outputs
        counts, stored = (1, how.depth, direct, products, made, weighing, turned), (1, how.depth, weighing, units)
        return Shape(tuple(map(float, counts)), tuple(map(float, stored)), how.depth, weighing + 2 * units + outputs, macs)

    def _trees(self, trees: int, leaves: float, most: float) -> Shape:
        outputs = self.task.labels if self.task.kind == "multilabel" else 1 if self.task.outcomes <= 2 else self.task.outcomes
        count = trees * outputs
        nodes = float(count * min(most, 1e4))
        return Shape((1.0, float(count), count * math.log2(leaves), nodes), (1.0, float(count), nodes))
