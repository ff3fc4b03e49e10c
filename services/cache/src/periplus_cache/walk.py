"""The walk over a plan: what is known of each step, given the entries that were fetched. In memory, in order."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from periplus_cache import fanout, rest
from periplus_cache.domain import LOOKED_UP, Outputs, Place, Policy, Template, Verdict
from periplus_cache.key import Root
from periplus_cache.known import Known
from periplus_cache.plan import Item, Plan, StepQuery, StepVerdict, Text
from periplus_cache.values import Content, Unresolved, Values
from periplus_common.errors import Invalid

MOST_ITEMS = 10_000  # of all fan-outs of a plan: a verdict is given for each
NEWEST = 16  # entries of a step: what is run again is most often what was run of late


class Walk:
    """One pass. `open` are fingerprints that have to be looked up before the verdicts count."""

    def __init__(
        self,
        plan: Plan,
        roots: Mapping[str, Root],
        contents: Mapping[Place, Content],
        known: Known,
        now: datetime,
    ) -> None:
        self._plan, self._roots, self._known, self._now = plan, roots, known, now
        self._values = Values(contents)
        self._wanted = plan.wanted()
        self._left = MOST_ITEMS
        self.open: set[str] = set()
        # Static keys of steps whose inputs are not known, and how many entries may be of use.
        self.waiting: dict[str, int] = {}
        # Static keys of steps without an entry: whether others of theirs have one, tells why.
        self.touched: set[str] = set()
        self.hits: dict[str, Outputs] = {}  # by fingerprint
        self.verdicts = [self._step(query) for query in plan.steps]

    def _step(self, query: StepQuery) -> StepVerdict:
        template = self._plan.templates[query.template]
        forbidden = template.forbidden()
        if forbidden:
            found = StepVerdict(query.id, Verdict.UNCACHEABLE, forbidden)
        elif query.items is not None:
            found = self._fan(query, template, query.items)
        else:
            values, artifacts = self._fixed(query, template.policy)
            found = self._one(query.id, query, values, artifacts)
        self._values.given[query.id] = found.outputs or Unresolved(f"{query.id} has to run first")
        return found

    def _fan(self, query: StepQuery, template: Template, items: Text) -> StepVerdict:
        text = self._values.text(items, {})
        if isinstance(text, Unresolved):
            return self._not_yet(query.id, query.template, text, "its items", of_use=MOST_ITEMS)
        try:
            scopes, items_json = fanout.scopes(text)
        except Invalid as error:
            return StepVerdict(query.id, Verdict.MISS, f"its items: {error.message}")
        if not scopes:
            return StepVerdict(
                query.id, Verdict.HIT, "there are no items", outputs=self._none_of(query.id), items_json="[]"
            )
        self._left -= len(scopes)
        if self._left < 0:
            return StepVerdict(query.id, Verdict.MISS, f"more than {MOST_ITEMS} items are not looked up")
        values, artifacts = self._fixed(query, template.policy)
        varying = [
            (name, text)
            for name, text in query.parameters
            if name not in template.policy.ignored and any(isinstance(part, Item) for part in text)
        ]
        found = tuple(
            self._one(
                f"{query.id}({index})",
                query,
                {**values, **{name: self._values.text(text, scope) for name, text in varying}},
                artifacts,
            )
            for index, scope in enumerate(scopes)
        )
        return _together(query.id, found, items_json)

    def _none_of(self, id_: str) -> Outputs:
        """What others will read of a fan-out without items: empty lists under every name they ask for."""
        refs = self._wanted.get(id_, ())
        names = sorted(ref.name for ref in refs if not ref.result)
        result = "[]" if any(ref.result for ref in refs) else None
        return Outputs(tuple((name, "[]") for name in names), result=result)

    def _one(
        self,
        id_: str,
        query: StepQuery,
        values: Mapping[str, str | Unresolved],
        artifacts: Mapping[str, str | Unresolved],
    ) -> StepVerdict:
        template = query.template
        for name, value in (*values.items(), *artifacts.items()):
            if isinstance(value, Unresolved):
                return self._not_yet(id_, template, value, f"its input {name}")
        root, policy = self._roots[template], self._plan.templates[template].policy
        fingerprint = root.fingerprint(values, artifacts)  # type: ignore[arg-type]  # none is unresolved
        if policy.mode not in LOOKED_UP:
            return StepVerdict(id_, Verdict.MISS, _not_looked_up(policy), fingerprint)
        candidate = self._known.entries.get(fingerprint)
        if candidate is None:
            return self._absent(id_, root.static_key, fingerprint)
        if policy.ttl is not None and candidate.confirmed_at + policy.ttl <= self._now:
            reason = f"what run {candidate.run} made is older than its ttl of {_span(policy.ttl)}"
            return StepVerdict(id_, Verdict.MISS, reason, fingerprint)
        outputs = self.hits.get(fingerprint)
        if outputs is None:
            outputs = self.hits[fingerprint] = rest.outputs_from_bytes(candidate.stored_outputs)
        for ref in self._wanted.get(query.id, ()):
            if (outputs.result if ref.result else outputs.parameter(ref.name)) is None:
                reason = f"run {candidate.run} did the same, but its {ref.called()} was not kept"
                return StepVerdict(id_, Verdict.MISS, reason, fingerprint)
        return StepVerdict(
            id_,
            Verdict.HIT,
            f"run {candidate.run} did the same",
            fingerprint,
            outputs,
            candidate.run,
            candidate.step,
            candidate.took_us,
        )

    def _absent(self, id_: str, static_key: str, fingerprint: str) -> StepVerdict:
        known = self._known
        self.touched.add(static_key)
        if fingerprint not in known.asked and static_key not in known.complete:
            self.open.add(fingerprint)
        before = static_key in known.alive
        reason = "it was run before, but not with these inputs" if before else _NEVER
        return StepVerdict(id_, Verdict.MISS, reason, fingerprint)

    def _not_yet(
        self, id_: str, template: str, value: Unresolved, what: str, of_use: int = NEWEST
    ) -> StepVerdict:
        root, policy = self._roots[template], self._plan.templates[template].policy
        if value.never:
            return StepVerdict(id_, Verdict.MISS, f"{what}: {value.why}")
        if policy.mode not in LOOKED_UP:
            return StepVerdict(id_, Verdict.MISS, _not_looked_up(policy))
        self.waiting[root.static_key] = self.waiting.get(root.static_key, 0) + of_use
        if root.static_key in self._known.complete and root.static_key not in self._known.alive:
            return StepVerdict(id_, Verdict.MISS, _NEVER)
        verb = "are" if what == "its items" else "is"
        return StepVerdict(id_, Verdict.UNKNOWN, f"{what} {verb} not known yet: {value.why}")

    def _fixed(
        self, query: StepQuery, policy: Policy
    ) -> tuple[dict[str, str | Unresolved], dict[str, str | Unresolved]]:
        """The inputs that are the same for every item, without those that the policy ignores."""
        ignored = policy.ignored
        values = {
            name: self._values.text(text, {})
            for name, text in query.parameters
            if name not in ignored and not any(isinstance(part, Item) for part in text)
        }
        artifacts = {
            name: content
            for name, source in query.artifacts
            if name not in ignored and (content := self._values.artifact(source)) is not None
        }
        return values, artifacts


_NEVER = "it was never run before with this code and environment"


def _together(id_: str, found: tuple[StepVerdict, ...], items_json: str) -> StepVerdict:
    """What is known of a fan-out, from what is known of its items."""
    hits = sum(verdict.verdict is Verdict.HIT for verdict in found)
    misses = sum(verdict.verdict is Verdict.MISS for verdict in found)
    if hits == len(found):
        return StepVerdict(
            id_,
            Verdict.HIT,
            f"all {hits} items are known",
            outputs=fanout.joined(verdict.outputs for verdict in found if verdict.outputs),
            saved_us=sum(verdict.saved_us for verdict in found),
            items=found,
            items_json=items_json,
        )
    if misses == len(found):
        reasons = {verdict.reason for verdict in found}
        reason = reasons.pop() if len(reasons) == 1 else "none of its items is known"
        return StepVerdict(id_, Verdict.MISS, reason, items=found, items_json=items_json)
    reason = f"{hits} of {len(found)} items are known"
    return StepVerdict(id_, Verdict.UNKNOWN, reason, items=found, items_json=items_json)


def _not_looked_up(policy: Policy) -> str:
    return f"its cache policy is {policy.mode.value}, so it is not looked up"


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
