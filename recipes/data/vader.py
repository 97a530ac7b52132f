"""Makes vader/*.tsv from the source distribution of vaderSentiment 3.3.2; NOTICE says what the columns are.

pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
python vader.py vaderSentiment-3.3.2.tar.gz
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from pathlib import Path

DOMAINS = {"movies": "movieReviewSnippets", "amazon": "amazonReviewSnippets", "nyt": "nytEditorialSnippets", "tweets": "tweets"}
NEUTRAL = 0.5  # two standard errors of a mean rating are 0.31 to 0.42: one that is nearer to 0 may lie on either side


def member(archive: bytes, ending: str) -> bytes:
    """The one file of a .tar.gz whose name ends so."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (found,) = [m for m in tar.getmembers() if m.name.endswith(ending)]
        file = tar.extractfile(found)
        assert file is not None
        return file.read()


def label(score: float) -> str:
    """The side a mean rating is on; nothing where it is on neither."""
    return "" if abs(score) < NEUTRAL else "positive" if score > 0 else "negative"


def main(package: Path, folder: Path) -> None:
    ratings = member(package.read_bytes(), "hutto_ICWSM_2014.tar.gz")
    folder.mkdir(exist_ok=True)
    for domain, source in DOMAINS.items():
        lines = member(ratings, f"{source}_GroundTruth.txt").decode("utf-8").split("\n")
        rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
        with open(folder / f"{domain}.tsv", "w", encoding="utf-8", newline="") as file:
            write = csv.writer(file, delimiter="\t", lineterminator="\n")
            write.writerow(["text", "score", "label"])
            write.writerows([text, f"{float(score):.4g}", label(float(score))] for _, score, text in rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name("vader"))
