"""What a search leaves to be read: search.html and leaderboard.csv."""

from __future__ import annotations

from attar.report.search.leaderboard import write_leaderboard
from attar.report.search.page import commands, write_search_page
from attar.report.search.tables import summary

__all__ = ["commands", "summary", "write_leaderboard", "write_search_page"]
