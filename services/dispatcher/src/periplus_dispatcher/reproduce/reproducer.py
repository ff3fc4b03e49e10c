"""Reproduces runs: checks what a run needs, and submits its resolved manifest with the cache off."""

import json
from dataclasses import dataclass

from periplus_common.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from periplus_dispatcher.domain import Json, Reproduced, Run, RunRequest
from periplus_dispatcher.manifest.images import MAX_IMAGES
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.planner import PlannedRun
from periplus_dispatcher.ports import Cache, Lineage, Runs, Snapshots
from periplus_dispatcher.reproduce.needs import needs
from periplus_dispatcher.reproduce.one_step import one_step
from periplus_dispatcher.reproduce.record import complete_record
from periplus_dispatcher.reproduce.requirements import (
    Needs,
    Requirement,
    in_order,
    of_environment,
    of_image,
    of_object,
    of_omitted,
)
from periplus_dispatcher.service import Dispatcher
from periplus_model.steps import CacheMode


@dataclass(frozen=True)
class ReproductionRequest:
    """What a caller asks for. `claim` is a serialized `Claim` of its environment, None without one."""

    project: str
    run: str
    step: str = ""
    accept_unmet: bool = False
    claim: bytes | None = None


@dataclass(frozen=True)
class Reproduction:
    """What was checked, and the new run; None if it was only checked. `manifest` is what runs."""

    requirements: tuple[Requirement, ...] = ()
    manifest: Json | None = None
    run: Run | None = None


class Reproducer:
    """Checks and submits reproductions."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        runs: Runs,
        lineage: Lineage | None,
        cache: Cache,
        snapshotter: Snapshots,
        environment: StepEnvironment,
        namespace: str,
    ) -> None:
        self._dispatcher = dispatcher
        self._runs = runs
        self._lineage = lineage
        self._cache = cache
        self._snapshotter = snapshotter
        self._environment = environment
        self._namespace = namespace

    async def check(self, request: ReproductionRequest) -> Reproduction:
        """What a reproduction needs, and the manifest that would run. Raises `NotFound`, `Refused`, `Invalid`, `Unavailable`."""
        _, planned, found = await self._checked(request)
        return Reproduction(tuple(found), planned.submitted or planned.manifest)

    async def reproduce(self, request: ReproductionRequest, request_id: str) -> Reproduction:
        """Run it, or give the run of the same request. Raises as `check`, and `Refused` for what is not met."""
        if not request_id:
            raise Invalid("is required", field="request_id")
        earlier = await self._runs.find(request.project, request_id)
        if earlier is not None:
            of = earlier.reproduces
            if of is None or (of.run, of.step) != (request.run, request.step):
                raise Invalid(
                    "was used for another request before",
                    field="request_id",
                    reason="REQUEST_ID_REUSED",
                    fix="send the request with a new request_id",
                )
            return Reproduction(run=earlier)
        run_request, planned, found = await self._checked(request)
        unmet = [each for each in found if each.state.refuses]
        if unmet and not request.accept_unmet:
            first = unmet[0]
            more = f", and {len(unmet) - 1} more" if len(unmet) > 1 else ""
            raise Refused(
                f"{len(unmet)} of {len(found)} requirements are not met: {first.name}: {first.reason}{more}",
                reason="REQUIREMENTS_UNMET",
                fix=f"periplus reproduce {request.run} --dry-run",
            )
        try:
            submitted = await self._dispatcher.submit(run_request, request_id)
        except Conflict as error:
            raise Unavailable(f"{error.message}; repeat the request") from error
        return Reproduction(tuple(found), planned.submitted or planned.manifest, submitted.run)

    async def _checked(
        self, request: ReproductionRequest
    ) -> tuple[RunRequest, PlannedRun, list[Requirement]]:
        run = await self._runs.get(request.run)
        if run is None or run.project != request.project:
            raise NotFound(f"no run {request.run} in project {request.project}", fix="periplus runs")
        if not run.phase.is_final:
            raise Refused(
                f"the run is {run.phase.label}, and is reproduced once it has finished",
                reason="RUN_NOT_FINISHED",
                fix=f"periplus watch {run.id}",
            )
        manifest = await self._resolved(run)
        record = await complete_record(self._lineage, run)
        if request.step:
            manifest, record = one_step(manifest, record, request.step)
        run_request = RunRequest(
            project=request.project,
            manifest=json.dumps(manifest, ensure_ascii=False),
            parameters={},
            cache_mode=CacheMode.OFF,
            reproduces=Reproduced(run.id, request.step, run.snapshot),
        )
        try:
            planned = await self._dispatcher.plan(run_request)
        except Invalid as error:  # it is not the caller's manifest
            raise Refused(
                f"its manifest is refused now: {error}", reason="NOT_REPRODUCIBLE", fix=error.fix
            ) from error
        needed = needs(manifest, planned.parameters, planned.expanded, record, run.state.templates)
        return run_request, planned, in_order(await self._requirements(request, run, needed))

    async def _resolved(self, run: Run) -> Json:
        """The resolved manifest of a run. Raises `Refused` if it is not stored, or can not be run here."""
        if run.observed is not None and run.observed.namespace != self._namespace:
            raise Refused(
                f"its Workflow ran in the namespace {run.observed.namespace}, and Periplus submits to {self._namespace}",
                reason="NOT_REPRODUCIBLE",
            )
        text = await self._runs.get_resolved(run.id)
        if not text:
            raise Refused(
                "its manifest is not stored: it ran before manifests were",
                reason="NOT_REPRODUCIBLE",
                fix="run it once more from its file, and reproduce that run",
            )
        found: Json = json.loads(text)
        return found

    async def _requirements(self, request: ReproductionRequest, run: Run, needed: Needs) -> list[Requirement]:
        found = [*needed.others, *await self._objects(request.project, needed), *await self._omitted(run)]
        if self._environment.runs_images:
            return [*found, *await self._images(request.project, needed)]
        return [*found, await self._environment_requirement(request, run)]

    async def _objects(self, project: str, needed: Needs) -> list[Requirement]:
        refs = list(dict.fromkeys(each.ref for each in needed.objects))
        contents = await self._cache.digest_objects(project, refs)
        return [of_object(each, contents[each.ref]) for each in needed.objects]

    async def _omitted(self, run: Run) -> list[Requirement]:
        if not run.snapshot:
            return []
        try:
            return of_omitted(await self._snapshotter.omitted(run.project, run.snapshot))
        except NotFound:
            return []

    async def _images(self, project: str, needed: Needs) -> list[Requirement]:
        asked = [each.image for each in needed.images if "@sha256:" in each.image and not each.is_local]
        resolved = {}
        if asked := asked[:MAX_IMAGES]:
            try:
                resolved = {
                    each.image: each for each in await self._snapshotter.resolve_images(project, asked)
                }
            except Unavailable:
                resolved = {}
        immutable = self._environment.immutable_image_prefixes
        return [of_image(each, resolved.get(each.image), immutable) for each in needed.images]

    async def _environment_requirement(self, request: ReproductionRequest, run: Run) -> Requirement:
        expected = actual = ""
        differences: list[str] = []
        if run.snapshot:
            try:
                expected = await self._snapshotter.environment(run.project, run.snapshot)
            except NotFound:
                expected = ""
        if request.claim is not None:
            now, actual, _ = await self._snapshotter.take(run.project, request.claim, ())
            if expected and expected != actual:
                differences = await self._snapshotter.differences(run.project, run.snapshot, now)
        return of_environment(run.snapshot, expected, actual, differences)
