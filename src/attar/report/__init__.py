"""The certificate as one page, words first, then pictures, then tables, nothing to fetch and nothing to run; and as a model card."""

from __future__ import annotations

from attar.report.card import write_card
from attar.report.page import write_report

__all__ = ["write_card", "write_report"]
