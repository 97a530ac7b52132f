"""Faults of a shared study, done for real: workers killed with SIGKILL at random, stopped and woken, sent away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from attar.verbs.search.storage import DEATHS, open_study

pytest.importorskip("optuna")

# One process imports once and forks workers. Each claims batches, says so, takes its time as if it trained, tells, and writes down what
# counted. It is killed a moment after it claimed: as it trains, tells or claims again.
WORKERS = """
import json, os, random, signal, sys, time
import alembic.command, optuna.storages, optuna.storages._rdb.models, sqlalchemy.dialects.sqlite
from optuna.samplers import RandomSampler
from attar.verbs.search.storage import open_study

where, trials, workers, kills, log, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6])
if where.startswith("postgresql"):
    import psycopg, sqlalchemy.dialects.postgresql
me = {"identity": {"recipe": "0a"}, "directions": ["minimize", "minimize"], "trials": trials}

def work(seed, first, say):
    draw = random.Random(seed)
    book = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open_study(where, sampler=RandomSampler(seed=seed), **me) as ledger:
        while not ledger.wait().over:
            batch = ledger.again(3) or ledger.claim(draw.randint(1, 3))
            points = [asked.suggest_float("x", 0, 1) for asked in batch]
            os.write(say, b"c" * bool(batch))
            time.sleep(60 if first else draw.uniform(0, 0.05))  # the first is killed here, for certain
            for asked, x in zip(batch, points):
                if ledger.tell(asked, [x, 1 - x]):
                    os.write(book, (json.dumps([asked.number, x]) + "\\n").encode())

def begun(seed, first=False):
    hear, say = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(hear)
            work(seed, first, say)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(1)
    os.close(say)
    return child, hear

draw = random.Random(seed)
children = [begun(seed + at, at == 0) for at in range(workers)]
killed = 0
while children:
    child, hear = children.pop(0 if killed == 0 else draw.randrange(len(children)))
    if killed < kills and os.read(hear, 1):  # nothing where it came to its end
        time.sleep(draw.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        killed += 1
        children.append(begun(seed + workers + killed))
    else:
        assert status == 0, status
print(killed)
"""


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")()
    return str(tmp_path / f"study.{'db' if request.param == 'sqlite' else 'journal'}")


def test_workers_killed_at_random_lose_no_trial_and_count_none_twice(where: str, tmp_path: Path) -> None:
    trials, kills = 24, 6
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", WORKERS, where, str(trials), "3", str(kills), str(log), "0"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= kills
    with open_study(where, {"recipe": "0a"}, ["minimize", "minimize"]) as ledger:
        finished, left = ledger.finished(), ledger.left()
        everything = ledger.study.get_trials()
    assert left.over and left.trials == 0 and left.owed == 0
    assert len(finished) == trials  # the limit, neither more nor less
    assert {trial.state.name for trial in everything} <= {"COMPLETE", "FAIL"}  # nothing runs or waits any more

    # each trial is a chain of attempts, of which the last alone counts, and which all have the same parameters once they have any
    again = {trial.user_attrs["attar:again"]: trial for trial in everything if "attar:again" in trial.user_attrs}
    assert len(again) == sum("attar:again" in trial.user_attrs for trial in everything)  # nothing was repeated twice
    first = [trial for trial in everything if "attar:again" not in trial.user_attrs]
    assert len(first) == trials
    for trial in first:
        chain = [trial]
        while chain[-1].number in again:
            chain.append(again[chain[-1].number])
        assert all(each.state.name == "FAIL" for each in chain[:-1])
        assert len(chain) <= DEATHS + 1
        assert chain[-1].state.name == "COMPLETE" or len(chain) == DEATHS + 1
        assert len({json.dumps(each.params) for each in chain if each.params}) <= 1
    assert len(again) > 0  # the first worker held some when it was killed

    # what a worker was told to count is there as it told it, once
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert max(Counter(number for number, _ in said).values()) == 1
    values = {trial.number: trial.values for trial in finished}
    assert all(values[number] == [x, 1 - x] for number, x in said)
