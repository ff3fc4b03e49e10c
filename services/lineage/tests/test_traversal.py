"""Traversals on Postgres, upstream and downstream."""

import random
from collections.abc import Awaitable, Callable

import pytest
from example_runs import MODELS, NEW_MODEL, RAW, TABLE, all_events, first, renamed, second
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_events import PROJECT, RunEvents, artifact
from test_projection import delta_of
from test_store_projection import truncate

from periplus_common import postgres
from periplus_common.errors import Invalid, NotFound, Refused
from periplus_lineage.graph.model import Edge, TraversalPage
from periplus_lineage.graph.traversal import GraphQueries, TraversalLimits
from periplus_lineage.page_tokens import PageTokens
from periplus_lineage.store.graph import MAX_ROWS, PostgresGraph
from periplus_lineage.store.projection import ProjectionStore
from periplus_lineage.store.runs import PostgresRuns

DEFAULT_LIMITS = TraversalLimits()

Traverse = Callable[..., Awaitable[TraversalPage]]


def queries(
    db: postgres.Database, limits: TraversalLimits = DEFAULT_LIMITS, max_rows: int = MAX_ROWS
) -> GraphQueries:
    return GraphQueries(PostgresGraph(db, max_rows), PostgresRuns(db), PageTokens("secret"), limits)


@pytest.fixture
async def traverse(db: postgres.Database) -> Traverse:
    await ProjectionStore(db).apply(delta_of(*all_events()))
    return traversal(db)


def traversal(db: postgres.Database, **bounds) -> Traverse:
    async def traverse(
        *starts: str, upstream: bool = True, depth: int = 0, page_size: int = 0, page_token: str = ""
    ) -> TraversalPage:
        return await queries(db, **bounds).traverse(
            PROJECT, starts, upstream=upstream, depth=depth, page_size=page_size, page_token=page_token
        )

    return traverse


def ids(page: TraversalPage) -> dict[str, int]:
    return {node.id: node.depth for node in page.nodes}


def node_id(artifact_) -> str:
    return f"artifact:{artifact_.digest}"


async def test_upstream_of_a_model_is_all_that_produced_it(traverse: Traverse) -> None:
    assert ids(await traverse(node_id(MODELS[1]))) == {
        node_id(MODELS[1]): 0,
        "step:r1/train(1)": 1,
        node_id(TABLE): 2,
        "step:r1/features": 3,
        node_id(RAW): 4,
    }


async def test_upstream_of_a_cached_step_are_the_producers_of_its_outputs(traverse: Traverse) -> None:
    page = await traverse("step:r2/train(1)")
    assert ids(page) == {"step:r2/train(1)": 0, node_id(TABLE): 1, "step:r1/features": 2, node_id(RAW): 3}
    page = await traverse("step:r2/train(0)")
    assert ids(page)["step:r1/train(0)"] == 1
    assert Edge("step:r1/train(0)", "step:r2/train(0)", "cached") in page.edges


async def test_downstream_of_raw_data_is_all_that_used_it_in_every_run(traverse: Traverse) -> None:
    found = ids(await traverse(node_id(RAW), upstream=False))
    assert set(found) == {
        node_id(RAW), node_id(TABLE), node_id(MODELS[0]), node_id(MODELS[1]), node_id(NEW_MODEL),
        "step:r1/features", "step:r1/train(0)", "step:r1/train(1)", "step:r1/choose", "step:r1/register",
        "step:r2/features", "step:r2/train(0)", "step:r2/train(1)", "step:r2/choose", "step:r2/register",
    }  # fmt: skip


async def test_steps_that_pass_only_parameters_are_connected_by_dependencies(traverse: Traverse) -> None:
    up = await traverse("step:r1/register")
    assert Edge("step:r1/choose", "step:r1/register", "") in up.edges
    assert {Edge(f"step:r1/train({i})", "step:r1/choose", "") for i in range(2)} <= set(up.edges)
    down = ids(await traverse("step:r1/train(0)", upstream=False))
    assert {"step:r1/choose", "step:r1/register"} <= set(down)


async def test_steps_that_an_artifact_connects_have_no_edge_between_them(db: postgres.Database) -> None:
    await ProjectionStore(db).apply(delta_of(*RunEvents("c").chain("one", "two").events))
    page = await traversal(db)("step:c/two")
    assert [(e.source, e.target) for e in page.edges if e.source == "step:c/one"] == [
        ("step:c/one", ids_of_kind(page, "artifact:")[0])
    ]
    assert ids(page)["step:c/one"] == 2


