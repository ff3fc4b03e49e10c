"""Resolving fan-outs, through fakes: items, what of them is known, and what becomes of all."""

import json

import pytest
from cache_plans import HIT, MISS, UNKNOWN, plan, step, verdicts

from periplus_cache.plan import Item, Literal, OutputRef


async def test_texts_are_joined_from_literals_outputs_and_items(cache, did):
    await did("a", {}, {"y": "mid"})
    await did("b", {"x": "<mid-2>"}, {"z": "!"})
    asked = plan(
        step("s"),
        step("t", "b", x=(Literal("<"), OutputRef("s", "y"), Literal("-"), Item("n"), Literal(">")), items=(Literal('[{"n":2}]'),)),
    )  # fmt: skip
    found = await verdicts(cache, asked)
    assert found["t"].verdict is HIT
    assert found["t"].outputs.parameter("z") == '["!"]'
    assert found["t"].items_json == '[{"n":2}]'


async def test_a_fan_out_with_all_items_done_is_a_hit_and_others_go_on_from_it(cache, memory, did):
    await did("list", {}, {"items": '["a","b"]'})
    for item in "ab":
        await did("work", {"x": item}, {"y": f"{item}1"}, step=f"main.work({item})", result=f'"{item}"')
    await did("join", {"all": '["a1","b1"]', "said": '["a","b"]'}, {"n": "2"})
    memory.queries = 0
    asked = plan(
        step("list", "list"),
        step("work", "work", x=Item(), items=(OutputRef("list", "items"),)),
        step("join", "join", all=OutputRef("work", "y"), said=OutputRef("work", "", result=True)),
    )
    found = await verdicts(cache, asked)
    assert {v.verdict for v in found.values()} == {HIT}
    assert [v.id for v in found["work"].items] == ["work(0)", "work(1)"]
    assert [v.step for v in found["work"].items] == ["main.work(a)", "main.work(b)"]
    assert found["work"].saved_us == 120_000_000
    assert memory.queries == 1


async def test_a_fan_out_with_some_items_done_is_unknown_and_shows_each(cache, did):
    await did("work", {"x": "a"}, {"y": "1"})
    asked = plan(
        step("work", "work", x=Item(), items=(Literal('["a","b","a"]'),)),
        step("join", "join", all=OutputRef("work", "y")),
    )
    found = await verdicts(cache, asked)
    assert found["work"].verdict is UNKNOWN
    assert found["work"].reason == "2 of 3 items are known"
    assert [v.verdict for v in found["work"].items] == [HIT, MISS, HIT]


async def test_a_fan_out_of_which_no_item_is_done_is_a_miss(cache, did):
    await did("work", {"x": "z"})
    (found,) = await cache.resolve(plan(step("work", "work", x=Item(), items=(Literal('["a","b"]'),))))
    assert (found.verdict, found.reason) == (MISS, "it was run before, but not with these inputs")
    assert [v.verdict for v in found.items] == [MISS, MISS]


async def test_a_fan_out_whose_items_come_mid_run_is_unknown(cache, did):
    await did("work", {"x": "a"})
    asked = plan(step("list", "list"), step("work", "work", x=Item(), items=(OutputRef("list", "items"),)))
    found = await verdicts(cache, asked)
    assert found["work"].verdict is UNKNOWN
    assert found["work"].items == ()


async def test_a_fan_out_without_items_gives_empty_lists(cache, did):
    await did("join", {"all": "[]"}, {"n": "0"})
    asked = plan(
        step("work", "work", x=Item(), items=(Literal("[]"),)),
        step("join", "join", all=OutputRef("work", "y")),
    )
    found = await verdicts(cache, asked)
    assert found["work"].verdict is HIT
    assert found["work"].items_json == "[]"
    assert found["join"].verdict is HIT


@pytest.mark.parametrize("items", ["{}", "nonsense", "", "[1", "[NaN]"])
async def test_items_that_are_no_list_are_a_miss_and_no_failure(cache, items):
    (found,) = await cache.resolve(plan(step("work", "work", x=Item(), items=(Literal(items),))))
    assert found.verdict is MISS
    assert found.reason.startswith("its items: ")


async def test_an_item_without_the_member_that_is_asked_for_is_a_miss(cache):
    asked = plan(step("work", "work", x=Item("k"), items=(Literal('[{"j":1}]'),)))
    (found,) = await cache.resolve(asked)
    assert (found.items[0].verdict, found.items[0].reason) == (MISS, "its input x: an item has no member 'k'")


async def test_more_items_than_are_looked_up_are_a_miss(cache, monkeypatch):
    monkeypatch.setattr("periplus_cache.walk.MOST_ITEMS", 3)
    (found,) = await cache.resolve(plan(step("work", "work", x=Item(), items=(Literal("[1,2,3,4]"),))))
    assert (found.verdict, found.items) == (MISS, ())


async def test_a_large_fan_out_of_hits_is_one_query(cache, memory, did):
    for i in range(200):
        await did("work", {"x": str(i)}, {"y": str(i)}, step=f"main.w{i}")
    await did("list", {}, {"items": json.dumps([str(i) for i in range(150)])})
    asked = plan(step("list", "list"), step("work", "work", x=Item(), items=(OutputRef("list", "items"),)))
    memory.queries = 0
    assert (await verdicts(cache, asked))["work"].verdict is HIT
    assert memory.queries == 1
