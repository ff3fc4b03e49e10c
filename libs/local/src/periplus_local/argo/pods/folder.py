"""The working folder of one job: its files, its lock, and the records that survive a crash."""

import fcntl
import hashlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from periplus_local.argo.pods.job import Done
from periplus_local.argo.pods.removal import remove
from periplus_local.boot import boot

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Folder:
    """Everything that is kept of one job, below the executor's home."""

    def __init__(self, home: Path, job_id: str) -> None:
        name = job_id
        if not PLAIN_NAME.fullmatch(job_id):
            name = "id-" + hashlib.sha256(job_id.encode()).hexdigest()
        self.path = home / name
        self.log = self.path / "log"
        self.root = self.path / "root"
        self.scratch = self.path / "scratch"

    def create(self) -> None:
        """Make the folder anew, empty."""
        self.remove()
        self.path.mkdir(mode=0o700)

    def lock(self) -> int | None:
        """The lock that an attempt holds while it lives, as a descriptor; None if it is held."""
        held = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return None
        return held

    def alive(self) -> bool:
        """Whether an attempt of this job lives, started by this server or by one before it."""
        if not (self.path / "lock").exists():
            return False
        held = self.lock()
        if held is None:
            return True
        os.close(held)
        return False

    def attempt_pid(self) -> int | None:
        """The process of the attempt; ask only while it is alive. None when it is not yet told."""
        text = self._read("lock")
        return int(text) if text.isdigit() else None

    def ending(self) -> dict[str, Any] | None:
        """How the attempt ended, as it recorded it; None when it did not come to that."""
        return self._record("exit")

    def write_spec(self, spec: dict[str, Any]) -> None:
        """Tell the attempt what to run."""
        (self.path / "spec").write_text(json.dumps({**spec, "boot": boot()}))

    def spec(self) -> dict[str, Any] | None:
        """What the attempt was told to run; None when it was before the machine was started anew.

        A step's files are not forced to the disk, which would take longer than most steps. What a machine
        that lost its power still has of them may be half of it: such a step is run again.
        """
        spec = self._record("spec")
        return spec if spec and spec.get("boot") == boot() else None

    def write_stop(self, grace: float, *, closing: bool) -> None:
        """Tell the attempt how to end; `closing` when only the server goes away."""
        (self.path / "stop").write_text(json.dumps({"grace": grace, "closing": closing}))

    def closed(self) -> bool:
        """Whether the attempt was ended, and only because the server went away."""
        stop = self._record("stop")
        if stop is None or not stop.get("closing"):
            return False
        ending = self.ending()
        return ending is None or bool(ending["stopped"])

    def write_done(self, done: Done) -> None:
        """Keep what became of the job; from here on its files are not needed."""
        fresh = self.path / "done.new"
        fresh.write_text(json.dumps(asdict(done)))
        fresh.rename(self.path / "done")

    def done(self) -> Done | None:
        """What became of the job, if that was kept."""
        record = self._record("done")
        return Done(**record) if record else None

    def stdout(self) -> bytes:
        """The end of the standard output, where it was to be captured."""
        try:
            return (self.path / "stdout").read_bytes()
        except FileNotFoundError:
            return b""

    def forget_ending(self) -> None:
        """Remove the attempt's own record."""
        (self.path / "exit").unlink(missing_ok=True)

    def forget_files(self) -> None:
        """Remove all but the log and the record."""
        for name in ("root", "shadow", "scratch"):
            remove(self.path / name)

    def remove(self) -> None:
        """Remove everything."""
        remove(self.path)

    def _record(self, name: str) -> dict[str, Any] | None:
        text = self._read(name).strip("\0 \n")
        try:
            record = json.loads(text) if text else None
        except ValueError:
            return None  # cut off in the middle: whoever wrote it was killed
        return record if isinstance(record, dict) else None

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
