"""Files that a process reads, by their absolute paths, and which of them the environment or the step itself stands for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Paths are texts here: a hook sees each file that is opened, and must be quick.
# ruff: noqa: PTH100, PTH110, PTH111, PTH118, PTH120

_SYSTEM = (
    "/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc", "/proc", "/sys", "/dev", "/run", "/periplus",
)  # fmt: skip
MAX_PATHS = 10_000


def text(path: Any) -> str:
    """A path as an absolute text; empty for a file descriptor and what else is none."""
    if isinstance(path, int):
        return ""
    try:
        return os.path.abspath(os.fsdecode(path))
    except (TypeError, ValueError, OSError):
        return ""


def stood_for(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Beginnings of paths that a report leaves out: of the machine, Python and its packages, hidden folders of the home, where
    installed programs keep their configuration and caches, temporary files, and the step's own inputs and outputs.
    """
    own = [
        value
        for name, value in environment.items()
        if name.startswith(("PERIPLUS_INPUT_", "PERIPLUS_OUTPUT_", "PERIPLUS_ITEMS_"))
    ]
    temporary = environment.get("TMPDIR") or "/tmp"  # noqa: S108 - where none is named; importing tempfile takes long
    folders = {
        *_SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(os.__file__), temporary,
        *(path for path in sys.path if path),
    }  # fmt: skip
    found = {os.path.join(os.path.abspath(folder), "") for folder in folders} - {"/"}
    return (*sorted(found), *own, os.path.join(os.path.expanduser("~"), "."))


class Files:
    """The files that were read and written, and the folders that were listed."""

    def __init__(self, environment: Mapping[str, str], code: str) -> None:
        self._code, self._stood_for = code, stood_for(environment)
        self.read: dict[str, None] = {}
        self.listed: dict[str, None] = {}
        self._written: set[str] = set()

    def is_left_out(self, path: Any) -> bool:
        """Whether nothing is noted of a path; quick, as most are."""
        is_text = isinstance(path, str)
        return is_text and path.startswith(self._stood_for) and not path.startswith(self._code)

    def open_file(self, path: str, mode: Any, flags: Any) -> None:
        """Note a file as it is opened. What this process has written is no input of it."""
        if isinstance(mode, str):
            writes, reads = bool(set(mode) & set("wax")), bool(set(mode) & set("r+"))
        else:
            number = flags if isinstance(flags, int) else os.O_RDONLY
            writes = number & os.O_ACCMODE == os.O_WRONLY or bool(number & (os.O_CREAT | os.O_TRUNC))
            reads = not writes
        if writes:
            self._written.add(path)
        elif reads and path not in self._written and len(self.read) < MAX_PATHS:
            self.read[path] = None

    def list_folder(self, path: str) -> None:
        """Note a folder as it is listed."""
        if path and len(self.listed) < MAX_PATHS:
            self.listed[path] = None

    def undeclared(self) -> list[str]:
        """What was read and listed outside of the code, and is still there."""
        return [
            path
            for path in (*self.read, *self.listed)
            if path not in self._written
            and not os.path.join(path, "").startswith((self._code, *self._stood_for))
            and os.path.exists(path)
        ]
