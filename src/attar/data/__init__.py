"""Data: where the rows come from, how they are split, and how they are varied."""

from typing import Annotated

from attar.data.arrays import arrays, as_data, dataset
from attar.data.augment import Augmentation, crop, flip, noise, rotate, shift
from attar.data.base import Data, Described, Description, Split
from attar.data.corrupted import Corruptions, corruptions
from attar.data.images import images, mnist5k
from attar.data.munge import Munge, munge
from attar.data.table import frame, table
from attar.data.text import text
from attar.data.unlabelled import unlabelled
from attar.notation import Called

Elsewhere = Described | Annotated[Corruptions, Called("corruptions()")]
"""What may stand under `shift`: other rows, or the test rows made worse."""

__all__ = [
    "Augmentation",
    "Corruptions",
    "Data",
    "Description",
    "Elsewhere",
    "Munge",
    "Split",
    "arrays",
    "as_data",
    "corruptions",
    "crop",
    "dataset",
    "flip",
    "frame",
    "images",
    "mnist5k",
    "munge",
    "noise",
    "rotate",
    "shift",
    "table",
    "text",
    "unlabelled",
]
