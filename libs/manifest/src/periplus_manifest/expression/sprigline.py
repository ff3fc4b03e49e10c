"""sprig's functions that make texts fit a width: cut with dots, and wrapped into lines."""

from __future__ import annotations

from .budget import Budget
from .function import TEXT, WHOLE, Table, declare

TABLE: Table = {}


@declare(TABLE, "abbrev", WHOLE, TEXT)
def _abbrev(_: Budget, width: int, text: str) -> str:
    return text if width < 4 else _abbreviated(text, 0, width)


@declare(TABLE, "abbrevboth", WHOLE, WHOLE, TEXT)
def _abbrevboth(_: Budget, left: int, right: int, text: str) -> str:
    return text if right < 4 or (left > 0 and right < 7) else _abbreviated(text, left, right)


def _abbreviated(text: str, start: int, width: int) -> str:
    """Keep so many bytes of a text, from a place in it, with dots for what is left out."""
    raw = text.encode()
    if len(raw) <= width:
        return text
    start = min(start, len(raw) - (width - 3))
    if start <= 4:
        return raw[: width - 3].decode(errors="replace") + "..."
    if start + width - 3 < len(raw):
        rest = raw[start:].decode(errors="replace")
        return "..." + (_abbreviated(rest, 0, width - 3) if width >= 7 else "")
    return "..." + raw[len(raw) - (width - 3) :].decode(errors="replace")


@declare(TABLE, "wrap", WHOLE, TEXT)
def _wrap(budget: Budget, width: int, text: str) -> str:
    return _wrapped(budget, text, width, "\n", breaks=False)


@declare(TABLE, "wrapWith", WHOLE, TEXT, TEXT)
def _wrap_with(budget: Budget, width: int, separator: str, text: str) -> str:
    return _wrapped(budget, text, width, separator or "\n", breaks=True)


def _wrapped(budget: Budget, text: str, width: int, separator: str, *, breaks: bool) -> str:
    """Cut lines at blanks, by bytes; a word that is longer than a line is cut or left whole."""
    raw, width = text.encode(), max(width, 1)
    lines: list[bytes] = []
    start = 0
    while len(raw) - start > width:
        budget.step()
        if raw[start] == 32:
            start += 1
            continue
        end = raw.rfind(b" ", start, start + width + 1)
        if end < 0 and breaks:
            lines.append(raw[start : start + width])
            start += width
            continue
        end = end if end >= 0 else raw.find(b" ", start + width)
        lines.append(raw[start:] if end < 0 else raw[start:end])
        start = len(raw) if end < 0 else end + 1
        if end < 0:
            return separator.join(line.decode(errors="replace") for line in lines)
        budget.room(len(separator))
    return budget.text(separator.join(line.decode(errors="replace") for line in [*lines, raw[start:]]))
