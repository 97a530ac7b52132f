"""How well everyone answers, at home and on rows from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attar.certificate.figures import Figure
from attar.certificate.label_free import LabelFree

__all__ = ["Quality", "Shifted"]


@dataclass(frozen=True)
class Quality:
    """One metric for everyone.

    better: +1 where more is better, −1 where less is.
    student: of the certified file; difference: student − teacher, paired by rows. files: of every exported graph.
    arms: before export, by name of the arm ("student" and its controls): the mean over seeds, whose single values are `seeds`.
    gains: by control: student arm − control, paired by seeds and rows.
    """

    better: int
    teacher: Figure
    student: Figure
    difference: Figure
    files: Mapping[str, Figure] = field(default_factory=dict)
    arms: Mapping[str, Figure] = field(default_factory=dict)
    gains: Mapping[str, Figure] = field(default_factory=dict)
    seeds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shifted:
    """Rows from elsewhere that were asked the same questions as the test rows.

    kind: "data", another data set. data: its fingerprint. rows: how many; labelled: of them with a label; left_out: rows that student or
    teacher had learned from, which are not among them.
    quality, fidelity: as of the certificate. lost: how much worse it is here than at home, more is worse: of the primary metric by who
    ("teacher", "student", and "difference", how much more the student loses), and the primary figure of fidelity by its name.
    label_free: the student's accuracy as it is told without these rows' labels; None where that is not known how to.
    """

    kind: str
    data: str
    rows: int
    labelled: int
    left_out: int
    quality: Mapping[str, Quality]
    fidelity: Mapping[str, Figure]
    lost: Mapping[str, Figure]
    label_free: LabelFree | None = None
