"""The code index as a step's process has it, and the names in it of what was executed."""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX_FILE = "periplus-runner/index.json"
DIGESTS_FILE = "periplus-runner/digests.json"
"""In the code archive: where each name is, and its digest, which is read only where one is reported."""

EVERYTHING = "*"
LISTING = "/"
"""Names of the code index: all files, and their names."""

SPELLING = ":<spelling>"
"""At the end of a name of the code index: docstrings and names of local variables of a file."""

WHOLE = [-1]
"""The statements of a closure that has all of a file."""

MAX_NAMES_BYTES = 8 * 1024
"""Of the names and digests of a report, which is part of the Workflow's status: beyond it, files are named, or everything."""


class Names:
    """The code index, and the closure of the step's function. `readers`: files with code that reads docstrings or variables of others."""

    def __init__(self, code: str, entry: str) -> None:
        index = _read(code, INDEX_FILE)
        self._code = code
        self._digests: dict[str, str] = {}
        self._statements: dict[str, list[tuple[int, str]]] = index.get("statements", {})
        self.readers: frozenset[str] = frozenset(index.get("readers", ()))
        self._closure: dict[str, list[int]] = index.get("closures", {}).get(entry, {})

    def has_file(self, file: str) -> bool:
        """Whether the closure has something of a file."""
        return file in self._closure

    def is_whole(self, file: str) -> bool:
        """Whether the closure has all of a file."""
        return self._closure.get(file) == WHOLE

    def at(self, file: str, line: int) -> tuple[str, bool]:
        """The name of the definition at a line of a file, "" for another statement, and whether the closure has it."""
        spans = self._statements.get(file, [])
        position = bisect_left(spans, line, key=lambda span: span[0])
        name = spans[position][1] if position < len(spans) else ""
        return name, self.is_whole(file) or position in self._closure.get(file, ())

    def has_definition(self, file: str, name: str) -> bool:
        """Whether the closure has the definitions of a name."""
        found = {position for position, span in enumerate(self._statements.get(file, ())) if span[1] == name}
        return self.is_whole(file) or (bool(found) and found <= set(self._closure.get(file, ())))

    def with_digests(self, names: Iterable[str]) -> dict[str, str]:
        """The digests of names; of a large project, files have one or only everything has, and so have too many names."""
        names = set(names)
        if not names:
            return {}
        self._digests = _read(self._code, DIGESTS_FILE)
        known = {self._known(name) for name in names}
        found = {name: self._digests.get(name, "") for name in sorted(known)}
        if len(json.dumps(found)) > MAX_NAMES_BYTES:
            files = {self._known(_in_file(name)) for name in known}
            found = {name: self._digests.get(name, "") for name in sorted(files)}
        if len(json.dumps(found)) > MAX_NAMES_BYTES:
            found = {EVERYTHING: self._digests.get(EVERYTHING, "")}
        return found

    def _known(self, name: str) -> str:
        return next((one for one in (name, _in_file(name)) if one in self._digests), EVERYTHING)


def _read(code: str, name: str) -> dict[str, Any]:
    """An object of the code archive. Without it, what is named has no digest, and no result is served for it."""
    # Not Path, which takes longer than all of the rest.
    with contextlib.suppress(OSError, ValueError), open(os.path.join(code, name), "rb") as file:  # noqa: PTH118, PTH123
        found: dict[str, Any] = json.loads(file.read())
        return found
    return {}


def _in_file(name: str) -> str:
    """The name of all of a file; the spelling is in no other name."""
    return name if name.endswith(SPELLING) else name.partition(":")[0]
