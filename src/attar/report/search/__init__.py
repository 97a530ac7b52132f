"""What a search leaves to be read: search.html and leaderboard.csv."""

from __future__ import annotations

from attar.report.search.leaderboard import write_leaderboard
from attar.report.search.page import write_search_page

__all__ = ["write_leaderboard", "write_search_page"]
