"""One job on disk: its folder prepared before it runs, its outputs collected when it has ended."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from periplus_local.argo.pods.folder import Folder
from periplus_local.argo.pods.inputs import Inputs, input_paths, mounts, output_paths
from periplus_local.argo.pods.job import Done, Job, Phase, PodError
from periplus_local.argo.pods.outputs import Outputs, result
from periplus_local.argo.pods.program import body, program, working_dir
from periplus_local.argo.pods.rewriting import rewriter
from periplus_local.argo.pods.roots import Roots
from periplus_local.argo.pods.store import Artifacts
from periplus_local.argo.pods.view import TMP, View, canonical, exists, is_folder, plan, under

log = logging.getLogger(__name__)

LATE = "Pod was active on the node longer than the specified deadline"
NOT_STARTED = 125
SEARCHED = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH"}


@dataclass(frozen=True)
class Sandbox:
    """The work around one attempt of a job. Its methods block."""

    job: Job
    folder: Folder
    artifacts: Artifacts
    roots: Roots
    visible: tuple[str, ...]
    namespaces: bool
    log_bytes: int
    grace: float

    def fetches(self) -> bool:
        """Whether `prepare` has more to do than to write a few small files."""
        entries = (self.job.template.get("inputs") or {}).get("artifacts") or []
        return self.folder.path.exists() or any("s3" in entry for entry in entries)

    def stores(self) -> bool:
        """Whether `collect` has more to do than to read a few small files."""
        return bool((self.job.template.get("outputs") or {}).get("artifacts"))

    def prepare(self) -> View:
        """Make the folder, load the inputs, write the spec. Raises PodError when it cannot."""
        try:
            self.folder.create()
            view = self._plan()
            self.roots.take(view)
            self._write(view)
        except OSError as error:
            raise PodError(f"cannot prepare the step's folder: {error}") from error
        return view

    def give_up(self) -> None:
        """Remove the files of a job that comes to no end."""
        try:
            self.folder.forget_files()
        except OSError:
            log.warning("cannot tidy the folder of step %s", self.job.id, exc_info=True)

    def replan(self) -> View | None:
        """The view that an attempt of an earlier server has had; None when there is none to be trusted."""
        spec = self.folder.spec()
        return View.read(spec["plan"]) if spec else None

    def collect(self, view: View) -> Done:
        """What became of the attempt, outputs included; kept, so that a later call may find it.

        The files of the step stay until `tidy`.
        """
        ending = self.folder.ending()
        if ending is None:
            raise PodError("the step ended and left no record of how")
        done = self._done(ending, view)
        try:
            self._keep(done)
        except OSError:
            log.warning("cannot keep the record of step %s", self.job.id, exc_info=True)
        return done

    def tidy(self, view: View) -> None:
        """Remove what nobody needs once the outputs are collected."""
        try:
            if self.folder.root.exists():
                self.roots.give(view)
            self.folder.forget_files()
        except OSError:
            log.warning("cannot tidy the folder of step %s", self.job.id, exc_info=True)

    def _keep(self, done: Done) -> None:
        try:
            self.folder.write_done(done)
        except OSError:
            # The disk may be full of this step's own files. Without its record, a crash from here
            # on means that the step is run again, and not that its outputs are missing.
            self.folder.forget_ending()
            self.folder.forget_files()
            self.folder.write_done(done)

    def _plan(self) -> View:
        template = self.job.template
        workdir = working_dir(template)
        declared = [*input_paths(template), *output_paths(template), *mounts(template)]
        if not is_folder(workdir):
            declared.append(workdir)
        kept = [path for path in (*self.visible, *self._own_places()) if exists(path)]
        return plan(self.folder.path, declared, kept, namespaces=self.namespaces)

    def _own_places(self) -> list[str]:
        """Folders below /tmp where the template itself says that programs or modules lie."""
        main = body(self.job.template)
        env = [entry for entry in main.get("env") or [] if entry.get("name") in SEARCHED]
        named = [str(word) for word in (main.get("command") or [])[:1]]
        named += [part for entry in env for part in str(entry.get("value") or "").split(":")]
        declared = set(input_paths(self.job.template)) | set(output_paths(self.job.template))
        return [os.path.normpath(path) for path in named if under(path, TMP) and path not in declared]

    def _write(self, view: View) -> None:
        job = self.job
        inputs = Inputs(view, self.folder.scratch, self.artifacts)
        run = program(job, view, rewriter(view) if not self.namespaces else str)
        inputs.make_folders(job.template, working_dir(job.template))
        volumes = [canonical(path, view) for path in mounts(job.template)]
        if run.source is not None:
            inputs.write_script(run.source)
        for entry in (job.template.get("inputs") or {}).get("artifacts") or []:
            inputs.load(entry)
        self.folder.write_spec(
            {
                "argv": run.argv,
                "env": run.env,
                "cwd": run.cwd,
                "view": {**view.spec(), "volumes": volumes} if self.namespaces else None,
                "deadline": job.deadline_seconds,
                "grace": self.grace,
                "log_limit": self.log_bytes,
                "capture": job.capture_result,
                "plan": view.record(),
            }
        )

    def _done(self, ending: dict[str, Any], view: View) -> Done:
        code = int(ending["code"])
        phase, message = _judge(ending)
        outputs = Outputs(self.job, view, self.folder.scratch, self.artifacts)
        declared = self.job.template.get("outputs") or {}
        parameters: dict[str, str] = {}
        artifacts: list[dict[str, Any]] = []
        faults: list[str] = [ending["log_fault"]] if ending["log_fault"] else []
        for entry in declared.get("parameters") or []:
            with _noting(faults):
                value = outputs.parameter(entry)
                if value is not None:
                    parameters[entry["name"]] = value
        for entry in [entry for entry in declared.get("artifacts") or [] if entry.get("path")]:
            with _noting(faults):
                saved = outputs.artifact(entry)
                if saved is not None:
                    artifacts.append(saved)
        # Argo: a failed step's own failure comes before that of its missing outputs.
        if faults and phase == "Succeeded":
            phase, message = "Error", f"wait: Error (exit code 64): {faults[0]}"
        return Done(
            phase,
            message,
            code,
            ending["started"],
            ending["finished"],
            parameters,
            result(self.folder.stdout()) if self.job.capture_result and not ending["fault"] else None,
            artifacts,
        )


@contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    try:
        yield
    except PodError as error:
        faults.append(str(error))


def _judge(ending: dict[str, Any]) -> tuple[Phase, str]:
    code = int(ending["code"])
    if ending["late"]:
        return "Failed", LATE
    if ending.get("oom"):
        return "Failed", f"main: OOMKilled (exit code {code})"
    if ending["fault"] and code == NOT_STARTED:
        return "Error", f"main: Error (exit code {code}): {ending['fault']}"
    if ending["fault"]:
        return "Failed", f"main: Error (exit code {code}): {ending['fault']}"
    if code:
        return "Failed", f"main: Error (exit code {code})"
    return "Succeeded", ""
