"""Whom the student serves worse than the teacher: by class and by declared group, how far groups lie apart, and which rows are lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from attar.certificate.figures import Figure, digits, interval, number, shortened, span

__all__ = ["EXAMPLES", "FDR", "Cell", "Example", "Family", "Harm", "Parity", "Pies", "said", "tables"]

FDR = 0.05  # of cells called worse or better, the share that is so by chance
EXAMPLES = 100  # of rows that differ, which a certificate names
SHOWN = 5  # cells of a family in a terminal
PLURAL = {"class": "classes", "group": "groups", "recall": "groups"}


@dataclass(frozen=True)
class Cell:
    """One class or one group of rows, by both models.

    of: the column that parts the rows; "" of a class whose name is no number. name: of the class or of the part.
    rows: by which both are judged. agreement: share of decisions alike; None of a regression.
    teacher, student: the family's figure. difference: student − teacher.
    p: two-sided, of "no difference"; adjusted: for the number of cells of the family; None where it was not tested.
    answer: what may be said of this cell among all of its family. "not shown" is no proof that there is no difference.
    rows_needed: of "too few rows", how many there must be.
    """

    of: str
    name: str
    rows: int
    agreement: Figure | None
    teacher: Figure
    student: Figure
    difference: Figure
    p: float | None
    adjusted: float | None
    answer: Literal["worse", "better", "not shown", "too few rows", "no labels"]
    rows_needed: int | None = None

    @property
    def title(self) -> str:
        """ "age 35–52" of a group, the name alone of a class."""
        return f"{self.of} {self.name}".strip()


@dataclass(frozen=True)
class Family:
    """Cells that are judged together, the greatest loss first.

    by: what parts the rows: "label", "label of the row", "teacher's decision" or "group". figure: "accuracy", "recall" or "absolute error";
    better: +1 where more of it is better, −1 where less is. tested: cells with rows enough.
    regret: the largest loss of the student against the teacher in any tested cell, and worst: in which.
    """

    by: str
    figure: str
    better: int
    cells: tuple[Cell, ...]
    tested: int
    worst: str
    regret: Figure

    def answered(self, answer: str) -> tuple[Cell, ...]:
        """The cells of which this is the answer."""
        return tuple(cell for cell in self.cells if cell.answer == answer)


@dataclass(frozen=True)
class Parity:
    """How far groups of one column lie apart by each model, 0..1, and how much farther by the student. left_out: groups of too few rows."""

    teacher: Figure
    student: Figure
    change: Figure
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One decision in which the student population differs from the teacher: texts of what each decides.

    id: of the row. of: which label, where rows have several. label: "" where unknown. alike: share of the seeds that decide so.
    what: "lost": the teacher is right and the population wrong. "gained": the other way round. "both wrong". "no label".
    """

    id: int
    of: str
    label: str
    teacher: str
    students: str
    alike: float
    ships: str
    what: Literal["lost", "gained", "both wrong", "no label"]


@dataclass(frozen=True)
class Pies:
    """Rows on which the mode of a population of students differs from the teacher. Hooker et al. 2019, with the teacher as reference.

    seeds: of the population. differ: share of decisions. lost, gained: of labelled decisions, the teacher right and the population wrong,
    and the other way round. differ_found, lost_found: AUROC of 1 − confidence of the file that ships at finding them;
    under a rule with a cut confidence is how far the log-odds are from it.
    file: in the run folder, which lists all that differ; "" where nothing was written. listed: how many. examples: the first of them.
    """

    seeds: int
    differ: Figure
    lost: Figure
    gained: Figure
    differ_found: Figure
    lost_found: Figure
    file: str
    listed: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Harm:
    """families: by what they part the rows: "class", "group", "recall". parity: by column, then by name."""

    families: Mapping[str, Family] = field(default_factory=dict)
    parity: Mapping[str, Mapping[str, Parity]] = field(default_factory=dict)
    pies: Pies | None = None


