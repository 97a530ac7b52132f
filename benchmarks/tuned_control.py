"""Does the gain on credit survive a control that was tuned by itself? `python benchmarks/tuned_control.py`.

The recipe's control shares the student's learning rate, which was measured for students that learn from a teacher. Here the same student
learns from labels alone at four learning rates, without synthetic rows, over five seeds; validation rows choose the rate, and the
certificate's own test (paired by seeds and rows) compares the distilled students with the best of them. The test split is opened once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import attar
from attar.cost import machine
from attar.recipe import load
from attar.sources import Taught
from attar.verbs.run import Job, read, run_job

RECIPE = Path(__file__).parent.parent / "recipes" / "credit.yaml"
RATES = (5e-4, 1e-3, 2e-3, 5e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-credit"), help="a run of the recipe, made if it is not there")
    options = parser.parse_args()
    recipe = load(RECIPE)
    resolved = recipe.resolve(options.out)
    job = Job(**resolved.values, text=resolved.text(), where=recipe.where)
    run_job(job, out=options.out, resume=options.out.exists())
    print(f"python {' '.join(sys.argv)} · {machine()}")

    data, task = read(job)
    plain, _ = read(replace(job, data=attar.data.table(str(RECIPE.parent / "data" / "credit.csv.gz"), label="default")))
    assert isinstance(job.teacher, Taught)
    assert job.fit is not None
    teacher = attar.teach(job.teacher, data, task, at=options.out / job.teacher.at)
    answers = attar.annotate(teacher, data, at=options.out / "answers", task=task)
    done = attar.distill(answers, job.student, data, job.objective, task=task, fit=job.fit, out=options.out, resume=True)
    students = [attar.module(arm.model) for arm in done.arms if arm.name == "student"]

    print(f"\n{'learning rate':>14}  {task.metric} on validation rows, labels alone, by seed")
    controls: dict[float, list[attar.Source]] = {}
    scores: dict[float, float] = {}
    for rate in RATES:
        fit = replace(job.fit, lr=rate)
        arms = attar.distill(answers, job.student, plain, attar.labels(), task=task, fit=fit, controls=()).arms
        valid = [arm.valid[task.metric] for arm in arms]
        controls[rate], scores[rate] = [attar.module(arm.model) for arm in arms], statistics.mean(valid)
        print(f"{rate:14g}  {' '.join(f'{v:.4f}' for v in valid)}  mean {scores[rate]:.4f}")
    best = max(scores, key=lambda rate: scores[rate])
    certificate = attar.evaluate(options.out / "student", answers, data, task, arms={"student": students, "labels": controls[best]})
    quality = certificate.quality[task.metric]
    print(f"\ncontrol at {best:g}: {quality.arms['labels'].value:.4f}, student {quality.arms['student'].value:.4f}")
    print(certificate.helped.sentence)


if __name__ == "__main__":
    main()
