"""The certificate as one page: words first, then pictures, then tables; nothing to fetch and nothing to run."""

from __future__ import annotations

from attar.report.page import write_report

__all__ = ["write_report"]
