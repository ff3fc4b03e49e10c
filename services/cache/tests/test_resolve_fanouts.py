"""Resolving fan-outs, with stores in memory: items, their verdicts, and the verdict of the whole."""

import json
from datetime import timedelta

import pytest
from cache_requests import HIT, MISS, UNKNOWN, resolve_request, step, verdicts

from periplus_cache.resolve.resolution import ResolveLimits
from periplus_cache.service import Cache
from periplus_model.queries import Item, Literal, OutputRef


async def test_texts_are_joined_from_literals_outputs_and_items(cache, recorded):
    await recorded("a", {}, {"y": "mid"})
    await recorded("b", {"x": "<mid-2>"}, {"z": "!"})
    request = resolve_request(
        step("s"),
        step("t", "b", x=(Literal("<"), OutputRef("s", "y"), Literal("-"), Item("n"), Literal(">")), items=(Literal('[{"n":2}]'),)),
    )  # fmt: skip
    found = await verdicts(cache, request)
    assert found["t"].verdict is HIT
    assert found["t"].outputs.parameters["z"] == '["!"]'
    assert found["t"].items_json == '[{"n":2}]'


async def test_a_fan_out_of_hits_is_a_hit_and_its_outputs_are_inputs_of_others(cache, memory, recorded):
    await recorded("list", {}, {"items": '["a","b"]'})
    for item in "ab":
        await recorded("work", {"x": item}, {"y": f"{item}1"}, step=f"main.work({item})", result=f'"{item}"')
    await recorded("join", {"all": '["a1","b1"]', "said": '["a","b"]'}, {"n": "2"})
    memory.queries = 0
    request = resolve_request(
        step("list", "list"),
        step("work", "work", x=Item(), items=(OutputRef("list", "items"),)),
        step("join", "join", all=OutputRef("work", "y"), said=OutputRef("work", "", result=True)),
    )
    found = await verdicts(cache, request)
    assert {v.verdict for v in found.values()} == {HIT}
    assert [v.id for v in found["work"].items] == ["work(0)", "work(1)"]
    assert [v.producer_step for v in found["work"].items] == ["main.work(a)", "main.work(b)"]
    assert found["work"].saved == timedelta(minutes=2)
    assert memory.queries == 1


async def test_a_fan_out_with_some_hits_is_unknown_with_a_verdict_for_each_item(cache, recorded):
    await recorded("work", {"x": "a"}, {"y": "1"})
    request = resolve_request(
        step("work", "work", x=Item(), items=(Literal('["a","b","a"]'),)),
        step("join", "join", all=OutputRef("work", "y")),
    )
    found = await verdicts(cache, request)
    assert found["work"].verdict is UNKNOWN
    assert found["work"].reason == "2 of 3 items are hits"
    assert [v.verdict for v in found["work"].items] == [HIT, MISS, HIT]


async def test_a_fan_out_of_misses_is_a_miss(cache, recorded):
    await recorded("work", {"x": "z"})
    (found,) = await cache.resolve(
        resolve_request(step("work", "work", x=Item(), items=(Literal('["a","b"]'),)))
    )
    assert (found.verdict, found.reason) == (MISS, "it was run before, but not with these inputs")
    assert [v.verdict for v in found.items] == [MISS, MISS]


async def test_a_fan_out_whose_items_are_known_only_during_the_run_is_unknown(cache, recorded):
    await recorded("work", {"x": "a"})
    request = resolve_request(
        step("list", "list"), step("work", "work", x=Item(), items=(OutputRef("list", "items"),))
    )
    found = await verdicts(cache, request)
    assert found["work"].verdict is UNKNOWN
    assert found["work"].items == ()


async def test_the_outputs_of_a_fan_out_without_items_are_empty_lists(cache, recorded):
    await recorded("join", {"all": "[]"}, {"n": "0"})
    request = resolve_request(
        step("work", "work", x=Item(), items=(Literal("[]"),)),
        step("join", "join", all=OutputRef("work", "y")),
    )
    found = await verdicts(cache, request)
    assert found["work"].verdict is HIT
    assert found["work"].items_json == "[]"
    assert found["join"].verdict is HIT


@pytest.mark.parametrize("items", ["{}", "nonsense", "", "[1", "[NaN]"])
async def test_items_that_are_no_list_are_a_miss_and_no_error(cache, items):
    (found,) = await cache.resolve(resolve_request(step("work", "work", x=Item(), items=(Literal(items),))))
    assert found.verdict is MISS
    assert found.reason.startswith("its items: ")


async def test_an_item_without_a_required_member_is_a_miss(cache):
    request = resolve_request(step("work", "work", x=Item("k"), items=(Literal('[{"j":1}]'),)))
    (found,) = await cache.resolve(request)
    assert (found.items[0].verdict, found.items[0].reason) == (MISS, "its input x: an item has no member 'k'")


async def test_a_fan_out_with_more_items_than_are_looked_up_is_a_miss(memory, objects, clock):
    cache = Cache(memory, objects, clock=clock, limits=ResolveLimits(max_items=3))
    (found,) = await cache.resolve(
        resolve_request(step("work", "work", x=Item(), items=(Literal("[1,2,3,4]"),)))
    )
    assert (found.verdict, found.items) == (MISS, ())


async def test_a_large_fan_out_of_hits_is_one_query(cache, memory, recorded):
    for i in range(200):
        await recorded("work", {"x": str(i)}, {"y": str(i)}, step=f"main.w{i}")
    await recorded("list", {}, {"items": json.dumps([str(i) for i in range(150)])})
    request = resolve_request(
        step("list", "list"), step("work", "work", x=Item(), items=(OutputRef("list", "items"),))
    )
    memory.queries = 0
    assert (await verdicts(cache, request))["work"].verdict is HIT
    assert memory.queries == 1
