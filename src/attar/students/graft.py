"""A student on the teacher's own head: backbone → projector → the head that the teacher answers with, frozen."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attar.errors import StudentError
from attar.notation import say
from attar.reading import TextModel
from attar.signal import Schema, Student
from attar.students.ends import Head, at_least, seeded
from attar.tap import Tapped, resolve

__all__ = ["Graft", "Grafted", "graft"]


@runtime_checkable
class _Ordered(Protocol):
    """A source that says in which order its net answers."""

    @property
    def classes(self) -> tuple[str, ...] | None: ...


@dataclass(frozen=True, repr=False)
class Graft:
    """See `graft`; called with (schema, seed) it builds."""

    student: Student
    onto: Student | nn.Module | Tapped
    output: Literal["teacher", "student"] = "teacher"
    factor: int = 2

    def __repr__(self) -> str:
        onto = type(self.onto).__name__ if isinstance(self.onto, nn.Module) else self.onto
        return say("graft", self.student, onto=onto, output=self.output, factor=self.factor)

    def __call__(self, schema: Schema, seed: int) -> nn.Module:
        model = self.student(schema, seed)
        teacher = self._teacher(schema)
        net = _net(model)
        path, own = _head(net, schema, "the student")
        _, theirs = _head(_net(teacher), schema, "the teacher")
        net.set_submodule(path, nn.Identity())
        with seeded(seed):
            grafted = Grafted(net, own, copy.deepcopy(theirs), output=self.output, factor=self.factor)
        if isinstance(model, TextModel):
            model.net = grafted
            return model
        return grafted

    def _teacher(self, schema: Schema) -> nn.Module:
        if isinstance(self.onto, nn.Module):
            return self.onto
        if isinstance(self.onto, Tapped):
            order = self.onto.classes if isinstance(self.onto, _Ordered) else None
            if order is not None and order != schema.classes:
                raise StudentError(
                    f"{self!r}: the teacher's head answers {', '.join(order)}, the data have {', '.join(schema.classes)}",
                    hint="a student answers in the data's order: graft onto a net that does",
                )
            return self.onto.net
        return self.onto(schema, 0)


def graft(
    student: Student, onto: Student | nn.Module | Tapped, *, output: Literal["teacher", "student"] = "teacher", factor: int = 2
) -> Graft:
    """A student that reads as `student` does and answers through the teacher's head: (B, D_s) features → (B, D_t) → (B, C) logits.

    student: any builder of this room.
    onto: the teacher: a net, a source that holds one (`module(net)`), or a builder with weights, which is what a recipe can write:
        `onto=timm("resnet18", weights="teacher.safetensors")`, with weights of the teacher's own run. A teacher that the same recipe
        teaches does not exist yet when its student is described.
    output: "teacher" answers by the teacher's head, which stays as it is, SimKD (arXiv:2203.14001): learn by `simkd`. "student" answers by
        the student's own head, and the teacher's is a branch beside it, SRRL (Yang et al. 2021, ICLR): learn by `srrl`; the branch is no
        part of the exported graph.
    factor: the projector has D_t / factor hidden units; 2, the best of the paper's 2, 4 and 8.

    The projector is linear, layer norm, ReLU, linear, of the pooled vector; the paper's are three convolutions of the map before it. Taps:
    `projected`, what the teacher's head reads, and with output="student" `regrasped`, what it says to that. The head is the module `head`,
    else the layer that reads `embedding`.
    Raises StudentError where a model has no such head, or its outcomes are not the data's.

    >>> from attar.students import cnn
    >>> schema = Schema("images", shape=(1, 8, 8), classes=("a", "b", "c"))
    >>> teacher = cnn(width=8, depth=2)(schema, 0)
    >>> grafted = graft(cnn(width=2, depth=1), onto=teacher)(schema, 1)
    >>> grafted(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape, grafted.head.linear.in_features
    (torch.Size([5, 3]), 16)
    """
    if output not in ("teacher", "student"):
        raise StudentError(f"graft(output={output!r})", hint='"teacher" or "student"')
    at_least("graft", factor=(factor, 1))
    return Graft(student, onto, output, factor)


class Grafted(nn.Module):
    """What `graft` builds: `net` answers features, `projected` makes them the teacher's, `head` and `regrasped` read them."""

    def __init__(self, net: nn.Module, own: nn.Module, theirs: nn.Module, *, output: Literal["teacher", "student"], factor: int) -> None:
        super().__init__()
        ours, width = _linear(own).in_features, _linear(theirs).in_features
        hidden = max(width // factor, 1)
        self.net = net
        self.projected = nn.Sequential(nn.Linear(ours, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, width))
        frozen = theirs.cpu().float().requires_grad_(False).eval()
        self.head = own if output == "student" else frozen
        self.regrasped = frozen if output == "student" else None

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        features = self.net(*inputs, **named)
        if self.regrasped is None:
            return self.head(self.projected(features))
        if not torch.compiler.is_exporting():
            self.regrasped(self.projected(features))  # for whoever taps it; what ships does without
        return self.head(features)

    def tap_names(self) -> dict[str, str]:
        """The embedding is what the projector reads."""
        names = {"embedding": "projected:in", "projected": "projected"}
        return names if self.regrasped is None else names | {"regrasped": "regrasped"}

    def train(self, mode: bool = True) -> Grafted:
        super().train(mode)
        (self.head if self.regrasped is None else self.regrasped).eval()
        return self


def _net(model: nn.Module) -> nn.Module:
    """Of what reads text the network behind the tokenizer."""
    return model.net if isinstance(model, TextModel) else model


def _head(model: nn.Module, schema: Schema, who: str) -> tuple[str, nn.Module]:
    """The last layer and its path: `head`, as attar's own nets call it, else what reads `embedding`.

    Raises StudentError where there is none that answers the data's outcomes.
    """
    path = "head" if dict(model.named_children()).get("head") is not None else _reader(model, who)
    head = model.get_submodule(path)
    if not any(isinstance(m, nn.Linear) for m in head.modules()):
        raise StudentError(
            f"{who}'s head at {path!r} is a {type(head).__name__}, not linear", hint="graft wants a linear layer that answers"
        )
    if not schema.classes and not isinstance(head, Head):
        raise StudentError(
            f"{who}'s head at {path!r} answers in a unit of its own",
            hint="of numbers, only cnn() and mlp() have heads that answer in the label's",
        )
    outcomes, asked = _linear(head, last=True).out_features, max(len(schema.classes), 1)
    if outcomes != asked and not (asked == 2 and outcomes == 1):
        raise StudentError(f"{who}'s head at {path!r} answers {outcomes} outcomes, the data have {asked}", hint="teach it on these classes")
    return path, head


def _reader(model: nn.Module, who: str) -> str:
    reads = resolve(model, "embedding")
    path = reads[0].removesuffix(":in") if len(reads) == 1 else ""
    if not path or not reads[0].endswith(":in") or any(mark in path for mark in ":[#"):
        raise StudentError(
            f"{who}, a {type(model).__name__}, has no head that reads its embedding: that is {', '.join(reads)}",
            hint="graft wants a last layer of its own, as classifiers have",
        )
    return path


def _linear(head: nn.Module, last: bool = False) -> nn.Linear:
    found = [m for m in head.modules() if isinstance(m, nn.Linear)]
    return found[-1 if last else 0]
