"""From a lockfile's name and bytes to the packages that it pins."""

from collections.abc import Callable, Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles import poetry, pylock, requirements, uv
from periplus_snapshotter.lockfiles.pins import Pin, merged, refuse_credentials

MAX_BYTES = 8 << 20

FORMATS: dict[str, Callable[[bytes], Iterator[Pin]]] = {
    "uv.lock": uv.pins,
    "pylock.toml": pylock.pins,
    "poetry.lock": poetry.pins,
    "requirements.txt": requirements.pins,
}


def packages(name: str, content: bytes) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, version and hashes of each package, sorted. Raises `Invalid` and nothing else."""
    if name not in FORMATS:
        raise Invalid(f"{name[:40]!r} is no lockfile that is known: {', '.join(FORMATS)}")
    if len(content) > MAX_BYTES:
        raise Invalid(f"is larger than {MAX_BYTES} bytes")
    refuse_credentials(content)
    found = merged(FORMATS[name](content))
    if not found:
        raise Invalid("pins nothing")
    return found
