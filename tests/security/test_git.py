"""A run reads the state of a stranger's repository: no program that it configures runs, and nothing outside of it is read."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from periplus.sdk.snapshots.claim import claim
from periplus.sdk.snapshots.collection import Snapshot, collect

SECRET = "the-secret-of-another-project"
ENVIRONMENT = os.environ | {
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_ALLOW_PROTOCOL": "file:ext",
    **{f"GIT_{who}_{what}": f"a@{what}.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}  # fmt: skip


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"git {arguments}: {done.stderr}")
    return done.stdout.strip()


def made(folder: Path, **files: str) -> Path:
    """A repository with one commit of these files."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for name, text in {"one.py": "x = 1\n", **files}.items():
        (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return made(tmp_path / "repository")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a trap makes."""
    return tmp_path / "mark"


@pytest.fixture
def trap(tmp_path: Path, mark: Path) -> Path:
    program = tmp_path / "trap"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    return program


def change(repository: Path) -> None:
    """Change a file, without its size, and give it the attributes of every trap."""
    attributes = '*.py filter=trap diff=trap merge=trap\n"odd name" filter=trap\n'
    (repository / ".gitattributes").write_text(attributes)
    (repository / "one.py").write_text("x = 2\n")
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/attributes").write_text(attributes)


RUN_BY_GIT = {
    "core.fsmonitor", "filter.trap.clean", "filter.trap.process", "diff.external", "diff.trap.command", "diff.trap.textconv",
}  # fmt: skip
"""What plain `git status` and `git diff` run of the settings below: the traps do spring."""
SETTINGS = sorted(
    RUN_BY_GIT
    | {
        "core.pager", "pager.status", "pager.diff", "core.editor", "sequence.editor", "core.sshCommand", "core.askPass",
        "core.gitProxy", "core.alternateRefsCommand", "credential.helper", "gpg.program", "interactive.diffFilter",
        "merge.trap.driver", "filter.trap.smudge", "remote.origin.uploadpack", "uploadpack.packObjectsHook",
        "alias.status", "alias.diff", "alias.config", "alias.hash-object", "filter.a.b=c.clean", "diff.guitool",
    }
)  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_program_that_a_repository_configures_runs(
    repository: Path, trap: Path, mark: Path, setting: str
) -> None:
    value = f"!{trap}" if setting.startswith("alias.") else str(trap)
    section, _, name = setting.rpartition(".")
    first, _, subsection = section.partition(".")
    head = f'[{first} "{subsection}"]' if subsection else f"[{first}]"
    with (repository / ".git/config").open("a") as config:
        config.write(f"{head}\n\t{name} = {value}\n")
    change(repository)
    found = collect(repository)
    assert not mark.exists()
    if "=" in setting:
        assert "filters that git can not be kept from running" in found.omitted[".git"]
    else:
        assert b"+x = 2" in found.patch
        assert found.omitted == {}
    git(repository, "status", check=False)
    git(repository, "diff", check=False)
    assert mark.exists() == (setting in RUN_BY_GIT)


def test_a_filter_that_is_required_or_included_or_of_a_worktree_does_not_run(
    repository: Path, trap: Path, mark: Path, tmp_path: Path
) -> None:
    (tmp_path / "included").write_text(f'[filter "trap"]\n\tclean = {trap}\n\trequired = true\n')
    git(repository, "config", "include.path", str(tmp_path / "included"))
    git(repository, "config", "extensions.worktreeConfig", "true")
    git(repository, "config", "--worktree", "filter.trap.process", str(trap))
    change(repository)
    assert b"+x = 2" in collect(repository).patch
    assert not mark.exists()
    git(repository, "status", check=False)
    assert mark.exists()


def test_no_hook_runs(repository: Path, trap: Path, mark: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    shutil.copytree(repository / ".git/hooks", hooks, dirs_exist_ok=True)
    names = (
        "post-index-change",
        "pre-commit",
        "post-checkout",
        "reference-transaction",
        "fsmonitor-watchman",
    )
    for folder in (hooks, repository / ".git/hooks"):
        for name in names:
            shutil.copy(trap, folder / name)
    git(repository, "config", "core.hooksPath", str(hooks))
    change(repository)
    os.utime(repository / "one.py", (1, 1))
    assert b"+x = 2" in collect(repository).patch
    assert not mark.exists()
    git(repository, "add", ".")
    assert mark.exists()


def test_a_partial_clone_fetches_nothing(repository: Path, trap: Path, mark: Path) -> None:
    blob = git(repository, "rev-parse", "HEAD:one.py")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    for setting, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{trap}",
        "protocol.ext.allow": "always",
        "protocol.allow": "always",
    }.items():
        git(repository, "config", setting, value)
    (repository / "one.py").write_text("x = 2\n")
    found = collect(repository)
    assert found.omitted["changes"]
    assert not mark.exists()
    git(repository, "diff", check=False)
    assert mark.exists()


def submodule(repository: Path, tmp_path: Path) -> Path:
    """Add a submodule, and return its working tree."""
    origin = made(tmp_path / "origin")
    git(repository, "submodule", "--quiet", "add", str(origin), "sub")
    git(repository, "commit", "-q", "-m", "with a submodule")
    return repository / "sub"


def test_no_program_of_a_submodule_runs(repository: Path, trap: Path, mark: Path, tmp_path: Path) -> None:
    tree = submodule(repository, tmp_path)
    (tree / "one.py").write_text("x = 5\n")
    git(tree, "commit", "-q", "-a", "-m", "second")  # which `diff.submodule=diff` compares in the submodule
    for setting in ("core.fsmonitor", "filter.other.clean", "filter.other.process", "diff.external"):
        git(tree, "config", setting, str(trap))
    git(repository, "config", "diff.submodule", "diff")
    git(repository, "config", "submodule.sub.ignore", "none")
    git(repository, "config", "status.submoduleSummary", "true")
    (tree / ".gitattributes").write_text("*.py filter=other\n")
    (tree / "one.py").write_text("x = 2\n")
    (repository / "one.py").write_text("x = 3\n")
    assert b"+x = 3" in collect(repository).patch
    assert not mark.exists()
    git(repository, "status", check=False)
    assert mark.exists()


def test_the_commit_of_a_submodule_is_in_the_snapshot(repository: Path, tmp_path: Path) -> None:
    tree = submodule(repository, tmp_path)
    assert (collect(repository).patch, collect(repository).omitted) == (b"", {})
    git(tree, "commit", "-q", "--allow-empty", "-m", "second")
    head = git(tree, "rev-parse", "HEAD")
    found = collect(repository)
    assert f"+Subproject commit {head}".encode() in found.patch
    assert found.omitted == {}
    assert collect(tree).commit == head


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A repository of the same user that the project must not show."""
    found = made(tmp_path / "other", **{"secret.txt": SECRET, "uv.lock": SECRET})
    (found / "untracked.txt").write_text(SECRET)
    return found


def shows(found: Snapshot, other: Path) -> bool:
    everything = repr(found).encode() + found.patch
    return SECRET.encode() in everything or git(other, "rev-parse", "HEAD").encode() in everything


def test_a_git_file_or_link_to_another_repository_is_not_followed(other: Path, tmp_path: Path) -> None:
    for kind in ("file", "link"):
        project = tmp_path / kind
        project.mkdir()
        if kind == "file":
            (project / ".git").write_text(f"gitdir: {other / '.git'}\n")
        else:
            (project / ".git").symlink_to(other / ".git")
        found = collect(project)
        assert (
            f"it leads to {other}/.git, which is not the repository of this folder" in found.omitted[".git"]
        )
        assert not shows(found, other)
        assert git(project, "diff", "HEAD", "--", "secret.txt")  # git itself would show it


def test_a_working_tree_that_the_configuration_names_is_not_read(repository: Path, other: Path) -> None:
    git(repository, "config", "core.worktree", str(other))
    assert "untracked.txt" in git(repository, "status", "--short")
    found = collect(repository)
    assert not shows(found, other)
    assert (found.untracked, found.omitted) == ({}, {})


def test_a_submodule_that_leads_elsewhere_is_not_read(repository: Path, other: Path, tmp_path: Path) -> None:
    tree = submodule(repository, tmp_path)
    (tree / ".git").unlink()
    (tree / ".git").write_text(f"gitdir: {other / '.git'}\n")
    (repository / "one.py").write_text("x = 3\n")
    found = collect(repository)
    assert "is not the repository of this folder" in found.omitted["sub"]
    assert b"+x = 3" in found.patch
    assert not shows(found, other)
    assert not shows(collect(tree), other)
    shutil.rmtree(tree)
    tree.symlink_to(other)
    assert not shows(collect(repository), other)


def test_a_path_of_gitmodules_outside_of_the_project_is_not_read(repository: Path, other: Path) -> None:
    (repository / ".gitmodules").write_text(f'[submodule "a"]\n\tpath = ../{other.name}\n\turl = {other}\n')
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "second")
    git(repository, "config", "submodule.a.active", "true")
    git(repository, "config", "submodule.recurse", "true")
    found = collect(repository)
    assert (found.patch, found.untracked, found.omitted) == (b"", {}, {})
    assert not shows(found, other)


