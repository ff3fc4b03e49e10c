"""The capabilities of a step: none, or what a container has by default where root runs it in no user namespace (Linux)."""

import ctypes
import os

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION = 0x20080522  # two words a set
_MAX_CAPABILITIES = 64

# By number: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT,
# AUDIT_WRITE. A container has four more. NET_RAW reads what others send on loopback; MKNOD makes the machine's disks, as
# no device cgroup forbids them here; SETFCAP makes files that give others rights.
OF_ROOT = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29})

_libc = ctypes.CDLL(None, use_errno=True)


def bound(kept: frozenset[int]) -> None:
    """Have no program that this process or a descendant executes get another capability than these.

    Without any kept, programs that are set-user-ID give no rights either. What this process can do now it still can.
    Raises OSError.
    """
    for number in range(_MAX_CAPABILITIES):
        if number not in kept and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # the kernel knows no more
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if not kept:
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def drop(kept: frozenset[int]) -> None:
    """Give up every capability but these. This process is not dumpable afterwards. Raises OSError."""
    header, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, sets), "capget")
    for word in (0, 1):
        wanted = sum(1 << number % 32 for number in kept if number // 32 == word)
        effective, permitted, inheritable = (3 * word + index for index in range(3))
        sets[permitted] &= wanted
        sets[effective] = sets[permitted]
        sets[inheritable] = 0
    _check(_libc.capset(header, sets), "capset")
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _check(code: int, what: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
