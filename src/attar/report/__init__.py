"""The certificate as one page: words first, then pictures, then tables; nothing to fetch and nothing to run."""

from __future__ import annotations

from attar.report.page import write_report
from attar.report.rows import check_rows

__all__ = ["check_rows", "write_report"]
