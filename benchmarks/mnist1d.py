"""Three properties of distillation on MNIST-1D, over seeds with paired intervals: one page of Markdown.

    python benchmarks/mnist1d.py > mnist1d.md       # some six minutes on one core; what it is doing goes to stderr
    python benchmarks/mnist1d.py --seeds 2          # a try of two minutes, whose intervals say next to nothing
    python benchmarks/mnist1d.py --only 3

1. All labels, no augmentation: how much does a teacher help, and how much of that is left when its dark knowledge is shuffled?
2. 400 labels, the other rows without: what are rows that the teacher answers, in stored views, worth to the student?
3. Is the teacher's answer to the very view that the student sees better than its answer to the row as it is?

MNIST-1D (Greydanus and Kobak, arXiv:2011.14439) is 40 numbers a row, ten classes, and is made here by the package mnist1d from a seed, so
that nothing is downloaded. Teacher: a convolutional net of three layers, taught on augmented training rows, one net that has seen them
(`folds=1`). Students: perceptrons of two hidden layers. Everything was chosen on the rows of seed 42, the package's own; the seed here is
another. Augmentation is declared as any user can who has one of his own: `Split.seen`, a pure function of (id, view).

Intervals hold 95 % and are paired by seeds and rows (`seed_effect`): students of one seed begin with the same weights, and all are asked
the same test rows. There is one teacher and one set of training rows, and nothing is said about others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

import attar
from attar.cost import machine
from attar.data import Data, Split, arrays
from attar.data.base import fingerprint
from attar.ends import seeded
from attar.identity import digest, mix, uniform
from attar.objective import Objective, Term, dist_kd, dkd, hinton, jsd, kl, labels, mse, standardised
from attar.signal import IGNORE, NOTHING, Batch, Schema, Signal
from attar.sources.cached import Cached
from attar.statistics import Draws, Effect, bootstrap, seed_effect
from attar.verbs.distill import Arm

LENGTH, VIEWS, TEACHER_EPOCHS = 40, 16, 40
LABELLED, JUDGED = 400, 100  # labels of (2): training rows to learn from, and validation rows to choose the epoch by

LOSSES = (  # alpha_beta is not among them: its students swing by several points from seed to seed at this width
    kl(temperature=1),
    kl(temperature=2),
    kl(temperature=4),
    hinton(temperature=4),
    hinton(temperature=8, weight=0.5),
    mse(),
    jsd(temperature=1),
    labels() + dkd(beta=2, temperature=4),
    0.9 * standardised(kl(temperature=2)) + 0.1 * labels(),
    dist_kd(),
)

Hits = list[np.ndarray]
"""One (rows,) bool array for each seed: which test rows the student gets right."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="students for each arm; left out, 12, 5 and 5")
    parser.add_argument("--only", choices=("1", "2", "3"), help="one of the three")
    parser.add_argument("--data-seed", type=int, default=0, help="of the rows; 42 is the package's own")
    options = parser.parse_args()
    started = time.perf_counter(), time.process_time()
    data = mnist1d(options.data_seed)
    print(f"# MNIST-1D\n\n`python {' '.join(sys.argv)}` · {machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(data, Path(folder), options.seeds)
        print(bench.setting(), flush=True)
        for number, part in (("1", bench.dark_knowledge), ("2", bench.unlabelled), ("3", bench.consistent)):
            if options.only in (None, number):
                print(part(), flush=True)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"{cpu:.0f} s of CPU, one thread; {wall:.0f} s of wall time.")


