"""The command as a process: on a terminal, in a pipe, interrupted, and the packages that it imports."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
from periplus.lineage.v1 import lineage_pb2 as lineage
from periplus.types.v1 import step_pb2 as types

COMMAND = [sys.executable, "-m", "periplus.sdk.cli"]
ROWS, COLUMNS = 24, 80
STEPS = 2000
PIPELINE = """\
from periplus.sdk import pipeline, step

@step
def double(x: int) -> int:
    return 2 * x

@pipeline
def flow(x: int = 1):
    return double(x)
"""


def on_a_terminal(written: bytearray, *arguments: str) -> int:
    """The exit code of the command. Everything that it writes to a terminal of 24 lines is added to `written`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, env=environment
    )
    os.close(theirs)

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                written.extend(chunk)
        except OSError:  # how Linux says that the other side is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(60)
    reader.join(10)
    os.close(ours)
    return code


def stream(written: bytearray) -> Iterator[object]:
    """The messages of a fan-out of 2,000 items, 500 of which finish with each message, and one of which fails.

    The table is drawn anew a few times a second, so each message waits until the terminal shows the one before it.
    """
    start = Timestamp(seconds=1_800_000_000)
    run = lineage.Run(project="default", id="digits-1", phase=types.RUN_PHASE_RUNNING, submitted_at=start)
    paths = [f"train({index})" for index in range(STEPS)]
    singles = [f"step-{index}" for index in range(60)]
    yield 0.6  # on a busy machine, too, the line that waits is drawn over itself several times
    yield lineage.WatchRunResponse(run=run, steps=[lineage.Step(path=p, phase=1) for p in [*singles, *paths]])
    for begin in range(0, STEPS, 500):
        yield from shown(written, f"{begin:,} succeeded" if begin else "pending")
        done = [lineage.Step(path=path, phase=3) for path in paths[begin : begin + 500]]
        yield lineage.WatchRunResponse(run=run, steps=done)
    yield from shown(written, f"{STEPS:,} succeeded")
    run.phase = types.RUN_PHASE_FAILED
    run.finished_at.seconds = start.seconds + 5
    failed = lineage.Step(path="step-59", phase=types.STEP_PHASE_FAILED, message="exit code 1")
    yield lineage.WatchRunResponse(run=run, steps=[failed])


def shown(written: bytearray, text: str) -> Iterator[float]:
    """Waits until the terminal has the text, for at most a minute."""
    for _ in range(1200):
        if text.encode() in written:
            return
        yield 0.05


def test_two_thousand_steps_fit_a_terminal_of_24_lines(script):
    output = bytearray()
    script.answers["WatchRun"] = lambda _: stream(output)
    code = on_a_terminal(output, "watch", "digits-1")
    written = output.decode()
    assert code == 1
    frames = written.split("\x1b[?25h")[0]  # until the cursor is shown again
    ups = [len(found) // len("\x1b[1A\x1b[2K") for found in re.findall(r"(?:\x1b\[1A\x1b\[2K)+", frames)]
    assert ups, "the table was never drawn anew"
    assert max(ups) < ROWS
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"train\(0…1999\) +1,500 pending, 500 succeeded", plain)
    assert re.search(r"train\(0…1999\) +2,000 succeeded", plain)
    # A frame of one line is drawn over, which takes no newline.
    assert all(len(line) <= COLUMNS for line in re.split("[\r\n]", plain) if "error" not in line)
    # Failed steps are shown first where the terminal has not enough rows.
    last = plain.rindex("step-59  ")
    assert plain.rindex("… ") > last


def test_an_interrupt_does_not_stop_the_run_and_exits_with_130(script, tmp_path):
    run = lineage.Run(project="default", id="digits-1", phase=types.RUN_PHASE_RUNNING)
    started = [lineage.Step(path="train", phase=types.STEP_PHASE_RUNNING)]
    script.answers["WatchRun"] = lambda _: iter([lineage.WatchRunResponse(run=run, steps=started), 30.0])
    process = subprocess.Popen(
        [*COMMAND, "watch", "digits-1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "train  running\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == (
        "error: stopped watching; run digits-1 continues\n"
        "  fix:   periplus watch digits-1, or periplus cancel digits-1\n"
    )


def test_a_closed_pipe_ends_the_command_without_an_error(script):
    script.answers["ReadLogs"] = [dispatcher.ReadLogsResponse(step="a", line="x" * 1000)] * 5000
    done = subprocess.run(
        f"{sys.executable} -m periplus.sdk.cli logs digits-1 | head -1",
        shell=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(b"a | xxx")
    assert done.stderr == b""


def test_a_cached_run_imports_no_package_that_it_does_not_need(script, tmp_path: Path):
    """Imports are most of the time that a cached run takes."""
    (tmp_path / "flow.py").write_text(PIPELINE)
    script.answers["SubmitRun"] = dispatcher.SubmitRunResponse(
        run="r", phase=types.RUN_PHASE_SUCCEEDED, plan={}
    )
    program = (
        "import sys, json\n"
        "from periplus.sdk.cli import main\n"
        "try:\n    main(['run', 'flow.py'])\n"
        "finally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stderr)}
    assert "grpc" in loaded
    assert not loaded & {
        "hera", "rich", "numpy", "sklearn", "yaml", "periplus_common", "periplus_local", "protovalidate",
        "opentelemetry", "minio", "asyncpg", "nats", "importlib.metadata",
    }  # fmt: skip


def test_a_manifest_printed_as_yaml_equals_the_json(tmp_path: Path, clean_environment):
    import yaml

    (tmp_path / "flow.py").write_text(PIPELINE)

    def printed(*arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, "compile", "flow.py", "-p", "x=21", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    manifest = json.loads(printed("-o", "json"))
    assert yaml.safe_load(printed()) == manifest
    assert manifest["kind"] == "Workflow"
    assert manifest["spec"]["arguments"]["parameters"] == [{"name": "x", "value": "21"}]


@pytest.mark.parametrize("command", [[], *([name] for name in (
    "run", "plan", "compile", "runs", "watch", "logs", "why", "diff", "lineage", "cancel", "up", "down", "doctor", "cache", "snapshot", "argo",
)), ["lineage", "up"], ["lineage", "down"], ["cache", "ls"], ["cache", "show"], ["cache", "invalidate"], ["cache", "savings"], ["snapshot", "show"], ["argo", "serve"]])  # fmt: skip
def test_every_command_has_help_with_an_example(periplus, clean_environment, command):
    result = periplus(*command, "--help")
    assert result.code == 0
    if command and command not in (["lineage"], ["cache"], ["snapshot"], ["argo"]):
        assert "Example" in result.out
        assert f"\n    periplus {' '.join(command)}" in result.out
    if not command:
        assert "Exit codes: 0 success" in result.out
