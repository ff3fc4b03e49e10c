"""What the cache does: resolve plans, record what was done, explain, show and withdraw entries."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from periplus_cache.attempt import Savings
from periplus_cache.contents import Contents, Read
from periplus_cache.domain import Place, Stat
from periplus_cache.entry import Selector
from periplus_cache.explaining import Explanation, explain
from periplus_cache.key import Root, Roots, Scope
from periplus_cache.known import Known
from periplus_cache.plan import Object, Plan, StepVerdict
from periplus_cache.ports import Burial, Objects, Recording, Shown, Store
from periplus_cache.recording import Finished, Recorder
from periplus_cache.values import Content
from periplus_cache.walk import Walk
from periplus_common.errors import Invalid, NotFound

log = logging.getLogger(__name__)

CANDIDATES = 2000  # rows that one query fetches by static keys, shared among them
FEWEST = 4  # rows that a static key may have, however many keys there are

FUTURE = timedelta(days=1)  # that clocks may be ahead

GONE = "bytes are gone"
CHANGED = "bytes were changed"


def _now() -> datetime:
    return datetime.now(UTC)


class Cache:
    """The cache. `epoch` is part of every key: raising it disowns all entries."""

    def __init__(
        self, store: Store, objects: Objects, *, epoch: int = 0, clock: Callable[[], datetime] = _now
    ) -> None:
        self._store, self._objects, self._epoch, self._clock = store, objects, epoch, clock
        self._roots = Roots()
        self._contents = Contents(store, objects)
        self._recorder = Recorder(self._contents, self._roots, epoch)

    async def resolve(self, plan: Plan) -> list[StepVerdict]:
        """What is known of each step. Raises `Invalid` for a plan that contradicts itself, and `Unavailable`."""
        plan.check()
        roots = self._rooted(plan)
        contents = await self._read(plan)
        now, known = self._clock(), Known()
        # The first walk knows no entry: what it can not go past is what has to be asked.
        walk = Walk(plan, roots, contents, known, now)
        await self._ask(plan.project, known, walk, now)
        checked: dict[Place, Stat | None] = {}
        while True:
            walk = Walk(plan, roots, contents, known, now)
            if walk.open:
                await self._ask(plan.project, known, walk, now)
                continue
            gone = await self._gone(walk, known, checked)
            if not gone:
                return walk.verdicts
            log.warning("%d entries of project %s name objects that are gone", len(gone), plan.project)
            await self._store.bury(plan.project, gone, now)
            known.forget(burial.fingerprint for burial in gone)

    async def record(self, *steps: Finished) -> list[Invalid | None]:
        """Keep what finished steps leave. To be called again is harmless.

        Of each that can not be kept, why: a bad document, or a step that is said to end tomorrow or later: no result
        of today's could ever take its place. Raises `Unavailable` where they can not be read or kept now.
        """
        # Those that read nothing are stored together. An artifact may take long to read, and no other step waits for it.
        alone = [place for place, step in enumerate(steps) if step.reads]
        together = [place for place, step in enumerate(steps) if not step.reads]
        groups = [group for group in (together, *([place] for place in alone)) if group]
        done = await asyncio.gather(
            *(self._record([steps[place] for place in group]) for group in groups), return_exceptions=True
        )
        problems: dict[int, Invalid | None] = {}
        for group, found in zip(groups, done, strict=True):
            if isinstance(found, BaseException):
                raise found
            problems |= dict(zip(group, found, strict=True))
        return [problems[place] for place in range(len(steps))]

    async def _record(self, steps: Sequence[Finished]) -> list[Invalid | None]:
        recordings, problems = [], list[Invalid | None]()
        for step in steps:
            try:
                recordings.append(await self._recording(step))
                problems.append(None)
            except Invalid as error:
                problems.append(error)
        if recordings:
            await self._store.record(*recordings)
        return problems

    async def _recording(self, step: Finished) -> Recording:
        if step.finished_at > self._clock() + FUTURE:
            raise Invalid(f"lies in the future: {step.finished_at.isoformat()}", field="finished_at")
        return await self._recorder.recording(step)

    async def explain(self, project: str, run: str, step: str) -> Explanation:
        """Why a step was not served from the cache. Raises `NotFound` where it is not recorded."""
        return await explain(self._store, project, run, step)

    async def entry(self, project: str, fingerprint: str) -> Shown:
        """One entry. Raises `NotFound`."""
        found = await self._store.entry(project, fingerprint)
        if found is None:
            raise NotFound(f"no entry has the fingerprint {fingerprint}", reason="ENTRY_NOT_FOUND")
        return found

    async def invalidate(self, project: str, selector: Selector, reason: str, *, only_count: bool) -> int:
        """Take entries out of use, or only count them. Raises `Invalid` where nothing is selected."""
        if not selector:
            raise Invalid(
                "no selector is given",
                field="fingerprints",
                reason="SELECTOR_MISSING",
                fix="give fingerprints, a template or a run",
            )
        return await self._store.invalidate(project, selector, reason, self._clock(), only_count=only_count)

    async def savings(self, project: str, run: str) -> Savings:
        """What hits saved, in a run or, without one, in the project."""
        return await self._store.savings(project, run)

    def _rooted(self, plan: Plan) -> Mapping[str, Root]:
        scope = Scope(plan.project, self._epoch)
        roots = {}
        for name, template in plan.templates.items():
            try:
                roots[name] = self._roots.of(scope, template.document)
            except Invalid as error:
                raise Invalid(
                    error.message, field=f'templates["{name}"].document', reason="DOCUMENT_INVALID"
                ) from error
        return roots

    async def _read(self, plan: Plan) -> Mapping[Place, Content]:
        """The digests of all objects that the plan names as inputs of steps that are looked up."""
        places = {
            source.place
            for step in plan.steps
            if not (template := plan.templates[step.template]).forbidden()
            for name, source in step.artifacts
            if isinstance(source, Object) and name not in template.policy.ignored
        }
        found = await self._contents.of(places)
        return {p: content.digest if isinstance(content, Read) else content for p, content in found.items()}

    async def _ask(self, project: str, known: Known, walk: Walk, now: datetime) -> None:
        """Fetch what the walk lacks: of steps with unknown inputs the newest entries, of others their own."""
        limits = dict.fromkeys(walk.touched - known.asked_static, 0)
        fresh = {key: of_use for key, of_use in walk.waiting.items() if key not in known.asked_static}
        wanted = sum(fresh.values())
        for key, of_use in fresh.items():
            limits[key] = of_use if wanted <= CANDIDATES else max(FEWEST, of_use * CANDIDATES // wanted)
        open_ = walk.open - known.asked
        if limits or open_:
            by_static, exact = await self._store.candidates(project, limits, open_, now)
            known.learn(limits, by_static, exact)
            known.asked |= open_

    async def _gone(self, walk: Walk, known: Known, checked: dict[Place, Stat | None]) -> list[Burial]:
        """Which hits name objects that are gone or changed. An object is looked at once a call."""
        held = {
            artifact.place: Stat(artifact.etag, artifact.size)
            for outputs in walk.hits.values()
            for artifact in outputs.artifacts
            if artifact.place not in checked
        }
        if held:
            checked |= held
            checked |= await self._objects.changed(held)
        gone = {}
        for fingerprint, outputs in walk.hits.items():
            for artifact in outputs.artifacts:
                stat = checked[artifact.place]
                if stat is None or (stat.etag, stat.size) != (artifact.etag, artifact.size):
                    made = known.entries[fingerprint]
                    reason = GONE if stat is None else CHANGED
                    gone[fingerprint] = Burial(fingerprint, made.run, made.step, reason)
        return list(gone.values())
