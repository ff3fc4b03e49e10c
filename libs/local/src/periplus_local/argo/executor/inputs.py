"""Inputs of a step: its folders, its script and its input artifacts, put where the step expects them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.executor import archive
from periplus_local.argo.executor.artifact_repository import ArtifactRepository, NoSuchKeyError
from periplus_local.argo.executor.cleanup import remove
from periplus_local.argo.executor.filesystem import (
    SCRIPT,
    TMP,
    StepFilesystem,
    canonical,
    is_host_folder,
    is_under,
)
from periplus_local.argo.executor.job import PodError
from periplus_local.argo.executor.program import working_dir
from periplus_local.argo.executor.settings import ExecutorSettings


@dataclass(frozen=True)
class InputLoader:
    """Puts the inputs of one step into its file system. Blocks; `scratch` is a folder for temporary files."""

    filesystem: StepFilesystem
    scratch: Path
    artifacts: ArtifactRepository
    settings: ExecutorSettings

    def make_folders(self, template: dict[str, Any], workdir: str) -> None:
        """Make the folders that an image or Kubernetes would provide."""
        filesystem = self.filesystem
        for path in (TMP, "/argo/staging"):
            Path(filesystem.host_path(path)).mkdir(parents=True, exist_ok=True)
        Path(filesystem.host_path(TMP)).chmod(0o1777)
        for overlay in filesystem.overlays:
            Path(overlay.storage).mkdir(parents=True, exist_ok=True)
        for path in (workdir, *mount_paths(template)):
            self._make_folder(canonical(path, filesystem))
        for host_path in filesystem.areas.values():
            Path(host_path).parent.mkdir(parents=True, exist_ok=True)
        for output in output_paths(template):
            # A step makes the folders of its outputs itself, as it must in a container, except for those that the
            # host has: these stand for the folders of the image.
            path = canonical(output, filesystem)
            if not is_under(path, TMP) and filesystem.is_private(path) and is_host_folder(path):
                self._make_folder(path)

    def write_script(self, source: str) -> None:
        """Write the source of a script template, executable."""
        script = Path(self.filesystem.host_path(SCRIPT))
        script.write_text(source, encoding="utf-8")
        script.chmod(0o755)

    def load(self, entry: dict[str, Any]) -> str:
        """Put one input artifact at its path, and give the ETag of the object that was read, or "".

        Raises PodError with Argo's message when it cannot.
        """
        name = entry.get("name", "")
        try:
            path = Path(self.filesystem.host_path(canonical(str(entry["path"]), self.filesystem)))
            path.parent.mkdir(parents=True, exist_ok=True)
            remove(path)
            return self._fetch(entry, path)
        except NoSuchKeyError as error:
            if not entry.get("optional"):
                raise _load_error(name, error) from error
            path.mkdir()  # as in a pod: an optional artifact that is missing is an empty folder
            return ""
        except (PodError, OSError, ValueError) as error:
            raise _load_error(name, error) from error

    def _fetch(self, entry: dict[str, Any], path: Path) -> str:
        etag = ""
        if isinstance(entry.get("raw"), dict):
            path.write_text(str(entry["raw"].get("data", "")), encoding="utf-8")
        elif isinstance(entry.get("s3"), dict) and entry["s3"].get("key"):
            self.scratch.mkdir(exist_ok=True)
            fetched = self.scratch / "fetched"
            etag = self.artifacts.get(entry["s3"], fetched)
            self._unpack(entry, fetched, path)
        elif entry.get("optional"):
            return ""
        else:
            raise PodError("it has no location (s3 or raw)")
        if entry.get("mode") is not None:
            _set_mode(path, int(entry["mode"]), deep=bool(entry.get("recurseMode")))
        return etag

    def _unpack(self, entry: dict[str, Any], fetched: Path, path: Path) -> None:
        strategy = entry.get("archive") or {}
        unpacked = self.scratch / "unpacked"
        if "none" in strategy or fetched.is_dir():
            shutil.move(fetched, path)
            return
        if "zip" in strategy:
            archive.unpack_zip(fetched, unpacked, self.settings.unpack)
        elif archive.is_tar(fetched):
            archive.unpack_tar(fetched, unpacked, self.settings.unpack)
        else:
            shutil.move(fetched, path)
            return
        fetched.unlink()
        entries = list(unpacked.iterdir())
        # As in Argo: a single file or folder in an archive takes the artifact's path.
        shutil.move(entries[0] if len(entries) == 1 else unpacked, path)
        remove(unpacked)

    def _make_folder(self, path: str) -> None:
        """Make a private folder; folders of the host stay as they are."""
        host_path = Path(self.filesystem.host_path(path))
        if str(host_path) != path or not self.filesystem.namespaces:
            host_path.mkdir(parents=True, exist_ok=True)


def output_paths(template: dict[str, Any]) -> list[str]:
    """The paths of a template's outputs; relative ones start at its working folder."""
    outputs = template.get("outputs") or {}
    from_files = [
        parameter["valueFrom"]["path"]
        for parameter in outputs.get("parameters") or []
        if (parameter.get("valueFrom") or {}).get("path")
    ]
    paths = from_files + [a["path"] for a in outputs.get("artifacts") or [] if a.get("path")]
    return [str(Path(working_dir(template)) / path) for path in paths] if paths else []


def input_paths(template: dict[str, Any]) -> list[str]:
    """The paths of a template's input artifacts."""
    entries = (template.get("inputs") or {}).get("artifacts") or []
    return [entry["path"] for entry in entries if entry.get("path")]


def mount_paths(template: dict[str, Any]) -> list[str]:
    """The paths where a template mounts volumes; a step has private empty folders there."""
    main = template.get("container") or template.get("script") or {}
    return [mount["mountPath"] for mount in main.get("volumeMounts") or []]


def _load_error(name: str, error: Exception) -> PodError:
    return PodError(f"init: Error (exit code 64): artifact {name} failed to load: {error}")


def _set_mode(path: Path, mode: int, *, deep: bool) -> None:
    if deep and path.is_dir():
        for below, _ in reversed(list(archive.below(path))):
            if not below.is_symlink():
                below.chmod(mode)
    path.chmod(mode)
