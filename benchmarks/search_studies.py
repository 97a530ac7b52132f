"""Does a search keep what it promises? `python benchmarks/search_studies.py` (20 studies of 40 trials an arm; it goes on where it stopped).

Started twice at once it shares the studies out between its processes.

Each study has a seed of its own, for what it draws and tries, and for its rows: a fifth of the credit table, 3,300 rows to learn from.
Studies of the same rows would tell one verdict over and over: where the rows that judge are unlike those that promise, all of them are
off together. Its teacher is 100 boosted trees, in five folds.

The budget is tight: the latency and the bytes that two in five candidates of the space keep, by prices that are learnt once. Of the
student that each study recommends it is asked
- whether it keeps the budget, when another process opens the exported file and measures it afresh. *Undisturbed*: calls in which the
  processor was taken away are made again, as the search measures. *As it comes*: they count, and on a busy machine tell of the machine.
  Both are the median of five, half a second apart; a core that shares its units with a busy neighbour is slower all the same.
- whether the metric of that file on the test rows lies in the 95 % interval that the search predicted for it, `Finalist.predicted`.
  The size curve's interval is of trials, which learn for a few epochs and are judged on the first half: no promise of what ships.
  Beside it stands the narrower interval of the design's mean quality, `Finalist.score`, which is asked about the rows of the table that
  a study never saw, some 24,000: these have little sampling error of their own.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import torch

import attar
from attar.cost import Budget, Candidate, budget, compare, machine
from attar.data import Data, Split, frame
from attar.data.table import Frame
from attar.errors import RunError
from attar.searched import Searched
from attar.sources.onnx import Onnx, onnx
from attar.sources.trees import lightgbm
from attar.students import mlp
from attar.task import classification
from attar.verbs.evaluate.models import Model
from attar.verbs.search.floor import floor_of
from attar.verbs.search.pricing import Prices

TABLE = Path(__file__).parent.parent / "recipes" / "data" / "credit.csv.gz"
SHARE = 0.2  # of the table, for a study
WIDTHS, DEPTHS = (4, 256), (1, 4)
STUDENT = f"mlp(width=integer({WIDTHS[0]}, {WIDTHS[1]}), depth=integer({DEPTHS[0]}, {DEPTHS[1]}))"
OBJECTIVE = "blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))"
TASK = classification(metric="auroc")
TEACHER = lightgbm(trees=100, learning_rate=0.05)
KEPT = 0.4  # of the candidates of the space keep each bound
DRAWN = 1000  # by which that is seen
TIMES, SECONDS, PAUSE = 5, 0.6, 0.5  # measured afresh, so many times, each so long, so far apart: the median counts
GOALS = {"budget kept": 0.95, "inside": 0.85}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--trials", type=int, default=40, help="of each arm, in a study")
    parser.add_argument("--epochs", type=int, default=16, help="of a finalist; a trial has at most a quarter")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-search-studies"))
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)  # what the other process does: measures this folder
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.judge is not None:
        print(json.dumps(judged(asked.judge, asked.seed)))
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    told = asked.out / "studies.jsonl"
    bounds, space = tight(asked.out / "budget.json")
    seeds = range(asked.first, asked.first + asked.studies)
    for seed in seeds:
        with (asked.out / f"study-{seed}.lock").open("w") as lock:
            if not _mine(lock) or any(line["seed"] == seed for line in known(told)):
                continue
            line = study(seed, bounds, asked)
            with told.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        print(row(line), flush=True)
    print(f"\npython {' '.join(sys.argv)} · {machine()}\n")
    print(report([line for line in known(told) if line["seed"] in seeds], bounds, space))


def _mine(lock: IO[str]) -> bool:
    """Whether no other process works on this study."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def known(told: Path) -> list[dict[str, Any]]:
    """The studies that are finished."""
    return [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()] if told.exists() else []


# ---- a study


