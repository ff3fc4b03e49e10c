"""Walks on the real Postgres: what made this, and what came of it."""

import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario import LATER, MODELS, RAW, TABLE, as_input, everything, first, second
from story import PROJECT, Story, artifact
from test_fact import read
from test_store_facts import emptied

from periplus_common import postgres
from periplus_common.errors import Invalid, NotFound, Refused
from periplus_lineage.domain.graph import Edge, Walked
from periplus_lineage.domain.page import Pages
from periplus_lineage.service import walking
from periplus_lineage.service.walking import Walks
from periplus_lineage.store import bound
from periplus_lineage.store.facts import FactStore
from periplus_lineage.store.flow import FlowStore
from periplus_lineage.store.link import LinkStore
from periplus_lineage.store.run import RunStore

Walk = Callable[..., Awaitable[Walked]]


def walks(db: postgres.Database) -> Walks:
    return Walks(FlowStore(db), LinkStore(db), RunStore(db), Pages("secret"))


@pytest.fixture
async def walk(db: postgres.Database) -> Walk:
    await FactStore(db).add(read(*everything()))
    return walker(db)


def walker(db: postgres.Database) -> Walk:
    async def walked(*starts: str, up: bool = True, depth: int = 0, size: int = 0, token: str = "") -> Walked:
        return await walks(db).walk(PROJECT, starts, depth, size, token, up=up)

    return walked


def ids(walked: Walked) -> dict[str, int]:
    return {node.id: node.depth for node in walked.nodes}


def at(known) -> str:
    return f"artifact:{known.digest}"


async def test_up_from_a_model_is_all_that_made_it(walk: Walk) -> None:
    assert ids(await walk(at(MODELS[1]))) == {
        at(MODELS[1]): 0,
        "step:r1/train(1)": 1,
        at(TABLE): 2,
        "step:r1/features": 3,
        at(RAW): 4,
    }


async def test_up_from_a_run_goes_through_its_cached_steps_to_who_really_made_the_bytes(walk: Walk) -> None:
    walked = await walk("step:r2/train(1)")
    assert ids(walked) == {"step:r2/train(1)": 0, at(TABLE): 1, "step:r1/features": 2, at(RAW): 3}
    walked = await walk("step:r2/train(0)")
    assert ids(walked)["step:r1/train(0)"] == 1
    assert Edge("step:r1/train(0)", "step:r2/train(0)", "cached") in walked.edges


async def test_down_from_raw_data_is_all_that_came_of_it_in_every_run(walk: Walk) -> None:
    met = ids(await walk(at(RAW), up=False))
    assert set(met) == {
        at(RAW), at(TABLE), at(MODELS[0]), at(MODELS[1]), at(LATER),
        "step:r1/features", "step:r1/train(0)", "step:r1/train(1)", "step:r1/choose", "step:r1/register",
        "step:r2/features", "step:r2/train(0)", "step:r2/train(1)", "step:r2/choose", "step:r2/register",
    }  # fmt: skip


async def test_steps_that_pass_parameters_alone_hang_together(walk: Walk) -> None:
    up = await walk("step:r1/register")
    assert Edge("step:r1/choose", "step:r1/register", "") in up.edges
    assert {Edge(f"step:r1/train({i})", "step:r1/choose", "") for i in range(2)} <= set(up.edges)
    down = ids(await walk("step:r1/train(0)", up=False))
    assert {"step:r1/choose", "step:r1/register"} <= set(down)


async def test_where_an_artifact_joins_two_steps_no_second_edge_does(db: postgres.Database) -> None:
    await FactStore(db).add(read(*Story("c").chain("one", "two").events))
    walked = await walker(db)("step:c/two")
    assert [(e.source, e.target) for e in walked.edges if e.source == "step:c/one"] == [
        ("step:c/one", ids_of_kind(walked, "artifact:")[0])
    ]
    assert ids(walked)["step:c/one"] == 2


def ids_of_kind(walked: Walked, kind: str) -> list[str]:
    return [node.id for node in walked.nodes if node.id.startswith(kind)]


async def test_a_run_stands_for_its_outputs_and_for_its_steps_that_made_none(walk: Walk) -> None:
    met = ids(await walk("run:r2"))
    assert {id_ for id_, depth in met.items() if depth == 0} == {
        at(TABLE), at(MODELS[0]), at(LATER), "step:r2/choose", "step:r2/register"
    }  # fmt: skip
    assert {"step:r1/features", "step:r1/train(0)", "step:r2/train(1)"} <= set(met)


async def test_a_ring_ends(walk: Walk) -> None:
    for up in (True, False):
        met = ids(await walk("step:r3/a", up=up))
        assert {"step:r3/a", "step:r3/b"} <= set(met)
        assert len(met) == 4


async def test_depth_ends_a_walk_and_edges_between_what_was_met_are_told(walk: Walk) -> None:
    walked = await walk(at(MODELS[1]), depth=1)
    assert ids(walked) == {at(MODELS[1]): 0, "step:r1/train(1)": 1}
    assert walked.edges == (Edge("step:r1/train(1)", at(MODELS[1]), "model"),)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
