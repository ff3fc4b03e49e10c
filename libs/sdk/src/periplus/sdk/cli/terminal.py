"""The one place where the command writes: what services, manifests and steps say can not steer the terminal.

Their texts lose escape sequences and control characters, and a line break in them starts no line of its own unless
they are meant to have lines, each of which then begins with what the command puts before it.
"""

from __future__ import annotations

import sys

from periplus.sdk.cli.text import one_line, printable


def say(*lines: str, width: int = 0, error: bool = False) -> None:
    """Print each text on one line, shortened to `width` columns unless that is 0; `error`: on the standard error."""
    _write([one_line(text, width) for text in lines], error=error)


def say_block(text: str, *, first: str = "", rest: str | None = None, error: bool = False) -> None:
    """Print a text of several lines. The first begins with `first`, the others with `rest`, or with `first` as well.

    Both must be printable text on one line.
    """
    lines = printable(text).removesuffix("\n").split("\n")
    following = first if rest is None else rest
    _write([first + lines[0], *(following + line for line in lines[1:])], error=error)


def say_json(text: str) -> None:
    """Print a JSON document whose strings are ASCII: escapes stand for every other character."""
    _write([text.encode("ascii").decode()], error=False)


def _write(lines: list[str], *, error: bool) -> None:
    if lines:
        print(*lines, sep="\n", file=sys.stderr if error else sys.stdout, flush=True)
