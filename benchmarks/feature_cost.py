"""What each comparison costs a training step beside plain `kl`: time and peak memory, in one table: `python benchmarks/feature_cost.py`.

A step is the student's forward, the objective, and backward; the teacher's answers and taps are there beforehand, as stored ones would be.
Images: a CNN of 24,000 weights learns from a ResNet-18 of timm, batches of 128 × 3 × 32 × 32. Text: BERT of 2 × 128 learns from one of
6 × 384, batches of 32 texts of 64 tokens. Weights are random: a step's cost does not depend on them.

Time: median over rounds of (step with the term ÷ step with kl), all terms in turn within a round, with the middle half; one thread.
Memory: growth of the resident set's high-water mark over a step, each term in a process of its own; beside it kl's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import attar.objective as words
from attar.cost import machine
from attar.notation import read
from attar.objective import Distiller, as_objective
from attar.signal import Batch, Schema, Texts
from attar.sources import module
from attar.students import cnn, hf, timm
from attar.task import classification

IMAGES = [
    "kl(temperature=4)",
    "standardised(kl(temperature=2))",
    "dkd()",
    "nkd()",
    "dist()",
    'kl(temperature=4) + hint("stage2", "stage2")',
    'kl(temperature=4) + hint("embedding", "embedding")',
    'kl(temperature=4) + attention_transfer(["stage1", "stage2"], ["stage1", "stage2"])',
    "kl(temperature=4) + similarity_preserving()",
    "kl(temperature=4) + rkd_distance()",
    "kl(temperature=4) + rkd_angle()",
    "kl(temperature=4) + cka()",
    'balance(ratio=1) * hint("stage2", "stage2") + kl(temperature=4)',
]
TEXTS = [
    "kl(temperature=2)",
    "kl(temperature=2) + cosine_hidden()",
    'kl(temperature=2) + hidden_states(["hidden.0", "hidden.1", "hidden.2"], ["hidden.0", "hidden.3", "hidden.6"])',
    'kl(temperature=2) + attention_scores(["attention.1", "attention.2"], ["attention.3", "attention.6"])',
    "kl(temperature=2) + minilm()",
    "kl(temperature=2) + minilmv2(relation_heads=8)",
]
HEADS = 4  # of both transformers: attention_scores and minilm compare head by head
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", metavar="TEXT", help=argparse.SUPPRESS)  # one process of the table's memory column
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory is not None:
        print(growth(step(options.memory)))
        return
    print(f"python {' '.join(sys.argv)} · {machine()}")
    for title, texts in (("images", IMAGES), ("text", TEXTS)):
        table(title, texts, options.rounds)


def table(title: str, texts: list[str], rounds: int) -> None:
    steps = {text: step(text) for text in texts}
    for call in steps.values():
        call()
    taken: dict[str, list[float]] = {text: [] for text in texts}
    for _ in range(rounds):
        for text, call in steps.items():
            started = time.perf_counter()
            call()
            taken[text].append(time.perf_counter() - started)
    steps.clear()
    base = texts[0]
    held = {text: memory(text) for text in texts}
    print(f"\n{title + ': objective':112}{'ms':>8}  {'÷ kl':>6} {'middle half':16}{'peak MB':>8}{'− kl':>8}")
    for text in texts:
        low, middle, high = statistics.quantiles([a / b for a, b in zip(taken[text], taken[base], strict=True)], n=4)
        between = f"[{low:.2f}, {high:.2f}]"
        more = held[text] - held[base]
        print(f"{text:112}{1000 * statistics.median(taken[text]):8.1f}  {middle:6.2f} {between:16}{held[text]:8.1f}{more:+8.1f}")


def step(text: str) -> Callable[[], None]:
    """One training step of an objective, ready to be repeated."""
    goal = as_objective(read(text, vars(words)))
    student, teacher, batch = texts_pair() if text in TEXTS else images_pair()
    signal = module(teacher)(batch, goal.teacher_taps)
    assert batch.schema is not None
    distiller = Distiller(student, goal, classification().bind(batch.schema)).build(batch, signal).train()

    def call() -> None:
        distiller(batch, signal).total.backward()
        distiller.zero_grad()

    return call


def images_pair() -> tuple[torch.nn.Module, torch.nn.Module, Batch]:
    g = torch.Generator().manual_seed(0)
    schema = Schema("images", shape=(3, 32, 32), pixel_mean=(127.0,) * 3, pixel_std=(64.0,) * 3, classes=tuple("0123456789"))
    pixels = torch.randint(0, 256, (128, 3, 32, 32), generator=g, dtype=torch.uint8)
    batch = Batch(pixels, labels=torch.arange(128) % 10, ids=torch.arange(128), schema=schema, complete=True)
    return cnn(width=16, depth=3)(schema, 0), timm("resnet18")(schema, 1), batch


def texts_pair() -> tuple[torch.nn.Module, torch.nn.Module, Batch]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer(Path(folder))
        schema = Schema("text", texts=("text",), classes=("no", "yes"))
        made = [
            hf(config="bert", layers=n, width=w, heads=HEADS, tokenizer=folder, max_length=64)(schema, 0) for n, w in ((2, 128), (6, 384))
        ]
    batch = Batch(
        {"text": Texts([" ".join(LETTERS * 3)] * 32)}, labels=torch.arange(32) % 2, ids=torch.arange(32), schema=schema, complete=True
    )
    return made[0], made[1], batch


def tokenizer(folder: Path) -> None:
    """Of letters."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({name: i for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS])}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(folder / "tokenizer.json"))


def memory(text: str) -> float:
    """MB that a step adds at its peak, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", text],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    return float(done.stdout.split()[-1])


def growth(call: Callable[[], None]) -> float:
    """MB between the resident set before a first step and its highest mark during it."""
    Path("/proc/self/clear_refs").write_text("5")  # the mark begins anew
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 1000


def _status(name: str) -> int:
    """kB."""
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
