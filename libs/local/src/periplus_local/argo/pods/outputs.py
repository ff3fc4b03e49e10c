"""What a step leaves behind: its parameters, its result, its artifacts."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.pods import archive
from periplus_local.argo.pods.job import Job, PodError
from periplus_local.argo.pods.output import RESULT_BYTES
from periplus_local.argo.pods.program import working_dir
from periplus_local.argo.pods.store import Artifacts
from periplus_local.argo.pods.view import View, canonical

PARAMETER_BYTES = 1 << 20
MOST_LINKS = 40


@dataclass(frozen=True)
class Outputs:
    """Collects the outputs of one step from its view. Blocks; `scratch` is for its own use."""

    job: Job
    view: View
    scratch: Path
    artifacts: Artifacts

    def parameter(self, entry: dict[str, Any]) -> str | None:
        """The value of one output parameter; None when the template gives it no path."""
        source = entry.get("valueFrom") or {}
        path = source.get("path")
        if not path:
            return None
        try:
            return self._read(path).removesuffix("\n")
        except (OSError, PodError) as error:
            default = source.get("default", entry.get("default"))
            if default is not None and isinstance(error, FileNotFoundError):
                return str(default)
            raise PodError(f"cannot save parameter {path}: {_words(error, path)}") from error

    def artifact(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        """Store one output artifact and give its entry for the status; None when it is left out."""
        path = str(entry["path"])
        try:
            source = self.locate(path)
            source.lstat()
            return self._save(entry, source)
        except FileNotFoundError as error:
            if entry.get("optional"):
                return None
            raise PodError(f"cannot save artifact {path}: {_words(error, path)}") from error
        except (OSError, PodError) as error:
            raise PodError(f"cannot save artifact {path}: {_words(error, path)}") from error

    def locate(self, path: str) -> Path:
        """The file behind a path of the step, with its links followed as the step would.

        Raises OSError for a loop. The last name may not exist.
        """
        whole = canonical(str(Path(working_dir(self.job.template)) / path), self.view)
        done, rest = "/", [part for part in whole.split("/") if part]
        links = 0
        while rest:
            step = os.path.normpath(f"{done.rstrip('/')}/{rest.pop(0)}")
            place = Path(self.view.host(step))
            if place.is_symlink():
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.path.normpath(Path(done) / place.readlink())
                done, rest = "/", [part for part in target.split("/") if part] + rest
            else:
                done = step
        return Path(self.view.host(done))

    def _read(self, path: str) -> str:
        source = self.locate(path)
        # Not blocking: a step may have left a pipe there.
        handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise PodError("it is not a file")
            content = file.read(PARAMETER_BYTES + 1)
        if len(content) > PARAMETER_BYTES:
            raise PodError(f"it has more than {PARAMETER_BYTES} bytes; make it an artifact")
        return content.decode(errors="replace")

    def _save(self, entry: dict[str, Any], source: Path) -> dict[str, Any]:
        how = entry.get("archive") or {}
        base = Path(os.path.normpath(str(entry["path"]))).name
        kind = stat.S_IFMT(source.lstat().st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFDIR}:
            raise PodError("it is neither a file nor a directory")
        self.scratch.mkdir(exist_ok=True)
        packed = self.scratch / "out"
        place = dict(entry.get("s3") or {})
        if "none" in how:
            place.setdefault("key", f"{self.job.key_prefix}/{base}")
            self._put_plain(place, source)
        elif "zip" in how:
            if kind == stat.S_IFREG and base != entry["name"]:
                raise PodError(
                    f"no such file or directory: Argo can zip a single file only when the artifact has its "
                    f"name, so call this artifact {base!r}, or have it archived as tar or none"
                )
            place.setdefault("key", f"{self.job.key_prefix}/{entry['name']}.zip")
            archive.pack_zip(source, entry["name"], packed)
            self.artifacts.put(place, packed)
        else:
            place.setdefault("key", f"{self.job.key_prefix}/{entry['name']}.tgz")
            level = (how.get("tar") or {}).get("compressionLevel")
            archive.pack_tar(source, base, packed, archive.GZIP_LEVEL if level is None else level)
            self.artifacts.put(place, packed)
        packed.unlink(missing_ok=True)
        return {**entry, "path": os.path.normpath(str(entry["path"])), "s3": place}

    def _put_plain(self, place: dict[str, Any], source: Path) -> None:
        if not source.is_dir():
            self.artifacts.put(place, source)
            return
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                key = f"{place['key'].rstrip('/')}/{path.relative_to(source)}"
                self.artifacts.put({**place, "key": key}, path)


def result(stdout: bytes) -> str:
    """`outputs.result` of a standard output: one newline trimmed, then the last 256 kB."""
    return stdout.removesuffix(b"\n")[-RESULT_BYTES:].decode(errors="replace")


def _words(error: OSError | PodError, path: str) -> str:
    """An error in terms of the step's own path, and not of the folder behind it."""
    if isinstance(error, OSError):
        return f"{path}: {(error.strerror or str(error)).lower()}"
    return str(error)