def ids_of_kind(page: TraversalPage, kind: str) -> list[str]:
    return [node.id for node in page.nodes if node.id.startswith(kind)]


async def test_a_run_as_start_is_its_outputs_and_its_steps_without_artifacts(traverse: Traverse) -> None:
    found = ids(await traverse("run:r2"))
    assert {id_ for id_, depth in found.items() if depth == 0} == {
        node_id(TABLE), node_id(MODELS[0]), node_id(NEW_MODEL), "step:r2/choose", "step:r2/register"
    }  # fmt: skip
    assert {"step:r1/features", "step:r1/train(0)", "step:r2/train(1)"} <= set(found)


async def test_a_traversal_of_a_cycle_ends(traverse: Traverse) -> None:
    for upstream in (True, False):
        found = ids(await traverse("step:r3/a", upstream=upstream))
        assert {"step:r3/a", "step:r3/b"} <= set(found)
        assert len(found) == 4


async def test_depth_bounds_a_traversal_and_only_edges_between_its_nodes_are_returned(
    traverse: Traverse,
) -> None:
    page = await traverse(node_id(MODELS[1]), depth=1)
    assert ids(page) == {node_id(MODELS[1]): 0, "step:r1/train(1)": 1}
    assert page.edges == (Edge("step:r1/train(1)", node_id(MODELS[1]), "model"),)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
async def test_the_pages_together_are_the_whole_traversal(traverse: Traverse, size: int) -> None:
    whole = await traverse(node_id(RAW), upstream=False)
    nodes, edges, token = [], [], ""
    for _ in range(100):
        page = await traverse(node_id(RAW), upstream=False, page_size=size, page_token=token)
        assert len(page.nodes) <= size
        nodes += page.nodes
        edges += page.edges
        token = page.next_page_token
        if not token:
            break
    assert tuple(nodes) == whole.nodes
    assert sorted(edges) == list(whole.edges)
    assert [node.depth for node in nodes] == sorted(node.depth for node in nodes)


async def test_a_page_with_too_many_edges_is_refused_and_a_smaller_one_is_not(
    traverse: Traverse, db: postgres.Database
) -> None:
    bounded = traversal(db, limits=TraversalLimits(max_page_edges=5))
    with pytest.raises(Refused, match="page_size"):
        await bounded(node_id(RAW), upstream=False)
    assert (await bounded(node_id(RAW), upstream=False, page_size=2)).next_page_token


async def test_a_traversal_with_too_many_nodes_or_edges_is_refused(
    traverse: Traverse, db: postgres.Database
) -> None:
    bounded = traversal(db, limits=TraversalLimits(max_nodes=5))
    with pytest.raises(Refused, match="more than"):
        await bounded(node_id(RAW), upstream=False)
    assert (await bounded(node_id(RAW), upstream=False, depth=1)).nodes
    with pytest.raises(Refused, match="at once"):
        await traversal(db, max_rows=1)("run:r1", depth=1)


async def test_a_page_token_is_valid_only_for_its_traversal(traverse: Traverse) -> None:
    page = await traverse(node_id(RAW), upstream=False, page_size=1)
    for wrong in (page.next_page_token[:-2], "x", "é", page.next_page_token + "A"):
        with pytest.raises(Invalid, match="page_token"):
            await traverse(node_id(RAW), upstream=False, page_size=1, page_token=wrong)
    with pytest.raises(Invalid, match="page_token"):
        await traverse(node_id(RAW), upstream=True, page_size=1, page_token=page.next_page_token)
    assert (await traverse(node_id(RAW), upstream=False, page_size=3, page_token=page.next_page_token)).nodes


@pytest.mark.parametrize(
    "start",
    ["step:r1/nowhere", "step:nobody/x", "run:nobody", "artifact:sha256:" + "0" * 64, "artifact:s3://artifacts/no"],
)  # fmt: skip
async def test_a_start_without_any_event_is_not_found(traverse: Traverse, start: str) -> None:
    with pytest.raises(NotFound, match=r"start\[1\]"):
        await traverse(node_id(RAW), start)


