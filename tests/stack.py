"""A stack for tests: `periplus up` with a home in a temporary folder, gRPC clients and the command line on it."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from minio import Minio
from urllib3 import PoolManager

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.dispatcher.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from periplus.lineage.v1 import lineage_pb2
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus.sdk.client.addresses import grpc_target
from periplus.types.v1 import step_pb2
from periplus_local.stack.embedded import embedded
from periplus_local.stack.home import Home
from periplus_local.stack.running_process import tied_to_this_process

ROOT = Path(__file__).parent.parent
WAIT_SECONDS = 90.0  # ample, for a busy machine
PROGRAMS = {
    **{name: f"periplus_{name}" for name in ("dispatcher", "cache", "snapshotter", "lineage")},
    "argo": "periplus_local.argo",
    "nats": "nats-server",
    "postgres": "bin/postgres",
    "s3": "weed",
}
FINAL_PHASES = (
    step_pb2.RUN_PHASE_SUCCEEDED,
    step_pb2.RUN_PHASE_FAILED,
    step_pb2.RUN_PHASE_ERROR,
    step_pb2.RUN_PHASE_CANCELLED,
    step_pb2.RUN_PHASE_UNOBSERVED,
)


@dataclass
class Stack:
    """A running stack and authenticated clients of its services."""

    home: Path
    process: subprocess.Popen[str]

    def __post_init__(self) -> None:
        settings = json.loads((self.home / "client.json").read_text())
        self.settings = settings
        authentication = _Authentication((("authorization", f"Bearer {settings['token']}"),))
        self.channels = {
            name: grpc.intercept_channel(grpc.insecure_channel(grpc_target(settings[name])), authentication)
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
        return self.dispatcher.SubmitRun(request, timeout=60, wait_for_ready=True)

    def run(self, run: str, project: str = "default") -> lineage_pb2.Run:
        """The run as lineage reports it now."""
        return self.lineage.GetRun(lineage_pb2.GetRunRequest(project=project, run=run), timeout=30).run

    def wait_for_run(self, run: str, project: str = "default") -> lineage_pb2.Run:
        """Wait until a run has finished and lineage has received all of its events."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                request = lineage_pb2.WatchRunRequest(project=project, run=run, wait={"seconds": 60})
                watched = self.lineage.WatchRun(request, timeout=WAIT_SECONDS)
                for message in watched:
                    if message.run.phase in FINAL_PHASES:
                        break
                watched.cancel()  # else the service waits for its end when it is stopped
                found = self.run(run, project)
                # Events that lineage held when it was killed are redelivered after the ack wait.
                if found.complete:
                    return found
                time.sleep(0.2)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(0.2)
        raise TimeoutError(f"{run} did not finish within {WAIT_SECONDS} s")

    def finish(self, manifest: str, **parameters: str) -> lineage_pb2.Run:
        """Submit a manifest, and wait until the run has finished and the cache has recorded its steps."""
        run = self.wait_for_run(self.submit(manifest, **parameters).run)
        self.wait_for_cache(run)
        return run

    def wait_for_cache(self, run: lineage_pb2.Run, project: str = "default") -> None:
        """Wait until the cache has recorded every step that succeeded."""
        deadline = time.monotonic() + WAIT_SECONDS
        for step in run.steps:
            request = cache_pb2.ExplainMissRequest(project=project, run=run.id, step=step.path)
            while step.phase == step_pb2.STEP_PHASE_SUCCEEDED and not self._is_recorded(request):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{run.id}/{step.path} was not recorded within {WAIT_SECONDS} s")
                time.sleep(0.05)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it was not so within {WAIT_SECONDS} s")
            time.sleep(0.1)

    def _is_recorded(self, request: cache_pb2.ExplainMissRequest) -> bool:
        try:
            self.cache.ExplainMiss(request, timeout=30)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                return False
            raise
        return True

    def objects(self) -> tuple[Minio, str]:
        """A client of the object store that may do everything, and the bucket of the artifact repository."""
        bucket = embedded(Home(self.home)).s3.bucket
        keys, pool = (bucket.access_key, bucket.secret_key), PoolManager(ca_certs=bucket.ca_file)
        return Minio(bucket.endpoint, *keys, region="us-east-1", http_client=pool), bucket.name

    def delete(self, key: str) -> None:
        """Delete an object of the artifact repository, unknown to the services."""
        client, bucket = self.objects()
        client.remove_object(bucket, key)

    def pid(self, process: str) -> int:
        """The pid of a process of the stack, by a key of `PROGRAMS`: a child of the supervisor."""
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # one that has just ended
                if PROGRAMS[process] in " ".join(child.cmdline()):
                    return child.pid
        raise LookupError(f"{process} is not running")

    def kill(self, process: str) -> None:
        """`kill -9` a process of the stack. The supervisor restarts it."""
        os.kill(self.pid(process), signal.SIGKILL)

    def periplus(
        self, *arguments: str, check: bool = True, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """Run `periplus` with arguments."""
        done = subprocess.run(
            [Path(sys.executable).parent / "periplus", *arguments],
            env=os.environ | {"PERIPLUS_HOME": str(self.home), "COLUMNS": "200"},
            capture_output=True,
            check=False, text=True, timeout=WAIT_SECONDS, cwd=cwd,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"periplus {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done


class _Authentication(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends the token with every call."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def _with(self, details: grpc.ClientCallDetails) -> grpc.ClientCallDetails:
        return details._replace(metadata=[*(details.metadata or ()), *self._metadata])

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._with(details), request)

    def intercept_unary_stream(self, continuation, details, request):
        return continuation(self._with(details), request)


def wait_until_ended(processes: Iterable[psutil.Process], seconds: float = 20) -> None:
    """Wait until the processes have ended. In some containers nobody reads how orphans ended, so that they stay zombies."""
    deadline = time.monotonic() + seconds
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{process} has not ended within {seconds} s")
                time.sleep(0.02)


@contextmanager
def up(home: Path, *arguments: str) -> Iterator[Stack]:
    """Run `periplus up` until the block is left. If it does not start, the error shows its log."""
    log = home.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            tied_to_this_process([str(Path(sys.executable).parent / "periplus"), "up", *arguments], signal.SIGTERM),
            env=os.environ | {"PERIPLUS_HOME": str(home)}, stdout=output, stderr=output, text=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while "Ctrl-C stops everything" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the stack did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield Stack(home, process)
    finally:
        process.terminate()  # not SIGINT, which processes started in the background ignore
        process.wait(60)
