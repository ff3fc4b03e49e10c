"""Become a program that dies with its supervisor and, where asked, is not root.

Run as a script by its path and in isolation, so that it costs a few milliseconds:
`python -I -S launch.py <parent pid> <death signal> <uid> <gid> <program> [argument ...]`.
A uid of -1 keeps the user.

PostgreSQL refuses to run as root. Its files then belong to an unprivileged user, but the way to
them (a home that only root may enter, an environment below /root) is closed to that user. Instead
of opening those directories, the program keeps the one capability to pass through and to read.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


def main(arguments: list[str]) -> None:
    """Set the process up and replace it by the program."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    os.umask(0o077)
    if uid != -1:
        _become(uid, gid)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")
    os.execv(command[0], command)  # noqa: S606 - a fixed program, no shell


def _become(uid: int, gid: int) -> None:
    libc = ctypes.CDLL(None)
    linux = sys.platform == "linux"
    if linux:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if linux:
        _keep_one_capability(libc)


def _keep_one_capability(libc: ctypes.CDLL) -> None:
    """Keep the right to read past permissions; where it was never given, the right to override."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    libc.capget(header, data)
    held = [c for c in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if data[1] & (1 << c)]
    mask = 1 << held[0] if held else 0
    libc.capset(header, (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0))
    if held:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, held[0], 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
