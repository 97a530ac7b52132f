"""Certificate: what was found about a student, as named figures with intervals and verdicts; JSON, and text for a terminal."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attar.errors import EvidenceError
from attar.files import write_json
from attar.notation import say

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "MARGIN",
    "MARGIN_SHARE",
    "SCHEMA_VERSION",
    "Answer",
    "Certificate",
    "Figure",
    "Quality",
    "Require",
    "Requirement",
    "Shifted",
    "Verdict",
    "digits",
    "metric_name",
    "require",
    "signed",
]

SCHEMA_VERSION = 2  # of certificate.json; raised whenever the meaning of a field changes, or a field comes or goes
MARGIN = 0.005  # of a share (accuracy, AUROC, R² …); half a point is what the owners of such models call the same
MARGIN_SHARE = 0.01  # of the teacher's own figure, for an error that has a unit (RMSE, MAE)

Answer = Literal["yes", "no", "helped", "no difference", "hurt", "insufficient evidence"]


@dataclass(frozen=True)
class Figure:
    """A number, and how far it may be off.

    value: None where it cannot be computed from these rows. low, high: 95 % interval; None where there is none.
    unit: "" for a share or a plain number. n: rows, calls or seeds behind it. how: where value and interval come from.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    n: int = 0
    how: str = ""

    @classmethod
    def of(cls, value: float, low: float = math.nan, high: float = math.nan, *, unit: str = "", n: int = 0, how: str = "") -> Figure:
        """A figure from plain floats, in which NaN and infinity mean that there is none."""
        return cls(*(float(x) if math.isfinite(x) else None for x in (value, low, high)), unit=unit, n=n, how=how)


