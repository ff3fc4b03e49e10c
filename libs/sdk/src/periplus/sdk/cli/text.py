"""Text for terminals: data without what could steer one, and tables of it."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and the like
    r"|\x1b[ -/]*[0-~]?"
)
# Controls, and the marks that turn the direction of what follows.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def plain(text: str) -> str:
    """Data as text that shows and does nothing else: no escape sequences, no controls but newline and tab."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def line(text: str, width: int = 0) -> str:
    """The same on one line, and shortened to `width` columns where that is given."""
    flat = re.sub(r"[\n\t]+", " ", plain(text)).rstrip()
    if not width or columns(flat) <= width:
        return flat
    kept, used = "", 0
    for character in flat:
        used += columns(character)
        if used > width - 1:
            break
        kept += character
    return kept + "…"


def short(text: str) -> str:
    """The text with the digests in it cut to what tells them apart for people."""
    return re.sub(r"\bsha256:([0-9a-f]{12})[0-9a-f]{52}\b", r"sha256:\1", text)


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int = 0) -> list[str]:
    """Rows below their heads in columns, the last one cut where `width` columns are all there is."""
    lines = [list(head), *([line(cell) for cell in row] for row in rows)]
    widths = [max(columns(row[index]) for row in lines) for index in range(len(head))]
    told = []
    for row in lines:
        padded = [cell + " " * (widths[index] - columns(cell)) for index, cell in enumerate(row)]
        told.append(line("  ".join(padded), width).rstrip())
    return told


def seconds(value: float) -> str:
    """A time span for people: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, noun: str) -> str:
    """As in: 1 step, 2 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
