"""Walks of any graph, rings included, meet what a plain reading of the facts meets."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from story import PROJECT
from test_store_facts import emptied
from test_walk import walks

from periplus_common import postgres
from periplus_lineage.domain.fact import Facts, FlowFact, StepFact
from periplus_lineage.domain.graph import StepKey, object_name, place
from periplus_lineage.store.facts import FactStore

STEPS = [(run, path) for run in "ab" for path in ("x", "y", "z")]
KEYS = ["k1", "k2", "k3"]
DIGESTS = [None, b"\1" * 32, b"\2" * 32]

flows = st.lists(
    st.tuples(
        st.sampled_from(STEPS), st.booleans(), st.sampled_from(KEYS), st.sampled_from(DIGESTS), st.booleans()
    ),
    max_size=14,
)
links = st.sets(st.tuples(st.sampled_from(STEPS), st.sampled_from(STEPS), st.booleans()), max_size=6)


class Plain:
    """The graph as lists, read from end to end for every question."""

    def __init__(self, facts: Facts, hung: set) -> None:
        self.flows = [
            ((run, path), made, fact.object, fact.digest, fact.cached)
            for (_, run, path, made, _, _), fact in facts.flows.items()
        ]
        self.links = hung

    def instance(self, object_: str, digest: bytes | None):
        told = {d for _, _, o, d, _ in self.flows if o == object_ and d}
        return object_, digest or (told.pop() if len(told) == 1 else None)

    def given(self, step, made: bool) -> set:
        return {self.instance(o, d) for s, m, o, d, _ in self.flows if s == step and m == made}

    def makers(self, instance) -> set:
        object_, digest = instance
        there = [
            f for f in self.flows if f[1] and f[2] == object_ and (f[3] == digest or not f[3] or not digest)
        ]
        found = there or [f for f in self.flows if f[1] and digest and f[3] == digest]
        really = [f for f in found if not f[4]]
        return {f[0] for f in really or found}

    def users(self, instance) -> set:
        object_, digest = instance

        def orphan(f) -> bool:
            return not any(m[1] and m[2] == f[2] and (not m[3] or m[3] == f[3]) for m in self.flows)

        here = {
            f[0]
            for f in self.flows
            if not f[1] and f[2] == object_ and (f[3] == digest or not f[3] or not digest)
        }
        return here | {f[0] for f in self.flows if not f[1] and digest and f[3] == digest and orphan(f)}

    def waited(self) -> set:
        served = {step for step, _, cached in self.links if cached}

        def joined(step, source) -> bool:
            read = {f[2] for f in self.flows if f[0] == step and not f[1]}
            return any(f[0] == source and f[1] and f[2] in read for f in self.flows)

        return {
            (step, source)
            for step, source, cached in self.links
            if cached or (step not in served and not joined(step, source))
        }

    def closure(self, start, *, up: bool) -> set[str]:
        steps, instances = {start}, set()
        while True:
            more = {i for step in steps for i in self.given(step, made=not up)}
            found = {s for i in instances | more for s in (self.makers(i) if up else self.users(i))}
            found |= {b if up else a for a, b in self.waited() if (a if up else b) in steps}
            if more <= instances and found <= steps:
                break
            steps |= found
            instances |= more
        names = {f"artifact:sha256:{d.hex()}" if d else f"artifact:{o}" for o, d in instances}
        return names | {StepKey(*step).id for step in steps}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flows, links, st.sampled_from(STEPS), st.booleans())
async def test_a_walk_meets_what_the_facts_say(db: postgres.Database, given_, hung, start, up) -> None:
    facts = Facts()
    for step in STEPS:
        facts.step((PROJECT, *step), StepFact("t"))
    for (run, path), made, key, digest, cached in given_:
        name = object_name("", "artifacts", key)
        where = (PROJECT, run, path, made, key, place(PROJECT, name))
        facts.flow(where, FlowFact(name, digest, cached=cached and made))
    # What waited for one of another run, or has its own outputs, is no fact that the events can tell.
    told = {(a, b, cached) for a, b, cached in hung if a != b and (cached or a[0] == b[0])}
    facts.links = {(PROJECT, *a, *b, cached) for a, b, cached in told}
    await emptied(db)
    await FactStore(db).add(facts)
    walked = await walks(db).walk(PROJECT, [StepKey(*start).id], 0, 0, "", up=up)
    assert {node.id for node in walked.nodes} == Plain(facts, told).closure(start, up=up)
    assert {edge.source for edge in walked.edges} | {edge.target for edge in walked.edges} <= {
        node.id for node in walked.nodes
    }
