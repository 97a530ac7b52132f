"""Whom the student serves worse: every class and declared group, tested together, and the rows that a population of students loses."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from attar.certificate import Figure
from attar.certificate.harm import EXAMPLES, FDR, Cell, Example, Family, Harm, Parity, Pies
from attar.data import Data, Split
from attar.files import replacing
from attar.statistics import bootstrap, metrics
from attar.statistics.multiplicity import benjamini_hochberg
from attar.statistics.subgroups import Paired, PairedShares, apart, found_by, largest_loss, paired_means, paired_shares, share_of
from attar.statistics.tests import FEWEST_ROWS
from attar.task import Task
from attar.verbs.evaluate.likeness import Positions
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, Who, arms_of, array
from attar.verbs.evaluate.scoring import STUDENT, figure, resamples

__all__ = ["CLASSES", "harm", "limits"]

CLASSES = 1000  # compared at most: nobody reads a table of more
FEWEST_FOUND = 10  # of either kind of row, before it is said how well they are found: an AUROC of fewer means little

NO_SHIFT: Mapping[str, Data] = MappingProxyType({})
Mask = NDArray[np.bool_]


def harm(
    at: Positions | None,
    models: Mapping[Who, Model],
    answers: Mapping[Who, Tensor],
    rows: Rows,
    judged: Judged,
    task: Task,
    data: Data,
    out: Path | None,
) -> Harm | None:
    """Differences by class and by group, and the rows that the arm "student" loses; those are written to `out`/harm.parquet.

    None of an embedding, which is right or wrong about no row, and of a regression without groups or labels.
    Without pyarrow the file is harm.csv.
    """
    if task.kind == "embedding":
        return None
    if at is None:
        family = _of_numbers(answers, rows, judged, data.test)
        return None if family is None else Harm({"group": family})
    families = {"class": _of_decisions(at, list(_classes(at, data, task)), "accuracy", _by(at, task))}
    binary = task.kind == "classification" and task.outcomes == 2
    if parts := list(_parts(data.test)):
        groups = [(of, name, mask[at.row]) for of, name, mask in parts]
        families["group"] = _of_decisions(at, groups, "accuracy", "group")
        if binary and (at.label == 1).any():
            positive = [(of, name, mask & (at.label == 1)) for of, name, mask in groups]
            families["recall"] = _of_decisions(at, positive, "recall", "group")
    return Harm(families, _parity(at, data.test) if binary else {}, _pies(at, models, answers, judged, task, data, out))


def limits(found: Harm | None, task: Task, data: Data, shift: Mapping[str, Data] = NO_SHIFT) -> list[str]:
    """What the comparison of groups does not say. shift: other data sets by name, whose groups nobody compares."""
    said = []
    if elsewhere := [name for name, other in shift.items() if other.test.groups]:
        said.append(f"groups of rows from elsewhere ({', '.join(elsewhere)}): they were not compared by group")
    names = list(data.test.groups)
    if not names:
        by = " but by class" if found is not None else ""
        said.append(f"groups of rows: none were declared (groups=), so that none were compared{by}")
    elif found is None:
        why = "vectors are not right or wrong" if task.kind == "embedding" else "no row has a label"
        said.append(f"groups of rows: none were compared, for {why}")
    elif len(names) > 1:
        said.append(f"groups by two columns at once, such as {names[0]} × {names[1]}: each column was looked at by itself")
    if found is None:
        return said
    if few := [cell.title for family in found.families.values() for cell in family.cells if cell.answer == "too few rows"]:
        few = list(dict.fromkeys(few))
        some = ", ".join(few[:3]) + (", …" if len(few) > 3 else "")
        said.append(f"{some}: too few test rows to say whether the student does worse there ({FEWEST_ROWS} needed)")
    if any(family.tested for family in found.families.values()):
        said.append("a class or group that is not shown to be worse is not shown to be as good: its interval says how much worse it may be")
    if len(data.schema.classes) > CLASSES:
        said.append(f"of {len(data.schema.classes):,} classes the first {CLASSES:,} were compared")
    if found.pies is not None and found.pies.seeds == 1:
        said.append("rows that a population of students loses: one student is no population, and another seed may lose others")
    return said


# --- cells and families ------------------------------------------------------------------------------------------------------------


def _by(at: Positions, task: Task) -> str:
    if task.kind == "multilabel":
        return "label of the row"
    return "label" if (at.label >= 0).any() else "teacher's decision"


def _classes(at: Positions, data: Data, task: Task) -> Iterator[tuple[str, str, Mask]]:
    group = {"label of the row": at.place, "label": at.label, "teacher's decision": at.teacher_decides}[_by(at, task)]
    names = [str(name) for name in data.schema.classes]
    bare = all(name.replace(".", "", 1).lstrip("-").isdigit() or name in ("False", "True") for name in names)
    for number, name in enumerate(names[:CLASSES]):
        yield data.schema.label if bare else "", name, group == number


def _parts(split: Split) -> Iterator[tuple[str, str, Mask]]:
    """(column, part, (N,) rows) of every declared group."""
    for of, group in split.groups.items():
        for name, rows in group.parts().items():
            yield of, name, rows.numpy()


def _of_decisions(at: Positions, parts: Sequence[tuple[str, str, Mask]], name: str, by: str) -> Family:
    """Shares of decisions that are right, in each part of the positions."""
    weight = None if at.weight is None else at.weight[at.row]
    counts = np.ones(len(at.row), dtype=bool) if weight is None else weight > 0
    alike = at.teacher_decides == at.student_decides
    labelled = bool((at.label >= 0).any())
    cells, tested = [], dict[int, Paired]()
    for of, part, mask in parts:
        everyone = mask & counts
        judged = everyone & (at.label >= 0)
        single = len(np.unique(at.row[everyone])) == int(everyone.sum())

        def share(hits: Mask, where: Mask, single: bool = single) -> Figure:
            if not where.any():
                return Figure(None, how="no such row")
            w, row = (None if weight is None else weight[where]), (None if single else at.row[where])
            how = "Wilson interval" if single and w is None else "Wilson interval of as many rows as tell as much (Korn and Graubard)"
            return Figure.of(*share_of(hits[where], w, row), n=int(where.sum()), how=how)

        there = len(np.unique(at.row[judged]))
        cell = Cell(
            of,
            part,
            int(judged.sum()),
            share(alike, everyone),
            share(at.teacher_decides == at.label, judged),
            share(at.student_decides == at.label, judged),
            Figure(None, how="no such row"),
            None,
            None,
            "too few rows" if labelled else "no labels",
            FEWEST_ROWS if labelled else None,
        )
        if judged.any():
            y, t, s = at.label[judged], at.teacher_decides[judged], at.student_decides[judged]
            pair = paired_shares(s == y, t == y, None if weight is None else weight[judged], None if single else at.row[judged])
            how = "paired score interval (Tango)" + ("" if pair.exact else " of as many rows as tell as much (Korn and Graubard)")
            cell = replace(cell, difference=Figure.of(pair.difference, *pair.interval(), n=int(judged.sum()), how=how))
            if there >= FEWEST_ROWS:
                tested[len(cells)] = pair
        cells.append(cell)
    return _family(cells, tested, by, name, better=1)


def _of_numbers(answers: Mapping[Who, Tensor], rows: Rows, judged: Judged, split: Split) -> Family | None:
    """Mean absolute errors in each declared group; None where there is none, or no label."""
    if rows.labels is None or not rows.n or not split.groups:
        return None
    y, known = array(rows.labels), array(rows.known)
    off = {who: np.abs(array(answers[who])[:, 0] - y) for who in (TEACHER, judged.who)}
    cells, tested = [], dict[int, Paired]()
    for of, part, mask in _parts(split):
        mine = mask & known & (True if rows.weight is None else rows.weight > 0)
        n, few = int(mine.sum()), Figure(None, how="too few rows")
        cell = Cell(of, part, n, None, few, few, few, None, None, "too few rows", FEWEST_ROWS)
        if n >= FEWEST_ROWS:
            w = None if rows.weight is None else rows.weight[mine]
            pair = paired_means(off[judged.who][mine], off[TEACHER][mine], w)
            nothing = np.zeros(n)
            each = [paired_means(off[who][mine], nothing, w) for who in (TEACHER, judged.who)]
            t, s = (Figure.of(m.a, *m.interval(), n=n, how="t interval") for m in each)
            difference = Figure.of(pair.difference, *pair.interval(), n=n, how="paired t interval")
            cell = replace(cell, teacher=t, student=s, difference=difference)
            tested[len(cells)] = pair
        cells.append(cell)
    return _family(cells, tested, "group", "absolute error", better=-1)


def _family(cells: list[Cell], tested: Mapping[int, Paired], by: str, name: str, *, better: int) -> Family:
    """Cells with what may be said of each among all that were tested, the greatest loss first."""
    regret, worst = Figure(None, how="no cell has rows enough"), ""
    if tested:
        pairs = list(tested.values())
        p = [pair.p for pair in pairs]
        for number, alone, adjusted in zip(tested, p, benjamini_hochberg(p).tolist(), strict=True):
            gain = better * tested[number].difference
            answer: Literal["worse", "better", "not shown"] = "not shown" if adjusted > FDR else "worse" if gain < 0 else "better"
            cells[number] = replace(cells[number], p=alone, adjusted=adjusted, answer=answer, rows_needed=None)
        at, loss, low, high = largest_loss(pairs, better=better)
        worst = cells[list(tested)[at]].title
        how = f"the largest of {len(pairs)}, which is too large on average; the interval holds for all of them at once (Bonferroni)"
        regret = Figure.of(loss, low, high, n=cells[list(tested)[at]].rows, how=how)

    def order(cell: Cell) -> tuple[bool, float]:
        few = cell.answer == "too few rows"
        value = cell.difference.value if cell.difference.value is not None else cell.agreement.value if cell.agreement else None
        return few, (better if cell.difference.value is not None else 1) * value if value is not None else np.inf

    return Family(by, name, better, tuple(sorted(cells, key=order)), len(tested), worst, regret)


def _parity(at: Positions, split: Split) -> dict[str, dict[str, Parity]]:
    """Differences in demographic parity and in equalised odds, of each column of groups with two parts or more that have the rows."""
    weight = at.weight
    counts = np.ones(len(at.row), dtype=bool) if weight is None else weight > 0
    found: dict[str, dict[str, Parity]] = {}
    for of, group in split.groups.items():
        parts = {name: rows.numpy() & counts for name, rows in group.parts().items()}
        for name, kinds in (
            ("demographic parity", [np.ones(len(at.row), dtype=bool)]),
            ("equalised odds", [at.label == 1, at.label == 0]),
        ):
            enough = {part: mask for part, mask in parts.items() if all((mask & kind).sum() >= FEWEST_ROWS for kind in kinds)}
            if len(enough) < 2:
                continue
            strata = [[_positives(at, mask & kind, weight) for mask in enough.values()] for kind in kinds]
            seen = apart(strata)
            n = int(sum((mask & kind).sum() for mask in enough.values() for kind in kinds))
            how = (
                "the largest difference of two groups, which is too large on average; interval from those of all pairs at once (Bonferroni)"
            )
            found.setdefault(of, {})[name] = Parity(
                Figure.of(seen.b, *seen.of_b, n=n, how=how),
                Figure.of(seen.a, *seen.of_a, n=n, how=how),
                Figure.of(seen.a - seen.b, *seen.change, n=n, how="from all pairs that may be the farthest apart, at once"),
                tuple(part for part in parts if part not in enough),
            )
    return found


def _positives(at: Positions, mask: Mask, weight: NDArray | None) -> PairedShares:
    return paired_shares(at.student_decides[mask] == 1, at.teacher_decides[mask] == 1, None if weight is None else weight[mask])


# --- rows that a population of students loses --------------------------------------------------------------------------------------


def _pies(
    at: Positions, models: Mapping[Who, Model], answers: Mapping[Who, Tensor], judged: Judged, task: Task, data: Data, out: Path | None
) -> Pies:
    seeds = arms_of(models).get(STUDENT) or [judged.who]
    mode, alike = _mode(at, models, answers, seeds)
    known, t_right, right = at.label >= 0, at.teacher_decides == at.label, mode == at.label
    differ, lost, gained = mode != at.teacher_decides, known & t_right & ~right, known & ~t_right & right
    confidence = _confidence(at, models[judged.who].task.decides_from)
    what = np.select([lost, gained, known], ["lost", "gained", "both wrong"], "no label")
    chosen = np.flatnonzero(differ)
    chosen = chosen[np.lexsort((-confidence[chosen], -alike[chosen], ~lost[chosen]))]  # the lost first, those of which most are sure
    listed = list(_listed(at, data, task, chosen, what, mode, alike, confidence))
    return Pies(
        seeds=len(seeds),
        differ=_share(at, differ, np.ones(len(known), dtype=bool)),
        lost=_share(at, lost, known),
        gained=_share(at, gained, known),
        differ_found=_found(at, 1 - confidence, differ, np.ones(len(known), dtype=bool)),
        lost_found=_found(at, 1 - confidence, lost, known),
        file="" if out is None else _write(out, listed, at, chosen, data),
        listed=len(listed),
        examples=tuple(Example(**{k: v for k, v in line.items() if k != "confidence"}) for line in listed[:EXAMPLES]),
    )


def _confidence(at: Positions, cut: float | None) -> NDArray[np.float64]:
    """(M,) probability of the likeliest outcome; where the positive of two is decided from a cut c, σ|z − c| of the log-odds.

    So it is for a guard: a row just above the cut is one that the student is unsure of, whatever its probability.
    """
    if cut is None:
        return np.exp(metrics.log_softmax(at.student)).max(-1)
    return special.expit(np.abs(at.student[:, 1] - at.student[:, 0] - cut))


def _mode(
    at: Positions, models: Mapping[Who, Model], answers: Mapping[Who, Tensor], seeds: Sequence[Who]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(M,) what most of the seeds decide, where they tie what they are surer of on average; and (M,) what share of them decides so."""
    decisions = np.stack([array(models[who].task.decide(answers[who])).reshape(-1) for who in seeds])  # (S, M)
    votes = np.stack([(decisions == one).sum(0) for one in decisions])
    best, each = votes.argmax(0), np.arange(len(at.row))
    tied = np.flatnonzero(((votes == votes.max(0)) & (decisions != decisions[best, each])).any(0))
    sure = np.zeros((len(seeds), len(tied)))
    for who in seeds if len(tied) else ():
        p = np.exp(metrics.log_softmax(array(answers[who]).reshape(len(at.row), -1)[tied]))
        sure += np.stack([p[np.arange(len(tied)), one] for one in decisions[:, tied]])
    best[tied] = (votes[:, tied] + sure / (len(seeds) + 1)).argmax(0)
    return decisions[best, each], votes[best, each] / len(seeds)


