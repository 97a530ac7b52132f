"""A study in SQLite, a journal or PostgreSQL: what it is of, what it may spend, and whose its trials are."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attar.errors import AttarError, RunError
from attar.verbs.search.storage import DEATHS, Ledger, open_study, shown
from tests.conftest import PASSWORD

optuna = pytest.importorskip("optuna")

IDENTITY = {"recipe": "0a", "data": "0b", "teacher": "0c"}
GOALS = ("minimize", "minimize")
ME = {"identity": IDENTITY, "directions": GOALS}


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")()
    return str(tmp_path / f"{{a}} study 100%?#.{'db' if request.param == 'sqlite' else 'journal'}")


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """For what is alike wherever a study is kept: the place that opens fastest."""
    return str(tmp_path / "study.journal")


def finish(ledger: Ledger, count: int = 1, **how: Any) -> list[int]:
    """Claims and tells so many trials; their numbers."""
    found = []
    for asked in ledger.claim(count):
        x = asked.suggest_float("x", 0, 1)
        assert ledger.tell(asked, [x, 1 - x], **how)
        found.append(asked.number)
    return found


def refused(where: str | Path, identity: Any = IDENTITY, directions: Any = GOALS, **how: Any) -> str:
    """The one message, in which, as in all that could be printed of it, the password does not stand."""
    with pytest.raises(AttarError) as caught:
        open_study(where, identity, directions, **how)
    told = "".join(traceback.format_exception(caught.value))
    for secret in (PASSWORD, "s3cret", "tell%3Anobody"):
        assert secret not in told
    return str(caught.value)


# ---- what is claimed and told


def test_a_study_keeps_its_limit_and_what_was_told(where: str) -> None:
    with open_study(where, **ME, trials=5) as ledger:
        assert ledger.new
        ledger.study.enqueue_trial({"x": 0.5})
        assert finish(ledger, 3, attributes={"note": [1]}, constraints={"size": -1.0}) == [0, 1, 2]
        left = ledger.left()
        assert (left.trials, left.seconds, left.owed, left.elsewhere, left.over) == (2, None, 0, 0, False)
    with open_study(where, **ME) as ledger:  # the limit is the study's
        assert not ledger.new
        assert len(finish(ledger, 10)) == 2
        assert ledger.claim() == [] and ledger.again() == []
        assert ledger.left().over
        trials = ledger.finished()
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert trials[0].params == {"x": 0.5} and trials[0].values == [0.5, 0.5]
    assert trials[0].user_attrs["note"] == [1] and trials[0].constraints == {"size": -1.0}
    with open_study(where, **ME, trials=7) as ledger:  # and may be raised
        assert len(finish(ledger, 10)) == 2


def test_what_is_dropped_before_training_costs_nothing_and_what_diverges_does(journal: str) -> None:
    with open_study(journal, **ME, trials=3) as ledger:
        dear, diverged = ledger.claim(2)
        assert ledger.left().trials == 1
        assert ledger.tell(dear, None, counted=False)
        assert ledger.left().trials == 2
        assert ledger.tell(diverged, [float("nan"), 1.0], attributes={"why": "NaN"})
        assert ledger.left().trials == 2
        assert len(finish(ledger, 9)) == 2
        states = [trial.state.name for trial in ledger.finished()]
    assert states == ["PRUNED", "PRUNED", "COMPLETE", "COMPLETE"]


def test_two_workers_share_the_limit(where: str) -> None:
    with open_study(where, **ME, trials=7) as one, open_study(where, **ME) as two:
        first, second = one.claim(4), two.claim(4)
        assert len(first) == 4 and len(second) == 3
        assert {each.number for each in first}.isdisjoint(each.number for each in second)
        assert two.left().elsewhere == 4 and one.left().elsewhere == 3
        for ledger, asked in ((one, first), (two, second)):
            for each in asked:
                assert ledger.tell(each, [0.0, 1.0])
        assert one.left().over and two.left().over
        assert len(one.finished()) == 7


def test_what_a_worker_leaves_is_given_to_the_next_with_its_parameters_and_is_no_death(journal: str) -> None:
    before = []
    for _ in range(DEATHS + 2):  # more often than one may die
        with pytest.raises(KeyboardInterrupt), open_study(journal, **ME, trials=1) as ledger:
            asked = (ledger.again() or ledger.claim())[0]
            before.append(asked.suggest_float("x", 0, 1))
            raise KeyboardInterrupt
    with open_study(journal, **ME) as ledger:
        assert ledger.left().owed == 1 and ledger.claim() == []
        (asked,) = ledger.again(3)
        assert asked.params["x"] == asked.suggest_float("x", 0, 1)
        assert ledger.tell(asked, [asked.params["x"], 0.0])
        assert len(ledger.finished()) == 1 and ledger.left().over
    assert len(set(before)) == 1


def test_a_worker_that_falls_silent_is_taken_for_dead_and_does_not_count_when_it_comes_back(where: str) -> None:
    with open_study(where, **ME, trials=2, beat=1000) as silent, open_study(where, **ME, patience=0.3) as other:
        lost, told = silent.claim(2)
        x = lost.suggest_float("x", 0, 1)
        assert silent.tell(told, [0.0, 0.0])
        assert other.left().elsewhere == 1
        assert other.wait(stop=lambda: False).owed == 1  # after its patience
        (again,) = other.again(5)
        assert other.again(5) == []  # once
        assert again.params == {"x": x}
        assert not silent.tell(lost, [1.0, 1.0])
        assert other.tell(again, [0.5, 0.5])
        assert [trial.values for trial in other.finished()] == [[0.0, 0.0], [0.5, 0.5]]
        assert silent.left().over


def test_a_worker_that_beats_is_waited_for(where: str) -> None:
    with open_study(where, **ME, trials=1, beat=0.05) as slow, open_study(where, **ME, patience=0.0) as other:
        (asked,) = slow.claim()
        until = time.monotonic() + 30
        while (record := slow.study.user_attrs[f"attar:worker:{slow.worker}"])["beats"] < 4:
            assert time.monotonic() < until
        assert record["at"] > record["start"]
        assert other.left().elsewhere == 1
        assert slow.tell(asked, [0.0, 0.0])
        assert other.wait().over


def test_a_trial_that_takes_its_worker_down_each_time_is_given_up(journal: str) -> None:
    workers = []
    for _ in range(DEATHS + 1):
        ledger = open_study(journal, **ME, trials=1, beat=1000, patience=0.05)
        (ledger.again() or ledger.claim())[0].suggest_float("x", 0, 1)
        workers.append(ledger)  # and is never heard of again
        with open_study(journal, **ME, patience=0.05) as next_one:
            next_one.left()
            time.sleep(0.1)
            next_one.left()
    with open_study(journal, **ME) as ledger:
        assert ledger.again() == [] and ledger.claim() == [] and ledger.left().over
        (given_up,) = ledger.finished()
        assert given_up.state.name == "FAIL" and ledger.gave_up(given_up)
    for worker in workers:
        worker.__exit__(None, None, None)


def test_time_is_shared_and_passes_only_while_somebody_works(journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("attar.verbs.search.storage._Place.now", lambda place: clock[0])
    with open_study(journal, **ME, seconds=60) as one:
        assert one.left().seconds == 60
        clock[0] += 5  # nobody has begun
        finish(one)
        clock[0] += 10
        assert one.left().seconds == 50
    clock[0] += 1000  # nobody works
    with open_study(journal, **ME) as one, open_study(journal, **ME) as two:
        assert one.left().seconds == two.left().seconds == 50
        (asked,) = one.claim()
        clock[0] += 10
        assert two.claim()
        clock[0] += 10  # of both
        assert one.left().seconds == 30
        clock[0] += 31
        assert one.claim() == [] and one.left().spent and not one.left().over
        assert one.tell(asked, [0.0, 0.0])  # what was begun is finished
    with open_study(journal, **ME) as one:
        assert one.left().owed == 1 and one.again() == [] and one.claim() == [] and one.left().over
    with open_study(journal, **ME, seconds=120) as one:
        assert one.left().seconds == 59 and one.again()


def test_the_clock_of_a_database_is_the_servers(postgresql: Callable[[], str]) -> None:
    import psycopg

    url = postgresql()
    with open_study(url, **ME) as ledger, psycopg.connect(url) as connection:
        finish(ledger)
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        assert row is not None
        assert ledger.study.user_attrs[f"attar:worker:{ledger.worker}"]["start"] == pytest.approx(float(row[0]), abs=30)


def die_holding(where: str) -> None:
    with open_study(where, **ME, beat=0.05) as ledger:
        assert ledger.take("final", {"host": "a", "folder": "first", "trials": 3}) is None
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["db", "journal"])
def test_one_worker_takes_the_final_and_that_of_a_killed_one_is_taken_over(kind: str, tmp_path: Path) -> None:
    where = str(tmp_path / f"study.{kind}")
    mine, theirs = ({"host": "a", "folder": folder, "trials": 3} for folder in ("one", "two"))
    with open_study(where, **ME, trials=3) as ledger:
        finish(ledger, 3)
    child = multiprocessing.get_context("fork").Process(target=die_holding, args=(where,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with open_study(where, **ME, beat=0.05) as one, open_study(where, **ME, beat=0.05) as two:
        before = one.seconds()
        assert one.take("final", mine) is None  # of the dead
        assert (two.take("final", theirs) or {})["folder"] == "one"
        assert one.seconds() == two.seconds() == before  # no time of the trials'
    with open_study(where, **ME, beat=0.05) as two:  # the first left it undone
        assert two.take("final", theirs) is None
        two.did("final", theirs)
    with open_study(where, **ME, beat=0.05) as one:
        assert (one.take("final", mine) or {})["done"]
        assert one.take("final", {**mine, "trials": 4}) is None  # more were tried since


def test_who_only_reads_is_no_worker(journal: str) -> None:
    with open_study(journal, **ME, trials=1) as ledger:
        finish(ledger)
    with open_study(journal, **ME) as reader:
        assert len(reader.finished()) == 1
        workers = [key for key in reader.study.user_attrs if key.startswith("attar:worker:")]
    assert len(workers) == 1


# ---- what a study is of


def test_a_study_of_something_else_is_refused_and_what_differs_is_named(where: str) -> None:
    with open_study(where, **ME) as ledger:
        ledger.claim(1)
    message = refused(where, {**IDENTITY, "data": "1b", "teacher": "1c"})
    assert "another data and teacher" in message and "data 0b there, 1b here" in message and "recipe" not in message
    assert "another teacher: teacher 0c there, none here" in refused(where, {"recipe": "0a", "data": "0b"})
    assert "other goals" in refused(where, directions=("minimize",))
    with open_study(where, **ME, name="another") as ledger:  # lies beside it
        assert ledger.new


def test_another_attar_is_refused(journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_study(journal, **ME) as ledger:
        ledger.claim(1)
    monkeypatch.setattr("attar.__version__", "9.9")
    assert "another attar" in (message := refused(journal)) and "9.9 here" in message and "same attar everywhere" in message


def test_a_study_that_another_program_made_is_refused(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db", directions=GOALS)
    study.ask()
    study._storage.remove_session()
    assert "was not made by attar search" in refused(tmp_path / "study.db")


# ---- places that do not answer


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("postgre://attar:s3cret@host/db", "did you mean 'postgresql'"),
        ("mysql://attar:s3cret@host/db", "not kept at mysql://"),
        ("postgresql+psycopg2://attar:s3cret@host/db", "did you mean 'postgresql'"),
        ("https://attar:s3cret@host/db", "not kept at https://"),
        ("postgresql://attar:s3cret@host:s3cret/db", "does not read"),
        ("postgresql://attar:s3cret@127.0.0.1:1/db", "postgresql://attar:***@127.0.0.1:1/db does not answer"),
        ("postgresql://127.0.0.1:1/db?user=attar&password=s3cret", "postgresql://127.0.0.1:1/db?user=attar does not answer"),
        ("study.txt", "study.txt says not what a study is kept in"),
        ("nowhere/study.db", "nowhere is not there"),
    ],
)
def test_a_place_that_is_none_is_one_message(place: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(place)
    assert says in message and "hint: " in message
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        port = deaf.getsockname()[1]
        assert "does not answer" in refused(f"postgresql://attar:s3cret@127.0.0.1:{port}/db?connect_timeout=2")


def test_a_database_without_the_right_is_one_message(postgresql: Callable[[], str]) -> None:
    import psycopg

    url = postgresql()
    base, _, name = url.rpartition("/")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 's3cret'")
    guest = f"postgresql://guest:s3cret@{base.rpartition('@')[2]}/{name}"
    assert "refuses: permission denied for schema public" in (message := refused(guest)) and "GRANT" in message
    assert "password authentication failed" in (message := refused(guest.replace("s3cret", "s3cret2"))) and "~/.pgpass" in message
    assert "does not exist" in (message := refused(f"{base}/nothing")) and "createdb" in message
    assert PASSWORD not in shown(url) and "***" in shown(url)


def test_a_file_that_is_something_else_is_one_message(tmp_path: Path) -> None:
    for name in ("notes.db", "notes.journal"):
        (tmp_path / name).write_text("Dear diary,\n" * 100)
        assert f"{name} " in refused(tmp_path / name)
        assert (tmp_path / name).read_text() == "Dear diary,\n" * 100
    (tmp_path / "folder.db").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.db")


def test_tables_of_another_optuna_are_one_message(tmp_path: Path) -> None:
    with open_study(tmp_path / "study.db", **ME):
        pass
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.close()
    assert "same Optuna everywhere" in refused(tmp_path / "study.db")


def test_a_server_that_goes_away_is_one_message_and_gives_back_what_was_held(postgresql: Callable[[], str]) -> None:
    import psycopg
    from psycopg import sql

    url = postgresql()
    name, elsewhere = sql.Identifier(url.rpartition("/")[2]), url.rpartition("/")[0] + "/postgres"
    with pytest.raises(RunError, match="refuses|does not answer"), open_study(url, **ME, trials=2) as ledger:
        asked = ledger.claim(2)
        with psycopg.connect(elsewhere, autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [url.rpartition("/")[2]])
        asked[0].suggest_float("x", 0, 1)  # Optuna's own error
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    with open_study(url, **ME, patience=0.1) as ledger:
        ledger.left()
        time.sleep(0.2)
        assert ledger.left().owed == 2


def test_a_connection_that_was_cut_is_made_anew(postgresql: Callable[[], str]) -> None:
    import psycopg

    url = postgresql()
    with open_study(url, **ME, trials=2) as ledger:
        finish(ledger)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finish(ledger)
        assert ledger.left().over


# ---- half a line


def test_a_line_that_a_killed_writer_left_half_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    with open_study(path, **ME, trials=3) as ledger:
        finish(ledger)
        with open(path, "a") as file:
            file.write('{"op_code": 8, "worker_id": "' + 10_000 * "x")
        assert len(ledger.finished()) == 1
        finish(ledger)
    with open_study(path, **ME) as ledger:
        assert len(ledger.finished()) == 2
        finish(ledger)
    assert all(json.loads(line) for line in path.read_text().splitlines())
