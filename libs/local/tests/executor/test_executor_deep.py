"""Folders thousands of levels deep: removed, and refused as an artifact, without an error of Python's."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from periplus_local.argo.executor import archive
from periplus_local.argo.executor.cleanup import remove
from periplus_local.argo.executor.job import Job, PodError
from periplus_local.argo.executor.process_executor import ProcessExecutor

Sh = Callable[..., Job]
DEEP = (
    "import os; os.mkdir('{0}'); os.chdir('{0}')\n"
    "for _ in range({1}): os.mkdir('d'); os.chdir('d')\n"
    "open('f', 'w').close()"
)


@pytest.fixture(autouse=True)
def deep_folders_removed(tmp_path: Path) -> Iterator[None]:
    """Remove what a test leaves: pytest's own removal gives a RecursionError on Python before 3.13."""
    yield
    for path in tmp_path.iterdir():
        remove(path)


def deep(folder: Path, levels: int) -> Path:
    """Folders within one another, deeper than a path can name."""
    folder.mkdir()
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir("d")  # noqa: PTH102 - below the path that a Path could name
            os.chdir("d")
        Path("f").touch()
    finally:
        os.fchdir(before)
        os.close(before)
    return folder


@pytest.mark.parametrize("levels", [50, 900, 2_000, 10_000])
def test_a_deep_folder_is_removed(tmp_path: Path, levels: int) -> None:
    remove(deep(tmp_path / "top", levels))
    assert not (tmp_path / "top").exists()


def test_a_folder_without_permissions_is_removed_and_what_its_links_point_at_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "f").touch()
    (top / "a" / "link").symlink_to(tmp_path / "kept")
    for folder in (top / "a" / "b", top / "a", top):
        folder.chmod(0o500)
    remove(top)
    assert not top.exists()
    assert (tmp_path / "kept" / "file").exists()


@pytest.mark.parametrize("pack", [archive.pack_tar, archive.pack_zip])
def test_only_folders_that_can_be_unpacked_again_are_packed(
    tmp_path: Path, pack: Callable[..., None]
) -> None:
    pack(deep(tmp_path / "fits", 90), "fits", tmp_path / "packed")
    for levels in (101, 2_000, 10_000):
        with pytest.raises(PodError, match="more than 100 folders within one another"):
            pack(deep(tmp_path / f"d{levels}", levels), "d", tmp_path / "packed")
        remove(tmp_path / f"d{levels}")


@pytest.mark.parametrize("strategy", [{}, {"archive": {"none": {}}}, {"archive": {"zip": {}}}])
async def test_a_step_with_a_deep_artifact_ends_in_error_and_leaves_nothing(
    stored: ProcessExecutor, sh: Sh, strategy: dict[str, Any]
) -> None:
    outputs = {"artifacts": [{"name": "a", "path": "/tmp/a", **strategy}]}
    container = {"command": ["python3", "-c"], "args": [DEEP.format("/tmp/a", 3_000)]}
    result = await stored.run(sh("", container=container, outputs=outputs))
    assert (result.phase, "more than 100 folders within one another" in result.message) == ("Error", True)


async def test_the_step_after_one_that_left_deep_folders_runs(executor: ProcessExecutor, sh: Sh) -> None:
    container = {"command": ["python3", "-c"], "args": [DEEP.format("/tmp/a", 3_000)]}
    for _ in range(3):
        assert (await executor.run(sh("", container=container))).phase == "Succeeded"
    # Not all of /tmp: folders of this very process' sys.path are visible in it, and other tests add some.
    result = await executor.run(sh("test ! -e /tmp/a"))
    assert result.phase == "Succeeded"
