"""requirements.txt as a lockfile: every line pins one version, with the hashes of its files."""

import codecs
import re
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.pins import Pin, validated_pin

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Those of UTF-32 first: that of UTF-16 is the beginning of one."""
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_HASH = re.compile(r"\s--hash(?:=|\s+)(\S+)")
_INCLUDES = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
# Options that say where files are searched. They do not matter, as the hashes say which files are accepted.
_IGNORED_OPTIONS = (
    "-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--no-binary", "--only-binary",
    "--prefer-binary", "--require-hashes", "--pre", "--trusted-host", "--use-feature",
)  # fmt: skip


def as_utf8(content: bytes) -> bytes:
    """The file in UTF-8, if its byte order mark says that it is UTF-16 or UTF-32, which PowerShell writes and pip reads."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding).encode()
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        raise Invalid(f"byte {start} is not {encoding.removesuffix('-sig').upper()}") from error


def pins(content: bytes) -> Iterator[Pin]:
    """Every requirement, of a file in UTF-8. Includes, editable packages and URLs are refused, as they pin no version."""
    for number, line in _lines(content.decode()):
        where = f"line {number}"
        if line.startswith("-"):
            _option(line, where)
        else:
            yield _requirement(line, where)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines, with the number of their first physical line; without comments and empty lines."""
    continued, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        first = first if continued else number
        line = raw if not raw.lstrip().startswith("#") else ""
        if line.endswith("\\"):
            continued += line[:-1] + " "
            continue
        logical = _COMMENT.sub("", continued + line).strip()
        continued = ""
        if logical:
            yield first, logical
    if continued.strip():
        raise Invalid(f"line {first} continues after the end of the file")


def _option(line: str, where: str) -> None:
    name = re.split(r"[\s=]", line, maxsplit=1)[0]
    if name.startswith(_INCLUDES):
        raise Invalid(
            f"{where}: {name} includes packages that this file does not pin",
            fix="uv pip compile --generate-hashes requirements.in -o requirements.txt",
        )
    if name not in _IGNORED_OPTIONS:
        raise Invalid(f"{where}: {name[:40]!r} is not an option of a requirements file")


def _requirement(line: str, where: str) -> Pin:
    hashes = _HASH.findall(line)
    specification = _HASH.sub("", line).strip()
    try:
        requirement = Requirement(specification)
    except InvalidRequirement as error:
        raise Invalid(f"{where}: {specification[:100]!r} is not a requirement") from error
    if requirement.url:
        raise Invalid(f"{where}: {requirement.name} is a URL, which pins no version")
    pinned = [s.version for s in requirement.specifier if s.operator in ("==", "===")]
    if len(requirement.specifier) != 1 or len(pinned) != 1 or "*" in pinned[0]:
        raise Invalid(f"{where}: {requirement.name} is not pinned to one version by ==")
    if not hashes:
        raise Invalid(
            f"{where}: {requirement.name} has no --hash",
            fix="uv pip compile --generate-hashes requirements.in -o requirements.txt",
        )
    return validated_pin(requirement.name, pinned[0], hashes, str(requirement.marker or ""), where)
