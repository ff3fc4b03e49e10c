"""The files of the runner, which travel in the code archive: a step's image needs Python and nothing of Periplus."""

from __future__ import annotations

from pathlib import Path

FOLDER = "periplus-runner"
"""Its folder in the archive; no module of a project can have this name. Python runs the folder: it has a `__main__.py`."""

_SDK = Path(__file__).parents[1]
_MODULES = ("__init__.py", "errors.py", "runner.py", "step_packages.py")
# All that `periplus.sdk` itself exports: a user's module imports from it at its top.
_PACKAGES = ("pipelines", "values", "compiler", "discovery")


def runner_files() -> dict[str, Path]:
    """The runner's files by their names in the archive."""
    files = [_SDK / name for name in _MODULES]
    for package in _PACKAGES:
        files += (_SDK / package).rglob("*.py")
    names = {f"{FOLDER}/periplus/sdk/{file.relative_to(_SDK).as_posix()}": file for file in files}
    return {f"{FOLDER}/__main__.py": _SDK / "runner_main.py", **names}
