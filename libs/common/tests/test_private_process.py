"""Secrets that a child reads from a pipe, and a process that others of its user can not inspect."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from periplus_common import private_process
from periplus_common.private_process import VARIABLE

SECRETS = {"PARROT_TOKEN": "hunter2", "PARROT_POSTGRES_DSN": "postgresql://parrot:hunter3@x/y"}
CHILD = """
import json, os, subprocess, sys
from periplus_common import private_process
private_process.forbid_inspection()
number = os.environ[private_process.VARIABLE]
given = private_process.take(os.environ)
below = subprocess.run(["env"], capture_output=True, text=True).stdout
print(json.dumps([given, private_process.take(os.environ), os.path.exists(f"/proc/self/fd/{number}"), below]), flush=True)
input()
"""


def child(secrets: dict[str, str]) -> subprocess.Popen[str]:
    with private_process.passing(secrets) as descriptor:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            pass_fds=[descriptor], env={**os.environ, VARIABLE: str(descriptor)},
        )  # fmt: skip


def test_a_child_reads_its_secrets_once_and_leaves_nothing_of_them_to_others() -> None:
    with child(SECRETS) as process:
        assert process.stdout
        first, second, is_open, environment_below = json.loads(process.stdout.readline())
        shown = [Path(f"/proc/{process.pid}/{name}") for name in ("cmdline", "environ")]
        if os.geteuid() == 0 and sys.platform == "linux":
            assert not [path for path in shown if b"hunter" in path.read_bytes()]
        process.communicate("\n")
    assert (first, second, is_open) == (SECRETS, {}, False)
    assert VARIABLE not in environment_below


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may inspect every process")
def test_another_process_of_the_user_can_not_inspect_one_that_forbade_it() -> None:
    with child({}) as process:
        assert process.stdout
        process.stdout.readline()
        for name in ("environ", "mem", "maps"):
            with pytest.raises(PermissionError):
                Path(f"/proc/{process.pid}/{name}").open("rb").close()
        with pytest.raises(PermissionError):
            list(Path(f"/proc/{process.pid}/fd").iterdir())
        process.communicate("\n")


def test_secrets_that_no_pipe_takes_are_refused() -> None:
    with pytest.raises(BlockingIOError, match="too large"), private_process.passing({"X": "x" * 2_000_000}):
        pass
