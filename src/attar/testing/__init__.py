"""The contract batteries, public, so that a third party can test its own words."""

from __future__ import annotations

from attar.testing.store import kill_at_any_byte

__all__ = ["kill_at_any_byte"]
