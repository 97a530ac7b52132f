"""The credit recipe, and what its student costs beside every face of its teacher, in one interleaved measurement.

    python benchmarks/credit.py                              # the whole recipe first: about three minutes
    python benchmarks/credit.py --out runs/credit            # a run that is there already is only measured
    python benchmarks/credit.py --set fit.epochs=4           # as in `attar run`

One row, one thread: each call asks another of 256 test rows, all arrays made beforehand. The faces of the teacher: LightGBM's bare
`Booster.predict` on a ready float64 matrix; the same trees as ONNX (onnxmltools), as logits; scikit-learn's `predict_proba`
on a ready DataFrame row; attar's source, which maps columns and categories by name. Targets: p95 at least 3 × below the fastest
face, at least 15 × smaller on disk, AUROC above the control's and not below the teacher's by more than .005.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attar.certificate import Certificate
from attar.cost import Candidate, Compared, compare, machine
from attar.data import Data
from attar.recipe import load
from attar.signal import Batch
from attar.sources.onnx import onnx, open_graph
from attar.sources.trees import LightGBM, lightgbm
from attar.verbs.export.trees import from_lightgbm
from attar.verbs.run import Job, read, run_job

RECIPE = Path(__file__).parent.parent / "recipes" / "credit.yaml"
ROWS = 256


def main() -> None:
    options = asked("credit", __doc__, seconds=6.0)
    certificate, _, data = finished(RECIPE, options.out, options.settings)
    print(f"python {' '.join(sys.argv)} · {machine()}")
    print(f"rows: {', '.join(f'{n} {len(s):,}' for n, s in data.splits.items())}")
    teacher = lightgbm(str(options.out / "teacher.txt"))
    compared, sizes = measured(teacher, options.out / "student", data, options.seconds)
    tell_costs(compared, sizes)
    print(f"\n{certificate}\n\n{(options.out / 'recipe.yaml').read_text(encoding='utf-8')}")


def asked(recipe: str, what: str | None, *, seconds: float) -> argparse.Namespace:
    """The options of a benchmark of a recipe; what: its docstring."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(f"runs/benchmark-{recipe}"))
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--seconds", type=float, default=seconds, help="of measuring, for each candidate")
    return parser.parse_args()


def finished(recipe: Path, out: Path, settings: Sequence[str]) -> tuple[Certificate, Job, Data]:
    """The certificate of a run of the recipe, run now unless its folder is complete; its job and its data."""
    read_recipe = load(recipe).with_overrides(list(settings))
    resolved = read_recipe.resolve(out)
    job = Job(**resolved.values, text=resolved.text(), where=read_recipe.where)
    result = run_job(job, out=out, resume=out.exists())
    assert result.certificate is not None
    return result.certificate, job, read(job)[0]


def measured(teacher: LightGBM, student: Path, data: Data, seconds: float) -> tuple[Compared, dict[str, int]]:
    """Costs of the student's graphs and of the teacher's faces, and bytes on disk by name."""
    index = torch.arange(ROWS)
    many = data.test.batch(index)
    rows = [data.test.batch(index[i : i + 1]) for i in range(ROWS)]
    candidates = {path.name: Candidate.of(onnx(str(path)), many, many) for path in sorted(student.glob("*.onnx"))}
    sizes = {path.name: path.stat().st_size for path in student.glob("*.onnx")}
    for name, face in faces(teacher, many).items():
        candidates[name] = Candidate([face(row) for row in rows], face(many), ROWS)
    sizes["booster"] = Path(teacher.path).stat().st_size
    sizes["teacher as ONNX"] = len(as_onnx(teacher))
    return compare(candidates, seconds=seconds, undisturbed=True), sizes


def faces(teacher: LightGBM, sample: Batch) -> dict[str, Callable[[Batch], Callable[[], Any]]]:
    """By name, what makes a ready call of a batch."""
    content = as_onnx(teacher)
    session = open_graph(content, 1, "teacher.onnx")
    name = session.get_outputs()[-1].name
    fitted = as_sklearn(teacher, sample)

    def by_onnx(batch: Batch) -> Callable[[], Any]:
        return partial(session.run, [name], {"matrix": teacher.matrix(batch).astype(np.float32)})

    def by_sklearn(batch: Batch) -> Callable[[], Any]:
        rows = as_frame(teacher, batch)
        return lambda: fitted.predict_proba(rows, num_threads=1)

    answers = np.asarray(by_onnx(sample)()[0]).reshape(ROWS)
    difference = np.abs(answers - teacher.raw(teacher.matrix(sample), sample))
    print(f"the teacher as ONNX differs from the booster by at most {difference.max():.1e} in log-odds on {ROWS} rows")
    return {
        "booster": teacher.prepare,
        "teacher as ONNX": by_onnx,
        "teacher as scikit-learn": by_sklearn,
        "teacher as attar's source": lambda batch: lambda: teacher(batch),
    }


def as_onnx(teacher: LightGBM) -> bytes:
    """The booster's trees as one ONNX graph of raw scores, as a tree student is exported: no label is computed beside them."""
    return from_lightgbm(teacher.booster, len(teacher.features)).SerializeToString()


def as_sklearn(teacher: LightGBM, sample: Batch) -> Any:
    """The booster behind scikit-learn's face: a classifier fitted on a handful of rows, whose booster is then replaced."""
    import lightgbm as library

    assert sample.labels is not None
    face = library.LGBMClassifier(n_estimators=1, verbose=-1, n_jobs=1).fit(as_frame(teacher, sample), sample.labels.numpy())
    face._Booster = teacher.booster
    return face


def as_frame(teacher: LightGBM, batch: Batch) -> Any:
    """The rows as a DataFrame of the booster's columns, categories as pandas knows them."""
    import pandas as pd

    rows = teacher.matrix(batch)
    columns = {}
    for i, feature in enumerate(teacher.features):
        values = rows[:, i]
        if feature.categories is not None:
            codes = np.where(np.isnan(values), -1, values).astype(int)
            values = pd.Categorical.from_codes(codes, categories=list(feature.categories))
        columns[feature.name] = values
    return pd.DataFrame(columns)


def tell_costs(compared: Compared, sizes: Mapping[str, int]) -> None:
    print(f"\n{'one thread':28}{'p50 µs':>9}{'p95 µs':>9}   {'p95, 95 %':16}{'256 rows µs':>12}{'bytes':>11}")
    for name, cost in compared.costs.items():
        p50, p95, many = cost.latency_ms.p50, cost.latency_ms.p95, cost.latency_many_ms.p50
        between = f"[{1000 * p95.low:.1f}, {1000 * p95.high:.1f}]"
        size = f"{sizes[name]:,}" if name in sizes else ""
        print(f"{name:28}{1000 * p50.value:9.1f}{1000 * p95.value:9.1f}   {between:16}{1000 * many.value:12.1f}{size:>11}")
    student = "student.onnx"
    print()
    for name in compared.costs:
        if not name.startswith("student"):
            half, most = compared.ratio(name, student, share=0.5), compared.ratio(name, student)
            print(
                f"{name} / {student}: p95 {most.value:.2f} × [{most.low:.2f}, {most.high:.2f}], p50 {half.value:.2f} ×"
                + (f", bytes {sizes[name] / sizes[student]:.1f} ×" if name in sizes else "")
            )
    fastest = min((n for n in compared.costs if not n.startswith("student")), key=lambda n: compared.costs[n].latency_ms.p95.value)
    print(f"fastest face: {fastest}; target 3 ×: {compared.ratio(fastest, student).value:.2f} ×")


if __name__ == "__main__":
    main()