@pytest.mark.parametrize(
    "start", ["", "r1", "step:r1", "step:/x", "run:", "artifact:sha256:zz", "artifact:x", "artifact:s3://b"]
)
async def test_a_start_that_is_not_a_node_id_is_invalid(traverse: Traverse, start: str) -> None:
    with pytest.raises(Invalid, match=r"start\[0\]"):
        await traverse(start)


async def test_an_artifact_is_found_by_its_object_and_identified_by_its_digest(traverse: Traverse) -> None:
    page = await traverse("artifact:s3://artifacts/r1/train(1)/model.tgz", depth=1)
    model = page.nodes[0]
    assert (model.id, model.name, model.run) == (node_id(MODELS[1]), "model", "r1")
    assert model.artifact.object.key == "r1/train(1)/model.tgz"
    assert model.artifact.digest == MODELS[1].digest
    assert page.nodes[1].step.outputs.artifacts[0].digest == MODELS[1].digest


async def test_an_artifact_is_identified_by_its_object_until_its_digest_is_known(
    db: postgres.Database,
) -> None:
    written = artifact("out", "u/made.tgz")
    run_events = RunEvents("u").step("make", outputs=(written,)).step("use", inputs=(written,))
    await ProjectionStore(db).apply(delta_of(*run_events.events))
    assert ids(await traversal(db)("step:u/use")) == {
        "step:u/use": 0,
        "artifact:s3://artifacts/u/made.tgz": 1,
        "step:u/make": 2,
    }
    # The digest of the reader is enough: the object was written once, so its writer's artifact is the same.
    read = artifact("out", "u/made.tgz", "contents")
    await ProjectionStore(db).apply(delta_of(*RunEvents("u").step("use", inputs=(read,)).events))
    assert list(ids(await traversal(db)("step:u/make", upstream=False))) == [
        "step:u/make",
        node_id(read),
        "step:u/use",
    ]


async def test_the_same_bytes_written_twice_do_not_mix_their_ancestors(db: postgres.Database) -> None:
    for run in "ab":
        empty = artifact("out", f"{run}/empty", "empty")
        run_events = RunEvents(run).step("make", outputs=(empty,)).step("use", inputs=(renamed(empty, "in"),))
        await ProjectionStore(db).apply(delta_of(*run_events.events))
    assert set(ids(await traversal(db)("step:a/use"))) == {"step:a/use", node_id(empty), "step:a/make"}
    assert set(ids(await traversal(db)("step:b/make", upstream=False))) == {
        "step:b/use",
        node_id(empty),
        "step:b/make",
    }
    assert {"step:a/make", "step:b/make"} <= set(ids(await traversal(db)(node_id(empty))))


async def test_a_copy_without_a_known_writer_depends_on_the_writers_of_the_same_bytes(
    db: postgres.Database,
) -> None:
    original, copy = artifact("out", "a/model", "model"), artifact("in", "serving/model", "model")
    run_events = RunEvents("a").step("make", outputs=(original,)).step("serve", inputs=(copy,))
    await ProjectionStore(db).apply(delta_of(*run_events.events))
    assert "step:a/make" in ids(await traversal(db)("step:a/serve"))
    assert "step:a/serve" in ids(await traversal(db)("step:a/make", upstream=False))


async def test_versions_of_an_overwritten_object_are_kept_apart(db: postgres.Database) -> None:
    for run in "ab":
        latest = artifact("out", "models/latest", f"model of {run}")
        run_events = (
            RunEvents(run).step("make", outputs=(latest,)).step("use", inputs=(renamed(latest, "in"),))
        )
        await ProjectionStore(db).apply(delta_of(*run_events.events))
    assert set(ids(await traversal(db)("step:a/use"))) == {
        "step:a/use", node_id(artifact("", "k", "model of a")), "step:a/make"
    }  # fmt: skip


async def test_a_producer_without_any_event_is_a_node_without_details(
    db: postgres.Database,
) -> None:
    await ProjectionStore(db).apply(delta_of(*second().events))
    page = await traversal(db)(node_id(TABLE))
    assert ids(page)["step:r2/features"] == 1
    producer = next(node for node in page.nodes if node.id == "step:r1/features")
    assert (producer.name, producer.run, producer.step) == ("features", "r1", None)


