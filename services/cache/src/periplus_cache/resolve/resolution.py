"""One pass over the steps of a request, in order and in memory: the verdict of each with the entries fetched so far."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from periplus_cache.content import Content, Unreadable
from periplus_cache.domain import uncacheable_reason
from periplus_cache.key import TemplateKey
from periplus_cache.lease.unit import LeaseUnit
from periplus_cache.resolve import fanout, planned
from periplus_cache.resolve.candidates import CandidateIndex, changed
from periplus_cache.resolve.inputs import InputValues, Unresolved, output_name, output_value
from periplus_cache.resolve.planned import PlannedFingerprints
from periplus_cache.resolve.request import ResolveRequest
from periplus_common.errors import Invalid
from periplus_common.pauses import Pauses
from periplus_model.queries import Item, OutputRef, StepQuery, StepVerdict, Text
from periplus_model.steps import CachePolicy, ObjectRef, Outputs, Verdict

_NEVER_RUN = "it was never run before with this code and environment"
_OTHER_INPUTS = "it was run before, but not with these inputs"
WITHOUT_ENTRY = (_NEVER_RUN, _OTHER_INPUTS)
"""Reasons of steps whose key has no live entry: what became of an earlier result, if there was one, says more."""


@dataclass(frozen=True, slots=True)
class ResolveLimits:
    """Bounds of one request.

    `max_items`: items of all fan-outs, each of which gets a verdict. `candidates_per_step`: the newest entries that are
    fetched for a step whose inputs are not known yet. `max_candidates`: rows that one query fetches by static keys,
    shared among them. `min_candidates_per_key`: rows that a static key gets in any case.
    """

    max_items: int = 10_000
    candidates_per_step: int = 16
    max_candidates: int = 2000
    min_candidates_per_key: int = 4


class ResolutionPass:
    """The verdicts of all steps, and what has to be fetched before they are final.

    `missing`: fingerprints to look up. `wanted`: static keys of steps whose inputs are not known, with the number of
    entries that may be of use. `missed`: static keys of steps without an entry; whether others have one is part of the
    reason. `hits`: outputs by fingerprint. `units`: the steps and items that are no hits and may wait for another run, by id.
    """

    def __init__(
        self,
        request: ResolveRequest,
        keys: Mapping[str, TemplateKey],
        contents: Mapping[ObjectRef, Content | Unreadable],
        candidates: CandidateIndex,
        required: Mapping[str, frozenset[OutputRef]],
        now: datetime,
        limits: ResolveLimits,
        pauses: Pauses,
    ) -> None:
        self._request, self._keys, self._candidates, self._now = request, keys, candidates, now
        self._limits, self._pauses = limits, pauses
        self._values = InputValues(contents)
        self._planned = PlannedFingerprints(self._values)
        self._required = required
        self._items_left = limits.max_items
        self.missing: set[str] = set()
        self.wanted: dict[str, int] = {}
        self.missed: set[str] = set()
        self.hits: dict[str, Outputs] = {}
        self.units: dict[str, LeaseUnit] = {}
        self.verdicts: list[StepVerdict] = []

    async def run(self) -> "ResolutionPass":
        """Find the verdicts."""
        for query in self._request.steps:
            await self._pauses.take()
            self.verdicts.append(await self._step(query))
        return self

    async def _step(self, query: StepQuery) -> StepVerdict:
        template = self._request.templates[query.template]
        reason = uncacheable_reason(template)
        if not reason:
            self._planned.add(query, self._keys[query.template].static_key, template.policy.ignore_inputs)
        if reason:
            verdict = StepVerdict(query.id, Verdict.UNCACHEABLE, reason)
        elif query.items is not None:
            verdict = await self._fan_out(query, template.policy, query.items)
        else:
            parameters, artifacts = self._constant_inputs(query, template.policy)
            verdict = self._instance(query.id, query, parameters, artifacts)
        is_open = verdict.verdict in (Verdict.MISS, Verdict.UNKNOWN) and self._candidates.is_fetched
        if is_open and (found := self._planned.find(query)):
            verdict = replace(verdict, planned_fingerprint=found)
        self._values.outputs[query.id] = verdict.outputs or Unresolved(f"{query.id} has to run first")
        return verdict

    async def _fan_out(self, query: StepQuery, policy: CachePolicy, items: Text) -> StepVerdict:
        text = self._values.text(items, {})
        if isinstance(text, Unresolved):
            verdict = self._unresolved(query.id, query.template, text, "its items", self._limits.max_items)
            if not text.permanent:
                self._add_unit(query.id, query, "", None)
            return verdict
        try:
            scopes, items_json = fanout.scopes(text)
        except Invalid as error:
            return StepVerdict(query.id, Verdict.MISS, f"its items: {error.message}")
        if not scopes:
            return StepVerdict(
                query.id,
                Verdict.HIT,
                "there are no items",
                outputs=self._empty_outputs(query.id),
                items_json="[]",
            )
        self._items_left -= len(scopes)
        if self._items_left < 0:
            reason = f"more than {self._limits.max_items} items are not looked up"
            return StepVerdict(query.id, Verdict.MISS, reason)
        parameters, artifacts = self._constant_inputs(query, policy)
        varying = {
            name: text
            for name, text in query.parameters.items()
            if name not in policy.ignore_inputs and any(isinstance(part, Item) for part in text)
        }
        verdicts = []
        for index, scope in enumerate(scopes):
            await self._pauses.take()
            of_item = {name: self._values.text(text, scope) for name, text in varying.items()}
            verdicts.append(
                self._instance(
                    f"{query.id}({index})", query, {**parameters, **of_item}, artifacts, (index, scope)
                )
            )
        return _combined(query.id, tuple(verdicts), items_json)

    def _empty_outputs(self, step: str) -> Outputs:
        """The outputs of a fan-out without items: an empty list under every name that later steps refer to."""
        refs = self._required.get(step, ())
        names = sorted(ref.name for ref in refs if not ref.result)
        result = "[]" if any(ref.result for ref in refs) else None
        return Outputs(parameters=dict.fromkeys(names, "[]"), result=result)

    def _instance(
        self,
        id_: str,
        query: StepQuery,
        parameters: Mapping[str, str | Unresolved],
        artifacts: Mapping[str, str | Unresolved],
        item: "_IndexedItem | None" = None,
    ) -> StepVerdict:
        """The verdict of a step or of an item of a fan-out."""
        for name, value in (*parameters.items(), *artifacts.items()):
            if isinstance(value, Unresolved):
                if not value.permanent:
                    self._add_unit(id_, query, "", item)
                return self._unresolved(id_, query.template, value, f"its input {name}")
        key, policy = self._keys[query.template], self._request.templates[query.template].policy
        fingerprint = key.fingerprint(parameters, artifacts)  # type: ignore[arg-type]  # none is Unresolved
        if not policy.mode.is_looked_up:
            return StepVerdict(id_, Verdict.MISS, _not_looked_up(policy), fingerprint)
        key_fingerprint = fingerprint
        candidate = self._candidates.find(fingerprint, self._request.code_index)
        if candidate is None:
            self._add_unit(id_, query, key_fingerprint, item)
            return self._without_entry(id_, key.static_key, fingerprint)
        fingerprint = candidate.fingerprint
        if policy.ttl is not None and candidate.confirmed_at + policy.ttl <= self._now:
            self._add_unit(id_, query, key_fingerprint, item)
            reason = f"the result of run {candidate.producer_run} is older than its ttl of {_duration_text(policy.ttl)}"
            return StepVerdict(id_, Verdict.MISS, reason, fingerprint)
        outputs = self.hits.get(fingerprint)
        if outputs is None:
            outputs = self.hits[fingerprint] = candidate.load_outputs()
        for ref in self._required.get(query.id, ()):
            if output_value(outputs, ref) is None:
                self._add_unit(id_, query, key_fingerprint, item)
                reason = (
                    f"run {candidate.producer_run} did the same, but its {output_name(ref)} was not recorded"
                )
                return StepVerdict(id_, Verdict.MISS, reason, fingerprint)
        return StepVerdict(
            id_,
            Verdict.HIT,
            f"run {candidate.producer_run} did the same",
            fingerprint,
            outputs=outputs,
            producer_run=candidate.producer_run,
            producer_step=candidate.producer_step,
            saved=candidate.duration,
        )

    def _add_unit(self, id_: str, query: StepQuery, fingerprint: str, item: "_IndexedItem | None") -> None:
        """Note a step that is no hit so far, or an item of a fan-out, whose inputs give a fingerprint or are not known (empty).

        Not in the first pass, which has no entries yet.
        """
        policy = self._request.templates[query.template].policy
        if not policy.mode.is_looked_up or not self._candidates.is_fetched:
            return
        whole = self._planned.find(query)
        own = planned.of_item(whole, item[1]) if item is not None and whole and not fingerprint else whole
        fingerprints = [fingerprint, own] if item is None or not fingerprint else [fingerprint]
        if any(fingerprints):
            self.units[id_] = LeaseUnit(
                id_,
                query.path if item is None else f"{query.path}({item[0]})",
                tuple(filter(None, fingerprints)),
                others=(whole,) if item is not None and whole else (),
                mode=query.lease,
                may_hold=policy.mode.is_recorded,
                fan_out="" if item is None else query.id,
            )

    def _without_entry(self, id_: str, static_key: str, fingerprint: str) -> StepVerdict:
        candidates = self._candidates
        self.missed.add(static_key)
        if fingerprint not in candidates.fetched and static_key not in candidates.complete:
            self.missing.add(fingerprint)
        if others := candidates.by_base.get(fingerprint):
            used = changed(others[0], self._request.code_index)
            reason = f"run {others[0].producer_run} did the same, but it used {_named(used)}, which {'is' if len(used) == 1 else 'are'} not the same now"
            return StepVerdict(id_, Verdict.MISS, reason, fingerprint)
        live = static_key in candidates.live
        reason = _OTHER_INPUTS if live else _NEVER_RUN
        return StepVerdict(id_, Verdict.MISS, reason, fingerprint)

    def _unresolved(
        self, id_: str, template: str, value: Unresolved, what: str, useful_entries: int = 0
    ) -> StepVerdict:
        """UNKNOWN if an entry might match once the value is known, else MISS."""
        static_key, policy = self._keys[template].static_key, self._request.templates[template].policy
        if value.permanent:
            return StepVerdict(id_, Verdict.MISS, f"{what}: {value.reason}")
        if not policy.mode.is_looked_up:
            return StepVerdict(id_, Verdict.MISS, _not_looked_up(policy))
        useful_entries = useful_entries or self._limits.candidates_per_step
        self.wanted[static_key] = self.wanted.get(static_key, 0) + useful_entries
        if static_key in self._candidates.complete and static_key not in self._candidates.live:
            return StepVerdict(id_, Verdict.MISS, _NEVER_RUN)
        verb = "are" if what == "its items" else "is"
        return StepVerdict(id_, Verdict.UNKNOWN, f"{what} {verb} not known yet: {value.reason}")

    def _constant_inputs(
        self, query: StepQuery, policy: CachePolicy
    ) -> tuple[dict[str, str | Unresolved], dict[str, str | Unresolved]]:
        """Parameters and artifacts that are the same for every item, without those that the policy ignores."""
        ignored = policy.ignore_inputs
        parameters = {
            name: self._values.text(text, {})
            for name, text in query.parameters.items()
            if name not in ignored and not any(isinstance(part, Item) for part in text)
        }
        artifacts = {
            name: content
            for name, source in query.artifacts.items()
            if name not in ignored and (content := self._values.artifact(source)) is not None
        }
        return parameters, artifacts


_IndexedItem = tuple[int, Mapping[str, str]]
"""The index of an item and the values that its tags have."""


def _combined(id_: str, items: tuple[StepVerdict, ...], items_json: str) -> StepVerdict:
    """The verdict of a fan-out from those of its items."""
    hits = sum(item.verdict is Verdict.HIT for item in items)
    misses = sum(item.verdict is Verdict.MISS for item in items)
    if hits == len(items):
        return StepVerdict(
            id_,
            Verdict.HIT,
            f"all {hits} items are hits",
            outputs=fanout.joined(item.outputs for item in items if item.outputs),
            saved=sum((item.saved for item in items), timedelta()),
            items=items,
            items_json=items_json,
        )
    if misses == len(items):
        reasons = {item.reason for item in items}
        reason = reasons.pop() if len(reasons) == 1 else "none of its items is a hit"
        return StepVerdict(id_, Verdict.MISS, reason, items=items, items_json=items_json)
    reason = f"{hits} of {len(items)} items are hits"
    return StepVerdict(id_, Verdict.UNKNOWN, reason, items=items, items_json=items_json)


def _named(names: list[str]) -> str:
    """Names of the code index in words: the first, and how many more."""
    text = f"the import of {names[0][:-1]}" if names[0].endswith(":") else names[0]
    return text if len(names) == 1 else f"{text} and {len(names) - 1} more"


def _not_looked_up(policy: CachePolicy) -> str:
    return f"its cache mode is {policy.mode.label}, so it is not looked up"


def _duration_text(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
