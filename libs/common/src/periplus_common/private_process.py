"""What keeps the secrets of a process from other processes of its user.

They reach it through a pipe, as other processes can read its environment and its arguments; and the process is not
dumpable: its memory, its environment and its open files are closed to all but the system's administrator.
"""

import ctypes
import json
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

VARIABLE = "PERIPLUS_SECRETS_FD"
"""The number of the descriptor with the secret settings, for the process that inherits it."""
_PR_SET_DUMPABLE = 4


@contextmanager
def passing(secrets: Mapping[str, str]) -> Iterator[int]:
    """The descriptor from which a child that inherits it reads these settings; closed here at the end.

    `secrets` are values by the names of environment variables. Raises BlockingIOError if they are more than a pipe
    takes, which is 4 KiB at least.
    """
    reader, writer = os.pipe()
    try:
        try:
            os.set_blocking(writer, False)
            content = json.dumps(dict(secrets)).encode()
            if os.write(writer, content) < len(content):
                raise BlockingIOError("the secret settings are too large for a pipe")
        finally:
            os.close(writer)
        yield reader
    finally:
        os.close(reader)


def take(environment: MutableMapping[str, str]) -> dict[str, str]:
    """The settings that the parent process passed, values by variable; none where it passed no descriptor.

    Closes the descriptor and removes its variable, so that no child gets either. Raises OSError and ValueError for a
    descriptor that is none of `passing`.
    """
    number = environment.pop(VARIABLE, "")
    if not number:
        return {}
    with os.fdopen(int(number), encoding="utf-8") as pipe:
        given = json.load(pipe)
    return {str(name): str(value) for name, value in given.items()}


def forbid_inspection() -> None:
    """Make this process not dumpable (Linux). To be called after each exec, which makes it dumpable again."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
