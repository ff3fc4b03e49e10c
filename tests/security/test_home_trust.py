"""A home is trusted only if this user made it on this machine: nothing of any other is read, run, ended or removed."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from stack import ROOT, wait_until_ended

from periplus_local.argo.testing import Client
from periplus_local.boot import start_time
from periplus_local.stack import detach, doctor, down, lock
from periplus_local.stack import up as up_here
from periplus_local.stack.home import Home, HomeError, UntrustedHomeError

BIN = Path(sys.executable).parent
COMMANDS = (("up",), ("up", "--detach"), ("down",), ("doctor",), ("argo", "serve"))
WAITS = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {{generateName: waits-}}
spec:
  entrypoint: main
  templates:
  - name: main
    steps: [[{{name: wait, template: wait}}], [{{name: mark, template: mark}}]]
  - {{name: wait, suspend: {{duration: "2s"}}}}
  - {{name: mark, container: {{image: any, command: [touch, {mark}]}}}}
"""


def periplus(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does. One that stays in the foreground is not expected to start."""
    return subprocess.run(
        [BIN / "periplus", *arguments],
        env=os.environ | environment,
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    made.secret("token")
    return made


def clone(found: Path, to: Path) -> None:
    """Commit a folder, and clone the repository."""
    origin = to.parent / f"{to.name}-origin"
    shutil.copytree(found, origin / to.name, symlinks=True)
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for command in (["init", "-q"], ["add", "-f", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *command], check=True)
    cloned = to.parent / f"{to.name}-clone"
    subprocess.run(["git", "clone", "-q", origin, cloned], check=True)
    (cloned / to.name).rename(to)


def clone_made_private(found: Path, to: Path) -> None:
    clone(found, to)
    subprocess.run(["chmod", "-R", "go=", to], check=True)


def archive(found: Path, to: Path) -> None:
    """Pack a folder and unpack it, with its permissions."""
    packed = to.with_suffix(".tar")
    subprocess.run(["tar", "-cf", packed, "-C", found, "."], check=True)
    to.mkdir()
    subprocess.run(["tar", "-xpf", packed, "-C", to], check=True)
    assert to.stat().st_mode == found.stat().st_mode


def copy(found: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", found, to], check=True)


def restore_in_its_place(found: Path, to: Path) -> None:
    """A backup of a home that is gone; file systems use inode numbers again."""
    backup = to.with_suffix(".backup")
    copy(found, backup)
    shutil.rmtree(found)
    copy(backup, to)


def link(found: Path, to: Path) -> None:
    to.symlink_to(found)


CARRIERS: list[Callable[[Path, Path], None]] = [
    clone, clone_made_private, archive, copy, restore_in_its_place, link
]  # fmt: skip


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.__name__)
def test_a_home_that_came_from_elsewhere_is_refused_as_it_is(
    home: Home, tmp_path: Path, carrier: Callable[[Path, Path], None]
) -> None:
    there = Home(tmp_path / "there")
    carrier(home.path, there.path)
    before = content(there.path)
    for use in (there.check, there.create):
        with pytest.raises(UntrustedHomeError, match="is not trusted, and nothing in it is used"):
            use()
    assert content(there.path) == before


def test_each_command_refuses_such_a_home_and_names_the_one_that_starts_afresh(
    home: Home, tmp_path: Path
) -> None:
    copy(home.path, tmp_path / "there")
    for command in COMMANDS:
        said = periplus(*command, "--home", str(tmp_path / "there"))
        assert said.returncode == (1 if command == ("doctor",) else 6), said
        assert f"{tmp_path / 'there'} is not trusted" in said.stdout + said.stderr
        start = "argo serve" if command[0] == "argo" else "up"
        assert f"periplus {start} --fresh" in said.stdout + said.stderr
        assert "--trust-home" not in said.stdout + said.stderr


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of everything in a folder."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
    }


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user's that is not of a stack."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_processes_and_files_that_such_a_home_names_are_not_touched(
    home: Home, tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    there = Home(tmp_path / "there")
    copy(home.path, there.path)
    record = {
        "name": "nats", "pid": bystander.pid, "start_time": start_time(bystander.pid),
        "stop_signal": 9, "temporary": [str(precious)],
    }  # fmt: skip
    (there.run / "processes.json").write_text(json.dumps({"nats": record}))
    holder = {"pid": bystander.pid, "start_time": start_time(bystander.pid), "since": 0.0, "addresses": {}}
    (there.run / "holder.json").write_text(json.dumps(holder))
    with (there.run / "lock").open("w") as held:  # as if the bystander held it
        fcntl.flock(held, fcntl.LOCK_EX)
        for use in (
            down,
            detach,
            up_here,
            lambda path: lock.trust(Home(path)),
            lambda path: lock.start_afresh(Home(path)),
        ):
            with pytest.raises(HomeError):
                use(there.path)
    assert [finding.subject for finding in doctor(there.path)][-2:] == ["home", "disk"]
    lock.trust(there)
    for read in (there.run / "processes.json", there.run / "holder.json"):
        assert not read.exists()
    assert bystander.poll() is None
    assert precious.exists()


@pytest.fixture
def mark() -> Iterator[Path]:
    """A path that steps can make; they have a /tmp of their own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder) / "mark"


