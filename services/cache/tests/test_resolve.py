"""Resolving plans, through fakes: verdicts, reasons, and how little is request."""

from datetime import timedelta

import pytest
from cache_requests import HIT, MISS, UNCACHEABLE, UNKNOWN, resolve_request, step, template, verdicts

from periplus_cache.resolve.request import ResolveRequest
from periplus_cache.resolve.resolution import ResolveLimits
from periplus_cache.service import Cache
from periplus_common.errors import Invalid
from periplus_model.queries import Item, OutputRef, Unknown
from periplus_model.steps import CacheMode, CachePolicy, StepTemplate


async def test_a_recorded_step_is_a_hit_with_its_outputs_and_its_producer(cache, recorded):
    await recorded("a", {"c": "1"}, {"y": "2"}, result="text")
    (found,) = await cache.resolve(resolve_request(step("s", c="1")))
    assert (found.verdict, found.producer_run, found.producer_step, found.saved) == (
        HIT,
        "r1",
        "main.a",
        timedelta(minutes=1),
    )
    assert found.outputs.parameters == {"y": "2"}
    assert found.outputs.result == "text"
    assert found.fingerprint.startswith("sha256:")


async def test_a_step_that_never_ran_is_a_miss_that_says_so(cache, recorded):
    await recorded("b")
    (found,) = await cache.resolve(resolve_request(step("s", c="1")))
    assert (found.verdict, found.reason) == (MISS, "it was never run before with this code and environment")


async def test_other_inputs_are_a_miss_that_says_so(cache, recorded):
    await recorded("a", {"c": "1"})
    (found,) = await cache.resolve(resolve_request(step("s", c="2")))
    assert (found.verdict, found.reason) == (MISS, "it was run before, but not with these inputs")


async def test_a_chain_of_hits_is_one_query(cache, memory, recorded):
    for i in range(20):
        await recorded(f"k{i}", {"x": str(i)}, {"y": str(i + 1)}, step=f"main.s{i}")
    memory.queries = 0
    chain = [step("s0", "k0", x="0")] + [
        step(f"s{i}", f"k{i}", x=OutputRef(f"s{i - 1}", "y")) for i in range(1, 20)
    ]
    found = await cache.resolve(resolve_request(*chain))
    assert {verdict.verdict for verdict in found} == {HIT}
    assert memory.queries == 1


async def test_steps_with_parameters_only_do_not_need_the_object_store(cache, objects, recorded):
    objects.is_down = True
    await recorded("a", {"c": "1"}, {"y": "2"})
    found = await verdicts(cache, resolve_request(step("s", c="1"), step("t", "b", c=OutputRef("s", "y"))))
    assert found["s"].verdict is HIT
    assert objects.version_requests == 0


async def test_a_step_behind_a_miss_is_unknown_only_if_some_entry_could_match(cache, recorded):
    await recorded("b", {"x": "1"})
    request = resolve_request(
        step("s", "a"), step("t", "b", x=OutputRef("s", "y")), step("u", "c", x=OutputRef("s", "y"))
    )
    found = await verdicts(cache, request)
    assert found["s"].verdict is MISS
    assert (found["t"].verdict, found["t"].reason) == (
        UNKNOWN,
        "its input x is not known yet: s has to run first",
    )
    assert (found["u"].verdict, found["u"].reason) == (
        MISS,
        "it was never run before with this code and environment",
    )


async def test_an_unknown_input_that_the_policy_ignores_does_not_matter(cache, recorded):
    policy = CachePolicy(ignore_inputs=frozenset({"name"}))
    await recorded("a", {"c": "1", "name": "run-1"}, policy=policy)
    request = resolve_request(step("s", c="1", name=Unknown("workflow.name")), a=template("a", policy))
    assert (await cache.resolve(request))[0].verdict is HIT


@pytest.mark.parametrize(
    ("policy", "uncacheable", "verdict", "expected"),
    [
        (CachePolicy(CacheMode.OFF), "", UNCACHEABLE, "off"),
        (CachePolicy(side_effects=True), "", UNCACHEABLE, "side effects"),
        (CachePolicy(), "it mounts a volume", UNCACHEABLE, "it mounts a volume"),
        (CachePolicy(CacheMode.WRITE), "", MISS, "write"),
        (CachePolicy(CacheMode.REFRESH), "", MISS, "refresh"),
        (CachePolicy(CacheMode.READ), "", HIT, "r1"),
        (CachePolicy(CacheMode.READWRITE), "", HIT, "r1"),
    ],
)
async def test_the_policy_decides_whether_a_step_is_looked_up(
    cache, recorded, policy, uncacheable, verdict, expected
):
    await recorded("a", {"c": "1"})
    (found,) = await cache.resolve(resolve_request(step("s", c="1"), a=template("a", policy, uncacheable)))
    assert found.verdict is verdict
    assert expected in found.reason


async def test_a_template_with_an_empty_document_is_uncacheable(cache):
    request = ResolveRequest("p", {"a": StepTemplate("a", "{}")}, (step("s"),))
    assert (await cache.resolve(request))[0].verdict is UNCACHEABLE


async def test_the_ttl_of_a_step_bounds_the_age_of_its_hits(cache, recorded, clock):
    await recorded("a", {"c": "1"})
    request = resolve_request(step("s", c="1"), a=template("a", CachePolicy(ttl=timedelta(hours=1))))
    clock.move(minutes=58)
    assert (await cache.resolve(request))[0].verdict is HIT
    clock.move(minutes=1)
    (found,) = await cache.resolve(request)
    assert (found.verdict, found.reason) == (MISS, "the result of run r1 is older than its ttl of 1 h")


