"""What distillation from a stored teacher costs beside a plain PyTorch loop of the same arithmetic: `python benchmarks/step_overhead.py`.

Both train the same student from the same weights on the same rows in the same batches and order, with the same optimiser, schedule and
loss, and validate each epoch; paired and in turn, in one process, at one thread. Printed is the median over pairs of attar ÷ plain, with
the middle half of the pairs, for one whole call of `distill` (self-test, history and checkpoints included) and for its training alone.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from attar.data import Data, arrays
from attar.loop import fit, order_of
from attar.signal import Student
from attar.sources import module
from attar.sources.cached import Cached
from attar.students import cnn, mlp
from attar.testing.small import fitted
from attar.verbs.annotate import annotate
from attar.verbs.distill import distill

LR, BATCH, DECAY, WARMUP, TEMPERATURE, WEIGHT = 4e-3, 128, 0.01, 0.05, 2.0, 0.9


def tables() -> Data:
    """18,000 training rows of 23 numbers, as many as credit-card customers; two classes."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30_000, 23)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=len(rows)) > 1).astype(np.int64)
    return arrays(rows, labels).read()


def digits() -> Data:
    """3,000 training images of 28 × 28 pixels; ten classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(5_000) % 10
    return arrays((rng.random((10, 28, 28))[labels] * 200 + rng.random((5_000, 28, 28)) * 55).astype(np.uint8), labels).read()


def plain(data: Data, builder: Student, answers: Tensor, epochs: int) -> tuple[nn.Module, float]:
    """The loop that anybody would write; answers: (N, C) of the training rows, in memory. Returns the student and the seconds."""
    start = time.perf_counter()
    model = builder(data.schema, 0)
    rows, labels = data.train.batch(torch.arange(len(data.train))), data.train.labels
    valid, truth = data.valid.batch(torch.arange(len(data.valid))).inputs, data.valid.labels
    assert labels is not None
    assert truth is not None
    inputs = rows.inputs if isinstance(rows.inputs, Tensor) else rows.inputs["numbers"]
    table = not isinstance(rows.inputs, Tensor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY, fused=True)
    steps = math.ceil(len(labels) / BATCH)
    rise, done, best = round(WARMUP * epochs * steps), 0, -1.0
    kept: dict[str, Tensor] = {}
    for epoch in range(1, epochs + 1):
        model.train()
        for index in order_of(len(labels), steps, 0, epoch):
            fall = 0.5 * (1 + math.cos(math.pi * (done - rise) / (epochs * steps - rise)))
            optimizer.param_groups[0]["lr"] = LR * (done + 1) / rise if done < rise else LR * fall
            x, y, z = inputs[index], labels[index], answers[index]
            output = model({"numbers": x} if table else x)
            log_q, log_p = log_softmax(output / TEMPERATURE, -1), log_softmax(z / TEMPERATURE, -1)
            divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean() * TEMPERATURE**2
            loss = WEIGHT * divergence + (1 - WEIGHT) * cross_entropy(output, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
        model.eval()
        with torch.no_grad():
            score = float((model(valid).argmax(-1) == truth).float().mean())
        if score >= best:
            best, kept = score, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return model, time.perf_counter() - start


def ours(data: Data, builder: Student, teacher: Cached, epochs: int) -> tuple[nn.Module, float, float]:
    """The student, the seconds of the whole call, and those of its training."""
    how = fit(epochs=epochs, lr=LR, batch=BATCH, weight_decay=DECAY, warmup=WARMUP, seeds=1, patience=epochs, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = distill(teacher, builder, data, fit=how, controls=(), out=Path(folder) / "run")
        seconds = time.perf_counter() - start
    return done.student, seconds, done.arms[0].seconds


def compare(name: str, data: Data, builder: Student, epochs: int, pairs: int) -> None:
    teacher = annotate(module(fitted(builder(data.schema, 9), data, steps=10).eval()), data)
    answers = teacher.signal(teacher.locate(data.train.ids)).output
    whole, training, plains = [], [], []
    mine, _, _ = ours(data, builder, teacher, 1)  # imports what is imported when used
    theirs, _ = plain(data, builder, answers, 1)
    for pair in range(pairs):
        if pair % 2:
            mine, total, own = ours(data, builder, teacher, epochs)
            theirs, seconds = plain(data, builder, answers, epochs)
        else:
            theirs, seconds = plain(data, builder, answers, epochs)
            mine, total, own = ours(data, builder, teacher, epochs)
        whole.append(total / seconds)
        training.append(own / seconds)
        plains.append(seconds)
    steps = epochs * math.ceil(len(data.train) / BATCH)
    batch = data.test.batch(torch.arange(64)).inputs
    with torch.no_grad():
        gap = float((mine(batch) - theirs(batch)).abs().max() / theirs(batch).abs().max())
    print(
        f"{name}: {len(data.train):,} rows, {epochs} epochs, plain {statistics.median(plains):.2f} s, "
        f"{statistics.median(plains) / steps * 1e3:.3f} ms a step; attar ÷ plain {_spread(whole)} for the whole call, "
        f"{_spread(training)} for its training ({pairs} pairs); logits of the two differ by {gap:.1e} of the largest"
    )


def _spread(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    compare("mlp(width=64, depth=3)", tables(), mlp(), asked.epochs, asked.pairs)
    compare("cnn(width=16, depth=3)", digits(), cnn(), asked.epochs, asked.pairs)


if __name__ == "__main__":
    main()