def rows_of(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a study, and those that it never sees; rows of equal content are of one part."""
    table = pd.read_csv(TABLE).drop_duplicates()
    chosen = np.zeros(len(table), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(len(table))[: round(SHARE * len(table))]] = True
    return table.loc[chosen], table.loc[~chosen]


def described(seed: int) -> Frame:
    return frame(rows_of(seed)[0], label="default", valid=0.2, calibration=0.05, test=0.2, seed=seed)


def tight(kept: Path) -> tuple[Budget, dict[str, float]]:
    """The budget, and what it makes of the space: found once, for the laws of prices differ a little from time to time."""
    if not kept.exists():
        chance = random.Random(0)
        data = described(0).read()
        drawn = [mlp(width=chance.randint(*WIDTHS), depth=chance.randint(*DEPTHS)) for _ in range(DRAWN)]
        prices = Prices.learn(drawn, data, TASK)
        start = time.perf_counter()
        priced = [prices.predicted(student) for student in drawn]
        seconds = time.perf_counter() - start
        latency, size = (np.array([getattr(p, name) for p in priced], float) for name in ("latency_ms", "size_bytes"))
        bounds = {"latency_ms": float(f"{np.quantile(latency, KEPT):.3g}"), "size_mb": float(f"{np.quantile(size, KEPT) / 1e6:.3g}")}
        dear = (latency > bounds["latency_ms"]) | (size > 1e6 * bounds["size_mb"])
        floor = floor_of(drawn[0], data, Budget()).latency_ms.p95.value
        facts = {"dear": float(dear.mean()), "ms": 1000 * seconds, "error": prices.pricings[0].error, "floor_ms": floor}
        facts |= {"latency_low": float(latency.min()), "latency_high": float(latency.max())}
        kept.write_text(json.dumps({"bounds": bounds, "space": facts}), encoding="utf-8")
    found = json.loads(kept.read_text(encoding="utf-8"))
    return budget(**found["bounds"]), found["space"]


def study(seed: int, bounds: Budget, asked: argparse.Namespace) -> dict[str, Any]:
    """One search, and what its student comes to afterwards."""
    out = asked.out / f"study-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    try:
        found = attar.search(
            attar.taught(TEACHER, at="teacher.txt"),
            STUDENT,
            described(seed),
            OBJECTIVE,
            task=TASK,
            fit=f"fit(epochs={asked.epochs}, lr=log(1e-3, 2e-2))",
            budget=bounds,
            trials=asked.trials,
            workers=asked.workers,
            out=out,
            seed=seed,
        )
    except RunError as error:  # a machine that has become slower since the budget was set may find that nothing keeps it
        nothing = dict.fromkeys(("trained", "dear", "forms", "dear_forms"), 0)
        return nothing | {"seed": seed, "law": None, "words": [error.message], "seconds": {"all": time.perf_counter() - start}}
    seconds = time.perf_counter() - start
    ours = [trial for trial in found.trials if trial.arm == "student"]
    told: dict[str, Any] = {
        "seed": seed,
        "trained": sum(t.state in ("trained", "stopped") for t in ours),
        "dear": sum(t.state == "dear" for t in ours),
        "forms": len({t.student for t in ours}),
        "dear_forms": len({t.student for t in ours if t.state == "dear"}),
        "law": found.pricing[0].error if found.pricing else None,
        "seconds": dict(found.seconds) | {"all": seconds},
        "words": found.recommendation,
        "winner": found.winner,
    }
    winner = next((each for each in found.finalists if each.arm == "student" and each.trial == found.winner), None)
    if winner is not None:
        score, price, next_one = winner.score, winner.price, winner.predicted
        assert next_one is not None
        told |= {"student": winner.student, "predicted": (next_one.value, next_one.low, next_one.high)}
        told |= {"mean": (score.value, score.low, score.high), "finalists": len(found.finalists)}
        told |= {"latency_ms": price.latency_ms, "priced_ms": priced_of(found), "size_bytes": price.size_bytes}
        told["fresh"] = afresh(out / "finalists" / str(winner.trial) / "student", seed)
        told |= verdicts(told, bounds)
    return told


def priced_of(found: Searched) -> float | None:
    """The latency by which the winner was let in, before training."""
    return next((t.price.latency_ms for t in found.trials if t.arm == "student" and t.number == found.winner), None)


def verdicts(told: Mapping[str, Any], bounds: Budget) -> dict[str, bool]:
    assert bounds.latency_ms is not None
    assert bounds.size_mb is not None
    (_, low, high), (_, least, most) = told["predicted"], told["mean"]
    fresh = told["fresh"]
    small = fresh["size_bytes"] <= 1e6 * bounds.size_mb
    soon, comes = (bool(np.median(fresh[how]) <= bounds.latency_ms) for how in ("undisturbed", "as it comes"))
    return {
        "budget kept": small and soon,
        "kept as it comes": small and comes,
        "inside": low <= fresh["test"] <= high,
        "inside the mean's": least <= fresh["test"] <= most,
        "unseen in the mean's": least <= fresh["unseen"] <= most,
    }


# ---- in another process


def afresh(folder: Path, seed: int) -> dict[str, Any]:
    """What another process says of an exported student."""
    command = [sys.executable, __file__, "--judge", str(folder), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def judged(folder: Path, seed: int) -> dict[str, Any]:
    """Cost and metric of an exported student: opened, measured, and asked about the test rows and those that its study never saw."""
    torch.set_num_threads(1)
    source, (_, unseen) = onnx(str(folder)), rows_of(seed)
    assert isinstance(source, Onnx)
    data = described(seed).read()
    rows = data.test.batch(torch.arange(256) % len(data.test))
    candidate = Candidate.of(source, rows, rows, memory=False)
    told: dict[str, Any] = {"size_bytes": source.size_bytes}
    for name, undisturbed in (("undisturbed", True), ("as it comes", False)):
        found = []
        for _ in range(TIMES):
            time.sleep(PAUSE)
            found.append(compare({"": candidate}, seconds=SECONDS, undisturbed=undisturbed).costs[""].latency_ms.p95.value)
        told[name] = sorted(found)
    others = frame(unseen, label="default").read_whole(data)
    return told | {"test": metric(source, data.test, data), "unseen": metric(source, others.train, data), "rows": len(data.test)}


def metric(source: Onnx, split: Split, data: Data) -> float:
    task = TASK.bind(data.schema)
    assert split.labels is not None
    return float(task.figures(Model("the student", source, task).ask(split), split.labels)[task.metric](np.ones(len(split))))


# ---- what is printed


def row(line: Mapping[str, Any]) -> str:
    head = f"| {line['seed']} | {line['trained']} | {line['dear']} of {line['dear'] + line['trained']} "
    if "fresh" not in line:
        return head + f"| none recommended | | | | | | | | | {line['seconds']['all']:.0f} |"
    fresh, (value, low, high), (mean, least, most) = line["fresh"], line["predicted"], line["mean"]
    say = {True: "yes", False: "NO"}
    inside, unseen = (f"{fresh[rows]:.4f} {say[line[name]]}" for rows, name in (("test", "inside"), ("unseen", "unseen in the mean's")))
    return (
        f"{head}| {line['student'].split(', dropout')[0]}) | {1000 * line['priced_ms']:.2f} | {1000 * line['latency_ms']:.2f} "
        f"| {1000 * np.median(fresh['undisturbed']):.2f} ({1000 * np.median(fresh['as it comes']):.2f}) | {say[line['budget kept']]} "
        f"| {value:.4f} [{low:.4f}, {high:.4f}] | {inside} | {mean:.4f} [{least:.4f}, {most:.4f}] | {unseen} "
        f"| {line['seconds']['all']:.0f} |"
    )


def report(lines: Sequence[Mapping[str, Any]], bounds: Budget, space: Mapping[str, float]) -> str:
    count = len(lines)
    trained, dear = (sum(line[name] for line in lines) for name in ("trained", "dear"))
    forms, dear_forms = (sum(line[name] for line in lines) for name in ("forms", "dear_forms"))
    laws = [line["law"] for line in lines if line["law"] is not None]
    if not laws:
        return f"{bounds!r}: no study was finished."
    said = [
        f"{bounds!r}: {space['dear']:.1%} of {DRAWN:,} candidates drawn from the space break it; all were priced in {space['ms']:.0f} ms.",
        f"Latency by the law {1000 * space['latency_low']:.1f}–{1000 * space['latency_high']:.1f} µs, the identity function "
        f"{1000 * space['floor_ms']:.1f} µs; mean error of the law on exports held out {np.mean(laws):.1%}, at worst {max(laws):.1%}.",
        f"Dropped unpaid in the studies: {dear:,} of {dear + trained:,} candidates asked ({dear / max(1, dear + trained):.1%}), "
        f"{dear_forms:,} of {forms:,} architectures ({dear_forms / max(1, forms):.1%}).",
        "",
        "| study | trained | dropped | recommended | p95 µs: priced | measured | afresh (as it comes) | kept "
        "| predicted | test | mean over seeds | unseen rows | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(row(line) for line in sorted(lines, key=lambda line: line["seed"])),
        "",
    ]
    names = {
        "budget kept": "keep the budget when measured afresh in another process, undisturbed",
        "kept as it comes": "keep it as the machine comes",
        "inside": "have their test metric inside the interval predicted for it",
        "inside the mean's": "have it inside the interval of the design's mean, which does not claim that",
        "unseen in the mean's": "have their metric on the rows never seen inside the interval of the design's mean",
    }
    for name, words in names.items():
        goal = f" (goal: {GOALS[name] * count:.0f})" if name in GOALS else ""
        said.append(f"{sum(bool(line.get(name)) for line in lines)} of {count} {words}{goal}.")
    return "\n".join(said)


if __name__ == "__main__":
    main()
