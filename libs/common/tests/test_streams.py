"""The streams of a deployment: made by a command, which refuses a server that acknowledges before it has written."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from periplus_local.stack import programs


@contextmanager
def nats_server(folder: Path, **jetstream: object) -> Iterator[tuple[str, str]]:
    """The URLs of a server and of its monitoring."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    settings = {"host": "127.0.0.1", "port": ports[0], "http": f"127.0.0.1:{ports[1]}"}
    (folder / "nats.json").write_text(
        json.dumps({**settings, "jetstream": {"store_dir": str(folder / "store"), **jetstream}})
    )
    command = [str(programs.nats_server()), "--config", str(folder / "nats.json")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    monitoring = f"http://127.0.0.1:{ports[1]}"
    try:
        for _ in range(1200):
            with suppress(OSError):
                urlopen(f"{monitoring}/healthz", timeout=5).close()
                break
            time.sleep(0.05)
        yield f"nats://127.0.0.1:{ports[0]}", monitoring
    finally:
        process.kill()
        process.wait()


def declare(**settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"STREAMS_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "periplus_common.streams"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_streams_are_made_and_made_again(tmp_path: Path) -> None:
    with nats_server(tmp_path, sync_interval="always") as (url, monitoring):
        for _ in range(2):
            done = declare(NATS_URL=url, MONITORING_URL=monitoring)
            assert done.returncode == 0
            assert done.stdout == "streams DISPATCHER, CACHE, SNAPSHOTTER, DEAD: ready\n"
        with urlopen(f"{monitoring}/jsz", timeout=5) as answer:
            assert json.load(answer)["streams"] == 4


def test_a_server_that_acknowledges_before_it_has_written_is_refused_with_the_setting_that_mends_it(
    tmp_path: Path,
) -> None:
    with nats_server(tmp_path) as (url, monitoring):
        done = declare(NATS_URL=url, MONITORING_URL=monitoring)
        assert done.returncode == 1
        assert "every 120 s" in done.stderr
        assert "sync_interval: always" in done.stderr
        with urlopen(f"{monitoring}/jsz", timeout=5) as answer:
            assert json.load(answer)["streams"] == 0
        # One that no monitoring says anything about, or that has replicas to keep messages, is the administrator's choice.
        assert declare(NATS_URL=url).returncode == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "STREAMS_NATS_URL: is not set"),
        ({"NATS_URL": "nats://127.0.0.1:9"}, "the streams can not be made"),
        (
            {"NATS_URL": "nats://127.0.0.1:9", "MONITORING_URL": "http://127.0.0.1:9"},
            "the streams can not be made",
        ),
        ({"NATS_URL": "nats://127.0.0.1:9", "REPLICAS": "2"}, "STREAMS_REPLICAS"),
    ],
)
def test_what_is_missing_or_can_not_be_reached_is_said_in_a_line(
    settings: dict[str, str], message: str
) -> None:
    done = declare(**settings)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