@contextmanager
def argo_served(home: Path, *options: str) -> Iterator[Client]:
    """The local Argo as `periplus argo serve` runs it, without a store; killed at the end, as a machine that loses power."""
    command = [BIN / "periplus", "argo", "serve", "-o", "json", "--s3-endpoint", "127.0.0.1:1"]
    keys = {"S3_ACCESS_KEY": "none", "S3_SECRET_KEY": "none"}
    with subprocess.Popen(
        [*command, "--home", home, *options],
        env=os.environ | keys, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        try:
            found = json.loads(process.stdout.readline())
            yield Client(found["address"], Path(found["token_file"]).read_text())
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            wait_until_ended(children)


def test_a_waiting_workflow_of_an_archived_home_does_not_run(tmp_path: Path, mark: Path) -> None:
    there = tmp_path / ".periplus"
    with argo_served(tmp_path / "victim") as argo:
        argo.create(yaml.safe_load(WAITS.format(mark=mark)))
    assert not mark.exists()
    archive(tmp_path / "victim", there)
    before = content(there)
    assert periplus("up", "--detach", "--home", str(there)).returncode == 6
    assert content(there) == before

    with argo_served(there, "--fresh") as argo:  # as `up --fresh` does
        assert not argo.call("GET", "workflows/argo")["items"]
    assert not mark.exists()
    (aside,) = tmp_path.glob(".periplus.untrusted-*")
    assert content(aside) == before

    # The control: the same workflow would have run.
    with argo_served(aside, "--trust-home"):
        deadline = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert mark.exists()


def test_the_folders_of_a_home_must_be_as_private_as_it_was_made(home: Home) -> None:
    for folder in (home.path, home.data, home.run, home.log, home.secrets):
        folder.chmod(0o750)
        with pytest.raises(UntrustedHomeError, match=rf"{folder} is open to others \(mode 0750\)"):
            home.create()
        folder.chmod(0o700)
    home.create()


def test_a_folder_of_a_home_is_no_link_to_another_place(home: Home, tmp_path: Path) -> None:
    home.data.rename(tmp_path / "data")
    home.data.symlink_to(tmp_path / "data")
    with pytest.raises(UntrustedHomeError, match="data is no folder"):
        home.create()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_what_belongs_to_another_user_is_refused(home: Home) -> None:
    for path in (home.path, home.run, home.secrets / "token"):
        os.chown(path, 65534, 65534)
        with pytest.raises(UntrustedHomeError, match=f"{path} belongs to user 65534"):
            home.check()
        os.chown(path, 0, 0)
    home.check()


def test_a_renamed_home_is_still_trusted(home: Home, tmp_path: Path) -> None:
    home.path.rename(tmp_path / "renamed")
    Home(tmp_path / "renamed").create()
    assert Home(tmp_path / "renamed").secret("token")


def test_an_empty_folder_becomes_a_home_that_is_private(tmp_path: Path) -> None:
    found = Home(tmp_path / "empty")
    found.path.mkdir(mode=0o755)
    found.create()
    assert found.path.stat().st_mode & 0o777 == 0o700
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".keep").touch()
    with pytest.raises(UntrustedHomeError):
        Home(tmp_path / "full").create()


