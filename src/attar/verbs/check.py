"""Check: hold what is required against the certificate that a run has left; no model is asked, and no test row is looked at again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from scipy import special

from attar.certificate import Certificate, Figure, Require, Requirement, Verdict, interval, metric_name
from attar.cost import Budget
from attar.errors import EvidenceError
from attar.identity import digest_file
from attar.statistics import non_inferiority
from attar.verbs.evaluate.verdicts import kept, required

__all__ = ["Checked", "check"]

FIGURES = {
    "latency_ms": "latency_p95_ms",
    "size_mb": "size_mb",
    "parameters": "parameters",
    "memory_mb": "memory_mb",
    "rows_per_second": "rows_per_second",
}
OF_CALLS = ("latency_ms", "memory_mb", "rows_per_second")
CALLS = ("batch", "many", "threads")  # what a budget may say of the calls that it is about


@dataclass(frozen=True)
class Checked:
    """What was asked for, and whether it is so. notes: what a reader must know who trusts it."""

    requirements: tuple[Requirement, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """3 where something is not met, or the evidence for it does not suffice; 0 otherwise."""
        return 3 if any(r.answer != "met" for r in self.requirements) else 0


def check(run: str | Path, *, require: Require | None = None, budget: Budget | None = None) -> Checked:
    """Whether the certificate in the folder `run` shows what `require` and `budget` ask for.

    A margin other than the one that was claimed is held against the bounds that the certificate has; a note says that it was changed after
    the test split was opened, and so for whatever was not asked for when the certificate was made. Whether distillation helped is
    answered as the certificate answers it: the margin that was claimed is what "no difference" means in it.
    Raises EvidenceError where the certificate is missing, damaged or of another schema version, and where the student in the folder is
    another than it is about.

    >>> attar.check("runs/credit", require=attar.require(margin=0.01)).exit_code        # doctest: +SKIP
    0
    """
    certificate = Certificate.read(Path(run) / "certificate.json")
    _same_student(Path(run) / "student", certificate)
    asked = [*(_required(require, certificate) if require is not None else ()), *_budget(budget, certificate)]
    return Checked(tuple(asked), tuple(_notes(asked, require, certificate)))


def _same_student(folder: Path, c: Certificate) -> None:
    """Raise EvidenceError where the file that would be deployed is not the one that was judged; a folder that is not there is not asked."""
    name = c.identity["student"].get("file")
    entry = (c.identity["student"].get("files") or {}).get(name, {})
    path = folder / str(name)
    if entry.get("digest") and path.exists() and digest_file(path) != entry["digest"]:
        raise EvidenceError(f"{path} is another file than this certificate is about", hint="evaluate again")


def _required(require: Require, c: Certificate) -> list[Requirement]:
    labelled = c.identity["rows"]["labelled"] > 0
    if require.min_agreement is not None and "agreement" not in c.fidelity:
        raise EvidenceError("min_agreement: this certificate holds no agreement", hint="require a margin instead")
    noninferior = c.non_inferior if require.margin is None else _at(require.margin, c)
    found = required(require, noninferior, c.helped, c.fidelity, labelled)
    return [_told(r, c) if r.what == f"worse by less than {noninferior.margin:.3g}" else r for r in found]


def _at(margin: float, c: Certificate) -> Verdict:
    """The first verdict at another margin, from the bounds that the certificate has."""
    claimed = c.claim.get("margin")
    if margin == claimed:
        return c.non_inferior
    d = c.non_inferior.difference
    if d is None or d.value is None or d.low is None or d.high is None:
        return replace(c.non_inferior, answer="insufficient evidence", margin=margin)
    se = (d.high - d.low) / (2 * float(special.ndtri(0.95)))
    return replace(c.non_inferior, answer=non_inferiority(d.value, d.low, d.high, se, margin=margin, rows=d.n).answer, margin=margin)


def _told(requirement: Requirement, c: Certificate) -> Requirement:
    """The requirement with the figure that answers it."""
    d, metric = c.non_inferior.difference, c.claim["metric"]
    if d is None or d.value is None or metric not in c.quality:
        return requirement
    figure = interval(d.turned(c.quality[metric].better))
    return replace(requirement, sentence=f"{metric_name(metric)} {figure}, student − teacher; each end a bound of 95 % confidence.")


def _budget(budget: Budget | None, c: Certificate) -> list[Requirement]:
    if budget is None:
        return []
    cost = {name: _value(c.cost.get("student", {}).get(figure)) for name, figure in FIGURES.items()}
    if not budget.usual:
        special = c.cost.get("budget", {})
        alike = all(_value(special.get(name)) == getattr(budget, name) for name in CALLS)
        cost |= {name: _value(special.get(FIGURES[name])) if alike else None for name in OF_CALLS}
    return kept(budget.hold(cost))


def _value(figure: Figure | None) -> float | None:
    return None if figure is None or figure.value is None or not math.isfinite(figure.value) else figure.value


def _notes(asked: list[Requirement], require: Require | None, c: Certificate) -> list[str]:
    """What was chosen when the answers could be known already."""
    notes = []
    claimed = c.claim.get("margin")
    if require is not None and require.margin is not None and require.margin != claimed:
        notes.append(f"margin changed after the test split was opened: {_margin(claimed)} was claimed, {require.margin:g} is asked")
    before = {r.what for r in c.requirements}
    late = [r.what for r in asked if r.what not in before and not r.what.startswith(("worse by", *FIGURES))]
    notes += [f"asked for after the test split was opened: {what}" for what in late]
    return notes


def _margin(claimed: float | None) -> str:
    return "none" if claimed is None else f"{claimed:.3g}"
