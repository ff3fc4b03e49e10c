"""requirements.txt where it is a lock: every line pins one version and names the hashes of its files."""

import re
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.pins import Pin, pin

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_HASH = re.compile(r"\s--hash(?:=|\s+)(\S+)")
_NAMES = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
# Options that say where files are looked for, and not which: the hashes decide that.
_HARMLESS = (
    "-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--no-binary", "--only-binary",
    "--prefer-binary", "--require-hashes", "--pre", "--trusted-host", "--use-feature",
)  # fmt: skip


def pins(content: bytes) -> Iterator[Pin]:
    """Every requirement. Includes, editable trees and addresses are refused: they pin nothing."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"byte {error.start} is not UTF-8") from error
    for number, line in _lines(text):
        where = f"line {number}"
        if line.startswith("-"):
            _option(line, where)
        else:
            yield _requirement(line, where)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first: continued ones joined, comments and empty ones left out."""
    begun, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        first = first if begun else number
        line = raw if not raw.lstrip().startswith("#") else ""
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        whole = _COMMENT.sub("", begun + line).strip()
        begun = ""
        if whole:
            yield first, whole
    if begun.strip():
        raise Invalid(f"line {first} goes on after the end of the file")


def _option(line: str, where: str) -> None:
    name = re.split(r"[\s=]", line, maxsplit=1)[0]
    if name.startswith(_NAMES):
        raise Invalid(
            f"{where}: {name} pulls in what is not pinned here",
            fix="uv pip compile --generate-hashes requirements.in -o requirements.txt",
        )
    if name not in _HARMLESS:
        raise Invalid(f"{where}: {name[:40]!r} is no option of a requirements file")


def _requirement(line: str, where: str) -> Pin:
    hashes = _HASH.findall(line)
    told = _HASH.sub("", line).strip()
    try:
        requirement = Requirement(told)
    except InvalidRequirement as error:
        raise Invalid(f"{where}: {told[:100]!r} is no requirement") from error
    if requirement.url:
        raise Invalid(f"{where}: {requirement.name} comes from an address, which pins nothing")
    pinned = [s.version for s in requirement.specifier if s.operator in ("==", "===")]
    if len(requirement.specifier) != 1 or len(pinned) != 1 or "*" in pinned[0]:
        raise Invalid(f"{where}: {requirement.name} is not pinned to one version by ==")
    if not hashes:
        raise Invalid(
            f"{where}: {requirement.name} has no --hash",
            fix="uv pip compile --generate-hashes requirements.in -o requirements.txt",
        )
    return pin(requirement.name, pinned[0], hashes, str(requirement.marker or ""), where)
