"""A search beside the script that it replaces: `python benchmarks/search.py credit --trials 100 --workers 2`.

The search is timed as a whole, from nothing, teacher included. Beside it the same trials one after another, each student by itself, as a
loop over a training script would do it, extrapolated from a sample of the trials: each to its end, for a script has no rungs; views of
augmented rows drawn anew at each step; the teacher asked at every step of who learns from it; validation rows answered after each epoch.
It is timed at one thread and at all, and the faster of the two is what the search is compared with. Told beside it: the same with answers
stored and views kept, and with the epochs that the search's rungs left of each trial, so that each saving is seen.

Both sides count the same things. The script's teacher has to be taught, too, as the search's: `times_slower` has its teaching on neither
side, so that the search's are the seconds of asking the teacher once and of training; `times_slower_with_teaching` has it on both. Pricing,
finalists and competitors have no counterpart in the script.
"""

from __future__ import annotations

import argparse
import json
import operator
import random
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

import attar
from attar.cost import machine
from attar.data.augment import Views
from attar.loop import AdamW
from attar.progress import silent
from attar.recipe import load
from attar.searched import Searched, Trial
from attar.verbs.distill.judge import Judge
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
    asked_once, ended, cut = script(SearchJob.of(recipe, out), Spaces(recipe, out), trained, out, asked.sample)
    taught, training = found.seconds["teacher"] - asked_once, found.seconds["training"]
    mine = asked_once + training
    live, stored = (min(seconds for name, seconds in ended.items() if name.startswith(way)) for way in ("live", "stored"))
    told = {
        "machine": machine(),
        "trained": len(trained),
        "stopped": sum(trial.state == "stopped" for trial in trained),
        "together": sum(trial.together > 1 for trial in trained),
        "seconds": dict(found.seconds),
        "teacher_taught": taught,
        "teacher_asked_once": asked_once,
        "script_seconds": ended,
        "script_seconds_with_the_rungs_of_the_search": cut,
        "times_slower": live / mine,
        "times_slower_with_teaching": (live + taught) / (mine + taught),
        "times_slower_stored": stored / mine,
    }
    print(json.dumps(told, indent=2))


def script(job: SearchJob, spaces: Spaces, trained: list[Trial], out: Path, count: int) -> tuple[float, dict[str, float], dict[str, float]]:
    """Seconds of asking the teacher every row once; and those that the trials would take one after another, by way and threads: each to
    its end, and for as many epochs as the search's rungs left.
    """
    data, task = read_data(job)
    middle = spaces.design(spaces.middle())
    teacher = Teacher(
        Job(data, job.teacher, middle.student, middle.objective, task, middle.fit, ()), out, data, task, resume=True, listen=silent
    )
    teacher.annotate()
    start = time.perf_counter()
    attar.annotate(teacher.source, data, task=task)
    asked_once = time.perf_counter() - start
    data = halved(data).first
    judge = Judge(task, data.valid, torch.device("cpu"), teacher.answers)
    ways = {"live": (anew(data), teacher.source), "stored": (data, teacher.answers)}
    whole, sampled = max(trial.epochs for trial in trained), random.Random(0).sample(trained, min(count, len(trained)))
    ended, cut = dict[str, float](), dict[str, float]()
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for name, (shown, source) in ways.items():
            seconds, epochs = [], []
            for trial in sampled:
                design = spaces.design(trial.point, trial.arm)
                asks = source if trial.arm == "student" else None
                rows = Rows(shown, asks, frozenset(), torch.arange(len(data.train)), torch.device("cpu"))
                step, validation = timed(design, rows, data, task, judge)
                seconds.append(step * -(-len(data.train) // design.fit.rows_a_step(len(data.train))) + validation)  # of an epoch
                epochs.append(trial.epochs)
            ended[f"{name}, threads {threads}"] = len(trained) * whole * statistics.mean(seconds)
            cut[f"{name}, threads {threads}"] = len(trained) * statistics.mean(map(operator.mul, seconds, epochs))
    return asked_once, ended, cut


def anew(data: attar.data.Data) -> attar.data.Data:
    """The same data, whose augmented views are drawn each time that they are asked for."""
    seen = data.train.seen
    return replace(data, train=replace(data.train, seen=replace(seen, count=0))) if isinstance(seen, Views) else data


def timed(design: Design, rows: Rows, data: attar.data.Data, task: attar.Task, judge: Judge) -> tuple[float, float]:
    """The mean seconds of a step, and of answering the validation rows."""
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
    distiller.eval()
    start = time.perf_counter()
    for _ in range(WARM):
        judge.score(distiller)
    validation = (time.perf_counter() - start) / WARM
    return statistics.mean(taken[WARM:]), validation  # the mean, as what the machine does beside is in the search's seconds, too


if __name__ == "__main__":
    main()
