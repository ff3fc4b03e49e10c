"""Workflows that others create, at their admission: what is changed so that the cache is used for them, and what is wrong with them.

Nothing is recorded: a Workflow that is admitted may still be refused by others, or only be tried (`--dry-run=server`). What its
run is followed with, it carries itself (`manifest.rewritten`).
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from periplus_common.errors import Invalid, PeriplusError
from periplus_dispatcher.domain import MANAGED_LABEL, Json, ResolvedImage, RunRequest
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_dispatcher.manifest.rewritten import (
    ANNOTATION,
    MAX_ANNOTATION_BYTES,
    REWRITTEN_LABEL,
    Rewrite,
    arguments_digest,
    encode,
    spec_digest,
)
from periplus_dispatcher.observed.namespaces import Observation
from periplus_dispatcher.planner import MAX_INLINE_READ_CHARACTERS, PlannedRun, Planner
from periplus_dispatcher.ports import Snapshotter
from periplus_dispatcher.rewrite.rewriter import rewrite
from periplus_manifest.bounds import MAX_MANIFEST_BYTES
from periplus_model.steps import CacheMode

log = logging.getLogger(__name__)

MAX_ANNOTATIONS_BYTES = 256 << 10
"""Of all annotations of an object, names and values: Kubernetes refuses more."""
_INVALID_REASONS = ("MANIFEST_INVALID", "TEMPLATE_NOT_FOUND", "TEMPLATES_IN_A_CIRCLE")
"""Of errors that Argo would find as well, once the Workflow runs."""


class Validation(StrEnum):
    """What is done with a Workflow that Argo would end with an error."""

    WARN = "warn"
    """It is admitted with a warning."""
    REFUSE = "refuse"
    OFF = "off"


@dataclass(frozen=True)
class AdmissionAnswer:
    """The answer: operations of a JSON patch, warnings for who creates it, and the reason why it is refused, if it is."""

    patch: tuple[Json, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: Invalid | None = None


class WithoutSnapshots:
    """A snapshotter that takes no snapshots, as nothing is recorded of a Workflow that does not exist yet."""

    def __init__(self, snapshotter: Snapshotter) -> None:
        self._snapshotter = snapshotter

    async def take(
        self,
        project: str,  # noqa: ARG002
        claim: bytes,  # noqa: ARG002
        templates: Sequence[tuple[str, bytes]],  # noqa: ARG002
    ) -> tuple[str, str, list[str]]:
        return "", "", []

    async def resolve_images(self, project: str, images: Sequence[str]) -> list[ResolvedImage]:
        return await self._snapshotter.resolve_images(project, images)


class Admission:
    """Rewrites the Workflows of namespaces that are observed, each with a planner of its own; others run as they are."""

    def __init__(
        self,
        planners: Mapping[str, Planner],
        observation: Observation,
        *,
        validation: Validation,
        budget: timedelta,
        gate_timeout: timedelta,
        max_at_a_time: int = 32,
    ) -> None:
        self._planners = planners
        self._observation = observation
        self._validation = validation
        self._budget = budget.total_seconds()
        self._gate_timeout = gate_timeout
        self._max_at_a_time = max_at_a_time
        self._at_a_time = 0

    async def admit(self, workflow: Json, namespace: str) -> AdmissionAnswer:
        """The answer for a Workflow that is created; after the budget, or whatever fails: it runs as it is, with a warning.

        Its metadata has the types of Kubernetes; nothing else of it is trusted.
        """
        labels = workflow["metadata"].get("labels") or {}
        if MANAGED_LABEL in labels or REWRITTEN_LABEL in labels:
            return AdmissionAnswer()
        if self._at_a_time >= self._max_at_a_time:
            # Else all of them would wait for longer than Kubernetes does, and so would the gates of open runs.
            return _unchanged("too many Workflows are created at the same time")
        self._at_a_time += 1
        try:
            async with asyncio.timeout(self._budget):
                return await self._admit(_manifest(workflow), workflow, namespace)
        except Invalid as error:
            return self._invalid(error)
        except TimeoutError:
            return _unchanged(f"the cache was not asked within {self._budget:g} s")
        except PeriplusError as error:
            return _unchanged(str(error))
        except Exception:
            # Whatever is wrong here must not keep others from creating Workflows.
            log.exception("a Workflow of %s is admitted as it is", namespace)
            return _unchanged("it could not be rewritten")
        finally:
            self._at_a_time -= 1

    async def _admit(self, manifest: Json, workflow: Json, namespace: str) -> AdmissionAnswer:
        text = json.dumps(manifest)
        planner, project = self._planners.get(namespace), self._project(workflow, namespace)
        if planner is None or project is None:
            if self._validation is not Validation.OFF:
                await _read(text)
            return _unchanged(f"Workflows like it in the namespace {namespace} are not observed")
        is_recorded = project in self._observation.recorded_projects
        mode = None if is_recorded else CacheMode.READ
        planned = await planner.plan(RunRequest(project, text, {}, mode))
        # In a thread: thousands of calls take a second, and would delay every other call.
        if len(text) > MAX_INLINE_READ_CHARACTERS:
            return await asyncio.to_thread(self._rewritten, planned, workflow)
        return self._rewritten(planned, workflow)

    def _project(self, workflow: Json, namespace: str) -> str | None:
        """The project of the run that a Workflow will be; None if it will not be observed."""
        observed = self._observation.namespaces.get(namespace)
        if observed is None or not self._observation.selects(workflow):
            return None
        return observed.project_of(workflow)

    def _rewritten(self, planned: PlannedRun, workflow: Json) -> AdmissionAnswer:
        done = rewrite(
            planned.manifest, planned.plan, planned.expanded.templates, gate_timeout=self._gate_timeout
        )
        if done.is_too_large:
            return _unchanged(
                f"with its gates and cached outputs it would have more than {MAX_MANIFEST_BYTES} bytes"
            )
        before, after = planned.source["spec"], done.manifest["spec"]
        operations = spec_patch(before, after)
        is_asked = any(step.call.query is not None for step in planned.plan.steps)
        if not operations and not is_asked:
            return AdmissionAnswer(warnings=planned.warnings)
        labels = {**((done.manifest.get("metadata") or {}).get("labels") or {}), REWRITTEN_LABEL: "true"}
        annotations: dict[str, str] = {}
        if (
            is_asked
        ):  # also where no step is served: the keys of its results are those that the next plan asks for
            carried = Rewrite(
                planned.state(done),
                tuple(planned.plan.nodes),
                before,
                str(after["entrypoint"]),
                spec_digest(after),
                arguments_digest(after),
            )
            annotations[ANNOTATION] = encode(carried)
        present = workflow["metadata"].get("annotations") or {}
        if reason := _too_large(annotations, present, done.manifest):
            return _unchanged(reason)
        for name, added in (("labels", labels), ("annotations", annotations)):
            operations += _added(workflow["metadata"], name, added)
        return AdmissionAnswer(tuple(operations), planned.warnings)

    def _invalid(self, error: Invalid) -> AdmissionAnswer:
        """The answer for a Workflow that can not be read: the field, as the user knows it."""
        field = error.field.removeprefix("spec.manifest").removeprefix(".")
        found = Invalid(error.message, field=field, reason=error.reason, fix=error.fix)
        if error.reason not in _INVALID_REASONS or ANNOTATION_PREFIX in error.field:
            return _unchanged(str(found))
        if self._validation is Validation.REFUSE:
            return AdmissionAnswer(refusal=found)
        return AdmissionAnswer(
            warnings=() if self._validation is Validation.OFF else (f"Argo will refuse it: {found}",)
        )


def spec_patch(before: Json, after: Json) -> list[Json]:
    """The operations that make one spec of another. A template that is the same in both is not part of them."""
    operations: list[Json] = [{"op": "remove", "path": _path(name)} for name in before if name not in after]
    for name, value in after.items():
        old = before.get(name)
        if name not in before:
            operations.append({"op": "add", "path": _path(name), "value": value})
        elif name == "templates" and old is not None and len(old) <= len(value):
            operations += [
                {"op": "replace", "path": f"{_path(name)}/{index}", "value": template}
                for index, template in enumerate(value[: len(old)])
                if template != old[index]
            ]
            operations += [{"op": "add", "path": f"{_path(name)}/-", "value": t} for t in value[len(old) :]]
        elif old != value:
            operations.append({"op": "replace", "path": _path(name), "value": value})
    return operations


def _path(name: str, *, of: str = "/spec") -> str:
    return f"{of}/{name.replace('~', '~0').replace('/', '~1')}"


def _added(metadata: Json, field: str, added: Mapping[str, str]) -> list[Json]:
    """The operations that add labels or annotations."""
    present = metadata.get(field)
    if not present:
        return [{"op": "add", "path": f"/metadata/{field}", "value": dict(added)}] if added else []
    new = {name: value for name, value in added.items() if present.get(name) != value}
    return [
        {"op": "add", "path": _path(name, of=f"/metadata/{field}"), "value": value}
        for name, value in new.items()
    ]


def _too_large(added: Mapping[str, str], present: Mapping[str, str], manifest: Json) -> str:
    """Why a Workflow with further annotations would be refused; empty if it would not."""
    size = sum(map(len, added.values()))
    all_of_them = sum(len(n.encode()) + len(v.encode()) for n, v in {**present, **added}.items())
    if size > MAX_ANNOTATION_BYTES or all_of_them > MAX_ANNOTATIONS_BYTES:
        return f"what it would carry has {size} bytes, which are too many for its annotations"
    if size + len(json.dumps(manifest, ensure_ascii=False).encode()) > MAX_MANIFEST_BYTES:
        return f"it would have more than {MAX_MANIFEST_BYTES} bytes"
    return ""


def _manifest(workflow: Json) -> Json:
    """What a manifest of this Workflow would have: without what Kubernetes added."""
    given = workflow["metadata"]
    metadata = {
        name: given[name] for name in ("name", "generateName", "labels", "annotations") if given.get(name)
    }
    kept: Json = {name: workflow[name] for name in ("apiVersion", "kind", "spec") if name in workflow}
    return {**kept, "metadata": metadata}


async def _read(text: str) -> None:
    if len(text) > MAX_INLINE_READ_CHARACTERS:
        await asyncio.to_thread(manifests.read, text, {})
    else:
        manifests.read(text, {})


def _unchanged(reason: str) -> AdmissionAnswer:
    return AdmissionAnswer(warnings=(f"every step runs, and none is served from the cache: {reason}",))
