"""Reading 256 random rows of 100 classes from a compacted store, against a raw memory-mapped numpy read of the same file.

    python benchmarks/store.py            # 200,000 rows, 5,000 paired reads
    python benchmarks/store.py --quick

The store's read is `cached.signal(rows)`: float16 on disk, float32 out. The raw one is `mapped[rows].astype(float32)`, of the same
file, the same rows, in the same run, one after the other in alternating order. Looking up ids is timed apart.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from attar.signal import Signal
from attar.sources.cached import Cached
from attar.store import Identity, Store, Writer
from attar.testing.store import Plain

BATCH, CLASSES = 256, 100


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="a tenth of the rows and reads")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    rows, reads = (20_000, 500) if options.quick else (200_000, 5_000)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    ids = torch.randint(-(2**62), 2**62, (rows,), generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        store = filled(Path(folder), ids, generator)
        print(f"python {' '.join(sys.argv)} · seed {options.seed} · {rows:,} rows × {CLASSES} classes · {machine()}")
        print(f"bytes a row: {store.bytes_per_row} answer + {store.key_bytes_per_row} key; {CLASSES} × 2 = {CLASSES * 2}")
        compare(Cached(Plain(), folder, store=store), Path(folder), ids, reads, generator)


def filled(folder: Path, ids: torch.Tensor, generator: torch.Generator) -> Store:
    with Writer.open(folder, Identity("benchmark", precision="float16")) as writer:
        for part in ids.split(10_000):
            writer.add(part, torch.zeros_like(part), Signal(torch.randn(len(part), CLASSES, generator=generator)))
        writer.compact()
    return Store.open(folder)


def compare(source: Cached, folder: Path, ids: torch.Tensor, reads: int, generator: torch.Generator) -> None:
    mapped = np.memmap(folder / "output.1.bin", dtype="<f2", mode="r", shape=(len(ids), CLASSES))
    took: dict[str, list[float]] = {"raw": [], "store": [], "locate": []}
    for read in range(reads + 50):
        asked = ids[torch.randint(len(ids), (BATCH,), generator=generator)]
        started = time.perf_counter()
        rows = source.locate(asked)
        located = time.perf_counter() - started
        numbers = rows.numpy()

        def raw(numbers: np.ndarray = numbers) -> np.ndarray:
            return mapped[numbers].astype(np.float32)

        def stored(rows: torch.Tensor = rows) -> torch.Tensor:
            return source.signal(rows).output

        answers = {}
        for name, call in [("raw", raw), ("store", stored)][:: 1 if read % 2 else -1]:
            started = time.perf_counter()
            answers[name] = call()
            took[name].append(time.perf_counter() - started)
        took["locate"].append(located)
        assert np.array_equal(answers["raw"], answers["store"].numpy())
    times = {name: np.array(values[50:]) * 1e6 for name, values in took.items()}
    for name, what in [("raw", "mapped[rows].astype(float32)"), ("store", "cached.signal(rows)"), ("locate", "cached.locate(ids)")]:
        low, middle, high = np.quantile(times[name], [0.25, 0.5, 0.75])
        print(f"{what:<30} {middle:7.1f} µs   (quartiles {low:.1f} to {high:.1f}, {reads:,} reads of {BATCH} rows)")
    low, middle, high = np.quantile(times["store"] / times["raw"], [0.25, 0.5, 0.75])
    print(f"store / raw, paired: {middle:.2f} (quartiles {low:.2f} to {high:.2f}); wanted: at most 1.5")


def machine() -> str:
    return f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, 1 thread"


if __name__ == "__main__":
    main()
