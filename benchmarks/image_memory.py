"""Peak memory when an image folder grows tenfold: reading it and one epoch of batches, each in a process of its own.

python benchmarks/image_memory.py                 # 1,000 against 10,000 images of 64 × 64, three runs of each
python benchmarks/image_memory.py --images 2000 --side 96 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CHILD = """
import resource, sys, torch
torch.set_num_threads(1)
from attar.data import images, shift
data = images(sys.argv[1], augment=[shift(pixels=2)], views=4).read()
seen = 0
for split in data.splits.values():
    for start in range(0, len(split), 128):
        at = torch.arange(start, min(start + 128, len(split)))
        seen += len(split.batch(at, 1 + at % 4 if split.name == "train" else None))
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make(root: Path, count: int, side: int) -> None:
    """A folder of two classes of `count` PNG files of noise, which compress to about the size of their pixels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / ("even", "odd")[i % 2] / f"{i:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3)).astype(np.uint8)).save(path, compress_level=1)


def peak_mb(folder: Path, count: int) -> float:
    answer = subprocess.run([sys.executable, "-c", CHILD, str(folder)], check=True, capture_output=True, text=True).stdout.split()
    assert int(answer[0]) == count, f"{answer[0]} images were seen, {count} were written"
    return int(answer[1]) / 1024  # Linux counts in KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="images in the small folder")
    parser.add_argument("--side", type=int, default=64, help="their height and width in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        medians = []
        for count in (said.images, 10 * said.images):
            folder = Path(place) / str(count)
            make(folder, count, said.side)
            peaks = [peak_mb(folder, count) for _ in range(said.repeats)]
            medians.append(statistics.median(peaks))
            pixels = count * said.side**2 * 3 / 2**20
            print(f"{count:>7,} images, {pixels:7.1f} MB of pixels: peak {medians[-1]:.1f} MB ({min(peaks):.1f} to {max(peaks):.1f})")
    print(f"ratio {medians[1] / medians[0]:.3f} (at most 1.10)")


if __name__ == "__main__":
    main()
