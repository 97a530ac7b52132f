"""What storing a teacher's answers costs, and what it saves.

    python benchmarks/stored_against_live.py            # an MLP and a CNN, five rounds each
    python benchmarks/stored_against_live.py --quick

Annotation: `annotate` of all rows to disk, compacted and opened, against a bare loop `net(rows)` over the same batches.
Epoch: one pass of distillation of a student whose teacher is ten times its size (parameters and multiplications), the answers from
the store against asking the teacher in each step; the same plain loop, rows, order and batches.
All on one thread; both sides of a ratio run once unmeasured, then in each round one after the other, in alternating order.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attar.data import Data, Split
from attar.signal import Schema
from attar.sources.module import module
from attar.testing.store import plain_data
from attar.verbs.annotate import annotate

CLASSES = 10


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="a fifth of the rows, three rounds")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"python {' '.join(sys.argv)} · seed {options.seed} · {machine()}")
    share, rounds = (5, 3) if options.quick else (1, 5)
    torch.manual_seed(options.seed)
    case("MLP", data(25_000 // share, (64,), options.seed), mlp(850), mlp(256), rounds, batch=256)
    case("CNN", data(2_500 // share, (1, 28, 28), options.seed), cnn(52), cnn(16), rounds, batch=64)


def case(name: str, rows: Data, teacher: nn.Module, student: nn.Module, rounds: int, *, batch: int) -> None:
    sizes = [sum(p.numel() for p in net.parameters()) for net in (teacher, student)]
    print(f"\n{name}: teacher {sizes[0]:,} parameters, student {sizes[1]:,} ({sizes[0] / sizes[1]:.1f} ×); {len(rows.train):,} rows")
    source = module(teacher.eval())
    with tempfile.TemporaryDirectory() as folder:
        folders = iter(Path(folder) / str(n) for n in range(rounds + 1))
        answers = []

        def stored() -> None:
            answers.append(annotate(source, rows, at=next(folders), splits=["train"], batch=1024))

        paired("annotation / bare forward loop", stored, lambda: bare(teacher, rows.train), rounds, wanted="at most 1.15")
    handles = answers[0].locate(rows.train.ids)
    paired(
        "epoch, live teacher / store",
        lambda: epoch(student, rows.train, lambda index: source(rows.train.batch(index)).output, batch),
        lambda: epoch(student, rows.train, lambda index: answers[0].signal(handles.index_select(0, index)).output, batch),
        rounds,
        wanted="at least 3",
    )


def paired(what: str, one: Callable[[], None], other: Callable[[], None], rounds: int, *, wanted: str) -> None:
    """Print the ratio of wall times, each round's two sides one after the other; of CPU times too, which a busy machine moves less."""
    one()
    other()
    took = np.zeros((rounds, 2, 2))  # (round, side, wall or CPU)
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            started = time.perf_counter(), time.process_time()
            (one, other)[side]()
            took[number, side] = time.perf_counter() - started[0], time.process_time() - started[1]
    wall, cpu = np.moveaxis(took[:, 0] / took[:, 1], 1, 0)
    seconds = " / ".join(f"{s:.2f} s" for s in np.median(took[:, :, 0], axis=0))
    print(f"  {what:<31} {np.median(wall):5.2f}  ({rounds} rounds, {wall.min():.2f} to {wall.max():.2f}; {seconds}); wanted: {wanted}")
    print(f"  {'of CPU time':<31} {np.median(cpu):5.2f}  ({cpu.min():.2f} to {cpu.max():.2f})")


def bare(net: nn.Module, split: Split) -> None:
    """The least that asking a net every row can cost."""
    with torch.no_grad():
        for index in torch.arange(len(split)).split(1024):
            net(split.rows(index))


def epoch(student: nn.Module, split: Split, teacher: Callable[[Tensor], Tensor], batch: int) -> None:
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    student.train()
    for index in torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).split(batch):
        log_p = torch.log_softmax(teacher(index) / 2, -1)  # (B, C)
        log_q = torch.log_softmax(student(split.batch(index).inputs) / 2, -1)
        loss = 4 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
    )


def cnn(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, CLASSES),
    )  # fmt: skip


def data(rows: int, shape: tuple[int, ...], seed: int) -> Data:
    """Random rows, all of them for training: what is timed does not depend on what they mean."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, *shape, generator=generator)
    ids = torch.randint(-(2**62), 2**62, (rows,), generator=generator)
    schema = Schema("tensor", shape=shape, classes=tuple(str(c) for c in range(CLASSES)))
    train = Split("train", ids, torch.zeros(rows, dtype=torch.int64), None, schema, lambda index: inputs.index_select(0, index))
    return replace(plain_data(10), schema=schema, train=train)


def machine() -> str:
    return f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, 1 thread"


if __name__ == "__main__":
    main()
