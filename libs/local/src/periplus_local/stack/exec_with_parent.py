"""Replace this process by a program that ends with its parent and, where a user is named, runs as that user.

Run as a script by its path and in isolated mode, so that it costs a few milliseconds:
`python -I -S exec_with_parent.py <parent pid> <signal> <uid> <gid> <program> [argument ...]`.
A uid of -1 keeps the user. Another user has none of root's capabilities.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Set the process up and replace it by the program."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    os.umask(0o077)
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")
    os.execv(command[0], command)  # noqa: S606 - a fixed program, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
