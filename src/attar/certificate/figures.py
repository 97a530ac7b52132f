"""Figures and verdicts, and how they are written: the words in which everything in a certificate is said."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "Answer",
    "Figure",
    "Verdict",
    "digits",
    "interval",
    "metric_name",
    "number",
    "shortened",
    "signed",
    "signed_figure",
    "size",
    "span",
    "visible",
]

# A name from data may hold what a terminal obeys: the pictures of these signs stand for them, each as wide as one letter.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
_PICTURES |= dict.fromkeys((*range(128, 160), *range(8234, 8239), *range(8294, 8298), 65534, 65535), 65533)

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

    def turned(self, better: int) -> Figure:
        """The figure with its sign and its ends changed where less is better (−1): "more is better" and the metric's own sign, to and fro.

        >>> Figure(0.5, 0.25, 1.0).turned(-1)
        Figure(value=-0.5, low=-1.0, high=-0.25, unit='', n=0, how='')
        """
        if better > 0:
            return self
        value, low, high = (None if x is None else -x for x in (self.value, self.high, self.low))
        return replace(self, value=value, low=low, high=high)


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

    @property
    def lowest(self) -> float:
        """The lower end of what it rests on, or the value itself where that has no interval; 0 where it rests on nothing."""
        d = self.difference
        known = [x for x in (d.low, d.value) if x is not None] if d is not None else []
        return known[0] if known else 0.0


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


def visible(text: str) -> str:
    """The text with a sign for each control character and each one that turns the direction of writing; lines stay lines.

    >>> visible("\\x1b[2J red")
    '␛[2J red'
    """
    return text.translate(_PICTURES)


def metric_name(metric: str) -> str:
    """What people call a figure: "auroc" → "AUROC"."""
    return _NAMES.get(metric, metric.replace("_", " "))


def number(figure: Figure) -> str:
    return "-" if figure.value is None else digits(figure.value)


def digits(value: float) -> str:
    """Four decimals of a share; four significant digits of anything larger; - for what is no number."""
    if not math.isfinite(value):
        return "-"
    if abs(value) < 10:
        return f"{round(value, 4) or 0.0:.4f}"  # nothing has no sign
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def interval(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    text = signed(figure.value)
    return text if figure.low is None or figure.high is None else f"{text} [{signed(figure.low).strip()}, {signed(figure.high).strip()}]"


def signed(value: float) -> str:
    """`digits` with a sign; a difference that rounds to nothing has none."""
    text = digits(abs(value))
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return (sign if any(c in "123456789" for c in text) else " ") + text


def signed_figure(figure: Figure) -> str:
    return "-" if figure.value is None else signed(figure.value)


def shortened(text: str, width: int) -> str:
    """The text in so many characters, with … at its end where some are cut off.

    >>> shortened("a long name", 8), shortened("short", 8)
    ('a long …', 'short')
    """
    return text if len(text) <= width else text[: width - 1] + "…"


def span(figure: Figure) -> str:
    return "" if figure.low is None or figure.high is None else f"[{digits(figure.low)}, {digits(figure.high)}]"


def size(figure: Figure) -> str:
    """Three significant digits; a ratio with its ×."""
    if figure.value is None:
        return "-"
    v = float(figure.value)
    decimals = 0 if v == 0 or (v.is_integer() and abs(v) >= 1) else max(0, 2 - math.floor(math.log10(abs(v))))
    return f"{v:,.{decimals}f}" + ("×" if figure.unit == "×" else "")