async def test_pages_make_up_the_whole_walk(walk: Walk, size: int) -> None:
    whole = await walk(at(RAW), up=False)
    nodes, edges, token = [], [], ""
    for _ in range(100):
        page = await walk(at(RAW), up=False, size=size, token=token)
        assert len(page.nodes) <= size
        nodes += page.nodes
        edges += page.edges
        token = page.token
        if not token:
            break
    assert tuple(nodes) == whole.nodes
    assert sorted(edges) == list(whole.edges)
    assert [node.depth for node in nodes] == sorted(node.depth for node in nodes)


async def test_a_page_with_too_many_edges_is_refused_and_smaller_ones_are_not(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "_EDGES", 5)
    with pytest.raises(Refused, match="page_size"):
        await walk(at(RAW), up=False)
    assert (await walk(at(RAW), up=False, size=2)).token


async def test_a_walk_that_meets_too_much_is_refused(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_ROOM", 5)
    with pytest.raises(Refused, match="more than"):
        await walk(at(RAW), up=False)
    assert (await walk(at(RAW), up=False, depth=1)).nodes
    monkeypatch.setattr(bound, "ROOM", 1)
    with pytest.raises(Refused, match="at once"):
        await walk("run:r1", depth=1)


async def test_a_token_is_good_for_its_walk_alone(walk: Walk) -> None:
    page = await walk(at(RAW), up=False, size=1)
    for wrong in (page.token[:-2], "x", "é", page.token + "A"):
        with pytest.raises(Invalid, match="page_token"):
            await walk(at(RAW), up=False, size=1, token=wrong)
    with pytest.raises(Invalid, match="page_token"):
        await walk(at(RAW), up=True, size=1, token=page.token)
    assert (await walk(at(RAW), up=False, size=3, token=page.token)).nodes


@pytest.mark.parametrize(
    "start",
    ["step:r1/nowhere", "step:nobody/x", "run:nobody", "artifact:sha256:" + "0" * 64, "artifact:s3://artifacts/no"],
)  # fmt: skip
async def test_a_start_of_which_nothing_is_known_is_not_found(walk: Walk, start: str) -> None:
    with pytest.raises(NotFound, match=r"start\[1\]"):
        await walk(at(RAW), start)


@pytest.mark.parametrize(
    "start", ["", "r1", "step:r1", "step:/x", "run:", "artifact:sha256:zz", "artifact:x", "artifact:s3://b"]
)
async def test_a_start_that_is_no_node_is_invalid(walk: Walk, start: str) -> None:
    with pytest.raises(Invalid, match=r"start\[0\]"):
        await walk(start)


async def test_an_artifact_is_found_by_its_place_and_told_by_its_contents(walk: Walk) -> None:
    walked = await walk("artifact:s3://artifacts/r1/train(1)/model.tgz", depth=1)
    model = walked.nodes[0]
    assert (model.id, model.name, model.run) == (at(MODELS[1]), "model", "r1")
    assert model.artifact.key == "r1/train(1)/model.tgz"
    assert model.artifact.digest == MODELS[1].digest
    assert walked.nodes[1].step.outputs.artifacts[0].digest == MODELS[1].digest


async def test_until_its_contents_are_known_an_artifact_is_its_place(db: postgres.Database) -> None:
    made = artifact("out", "u/made.tgz")
    story = Story("u").step("make", outputs=(made,)).step("use", inputs=(made,))
    await FactStore(db).add(read(*story.events))
    assert ids(await walker(db)("step:u/use")) == {
        "step:u/use": 0,
        "artifact:s3://artifacts/u/made.tgz": 1,
        "step:u/make": 2,
    }
    # One who read it is enough: the place was written once, so its maker's artifact is the same.
    read_ = artifact("out", "u/made.tgz", "contents")
    await FactStore(db).add(read(*Story("u").step("use", inputs=(read_,)).events))
    assert list(ids(await walker(db)("step:u/make", up=False))) == ["step:u/make", at(read_), "step:u/use"]


async def test_the_same_bytes_made_twice_do_not_mix_their_ancestors(db: postgres.Database) -> None:
    for run in "ab":
        empty = artifact("out", f"{run}/empty", "empty")
        story = Story(run).step("make", outputs=(empty,)).step("use", inputs=(as_input(empty, "in"),))
        await FactStore(db).add(read(*story.events))
    assert set(ids(await walker(db)("step:a/use"))) == {"step:a/use", at(empty), "step:a/make"}
    assert set(ids(await walker(db)("step:b/make", up=False))) == {"step:b/use", at(empty), "step:b/make"}
    assert {"step:a/make", "step:b/make"} <= set(ids(await walker(db)(at(empty))))


async def test_a_copy_that_nobody_is_known_to_have_made_hangs_on_who_made_the_same_bytes(
    db: postgres.Database,
) -> None:
    made, copy = artifact("out", "a/model", "model"), artifact("in", "serving/model", "model")
    story = Story("a").step("make", outputs=(made,)).step("serve", inputs=(copy,))
    await FactStore(db).add(read(*story.events))
    assert "step:a/make" in ids(await walker(db)("step:a/serve"))
    assert "step:a/serve" in ids(await walker(db)("step:a/make", up=False))


async def test_a_place_that_was_overwritten_keeps_its_versions_apart(db: postgres.Database) -> None:
    for run in "ab":
        latest = artifact("out", "models/latest", f"model of {run}")
        story = Story(run).step("make", outputs=(latest,)).step("use", inputs=(as_input(latest, "in"),))
        await FactStore(db).add(read(*story.events))
    assert set(ids(await walker(db)("step:a/use"))) == {
        "step:a/use", at(artifact("", "k", "model of a")), "step:a/make"
    }  # fmt: skip


async def test_a_cached_step_whose_maker_is_unknown_is_shown_as_far_as_it_is_told(
    db: postgres.Database,
) -> None:
    await FactStore(db).add(read(*second().events))
    walked = await walker(db)(at(TABLE))
    assert ids(walked)["step:r2/features"] == 1
    lost = next(node for node in walked.nodes if node.id == "step:r1/features")
    assert (lost.name, lost.run, lost.step) == ("features", "r1", None)


async def test_projects_do_not_see_each_other(walk: Walk, db: postgres.Database) -> None:
    for start in (at(RAW), "run:r1", "step:r1/features", "artifact:s3://artifacts/external/raw.csv"):
        with pytest.raises(NotFound):
            await walks(db).walk("other", [start], 0, 0, "", up=False)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
async def test_the_graph_is_the_same_whatever_the_order_of_events(db: postgres.Database, seed: int) -> None:
    events = everything()

    async def exported() -> list[Walked]:
        starts = ("run:r1", "run:r2", "run:r3", at(RAW))
        return [await walker(db)(start, up=up) for start in starts for up in (True, False)]

    await emptied(db)
    await FactStore(db).add(read(*events))
    expected = await exported()
    await emptied(db)
    random.Random(seed).shuffle(events)
    store = FactStore(db)
    for start in range(0, len(events), 7):
        await store.add(read(*events[start : start + 7]))
    assert await exported() == expected


async def test_a_story_told_twice_is_the_same_graph(db: postgres.Database) -> None:
    await FactStore(db).add(read(*first().events))
    once = await walker(db)("run:r1")
    await FactStore(db).add(read(*first().events))
    assert await walker(db)("run:r1") == once


async def test_what_a_plan_holds_for_items_that_it_does_not_know_gives_way_to_them(
    db: postgres.Database,
) -> None:
    story = Story("loop")
    story.step("list").step("train", depends_on=("list",)).step("choose", depends_on=("train",))
    story.step("each(*).one", depends_on=()).step("each(*).two", depends_on=("each(*).one",))
    story.step("last", depends_on=("each(*)",))
    placeholders = ("train", "each(*).one", "each(*).two")
    story.told = [event for event in story.told if event.step not in placeholders]
    for path in ("train(0)", "train(1)", "each(0).one", "each(1).one", "each(0).two", "each(1).two"):
        story.step(path, planned=False)
    await FactStore(db).add(read(*story.events))
    recorded = await RunStore(db).get(PROJECT, "loop")
    assert [step.path for step in recorded.steps] == [
        "list", "train(0)", "train(1)", "choose",
        "each(0).one", "each(1).one", "each(0).two", "each(1).two", "last",
    ]  # fmt: skip
    assert recorded.run.step_count == 9
    assert recorded.settled
    walk = walker(db)
    assert set(ids(await walk("step:loop/choose"))) == {
        "step:loop/choose", "step:loop/train(0)", "step:loop/train(1)", "step:loop/list"
    }  # fmt: skip
    assert set(ids(await walk("step:loop/each(1).two"))) == {"step:loop/each(1).two", "step:loop/each(1).one"}
    assert set(ids(await walk("step:loop/each(0).one", up=False))) == {
        "step:loop/each(0).one", "step:loop/each(0).two", "step:loop/last"
    }  # fmt: skip
    assert set(ids(await walk("step:loop/list", up=False))) == {
        "step:loop/list", "step:loop/train(0)", "step:loop/train(1)", "step:loop/choose"
    }  # fmt: skip
    starts = ids(await walk("run:loop", depth=0, size=100))
    assert not {f"step:loop/{path}" for path in placeholders} & set(starts)


async def test_a_cached_step_hangs_on_its_maker_and_not_on_what_it_would_have_waited_for(
    db: postgres.Database,
) -> None:
    made = Story("a").step("one", gave={"x": "1"}).step("two", depends_on=("one",), gave={"y": "1"})
    served = Story("b", at=1000).step("one", gave={"x": "1"}, origin=("a", "one"))
    served.step("two", depends_on=("one",), gave={"y": "1"}, origin=("a", "two"))
    served.step("three", depends_on=("two",))
    await FactStore(db).add(read(*made.events, *served.events))
    assert ids(await walker(db)("step:b/three")) == {
        "step:b/three": 0, "step:b/two": 1, "step:a/two": 2, "step:a/one": 3
    }  # fmt: skip
    assert set(ids(await walker(db)("step:a/one", up=False))) == {
        "step:a/one", "step:a/two", "step:b/one", "step:b/two", "step:b/three"
    }  # fmt: skip
