"""What a hostile step tries. Runs as a step: prints a JSON list of what succeeded, which is empty behind whole walls.

Its arguments: the home of the stack, the ids of the stack's processes, and the DSN's parts that are no secret.
"""

# ruff: noqa: PTH103, PTH110, PTH111, PTH116, PTH119, PTH120, PTH123, PTH207, PTH208, SIM115 - system calls by their names

import asyncio
import ctypes
import glob
import json
import os
import re
import socket
import stat
import subprocess
import sys
import zlib

HOME, PIDS = sys.argv[1], json.loads(sys.argv[2])
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, MNT_DETACH, PTRACE_ATTACH, PTRACE_DETACH = 0x20000, 0x10000000, 2, 16, 17
breaches = []


def breach(*what):
    breaches.append(" ".join(map(str, what)))


def attempt(work, *arguments):
    """The result, or None for an error of the system."""
    try:
        return work(*arguments)
    except (OSError, ValueError):
        return None


def content(path, size=1 << 16):
    with open(path, "rb") as file:
        return file.read(size)


def home_is_visible(at=HOME):
    return bool(attempt(os.listdir, at))


def read_processes():
    """Files below /proc of every process but our own."""
    own = {str(os.getpid()), str(os.getppid())}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid != "1" and attempt(content, f"/proc/{pid}/cmdline") and pid not in own:
            breach("sees process", pid, content(f"/proc/{pid}/cmdline"))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid in own and pid != "1":
            continue
        for name in ("environ", "maps", "auxv"):
            if attempt(content, f"/proc/{pid}/{name}"):
                breach("reads", name, "of", pid)
        if attempt(os.open, f"/proc/{pid}/mem", os.O_RDWR) is not None:
            breach("opens mem of", pid)
        for descriptor in attempt(os.listdir, f"/proc/{pid}/fd") or ():
            if attempt(os.open, f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK) is not None:
                breach("opens descriptor", descriptor, "of", pid)
        for name in ("root", "cwd", "ns/mnt"):
            if attempt(os.listdir, f"/proc/{pid}/{name}/") or attempt(
                os.open, f"/proc/{pid}/{name}", os.O_RDONLY
            ):
                breach("opens", name, "of", pid)


def attack_processes():
    for pid in PIDS:
        if attempt(os.kill, pid, 0) is not None or (pid > 1000 and os.path.exists(f"/proc/{pid}")):
            breach("can signal", pid)
    for pid in (*PIDS, 1):
        if LIBC.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
            breach("traces", pid)
            os.waitpid(pid, 0)
            LIBC.ptrace(PTRACE_DETACH, pid, None, None)


def find_home():
    if home_is_visible():
        breach("lists the home")
    for path in (
        "client.json",
        "run/ports.json",
        "run/nats.json",
        "data/argo/state.sqlite3",
        "data/argo/pods",
        "secrets",
    ):
        if attempt(os.stat, f"{HOME}/{path}"):
            breach("finds", path)
    parts = HOME.split("/")
    points = [line.split()[4] for line in open("/proc/self/mountinfo")]
    for point in points:
        for at in range(len(parts)):
            path = "/".join((point.rstrip("/"), *parts[at:]))
            if at < len(parts) - 1 and home_is_visible(path) and os.path.exists(f"{path}/secrets"):
                breach("finds the home through", path)
    for folder, _, files in os.walk(os.path.dirname(HOME)):
        if {"client.json", "home.key", "seal", "token"} & set(files):
            breach("walks to", folder)
    key = os.path.expanduser(os.environ.get("XDG_STATE_HOME", "~/.local/state") + "/periplus")
    if home_is_visible(key):
        breach("finds the key of the user's homes")


def connect():
    sockets = [path for path in glob.glob(f"{HOME}/**", recursive=True, include_hidden=True) if "s" in path]
    listed = [line.split()[-1] for line in open("/proc/net/unix")]
    sockets += [path for path in listed if "periplus" in path or HOME in path or "seaweedfs" in path]
    sockets += [
        f"{HOME}/run/{name}.sock" for name in ("argo", "cache", "dispatcher", "lineage", "snapshotter")
    ]
    for path in sockets:
        client = socket.socket(socket.AF_UNIX)
        address = "\0" + path[1:] if path.startswith("@") else path
        if attempt(client.connect, address) is None and attempt(client.getpeername) is not None:
            breach("connects to", path)


