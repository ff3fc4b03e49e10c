"""From a lockfile's name and content to the packages that it pins."""

from collections.abc import Callable, Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles import pdm, pipfile, poetry, pylock, requirements, uv
from periplus_snapshotter.lockfiles.pins import Pin, merge_pins, refuse_credentials

MAX_LOCKFILE_BYTES = 8 << 20

FORMATS: dict[str, Callable[[bytes], Iterator[Pin]]] = {
    "uv.lock": uv.pins,
    "pylock.toml": pylock.pins,
    "poetry.lock": poetry.pins,
    "pdm.lock": pdm.pins,
    "Pipfile.lock": pipfile.pins,
    "requirements.txt": requirements.pins,
}


def parse_lockfile(name: str, content: bytes) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, version and hashes of each package, sorted. Raises only `Invalid`."""
    if name not in FORMATS:
        raise Invalid(f"{name[:40]!r} is not one of the supported lockfiles: {', '.join(FORMATS)}")
    if len(content) > MAX_LOCKFILE_BYTES:
        raise Invalid(f"is larger than {MAX_LOCKFILE_BYTES} bytes")
    if name == "requirements.txt":
        content = requirements.as_utf8(content)
    refuse_credentials(content)
    found = merge_pins(FORMATS[name](content))
    if not found:
        raise Invalid("pins no package")
    return found
