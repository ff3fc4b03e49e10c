"""Traversals of random graphs, with cycles, against a simple model of the same rules in Python."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_events import PROJECT
from test_store_projection import truncate
from test_traversal import queries

from periplus_common import postgres
from periplus_lineage.graph.model import StepKey
from periplus_lineage.objects import object_hash, object_uri
from periplus_lineage.projection import ProjectionDelta, StepUpdate, UsageUpdate
from periplus_lineage.store.projection import ProjectionStore
from periplus_model.steps import ObjectRef

STEPS = [(run, path) for run in "ab" for path in ("x", "y", "z")]
KEYS = ["k1", "k2", "k3"]
DIGESTS = [None, b"\1" * 32, b"\2" * 32]

random_usages = st.lists(
    st.tuples(
        st.sampled_from(STEPS), st.booleans(), st.sampled_from(KEYS), st.sampled_from(DIGESTS), st.booleans()
    ),
    max_size=14,
)
random_dependencies = st.sets(
    st.tuples(st.sampled_from(STEPS), st.sampled_from(STEPS), st.booleans()), max_size=6
)


class GraphModel:
    """The graph as lists, which every query reads from start to end."""

    def __init__(self, delta: ProjectionDelta, dependencies: set) -> None:
        self.usages = [
            ((run, path), is_output, usage.object_uri, usage.digest, usage.cached)
            for (_, run, path, is_output, _, _), usage in delta.usages.items()
        ]
        self.dependencies = dependencies

    def version(self, uri: str, digest: bytes | None):
        known = {d for _, _, u, d, _ in self.usages if u == uri and d}
        return uri, digest or (known.pop() if len(known) == 1 else None)

    def versions_of(self, step, *, outputs: bool) -> set:
        return {self.version(u, d) for s, o, u, d, _ in self.usages if s == step and o == outputs}

    def writers(self, version) -> set:
        uri, digest = version
        of_object = [
            u for u in self.usages if u[1] and u[2] == uri and (u[3] == digest or not u[3] or not digest)
        ]
        found = of_object or [u for u in self.usages if u[1] and digest and u[3] == digest]
        producers = [u for u in found if not u[4]]
        return {u[0] for u in producers or found}

    def readers(self, version) -> set:
        uri, digest = version

        def has_no_writer(usage) -> bool:
            return not any(o[1] and o[2] == usage[2] and (not o[3] or o[3] == usage[3]) for o in self.usages)

        of_object = {
            u[0]
            for u in self.usages
            if not u[1] and u[2] == uri and (u[3] == digest or not u[3] or not digest)
        }
        of_copies = {u[0] for u in self.usages if not u[1] and digest and u[3] == digest and has_no_writer(u)}
        return of_object | of_copies

    def effective_dependencies(self) -> set:
        served = {step for step, _, cached in self.dependencies if cached}

        def share_an_artifact(step, upstream) -> bool:
            read = {u[2] for u in self.usages if u[0] == step and not u[1]}
            return any(u[0] == upstream and u[1] and u[2] in read for u in self.usages)

        return {
            (step, upstream)
            for step, upstream, cached in self.dependencies
            if cached or (step not in served and not share_an_artifact(step, upstream))
        }

    def closure(self, start, *, upstream: bool) -> set[str]:
        steps, versions = {start}, set()
        while True:
            new_versions = {v for step in steps for v in self.versions_of(step, outputs=not upstream)}
            users_of = self.writers if upstream else self.readers
            new_steps = {step for version in versions | new_versions for step in users_of(version)}
            new_steps |= {
                b if upstream else a
                for a, b in self.effective_dependencies()
                if (a if upstream else b) in steps
            }
            if new_versions <= versions and new_steps <= steps:
                break
            steps |= new_steps
            versions |= new_versions
        ids = {f"artifact:sha256:{d.hex()}" if d else f"artifact:{u}" for u, d in versions}
        return ids | {StepKey(*step).node_id for step in steps}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random_usages, random_dependencies, st.sampled_from(STEPS), st.booleans())
async def test_a_traversal_returns_the_closure_of_its_start(
    db: postgres.Database, usages, dependencies, start, upstream
) -> None:
    delta = ProjectionDelta()
    for step in STEPS:
        delta.add_step((PROJECT, *step), StepUpdate("t"))
    for (run, path), is_output, key, digest, cached in usages:
        uri = object_uri(ObjectRef(key, "artifacts"))
        usage_key = (PROJECT, run, path, is_output, key, object_hash(PROJECT, uri))
        delta.add_usage(usage_key, UsageUpdate(uri, digest, cached=cached and is_output))
    # No event says that a step waited for a step of another run, or was served its own outputs.
    possible = {(a, b, cached) for a, b, cached in dependencies if a != b and (cached or a[0] == b[0])}
    delta.dependencies = {(PROJECT, *a, *b, cached) for a, b, cached in possible}
    await truncate(db)
    await ProjectionStore(db).apply(delta)
    page = await queries(db).traverse(PROJECT, [StepKey(*start).node_id], upstream=upstream)
    assert {node.id for node in page.nodes} == GraphModel(delta, possible).closure(start, upstream=upstream)
    assert {edge.source for edge in page.edges} | {edge.target for edge in page.edges} <= {
        node.id for node in page.nodes
    }
