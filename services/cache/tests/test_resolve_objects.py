"""Resolving plans with artifacts, through fakes: early cutoff, and hits whose bytes are gone."""

from dataclasses import replace

import pytest
from cache_plans import HIT, MISS, UNKNOWN, plan, step, template, verdicts

from periplus_cache.domain import Place, Policy
from periplus_cache.plan import Object, OutputRef, Raw
from periplus_common.errors import Unavailable


async def test_same_bytes_from_another_producer_are_the_same_input(cache, did, objects):
    one, other = objects.put("one", b"same"), objects.put("other", b"same")
    await did("use", given={"x": one}, gave={"y": "1"})
    await did("make", {"seed": "2"}, {}, made={"m": other})
    asked = plan(
        step("make", "make", seed="2"), step("use", "use", artifacts=[("x", OutputRef("make", "m"))])
    )
    found = await verdicts(cache, asked)
    assert found["use"].verdict is HIT
    raw = plan(step("use", "use", artifacts=[("x", Raw("same"))]))
    assert (await cache.resolve(raw))[0].verdict is HIT
    there = plan(step("use", "use", artifacts=[("x", Object(objects.put("third", b"same")))]))
    assert (await cache.resolve(there))[0].verdict is HIT


async def test_an_object_is_read_once_however_often_it_is_asked_for(cache, objects):
    place = objects.put("big", b"bytes")
    asked = plan(*(step(f"s{i}", "use", artifacts=[("x", Object(place))]) for i in range(5)))
    await cache.resolve(asked)
    await cache.resolve(asked)
    assert objects.reads == 1


async def test_an_input_that_is_not_there_is_a_miss_that_names_it(cache, objects):
    gone = objects.put("gone")
    objects.found.clear()
    (found,) = await cache.resolve(plan(step("s", artifacts=[("x", Object(gone))])))
    assert (found.verdict, "there is no object gone" in found.reason) == (MISS, True)


async def test_an_optional_artifact_that_its_step_did_not_make_is_left_out(cache, did):
    await did("make", {"seed": "2"})
    await did("use", {}, {"y": "1"})
    asked = plan(
        step("make", "make", seed="2"), step("use", "use", artifacts=[("x", OutputRef("make", "m"))])
    )
    assert (await verdicts(cache, asked))["use"].verdict is HIT


async def test_a_hit_whose_bytes_are_gone_is_buried_and_its_step_runs_again(cache, memory, did, objects):
    model = objects.put("model", b"weights")
    await did("make", {}, {"n": "1"}, made={"m": model}, run="r1")
    await did("use", {"n": "1"}, given={"x": model})
    asked = plan(
        step("make", "make"),
        step("use", "use", n=OutputRef("make", "n"), artifacts=[("x", OutputRef("make", "m"))]),
    )
    assert [v.verdict for v in await cache.resolve(asked)] == [HIT, HIT]
    del objects.found[model]
    assert [v.verdict for v in await cache.resolve(asked)] == [MISS, UNKNOWN]
    assert [e.headers["ce-type"] for e in memory.events].count("periplus.cache.v1.EntryInvalidated") == 1

    again = objects.put("again", b"weights")
    await did("make", {}, {"n": "1"}, made={"m": again}, run="r2")
    found = await cache.resolve(asked)
    assert [v.verdict for v in found] == [HIT, HIT]
    assert found[0].run == "r2"


@pytest.mark.parametrize("content", [b"other", b"longer weights"])
async def test_a_hit_whose_bytes_were_changed_is_buried(cache, memory, did, objects, content):
    await did("make", made={"m": objects.put("model", b"bytes")})
    objects.put("model", content)
    assert (await cache.resolve(plan(step("make", "make"))))[0].verdict is MISS
    assert [tomb.reason for _, tomb in memory.tombs] == ["bytes were changed"]


async def test_the_objects_of_all_hits_are_looked_at_once(cache, did, objects):
    shared = objects.put("shared")
    for kind in "abc":
        await did(kind, made={"m": shared})
    objects.stats = 0
    await cache.resolve(plan(step("a", "a"), step("b", "b"), step("c", "c")))
    assert objects.stats == 1


async def test_a_hit_whose_object_has_another_size_under_the_same_tag_is_buried(
    cache, memory, did, objects, monkeypatch
):
    place = objects.put("model", b"bytes")
    await did("make", made={"m": place})
    same_tag = replace(objects._stat(place), size=6)
    monkeypatch.setattr(objects, "_stat", lambda _: same_tag)
    assert (await cache.resolve(plan(step("make", "make"))))[0].verdict is MISS
    assert [tomb.reason for _, tomb in memory.tombs] == ["bytes were changed"]


async def test_an_object_that_the_policy_ignores_is_not_looked_at(cache, did, objects):
    policy = Policy(ignored=frozenset({"x"}))
    await did("a", policy=policy)
    objects.away = True
    asked = plan(step("s", artifacts=[("x", Object(Place("any")))]), a=template("a", policy))
    assert (await cache.resolve(asked))[0].verdict is HIT


async def test_an_object_that_changes_while_it_is_read_is_no_input(cache, did, objects, monkeypatch):
    place = objects.put("data", b"new")
    await did("use", given={"x": place})
    asked = plan(step("use", "use", artifacts=[("x", Object(objects.put("other", b"old")))]))
    read = objects.digest

    async def changing(place):
        objects.put(place.key, b"new")
        return await read(place)

    monkeypatch.setattr(objects, "digest", changing)
    (found,) = await cache.resolve(asked)
    assert (found.verdict, "changed while it was read" in found.reason) == (MISS, True)


async def test_an_object_store_that_is_away_is_no_hit_and_no_burial(cache, memory, did, objects):
    await did("make", made={"m": objects.put("model")})
    objects.away = True
    with pytest.raises(Unavailable):
        await cache.resolve(plan(step("make", "make")))
    assert memory.tombs == []
