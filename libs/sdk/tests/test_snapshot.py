"""The snapshot of a project directory, with and without git, with any file name."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from periplus.sdk.snapshots.collection import SnapshotLimits, collect, editable_packages, packages
from periplus.sdk.snapshots.repository import read_repository, without_credentials


def git(folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
    }  # fmt: skip
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repo"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "tracked.py").write_text("x = 1\n")
    (folder / "sub" / "with space ü.txt").write_text("old\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_repository_is_its_commit(repository):
    git(
        repository, "remote", "add", "origin", "https://user:secret@example.org/team/project.git?token=secret"
    )
    found = collect(repository / "sub")
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert found.branch == "trunk"
    assert found.remote == "https://example.org/team/project.git"
    assert (found.patch, found.untracked, found.omitted, found.dirty) == (b"", {}, {}, False)


def test_changes_of_any_kind_make_a_patch_that_applies(repository, tmp_path):
    (repository / "tracked.py").write_text("x = 2\n")
    (repository / "sub" / "with space ü.txt").rename(repository / "sub" / "né\tw\n.txt")
    (repository / "image.bin").write_bytes(bytes(range(256)) * 4)
    git(repository, "add", "-A")
    (repository / "tracked.py").write_text("x = 3\n")
    found = collect(repository)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    subprocess.run(["git", "apply", "--index", "-"], cwd=clone, input=found.patch, check=True)
    assert (clone / "tracked.py").read_text() == "x = 3\n"
    assert (clone / "sub" / "né\tw\n.txt").read_text() == "old\n"
    assert (clone / "image.bin").read_bytes() == (repository / "image.bin").read_bytes()
    assert found.dirty


def test_the_former_name_of_a_renamed_file_is_not_read_as_an_entry(repository):
    (repository / "? trap").write_text("a long enough text to be seen as the same file\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "second")
    git(repository, "mv", "? trap", "moved")
    found = collect(repository)
    assert found.untracked == {}
    assert found.omitted == {}


def test_untracked_files_are_included_with_their_content_and_ignored_ones_are_not(repository):
    names = ["new.py", "with space.txt", "ümläut/deep file.txt", "line\nbreak", "-dash", '"quoted"']
    for name in names:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(name.encode())
    (repository / "noise.log").write_text("ignored")
    found = collect(repository)
    assert found.untracked == {name: name.encode() for name in names}
    assert found.omitted == {}


def test_files_that_are_too_large_or_not_regular_are_omitted_and_named(repository):
    (repository / "large").write_bytes(b"x" * 101)
    for name in ("a", "b"):
        (repository / name).write_bytes(b"x" * 90)
    (repository / "link").symlink_to("/etc/passwd")
    (repository / os.fsdecode(b"odd\xff")).write_text("x")
    found = collect(repository, SnapshotLimits(file_bytes=100, untracked_bytes=150))
    assert set(found.untracked) == {"a", os.fsdecode(b"odd\xff")}
    assert found.omitted == {
        "large": "101 bytes are too many", "b": "90 bytes are too many", "link": "no regular file",
    }  # fmt: skip
    assert found.dirty


def test_a_patch_beyond_the_limit_is_omitted_and_named(repository):
    (repository / "tracked.py").write_text("y = 1\n" * 1_000)
    found = collect(repository, SnapshotLimits(patch_bytes=1_000))
    assert found.patch == b""
    assert found.omitted == {"changes": "git printed more than 1000 bytes"}


def test_a_repository_without_a_commit_has_its_staged_files_as_a_patch(tmp_path):
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "one.py").write_text("x = 1\n")
    git(tmp_path, "add", "one.py")
    found = collect(tmp_path)
    assert (found.commit, found.branch) == ("", "trunk")
    assert b"+x = 1" in found.patch


def test_a_detached_head_has_no_branch(repository):
    git(repository, "checkout", "-q", "--detach")
    assert collect(repository).branch == ""


def test_a_directory_without_git_has_a_snapshot_without_a_commit(tmp_path):
    found = collect(tmp_path)
    assert (found.commit, found.branch, found.remote, found.patch, found.untracked) == ("", "", "", b"", {})
    assert found.python_version.count(".") == 2
    assert found.python_implementation == "cpython"
    assert found.platform.startswith("linux-")
    with pytest.raises(FileNotFoundError):
        collect(tmp_path / "nowhere")


def test_without_the_git_command_the_repository_is_named_as_omitted(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))
    assert collect(repository).omitted == {".git": "the git command is not installed"}


def test_a_broken_repository_is_named_as_omitted(repository):
    (repository / ".git" / "HEAD").write_text("nonsense")
    found = collect(repository)
    assert found.commit == ""
    assert "not a git repository" in found.omitted[".git"]


def test_nothing_that_the_repository_configures_is_run(repository, tmp_path):
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for setting in (
        "diff.external",
        "core.fsmonitor",
        "diff.trap.command",
        "diff.trap.textconv",
        "core.pager",
    ):
        git(repository, "config", setting, str(trap))
    (repository / ".gitattributes").write_text("*.py diff=trap\n")
    (repository / "tracked.py").write_text("x = 2\n")
    assert b"+x = 2" in collect(repository).patch
    assert not (tmp_path / "sprung").exists()


def test_reading_changes_nothing_in_the_repository(repository):
    os.utime(repository / "tracked.py", (1, 1))
    before = (repository / ".git" / "index").read_bytes()
    read_repository(repository, SnapshotLimits().patch_bytes)
    assert (repository / ".git" / "index").read_bytes() == before


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"uv.lock": "u", "poetry.lock": "p"}, ("uv.lock", "uv")),
        ({"pylock.toml": "l", "requirements.txt": "a==1 --hash=sha256:x"}, ("pylock.toml", "pylock")),
        ({"poetry.lock": "p"}, ("poetry.lock", "poetry")),
        ({"requirements.txt": "a==1 --hash=sha256:x"}, ("requirements.txt", "requirements")),
        ({"requirements.txt": "a==1"}, None),
        ({"../uv.lock": "u", "requirements.txt": "a"}, ("../uv.lock", "uv")),
        ({"../../uv.lock": "u"}, None),
    ],
)
def test_the_nearest_lockfile_that_pins_is_found_within_the_repository(repository, files, expected):
    folder = repository / "sub"
    for name, text in files.items():
        (folder / name).write_text(text)
    found = collect(folder).lockfile
    assert (found and (found.path, found.format)) == expected
    assert found is None or found.content == (folder / found.path).read_bytes()


def test_packages_are_looked_up_with_the_first_access():
    found = collect(Path(__file__).parent)
    assert "packages" not in vars(found)
    assert found.packages["scikit-learn"]
    assert found.packages is found.packages
    assert all(name == name.lower() and "_" not in name for name in found.packages)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://token@example.org/a.git", "https://example.org/a.git"),
        ("https://u:p@example.org:8443/a.git", "https://example.org:8443/a.git"),
        ("ssh://git@example.org/a.git", "ssh://example.org/a.git"),
        ("git@example.org:team/a.git", "git@example.org:team/a.git"),
        ("https://u:p%40@ss@example.org/a", "https://example.org/a"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("", ""),
    ],
)
def test_the_address_of_a_remote_has_no_credentials(url, public):
    assert without_credentials(url) == public


def test_packages_are_those_that_their_own_metadata_names(tmp_path, monkeypatch):
    import importlib.metadata

    odd = tmp_path / "odd_name.egg-info"
    odd.mkdir()
    (odd / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: Odd.Name\nVersion: 1.5\n")
    (tmp_path / "broken.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    expected = {
        re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version
        for one in reversed(list(importlib.metadata.distributions()))
        if one.metadata["Name"]
    }
    assert packages() == expected
    assert expected["odd-name"] == "1.5"


def test_editable_packages_are_those_whose_origin_says_so(tmp_path, monkeypatch):
    origins = {
        "Mine": '{"url": "file:///src", "dir_info": {"editable": true}}',
        "copied": '{"url": "file:///src", "dir_info": {}}',
        "archive": '{"url": "https://files.example/a.whl", "archive_info": {}}',
        "broken": "{",
        "listed": "[]",
        "indexed": "",
    }
    for name, origin in origins.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        if origin:
            (folder / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(tmp_path)
    assert editable_packages() & {name.lower() for name in origins} == {"mine"}
