"""A stack of its own for a test: `periplus up` on a home in a temporary folder, and the command line on it."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.dispatcher.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from periplus.lineage.v1 import lineage_pb2
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus.types.v1 import step_pb2
from periplus_local.stack.child import bound

ROOT = Path(__file__).parent.parent
PATIENCE = 90.0  # seconds; for a machine that does other things beside
PROGRAMS = {
    **{name: f"periplus_{name}" for name in ("dispatcher", "cache", "snapshotter", "lineage")},
    "argo": "periplus_local.argo",
    "nats": "nats-server",
    "postgres": "bin/postgres",
    "s3": "weed",
}
ENDED = (
    step_pb2.RUN_PHASE_SUCCEEDED,
    step_pb2.RUN_PHASE_FAILED,
    step_pb2.RUN_PHASE_ERROR,
    step_pb2.RUN_PHASE_CANCELLED,
)


@dataclass
class Stack:
    """A running stack, its secrets, and callers of its services that show the token."""

    home: Path
    process: subprocess.Popen[str]

    def __post_init__(self) -> None:
        settings = json.loads((self.home / "client.json").read_text())
        self.settings = settings
        shown = _Shown((("authorization", f"Bearer {settings['token']}"),))
        self.channels = {
            name: grpc.intercept_channel(grpc.insecure_channel(settings[name]), shown)
            for name in ("dispatcher", "cache", "lineage", "snapshotter")
        }
        self.dispatcher = DispatcherServiceStub(self.channels["dispatcher"])
        self.cache = CacheServiceStub(self.channels["cache"])
        self.lineage = LineageServiceStub(self.channels["lineage"])

    def submit(
        self, manifest: str, request_id: str = "", **parameters: str
    ) -> dispatcher_pb2.SubmitRunResponse:
        """Submit a manifest."""
        spec = dispatcher_pb2.RunSpec(project="default", manifest=manifest, parameters=parameters)
        request = dispatcher_pb2.SubmitRunRequest(spec=spec, request_id=request_id or str(uuid.uuid4()))
        return self.dispatcher.SubmitRun(request, timeout=60)

    def run(self, run: str) -> lineage_pb2.Run:
        """What lineage knows of a run now."""
        return self.lineage.GetRun(lineage_pb2.GetRunRequest(project="default", run=run), timeout=30).run

    def ended(self, run: str) -> lineage_pb2.Run:
        """Wait until a run has ended, and all its events have come."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                request = lineage_pb2.WatchRunRequest(project="default", run=run)
                for message in self.lineage.WatchRun(request, timeout=PATIENCE):
                    if message.run.phase in ENDED:
                        break
                found = self.run(run)
                # What lineage held when it was killed comes again after a while.
                if not {step.phase for step in found.steps} & _late(found) or time.monotonic() > deadline - 5:
                    return found
                time.sleep(0.2)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(0.2)
        raise TimeoutError(f"{run} did not end within {PATIENCE} s")

    def finish(self, manifest: str, **parameters: str) -> lineage_pb2.Run:
        """Submit a manifest, and wait until the run has ended and the cache has recorded it."""
        run = self.ended(self.submit(manifest, **parameters).run)
        self.recorded(run)
        return run

    def recorded(self, run: lineage_pb2.Run) -> None:
        """Wait until the cache has taken note of every step that ran."""
        deadline = time.monotonic() + PATIENCE
        for step in run.steps:
            asked = cache_pb2.ExplainMissRequest(project="default", run=run.id, step=step.path)
            while step.phase == step_pb2.STEP_PHASE_SUCCEEDED and not self._known(asked):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{run.id}/{step.path} was not recorded within {PATIENCE} s")
                time.sleep(0.05)

    def _known(self, asked: cache_pb2.ExplainMissRequest) -> bool:
        try:
            self.cache.ExplainMiss(asked, timeout=30)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                return False
            raise
        return True

    def delete(self, key: str) -> None:
        """Delete an object of the artifact store behind everybody's back."""
        from minio import Minio

        from periplus_local.stack.embedded import embedded
        from periplus_local.stack.home import Home

        at = embedded(Home(self.home)).s3.bucket
        client = Minio(at.endpoint, at.access_key, at.secret_key, secure=at.secure, region="us-east-1")
        client.remove_object(at.name, key)

    def pid(self, part: str) -> int:
        """The process id of a part: the child of the supervisor that runs its program."""
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # one that has just ended
                if PROGRAMS[part] in " ".join(child.cmdline()):
                    return child.pid
        raise LookupError(f"{part} is not running")

    def kill(self, part: str) -> None:
        """`kill -9` a part. The supervisor starts it again."""
        os.kill(self.pid(part), signal.SIGKILL)

    def periplus(
        self, *arguments: str, check: bool = True, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """Call the command line."""
        done = subprocess.run(
            [Path(sys.executable).parent / "periplus", *arguments],
            env=os.environ | {"PERIPLUS_HOME": str(self.home), "COLUMNS": "200"},
            capture_output=True,
            check=False, text=True, timeout=PATIENCE, cwd=cwd,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"periplus {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done


def _late(run: lineage_pb2.Run) -> set[int]:
    """The phases of steps that an ended run tells of too early: after a failure some steps are never reached."""
    if run.phase == step_pb2.RUN_PHASE_SUCCEEDED:
        return {step_pb2.STEP_PHASE_PENDING, step_pb2.STEP_PHASE_RUNNING}
    return {step_pb2.STEP_PHASE_RUNNING}


class _Shown(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Shows the token with every call."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def _with(self, details: grpc.ClientCallDetails) -> grpc.ClientCallDetails:
        return details._replace(metadata=[*(details.metadata or ()), *self._metadata])

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._with(details), request)

    def intercept_unary_stream(self, continuation, details, request):
        return continuation(self._with(details), request)


@contextmanager
def up(home: Path, *arguments: str) -> Iterator[Stack]:
    """`periplus up` on a home, until the block is left; its log is shown where it does not come up."""
    log = home.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            bound([str(Path(sys.executable).parent / "periplus"), "up", *arguments], signal.SIGTERM),
            env=os.environ | {"PERIPLUS_HOME": str(home)}, stdout=output, stderr=output, text=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while "Ctrl-C stops everything" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the stack did not come up:\n{log.read_text()}")
            time.sleep(0.05)
        yield Stack(home, process)
    finally:
        process.terminate()  # not SIGINT, which those ignore who are started in the background
        process.wait(60)
