"""Resolving a request: fetch candidates, pass over the steps, check the objects of the hits; again while either changes."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from periplus_cache import history
from periplus_cache.content import Content, ContentReader, Unreadable
from periplus_cache.domain import Invalidation, ObjectVersion, uncacheable_reason
from periplus_cache.key import Scope, TemplateKey, TemplateKeys
from periplus_cache.lease.leasing import Leasing
from periplus_cache.ports import ObjectStore, Store
from periplus_cache.resolve.candidates import CandidateIndex
from periplus_cache.resolve.request import ResolveRequest
from periplus_cache.resolve.resolution import WITHOUT_ENTRY, ResolutionPass, ResolveLimits
from periplus_common.errors import Invalid
from periplus_common.pauses import Pauses
from periplus_model.queries import OutputRef, StepVerdict
from periplus_model.steps import ObjectRef

log = logging.getLogger(__name__)

GONE = "bytes are gone"
CHANGED = "bytes were changed"


class Resolver:
    """Gives the verdicts of a request's steps. `epoch` is part of every key."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        contents: ContentReader,
        keys: TemplateKeys,
        *,
        epoch: int,
        clock: Callable[[], datetime],
        limits: ResolveLimits,
        leasing: Leasing | None = None,
    ) -> None:
        self._leasing = leasing
        self._store, self._objects, self._contents, self._keys = store, objects, contents, keys
        self._epoch, self._clock, self._limits = epoch, clock, limits

    async def resolve(self, request: ResolveRequest) -> list[StepVerdict]:
        """A verdict for each step. Raises `Invalid` for a request that contradicts itself, and `Unavailable`."""
        pauses = Pauses()
        await request.check(pauses)
        request = request.restricted()
        keys = await self._template_keys(request, pauses)
        request = await self._without_divergent(request, keys)
        contents = await self._read_contents(request)
        required = await request.required_outputs(pauses)

        async def look_up() -> ResolutionPass:
            return await self._look_up(request, keys, contents, required, pauses)

        found = await look_up()
        verdicts: list[StepVerdict] = found.verdicts
        if self._leasing is not None:
            verdicts = await self._leasing.complete(
                request.project, request.run, request.steps, found, look_up
            )
        return await self._with_history(request.project, verdicts, self._clock())

    async def _look_up(
        self,
        request: ResolveRequest,
        keys: Mapping[str, TemplateKey],
        contents: Mapping[ObjectRef, Content | Unreadable],
        required: Mapping[str, frozenset[OutputRef]],
        pauses: Pauses,
    ) -> ResolutionPass:
        """The pass with which all verdicts are final."""
        now, candidates = self._clock(), CandidateIndex()

        async def next_pass() -> ResolutionPass:
            found = ResolutionPass(request, keys, contents, candidates, required, now, self._limits, pauses)
            return await found.run()

        # The first pass has no candidates: what it misses is what has to be fetched.
        await self._fetch(request.project, candidates, await next_pass(), now)
        checked: dict[ObjectRef, ObjectVersion | None] = {}
        while True:
            found = await next_pass()
            if found.missing:
                await self._fetch(request.project, candidates, found, now)
                continue
            stale = await self._stale_hits(found, candidates, checked)
            if not stale:
                return found
            log.warning(
                "%d entries of project %s refer to objects that are gone or changed",
                len(stale),
                request.project,
            )
            await self._store.invalidate(request.project, stale, now)
            candidates.remove(invalidation.fingerprint for invalidation in stale)

    async def _without_divergent(
        self, request: ResolveRequest, keys: Mapping[str, TemplateKey]
    ) -> ResolveRequest:
        """The request, in which templates that stop on divergence are uncacheable if there is one."""
        stopping = {
            name: keys[name].static_key
            for name, template in request.templates.items()
            if template.policy.stop_on_divergence and name in keys
        }
        if not stopping:
            return request
        found = await self._store.unresolved_divergences(request.project, set(stopping.values()))
        stopped = {
            name: replace(request.templates[name], uncacheable_reason=found[key].stop_reason)
            for name, key in stopping.items()
            if key in found
        }
        return replace(request, templates={**request.templates, **stopped}) if stopped else request

    async def _with_history(
        self, project: str, verdicts: list[StepVerdict], now: datetime
    ) -> list[StepVerdict]:
        """The verdicts, where a step without an entry whose key ran before says what became of the result."""
        unexplained = {
            each.fingerprint
            for verdict in verdicts
            for each in (verdict, *verdict.items)
            if each.fingerprint and each.reason in WITHOUT_ENTRY
        }
        if not unexplained:
            return verdicts
        past = await self._store.past_results(project, unexplained)
        reasons = {fingerprint: history.reason(result, now) for fingerprint, result in past.items()}
        return [_explained(verdict, reasons) for verdict in verdicts] if reasons else verdicts

    async def _template_keys(self, request: ResolveRequest, pauses: Pauses) -> Mapping[str, TemplateKey]:
        """The keys of the templates that can be looked up."""
        scope = Scope(request.project, self._epoch)
        keys = {}
        for name, template in request.templates.items():
            await pauses.take()
            if uncacheable_reason(template):
                continue
            try:
                keys[name] = self._keys.get(scope, template.document)
            except Invalid as error:
                raise Invalid(
                    error.message, field=f'templates["{name}"].document', reason="DOCUMENT_INVALID"
                ) from error
        return keys

    async def _read_contents(self, request: ResolveRequest) -> Mapping[ObjectRef, Content | Unreadable]:
        """The contents of the objects that are inputs of steps that are looked up."""
        refs = {
            source
            for step in request.steps
            if not uncacheable_reason(template := request.templates[step.template])
            for name, source in step.artifacts.items()
            if isinstance(source, ObjectRef) and name not in template.policy.ignore_inputs
        }
        return await self._contents.read(request.project, refs)

    async def _fetch(
        self, project: str, candidates: CandidateIndex, found: ResolutionPass, now: datetime
    ) -> None:
        """Fetch what a pass misses: by static key for steps with unknown inputs, by fingerprint for the others."""
        limits = dict.fromkeys(found.missed - candidates.fetched_static, 0)
        wanted = {
            key: entries for key, entries in found.wanted.items() if key not in candidates.fetched_static
        }
        total, bound = sum(wanted.values()), self._limits.max_candidates
        for key, entries in wanted.items():
            share = max(self._limits.min_candidates_per_key, entries * bound // total)
            limits[key] = entries if total <= bound else share
        missing = found.missing - candidates.fetched
        if limits or missing:
            by_static_key, exact = await self._store.candidates(project, limits, missing, now)
            candidates.add(limits, by_static_key, exact)
            candidates.fetched |= missing

    async def _stale_hits(
        self,
        found: ResolutionPass,
        candidates: CandidateIndex,
        checked: dict[ObjectRef, ObjectVersion | None],
    ) -> list[Invalidation]:
        """The hits that refer to objects that are gone or changed. Each object is checked once per request."""
        unchecked = {
            artifact.object: ObjectVersion(artifact.etag, artifact.size_bytes)
            for outputs in found.hits.values()
            for artifact in outputs.artifacts
            if artifact.object not in checked
        }
        if unchecked:
            checked |= unchecked
            checked |= await self._objects.changed(unchecked)
        stale = {}
        for fingerprint, outputs in found.hits.items():
            for artifact in outputs.artifacts:
                version = checked[artifact.object]
                if version is None or (version.etag, version.size_bytes) != (
                    artifact.etag,
                    artifact.size_bytes,
                ):
                    candidate = candidates.by_fingerprint[fingerprint]
                    stale[fingerprint] = Invalidation(
                        fingerprint,
                        candidate.producer_run,
                        candidate.producer_step,
                        GONE if version is None else CHANGED,
                    )
        return list(stale.values())


def _explained(verdict: StepVerdict, reasons: Mapping[str, str]) -> StepVerdict:
    """The verdict with what is known of its key; that of a fan-out whose items have one reason has it as well."""
    items = tuple(_explained(item, reasons) for item in verdict.items)
    said = {item.reason for item in items}
    reason = verdict.reason
    if reason in WITHOUT_ENTRY:
        own = reasons.get(verdict.fingerprint, "") if verdict.fingerprint else ""
        reason = own or (said.pop() if len(said) == 1 else reason)
    return replace(verdict, reason=reason, items=items)
