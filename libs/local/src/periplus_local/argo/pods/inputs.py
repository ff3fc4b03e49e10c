"""What a step finds when it starts: its script, its input artifacts, its folders."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.pods import archive
from periplus_local.argo.pods.job import PodError
from periplus_local.argo.pods.program import working_dir
from periplus_local.argo.pods.removal import remove
from periplus_local.argo.pods.store import Artifacts, NoSuchKeyError
from periplus_local.argo.pods.view import SCRIPT, TMP, View, canonical, is_folder, under

UNPACKED_BYTES = 64 << 30
UNPACKED_ENTRIES = 1_000_000


@dataclass(frozen=True)
class Inputs:
    """Prepares the files of one step in its view. Blocks; `scratch` is for its own use."""

    view: View
    scratch: Path
    artifacts: Artifacts

    def make_folders(self, template: dict[str, Any], workdir: str) -> None:
        """The folders that an image, or Kubernetes, would have had ready."""
        for path in (TMP, "/argo/staging"):
            Path(self.view.host(path)).mkdir(parents=True, exist_ok=True)
        Path(self.view.host(TMP)).chmod(0o1777)
        for shadow in self.view.shadows:
            Path(shadow.storage).mkdir(parents=True, exist_ok=True)
        for path in (workdir, *mounts(template)):
            self._folder(canonical(path, self.view))
        for place in self.view.areas.values():
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        for given in output_paths(template):
            # A step makes its own folders, as it must in a container; those of the machine stand for the image's.
            path = canonical(given, self.view)
            if not under(path, TMP) and self.view.private(path) and is_folder(path):
                self._folder(path)

    def write_script(self, source: str) -> None:
        """The source of a script template, executable."""
        script = Path(self.view.host(SCRIPT))
        script.write_text(source, encoding="utf-8")
        script.chmod(0o755)

    def load(self, entry: dict[str, Any]) -> None:
        """Put one input artifact at its path; raises PodError in Argo's words when it cannot."""
        name = entry.get("name", "")
        try:
            path = Path(self.view.host(canonical(str(entry["path"]), self.view)))
            path.parent.mkdir(parents=True, exist_ok=True)
            remove(path)
            self._bring(entry, path)
        except NoSuchKeyError as error:
            if not entry.get("optional"):
                raise self._failed(name, error) from error
            path.mkdir()  # a pod has an empty folder where a file that may be missing was to be mounted
        except (PodError, OSError, ValueError) as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: Exception) -> PodError:
        return PodError(f"init: Error (exit code 64): artifact {name} failed to load: {error}")

    def _bring(self, entry: dict[str, Any], path: Path) -> None:
        if isinstance(entry.get("raw"), dict):
            path.write_text(str(entry["raw"].get("data", "")), encoding="utf-8")
        elif isinstance(entry.get("s3"), dict) and entry["s3"].get("key"):
            self.scratch.mkdir(exist_ok=True)
            fetched = self.scratch / "fetched"
            self.artifacts.get(entry["s3"], fetched)
            self._place(entry, fetched, path)
        elif entry.get("optional"):
            return
        else:
            raise PodError("it has no location (s3 or raw)")
        if entry.get("mode") is not None:
            _set_mode(path, int(entry["mode"]), deep=bool(entry.get("recurseMode")))

    def _place(self, entry: dict[str, Any], fetched: Path, path: Path) -> None:
        how = entry.get("archive") or {}
        allowance = archive.Allowance(UNPACKED_BYTES, UNPACKED_ENTRIES)
        unpacked = self.scratch / "unpacked"
        if "none" in how or fetched.is_dir():
            shutil.move(fetched, path)
            return
        if "zip" in how:
            archive.unpack_zip(fetched, unpacked, allowance)
        elif archive.is_tar(fetched):
            archive.unpack_tar(fetched, unpacked, allowance)
        else:
            shutil.move(fetched, path)
            return
        fetched.unlink()
        only = list(unpacked.iterdir())
        # Argo: the one file or folder of an archive takes the artifact's own name.
        shutil.move(only[0] if len(only) == 1 else unpacked, path)
        remove(unpacked)

    def _folder(self, path: str) -> None:
        """Make a folder in the step's own part of its view; the machine's folders stay as they are."""
        place = Path(self.view.host(path))
        if str(place) != path or not self.view.namespaces:
            place.mkdir(parents=True, exist_ok=True)


def output_paths(template: dict[str, Any]) -> list[str]:
    """The paths that a template promises to write; one that is relative starts at its working folder."""
    outputs = template.get("outputs") or {}
    from_files = [
        parameter["valueFrom"]["path"]
        for parameter in outputs.get("parameters") or []
        if (parameter.get("valueFrom") or {}).get("path")
    ]
    given = from_files + [a["path"] for a in outputs.get("artifacts") or [] if a.get("path")]
    return [str(Path(working_dir(template)) / path) for path in given] if given else []


def input_paths(template: dict[str, Any]) -> list[str]:
    """The paths that a template expects to find."""
    entries = (template.get("inputs") or {}).get("artifacts") or []
    return [entry["path"] for entry in entries if entry.get("path")]


def mounts(template: dict[str, Any]) -> list[str]:
    """The paths where a pod would have volumes; a step has empty folders of its own there."""
    main = template.get("container") or template.get("script") or {}
    return [mount["mountPath"] for mount in main.get("volumeMounts") or []]


def _set_mode(path: Path, mode: int, *, deep: bool) -> None:
    if deep and path.is_dir():
        for below in sorted(path.rglob("*"), reverse=True):
            if not below.is_symlink():
                below.chmod(mode)
    path.chmod(mode)
