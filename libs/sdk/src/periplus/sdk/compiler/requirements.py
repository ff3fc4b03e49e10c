"""The packages that a step's process installs, from a file in the format of pip with a hash for each."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periplus.sdk.errors import PipelineError

if TYPE_CHECKING:
    from pathlib import Path

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*) ?(?P<extras>\[[^\]]*\])? ?== ?(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)"
    r" ?(?:; ?(?P<marker>[^#]*?))?(?P<hashes>( --hash=[a-z0-9]+:[0-9a-f]+)*)"
)
_FIX = "write it by `uv export --format requirements-txt`, `uv pip compile --generate-hashes` or `pip-compile --generate-hashes`"


@dataclass(frozen=True)
class Requirements:
    """One requirement a line, each with a version and hashes: equal for files that say the same."""

    text: str

    @property
    def digest(self) -> str:
        """sha256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_requirements(file: Path, function: str) -> Requirements:
    """The requirements of a file. Raises PipelineError for a line that does not pin one package to its files, and
    for options: where packages come from is no part of a pipeline.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as unreadable:
        raise _error(
            function, f"{file} cannot be read: {unreadable}", "name a file beside the step's"
        ) from None
    text = re.sub(r"\\\n", " ", text)
    lines = (re.sub(r"\s+", " ", re.sub(r"(^|\s)#.*", "", line)).strip() for line in text.splitlines())
    requirements = {_canonical(line, file, function) for line in lines if line}
    return Requirements("".join(f"{line}\n" for line in sorted(requirements)))


def _canonical(line: str, file: Path, function: str) -> str:
    if line.startswith("-"):
        option = re.split(r"[ =]", line)[0]
        raise _error(
            function,
            f"{file.name} has the option {option}",
            "leave it out; where packages come from is said where steps run, as by PIP_INDEX_URL in the image",
        )
    match = _REQUIREMENT.fullmatch(line)
    if not match:
        raise _error(function, f"{file.name} does not pin {line[:60]!r} to a version", _FIX)
    if not match["hashes"]:
        raise _error(function, f"{file.name} has no hash for {match['name']}", _FIX)
    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
    marker = f" ; {match['marker'].strip()}" if match["marker"] else ""
    hashes = " ".join(sorted(match["hashes"].split()))
    return f"{name}{match['extras'] or ''}=={match['version']}{marker} {hashes}"


def _error(function: str, what: str, fix: str) -> PipelineError:
    return PipelineError(what, function=function, argument="requirements", fix=fix)
