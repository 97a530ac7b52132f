"""The certificate as one page, words first, then pictures, then tables, nothing to fetch and nothing to run; and as a model card."""

from __future__ import annotations

from attar.report.card import write_card
from attar.report.compared import write_comparison
from attar.report.page import write_report
from attar.report.rows import check_rows

__all__ = ["check_rows", "write_card", "write_comparison", "write_report"]
