"""From a run request to a planned run: read the manifest, take a snapshot, look up the steps, decide."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher.domain import (
    ConfigRef,
    ConfigVersion,
    Json,
    ResolvedImage,
    RunRequest,
    RunState,
)
from periplus_dispatcher.manifest import library
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.calls import ExpandedWorkflow
from periplus_dispatcher.manifest.config import getting_config, ignored_warnings
from periplus_dispatcher.manifest.defaults import with_defaults
from periplus_dispatcher.manifest.discovered import read_index
from periplus_dispatcher.manifest.images import (
    ImagePolicy,
    accepted,
    images_warning,
    pin,
    to_resolve,
    unresolved,
)
from periplus_dispatcher.manifest.library import LibraryBounds, LibraryRef
from periplus_dispatcher.manifest.locations import SharedKeys, check_locations
from periplus_dispatcher.manifest.pod_template import PodTemplate
from periplus_dispatcher.manifest.read import CheckedManifest
from periplus_dispatcher.manifest.resolve import resolve
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.ports import Cache, ConfigObjects, Snapshotter, Templates, WorkflowDefaults
from periplus_dispatcher.rewrite.generated import RewrittenManifest
from periplus_dispatcher.rewrite.plan import Plan, StepAction, decide
from periplus_model.queries import LeaseMode, StepVerdict

MAX_INLINE_READ_CHARACTERS = 64 << 10
"""Longer manifests are read in a thread: some take seconds to check, and would delay every other call."""

_SERVED = (StepAction.SERVE, StepAction.SERVE_PART)


@dataclass(frozen=True)
class PlannedRun:
    """A run request after reading and planning.

    `manifest` has the library templates that `source`, the workflow as it was written, refers to, and its images by digest.
    `submitted` is what Argo would get with the name of a run. `rewritten` and `submitted` are set by the dispatcher, unless
    nothing is submitted.
    """

    source: Json
    manifest: Json
    parameters: Mapping[str, str]
    expanded: ExpandedWorkflow
    plan: Plan
    snapshot: str
    warnings: tuple[str, ...]
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """As in `RunState`."""
    images_are_checked: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    """As in `RunState`."""
    pinned: Json = field(default_factory=dict)
    """`manifest` with the digests of its images, also if it is not submitted so."""
    rewritten: RewrittenManifest | None = None
    submitted: Json | None = None

    @property
    def pipeline(self) -> str:
        """The workflow's name, or the prefix that its runs' names begin with."""
        return _pipeline(self.manifest)

    def state(self, rewritten: RewrittenManifest) -> RunState:
        """What is needed to read the Workflow of the rewritten manifest later."""
        steps = self.plan.steps
        served = [step for step in steps if step.action in _SERVED] if rewritten.generated else []
        state = RunState(
            templates=self.expanded.templates,
            generated=rewritten.generated,
            fan_outs=rewritten.fan_outs,
            stretches=rewritten.stretches,
            resolved={step.call.path: step.verdict for step in served},
            images=self.images,
            images_are_checked=self.images_are_checked,
            config=self.config,
        )
        return self.plan.given_to(state)


def _pipeline(manifest: Json) -> str:
    metadata = manifest.get("metadata") or {}
    return str(metadata.get("generateName") or metadata.get("name") or "workflow").rstrip("-.")


class Planner:
    """Plans run requests with the help of the snapshotter, the cache and Argo's templates.

    If one can not be reached, a warning says so.
    """

    def __init__(
        self,
        cache: Cache,
        snapshotter: Snapshotter,
        templates: Templates,
        environment: StepEnvironment,
        shared: SharedKeys,
        bounds: LibraryBounds | None = None,
        image_policy: ImagePolicy = ImagePolicy.OFF,
        argo_demands_references: bool = False,
        config: ConfigObjects | None = None,
        defaults: WorkflowDefaults | None = None,
    ) -> None:
        self._cache = cache
        self._snapshotter = snapshotter
        self._templates = templates
        self._bounds = bounds or LibraryBounds()
        self._argo_demands_references = argo_demands_references
        self._environment = environment
        self._image_policy = image_policy
        self._shared = shared
        self._config = config
        self._defaults = defaults

    async def plan(self, request: RunRequest, run_of: Callable[[str], str] | None = None) -> PlannedRun:
        """Plan a run. Raises `Invalid` with the field's path.

        `run_of` gives the id of the run from its pipeline, if it is to be submitted: it gets leases of the steps that it will make.
        """
        if len(request.manifest) > MAX_INLINE_READ_CHARACTERS:
            checked = await asyncio.to_thread(manifests.read, request.manifest, request.parameters)
        else:
            checked = manifests.read(request.manifest, request.parameters)
        resolved = await resolve(
            checked,
            request.parameters,
            self._get_template,
            self._templates.namespace,
            self._bounds,
            argo_demands_references=self._argo_demands_references,
        )
        checked = resolved.checked
        defaults, unknown_defaults = await self._read_defaults()
        with checked.located():
            check_locations(checked.manifest, checked.parameters, request.project, self._shared)
            # In a thread: thousands of templates take a second to read, and would delay every other call.
            pods = await asyncio.to_thread(getting_config, with_defaults(checked, defaults))
        (snapshot, digest, warnings), images, config = await asyncio.gather(
            self._take_snapshot(request, library.contents(resolved.objects)),
            self._resolve_images(request.project, checked),
            self._read_config(pods),
        )
        environment = replace(
            self._environment,
            unresolved=unresolved(images),
            config=tuple(sorted(config.items())),
            unknown_defaults=unknown_defaults,
        )
        if not environment.runs_images:
            environment = replace(environment, digest=digest)
        pinned = pin(checked, environment, images)
        with checked.located():
            # In a thread: thousands of calls take a second, and would delay every other call.
            expanded = await asyncio.to_thread(with_defaults(pinned, defaults).expand, environment)
        warnings += [
            *images_warning(self._image_policy, images),
            *resolved.warnings,
            *ignored_warnings(pods),
            *expanded.warnings,
        ]
        index = read_index(checked.manifest)
        verdicts: dict[str, StepVerdict] = {}
        run = run_of(_pipeline(checked.manifest)) if run_of is not None else ""
        mode = LeaseMode.RESERVE if run else LeaseMode.NONE
        if queries := [
            # What a loop over a template invocator contains is planned once, and has other paths in the run.
            call.query if "(*)" in call.path else replace(call.query, lease=mode)
            for call in expanded.calls
            if call.query is not None
        ]:
            templates = {name: template.step for name, template in expanded.templates.items()}
            try:
                verdicts = await self._cache.resolve(
                    request.project, run, request.cache_mode, templates, queries, index
                )
            except (Unavailable, Invalid) as error:
                # `Invalid` as well: the steps run, as the request itself is valid.
                warnings.append(f"every step runs, as the cache could not be asked: {error}")
        plan = decide(expanded, verdicts)
        if plan.exit_cost:
            warnings.append(plan.exit_cost)
        is_pinned = self._image_policy is ImagePolicy.PIN
        return PlannedRun(
            resolved.source,
            pinned.manifest if is_pinned else checked.manifest,
            checked.parameters,
            expanded,
            plan,
            snapshot,
            tuple(warnings),
            accepted(self._image_policy, images),
            images_are_checked=self._image_policy is ImagePolicy.CHECK,
            config={
                ref.object.id: found.resource_version for ref, found in config.items() if not found.reason
            },
            pinned=pinned.manifest,
        )

    async def _get_template(self, ref: LibraryRef) -> Json | None:
        return await self._templates.get_template(ref.name, cluster_scope=ref.is_cluster)

    async def _read_defaults(self) -> tuple[Json, str]:
        """What Argo's controller adds to every Workflow, and why it is not known; empty if it is, or is not asked for."""
        try:
            return (await self._defaults.read() if self._defaults else {}), ""
        except Unavailable as error:
            return {}, str(error)

    async def _read_config(self, pods: Sequence[PodTemplate]) -> dict[ConfigRef, ConfigVersion]:
        """The versions of the data of Secrets and ConfigMaps that steps get; none where the dispatcher reads none."""
        refs = dict.fromkeys(ref for pod in pods for ref in pod.config)
        return await self._config.versions(list(refs)) if self._config and refs else {}

    async def _take_snapshot(
        self, request: RunRequest, templates: Sequence[tuple[str, bytes]]
    ) -> tuple[str, str, list[str]]:
        """The snapshot's id, the environment's digest, and warnings."""
        if request.reproduces is not None:
            return request.reproduces.snapshot, "", []
        if request.claim is None and not templates:
            return "", "", []
        try:
            snapshot, digest, warnings = await self._snapshotter.take(
                request.project, request.claim or b"", templates
            )
        except Unavailable as error:
            return "", "", [f"the run has no snapshot: {error}"]
        # Without a claim nothing is known of the environment.
        return snapshot, "" if request.claim is None else digest, warnings

    async def _resolve_images(self, project: str, checked: CheckedManifest) -> list[ResolvedImage]:
        """The images of a manifest that can change under their tags."""
        if not self._environment.runs_images or self._image_policy is ImagePolicy.OFF:
            return []
        images = await asyncio.to_thread(to_resolve, checked, self._environment)
        if not images:
            return []
        try:
            return await self._snapshotter.resolve_images(project, images)
        except Unavailable as error:
            return [ResolvedImage(image, reason=f"its digest is not known: {error}") for image in images]
