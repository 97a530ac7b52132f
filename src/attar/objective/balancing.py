"""A weight that is measured: so large that its term pulls at the student as many times as hard as another as was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from attar.errors import ObjectiveError
from attar.loop import processes
from attar.notation import say
from attar.objective.weights import Weight, as_weight

__all__ = ["Balance", "Scale", "balance", "pull"]

MEMORY = 5  # measurements that the running means reach back: more lag behind a student in motion, fewer follow the noise of batches


def balance(ratio: float | Weight = 1.0, every: int = 20) -> Balance:
    """The number b, measured while training, with which a term pulls at the student's weights `ratio` times as hard as the reference.

        b = ratio · mean ‖∇ reference‖ / mean ‖∇ term‖        the gradients of the two unweighted losses by the student's parameters

    The reference is the first term of the objective that is not balanced; it counts as if its weight were 1, so that factors keep their
    meaning: 2 · balance(ratio=1) is balance(ratio=2).
    ratio: above 0, or a ramp. 1, 3 and 10 are worth a trial: a ratio carries over from one loss, temperature or number of classes to the
        next, where a weight does not. 1 is attar's default.
    every: training steps between two measurements; the first step is one. A measurement asks for a gradient of the reference and one of
        each balanced term beside the step's own: at 20, two more backward passes to twenty.

    The means run over about the last 5 measurements, as GradNorm's (Chen et al. 2018, arXiv:1711.02257) balance is taken of gradient norms;
    attar fixes the ratio instead of learning it by relative training rates, and takes all of the student's weights instead of the last
    shared layer, for terms of taps have no layer in common. A batch where either gradient is 0 or not finite is not measured; before a
    first measurement b is the ratio itself. Multiplying a term by a constant changes nothing. The means are kept in checkpoints, and of
    several processes they are shared.

    `ramp` follows the training by plan, this by measurement; `gate` tells rows apart, and multiplies with it.
    Raises ObjectiveError for an objective without a term to be balanced against.

    >>> from attar.objective import kl, labels
    >>> balance(ratio=3) * kl() + labels()
    balance(ratio=3.0, every=20) * kl(temperature=2.0) + labels(smoothing=0.0)
    """
    if every < 1:
        raise ObjectiveError(f"balance(every={every}): at least 1 step lies between two measurements", hint="20 is the default")
    share = as_weight(ratio)
    if share.composite or min(share.extremes) < 0 or max(share.extremes) == 0:
        raise ObjectiveError(f"balance(ratio={share!r}) is no ratio of two lengths", hint="ratio=1 pulls as hard as the reference")
    return Balance(share, every)


@dataclass(frozen=True, repr=False)
class Balance(Weight):
    """See `balance`. scale: what was measured; each term has its own."""

    composite: ClassVar[bool] = True

    ratio: Weight
    every: int
    scale: Scale = field(default_factory=lambda: Scale(), compare=False)

    def at(self, progress: float) -> Tensor:
        return self.scale() * self.ratio.at(progress)

    @property
    def held(self) -> tuple[nn.Module, ...]:
        return (self.scale, *self.ratio.held)

    @property
    def measured(self) -> tuple[tuple[Scale, int], ...]:
        return ((self.scale, self.every),)

    @property
    def extremes(self) -> tuple[float, ...]:
        return self.ratio.extremes

    def scaled(self, factor: Weight) -> Weight:
        """The same with another ratio, and nothing measured yet."""
        if isinstance(factor, Balance):
            raise ObjectiveError(f"{self!r} * {factor!r}: a term is balanced once", hint="multiply the ratios")
        return factor.scaled(self) if factor.composite else Balance(self.ratio.scaled(factor), self.every)

    def rest(self) -> Weight:
        raise ObjectiveError(f"1 − {self!r} means nothing: a ratio of gradients is no share", hint="balance(ratio=9) * x + y")

    def __repr__(self) -> str:
        return say("balance", ratio=self.ratio, every=self.every)


class Scale(nn.Module):
    """Running means of two gradient norms, and their quotient; a checkpoint has them, and the count of steps."""

    norms: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.register_buffer("norms", torch.zeros(2))  # of the reference, of the term
        self.register_buffer("count", torch.zeros(()))  # measurements so far

    def forward(self) -> Tensor:
        """() what the term has to be multiplied with to pull as hard as the reference; 1 before anything was measured."""
        reference, own = self.norms.unbind()
        return torch.where(self.count > 0, reference / own, 1.0)

    def due(self, every: int) -> bool:
        """Counts a step, and says whether it is one to measure in. Counted outside of tensors: reading one makes an accelerator wait."""
        self.steps += 1
        return self.steps % every == 1 or every == 1

    def note(self, reference: Tensor, own: Tensor) -> None:
        """Two norms, () each, of one step; left out where either is 0 or not finite. In place: DDP shares the very tensors it was shown."""
        found = torch.stack((reference, own)).to(self.norms)
        good = (found.isfinite() & (found > 0)).all()
        self.count += good
        share = good / self.count.clamp(1, MEMORY)
        self.norms += share * (torch.where(good, found, self.norms) - self.norms)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Scale:
        exact = self.norms, self.count
        super()._apply(fn, recurse)
        if self.norms.dtype != exact[0].dtype:  # `.bfloat16()` of a module is meant for its arithmetic
            self.norms, self.count = (value.to(self.norms.device) for value in exact)
        return self


def pull(loss: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """() the norm of a loss's gradient by all of `weights` together, float32; its graph is kept. The mean over processes."""
    norm = torch.zeros((), device=loss.device)
    if loss.requires_grad:
        grads = torch.autograd.grad(loss, list(weights), retain_graph=True, allow_unused=True)
        if norms := [torch.linalg.vector_norm(g, dtype=torch.float32) for g in grads if g is not None]:
            norm = torch.linalg.vector_norm(torch.stack(norms))
    if (world := processes()[1]) > 1 and torch.distributed.is_initialized():
        torch.distributed.all_reduce(norm)
        norm = norm / world
    return norm