def _share(at: Positions, hits: Mask, of: Mask) -> Figure:
    weight = None if at.weight is None else at.weight[at.row]
    of = of if weight is None else of & (weight > 0)
    if not of.any():
        return Figure(None, how="no such row")
    row = None if len(at.row) == at.rows else at.row[of]
    return Figure.of(
        *share_of(hits[of], None if weight is None else weight[of], row), n=int(of.sum()), how="Wilson interval, seeds as they are"
    )


def _found(at: Positions, score: NDArray[np.float64], hits: Mask, of: Mask) -> Figure:
    """AUROC of a score at finding the hits among the rows that are judged."""
    if min(int((hits & of).sum()), int((~hits & of).sum())) < FEWEST_FOUND:
        return Figure(None, how=f"fewer than {FEWEST_FOUND} such rows")
    if at.single:
        return Figure.of(*found_by(score[of], hits[of]), n=int(of.sum()), how="DeLong on the log-odds scale")
    labelled, row = np.unique(at.row[of], return_inverse=True)
    weight = None if at.weight is None else at.weight[labelled]
    statistic = partial(metrics.auroc, score[of], hits[of])

    def by_row(w: NDArray[np.float64]) -> NDArray[np.float64]:
        return statistic(w if len(row) == w.shape[-1] else w[..., row])

    return figure(bootstrap({"": by_row}, len(labelled), resamples=resamples(len(labelled)), weight=weight)[""])


