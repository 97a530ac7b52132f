"""The text of a tap."""

from __future__ import annotations

import pytest

from attar.errors import TapError
from attar.tap.grammar import Read, parse


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("layers.2", Read("layers.2")),
        ("layers.2:in", Read("layers.2", into=True)),
        ("layers.2[1]", Read("layers.2", item=1)),
        ("layers.2#3", Read("layers.2", call=3)),
        ("layers.2:in[1]#3", Read("layers.2", into=True, item=1, call=3)),
        ("hidden.-1", Read("hidden.-1")),
    ],
)
def test_a_tap_reads_and_is_written_as_it_was(text: str, read: Read) -> None:
    assert parse(text) == read
    assert str(read) == text


@pytest.mark.parametrize(
    "text", ["a:out", "a:", "a[", "a[]", "a[-1]", "a[x]", "a#", "a#-1", "a#x", "a#0:in", "a[0]:in", "a#0[1]", "a:in:in", "a[0][1]", "a#0#1"]
)
def test_a_wrong_suffix_is_refused_with_the_order_of_right_ones(text: str) -> None:
    with pytest.raises(TapError, match="does not read as a tap") as caught:
        parse(text)
    assert repr(text) in caught.value.message
    assert "'layers.2:in[1]#0'" in caught.value.hint
