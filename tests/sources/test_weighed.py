"""Sources say what they weigh, and wrappers say what the wrapped one weighs."""

from __future__ import annotations

from torch import nn

from attar.signal import Weighed
from attar.sources import cached, ensemble, estimator, module


class Guess:
    def predict(self, rows: object) -> object:
        return rows


def test_a_module_weighs_its_numbers_and_its_wrappers_no_more() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    source = module(net)
    assert source.parameters == 3 * 4 + 4 + 4 + 4
    assert source.size_bytes == 4 * (source.parameters + 4 + 4) + 8  # running mean, running variance, a count in int64
    for wrapped, times in ((cached(source), 1), (ensemble(source, source), 2)):
        assert isinstance(wrapped, Weighed)
        assert (wrapped.parameters, wrapped.size_bytes) == (times * source.parameters, times * source.size_bytes)


def test_what_nobody_can_tell_is_none() -> None:
    mixed = ensemble(module(nn.Linear(3, 2)), estimator(Guess()))
    assert (mixed.parameters, mixed.size_bytes) == (None, None)