def test_a_link_to_a_file_outside_of_the_project_is_not_read(repository: Path, other: Path) -> None:
    (repository / "uv.lock").symlink_to(other / "uv.lock")
    (repository / "untracked").symlink_to(other)
    (repository / "more.txt").symlink_to(other / "secret.txt")
    found = collect(repository)
    assert found.lockfile is None
    assert found.omitted["uv.lock"] == "it leads out of the project"
    assert not shows(found, other)
    sent, warnings = claim(repository)
    assert SECRET.encode() not in sent.SerializeToString()
    assert "uv.lock is not in the snapshot: it leads out of the project" in warnings


def test_a_linked_worktree_and_a_repository_kept_apart_are_read(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")
    found = collect(tmp_path / "linked")
    assert (found.branch, found.omitted) == ("side", {})
    apart = tmp_path / "apart"
    apart.mkdir()
    git(tmp_path, "init", "-q", "-b", "main", f"--separate-git-dir={tmp_path / 'kept.git'}", str(apart))
    assert "is not the repository of this folder" in collect(apart).omitted[".git"]
    git(apart, "config", "core.worktree", str(apart))
    assert collect(apart).branch == "main"
    assert collect(apart).omitted == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a repository away")
def test_a_repository_of_another_user_is_not_read(repository: Path) -> None:
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    assert "dubious ownership" in collect(repository).omitted[".git"]