def said(harm: Harm) -> list[str]:
    """What was found, a sentence for each family and one for the rows that are lost."""
    found = []
    for key, family in harm.families.items():
        where = "in recall, " if key == "recall" else ""
        if not family.tested:
            if any(cell.answer != "no labels" for cell in family.cells):
                found.append(f"{where}no {'class' if key == 'class' else 'group'} has rows enough to be judged")
            continue
        worse, better = len(family.answered("worse")), len(family.answered("better"))
        many = f"{family.tested} {PLURAL[key] if family.tested > 1 else PLURAL[key].removesuffix('es' if key == 'class' else 's')}"
        counted = f"{where}{worse or 'not one'} of {many} {'are' if worse > 1 else 'is'} significantly worse" + (
            f", {better} better" if better else ""
        )
        loss = f"{digits(family.regret.value or 0.0)} {span(family.regret)}".replace("-", "−")
        found.append(f"{counted}; the largest loss is {loss}, at {family.worst}")
    if (pies := harm.pies) is not None and pies.lost.value is not None:
        who = f"most of {pies.seeds} students are" if pies.seeds > 1 else "the student is"
        found.append(f"on a share of {digits(pies.lost.value)} {span(pies.lost)} of rows {who} wrong where the teacher is right")
    return found


def tables(harm: Harm) -> list[list[str]]:
    """Tables for a terminal, each a head and its lines: the worst cells of each family, how far groups lie apart, rows that are lost."""
    found = [_family(key, family) for key, family in harm.families.items() if family.cells]
    if harm.parity:
        lines = [f"{'how far groups lie apart':<33}{'teacher':>9}{'student':>9}  change [95 %]"]
        for column, by in harm.parity.items():
            lines += [
                f"  {shortened(f'{column}, {name}', 31):<31}{number(f.teacher):>9}{number(f.student):>9}  {interval(f.change)}"
                for name, f in by.items()
            ]
        found.append(lines)
    if (pies := harm.pies) is not None:
        head = f"the mode of {pies.seeds} students" if pies.seeds > 1 else "the student"
        lines = [f"{head:<46}{'share':>9}  [95 %]"]
        for what, figure in (
            ("differs from the teacher", pies.differ),
            ("is wrong where the teacher is right", pies.lost),
            ("is right where the teacher is wrong", pies.gained),
            ("lost rows found by 1 − confidence, AUROC", pies.lost_found),
        ):
            if figure.value is not None:
                lines.append(f"  {what:<44}{number(figure):>9}  {span(figure)}")
        if pies.file:
            lines.append(f"  {pies.listed:,} decisions that differ are listed by row id in {pies.file}")
        found.append(lines)
    return found


def _family(key: str, family: Family) -> list[str]:
    judged = any(cell.answer != "no labels" for cell in family.cells)
    head = f"{family.figure if judged else 'agreement'} by {'class' if key == 'class' else 'group'}"
    if not judged:
        lines = [f"{head:<39}{'rows':>9}  [95 %]"]
        cells = [cell for cell in family.cells if cell.agreement is not None][:SHOWN]
        lines += [
            f"  {shortened(cell.title, 28):<28}{number(cell.agreement):>9}{cell.agreement.n:>9,}  {span(cell.agreement)}"
            for cell in cells
            if cell.agreement is not None
        ]
        return [*lines, *_more(family)]
    lines = [f"{head:<25}{'rows':>7}{'teacher':>9}{'student':>9}  student − teacher [95 %]"]
    for cell in family.cells[:SHOWN]:
        mark = {"worse": "↓", "better": "↑"}.get(cell.answer, " ")
        few = f"  too few rows, {cell.rows_needed} needed"
        end = few if cell.answer == "too few rows" else f"  {interval(cell.difference)}"
        lines.append(f"{mark} {shortened(cell.title, 22):<23}{cell.rows:>7,}{number(cell.teacher):>9}{number(cell.student):>9}{end}")
    lines += _more(family)
    if family.tested:
        worse, better = len(family.answered("worse")), len(family.answered("better"))
        counted = f"{worse} of {family.tested} worse ↓" + (f", {better} better ↑" if better else "")
        lines.append(f"  {counted} at a false discovery rate of {FDR:.0%}")
    if family.regret.value is not None and family.tested > 1:
        loss = f"largest loss {digits(family.regret.value)} {span(family.regret)}".replace("-", "−")
        lines.append(f"  {loss}; interval for all {family.tested} at once")
    return lines


def _more(family: Family) -> list[str]:
    return [f"  … and {len(family.cells) - SHOWN:,} more"] if len(family.cells) > SHOWN else []
