"""What a search leaves in its folder: search.json, the page and the table of what was found, and the winner's recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attar.cost import machine
from attar.files import write_atomic
from attar.report.search import write_leaderboard, write_search_page
from attar.searched import Arm, Searched, Trial
from attar.verbs.search.beginning import Begun
from attar.verbs.search.ending import Ending
from attar.verbs.search.importances import importances
from attar.verbs.search.pricing import Prices
from attar.verbs.search.rungs import Rungs
from attar.verbs.search.storage import shown
from attar.verbs.search.study import Told

__all__ = ["Elsewhere", "leave", "ship", "tell", "trials_of"]


class Elsewhere(Exception):
    """Another worker of the study has its final; the message says where the result is, or will be. Nothing went wrong."""


def trials_of(told: Mapping[Arm, Sequence[Told]]) -> list[Trial]:
    """The trials of all arms."""
    return [each.trial for arm in told for each in told[arm]]


def leave(
    begun: Begun,
    told: Mapping[Arm, Sequence[Told]],
    ending: Ending,
    prices: Prices | None,
    *,
    epochs: int,
    seconds: Mapping[str, float],
    workers: int,
    notes: Sequence[str],
) -> Searched:
    """search.json, of what is known by now. epochs: of one trial. seconds: by part."""
    trials, better = trials_of(told), begun.better
    student = told.get("student", [])
    log = [hole.name for hole in begun.spaces.holes("student") if hole.log]
    found = Searched(
        metric=begun.metric,
        better=better,
        bounds=begun.bounds,
        margin=begun.margin,
        teacher=ending.teacher,
        trials=tuple(trials),
        finalists=ending.finalists,
        competitors=ending.competitors,
        curve=ending.curve,
        pricing=prices.pricings if prices is not None else (),
        winner=ending.winner,
        recommendation=ending.words,
        notes=tuple(dict.fromkeys([*notes, *ending.notes, *_counted(trials)])),
        correlations=Rungs(epochs).correlations(student, better) if student else (),
        seconds=seconds,
        workers=workers,
        rows={name: len(split) for name, split in begun.data.splits.items()}
        | {"half A": len(begun.halves.first.valid), "half B": len(begun.halves.second)},
        data=begun.data.fingerprint,
        machine=machine() if prices is None else prices.where,
        importances=importances(trials, better, log=log) if ending.finalists else {},
        recipe=begun.text,
        study=_named(begun),
    )
    found.write(begun.out / "search.json")
    return found


def tell(found: Searched, out: Path) -> None:
    """The page and the table of what was found."""
    write_search_page(found, out)
    write_leaderboard(found, out)


def ship(begun: Begun, told: Mapping[Arm, Sequence[Told]], winner: int | None) -> None:
    """winner.yaml: the recipe at the winner's point, without spaces."""
    out = begun.out
    trial = next((t for t in trials_of(told) if t.number == winner and t.arm == "student"), None)
    if trial is None:
        (out / "winner.yaml").unlink(missing_ok=True)
        return
    head = f"# The student that the search in {out.name} recommends: trial {trial.number}; paths are relative to this folder."
    lines = begun.said(begun.spaces.recipe.at(trial.point)).splitlines()
    write_atomic(out / "winner.yaml", "\n".join([head, *(line for line in lines if not line.startswith("#"))]) + "\n")


def _named(begun: Begun) -> str:
    """The study as optuna-dashboard opens it: relative to the folder where it lies there, never with a password."""
    study = str(begun.place.where)
    if study == str(begun.out / "study.db"):
        return "sqlite:///study.db"
    text = shown(study)
    if "://" in text:
        return text
    path = Path(text).resolve()
    return str(path) if path.suffix == ".journal" else f"sqlite:///{path}"


def _counted(trials: Sequence[Trial]) -> list[str]:
    """How many candidates went which way, where that is not plain training."""
    count = {state: sum(trial.state == state for trial in trials) for state in ("dear", "stopped", "failed")}
    said = {
        "dear": "candidates were dropped before training, for their price",
        "stopped": "candidates stopped at a rung, behind the others of their batch",
        "failed": "candidates failed",
    }
    why = next((f", such as: {trial.why}" for trial in trials if trial.state == "failed"), "")
    return [f"{number:,} {said[state]}{why * (state == 'failed')}" for state, number in count.items() if number]