@dataclass(frozen=True)
class Verdict:
    """The answer to one question, in a word and in a sentence.

    difference: what it rests on, more is better; its interval is the one that decided.
    margin: how much worse counts as no worse; and as no difference.
    rows_needed, seeds_needed: what would suffice where the evidence does not; None where nobody can say or nothing is needed.
    """

    answer: Answer
    sentence: str
    difference: Figure | None = None
    margin: float | None = None
    rows_needed: int | None = None
    seeds_needed: int | None = None


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
    """

    kind: str
    data: str
    rows: int
    labelled: int
    left_out: int
    quality: Mapping[str, Quality]
    fidelity: Mapping[str, Figure]
    lost: Mapping[str, Figure]


@dataclass(frozen=True)
class Requirement:
    """One thing that was asked for with `require` or `budget`, and whether it is so."""

    what: str
    answer: Literal["met", "not met", "insufficient evidence"]
    sentence: str


@dataclass(frozen=True)
class Require:
    """What must be so for a run to end well. See `require`."""

    margin: float | None = None
    min_agreement: float | None = None
    helped: bool = False

    def __repr__(self) -> str:
        return say("require", margin=self.margin, min_agreement=self.min_agreement, helped=True if self.helped else None)


def require(margin: float | None = None, min_agreement: float | None = None, helped: bool = False) -> Require:
    """What must be shown, at 95 % confidence, or the run ends with exit code 3.

    margin: the student's primary metric is at most so much worse than the teacher's, in the metric's unit. None is 0.005; of an error
        with a unit (rmse, mae) 1 % of the teacher's.
    min_agreement: student and teacher decide alike on at least this share of rows, 0..1; None asks for nothing.
    helped: the procedure beats every control that was trained.

    >>> require(margin=0.005)
    require(margin=0.005)
    """
    if margin is not None and not (margin > 0 and math.isfinite(margin)):
        raise EvidenceError(f"margin={margin:g}: no number of rows can show that two models differ by nothing", hint="margin=0.005")
    if min_agreement is not None and not 0 < min_agreement < 1:
        raise EvidenceError(f"min_agreement={min_agreement:g} is not between 0 and 1", hint="min_agreement=0.95")
    return Require(margin, min_agreement, helped)


@dataclass(frozen=True, repr=False)
class Certificate:
    """What was found about the student that ships. `str` is the text for a terminal, `write` the JSON.

    identity: what was judged: fingerprints, digests, versions, machine, rows, look (how often this test split has been opened).
    claim: what was fixed before the test split was opened: metric, margin, decision rule.
    non_inferior: is the file that ships no worse than the teacher? helped: did the procedure beat every control? against: each one.
    quality: by metric, the primary one first. fidelity: by name. calibration, cost: by who, then by name.
    requirements: what was asked for; empty where nothing was. limits: what was not tested. pictures: points for the page's drawings.
    shift: rows from elsewhere, by name.
    """

    identity: Mapping[str, Any]
    claim: Mapping[str, Any]
    non_inferior: Verdict
    helped: Verdict
    against: Mapping[str, Verdict]
    quality: Mapping[str, Quality]
    fidelity: Mapping[str, Figure]
    calibration: Mapping[str, Mapping[str, Figure]]
    cost: Mapping[str, Mapping[str, Figure]]
    requirements: tuple[Requirement, ...]
    limits: tuple[str, ...]
    pictures: Mapping[str, Any]
    shift: Mapping[str, Shifted] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Certificate: non-inferior {self.non_inferior.answer}, helped {self.helped.answer}>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @property
    def exit_code(self) -> int:
        """3 where something was required and is not met, or the evidence for it does not suffice; 0 otherwise."""
        return 3 if any(r.answer != "met" for r in self.requirements) else 0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dictionaries, lists, texts and numbers, with `schema_version`."""
        return {"schema_version": SCHEMA_VERSION, **_plain(self)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Certificate:
        """The certificate that `to_dict` wrote. Raises EvidenceError for another schema version or one that is not whole."""
        version = value.get("schema_version")
        if version != SCHEMA_VERSION:
            raise EvidenceError(
                f"a certificate of schema version {version!r}; this attar reads version {SCHEMA_VERSION}",
                hint="evaluate again, or read it with the attar that wrote it",
            )
        try:
            return cls(
                identity=value["identity"],
                claim=value["claim"],
                non_inferior=_verdict(value["non_inferior"]),
                helped=_verdict(value["helped"]),
                against={name: _verdict(v) for name, v in value["against"].items()},
                quality={name: _quality(q) for name, q in value["quality"].items()},
                fidelity=_figures(value["fidelity"]),
                calibration={who: _figures(v) for who, v in value["calibration"].items()},
                cost={who: _figures(v) for who, v in value["cost"].items()},
                requirements=tuple(Requirement(**r) for r in value["requirements"]),
                limits=tuple(value["limits"]),
                pictures=value["pictures"],
                shift={name: _shifted(v) for name, v in value["shift"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise EvidenceError(f"this certificate is not whole: {error}", hint="evaluate again") from error

    def write(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: str | Path) -> Certificate:
        """Read what `write` wrote. Raises EvidenceError where it is missing, damaged or of another schema version."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise EvidenceError(f"no certificate at {path}", hint="attar evaluate writes one") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise EvidenceError(f"{path} does not read: {error}", hint="evaluate again") from error
        if not isinstance(value, dict):
            raise EvidenceError(f"{path} holds a {type(value).__name__}, not a certificate", hint="evaluate again")
        return cls.from_dict(value)

    def lines(self, width: int = 80) -> list[str]:
        """The certificate as text: verdicts first, then tables, then limits; readable without colour."""
        return [text for text, _ in self._styled(width)]

    def rich(self, width: int = 80) -> RenderableType:
        """The same with colour, for a rich console."""
        from rich.text import Text

        whole = Text()
        for text, style in self._styled(width):
            whole.append(text + "\n", style=style)
        return whole

    def _styled(self, width: int) -> list[tuple[str, str]]:
        out: list[tuple[str, str]] = []

        def prose(text: str, style: str = "", mark: str = "") -> None:
            wrapped = textwrap.wrap(text, width, initial_indent=mark, subsequent_indent=" " * len(mark), break_long_words=False)
            out.extend((line, style) for line in wrapped)

        def table(lines: Iterable[str]) -> None:
            head, *rest = lines
            out.extend([("", ""), (head, "bold"), *((line, "") for line in rest)])

        prose(self.non_inferior.sentence, _STYLES[self.non_inferior.answer])
        prose(self.helped.sentence, _STYLES[self.helped.answer])
        for requirement in self.requirements:
            prose(f"{requirement.what}: {requirement.answer}. {requirement.sentence}", _STYLES[requirement.answer], "required  ")
        if self.quality:
            table(self._quality_lines())
        if self.quality and self.against:
            table(self._control_lines())
        table(self._fidelity_lines())
        if self.shift:
            for lines in self._shift_tables():
                table(lines)
        if self.calibration:
            table(self._calibration_lines())
        if self.cost:
            table(self._cost_lines())
        out.extend([("", ""), ("limits", "bold")])
        for limit in self.limits:
            prose(limit, "", "  - ")
        out.extend([("", ""), *((line, "dim") for line in self._identity_lines(width))])
        return out

    def _quality_lines(self) -> list[str]:
        rows = self.identity["rows"]
        head = f"quality on {rows['labelled']:,} test rows"
        lines = [f"{head:<30}{'teacher':>9}{'student':>9}  student − teacher [95 %]"]
        for name, q in self.quality.items():
            what = metric_name(name) + (" (primary)" if name == self.claim["metric"] else "")
            lines.append(f"  {what:<28}{_number(q.teacher):>9}{_number(q.student):>9}  {_interval(q.difference)}")
            lines.extend(
                f"    {file:<26}{'':>9}{_number(figure):>9}"
                for file, figure in q.files.items()
                if name == self.claim["metric"] and file != self.identity["student"]["file"]
            )
        return lines

    def _control_lines(self) -> list[str]:
        metric = self.claim["metric"]
        q = self.quality[metric]
        head = f"{metric_name(metric)} of the procedure"
        lines = [f"{head:<30}{'control':>9}{'student':>9}  student − control [95 %]"]
        for name, gain in q.gains.items():
            seeds = f"{name}, {gain.n} seed{'s' if gain.n != 1 else ''}"
            lines.append(f"  {seeds:<28}{_number(q.arms[name]):>9}{_number(q.arms['student']):>9}  {_interval(gain)}")
        return lines

    def _fidelity_lines(self) -> list[str]:
        lines = [f"{'fidelity to the teacher':<39}{'rows':>9}  [95 %]"]
        lines += [f"  {metric_name(name):<28}{_number(f):>9}{f.n:>9,}  {_range(f)}" for name, f in self.fidelity.items()]
        return lines

    def _shift_tables(self) -> Iterator[list[str]]:
        """Quality elsewhere beside that at home, what is lost, and likeness to the teacher."""
        metric = self.claim["metric"]
        judged = {name: s.quality[metric] for name, s in self.shift.items() if metric in s.quality}
        if judged and metric in self.quality:
            lines = [f"{'elsewhere, ' + metric_name(metric):<26}{'rows':>8}{'teacher':>9}{'student':>9}  student − teacher [95 %]"]
            counts = {"at home": self.identity["rows"]["labelled"], **{name: self.shift[name].labelled for name in judged}}
            for name, q in {"at home": self.quality[metric], **judged}.items():
                numbers = f"{counts[name]:>8,}{_number(q.teacher):>9}{_number(q.student):>9}"
                lines.append(f"  {shortened(name, 24):<24}{numbers}  {_interval(q.difference)}")
                for arm, figure in q.arms.items():
                    if arm != "student":
                        lines.append(f"    {shortened('control ' + arm, 22):<22}{'':>8}{'':>9}{_number(figure):>9}  before export")
            yield lines
            head = f"{'lost against home':<34}{'teacher':>9}{'student':>9}  student − teacher [95 %]"
            lost = {name: self.shift[name].lost for name in judged}
            yield [
                head,
                *(
                    f"  {shortened(name, 32):<32}{_signed(f['teacher']):>9}{_signed(f['student']):>9}  {_interval(f['difference'])}"
                    for name, f in lost.items()
                ),
            ]
        first = next(iter(self.fidelity), None)
        if first is not None:
            lines = [f"{'elsewhere, ' + metric_name(first):<39}{'rows':>9}  [95 %]"]
            for name, figures in {"at home": self.fidelity, **{name: s.fidelity for name, s in self.shift.items()}}.items():
                f = figures[first]
                lines.append(f"  {shortened(name, 28):<28}{_number(f):>9}{f.n:>9,}  {_range(f)}")
            yield lines

    def _calibration_lines(self) -> list[str]:
        return self._columns("calibration", self.calibration, _number)

    def _cost_lines(self) -> list[str]:
        shown = {who: self.cost[who] for who in ("teacher", "student", "ratio") if who in self.cost}
        return self._columns("cost on one thread", shown, _size)

    def _columns(self, head: str, columns: Mapping[str, Mapping[str, Figure]], write: Callable[[Figure], str]) -> list[str]:
        """One line for each figure, one column for each of those who have it."""
        lines = [f"{head:<32}" + "".join(f"{who:>16}" for who in columns)]
        for name in dict.fromkeys(name for who in columns.values() for name in who):
            figures = [who.get(name) for who in columns.values()]
            unit = next((f.unit for f in figures if f and f.unit and f.unit != "×"), "")
            what = metric_name(name) + (f", {unit}" if unit else "")
            lines.append(f"  {what:<30}" + "".join(f"{write(f) if f else '':>16}" for f in figures))
        return lines

    def _identity_lines(self, width: int) -> list[str]:
        i = self.identity
        look = f"look {i['look']} at this test split" if i["look"] else "this look at the test split was not counted"
        facts = (
            ("task", f"{i['task']}; decides {self.claim['decision']}"),
            ("teacher", f"{i['teacher']['text']} {i['teacher']['fingerprint'][:12]}"),
            ("student", f"{i['student']['text']} {i['student']['fingerprint'][:12]}"),
            ("data", f"{i['data'][:12]}; {look}"),
            ("attar", f"{i['versions']['attar']} on {i['machine']}"),
        )
        lines: list[str] = []
        for name, text in facts:
            lines += textwrap.wrap(text, width, initial_indent=f"{name:<10}", subsequent_indent=" " * 10, break_long_words=True)
        return lines


_STYLES: dict[str, str] = {
    "yes": "bold green",
    "helped": "bold green",
    "met": "green",
    "no": "bold red",
    "hurt": "bold red",
    "not met": "red",
    "no difference": "bold",
    "insufficient evidence": "bold yellow",
}
_NAMES = {
    "agreement_teacher_positive": "  where it says positive",
    "agreement_teacher_right": "  where the teacher is right",
    "agreement_teacher_wrong": "  where the teacher is wrong",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "cka": "linear CKA",
    "mean_cosine": "mean cosine with its vector",
    "neighbour_overlap": "10 nearest texts in common",
    "pearson": "correlation",
    "recall_at_k": "recall at k",
    "reciprocal_rank": "mean reciprocal rank",
    "similarity_correlation": "rank correlation of cosines",
    "batch_ms": "256 rows, median",
    "brier": "Brier score",
    "ece": "ECE, 15 bins of equal width",
    "ece_mass": "ECE, 15 bins of equal mass",
    "kappa": "Cohen's κ",
    "kl": "mean KL(teacher ‖ student)",
    "latency_p50_ms": "one row, median",
    "latency_p95_ms": "one row, 95th percentile",
    "log_loss": "log-loss, nats",
    "mae": "MAE",
    "memory_mb": "working memory, 256 rows",
    "r2": "R²",
    "recall_at_fpr": "recall at the rule",
    "rmse": "RMSE",
    "rows_per_second": "rows a second",
    "size_mb": "file",
    "spearman": "rank correlation",
}


def metric_name(metric: str) -> str:
    """What people call a figure: "auroc" → "AUROC"."""
    return _NAMES.get(metric, metric.replace("_", " "))


def _number(figure: Figure) -> str:
    return "-" if figure.value is None else digits(figure.value)


def digits(value: float) -> str:
    """Four decimals of a share; four significant digits of anything larger; - for what is no number."""
    if not math.isfinite(value):
        return "-"
    if abs(value) < 10:
        return f"{round(value, 4) or 0.0:.4f}"  # nothing has no sign
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def _interval(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    text = signed(figure.value)
    return text if figure.low is None or figure.high is None else f"{text} [{signed(figure.low)}, {signed(figure.high)}]"


def signed(value: float) -> str:
    """`digits` with a sign; a difference that rounds to nothing has none."""
    text = digits(abs(value))
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return (sign if any(c in "123456789" for c in text) else " ") + text


def _signed(figure: Figure) -> str:
    return "-" if figure.value is None else signed(figure.value)


def shortened(text: str, width: int) -> str:
    """The text in so many characters, with … at its end where some are cut off.

    >>> shortened("a long name", 8), shortened("short", 8)
    ('a long …', 'short')
    """
    return text if len(text) <= width else text[: width - 1] + "…"


def _range(figure: Figure) -> str:
    return "" if figure.low is None or figure.high is None else f"[{digits(figure.low)}, {digits(figure.high)}]"


def _size(figure: Figure) -> str:
    """Three significant digits; a ratio with its ×."""
    if figure.value is None:
        return "-"
    v = float(figure.value)
    decimals = 0 if v == 0 or (v.is_integer() and abs(v) >= 1) else max(0, 2 - math.floor(math.log10(abs(v))))
    return f"{v:,.{decimals}f}" + ("×" if figure.unit == "×" else "")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _figures(value: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: Figure(**figure) for name, figure in value.items()}


def _verdict(value: Mapping[str, Any]) -> Verdict:
    difference = value["difference"]
    return Verdict(**{**value, "difference": None if difference is None else Figure(**difference)})


def _shifted(value: Mapping[str, Any]) -> Shifted:
    quality = {name: _quality(q) for name, q in value["quality"].items()}
    return Shifted(**{**value, "quality": quality, "fidelity": _figures(value["fidelity"]), "lost": _figures(value["lost"])})


def _quality(value: Mapping[str, Any]) -> Quality:
    return Quality(
        better=value["better"],
        teacher=Figure(**value["teacher"]),
        student=Figure(**value["student"]),
        difference=Figure(**value["difference"]),
        files=_figures(value["files"]),
        arms=_figures(value["arms"]),
        gains=_figures(value["gains"]),
        seeds={name: tuple(math.nan if x is None else x for x in v) for name, v in value["seeds"].items()},
    )