class Bench:
    """The rows with and without views, the teacher, and its answers to both."""

    def __init__(self, data: Data, folder: Path, seeds: int | None) -> None:
        self.data, self.folder, self.seeds = data, folder, seeds
        self.viewed = viewed(data)
        self.teacher, self.answers = self.teach(self.viewed, "teacher")
        assert data.test.labels is not None
        self.truth = data.test.labels

    def teach(self, data: Data, name: str) -> tuple[attar.Source, Cached]:
        """A teacher of the labelled training rows in augmented views, and its answers to all rows, training rows in views 0..16."""
        plan = attar.fit(epochs=TEACHER_EPOCHS, patience=TEACHER_EPOCHS, threads=1)
        told = attar.taught(convolutional, at=str(self.folder / f"{name}.safetensors"), folds=1)
        teacher = attar.teach(told, data, fit=plan)
        return teacher, attar.annotate(teacher, data)

    def setting(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.data.splits.items())
        ask = self.teacher
        train, test = (share(float(self.right(lambda rows: ask(rows).output, s).mean())) for s in (self.data.train, self.data.test))
        size = weights(convolutional(self.data.schema, 0))
        return f"Rows: {sizes}. Teacher: {size:,} weights, accuracy {train} on training rows and {test} on test rows.\n"

    # ------------------------------------------------------------------------------------------------------------- the properties

    def dark_knowledge(self) -> str:
        """(1)."""
        seeds, text = self.seeds or 12, "## 1. All labels, no augmentation: kl(temperature=4) against its controls\n"
        for student, controls in (
            (He(24), ("labels", "smooth", "hard", "shuffled")),
            (attar.students.mlp(width=24, depth=2), ("labels", "shuffled")),
        ):
            found = self.arms(self.answers, student, self.data, kl(temperature=4), seeds, epochs=60, controls=controls)
            asked = {name: minus(name, "labels") for name in ("student", *controls) if name != "labels"}
            asked["dark knowledge"] = minus("student", "shuffled")
            asked["rest"] = lambda d: d["shuffled"] - (d["student"] + d["labels"]) * 0.5
            accuracy, effects = self.compared(found, asked)
            text += f"\n`{student!r}`, {weights(student(self.data.schema, 0)):,} weights, {seeds} seeds\n\n"
            text += table(accuracy, {name: effects[name] for name in asked if name in accuracy}, "− labels alone")
            text += f"\nThe teacher's gain over labels alone is above 0: {ruled(effects['student'])}. "
            text += f"Student − shuffled: {told(effects['dark knowledge'])}.\n"
            if effects["student"].low > 0:
                text += f"More than half of the gain is left when its dark knowledge is shuffled: {ruled(effects['rest'])}; "
                text += f"shuffled − labels, less half of student − labels: {told(effects['rest'])}.\n"
        return text

    def unlabelled(self) -> str:
        """(2)."""
        seeds, student, epochs = self.seeds or 5, He(128), 75
        few, few_viewed = scarce(self.data), scarce(self.viewed)
        small, answers = self.teach(few_viewed, "small")
        right = share(float(self.right(lambda rows: small(rows).output, self.data.test).mean()))
        goal = kl(temperature=1)
        of_all = self.arms(self.answers, student, few_viewed, goal, seeds, epochs=epochs, controls=("labels", "hard"))
        as_is = self.arms(self.answers, student, few, goal, seeds, epochs=epochs, controls=("labels",))
        found = {
            "labels alone, 400": of_all["labels"],
            "labels alone, 400, no augmentation": as_is["labels"],
            "all rows, teacher of 400 labels": self.arms(answers, student, few_viewed, goal, seeds, epochs=epochs)["student"],
            "all rows, teacher of all labels": of_all["student"],
            "the same, its decisions alone": of_all["hard"],
            "the same, no augmentation": as_is["student"],
            "labels alone, all": self.arms(self.answers, student, self.viewed, labels(), seeds, epochs=epochs)["student"],
        }
        base, *others = found
        accuracy, effects = self.compared(found, {name: minus(name, base) for name in others})
        text = f"## 2. {LABELLED} labels of {len(few.train):,} training rows, and {JUDGED} that choose the epoch\n\n"
        text += f"`{student!r}`, {weights(student(self.data.schema, 0)):,} weights, {seeds} seeds; `{goal!r}`; {VIEWS} views unless said. "
        text += f"A teacher of the same {LABELLED} labels reaches {right} on test rows.\n\n"
        text += table(accuracy, effects, "− labels alone, 400")
        for name in ("all rows, teacher of all labels", "all rows, teacher of 400 labels"):
            text += f"\nMore than 20 points gained, {name}: {ruled(effects[name], above=0.2)}."
        return text + "\n"

    def consistent(self) -> str:
        """(3)."""
        seeds, student = self.seeds or 5, He(24)
        clean, found = Clean(self.answers), dict[str, Hits]()
        for goal in LOSSES:
            for name, teacher in (("consistent", self.answers), ("clean", clean)):
                found[f"{name} {goal!r}"] = self.arms(teacher, student, self.viewed, goal, seeds, epochs=60)["student"]
        words = [repr(goal) for goal in LOSSES]
        asked = {word: minus(f"consistent {word}", f"clean {word}") for word in words}
        accuracy, effects = self.compared(found, {**asked, "mean": lambda d: Draws.average(asked[word](d) for word in words)})
        mean = effects.pop("mean")
        pairs = [(a.mean() > b.mean()) for word in words for a, b in zip(found[f"consistent {word}"], found[f"clean {word}"], strict=True)]
        wins = sum(effect.difference > 0 for effect in effects.values())
        text = f"## 3. {VIEWS} views, all labels: the teacher's answer to the view, or to the row as it is\n\n"
        text += f"`{student!r}`, {seeds} seeds\n\n| | consistent | clean | difference |\n|---|---|---|---|\n"
        for word in words:
            ours, theirs = (share(accuracy[f"{name} {word}"].value) for name in ("consistent", "clean"))
            text += f"| `{word}` | {ours} | {theirs} | {told(effects[word])} |\n"
        text += f"| mean | | | **{told(mean)}** |\n"
        text += f"\nConsistent views are better in {wins} of {len(words)} losses and {sum(pairs)} of {len(pairs)} pairs. "
        return text + f"The mean is above 0: {ruled(mean)}.\n"

    # --------------------------------------------------------------------------------------------------------------- the machinery

    def arms(
        self,
        teacher: attar.Source,
        student: attar.Student,
        data: Data,
        objective: Objective | Term,
        seeds: int,
        *,
        epochs: int,
        controls: Sequence[str] = (),
    ) -> dict[str, Hits]:
        """Which test rows each arm gets right, by seed."""
        began = time.perf_counter()
        plan = attar.fit(epochs=epochs, patience=epochs, seeds=seeds, threads=1)
        made = attar.distill(teacher, student, data, objective, fit=plan, controls=controls)
        found = {name: [self.answered(arm) for arm in made.arms if arm.name == name] for name in ("student", *controls)}
        print(f"{objective!r}: {len(made.arms)} students, {time.perf_counter() - began:.0f} s", file=sys.stderr)
        return found

    def answered(self, arm: Arm) -> np.ndarray:
        return self.right(lambda rows: arm.model(rows.inputs), self.data.test)

    def right(self, answer: Callable[[Batch], Tensor], split: Split) -> np.ndarray:
        """(N,) bool."""
        assert split.labels is not None
        with torch.no_grad():
            return (answer(split.batch(torch.arange(len(split)))).argmax(-1) == split.labels).numpy()

    def compared(
        self, found: Mapping[str, Hits], asked: Mapping[str, Callable[[Mapping[str, Draws]], Draws]]
    ) -> tuple[dict[str, Draws], dict[str, Effect]]:
        """Accuracies, mean over seeds; and of what is asked of the accuracies of one seed, the effect over seeds and rows."""
        rows, seeds = len(self.truth), len(next(iter(found.values())))
        draws = bootstrap({(name, k): accuracy_of(hits) for name, each in found.items() for k, hits in enumerate(each)}, rows)
        effects = {}
        for what, contrast in asked.items():
            pairs = [contrast({name: draws[name, k] for name in found}) for k in range(seeds)]
            effects[what] = seed_effect([p.value for p in pairs], Draws.average(pairs).se, [p.se for p in pairs], margin=0.005, rows=rows)
        return {name: Draws.average(draws[name, k] for k in range(seeds)) for name in found}, effects


