"""The battery of sources: what every source must keep, whoever answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attar.errors import TapError
from attar.signal import NOTHING, Batch, Signal, Source
from attar.sources.answers import take

__all__ = ["check_answers", "check_fingerprint", "check_rows", "check_source", "check_taps"]


def check_source(
    source: Source,
    batch: Batch,
    *,
    outcomes: int,
    taps: Sequence[str] = (),
    changed: Callable[[], Sequence[Source]] = tuple,
    tolerance: float = 1e-5,
) -> None:
    """Run the whole battery on a source and a batch of at least 4 rows; raises AssertionError that names the broken clause.

    outcomes: size of the last axis that it must answer. taps: paths that can be tapped, none for a source without insides.
    changed: makes sources that answer otherwise, by a weight or an ε: each must have another fingerprint. It is called last, and may
        change the source itself. tolerance: by which one row's answer may depend on the rows beside it (the order of sums).

    >>> from attar.sources import module
    >>> net = torch.nn.Linear(3, 2)
    >>> check_source(module(net), Batch(torch.ones(5, 3)), outcomes=2, taps=[], changed=lambda: [module(torch.nn.Linear(3, 2))])
    """
    check_answers(source, batch, outcomes)
    check_rows(source, batch, tolerance)
    check_taps(source, batch, taps)
    check_fingerprint(source, changed)


def check_answers(source: Source, batch: Batch, outcomes: int) -> None:
    """Logits of every row with the outcomes last, no NaN, no gradient, the same each time; and `prepare` gives a call that runs."""
    assert isinstance(source, Source), "a source has fingerprint, __call__ and prepare"
    weight = torch.ones(1, requires_grad=True)
    with torch.enable_grad():
        first = source(batch).output * weight
        assert first.grad_fn is not None
    output = source(batch).output
    assert not output.requires_grad, "the answer keeps a gradient"
    first.sum().backward()  # an answer made in inference mode could not stand in a student's loss
    assert output.shape[0] == len(batch), f"{len(batch)} rows, {output.shape[0]} answers"
    assert output.shape[-1] == outcomes, f"the last axis is {output.shape[-1]}, the data have {outcomes} outcomes"
    assert output.dtype.is_floating_point, f"logits are floats, these are {output.dtype}"
    assert not output.isnan().any(), "the answer has NaN"
    assert torch.equal(output, source(batch).output), "the same question, another answer"
    call = source.prepare(batch)
    assert torch.equal(output, source(batch).output), "`prepare` changed the answers"
    call()
    call()
    assert torch.equal(output, source(batch).output), "measuring the cost changed the answers"


def check_rows(source: Source, batch: Batch, tolerance: float = 1e-5) -> None:
    """A row's answer does not depend on the rows beside it, nor on their order. Catches BatchNorm left in training mode."""
    whole = source(batch).output
    order = torch.arange(len(batch)).flip(0)
    _close(source(take(batch, order)).output, whole[order], tolerance, "in another order a row is answered otherwise")
    half = torch.arange(len(batch) // 2)
    _close(source(take(batch, half)).output, whole[half], tolerance, "beside other rows a row is answered otherwise")
    alone = torch.cat([source(take(batch, torch.tensor([i]))).output for i in range(min(4, len(batch)))])
    _close(alone, whole[: len(alone)], tolerance, "alone a row is answered otherwise")


def check_taps(source: Source, batch: Batch, taps: Sequence[str]) -> None:
    """Exactly the taps that are asked for, and the same answer with and without; an unknown tap is a TapError, naming near ones."""
    plain = source(batch, NOTHING)
    assert not plain.taps, f"no taps were asked for, these came: {sorted(plain.taps)}"
    for path in taps:
        signal: Signal = source(batch, frozenset({path}))
        assert set(signal.taps) == {path}, f"asked for {path!r}, got {sorted(signal.taps)}"
        assert not signal.taps[path].requires_grad, f"the tap {path!r} keeps a gradient"
        assert len(signal.taps[path]) == len(batch), f"the tap {path!r} has {len(signal.taps[path])} rows of {len(batch)}"
        assert torch.equal(signal.output, plain.output), f"tapping {path!r} changes the answer"
    wrong = (taps[0] + "x") if taps else "layer.1"
    said = ""
    try:
        source(batch, frozenset({wrong}))
    except TapError as error:
        said = str(error)
    assert said, f"the tap {wrong!r} is not there, and nobody said so"
    assert not taps or taps[0] in said, f"the error about {wrong!r} does not name {taps[0]!r}:\n{said}"


def check_fingerprint(source: Source, changed: Callable[[], Sequence[Source]]) -> None:
    """The fingerprint stays while nothing changes, asking included, and differs for every source that answers otherwise."""
    before = source.fingerprint
    assert isinstance(before, str), "a fingerprint is a text"
    assert before, "the fingerprint is empty"
    assert source.fingerprint == before, "the fingerprint moves though nothing does"
    others = [other.fingerprint for other in changed()]
    assert before not in others, "another source has the same fingerprint"
    assert len(set(others)) == len(others), "two other sources share a fingerprint"


def _close(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    off = torch.where(got == want, 0, got - want).abs().max().item()  # −inf is equal to −inf
    assert off <= tolerance * max(1.0, want[want.isfinite()].abs().max().item()), f"{what}: by {off:.3g}"
