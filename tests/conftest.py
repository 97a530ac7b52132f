"""One thread per worker, no hub, a collector that leaves the libraries alone, and a PostgreSQL server where one is installed."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: several xdist workers with many threads each are many times slower than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

PASSWORD = "tell:nobody@{all}"  # every sign that a URL, or who fills in a URL, may stumble over


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """A PostgreSQL server of this test run alone, on loopback: a function that makes an empty database and returns its URL."""
    psycopg = pytest.importorskip("psycopg")
    programs = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or not (programs[-1] / "postgres").exists():
        pytest.skip("no PostgreSQL server is installed: no initdb on the path or in /usr/lib/postgresql")
    # A server refuses to run as root, and another user does not reach pytest's folders.
    other: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="attar-postgresql-"))
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if other:
            shutil.chown(folder, "nobody")
            shutil.chown(secret, "nobody")
        data = folder / "data"
        how = ["-U", "attar", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync", "-D", str(data)]
        subprocess.run([programs[-1] / "initdb", *how], check=True, capture_output=True, cwd=folder, **other)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        said = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off", "shared_buffers": "16MB"}
        options = [each for name, value in said.items() for each in ("-c", f"{name}={value}")]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen([programs[-1] / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **other)
        try:
            yield _databases(psycopg, server, port, folder / "log")
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _databases(psycopg: Any, server: subprocess.Popen[Any], port: int, log: Path) -> Callable[[], str]:
    who: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "attar", "password": PASSWORD, "autocommit": True}
    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(dbname="postgres", **who).close()
            break
        except psycopg.OperationalError:
            assert server.poll() is None and time.monotonic() < until, log.read_text(errors="replace")
            time.sleep(0.1)

    def made() -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(dbname="postgres", **who) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://attar:{PASSWORD.replace(':', '%3A').replace('@', '%40')}@127.0.0.1:{port}/{name}"

    return made


def pytest_collection_finish() -> None:
    """What was imported stays: measuring a cost collects garbage, in forked children as well, and need not walk through all of it."""
    gc.collect()
    gc.freeze()
