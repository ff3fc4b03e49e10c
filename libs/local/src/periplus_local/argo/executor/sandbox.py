"""The sandbox of one job on disk: prepared before its program runs, its outputs collected afterwards."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from periplus_local.argo.executor.artifact_repository import ArtifactRepository
from periplus_local.argo.executor.filesystem import (
    TMP,
    StepFilesystem,
    canonical,
    exists_on_host,
    is_host_folder,
    is_under,
    plan_filesystem,
)
from periplus_local.argo.executor.inputs import InputLoader, input_paths, mount_paths, output_paths
from periplus_local.argo.executor.job import Job, JobResult, Phase, PodError
from periplus_local.argo.executor.job_folder import JobFolder
from periplus_local.argo.executor.masks import Mask
from periplus_local.argo.executor.outputs import OutputCollector, result_of
from periplus_local.argo.executor.program import container_of, path_rewriter, program_of, working_dir
from periplus_local.argo.executor.root_pool import RootPool
from periplus_local.argo.executor.settings import ExecutorSettings

log = logging.getLogger(__name__)

DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
NOT_STARTED_EXIT_CODE = 125
SEARCH_PATH_VARIABLES = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH"}


@dataclass(frozen=True)
class Sandbox:
    """Prepares and collects one job. Its methods block.

    `interpreter` are the folders that this Python needs; `namespaces` says whether mount namespaces work here;
    `masks` is what no step sees.
    """

    job: Job
    folder: JobFolder
    artifacts: ArtifactRepository
    roots: RootPool
    settings: ExecutorSettings
    interpreter: tuple[str, ...]
    namespaces: bool
    masks: Sequence[Mask] = ()

    def has_slow_inputs(self) -> bool:
        """Whether `prepare` does more than write a few small files."""
        entries = (self.job.template.get("inputs") or {}).get("artifacts") or []
        return self.folder.path.exists() or any("s3" in entry for entry in entries)

    def has_slow_outputs(self) -> bool:
        """Whether `collect` does more than read a few small files."""
        return bool((self.job.template.get("outputs") or {}).get("artifacts"))

    def prepare(self) -> StepFilesystem:
        """Make the folder, load the inputs, write the spec. Raises PodError when it cannot."""
        try:
            self.folder.create()
            filesystem = self._plan()
            self.roots.acquire(filesystem)
            self._write(filesystem)
        except OSError as error:
            raise PodError(f"cannot prepare the step's folder: {error}") from error
        return filesystem

    def discard(self) -> None:
        """Remove the files of a job that will not be collected."""
        try:
            self.folder.remove_files()
        except OSError:
            log.warning("cannot remove the files of step %s", self.job.id, exc_info=True)

    def recover_filesystem(self) -> StepFilesystem | None:
        """The file system of a job that an earlier server started; None when its files cannot be trusted."""
        spec = self.folder.spec()
        return StepFilesystem.from_json(spec["filesystem"]) if spec else None

    def collect(self, filesystem: StepFilesystem) -> JobResult:
        """The result of an ended job, outputs included; written down, so that a later server finds it.

        Raises PodError when there is no record of how the step ended. The step's files stay until `clean_up`.
        """
        ending = self.folder.ending()
        if ending is None:
            raise PodError("the step ended and left no record of how")
        result = self._result(ending, filesystem)
        try:
            self._write_result(result)
        except OSError:
            log.warning("cannot write the record of step %s", self.job.id, exc_info=True)
        return result

    def clean_up(self, filesystem: StepFilesystem) -> None:
        """Remove the files that are not needed once the outputs are collected."""
        try:
            if self.folder.root.exists():
                self.roots.release(filesystem)
            self.folder.remove_files()
        except OSError:
            log.warning("cannot remove the files of step %s", self.job.id, exc_info=True)

    def _write_result(self, result: JobResult) -> None:
        try:
            self.folder.write_result(result)
        except OSError:
            # The disk may be full of this step's own files. The supervisor's record goes with them, so that after
            # a crash at this point the step is run again, instead of being collected without its files.
            self.folder.remove_ending()
            self.folder.remove_files()
            self.folder.write_result(result)

    def _plan(self) -> StepFilesystem:
        template = self.job.template
        workdir = working_dir(template)
        declared = [*input_paths(template), *output_paths(template), *mount_paths(template)]
        if not is_host_folder(workdir):
            declared.append(workdir)
        visible = [str(path.resolve()) for path in self.settings.visible]
        shared = [
            path for path in (*visible, *self.interpreter, *self._named_folders()) if exists_on_host(path)
        ]
        return plan_filesystem(self.folder.path, declared, shared, namespaces=self.namespaces)

    def _named_folders(self) -> list[str]:
        """Paths below /tmp where the template itself says that its program or its modules lie."""
        main = container_of(self.job.template)
        env = [entry for entry in main.get("env") or [] if entry.get("name") in SEARCH_PATH_VARIABLES]
        named = [str(word) for word in (main.get("command") or [])[:1]]
        named += [part for entry in env for part in str(entry.get("value") or "").split(":")]
        declared = set(input_paths(self.job.template)) | set(output_paths(self.job.template))
        return [os.path.normpath(path) for path in named if is_under(path, TMP) and path not in declared]

    def _write(self, filesystem: StepFilesystem) -> None:
        job = self.job
        loader = InputLoader(filesystem, self.folder.scratch, self.artifacts, self.settings)
        program = program_of(job, filesystem, str if self.namespaces else path_rewriter(filesystem))
        loader.make_folders(job.template, working_dir(job.template))
        volumes = [canonical(path, filesystem) for path in mount_paths(job.template)]
        if program.source is not None:
            loader.write_script(program.source)
        entries = (job.template.get("inputs") or {}).get("artifacts") or []
        read = {str(entry.get("name", "")): loader.load(entry) for entry in entries}
        self.folder.write_spec(
            {
                "argv": program.argv,
                "env": program.env,
                "cwd": program.cwd,
                "mounts": self._mounts(filesystem, volumes) if self.namespaces else None,
                "deadline_seconds": job.deadline_seconds,
                "grace_seconds": self.settings.grace.total_seconds(),
                "max_log_bytes": self.settings.max_log_bytes,
                "capture_stdout": job.capture_result,
                "filesystem": filesystem.to_json(),
                "read": read,
            }
        )

    def _mounts(self, filesystem: StepFilesystem, volumes: list[str]) -> dict[str, Any]:
        visible = [mask for mask in self.masks if not filesystem.is_private(mask.path)]
        return {
            **filesystem.mount_spec(),
            "volumes": volumes,
            "masks": [[mask.path, mask.identity] for mask in visible],
        }

    def _result(self, ending: dict[str, Any], filesystem: StepFilesystem) -> JobResult:
        code = int(ending["code"])
        phase, message = _phase_of(ending)
        collector = OutputCollector(self.job, filesystem, self.folder.scratch, self.artifacts)
        declared = self.job.template.get("outputs") or {}
        parameters: dict[str, str] = {}
        artifacts: list[dict[str, Any]] = []
        written: dict[str, str] = {}
        errors: list[str] = [ending["log_error"]] if ending["log_error"] else []
        for entry in declared.get("parameters") or []:
            with _collecting_errors(errors):
                value = collector.parameter(entry)
                if value is not None:
                    parameters[entry["name"]] = value
        for entry in [entry for entry in declared.get("artifacts") or [] if entry.get("path")]:
            with _collecting_errors(errors):
                saved = collector.artifact(entry)
                if saved is not None:
                    artifact, etag = saved
                    artifacts.append(artifact)
                    written[str(entry["name"])] = etag
        # As in Argo, a failed step reports its own failure and not its missing outputs.
        if errors and phase == "Succeeded":
            phase, message = "Error", f"wait: Error (exit code 64): {errors[0]}"
        captured = self.job.capture_result and not ending["start_error"]
        return JobResult(
            phase,
            message,
            code,
            ending["started"],
            ending["finished"],
            parameters,
            result_of(self.folder.stdout()) if captured else None,
            artifacts,
            (self.folder.spec() or {}).get("read") or {},
            written,
        )


@contextmanager
def _collecting_errors(errors: list[str]) -> Iterator[None]:
    try:
        yield
    except PodError as error:
        errors.append(str(error))


def _phase_of(ending: dict[str, Any]) -> tuple[Phase, str]:
    code = int(ending["code"])
    if ending["deadline_passed"]:
        return "Failed", DEADLINE_MESSAGE
    if ending.get("oom"):
        return "Failed", f"main: OOMKilled (exit code {code})"
    if ending["start_error"] and code == NOT_STARTED_EXIT_CODE:
        return "Error", f"main: Error (exit code {code}): {ending['start_error']}"
    if ending["start_error"]:
        return "Failed", f"main: Error (exit code {code}): {ending['start_error']}"
    if code:
        return "Failed", f"main: Error (exit code {code})"
    return "Succeeded", ""
