"""Who caused an event: the frames of the code that called."""

from __future__ import annotations

import sys
from types import FrameType

_PACKAGE = __name__.rpartition(".")[0]
_MAX_DEPTH = 12


def caller() -> FrameType:
    """The frame that caused the event which is being handled: the first one that is not of this package."""
    frame = sys._getframe(1)  # noqa: SLF001
    while frame.f_back is not None and _module(frame).startswith(_PACKAGE):
        frame = frame.f_back
    return frame


def reader_of_environment() -> FrameType:
    """The frame that took a variable from `os.environ`, by whichever method."""
    frame = caller()
    while frame.f_back is not None and _module(frame) in ("os", "collections.abc", "_collections_abc"):
        frame = frame.f_back
    return frame


def is_importing() -> bool:
    """Whether the import system caused it, or what looks for installed packages."""
    frame = caller()
    return frame.f_code.co_filename.startswith("<frozen ") or _module(frame).startswith(
        ("importlib.", "pkg_resources")
    )


def shows_source() -> bool:
    """Whether lines of source are read to show them, in a traceback or a warning."""
    frame: FrameType | None = caller()
    is_shown = False
    for _ in range(_MAX_DEPTH):
        if frame is None or _module(frame) == "inspect":
            break
        is_shown |= _module(frame) in ("linecache", "traceback", "warnings", "logging")
        frame = frame.f_back
    return is_shown and (frame is None or _module(frame) != "inspect")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
