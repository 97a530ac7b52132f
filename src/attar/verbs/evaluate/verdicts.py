"""What may be said: no worse than the teacher? better than each control? what was required? Or how much evidence is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from scipy import special
from torch import Tensor

from attar.certificate import Answer, Figure, Require, Requirement, Verdict, digits, metric_name, signed
from attar.cost import Budget, Cost, Limit
from attar.statistics import Effect, non_inferiority, paired_proportions
from attar.statistics.tests import FEWEST_SEEDS
from attar.task import Task
from attar.verbs.evaluate.models import TEACHER, Judged, Model, Rows, Who, arms_of
from attar.verbs.evaluate.scoring import STUDENT, Drawn, discordant, effect

__all__ = ["against", "helped", "kept", "non_inferior", "required", "requirements"]

CONTROLS = {
    "labels": "the same student trained on labels alone",
    "smooth": "the same student trained on smoothed labels",
    "hard": "the same student trained on the teacher's decisions alone",
    "shuffled": "the same student trained on shuffled teacher answers",
}
AFAR, REACH = 100, 100_000  # rows beyond so many times those there are, and beyond so many, nobody will collect

MET: Mapping[Answer, Literal["met", "not met", "insufficient evidence"]] = {
    "yes": "met",
    "no": "not met",
    "helped": "met",
    "no difference": "not met",
    "hurt": "not met",
    "insufficient evidence": "insufficient evidence",
}


def non_inferior(
    draws: Drawn,
    models: Mapping[Who, Model],
    answers: Mapping[Who, Tensor],
    rows: Rows,
    judged: Judged,
    task: Task,
    margin: float,
    fidelity: Mapping[str, Figure],
) -> Verdict:
    """Whether the file that ships is no worse than the teacher, by one-sided 95 % bounds over rows."""
    metric, better = task.metric, task.better(task.metric)
    name = metric_name(metric)
    if not draws:
        return Verdict("insufficient evidence", _without_labels(task, fidelity), margin=margin)
    ours, theirs = draws[judged.who, metric], draws[TEACHER, metric]
    difference = (ours - theirs) * better
    if math.isnan(difference.value) or math.isnan(difference.se):
        why = f"{name} cannot be computed on {rows.n:,} labelled test rows; is every class among them?"
        return Verdict("insufficient evidence", f"INSUFFICIENT EVIDENCE: {why}", margin=margin)
    low, high, se, how = difference.quantile(0.05), difference.quantile(0.95), difference.se, "paired BCa bootstrap over rows"
    if metric == "accuracy" and (counts := discordant(models, answers, rows, judged.who)) is not None:
        low, high = paired_proportions(*counts, rows.n, level=0.90)
        se, how = (high - low) / (2 * float(special.ndtri(0.95))), "paired score interval (Tango)"
    found = non_inferiority(difference.value, low, high, se, margin=margin, rows=rows.n)
    rests = Figure.of(difference.value, low, high, n=rows.n, how=f"{how}; one-sided bounds at 95 %")
    facts = f"{name} {digits(ours.value)}, the teacher's {digits(theirs.value)}"
    bound = f"with 95 % confidence it is worse by no more than {digits(max(0.0, -low))}"
    if found.answer == "yes":
        text = f"NON-INFERIOR to the teacher: {facts}; {bound} (margin {margin:.3g})"
    elif found.answer == "no":
        text = f"INFERIOR to the teacher: {facts}; with 95 % confidence it is worse by {digits(-high)} or more (margin {margin:.3g})"
    else:
        if se == 0:
            bound = f"no resample of {rows.n:,} rows tells them apart"
        text = f"INSUFFICIENT EVIDENCE that the student is non-inferior to the teacher: {facts}; {bound} (margin {margin:.3g}). "
        text += _more(found.rows_needed, None, rows.n)
        equal = found.rows_if_equal
        if equal is not None and equal != found.rows_needed and equal <= _reach(rows.n):
            text += f" If both are in truth equally good, about {equal:,} rows would show it."
    return Verdict(found.answer, text, rests, margin, found.rows_needed)


def against(draws: Drawn, models: Mapping[Who, Model], rows: Rows, task: Task, margin: float) -> dict[str, Verdict]:
    """Whether the procedure beats each control, over seeds and rows together."""
    arms = arms_of(models)
    if not draws or STUDENT not in arms:
        return {}
    verdicts = {}
    for arm, seeds in arms.items():
        if arm == STUDENT:
            continue
        found = effect(arms[STUDENT], seeds, draws, task.metric, rows, task, better=task.better(task.metric), margin=margin)
        rests = Figure.of(found.difference, found.low, found.high, n=found.seeds, how="paired by seeds and rows; t over seeds and rows")
        sentence = _against(found, metric_name(task.metric), CONTROLS.get(arm, f"the control {arm!r}"), task.better(task.metric))
        verdicts[arm] = Verdict(found.answer, sentence, rests, margin, found.rows_needed, found.seeds_needed)
    return verdicts


def helped(each: Mapping[str, Verdict], labelled: bool) -> Verdict:
    """The procedure against all its controls: it helped only if it beats each one. labelled: whether a test row has a label.

    Where it makes no difference to one of them it cannot have helped any more, however much the evidence on others grows.
    """
    if not each:
        why = "no test row has a label" if not labelled else "no control was trained beside the student"
        return Verdict("insufficient evidence", f"INSUFFICIENT EVIDENCE that distillation helped: {why}")
    order: tuple[Answer, ...] = ("hurt", "no difference", "insufficient evidence", "helped")
    worst = min(each.values(), key=lambda v: (order.index(v.answer), v.lowest))
    decisive = [v for v in each.values() if v.answer == worst.answer]
    rows = [v.rows_needed for v in decisive if v.rows_needed is not None]
    seeds = [v.seeds_needed for v in decisive if v.seeds_needed is not None]
    return Verdict(
        worst.answer,
        " ".join(v.sentence if v.sentence.endswith(".") else f"{v.sentence}." for v in decisive) if len(decisive) > 1 else worst.sentence,
        worst.difference,
        worst.margin,
        max(rows) if rows else None,
        max(seeds) if seeds else None,
    )


def requirements(
    require: Require | None,
    budget: Budget | None,
    noninferior: Verdict,
    helps: Verdict,
    fidelity: Mapping[str, Figure],
    cost: Cost,
    labelled: bool,
) -> tuple[Requirement, ...]:
    """What was asked for, held against what was found; nothing where nothing was asked for.

    labelled: whether a test row has a label. Where none has, and agreement alone is asked for, no margin is meant.
    """
    found = required(require, noninferior, helps, fidelity, labelled) if require is not None else []
    return (*found, *kept(budget.check(cost) if budget is not None else ()))


def required(require: Require, noninferior: Verdict, helps: Verdict, fidelity: Mapping[str, Figure], labelled: bool) -> list[Requirement]:
    """What `require` asks for; arguments as of `requirements`."""
    found = []
    if labelled or require.margin is not None or require.min_agreement is None:
        found.append(Requirement(f"worse by less than {noninferior.margin:.3g}", MET[noninferior.answer], ""))
    if require.min_agreement is not None:
        found.append(_agreement(require.min_agreement, fidelity["agreement"]))
    if require.helped:
        found.append(Requirement("distillation helped", MET[helps.answer], ""))
    return found


def kept(limits: Iterable[Limit]) -> list[Requirement]:
    """The lines of a budget as requirements."""
    found = []
    for limit in limits:
        what = f"{limit.name} {limit.sign} {limit.limit:g}"
        if limit.value is None:
            found.append(Requirement(what, "insufficient evidence", "It could not be measured here."))
        else:
            found.append(Requirement(what, "met" if limit.ok else "not met", f"It is {limit.value:.3g}."))
    return found


def _without_labels(task: Task, fidelity: Mapping[str, Figure]) -> str:
    """The one claim that needs no label: how like the teacher the student answers."""
    figure = fidelity[task.alike_by]
    text = "INSUFFICIENT EVIDENCE: no test row has a label, so that nobody knows how good student and teacher are"
    if figure.value is None:
        return text
    low, high = (digits(end) if end is not None else "unknown" for end in (figure.low, figure.high))
    what = {
        "agreement": f"both decide alike in {digits(figure.value)} of cases [{low}, {high}]",
        "root_mean_square_distance": f"their numbers are {digits(figure.value)} apart, root mean square [{low}, {high}]",
        "similarity_correlation": f"the cosines of both are rank-correlated by {digits(figure.value)} [{low}, {high}]",
    }[task.alike_by]
    return f"{text}; {what}"


def _agreement(least: float, agreement: Figure) -> Requirement:
    if agreement.value is None:  # rows of weight 0 alone
        return Requirement(f"agreement ≥ {least:g}", "insufficient evidence", "It could not be computed.")
    low, high = agreement.low if agreement.low is not None else 0.0, agreement.high if agreement.high is not None else 1.0
    sentence = f"It is {agreement.value:.4f} [{low:.4f}, {high:.4f}]."
    answer = "met" if low >= least else "not met" if high < least else "insufficient evidence"
    return Requirement(f"agreement ≥ {least:g}", answer, sentence)


def _against(found: Effect, name: str, control: str, better: float) -> str:
    """better: −1 for a metric of which less is better, whose difference is told as the tables tell it."""
    low, high = sorted((better * found.low, better * found.high))
    interval = f" [{signed(low).strip()}, {signed(high).strip()}]" if math.isfinite(high - low) else ""
    seeds = f"{found.seeds} seed{'s' if found.seeds != 1 else ''}"
    facts = f"{name} {signed(better * found.difference).strip()}{interval} over {control} ({seeds})"
    if found.answer == "helped":
        return f"DISTILLATION HELPED: {facts}"
    if found.answer == "hurt":
        return f"DISTILLATION HURT: {facts}"
    if found.answer == "no difference":
        return f"NO DIFFERENCE by distillation, within {found.margin:.3g}: {facts}"
    few = f"Fewer than {FEWEST_SEEDS} seeds decide nothing. " if found.seeds < FEWEST_SEEDS else ""
    return f"INSUFFICIENT EVIDENCE that distillation helped: {facts}. {few}{_more(found.rows_needed, found.seeds_needed, found.rows)}"


def _reach(have: int) -> int:
    return max(AFAR * have, REACH)


def _more(rows: int | None, seeds: int | None, have: int) -> str:
    """What would suffice, as a sentence."""
    asked = []
    if seeds is not None:
        asked.append(f"{seeds:,} seeds")
    if rows is not None:
        asked.append(f"{rows:,} labelled test rows (there are {have:,})")
    if not asked:
        return "No number of rows is known that would suffice."
    if rows is not None and rows > _reach(have):
        return f"The difference seen lies so near the bound that no number of rows in reach would decide it (there are {have:,})."
    return f"About {' and '.join(asked)} would decide it if the difference stays as seen."
