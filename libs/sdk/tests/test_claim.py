"""The claim of a run, as the snapshotter's message."""

import os
import subprocess
from pathlib import Path

import pytest

from periplus.sdk.snapshots.claim import claim
from periplus.sdk.snapshots.collection import SnapshotLimits

LOCK = 'version = 1\nrequires-python = ">=3.11"\n'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    (tmp_path / "tracked.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("remote", "add", "origin", "https://me:secret@code.example/team/x.git")
    return tmp_path


def test_a_dirty_tree_is_sent_with_any_file_name_and_without_credentials(repository: Path) -> None:
    (repository / "tracked.py").write_text("x = 2\n")
    for name in (b"new file\n.txt", "größe".encode(), b"raw\xff"):
        (repository / os.fsdecode(name)).write_bytes(name)
    message, warnings = claim(repository, b"\x1f\x8bcode")
    assert warnings == []
    assert len(message.git.commit) == 40
    assert (message.git.branch, message.git.remote) == ("main", "https://code.example/team/x.git")
    assert b"+x = 2" in message.git.patch
    assert {file.path: file.content for file in message.git.untracked} == {
        name: name for name in (b"new file\n.txt", "größe".encode(), b"raw\xff")
    }
    assert message.code_archive == b"\x1f\x8bcode"
    assert (message.platform.system, message.platform.machine) == (os.uname().sysname, os.uname().machine)


def test_a_lockfile_is_sent_under_the_name_of_its_format(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(LOCK)
    message, _ = claim(tmp_path)
    assert (message.lockfile.name, message.lockfile.content) == ("uv.lock", LOCK.encode())
    assert not message.HasField("git")
    message, warnings = claim(tmp_path, limits=SnapshotLimits(sent_lockfile_bytes=10))
    assert not message.HasField("lockfile")
    assert warnings == ["uv.lock is not in the snapshot: it has more than 10 bytes"]
