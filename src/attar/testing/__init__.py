"""The contract batteries, public, so that a third party can test its own words."""

from __future__ import annotations

from attar.testing.export import check_export
from attar.testing.store import kill_at_any_byte
from attar.testing.terms import Example, check_term, example, golden, tapped

__all__ = ["Example", "check_export", "check_term", "example", "golden", "kill_at_any_byte", "tapped"]
