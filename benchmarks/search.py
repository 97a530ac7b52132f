"""A search beside the script that it replaces: `python benchmarks/search.py credit --trials 100 --workers 2`.

The search is timed as a whole, from nothing, teacher included. Beside it the same trials one after another, each student by itself and the
teacher asked at every step, as a loop over a training script would do it: extrapolated from a sample of the trials, in each of which some
steps are timed with the teacher asked live, and with its stored answers, so that both savings are seen. What is compared is the seconds of
the search's teacher and training against those of the script's steps; pricing, finalists and competitors have no counterpart there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import time
from pathlib import Path

import torch

import attar
from attar.cost import machine
from attar.loop import AdamW
from attar.progress import silent
from attar.recipe import load
from attar.searched import Searched, Trial
from attar.verbs.distill.rows import Rows
from attar.verbs.distill.together import ready
from attar.verbs.run import Job, Teacher, read_data
from attar.verbs.search import SearchJob, search_job
from attar.verbs.search.design import Design, Spaces
from attar.verbs.search.protocol import halved

RECIPES = Path(__file__).parent.parent / "recipes"
SPACES = {
    "credit": ("student=mlp(width=integer(4, 64, log=True), depth=integer(1, 3))", "fit=fit(lr=log(1e-3, 2e-2))"),
    "digits": ("student=cnn(width=integer(4, 24, log=True), depth=integer(2, 3))", "fit=fit(lr=log(1e-3, 2e-2))"),
}
WARM, STEPS = 3, 40  # made before, and timed, of each sampled trial, in each way
OBJECTIVE = "blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(SPACES))
    parser.add_argument("--trials", type=int, default=100, help="of each arm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=8, help="trials of which steps are timed")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-search"))
    parser.add_argument("--again", action="store_true", help="time the script alone, beside the search that is there")
    asked = parser.parse_args()
    out = asked.out / asked.recipe
    recipe = load(RECIPES / f"{asked.recipe}.yaml").with_overrides([*SPACES[asked.recipe], f"objective={OBJECTIVE}"])
    if not asked.again:
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        search_job(SearchJob.of(recipe, out), out=out, trials=asked.trials, workers=asked.workers)
        print(f"search: {time.perf_counter() - start:.0f} s as a whole")
    found = Searched.read(out / "search.json")
    trained = [trial for trial in found.trials if trial.state in ("trained", "stopped")]
    live, stored = script(SearchJob.of(recipe, out), Spaces(recipe, out), trained, out, asked.sample)
    mine = found.seconds["teacher"] + found.seconds["training"]
    told = {
        "machine": machine(),
        "trained": len(trained),
        "together": sum(trial.together > 1 for trial in trained),
        "seconds": dict(found.seconds),
        "script_seconds": live,
        "script_seconds_stored": stored,
        "times_slower": live / mine,
        "times_slower_stored": stored / mine,
    }
    print(json.dumps(told, indent=2))


def script(job: SearchJob, spaces: Spaces, trained: list[Trial], out: Path, count: int) -> tuple[float, float]:
    """Seconds that the trials would take one after another, at one thread: the teacher asked at every step, and its answers stored."""
    data, task = read_data(job)
    middle = spaces.design(spaces.middle())
    teacher = Teacher(
        Job(data, job.teacher, middle.student, middle.objective, task, middle.fit, ()), out, data, task, resume=True, listen=silent
    )
    teacher.annotate()
    data = halved(data).first
    torch.set_num_threads(1)
    sources = {"live": teacher.source, "stored": teacher.answers}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    chance = random.Random(0)
    for trial in chance.sample(trained, min(count, len(trained))):
        design = spaces.design(trial.point, trial.arm)
        steps = trial.epochs * -(-len(data.train) // design.fit.rows_a_step(len(data.train)))
        for name, source in sources.items():
            asks = trial.arm == "student"
            rows = Rows(data, source if asks else None, frozenset(), torch.arange(len(data.train)), torch.device("cpu"))
            seconds[name].append(steps * timed(design, rows, data, task))
    return tuple(len(trained) * statistics.mean(each) for each in seconds.values())  # type: ignore[return-value]


def timed(design: Design, rows: Rows, data: attar.data.Data, task: attar.Task) -> float:
    """The mean seconds of a step."""
    batch = design.fit.rows_a_step(len(data.train))
    distiller = ready(design.student(data.schema, 0), design.objective, task, rows, torch.arange(batch), 0).train()
    optimizer = AdamW([w for w in distiller.parameters() if w.requires_grad], design.fit.weight_decay)
    taken = []
    for _ in range(WARM + STEPS):
        index = torch.randperm(len(data.train))[:batch]
        start = time.perf_counter()
        distiller(*rows(index, 1)).total.backward()
        optimizer.step(design.fit.lr)
        taken.append(time.perf_counter() - start)
    return statistics.mean(taken[WARM:])  # the mean, as what the machine does beside is in the search's seconds, too


if __name__ == "__main__":
    main()
