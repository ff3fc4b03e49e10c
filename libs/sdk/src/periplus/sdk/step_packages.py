"""The packages of a step's `requirements`, installed by pip when its process starts, where its image does not have them."""

from __future__ import annotations

import sys
from pathlib import Path

from periplus.sdk.errors import PipelineError

FOLDER = "requirements"
"""In the runner's folder of the code archive: a file of requirements for each digest."""

_RUNNER = Path(__file__).parents[2]


def add_packages(digest: str) -> None:
    """Install the requirements of this digest that this Python does not have, and put them first on the import path.

    Where packages come from is for the environment to say, as by PIP_INDEX_URL. What pip prints goes to the log if it
    fails; raises PipelineError with the end of it.
    """
    requirements = (_RUNNER / FOLDER / f"{digest}.txt").read_text("utf-8").splitlines()
    missing = [line for line in requirements if not _is_installed(line)]
    if not missing:
        return
    import subprocess
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="periplus-packages-"))
    selected = folder / "requirements.txt"
    selected.write_text("".join(f"{line}\n" for line in missing), "utf-8")
    # Wheels only: a source package would run code of packages that have no hash here.
    options = [
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
        "--target",
        str(folder),
        "--requirement",
        str(selected),
    ]
    quiet = [
        "--quiet",
        "--no-input",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
    ]
    done = subprocess.run(  # noqa: S603 - of the step's own image
        [sys.executable, "-m", "pip", "install", *quiet, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        printed = done.stdout.decode(errors="replace")
        sys.stderr.write(printed)
        said = printed.strip().splitlines()
        names = ", ".join(line.partition("==")[0] for line in missing[:5]) + (
            "" if len(missing) <= 5 else ", …"
        )
        raise PipelineError(
            f"{names} cannot be installed: {said[-1] if said else done.returncode}",
            argument="requirements",
            fix="run the step in an image that has them, or set PIP_INDEX_URL where it runs to an index that has",
        )
    sys.path.insert(0, str(folder))


def _is_installed(requirement: str) -> bool:
    from importlib import metadata

    name, _, rest = requirement.partition("==")
    try:
        return metadata.version(name.partition("[")[0]) == rest.split(" ", 1)[0]
    except metadata.PackageNotFoundError:
        return False