async def test_nodes_of_another_project_are_not_found(traverse: Traverse, db: postgres.Database) -> None:
    for start in (node_id(RAW), "run:r1", "step:r1/features", "artifact:s3://artifacts/external/raw.csv"):
        with pytest.raises(NotFound):
            await queries(db).traverse("other", [start], upstream=False)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
async def test_the_graph_does_not_depend_on_the_order_of_events(db: postgres.Database, seed: int) -> None:
    events = all_events()

    async def exported() -> list[TraversalPage]:
        starts = ("run:r1", "run:r2", "run:r3", node_id(RAW))
        return [
            await traversal(db)(start, upstream=upstream) for start in starts for upstream in (True, False)
        ]

    await truncate(db)
    await ProjectionStore(db).apply(delta_of(*events))
    expected = await exported()
    await truncate(db)
    random.Random(seed).shuffle(events)
    store = ProjectionStore(db)
    for start in range(0, len(events), 7):
        await store.apply(delta_of(*events[start : start + 7]))
    assert await exported() == expected


async def test_repeated_events_do_not_change_the_graph(db: postgres.Database) -> None:
    await ProjectionStore(db).apply(delta_of(*first().events))
    before = await traversal(db)("run:r1")
    await ProjectionStore(db).apply(delta_of(*first().events))
    assert await traversal(db)("run:r1") == before


async def test_placeholders_of_a_plan_are_replaced_by_the_items(
    db: postgres.Database,
) -> None:
    run_events = RunEvents("loop")
    run_events.step("list").step("train", depends_on=("list",)).step("choose", depends_on=("train",))
    run_events.step("each(*).one", depends_on=()).step("each(*).two", depends_on=("each(*).one",))
    run_events.step("last", depends_on=("each(*)",))
    placeholders = ("train", "each(*).one", "each(*).two")
    run_events.step_events = [event for event in run_events.step_events if event.step not in placeholders]
    for path in ("train(0)", "train(1)", "each(0).one", "each(1).one", "each(0).two", "each(1).two"):
        run_events.step(path, planned=False)
    await ProjectionStore(db).apply(delta_of(*run_events.events))
    recorded = await PostgresRuns(db).get(PROJECT, "loop")
    assert [step.path for step in recorded.steps] == [
        "list", "train(0)", "train(1)", "choose",
        "each(0).one", "each(1).one", "each(0).two", "each(1).two", "last",
    ]  # fmt: skip
    assert recorded.run.step_count == 9
    assert recorded.run.is_complete
    traverse = traversal(db)
    assert set(ids(await traverse("step:loop/choose"))) == {
        "step:loop/choose", "step:loop/train(0)", "step:loop/train(1)", "step:loop/list"
    }  # fmt: skip
    assert set(ids(await traverse("step:loop/each(1).two"))) == {
        "step:loop/each(1).two",
        "step:loop/each(1).one",
    }
    assert set(ids(await traverse("step:loop/each(0).one", upstream=False))) == {
        "step:loop/each(0).one", "step:loop/each(0).two", "step:loop/last"
    }  # fmt: skip
    assert set(ids(await traverse("step:loop/list", upstream=False))) == {
        "step:loop/list", "step:loop/train(0)", "step:loop/train(1)", "step:loop/choose"
    }  # fmt: skip
    starts = ids(await traverse("run:loop", depth=0, page_size=100))
    assert not {f"step:loop/{path}" for path in placeholders} & set(starts)


async def test_a_cached_step_depends_on_its_producer_and_not_on_what_it_would_have_waited_for(
    db: postgres.Database,
) -> None:
    produced = (
        RunEvents("a")
        .step("one", output_parameters={"x": "1"})
        .step("two", depends_on=("one",), output_parameters={"y": "1"})
    )
    served = RunEvents("b", at=1000).step("one", output_parameters={"x": "1"}, producer=("a", "one"))
    served.step("two", depends_on=("one",), output_parameters={"y": "1"}, producer=("a", "two"))
    served.step("three", depends_on=("two",))
    await ProjectionStore(db).apply(delta_of(*produced.events, *served.events))
    assert ids(await traversal(db)("step:b/three")) == {
        "step:b/three": 0, "step:b/two": 1, "step:a/two": 2, "step:a/one": 3
    }  # fmt: skip
    assert set(ids(await traversal(db)("step:a/one", upstream=False))) == {
        "step:a/one", "step:a/two", "step:b/one", "step:b/two", "step:b/three"
    }  # fmt: skip
