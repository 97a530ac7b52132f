"""A search from end to end on few rows, and its parts: batches, rungs, halves, the verdict."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import attar
import attar.verbs.search.ending as ending
from attar import cohort
from attar.certificate import Figure
from attar.errors import DataError, EvidenceError, RunError
from attar.loop import Fit, Stopped
from attar.objective import blend, kl, labels
from attar.objective.turning import knobs, turned
from attar.progress import Event, Listener
from attar.recipe import load, of_texts
from attar.searched import Finalist, Priced, Searched, Trial
from attar.statistics import Draws
from attar.testing.small import small_table
from attar.verbs.annotate import annotate
from attar.verbs.distill.processes import shared
from attar.verbs.evaluate.models import Model
from attar.verbs.search import Elsewhere, SearchJob, pricing, search_job
from attar.verbs.search.beginning import claim
from attar.verbs.search.competitors import LABELS
from attar.verbs.search.design import Spaces
from attar.verbs.search.final import Final
from attar.verbs.search.protocol import Drawn, Second, chosen, finalists_of, halved, same_deal
from attar.verbs.search.rungs import ENOUGH, Rungs
from attar.verbs.search.storage import Ledger, open_study, tried
from attar.verbs.search.study import Told
from attar.verbs.search.training import Candidate, Classroom
from attar.verbs.search.worker import Worker, over

STUDENT = "mlp(width=choice(4, 8), depth=1)"
OBJECTIVE = "blend(kl(temperature=log(1, 8)), labels(), weight=between(0.5, 1))"
FIT = "fit(epochs=4, lr=log(1e-3, 2e-2), seeds=1)"


def rows(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] + 0.5 * rng.normal(size=count) > 0).astype(np.int64)


def asked(out: Path, **changes: Any) -> Searched:
    parts: dict[str, Any] = {
        "teacher": attar.taught(attar.lightgbm(trees=10), at="teacher.txt"),
        "student": STUDENT,
        "data": attar.data.arrays(*rows(), valid=0.3),
        "objective": OBJECTIVE,
        "fit": FIT,
        "trials": 6,
        "out": out,
        **changes,
    }
    return attar.search(**parts)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "MEASURED", 0.02)
    monkeypatch.setattr(pricing, "SECONDS", 0.02)


# ---- from end to end


def test_a_search_recommends_a_student_and_leaves_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by, them = list[set[int]](), ending.beside

    def beside(teacher: Any, data: Any, task: Any, rows: Any, **how: Any) -> Any:
        by[:] = [set(data.valid.ids.tolist()), set(rows.ids.tolist())]
        return them(teacher, data, task, rows, **how)

    monkeypatch.setattr(ending, "beside", beside)
    found = asked(tmp_path / "search")
    assert len(by[0]) == found.rows["half A"] and not by[0] & by[1]  # the rows that fix thresholds and temperatures judge nobody
    labels = next(each for each in found.finalists if each.arm == "labels")
    alone = next(each for each in found.competitors if each.name == LABELS)
    assert (alone.score, alone.difference, alone.price) == (labels.score, labels.difference, labels.price)
    arms = [trial.arm for trial in found.trials if trial.state in ("trained", "stopped")]
    assert arms.count("student") == arms.count("labels") == 6  # the control is searched as long
    assert {each.arm for each in found.finalists} == {"student", "labels"}
    assert all(len(each.scores) == 5 and each.price.measured for each in found.finalists)
    assert found.winner in {each.trial for each in found.finalists if each.arm == "student"}
    assert found.rows["half A"] + found.rows["half B"] == found.rows["valid"]
    for each in found.finalists:  # one file on the test rows is less certain than the mean of the design
        (least, most), told = (each.score.low, each.score.high), each.predicted
        assert told is not None and told.n == found.rows["test"] and "one exported file" in told.how
        assert None not in (least, most, told.low, told.high)
        assert told.high == 1 or (told.high or 0) - (told.low or 0) > (most or 0) - (least or 0) > 0
    assert Searched.read(tmp_path / "search" / "search.json").trials == found.trials
    winner = next(trial for trial in found.trials if trial.arm == "student" and trial.number == found.winner)
    built = load(tmp_path / "search" / "winner.yaml", keys=("student", "objective"))
    assert repr(built.value("student", tmp_path)) == winner.student
    assert repr(built.value("objective", tmp_path)) == winner.objective


def test_a_search_that_was_stopped_goes_on_and_counts_no_trial_twice(tmp_path: Path) -> None:
    out, heard = tmp_path / "search", list[Event]()

    def stop(event: Event) -> None:
        heard.append(event)
        if event.stage == "search" and sum(each.stage == "search" for each in heard) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        asked(out, listen=stop)
    kept = Searched.read(out / "search.json")
    assert kept.trials and kept.seconds["training"] > 0 and kept.winner is None
    assert len((out / "leaderboard.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(kept.trials)
    assert "The search has not come to its end" in (out / "search.html").read_text(encoding="utf-8")
    assert str(out / "search.html") in heard[-1].text
    with pytest.raises(RunError, match="never overwritten"):
        asked(out)
    with pytest.raises(RunError, match="another recipe"):
        asked(out, resume=True, student="mlp(width=choice(4, 16), depth=1)")
    before = (out / "search.json").read_bytes()
    with pytest.raises(RunError, match=r"dealt by seed 0, and seed 3 deals others"):
        asked(out, resume=True, seed=3)
    assert (out / "search.json").read_bytes() == before
    (out / "search.json").write_bytes(before[:100])  # damaged: the study has the trials
    said = list[Event]()
    found = asked(out, resume=True, listen=said.append)
    assert any("search.json does not read" in event.text for event in said)
    assert sum(trial.arm == "student" for trial in found.trials) == 6
    assert len({(trial.arm, trial.number) for trial in found.trials}) == len(found.trials)
    before = (out / "search.json").read_bytes()

    def refuse(event: Event) -> None:
        if event.stage == "training":
            raise RunError("the study is another's")

    with pytest.raises(RunError, match="another's"):
        asked(out, resume=True, listen=refuse)
    assert (out / "search.json").read_bytes() == before, "what was found stays until the study is read"


def test_what_was_refused_before_any_trial_leaves_the_folder_to_the_corrected_recipe(tmp_path: Path) -> None:
    out, data = tmp_path / "search", attar.data.arrays(*rows(), valid=0.3)
    with pytest.raises(RunError, match="none of 2 students drawn from the space keeps"):
        asked(out, data=data, budget=attar.budget(parameters=3))
    teacher, before = out / "teacher.txt", (out / "teacher.txt").read_bytes()
    said: list[Event] = []

    def stop(event: Event) -> None:
        said.append(event)
        if event.stage == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(out, data=data, student="mlp(width=choice(4, 16), depth=1)", listen=stop)  # and without --resume
    assert not multiprocessing.active_children(), "nothing is measured on beside a search that has ended"
    assert teacher.read_bytes() == before
    changed = next(event.text for event in said if event.stage == "recipe")
    assert "student: was" in changed and "budget: was" in changed


def test_a_budget_that_nothing_keeps_is_told_before_a_teacher_is_taught(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="the exported identity function alone takes"):
        asked(tmp_path / "search", budget=attar.budget(latency_ms=1e-6))
    assert not (tmp_path / "search").exists()


def test_a_study_without_trials_is_of_nothing_yet_and_whoever_claims_first_says_of_what(tmp_path: Path) -> None:
    where, goals = tmp_path / "study.db", ["minimize"]
    assert not tried(where)
    with open_study(where, {"recipe": "one"}, goals) as late:
        with open_study(where, {"recipe": "two"}, goals) as first:
            assert not tried(where)
            assert len(first.claim(1)) == 1
        assert tried(where)
        with pytest.raises(RunError, match="was begun as another's"):
            late.claim(1)
    with pytest.raises(RunError, match="another recipe: recipe two there, one here"):
        open_study(where, {"recipe": "one"}, goals)


def test_a_database_that_does_not_answer_is_told_before_anything_is_taught(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"postgresql://me:secret@127.0.0.1:{free.getsockname()[1]}/none"
        job = SearchJob(of_texts({"student": STUDENT}), attar.data.arrays(*rows(), valid=0.3), _Constant())
        with pytest.raises(RunError, match="does not answer") as told:
            search_job(job, out=tmp_path / "search", trials=1, study=url)
    assert "secret" not in str(told.value)
    assert not (tmp_path / "search").exists()


# ---- candidates


def room_and_spaces(**texts: str) -> tuple[Classroom, Spaces]:
    data = small_table(400)
    task = attar.classification(metric="auroc").bind(data.schema)
    answers = annotate(_Constant(), data, task=task)
    spaces = Spaces(of_texts({"student": STUDENT, "objective": OBJECTIVE, "fit": FIT, **texts}), Path())
    return Classroom(data, task, answers), spaces


class _Constant:
    """A teacher that says the same of every row."""

    fingerprint = "constant"

    def __call__(self, batch: attar.Batch, taps: frozenset[str] = frozenset()) -> attar.Signal:
        return attar.Signal(torch.tensor([[0.0, 1.0]]).expand(len(batch), 2))

    def prepare(self, batch: attar.Batch) -> Callable[[], Any]:
        return lambda: self(batch)


def test_what_turns_within_a_batch_is_temperature_weight_and_rate() -> None:
    _, spaces = room_and_spaces()
    assert spaces.turning("student") == {"objective.kl.temperature", "objective.weight", "fit.lr"}
    assert spaces.turning("labels") == {"fit.lr"}
    assert spaces.design(spaces.middle("labels"), "labels").objective == labels()


def test_a_batch_trains_as_its_candidates_would_by_themselves() -> None:
    room, spaces = room_and_spaces(fit='fit(epochs=2, lr=log(1e-3, 2e-2), way="cohort")')
    middle = spaces.middle()
    designs = [
        spaces.design({**middle, "objective.kl.temperature": t, "fit.lr": lr}) for t, lr in ((1.0, 0.002), (4.0, 0.01), (2.0, 0.005))
    ]
    together = room.train([Candidate(design, 3) for design in designs])
    alone = [room.train([Candidate(design, 3)])[0] for design in designs]
    assert [outcome.together for outcome in together] == [3, 3, 3]
    for one, other in zip(together, alone, strict=True):
        assert one.model is not None
        assert other.model is not None
        for name, value in one.model.state_dict().items():
            torch.testing.assert_close(value, other.model.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_a_candidate_that_diverges_fails_and_the_others_of_its_batch_go_on() -> None:
    room, spaces = room_and_spaces(fit='fit(epochs=2, lr=log(1e-3, 1e38), way="cohort")')
    middle = spaces.middle()
    outcomes = room.train([Candidate(spaces.design({**middle, "fit.lr": lr}), 0) for lr in (0.005, 1e37)])
    assert outcomes[0].score is not None
    assert outcomes[1].score is None
    assert "not finite" in outcomes[1].why


def test_whether_a_batch_trains_together_is_measured_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    room, spaces = room_and_spaces(student="mlp(width=integer(4, 64), depth=1)")
    sizes = list[int]()

    def measure(members: Any, lesson: Any, fit: Any, **how: Any) -> cohort.Measured:
        sizes.append(sum(weight.numel() for weight in members[0].module.parameters()))
        return cohort.Measured(alone=1.0, together=len(members) * (0.5 if sizes[-1] < 200 else 2.0))

    monkeypatch.setattr(cohort, "measure", measure)

    def together(width: int) -> bool:
        design = spaces.design({**spaces.middle(), "student.width": width})
        return room._together([Candidate(design, seed) for seed in (0, 1)])

    assert [together(width) for width in (64, 4)] == [False, True]  # what a large one shows decides nothing about a small one
    assert len(sizes) == 2
    assert [together(width) for width in (64, 4)] == [False, True]
    assert len(sizes) == 2  # below what was faster and above what was not nothing is measured
    assert together(8)
    assert len(sizes) == 3


def test_a_cohort_asks_who_stops() -> None:
    x = torch.linspace(-1, 1, 64)[:, None]
    lesson = cohort.Lesson(64, lambda line, rows, own, _: ((line(rows["x"]) - 3 * rows["x"]).square().mean(), {}), lambda i, e: {"x": x[i]})
    lines = [torch.nn.Linear(1, 1) for _ in range(3)]
    asked_of: list[tuple[int, set[int]]] = []

    def stop(epoch: int, scores: Mapping[int, float]) -> set[int]:
        asked_of.append((epoch, set(scores)))
        return {2} if epoch == 1 else set()

    found = cohort.train(
        [cohort.Member(line, seed) for seed, line in enumerate(lines)],
        lesson,
        fit=Fit(epochs=3, lr=0.1, batch=16),
        validate=lambda line: -float((line.get_parameter("weight") - 3).square()),
        stop=stop,
    )
    assert [each.epochs for each in found] == [3, 3, 1]
    assert asked_of == [(1, {0, 1, 2}), (2, {0, 1})]  # nobody is asked after the last


def test_turned_objectives_differ_in_tensors_alone() -> None:
    one, other = (turned(blend(kl(temperature=t), labels(), weight=w)) for t, w in ((2.0, 0.9), (4.0, 0.5)))
    assert repr(one) == "0.9 * kl(temperature=2.0) + 0.1 * labels(smoothing=0.0)"
    for knob in (*knobs(one), *knobs(other)):
        knob.value.fill_(1.0)
    assert repr(one) == repr(other)


# ---- rungs


def trial(number: int, score: float, rung: float = 0.5, **changes: Any) -> Trial:
    parts: dict[str, Any] = {"student": f"mlp(width={number})", "objective": "labels()", "fit": "fit()", "point": {}, "state": "trained"}
    price = Priced(0.01 * (number + 1), size_bytes=1000, parameters=100)
    parts |= {"price": price, "within": True, "rungs": ((1 / 3, rung), (1.0, score)), "together": 4, **changes}
    return Trial(number, parts.pop("arm", "student"), score=score, **parts)


def test_a_rungs_worth_is_its_rank_correlation_within_batches_that_nobody_left() -> None:
    rng = np.random.default_rng(0)
    known, pairs = [], []
    for batch in range(4):
        final = rng.normal(size=6)
        rung = final + rng.normal(size=6)
        known += [
            Told(trial(6 * batch + i, f + 10 * batch, r + 10 * batch), batch, watched=True)
            for i, (r, f) in enumerate(zip(rung, final, strict=True))
        ]
        pairs += [(r - rung.mean(), f - final.mean()) for r, f in zip(rung, final, strict=True)]
    known.append(Told(trial(99, 5.0, -5.0), 9, watched=False))  # who survived a rung is no sample
    _, found, count = Rungs(9).correlations(known, 1)[-1]
    assert count == 24
    assert found == pytest.approx(stats.spearmanr(*np.array(pairs).T)[0])


def designs_at(temperatures: list[float]) -> list[Any]:
    _, spaces = room_and_spaces()
    return [spaces.design({**spaces.middle(), "objective.kl.temperature": t}) for t in temperatures]


def test_the_best_third_goes_on_and_the_best_of_each_kind_of_temperature() -> None:
    stop = Rungs(9).behind(designs_at([1, 1.5, 2, 4, 6, 8]), [], 1, 100)
    assert stop(2, dict(enumerate([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))) == ()  # no rung
    assert set(stop(3, dict(enumerate([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])))) == {1, 2, 4, 5}  # 0 the best; 3 the best of those above the middle


def test_a_rung_that_foretells_nothing_stops_nobody() -> None:
    known = [Told(trial(i, float(i % 5), float(-i % 7)), 0, watched=True) for i in range(ENOUGH)]
    assert Rungs(9).correlations(known, 1)[-1][1] < 0.6
    assert not Rungs(9).behind(designs_at([1, 2, 4]), known, 1, 100)(3, {0: 3.0, 1: 2.0, 2: 1.0})


# ---- the final


def test_halves_share_no_row_and_keep_theirs_as_rows_are_added() -> None:
    data = small_table(800)
    halves = halved(data)
    first, second = (set(split.ids.tolist()) for split in (halves.first.valid, halves.second))
    assert not first & second
    assert len(first | second) == len(set(data.valid.ids.tolist()))
    fewer = halved(replace(data, valid=data.valid.take(torch.arange(120))))
    assert set(fewer.second.ids.tolist()) <= second
    with pytest.raises(DataError, match="and 20 are needed"):
        halved(replace(data, valid=data.valid.take(torch.arange(30))))


def test_halves_of_another_seed_are_others_and_those_of_one_seed_the_same_for_all_workers() -> None:
    data = small_table(800)
    first = [set(halved(data, seed).first.valid.ids.tolist()) for seed in (0, 0, 1, 2)]
    assert first[0] == first[1]
    shared_rows = [len(a & b) / len(a) for a, b in ((first[0], first[2]), (first[0], first[3]), (first[2], first[3]))]
    assert all(0.3 < share < 0.7 for share in shared_rows)  # as two halves that know nothing of each other


def test_a_folder_whose_rows_were_dealt_otherwise_is_refused(tmp_path: Path) -> None:
    same_deal(tmp_path, 3)  # nothing is there
    (tmp_path / "manifest.json").write_text("{}")
    same_deal(tmp_path, 3)  # a search that did not come to its trials
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(RunError, match="dealt without a seed, as attar did before, and seed 3 deals others"):
        same_deal(tmp_path, 3)
    (tmp_path / "manifest.json").write_text('{"deal": 3}')
    same_deal(tmp_path, 3)
    with pytest.raises(RunError, match="by seed 3, and seed 4 deals others") as refused:
        same_deal(tmp_path, 4)
    assert "go on with seed 3" in (refused.value.hint or "")


def foretold(values: dict[str, list[float]], *, rows_sd: float = 0.01, file: float = 0.0, metric: str = "accuracy") -> dict[int, Finalist]:
    """Finalists of these scores by seed on 120 rows; files have so much more than their first seed. 300 rows are to come."""
    rng = np.random.default_rng(0)
    data = small_table(2000)
    second, test = data.valid.take(torch.arange(120)), data.train.take(torch.arange(300))
    task = attar.classification(metric=metric).bind(data.schema)
    judge = Second(second, task, attar.module(attar.students.mlp(width=4, depth=1)(data.schema, 0).eval()), second)
    mood = rng.normal(0, rows_sd, 400)  # the rows mislead about all alike
    own = {name: rng.normal(0, rows_sd / 3, 400) for name in values}
    draws = {
        (name, seed): Draws(value, value + mood + own[name], np.full(50, value), 120)
        for name, scores in values.items()
        for seed, value in [*enumerate(scores), (-1, scores[0] + file)]
    }
    found = [
        finalist(at, float(np.mean(scores)), 0.01, scores=tuple(scores), arm="labels" if name == "labels" else "student")
        for at, (name, scores) in enumerate(values.items())
    ]
    return {each.trial: each for each in judge.foretold(found, Drawn(draws, task.better(metric), 120), test)}


SCORES = [0.80, 0.81, 0.79, 0.805, 0.795]


def test_what_is_predicted_is_one_file_on_as_many_rows_as_there_are_to_come() -> None:
    told = foretold({"0": SCORES}, metric="auroc")[0]
    assert told.predicted is not None and told.predicted.n == 300 and told.optimism == 0
    assert told.predicted.low is not None and told.predicted.high is not None
    row = np.sqrt(0.01**2 + (0.01 / 3) ** 2)
    half = np.sqrt(stats.t.ppf(0.975, 4) ** 2 * np.var(SCORES, ddof=1) * 1.2 + (1.98 * row) ** 2 * (1 + 120 / 300))
    assert told.predicted.value == pytest.approx(0.8)
    assert told.predicted.high - told.predicted.low == pytest.approx(2 * half, rel=0.06)  # 400 resamples know the spread so well


def test_what_export_takes_is_taken_and_an_interval_ends_where_its_metric_does() -> None:
    told = foretold({"0": SCORES}, file=-0.05, metric="auroc")[0]
    assert told.predicted is not None and told.predicted.value == pytest.approx(0.75) and told.optimism == 0
    sure = foretold({"0": [1.0] * 5}, rows_sd=0.0)[0].predicted  # no row is wrong: a bootstrap has no width, rows to come have
    assert sure is not None and sure.high == 1.0 and sure.low is not None and 0.95 < sure.low < 0.98
    high = foretold({"0": [0.99, 0.98, 0.97, 0.99, 0.98]}, metric="auroc", rows_sd=0.03)[0].predicted
    assert high is not None and high.high == 1.0


def test_of_several_finalists_the_best_is_put_down_by_what_luck_may_have_done_and_who_cannot_win_is_left() -> None:
    near = {"0": SCORES, "1": [x + 0.002 for x in SCORES], "2": [x - 0.004 for x in SCORES], "labels": [x + 0.01 for x in SCORES]}
    told = foretold(near, metric="auroc")
    assert 0.0005 < told[1].optimism < 0.0027 and told[2].optimism < 0 and told[3].optimism == 0
    assert told[1].predicted is not None and told[1].predicted.value == pytest.approx(0.802 - told[1].optimism)
    apart = foretold({name: [x + 0.1 * at for x in SCORES] for at, name in enumerate(("0", "1", "2"))}, metric="auroc")
    assert abs(apart[2].optimism) < 0.0005  # merit is left
    losses = foretold(near, metric="log_loss")
    assert losses[2].optimism > 0 > losses[1].optimism  # less is better, and the least is put up
    assert losses[2].predicted is not None and losses[2].predicted.value == pytest.approx(0.796 + losses[2].optimism)


def test_what_seeds_have_given_a_mean_is_the_files_own_and_is_not_taken_back() -> None:
    seeds = {"0": [0.84, 0.76, 0.82, 0.79, 0.80], "1": [0.77, 0.83, 0.78, 0.84, 0.81]}  # they differ by seeds alone
    told = foretold(seeds, rows_sd=1e-5, metric="auroc")
    assert abs(told[1].optimism) < 1e-4 and abs(told[0].optimism) < 1e-4


def test_the_winner_is_told_with_its_mean_and_apart_from_that_with_what_its_file_will_have() -> None:
    told = foretold({"0": SCORES, "1": [x + 0.002 for x in SCORES]}, metric="auroc")
    draws = {(str(n), s): Draws(v, np.array([v, v + 0.01]), np.full(50, v), 120) for n, f in told.items() for s, v in enumerate(f.scores)}
    words = chosen([*told.values()], Drawn(draws, 1, 120), 0.002, "auroc", {}).words
    assert "the mean over seeds, on the second half" in words[0]
    assert words[1].startswith("On the 300 test rows its exported file is predicted to have AUROC 0.80") and "with 95%" in words[1]
    assert f"{told[1].optimism:.4f} is taken back from its mean" in words[1] and "2 finalists differ" in words[1]


def test_finalists_are_the_best_the_cheapest_that_suffices_and_the_best_on_labels_alone() -> None:
    trials = [trial(i, score) for i, score in enumerate((0.70, 0.78, 0.79, 0.80, 0.81))]
    trials += [trial(0, 0.75, arm="labels"), trial(5, 0.99, within=False)]
    found = finalists_of(trials, 1, goal=0.775)
    assert [(each.arm, each.number) for each in found] == [("student", 1), ("student", 3), ("student", 4), ("labels", 0)]


def finalist(number: int, score: float, ms: float, **changes: Any) -> Finalist:
    price = Priced(ms, size_bytes=1000, measured=True)
    parts = {"scores": (score,) * 5, "score": Figure(score), "price": price, "within": True, "before": score + 0.01, **changes}
    return Finalist(number, f"mlp(width={number})", "labels()", "fit()", **parts)


def drawn(**means: float) -> Drawn:
    """Draws about these means, so tight that differences of 0.001 are seen."""
    rng = np.random.default_rng(0)
    mood = rng.normal(0, 1e-4, 400)

    def draws(mean: float) -> Draws:
        return Draws(mean + rng.normal(0, 1e-5), mean + mood + rng.normal(0, 1e-5, 400), np.full(50, mean), 1000)

    names = {name if name == "teacher" else name.removeprefix("t"): mean for name, mean in means.items()}
    return Drawn({(name, seed): draws(mean) for name, mean in names.items() for seed in range(1 if name == "teacher" else 5)}, 1, 1000)


def test_the_cheapest_that_meets_the_margin_wins() -> None:
    three = [finalist(1, 0.790, 0.01), finalist(2, 0.797, 0.02), finalist(3, 0.80, 0.03)]
    found = chosen(three, drawn(t1=0.790, t2=0.797, t3=0.80, teacher=0.80), 0.005, "auroc", {})
    assert found.winner == 2
    assert "is shown with 90%" in found.words[1]


def test_where_none_meets_it_the_best_wins_or_a_cheaper_one_as_good_within_half_the_margin() -> None:
    three = [finalist(1, 0.790, 0.01), finalist(2, 0.7985, 0.02), finalist(3, 0.80, 0.03)]
    found = chosen(three, drawn(t1=0.790, t2=0.7985, t3=0.80), 0.005, "auroc", {})
    assert found.winner == 2
    assert chosen(three, drawn(t1=0.790, t2=0.7985, t3=0.80), 0.002, "auroc", {}).winner == 3


def test_three_finalists_at_the_end_of_the_margin_are_shown_to_meet_it_no_more_often_than_one() -> None:
    rng = np.random.default_rng(0)
    three = [finalist(number, 0.79 + number / 1000, number / 100) for number in (1, 2, 3)]

    def seeds() -> list[Draws]:
        rows, moods = rng.normal(0, 0.003), rng.normal(0, 0.003, 60)  # how these rows mislead, and how resamples of them do
        return [Draws(0.795 + rows + rng.normal(0, 1e-5), 0.795 + rows + moods, np.full(50, 0.795), 1000) for _ in range(5)]

    def shown() -> bool | None:
        draws = {(str(number), seed): each for number in (1, 2, 3) for seed, each in enumerate(seeds())}
        draws["teacher", 0] = Draws(0.8, np.full(60, 0.8), np.full(50, 0.8), 1000)
        return chosen(three, Drawn(draws, 1, 1000), 0.005, "auroc", {}).shown

    assert sum(shown() is True for _ in range(300)) < 0.15 * 300  # each asked by itself: 27 %


def test_what_is_lost_since_it_was_chosen_is_told_beside_the_teacher_on_the_same_rows() -> None:
    words = chosen([finalist(1, 0.80, 0.01)], drawn(t1=0.80, teacher=0.81), 0.005, "auroc", {}, 0.82).words
    assert "to the teacher −0.0100; trained anew it is −0.0" in words[-1] and "luck" in words[-1]  # the half is harder; nothing was lost
    alone = chosen([finalist(1, 0.80, 0.01)], drawn(t1=0.80), 0.005, "auroc", {}).words
    assert "0.0100 worse: luck in choosing is in that, and so are other rows" in alone[-1]


def test_a_decision_rule_is_fixed_on_the_first_half() -> None:
    halves = halved(small_table(800))
    first, second = halves.first.valid, halves.second
    task = attar.classification(metric="recall_at_fpr", recall_at_fpr=0.2).bind(halves.first.schema)
    assert first.labels is not None and second.labels is not None
    students = [attar.students.mlp(width=4, depth=1)(halves.first.schema, seed).eval() for seed in range(5)]
    found = Second(second, task, attar.module(students[0]), first).drawn({"1": students}).scores("1")
    fixed = [task.fix(Model("", attar.module(s), task).ask(first), first.labels) for s in students]
    expected = [
        own.measure(Model("", attar.module(s), task).ask(second), second.labels)["recall_at_fpr"]
        for own, s in zip(fixed, students, strict=True)
    ]
    assert found == pytest.approx(expected)


def test_nobody_wins_who_does_not_keep_the_budget_when_measured() -> None:
    found = chosen([finalist(1, 0.8, 1.0, within=False)], drawn(t1=0.8), 0.005, "auroc", {"latency_ms": 0.5})
    assert found.winner is None
    assert "latency_ms ≤ 0.5" in found.words[0]


def test_excess_is_a_share_of_the_bound() -> None:
    price = Priced(0.03, size_bytes=50_000, parameters=1000, rows_per_second=1e6)
    assert over(attar.budget(latency_ms=0.02, size_mb=0.1), price) == pytest.approx({"latency_ms": 0.5, "size_mb": -0.5})
    assert over(attar.budget(rows_per_second=2e6), price) == pytest.approx({"rows_per_second": 1.0})
    assert over(attar.budget(memory_mb=1), price) == {}  # not known


# ---- workers


def killed(say: Listener) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_where_one_process_is_killed_the_others_go_on() -> None:
    heard: list[Event] = []
    assert shared([killed, lambda say: 5], heard.append, losses=True) == [None, 5]
    assert "the others go on" in heard[0].text
    with pytest.raises(RunError, match="exit code -9"):
        shared([killed, killed], heard.append, losses=True)
    with pytest.raises(RunError, match="exit code -9"):
        shared([killed, lambda say: 5], heard.append)


def test_a_worker_that_is_killed_loses_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, mark = Worker.run, tmp_path / "killed"

    def run(worker: Worker) -> None:
        """The first worker that has told of a trial is killed in its next batch."""

        def die(event: Event) -> None:
            if event.stage == "search" and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        whole(replace(worker, listen=die))

    monkeypatch.setattr(Worker, "run", run)
    found = asked(tmp_path / "search", workers=2)
    assert mark.exists()
    assert sum(trial.arm == "student" and trial.state == "trained" for trial in found.trials) >= 6
    assert len({(trial.arm, trial.number) for trial in found.trials}) == len(found.trials)


def test_a_worker_leaves_where_another_has_the_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, take = tmp_path / "study.journal", Ledger.take
    job = SearchJob(
        of_texts({"student": STUDENT, "objective": OBJECTIVE, "fit": FIT}),
        attar.data.arrays(*rows(), valid=0.3),
        attar.taught(attar.lightgbm(trees=10), at="teacher.txt"),
    )

    def late(ledger: Ledger, name: str, about: Mapping[str, Any]) -> Any:
        with open_study(where, ledger._identity, ["minimize"] * 3, name="student", beat=0.05) as other:
            assert take(other, name, {**about, "folder": "/theirs"}) is None
            return take(ledger, name, about)

    monkeypatch.setattr(Ledger, "take", late)
    with pytest.raises(Elsewhere, match="will be in /theirs on"):
        search_job(job, out=tmp_path / "mine", trials=2, study=str(where))
    assert not (tmp_path / "mine" / "finalists").exists() and (tmp_path / "mine" / "search.html").exists()
    monkeypatch.setattr(Ledger, "take", take)
    made = list[str]()
    for part in ("final", "compete"):
        monkeypatch.setattr(ending.Ending, part, lambda *_, part=part: made.append(part))
    search_job(job, out=tmp_path / "mine", trials=2, study=str(where), resume=True)  # the other left it undone
    assert made == ["final", "compete"]


# ---- finalists, and those that lie there already


def test_finalists_of_another_training_make_room_for_those_of_now(tmp_path: Path) -> None:
    room, spaces = room_and_spaces()
    final = Final(tmp_path, spaces, room, seeds=2, epochs=1, processes=1, listen=lambda event: None)
    one, other = (replace(trial(0, 0.5, arm="labels"), point=spaces.drawn(random.Random(seed), "labels")) for seed in (0, 1))
    assert one.point != other.point
    first = final.train([one])["labels"]
    (tmp_path / "labels" / "student").mkdir()  # as it was exported
    again = final.train([one])["labels"]
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x.parameters(), y.parameters(), strict=True))
    assert (tmp_path / "labels" / "student").exists()
    assert len(final.train([other])["labels"]) == 2  # now the best on labels alone
    assert not (tmp_path / "labels" / "student").exists()
    longer = replace(final, epochs=2)
    assert longer.epochs_there([other]) == 1
    assert len(longer.train([other])["labels"]) == 2
    assert longer.epochs_there([other]) == 2


def test_the_seeds_of_each_finalist_are_dealt_to_all_processes(tmp_path: Path) -> None:
    room, spaces = room_and_spaces(fit='fit(epochs=1, lr=log(1e-3, 2e-2), way="one")')
    _ = room.judge
    trials = [replace(trial(number, 0.5), point=spaces.drawn(random.Random(number))) for number in (0, 1)]
    final = Final(tmp_path / "two", spaces, room, seeds=3, epochs=1, processes=2, listen=lambda event: None)
    found = final.train(trials)
    assert {name: len(models) for name, models in found.items()} == {"0": 3, "1": 3}
    counts = [[len(final._deal(trials[:1], at)) for at in (0, 1)], [len(final._deal(trials, at)) for at in (0, 1)]]
    assert counts == [[1, 1], [2, 2]]  # one finalist alone keeps two processes busy
    alone = replace(final, folder=tmp_path / "one", processes=1).train(trials)
    for name, models in alone.items():
        for one, other in zip(models, found[name], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("text", ['{"verb": ', "[]"])
def test_a_folder_whose_manifest_is_damaged_is_refused_in_one_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "answers").mkdir()
    with pytest.raises(RunError, match=r"manifest\.json (does not read|is damaged)"):
        claim(tmp_path, str(tmp_path / "study.db"), resume=True)


def test_the_interval_of_a_share_ends_where_the_share_ends() -> None:
    draws = {
        ("0", seed): Draws(value, value + 0.01 * np.sin(np.arange(200)), np.full(50, value), 40)
        for seed, value in enumerate((0.8, 0.98, 1.0))
    }
    assert (Drawn(draws, 1, 40).score("0").high or 0) > 1
    assert Drawn(draws, 1, 40, (0.0, 1.0)).score("0").high == 1.0