async def test_an_entry_expires_by_the_ttl_of_its_producer(cache, recorded, clock):
    await recorded("a", {"c": "1"}, policy=CachePolicy(ttl=timedelta(hours=1)))
    request = resolve_request(step("s", c="1"))
    assert (await cache.resolve(request))[0].verdict is HIT
    clock.move(minutes=59)
    assert (await cache.resolve(request))[0].verdict is MISS


async def test_projects_share_nothing(cache, recorded):
    await recorded("a", {"c": "1"}, project="p")
    assert (await cache.resolve(resolve_request(step("s", c="1"), project="q")))[0].verdict is MISS


async def test_a_new_epoch_makes_older_entries_unreachable(memory, objects, clock, recorded):
    await recorded("a", {"c": "1"})
    later = Cache(memory, objects, epoch=1, clock=clock)
    assert (await later.resolve(resolve_request(step("s", c="1"))))[0].verdict is MISS


async def test_a_step_whose_required_result_was_not_recorded_is_a_miss_until_it_is(cache, recorded):
    await recorded("a", {}, {"y": "1"}, run="r1")
    request = resolve_request(step("s"), step("t", "b", x=OutputRef("s", "", result=True)))
    found = await verdicts(cache, request)
    assert (found["s"].verdict, "its result was not recorded" in found["s"].reason) == (MISS, True)
    assert (await cache.resolve(resolve_request(step("s"))))[0].verdict is HIT
    await recorded("a", {}, {"y": "1"}, result="text", run="r2")
    assert (await verdicts(cache, request))["s"].verdict is HIT


async def test_a_fingerprint_that_is_not_among_the_newest_entries_is_queried(cache, memory, recorded, clock):
    await recorded("first", {}, {"y": "0"})
    for i in range(100):
        at = clock.now - timedelta(minutes=100 - i)
        await recorded("work", {"x": str(i)}, {"y": str(i)}, step=f"main.w{i}", at=at)
    old = resolve_request(step("first", "first"), step("work", "work", x=OutputRef("first", "y")))
    memory.queries = 0
    assert (await verdicts(cache, old))["work"].verdict is HIT
    assert memory.queries == 2


async def test_a_step_without_an_entry_is_a_miss_however_many_entries_its_template_has(cache, recorded):
    await recorded("first", {}, {"y": "none"})
    for i in range(100):
        await recorded("work", {"x": str(i)}, step=f"main.w{i}")
    request = resolve_request(step("first", "first"), step("work", "work", x=OutputRef("first", "y")))
    found = (await verdicts(cache, request))["work"]
    assert (found.verdict, found.reason) == (MISS, "it was run before, but not with these inputs")


async def test_the_candidates_of_a_request_are_bounded(cache, memory, recorded, monkeypatch):
    requested_rows: list[int] = []
    candidates = memory.candidates

    async def counting(project, limits, fingerprints, now):
        requested_rows.append(sum(limits.values()))
        return await candidates(project, limits, fingerprints, now)

    monkeypatch.setattr(memory, "candidates", counting)
    fans = [step(f"w{i}", f"k{i}", x=Item(), items=(OutputRef("list", "items"),)) for i in range(40)]
    ones = [step(f"o{i}", f"o{i}", x=OutputRef("list", "y")) for i in range(40)]
    await cache.resolve(resolve_request(step("list", "list"), *fans, *ones))
    assert 0 < requested_rows[0] <= ResolveLimits().max_candidates + 40 * 4


@pytest.mark.parametrize(
    ("steps", "field", "reason"),
    [
        ([step("s"), step("s")], "steps[1].id", "STEP_TWICE"),
        ([step("s", x=OutputRef("t", "y"))], "steps[0].parameters[0].value.parts[0].output", "STEP_UNKNOWN"),
        ([step("s", x=OutputRef("s", "y"))], "steps[0].parameters[0].value.parts[0].output", "STEP_UNKNOWN"),
        ([step("s", artifacts={"a": OutputRef("t", "y")})], "steps[0].artifacts[0].output", "STEP_UNKNOWN"),
        ([step("s", items=(OutputRef("t", "y"),))], "steps[0].items.parts[0].output", "STEP_UNKNOWN"),
        ([step("t"), step("s", x=OutputRef("t", ""))], "steps[1].parameters[0].value.parts[0].output.name", "OUTPUT_MISSING"),
        ([step("s", x=Item())], "steps[0].parameters[0].value.parts[0]", "ITEM_MISPLACED"),
        ([step("s", items=(Item(),))], "steps[0].items.parts[0]", "ITEM_MISPLACED"),
    ],
)  # fmt: skip
async def test_a_request_that_contradicts_itself_is_refused_with_the_field(cache, steps, field, reason):
    with pytest.raises(Invalid) as caught:
        await cache.resolve(resolve_request(*steps))
    assert (caught.value.field, caught.value.reason) == (field, reason)


async def test_an_unknown_template_and_an_invalid_document_are_refused_with_the_field(cache):
    with pytest.raises(Invalid) as caught:
        await cache.resolve(ResolveRequest("p", {}, (step("s"),)))
    assert caught.value.field == "steps[0].template"
    with pytest.raises(Invalid) as caught:
        await cache.resolve(ResolveRequest("p", {"a": StepTemplate("a", '{"x": NaN}')}, (step("s"),)))
    assert caught.value.field == 'templates["a"].document'


async def test_an_empty_request_needs_no_query(cache, memory):
    assert await cache.resolve(ResolveRequest("p", {}, ())) == []
    assert memory.queries == 0