@dataclass(frozen=True)
class Clean:
    """The teacher's answer to the row as it is, whichever view the student sees."""

    source: Cached

    training_ids = None

    @property
    def fingerprint(self) -> str:
        return digest("clean", self.source.fingerprint)

    def __call__(self, batch: Batch, taps: frozenset[str] = NOTHING) -> Signal:
        assert batch.ids is not None  # batches of attar's data have them
        return self.signal(self.locate(batch.ids))

    def prepare(self, batch: Batch) -> Callable[[], object]:
        return self.source.prepare(batch)

    def locate(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        return self.source.locate(ids)

    def signal(self, rows: Tensor) -> Signal:
        return self.source.signal(rows)


@dataclass(frozen=True)
class He:
    """Two hidden layers of ReLUs, weights drawn with a variance of 2 / inputs and biases 0: He et al. 2015, arXiv:1502.01852.

    torch draws those of nn.Linear, and so `mlp` its own, with a sixth of that variance.
    """

    width: int

    def __call__(self, schema: Schema, seed: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        with seeded(seed):
            for inputs, outputs in ((LENGTH, self.width), (self.width, self.width), (self.width, len(schema.classes))):
                layer = nn.Linear(inputs, outputs)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
                layers += [layer, nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def convolutional(schema: Schema, seed: int) -> nn.Module:
    """The teacher's net: (B, 1, 40) → (B, C); signals that leave at one end come in at the other."""
    layers: list[nn.Module] = []
    with seeded(seed):
        for inputs, outputs in ((1, 32), (32, 48), (48, 48)):
            layers += [nn.Conv1d(inputs, outputs, 5, padding=2, padding_mode="circular"), nn.BatchNorm1d(outputs), nn.ReLU()]
            layers += [nn.MaxPool1d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * LENGTH // 8, len(schema.classes)))


def mnist1d(seed: int) -> Data:
    """14,000 rows, a row a tensor of (1, 40): 2/7 to train, a seventh each to validate and to calibrate, 3/7 to test."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]  # else this file is what its name imports
    try:
        from mnist1d.data import get_dataset_args, make_dataset  # pyright: ignore[reportMissingImports] - nobody else needs it
    except ModuleNotFoundError:
        sys.exit("this benchmark makes its rows with the package mnist1d\nhint: pip install mnist1d")
    how = get_dataset_args()
    vars(how).update(num_samples=14_000, seed=seed)
    made = make_dataset(how)
    rows, classes = (np.concatenate([made[name], made[f"{name}_test"]]) for name in ("x", "y"))
    return arrays(rows[:, None].astype(np.float32), classes, valid=1 / 7, calibration=1 / 7, test=3 / 7).read("classification")


def viewed(data: Data) -> Data:
    """The same with an augmentation: turned by up to 3 numbers, scaled by up to a fifth, and noise of .1 of the rows' deviation.

    As many views are made as the teacher has epochs, for it sees another in each; the first 16 are stored and shown to students.
    """
    train, count = data.train, len(data.train)
    rows = train.rows(torch.arange(count))
    assert isinstance(rows, Tensor)
    kept = torch.cat([rows, *(torch.from_numpy(view(rows.numpy(), train.ids.numpy(), v)) for v in range(1, TEACHER_EPOCHS + 1))])

    def seen(index: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        return kept.index_select(0, views * count + index)

    data = replace(data, train=replace(train, seen=seen), views=VIEWS, augmentation="turn(3), scale(0.2), noise(0.1)")
    return replace(data, fingerprint=fingerprint(data))


def view(rows: np.ndarray, ids: np.ndarray, number: int) -> np.ndarray:
    """(N, 1, 40) rows, (N,) ids → (N, 1, 40), by (id, view) alone."""
    keys = mix(mix(ids.view(np.uint64)) ^ np.uint64(number))  # (N,)
    turn = np.floor(uniform(keys.view(np.int64), "turn") * 7).astype(np.int64) - 3
    factor = 0.8 + 0.4 * uniform(keys.view(np.int64), "scale")
    each = mix(keys[:, None] ^ np.arange(LENGTH, dtype=np.uint64))  # (N, 40)
    noise = ndtri(uniform(each.view(np.int64), "noise") + 2.0**-54)  # never of 0
    turned = np.take_along_axis(rows[:, 0], (np.arange(LENGTH) - turn[:, None]) % LENGTH, 1)
    return (factor[:, None] * turned + 0.1 * noise).astype(np.float32)[:, None]


def scarce(data: Data) -> Data:
    """The same with the labels of 400 training and 100 validation rows, drawn once; the others' are unknown."""

    def kept(split: Split, count: int) -> Split:
        assert split.labels is not None
        drawn = np.argsort(uniform(split.ids.numpy(), "labelled"))[:count]
        known = torch.full_like(split.labels, IGNORE)
        known[drawn] = split.labels[drawn]
        return replace(split, labels=known)

    data = replace(data, train=kept(data.train, LABELLED), valid=kept(data.valid, JUDGED))
    return replace(data, fingerprint=fingerprint(data))


def weights(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def accuracy_of(hits: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda w: w @ hits / w.sum(-1)


def minus(one: str, other: str) -> Callable[[Mapping[str, Draws]], Draws]:
    return lambda draws: draws[one] - draws[other]


def table(accuracy: Mapping[str, Draws], effects: Mapping[str, Effect], against: str) -> str:
    """A line for each arm: its accuracy, rows resampled, for the mean over seeds; and what it gains."""
    text = f"| | accuracy | {against} |\n|---|---|---|\n"
    for name, draws in accuracy.items():
        low, high = draws.interval()
        gain = told(effects[name]) if name in effects else ""
        text += f"| {name} | {share(draws.value)} [{share(low)}, {share(high)}] | {gain} |\n"
    return text


def told(effect: Effect) -> str:
    return f"{signed(effect.difference)} [{signed(effect.low)}, {signed(effect.high)}]"


def ruled(effect: Effect, above: float = 0.0) -> str:
    """Whether the interval lies above a bound."""
    return "yes" if effect.low > above else "no" if effect.high < above else "not decided"


def share(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def signed(value: float) -> str:
    return f"{value:+.4f}".replace("0.", ".", 1).replace("-", "−")


if __name__ == "__main__":
    main()
