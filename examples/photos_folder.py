"""A folder of images that everybody has: three photographs from scikit-learn and matplotlib, cut into pieces of 24 × 24 pixels.

    python examples/photos_folder.py                    # writes recipes/data/photos, for recipes/photos.yaml
    python examples/photos_folder.py somewhere/else

One folder for each photograph, one PNG for each piece, and no two pieces share a pixel: "which photograph is this piece of?". It shows
how a folder of your own is read. It is no evidence about photographs in general: pieces of one lie side by side in all splits.

china.jpg and flower.jpg (CC BY 2.0) come with scikit-learn, the portrait of Grace Hopper (public domain) with matplotlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

SIDE = 24
FOLDER = Path(__file__).parent.parent / "recipes" / "data" / "photos"


def photographs() -> dict[str, np.ndarray]:
    """(height, width, 3) uint8 by name."""
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(portrait) as image:
        found = {"portrait": np.asarray(image.convert("RGB"))}
    return found | {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


def write(folder: Path) -> int:
    """Cut the photographs into `folder`; how many pieces there are."""
    count = 0
    for name, photograph in photographs().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        rows, columns = (length // SIDE for length in photograph.shape[:2])
        for row in range(rows):
            for column in range(columns):
                piece = photograph[row * SIDE :][:SIDE, column * SIDE :][:, :SIDE]
                Image.fromarray(piece).save(folder / name / f"{row:02}-{column:02}.png")
                count += 1
    return count


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    print(f"{write(target):,} images in {target}")
