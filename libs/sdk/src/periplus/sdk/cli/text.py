"""Text for terminals: printable data, tables, and the items of a fan-out in one row."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Member = TypeVar("Member")

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and the like
    r"|\x1b[ -/]*[0-~]?"
)
# Control characters, and those that are invisible or change the direction of text; joiners, of which scripts and emoji are made, stay.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def yaml_text(manifest: Any) -> str:
    # Imported here: few commands need yaml.
    import yaml

    # A character that steers terminals is written as an escape, as then are all that are not ASCII.
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=100)
    return text if printable(text) == text else yaml.safe_dump(manifest, sort_keys=False, width=100)


def yaml_difference(before: str, after: str, name_before: str, name_after: str) -> str:
    """The unified diff of two manifests in JSON, as YAML."""
    import difflib
    import json

    old, new = (yaml_text(json.loads(text)).splitlines(keepends=True) for text in (before, after))
    return "".join(difflib.unified_diff(old, new, name_before, name_after)) or "no difference\n"


def printable(text: str) -> str:
    """Text without escape sequences and control characters, except newline and tab."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def one_line(text: str, width: int = 0) -> str:
    """The printable text on one line, shortened to `width` columns unless that is 0."""
    flat = re.sub(r"[\n\t]+", " ", printable(text)).rstrip()
    if not width or display_width(flat) <= width:
        return flat
    prefix, used = "", 0
    for character in flat:
        used += display_width(character)
        if used > width - 1:
            break
        prefix += character
    return prefix + "…"


def shorten_digests(text: str) -> str:
    """The text with each sha256 digest shortened to 12 digits."""
    return re.sub(r"\bsha256:([0-9a-f]{12})[0-9a-f]{52}\b", r"sha256:\1", text)


def changed_value(change: Any, side: str) -> str:
    """The `old` or `new` value of a difference that a service reports, on one line of 60 columns; "-" if it has none."""
    return one_line(shorten_digests(getattr(change, side)), 60) if change.HasField(side) else "-"


def display_width(text: str) -> int:
    """The number of terminal columns that the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int = 0) -> list[str]:
    """The lines of a table, each shortened to `width` columns unless that is 0."""
    lines = [list(head), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(display_width(row[index]) for row in lines) for index in range(len(head))]
    texts = []
    for row in lines:
        padded = [cell + " " * (widths[index] - display_width(cell)) for index, cell in enumerate(row)]
        texts.append(one_line("  ".join(padded), width).rstrip())
    return texts


def duration_text(value: float) -> str:
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


_INDEX = re.compile(r"\((\d+)[^()]*\)")
MAX_LISTED_ITEMS = 6  # items of a fan-out that have a row each


@dataclass(frozen=True)
class ItemGroup(Generic[Member]):
    """Steps that share a row, and the name of that row."""

    name: str
    members: Sequence[Member]


def fan_out_name(path: str) -> str:
    """The name of an item's fan-out: that of "train(2)" and "train(11)" is "train(*)"."""
    return _INDEX.sub("(*)", path)


def group_items(
    steps: Iterable[Member],
    path: Callable[[Member], str],
    alike: Callable[[Member], object] = lambda _: None,
    max_listed: int = MAX_LISTED_ITEMS,
) -> list[ItemGroup[Member]]:
    """The steps in order of first appearance; more than `max_listed` items of a fan-out that are `alike` share a row."""
    similar: dict[tuple[str, object], list[Member]] = {}
    for step in steps:
        similar.setdefault((fan_out_name(path(step)), alike(step)), []).append(step)
    groups: list[ItemGroup[Member]] = []
    for (name, _), members in similar.items():
        if len(members) <= max_listed:
            groups += [ItemGroup(path(one), [one]) for one in members]
        else:
            groups.append(ItemGroup(_named(name, [path(one) for one in members]), members))
    return groups


def _named(name: str, paths: list[str]) -> str:
    """The fan-out's name with the range of its items where there is one: "train(0…99)"."""
    if name.count("(*)") != 1:
        return name
    indexes = sorted(int(found[1]) for path in paths if (found := _INDEX.search(path)))
    return name.replace("(*)", f"({indexes[0]}…{indexes[-1]})")
