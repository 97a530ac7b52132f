"""Data: where the rows come from, how they are split, and how they are varied."""

from attar.data.base import Data, Description, Split
from attar.data.munge import munge
from attar.data.table import frame, table

__all__ = ["Data", "Description", "Split", "frame", "munge", "table"]
