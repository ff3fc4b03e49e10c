"""A snapshot has all of a working tree that git does not ignore, or names what it has not. Nothing of the tree is run or waited for."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from test_git import SECRET, git, made, submodule

from periplus.sdk.snapshots.claim import MAX_OMITTED, claim
from periplus.sdk.snapshots.collection import SnapshotLimits, collect

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return made(tmp_path / "repository", **{"two.py": "y = 1\n"})


def restored(repository: Path, clone: Path) -> Path:
    """What the snapshot of a repository gives: the commit with its submodules, the patch, and the files."""
    found = collect(repository)
    git(repository.parent, "clone", "-q", "--recurse-submodules", str(repository), str(clone))
    if found.patch:
        subprocess.run(["git", "apply", "-"], cwd=clone, input=found.patch, check=True)
    for path, content in found.untracked.items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes(content)
        (clone / path).chmod(0o755 if path in found.executable else 0o644)
    return clone


def contents(tree: Path) -> dict[str, bytes]:
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(tree).parts
    }


def test_the_changed_files_of_a_submodule_and_its_new_ones_are_in_the_snapshot(
    repository: Path, tmp_path: Path
) -> None:
    tree = submodule(repository, tmp_path)
    (tree / "one.py").write_text("x = 'changed'\n")
    (tree / "new folder").mkdir()
    (tree / "new folder/new.txt").write_text("new\n")
    (tree / "new folder/new.txt").chmod(0o755)
    (repository / "two.py").write_text("y = 2\n")
    found = collect(repository)
    assert found.omitted == {}
    assert b"+++ b/sub/one.py" in found.patch
    assert found.untracked == {"sub/new folder/new.txt": b"new\n"}
    clone = restored(repository, tmp_path / "clone")
    assert contents(clone) == contents(repository)
    assert os.access(clone / "sub/new folder/new.txt", os.X_OK)
    sent, _ = claim(repository)
    assert [file.executable for file in sent.git.untracked] == [True]


def test_a_submodule_that_is_not_checked_out_or_that_cannot_be_read_is_named(
    repository: Path, tmp_path: Path
) -> None:
    tree = submodule(repository, tmp_path)
    (tree / "one.py").write_text("x = 2\n")
    (repository / ".git/modules/sub/HEAD").write_text("nonsense")
    assert "not a git repository" in collect(repository).omitted["sub"]
    shutil.rmtree(tree)
    tree.mkdir()
    assert collect(repository).omitted == {"sub": "the submodule is not checked out"}


def test_files_that_git_was_told_not_to_compare_are_in_the_snapshot(repository: Path, tmp_path: Path) -> None:
    git(repository, "update-index", "--assume-unchanged", "one.py")
    git(repository, "update-index", "--skip-worktree", "two.py")
    assert (collect(repository).untracked, collect(repository).dirty) == ({}, False)
    (repository / "one.py").write_text("x = 'assumed'\n")
    (repository / "two.py").write_text("y = 'skipped'\n")
    found = collect(repository)
    assert found.untracked == {"one.py": b"x = 'assumed'\n", "two.py": b"y = 'skipped'\n"}
    assert found.omitted == {}
    assert contents(restored(repository, tmp_path / "clone")) == contents(repository)
    found = collect(repository, SnapshotLimits(file_bytes=3))
    assert set(found.omitted) == {"one.py", "two.py"}


def test_files_of_the_commit_that_a_sparse_checkout_has_not_are_named(repository: Path) -> None:
    (repository / "data").mkdir()
    (repository / "data/part.txt").write_text("1\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "data")
    git(repository, "sparse-checkout", "set", "--no-cone", "/*.py")
    assert not (repository / "data").exists()
    assert set(collect(repository).omitted) == {"data/part.txt"}
    assert collect(repository).patch == b""


def test_a_file_that_git_does_not_compare_is_not_read_through_a_link_out_of_the_project(
    repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "part.txt").write_text(SECRET)
    (repository / "data").mkdir()
    (repository / "data/part.txt").write_text("1\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "data")
    git(repository, "update-index", "--skip-worktree", "data/part.txt")
    shutil.rmtree(repository / "data")
    (repository / "data").symlink_to(other)
    found = collect(repository)
    assert SECRET not in repr(found)
    assert found.omitted["data/part.txt"] == "it leads out of the project"


def test_content_that_git_lfs_or_a_filter_has_is_named_and_a_changed_file_is_in_the_snapshot(
    repository: Path,
) -> None:
    (repository / ".gitattributes").write_text("*.bin filter=lfs\n*.csv filter=upper\n*.txt filter=none\n")
    for name, text in {
        "pointer.bin": POINTER, "changed.bin": POINTER, "made.csv": "A\n", "as-it-is.csv": "B\n", "plain.txt": "c\n",
    }.items():  # fmt: skip
        (repository / name).write_text(text)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "filtered")
    git(repository, "config", "filter.upper.clean", "tr a-z A-Z")
    (repository / "made.csv").write_text("a\n")
    os.utime(
        repository / "made.csv", (1, 1)
    )  # long before the index, so that its content is not compared again
    git(repository, "add", "made.csv")  # git has what the filter makes of it, and takes it for unchanged
    git(repository, "config", "filter.lfs.clean", "git-lfs-is-not-here clean -- %f")
    git(repository, "config", "filter.lfs.required", "true")
    (repository / "changed.bin").write_text("the content\n")
    found = collect(repository)
    assert found.commit
    assert found.omitted == {
        "pointer.bin": "Git LFS has its content, and the commit only a pointer to it",
        "made.csv": "the commit has what the filter upper makes of it",
    }
    assert b"+the content" in found.patch


def test_one_file_that_is_too_large_does_not_cost_the_other_changes(repository: Path) -> None:
    (repository / "one.py").write_bytes(os.urandom(3_000))
    (repository / "two.py").write_text("y = 2\n")
    found = collect(repository, SnapshotLimits(file_bytes=2_000, patch_bytes=2_000))
    assert found.omitted == {"one.py": "3000 bytes are too many"}
    assert b"+y = 2" in found.patch


def test_what_is_no_file_is_named_and_not_waited_for(repository: Path, tmp_path: Path) -> None:
    (repository / "one.py").unlink()
    os.mkfifo(repository / "one.py")  # in place of a tracked file: git gives up the whole comparison
    (repository / "empty/deep").mkdir(parents=True)
    os.mkfifo(repository / "empty/deep/pipe")
    os.mkfifo(repository / "uv.lock")
    (repository / ".gitignore").write_text("build\n*.pipe\n")
    (repository / "build").mkdir()
    for ignored in ("build/pipe", "a.pipe"):
        os.mkfifo(repository / ignored)
    (repository / "two.py").write_text("y = 2\n")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(repository)  # the path of a socket is short
        listening.bind("sock")
        os.chdir(here)
        found = collect(repository)
    fifo = "it is a fifo, which has no content of its own"
    assert found.omitted == {
        "one.py": fifo,
        "empty/deep/pipe": fifo,
        "uv.lock": fifo,
        "sock": "it is a socket, which has no content of its own",
    }
    assert b"+y = 2" in found.patch


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named_and_the_others_are_in_the_snapshot(repository: Path) -> None:
    (repository / "one.py").write_text("x = 2\n")
    (repository / "one.py").chmod(0)
    (repository / "two.py").write_text("y = 2\n")
    found = collect(repository)
    assert found.omitted == {"one.py": "Permission denied"}
    assert b"+y = 2" in found.patch


def test_links_out_of_the_project_are_named(repository: Path, tmp_path: Path) -> None:
    (repository / "out").symlink_to(tmp_path)
    (repository / "in").symlink_to("one.py")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "links")
    assert collect(repository).omitted == {"out": "it leads out of the project"}


def test_a_repository_within_the_repository_is_named(repository: Path) -> None:
    made(repository / "nested")
    assert "nested/" in collect(repository).omitted


def test_changes_before_the_first_commit_are_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "one.py").write_text("x = 1\n")
    sent, warnings = claim(tmp_path)
    assert not sent.HasField("git")
    assert [each.path for each in sent.omitted] == [b"changes"]
    assert warnings == [
        "changes is not in the snapshot: the repository has no commit that they could be compared with"
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_requirements_are_read_in_the_encodings_that_pip_reads(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"attrs==25.1.0 --hash=sha256:{'a' * 64}\n", encoding=encoding)
    found = collect(tmp_path)
    assert (found.lockfile and found.lockfile.format, found.omitted) == ("requirements", {})
    (tmp_path / "requirements.txt").write_text("attrs==25.1.0\n", encoding=encoding)
    found = collect(tmp_path)
    assert found.lockfile is None
    assert found.omitted == {"requirements.txt": "it has no hashes, so that it pins nothing, and is not read"}


def test_lockfiles_are_read_or_named_as_not_read(tmp_path: Path) -> None:
    for name in ("pixi.lock", "conda-lock.yml"):
        (tmp_path / name).write_text("version: 1\n")
        assert collect(tmp_path).omitted == {name: "lockfiles of this format are not read"}
        (tmp_path / name).unlink()
    for name in ("Pipfile.lock", "pdm.lock"):  # the latter is the first of the two
        (tmp_path / name).write_text("{}")
        assert claim(tmp_path)[0].lockfile.name == name


def test_what_is_omitted_is_sent_bounded_and_printable(repository: Path) -> None:
    for number in range(MAX_OMITTED + 5):
        (repository / f"link\x1b{number:03}").symlink_to("one.py")
    sent, warnings = claim(repository)
    assert len(sent.omitted) == MAX_OMITTED + 1
    assert sent.omitted[-1].path == b"5 more"
    assert warnings == [
        "link\x1b000, link\x1b001, link\x1b002 and 202 more are not in the snapshot: no regular file"
    ]
    assert len(sent.SerializeToString()) < 1 << 20
