"""The working folder of one job: its files, its lock, and the records that survive a crash."""

import fcntl
import hashlib
import json
import os
import re
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from periplus_local.argo.executor.cleanup import remove
from periplus_local.argo.executor.job import JobResult
from periplus_local.boot import boot

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class JobFolder:
    """The files of one job below the executor's home."""

    def __init__(self, home: Path, job_id: str) -> None:
        name = job_id
        if not SAFE_NAME.fullmatch(job_id):
            name = "id-" + hashlib.sha256(job_id.encode()).hexdigest()
        self.path = home / name
        self.log = self.path / "log"
        self.root = self.path / "root"
        self.scratch = self.path / "scratch"

    def create(self) -> None:
        """Make the folder, empty; what was in it is removed."""
        self.remove()
        self.path.mkdir(mode=0o700)

    def lock(self) -> int | None:
        """Take the lock that a supervisor holds while it lives: its descriptor, or None if it is held."""
        descriptor = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def is_running(self) -> bool:
        """Whether a supervisor of this job lives, started by this server or by an earlier one."""
        if not (self.path / "lock").exists():
            return False
        descriptor = self.lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def supervisor_pid(self) -> int | None:
        """The process id of the supervisor, valid only while it lives; None before it has written it."""
        text = self._read("lock")
        return int(text) if text.isdigit() else None

    def ending(self) -> dict[str, Any] | None:
        """How the step ended, as its supervisor recorded it; None when there is no whole record."""
        return self._record("exit")

    def write_spec(self, spec: dict[str, Any]) -> None:
        """Write what the supervisor is to run."""
        (self.path / "spec").write_text(json.dumps({**spec, "boot": boot()}))

    def spec(self) -> dict[str, Any] | None:
        """What the supervisor was to run; None when that was before the last start of the machine.

        A step's files are not synced to disk, which would take longer than most steps. After a loss of power
        they may be incomplete, so such a step is run again.
        """
        spec = self._record("spec")
        return spec if spec and spec.get("boot") == boot() else None

    def write_stop(self, grace: timedelta, *, closing: bool) -> None:
        """Write how the supervisor is to end the step; `closing` when only because the executor closes."""
        stop = {"grace_seconds": grace.total_seconds(), "closing": closing}
        (self.path / "stop").write_text(json.dumps(stop))

    def was_closed(self) -> bool:
        """Whether the step was ended, and only because the executor closed."""
        stop = self._record("stop")
        if stop is None or not stop.get("closing"):
            return False
        ending = self.ending()
        return ending is None or bool(ending["stopped"])

    def write_result(self, result: JobResult) -> None:
        """Keep the result of the job; from here on its files are not needed."""
        temporary = self.path / "result.new"
        temporary.write_text(json.dumps(asdict(result)))
        temporary.rename(self.path / "result")

    def result(self) -> JobResult | None:
        """The result of the job, if it was written."""
        record = self._record("result")
        return JobResult(**record) if record else None

    def stdout(self) -> bytes:
        """The end of the standard output, where it was captured."""
        try:
            return (self.path / "stdout").read_bytes()
        except FileNotFoundError:
            return b""

    def remove_ending(self) -> None:
        """Remove the supervisor's record."""
        (self.path / "exit").unlink(missing_ok=True)

    def remove_files(self) -> None:
        """Remove the step's files, but not the log and the records."""
        for name in ("root", "overlay", "scratch"):
            remove(self.path / name)

    def remove(self) -> None:
        """Remove everything."""
        remove(self.path)

    def _record(self, name: str) -> dict[str, Any] | None:
        text = self._read(name).strip("\0 \n")
        try:
            record = json.loads(text) if text else None
        except ValueError:
            return None  # cut off: its writer was killed
        return record if isinstance(record, dict) else None

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
