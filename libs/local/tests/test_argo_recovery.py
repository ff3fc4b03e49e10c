"""A home that is corrupt, read-only, in use, full, or from before a loss of power."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from periplus_local.argo.executor.job_folder import JobFolder
from periplus_local.argo.samples import sh, start
from periplus_local.argo.settings import ArgoSettings
from periplus_local.argo.storage.recovery import open_or_recover
from periplus_local.argo.storage.state_store import SCHEMA
from periplus_local.argo.testing import ArgoProcess, Client, nodes_of, phases_of


@pytest.fixture
def home() -> Iterator[Path]:
    """A home outside of /tmp, since every step has a /tmp of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="argo-damage-") as path:
        yield Path(path)


@pytest.fixture
def server(home: Path) -> Iterator[ArgoProcess]:
    server = ArgoProcess(home / "argo", slots=4, grace_seconds=0.2)
    try:
        yield server
    finally:
        server.stop()


def base(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(home / "argo" / "state.sqlite3", isolation_level=None)


def under_way(argo: Client, count: int) -> list[str]:
    """Start workflows whose only step runs for 1.5 seconds, and wait until they run."""
    names = [start(argo, sh("main", "sleep 1.5")) for _ in range(count)]
    for name in names:
        argo.until(name, lambda w: phases_of(w).get("$") == "Running")
    return names


def test_a_workflow_with_corrupt_json_is_set_aside_and_the_others_go_on(
    home: Path, server: ArgoProcess
) -> None:
    argo = server.start()
    names = under_way(argo, 3)
    server.kill()
    with closing(base(home)) as state:
        state.execute("UPDATE workflow SET status = substr(status, 1, 20) WHERE name = ?", (names[0],))
        uid = state.execute("SELECT uid FROM workflow WHERE name = ?", (names[1],)).fetchone()
        state.execute("UPDATE node SET body = '' WHERE uid = ?", uid)
    argo = server.start()
    left = [each["metadata"]["name"] for each in argo.call("GET", "workflows/argo")["items"]]
    assert left == [names[2]]
    assert argo.ended(names[2])["status"]["phase"] == "Succeeded"
    with closing(sqlite3.connect(home / "argo" / "state.sqlite3.damaged-1")) as aside:
        assert aside.execute("SELECT count(*) FROM workflow").fetchone() == (3,)


def filled(path: Path, workflows: int) -> None:
    """A state file of several pages per table."""
    with closing(open_or_recover(path, SCHEMA)) as state:
        for at in range(workflows):
            texts = (json.dumps({"x": str(at) * 900}),) * 4
            row = (f"u{at}", "argo", f"w{at}", at, at, False, *texts)
            state.execute("INSERT INTO workflow VALUES (?,?,?,?,?,?,?,?,?,?)", row)
            state.execute("INSERT INTO node VALUES (?,?,?)", (f"u{at}", "n", texts[0]))
        state.execute("INSERT INTO template VALUES ('k', 'argo', 't', '{}')")


@pytest.mark.parametrize("damage", ["no base", "a page of zeros", "cut off"])
def test_the_readable_workflows_of_a_corrupt_file_are_recovered(
    home: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = home / "state.sqlite3"
    filled(path, 40)
    whole = path.read_bytes()
    zeros = whole[: 12 * 4096] + bytes(4096) + whole[13 * 4096 :]
    path.write_bytes(
        {"no base": b"x" * 50_000, "a page of zeros": zeros, "cut off": whole[: len(whole) // 2]}[damage]
    )
    with closing(open_or_recover(path, SCHEMA)) as state:
        uids = [uid for (uid,) in state.execute("SELECT uid FROM workflow")]
        nodes = [uid for (uid,) in state.execute("SELECT uid FROM node")]
        assert sorted(uids) == sorted(nodes)
        assert state.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert (
        len(uids)
        in {"no base": {0}, "a page of zeros": set(range(20, 40)), "cut off": set(range(40))}[damage]
    )
    assert "is damaged" in caplog.text
    assert f"{path}.damaged-1" in caplog.text
    open_or_recover(path, SCHEMA).close()
    assert not (home / "state.sqlite3.damaged-2").exists()


def test_a_second_server_on_a_home_prints_the_pid_of_the_first(home: Path, server: ArgoProcess) -> None:
    server.start()
    refused = started(home / "argo")
    assert refused.returncode == 1
    assert f"in use by the local Argo with pid {server.pid}" in refused.stderr


def started(home: Path) -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"ARGO_HOME": str(home)}
    command = [sys.executable, "-m", "periplus_local.argo"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_state_file_that_cannot_be_opened_is_named_in_the_error(home: Path) -> None:
    (home / "argo" / "state.sqlite3").mkdir(parents=True)
    refused = started(home / "argo")
    assert refused.returncode == 1
    assert "state.sqlite3" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_step_from_before_the_last_boot_of_the_machine_runs_again(home: Path, server: ArgoProcess) -> None:
    argo = server.start()
    name = start(argo, sh("main", f"echo x >> {home}/ran; sleep 0.5"))
    argo.until(name, lambda w: phases_of(w).get("$") == "Running" and (home / "ran").exists())
    server.kill()
    [path] = (home / "argo" / "pods").glob("*/spec")
    folder = JobFolder(path.parent.parent, path.parent.name)
    while folder.is_running():
        time.sleep(0.02)
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "boot": "an earlier one"}))
    argo = server.start()
    ended = argo.ended(name)
    assert ended["status"]["phase"] == "Succeeded"
    assert "it was run again" in nodes_of(ended)[name]["message"]
    assert (home / "ran").read_text() == "x\nx\n"


def test_truncated_records_are_read_as_missing(home: Path) -> None:
    folder = JobFolder(home, "job")
    folder.create()
    for name in ("exit", "spec", "stop", "result"):
        for cut in (b"", bytes(100), b'{"a": 1, "b', b"[1]", b"\xff"):
            (folder.path / name).write_bytes(cut)
            assert (folder.ending(), folder.spec(), folder.was_closed(), folder.result()) == (
                None,
                None,
                False,
                None,
            )


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """While entered, no entry can be added to the folder, not even by root."""
    program, shut, free = ("chattr", "+i", "-i") if os.geteuid() == 0 else ("chmod", "500", "700")
    if subprocess.run([program, shut, folder], check=False).returncode:
        pytest.skip("the file system here has no folders that are read-only for root")
    try:
        yield
    finally:
        subprocess.run([program, free, folder], check=True)


def test_a_step_ends_in_error_while_its_folder_is_read_only(home: Path, server: ArgoProcess) -> None:
    argo = server.start()
    with read_only(home / "argo" / "pods"):
        ended = argo.ended(start(argo, sh("main", "true")))
        assert ended["status"]["phase"] == "Error"
        assert (
            "cannot prepare the step's folder: [Errno"
            in nodes_of(ended)[ended["metadata"]["name"]]["message"]
        )
    assert argo.ended(start(argo, sh("main", "true")))["status"]["phase"] == "Succeeded"


@pytest.fixture
def small(home: Path) -> Iterator[Path]:
    """A disk of 16 MiB at the server's home."""
    place = home / "argo"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_fails_the_step_that_filled_it_and_nothing_else(small: Path, server: ArgoProcess) -> None:
    argo = server.start()
    assert small == server.home
    filling = start(argo, sh("main", "head -c 64000000 /dev/zero > /tmp/large"))
    ended = argo.ended(filling)
    assert ended["status"]["phase"] == "Failed"
    assert nodes_of(ended)[filling]["outputs"]["exitCode"] == "1"
    assert argo.ended(start(argo, sh("main", "echo there is room again")))["status"]["phase"] == "Succeeded"


def test_all_invalid_settings_are_listed_in_one_error() -> None:
    environment = {"ARGO_PORT": "many", "ARGO_S3_SECURE": "perhaps", "ARGO_SLOTS": "3", "ARGO_OTHER": "x"}
    with pytest.raises(
        RuntimeError, match="ARGO_PORT: 'many' is not a whole number; ARGO_S3_SECURE: 'perhaps'"
    ):
        ArgoSettings.read(environment)
    environment = {
        "ARGO_SLOTS": "3",
        "ARGO_HOME": "/x",
        "ARGO_GRACE_SECONDS": "0.5",
        "ARGO_S3_SECURE": "true",
    }
    read = ArgoSettings.read(environment)
    assert (read.slots, read.home, read.grace_seconds, read.s3_secure) == (3, Path("/x"), 0.5, True)
