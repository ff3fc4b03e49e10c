"""The local Argo alone: every command of its README, and what `periplus argo serve` says when it cannot run."""

import json
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from argo_server import BIN, SCRIPT, USES, ArgoServer, environment, served

__all__ = ["served"]


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`periplus argo serve` of which a failure is expected."""
    command = [str(BIN / "periplus"), "argo", "serve", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=90, check=False)


def test_the_readmes_script_does_what_it_says(served: ArgoServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=served.env(), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("Succeeded\n", 0), done.stderr


@pytest.mark.parametrize("command", USES)
def test_the_readmes_command_does_what_it_says(served: ArgoServer, command: str) -> None:
    if not shutil.which(command.split(maxsplit=1)[0]):
        pytest.skip(f"{command.split(maxsplit=1)[0]} is not on the PATH")
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=served.folder,
        env=served.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello" in done.stdout


def test_the_token_is_its_owners_alone_and_neither_printed_nor_an_argument(served: ArgoServer) -> None:
    file = served.home / "secrets/argo-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    processes = [psutil.Process(served.process.pid)]
    processes += processes[0].children(recursive=True)
    shown = [" ".join(process.cmdline()) for process in processes] + served.printed
    shown += [log.read_text(errors="replace") for log in (served.home / "log").iterdir()]
    assert not any(file.read_text() in text for text in shown)


def test_a_second_one_on_the_same_home_says_who_holds_it(served: ArgoServer) -> None:
    said = serve("--home", str(served.home))
    assert said.returncode == 6
    assert f"is held by process {served.process.pid}" in said.stderr
    assert f"fix:   periplus down --home {served.home}" in said.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = serve("--home", str(tmp_path / "home"), "--port", str(port))
    assert said.returncode == 2
    assert f"port {port} on 127.0.0.1: Address already in use; choose another --port" in said.stderr


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = serve("--home", str(tmp_path / "file/home"))
    assert said.returncode == 2
    assert f"{tmp_path}/file/home: Not a directory; choose another home (--home" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("a" * 32, 0o644, "is open to others (mode 0644): chmod 600"),
        ("short", 0o600, "holds no token"),
        ("two\nlines of text that are long enough", 0o600, "holds no token"),
    ],
)
def test_a_token_file_that_is_no_secret_is_refused(tmp_path: Path, text: str, mode: int, why: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    said = serve("--home", str(tmp_path / "home"), "--token-file", str(file))
    assert said.returncode == 2
    assert f"the token file {file} {why}" in said.stderr


def test_a_store_without_its_keys_is_refused(tmp_path: Path) -> None:
    said = serve("--home", str(tmp_path / "home"), "--s3-endpoint", "127.0.0.1:9")
    assert said.returncode == 2
    assert "S3_ACCESS_KEY and S3_SECRET_KEY must be set for the store at 127.0.0.1:9" in said.stderr


def test_what_is_chosen_is_kept_and_machines_get_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "token"
    command = [str(BIN / "periplus"), "argo", "serve", "-o", "json", "--home", str(tmp_path / "home")]
    keys = {"S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "b", "S3_ENDPOINT": "127.0.0.1:9"}
    for chosen in (["--port", str(port), "--token-file", str(file)], ["--token-file", str(file)]):
        with subprocess.Popen(
            [*command, *chosen],
            env=environment(**keys),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            line = json.loads(process.stdout.readline())
            programs = [child.name() for child in psutil.Process(process.pid).children()]
            process.terminate()
            assert process.wait(60) == 0
        assert line == {
            "address": f"http://127.0.0.1:{port}",
            "token_file": str(file),
            "home": str(tmp_path / "home"),
            "pid": process.pid,
        }
        assert len(programs) == 1  # the store is elsewhere
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