def mounts():
    for flags in (0, MNT_DETACH):
        if LIBC.umount2(HOME.encode(), flags) == 0:
            breach("unmounts the mask")
    if LIBC.mount(b"tmpfs", b"/argo/work", b"tmpfs", 0, None) == 0:
        breach("mounts")
    if LIBC.mount(None, sys.prefix.encode(), None, 32, None) == 0:
        breach("mounts our programs again")
    in_child(
        lambda: (
            LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 and LIBC.umount2(HOME.encode(), MNT_DETACH) == 0
        ),
        "unmounts the mask from a user namespace of its own",
    )
    in_child(escape_by_chroot, "leaves its root")
    in_child(
        lambda: LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 and escape_by_chroot(),
        "leaves its root by a namespace",
    )
    in_child(open_by_handle, "opens the home by a handle")
    if home_is_visible():
        breach("uncovered the home")


def in_child(work, what):
    pid = os.fork()
    if pid == 0:
        done = False
        try:
            done = bool(work()) or home_is_visible()
        except (OSError, ValueError):
            pass
        finally:
            os._exit(done)
    if os.waitpid(pid, 0)[1]:
        breach(what)


def escape_by_chroot():
    os.makedirs("/tmp/jail", exist_ok=True)
    above = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/jail")
    os.fchdir(above)
    for _ in range(20):
        os.chdir("..")
    os.chroot(".")
    return home_is_visible()


def open_by_handle():
    handle = ctypes.create_string_buffer(136)
    ctypes.cast(handle, ctypes.POINTER(ctypes.c_uint))[0] = 128
    mount_id = ctypes.c_int()
    parent = os.path.dirname(HOME).encode()
    if LIBC.name_to_handle_at(-100, parent, handle, ctypes.byref(mount_id), 0) != 0:
        return False
    descriptor = LIBC.open_by_handle_at(os.open("/var/tmp", os.O_RDONLY), handle, os.O_RDONLY)
    if descriptor < 0:
        return False
    return bool(attempt(os.listdir, f"/proc/self/fd/{descriptor}/{os.path.basename(HOME)}"))


def devices():
    for folder, _, files in os.walk("/dev"):
        for name in files:
            path = f"{folder}/{name}"
            found = attempt(os.lstat, path)
            if found and stat.S_ISBLK(found.st_mode) and attempt(os.open, path, os.O_RDONLY) is not None:
                breach("opens the disk", path)
    if attempt(os.mknod, "/tmp/disk", stat.S_IFBLK | 0o600, os.stat("/").st_dev) is None and os.path.exists(
        "/tmp/disk"
    ):
        breach("makes a disk")
    for path in ("/dev/mem", "/dev/kmsg", "/proc/kcore"):
        if attempt(content, path, 16):
            breach("reads", path)
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/proc/sys/kernel/modprobe",
        "/sys/power/state",
    ):
        if attempt(os.open, path, os.O_WRONLY) is not None:
            breach("writes", path)
    packet = attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    if packet is not None:
        breach("reads what others send on loopback")


def programs():
    import periplus_local

    for path in (f"{sys.prefix}/new", periplus_local.__file__, os.path.realpath(sys.executable)):
        if attempt(os.open, path, os.O_WRONLY | os.O_CREAT) is not None:
            breach("changes", path)


def others():
    for path in ("/dev/shm/left", "/argo/work/left", "/tmp/left"):
        if os.path.exists(path):
            breach("finds a file of another step:", path)


def lasting():
    """Seconds by which the test of this home knows a process that was left, and no other."""
    return f"98765.{zlib.crc32(HOME.encode())}"


def leave():
    for path in ("/dev/shm/left", "/argo/work/left", "/tmp/left"):
        with open(path, "w") as file:
            file.write("x")
    subprocess.Popen(["sleep", lasting()], start_new_session=True)


def secrets_of_home():
    found = []
    for path in glob.glob("/proc/[0-9]*/environ") + glob.glob(f"{HOME}/secrets/*"):
        found += re.findall(rb"postgresql://[^\s\0\"]+", attempt(content, path) or b"")
    password = attempt(content, f"{HOME}/secrets/postgres-cache")
    if password:
        at = f"{HOME}/data/postgres".replace("/", "%2F")
        found.append(b"postgresql://cache:" + password + b"@" + at.encode() + b"/periplus")
    return sorted({text.decode() for text in found})


async def forge():
    """Change each cached result from right to wrong."""
    import asyncpg

    for dsn in secrets_of_home():
        try:
            connection = await asyncpg.connect(dsn, timeout=5)
            done = await connection.execute(
                "UPDATE cache.entry SET outputs = decode(replace(encode(outputs, 'hex'), encode('right', 'hex'),"
                " encode('wrong', 'hex')), 'hex')"
            )
            breach("changed entries:", done)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            continue


def attack():
    """Everything but the forgery; the evidence of what succeeded."""
    others()
    for work in (find_home, read_processes, attack_processes, connect, mounts, devices, programs):
        work()
    leave()
    return breaches


if __name__ == "__main__":
    if sys.argv[3:] == ["forge"]:
        asyncio.run(forge())
    else:
        attack()
    print(json.dumps(breaches))