def test_a_folder_with_nothing_but_trusted_homes_becomes_a_home(tmp_path: Path) -> None:
    inner = Home(tmp_path / ".periplus" / "argo")
    inner.create()
    outer = Home(tmp_path / ".periplus")
    outer.create()
    inner.check()
    (tmp_path / "other").mkdir()
    copy(inner.path, tmp_path / "other" / "argo")
    with pytest.raises(UntrustedHomeError):
        Home(tmp_path / "other").create()


def test_files_that_a_pull_puts_into_a_trusted_home_are_not_believed(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example"]
    origin, project = tmp_path / "origin", tmp_path / "project"
    for command in (
        ["init", "-q", str(origin)],
        ["-C", str(origin), "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run([*git, *command], check=True)
    subprocess.run([*git, "clone", "-q", origin, project], check=True)
    own = Home(project / ".periplus")
    own.create()
    state = Path(".periplus/data/argo/state.sqlite3")
    for folder, text in ((project, "mine"), (origin, "planted")):
        (folder / state).parent.mkdir(parents=True)
        (folder / state).write_text(text)
    own.create()
    for command in (["add", "-f", str(state)], ["commit", "-q", "-m", "b"]):
        subprocess.run([*git, "-C", origin, *command], check=True)
    subprocess.run([*git, "-C", project, "pull", "-q"], check=True)
    assert (project / state).read_text() == "planted"  # git takes ignored files for files that nobody needs
    with pytest.raises(UntrustedHomeError, match=f"git tracks {state}"):
        own.create()
    subprocess.run([*git, "-C", project, "rm", "-q", "-r", "--cached", ".periplus"], check=True)
    own.create()


def test_only_a_home_from_elsewhere_is_moved_aside(home: Home, tmp_path: Path) -> None:
    for path in (home.path, tmp_path / "nothing"):
        with pytest.raises(HomeError, match="nothing to move aside"):
            lock.start_afresh(Home(path))
    assert periplus("up", "--fresh", "--trust-home", "--home", str(home.path)).returncode == 2


def test_a_key_that_others_may_know_seals_nothing(home: Home, tmp_path: Path) -> None:
    def refused(state: Path) -> str:
        environment = {"XDG_STATE_HOME": str(state)}
        said = periplus("up", "--detach", "--home", str(tmp_path / "new"), **environment)
        assert said.returncode == 2
        assert not (tmp_path / "new" / "seal").exists()
        return said.stderr

    state = tmp_path / "state"
    shutil.copytree(os.environ["XDG_STATE_HOME"], state)
    (state / "periplus" / "home.key").chmod(0o640)
    assert "is not a file of 32 bytes that is yours alone" in refused(state)
    (state / "periplus" / "home.key").chmod(0o600)
    (state / "periplus").chmod(0o755)
    assert "is not a folder of yours alone" in refused(state)
    (tmp_path / "file").touch()
    assert "set XDG_STATE_HOME to a folder of your own" in refused(tmp_path / "file")


def test_a_home_of_another_key_or_machine_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with pytest.raises(UntrustedHomeError):
        home.check()
    Home(tmp_path / "own").create()
    with pytest.raises(UntrustedHomeError):
        home.check()


def test_a_relative_state_folder_of_the_project_is_not_used(tmp_path: Path) -> None:
    found = periplus("down", "--home", str(tmp_path / "home"), XDG_STATE_HOME="state")
    assert found.returncode == 0
    asked = subprocess.run(
        [sys.executable, "-c", "from periplus_local.stack import seal; print(seal.key_file())"],
        env=os.environ | {"XDG_STATE_HOME": "state", "HOME": str(tmp_path)},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert asked.stdout == f"{tmp_path}/.local/state/periplus/home.key\n"