def _listed(
    at: Positions,
    data: Data,
    task: Task,
    chosen: NDArray[np.int64],
    what: NDArray,
    mode: NDArray[np.int64],
    alike: NDArray[np.float64],
    confidence: NDArray[np.float64],
) -> Iterator[dict[str, Any]]:
    """One line for each decision that differs."""
    many = task.kind == "multilabel"
    names = ("no", "yes") if many else tuple(map(str, data.schema.classes))
    ids = data.test.ids.numpy()
    for i in chosen.tolist():
        yield {
            "id": int(ids[at.row[i]]),
            "of": str(data.schema.classes[at.place[i]]) if many else "",
            "what": str(what[i]),
            "label": "" if at.label[i] < 0 else names[at.label[i]],
            "teacher": names[at.teacher_decides[i]],
            "students": names[mode[i]],
            "alike": float(alike[i]),
            "ships": names[at.student_decides[i]],
            "confidence": float(confidence[i]),
        }


def _write(out: Path, listed: Sequence[Mapping[str, Any]], at: Positions, chosen: NDArray[np.int64], data: Data) -> str:
    """The lines with the groups of their rows, as Parquet, or as CSV where there is no pyarrow; the name of the file."""
    columns: dict[str, list[Any]] = {
        name: [line[name] for line in listed] for name in _TYPES if name != "of" or any(x["of"] for x in listed)
    }
    for of, group in data.test.groups.items():
        names = np.full(len(data.test), "", dtype=object)
        for part, rows in group.parts().items():
            names[rows.numpy()] = part
        columns[f"group {of}"] = names[at.row[chosen]].tolist()
    parquet = importlib.util.find_spec("pyarrow") is not None
    name = "harm.parquet" if parquet else "harm.csv"
    with replacing(out / name) as path:
        if parquet:
            import pyarrow as pa
            from pyarrow import parquet as pq

            types = {column: _TYPES.get(column, "string") for column in columns}
            pq.write_table(pa.table({c: pa.array(values, types[c]) for c, values in columns.items()}), path)
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                lines = csv.writer(file)
                lines.writerow(columns)
                lines.writerows(zip(*columns.values(), strict=True))
    (out / ("harm.csv" if parquet else "harm.parquet")).unlink(missing_ok=True)  # of an earlier look, made with other libraries
    return name


_TYPES = {
    "id": "int64",
    "of": "string",
    "what": "string",
    "label": "string",
    "teacher": "string",
    "students": "string",
    "alike": "float64",
    "ships": "string",
    "confidence": "float64",
}
