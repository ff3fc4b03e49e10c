"""Resolving steps with artifacts, with stores in memory: equal contents, and hits whose objects are gone or changed."""

from dataclasses import replace

import pytest
from cache_requests import HIT, MISS, UNKNOWN, resolve_request, step, template, verdicts

from periplus_common.errors import Unavailable
from periplus_model.queries import OutputRef, Raw
from periplus_model.steps import CachePolicy, ObjectRef


async def test_the_same_content_of_another_producer_is_the_same_input(cache, recorded, objects):
    one, other = objects.put("one", b"same"), objects.put("other", b"same")
    await recorded("use", input_artifacts={"x": one}, outputs={"y": "1"})
    await recorded("make", {"seed": "2"}, {}, output_artifacts={"m": other})
    request = resolve_request(
        step("make", "make", seed="2"), step("use", "use", artifacts={"x": OutputRef("make", "m")})
    )
    found = await verdicts(cache, request)
    assert found["use"].verdict is HIT
    raw = resolve_request(step("use", "use", artifacts={"x": Raw("same")}))
    assert (await cache.resolve(raw))[0].verdict is HIT
    there = resolve_request(step("use", "use", artifacts={"x": objects.put("third", b"same")}))
    assert (await cache.resolve(there))[0].verdict is HIT


async def test_an_object_is_read_once_for_any_number_of_requests(cache, objects):
    ref = objects.put("big", b"bytes")
    request = resolve_request(*(step(f"s{i}", "use", artifacts={"x": ref}) for i in range(5)))
    await cache.resolve(request)
    await cache.resolve(request)
    assert objects.reads == 1


async def test_a_missing_input_is_a_miss_that_names_it(cache, objects):
    gone = objects.put("gone")
    objects.objects.clear()
    (found,) = await cache.resolve(resolve_request(step("s", artifacts={"x": gone})))
    assert (found.verdict, "there is no object gone" in found.reason) == (MISS, True)


async def test_an_optional_artifact_that_its_step_did_not_write_is_left_out(cache, recorded):
    await recorded("make", {"seed": "2"})
    await recorded("use", {}, {"y": "1"})
    request = resolve_request(
        step("make", "make", seed="2"), step("use", "use", artifacts={"x": OutputRef("make", "m")})
    )
    assert (await verdicts(cache, request))["use"].verdict is HIT


async def test_an_entry_whose_object_is_gone_is_invalidated_and_its_step_runs_again(
    cache, memory, recorded, objects
):
    model = objects.put("model", b"weights")
    await recorded("make", {}, {"n": "1"}, output_artifacts={"m": model}, run="r1")
    await recorded("use", {"n": "1"}, input_artifacts={"x": model})
    request = resolve_request(
        step("make", "make"),
        step("use", "use", n=OutputRef("make", "n"), artifacts={"x": OutputRef("make", "m")}),
    )
    assert [v.verdict for v in await cache.resolve(request)] == [HIT, HIT]
    del objects.objects[model]
    assert [v.verdict for v in await cache.resolve(request)] == [MISS, UNKNOWN]
    assert [e.headers["ce-type"] for e in memory.events].count("periplus.cache.v1.EntryInvalidated") == 1

    again = objects.put("again", b"weights")
    await recorded("make", {}, {"n": "1"}, output_artifacts={"m": again}, run="r2")
    found = await cache.resolve(request)
    assert [v.verdict for v in found] == [HIT, HIT]
    assert found[0].producer_run == "r2"


@pytest.mark.parametrize("content", [b"other", b"longer weights"])
async def test_an_entry_whose_object_was_changed_is_invalidated(cache, memory, recorded, objects, content):
    await recorded("make", output_artifacts={"m": objects.put("model", b"bytes")})
    objects.put("model", content)
    assert (await cache.resolve(resolve_request(step("make", "make"))))[0].verdict is MISS
    assert [past.reason for _, past in memory.invalidations] == ["bytes were changed"]


async def test_an_object_that_several_hits_share_is_checked_once(cache, recorded, objects):
    shared = objects.put("shared")
    for kind in "abc":
        await recorded(kind, output_artifacts={"m": shared})
    objects.version_requests = 0
    await cache.resolve(resolve_request(step("a", "a"), step("b", "b"), step("c", "c")))
    assert objects.version_requests == 1


async def test_an_entry_whose_object_has_another_size_under_the_same_etag_is_invalidated(
    cache, memory, recorded, objects, monkeypatch
):
    ref = objects.put("model", b"bytes")
    await recorded("make", output_artifacts={"m": ref})
    same_tag = replace(objects._version(ref), size_bytes=6)
    monkeypatch.setattr(objects, "_version", lambda _: same_tag)
    assert (await cache.resolve(resolve_request(step("make", "make"))))[0].verdict is MISS
    assert [past.reason for _, past in memory.invalidations] == ["bytes were changed"]


async def test_an_object_that_the_policy_ignores_is_not_read(cache, recorded, objects):
    policy = CachePolicy(ignore_inputs=frozenset({"x"}))
    await recorded("a", policy=policy)
    objects.is_down = True
    request = resolve_request(step("s", artifacts={"x": ObjectRef("any")}), a=template("a", policy))
    assert (await cache.resolve(request))[0].verdict is HIT


async def test_an_object_that_changes_while_it_is_read_is_no_input(cache, recorded, objects, monkeypatch):
    ref = objects.put("data", b"new")
    await recorded("use", input_artifacts={"x": ref})
    request = resolve_request(step("use", "use", artifacts={"x": objects.put("other", b"old")}))
    read = objects.read_digest

    async def changing(ref):
        objects.put(ref.key, b"new")
        return await read(ref)

    monkeypatch.setattr(objects, "read_digest", changing)
    (found,) = await cache.resolve(request)
    assert (found.verdict, "changed while it was read" in found.reason) == (MISS, True)


async def test_while_the_object_store_is_down_there_are_neither_hits_nor_invalidations(
    cache, memory, recorded, objects
):
    await recorded("make", output_artifacts={"m": objects.put("model")})
    objects.is_down = True
    with pytest.raises(Unavailable):
        await cache.resolve(resolve_request(step("make", "make")))
    assert memory.invalidations == []
