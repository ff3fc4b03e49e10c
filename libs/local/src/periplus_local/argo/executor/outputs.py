"""Outputs of a step: its parameters, its result, its artifacts."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.executor import archive
from periplus_local.argo.executor.artifact_repository import ArtifactRepository
from periplus_local.argo.executor.filesystem import StepFilesystem, canonical
from periplus_local.argo.executor.job import Job, PodError
from periplus_local.argo.executor.log_capture import RESULT_BYTES
from periplus_local.argo.executor.program import working_dir

MAX_PARAMETER_BYTES = 1 << 20
MAX_SYMLINKS = 40


@dataclass(frozen=True)
class OutputCollector:
    """Collects the outputs of one step. Blocks; `scratch` is a folder for temporary files."""

    job: Job
    filesystem: StepFilesystem
    scratch: Path
    artifacts: ArtifactRepository

    def parameter(self, entry: dict[str, Any]) -> str | None:
        """The value of one output parameter; None when it has no path. Raises PodError when it has no value."""
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
            raise PodError(f"cannot save parameter {path}: {_reason(error, path)}") from error

    def artifact(self, entry: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
        """Store one output artifact, and give its entry for the status and the ETag of its object, "" for several objects.

        None when it is missing but optional.
        """
        path = str(entry["path"])
        try:
            source = self.locate(path)
            source.lstat()
            return self._save(entry, source)
        except FileNotFoundError as error:
            if entry.get("optional"):
                return None
            raise PodError(f"cannot save artifact {path}: {_reason(error, path)}") from error
        except (OSError, PodError) as error:
            raise PodError(f"cannot save artifact {path}: {_reason(error, path)}") from error

    def locate(self, path: str) -> Path:
        """The host path of a path of the step, with symbolic links followed as the step would follow them.

        Raises OSError for a loop. The last name may not exist.
        """
        absolute = canonical(str(Path(working_dir(self.job.template)) / path), self.filesystem)
        resolved, rest = "/", [part for part in absolute.split("/") if part]
        symlinks = 0
        while rest:
            candidate = os.path.normpath(f"{resolved.rstrip('/')}/{rest.pop(0)}")
            host_path = Path(self.filesystem.host_path(candidate))
            if host_path.is_symlink():
                symlinks += 1
                if symlinks > MAX_SYMLINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.path.normpath(Path(resolved) / host_path.readlink())
                resolved, rest = "/", [part for part in target.split("/") if part] + rest
            else:
                resolved = candidate
        return Path(self.filesystem.host_path(resolved))

    def _read(self, path: str) -> str:
        source = self.locate(path)
        # Not blocking: a step may have made a pipe there.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PodError("it is not a file")
            content = file.read(MAX_PARAMETER_BYTES + 1)
        if len(content) > MAX_PARAMETER_BYTES:
            raise PodError(f"it has more than {MAX_PARAMETER_BYTES} bytes; make it an artifact")
        return content.decode(errors="replace")

    def _save(self, entry: dict[str, Any], source: Path) -> tuple[dict[str, Any], str]:
        strategy = entry.get("archive") or {}
        base = Path(os.path.normpath(str(entry["path"]))).name
        kind = stat.S_IFMT(source.lstat().st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFDIR}:
            raise PodError("it is neither a file nor a directory")
        self.scratch.mkdir(exist_ok=True)
        packed = self.scratch / "out"
        location = dict(entry.get("s3") or {})
        etag = ""
        if "none" in strategy:
            location.setdefault("key", f"{self.job.key_prefix}/{base}")
            etag = self._put_unpacked(location, source)
        elif "zip" in strategy:
            if kind == stat.S_IFREG and base != entry["name"]:
                raise PodError(
                    f"no such file or directory: Argo can zip a single file only when the artifact has its "
                    f"name, so call this artifact {base!r}, or have it archived as tar or none"
                )
            location.setdefault("key", f"{self.job.key_prefix}/{entry['name']}.zip")
            archive.pack_zip(source, entry["name"], packed)
            etag = self.artifacts.put(location, packed)
        else:
            location.setdefault("key", f"{self.job.key_prefix}/{entry['name']}.tgz")
            level = (strategy.get("tar") or {}).get("compressionLevel")
            archive.pack_tar(source, base, packed, archive.GZIP_LEVEL if level is None else level)
            etag = self.artifacts.put(location, packed)
        packed.unlink(missing_ok=True)
        return {**entry, "path": os.path.normpath(str(entry["path"])), "s3": location}, etag

    def _put_unpacked(self, location: dict[str, Any], source: Path) -> str:
        if not source.is_dir():
            return self.artifacts.put(location, source)
        for path, inner in archive.below(source):
            if path.is_file() and not path.is_symlink():
                key = f"{location['key'].rstrip('/')}/{inner}"
                self.artifacts.put({**location, "key": key}, path)
        return ""


def result_of(stdout: bytes) -> str:
    """`outputs.result` for a standard output: one newline trimmed, then the last 256 kB."""
    return stdout.removesuffix(b"\n")[-RESULT_BYTES:].decode(errors="replace")


def _reason(error: OSError | PodError, path: str) -> str:
    """The message of an error with the step's own path in it, not the host path."""
    if isinstance(error, OSError):
        return f"{path}: {(error.strerror or str(error)).lower()}"
    return str(error)
