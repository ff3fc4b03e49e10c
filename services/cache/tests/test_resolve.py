"""Resolving plans, through fakes: verdicts, reasons, and how little is asked."""

from datetime import timedelta

import pytest
from cache_plans import HIT, MISS, UNCACHEABLE, UNKNOWN, plan, step, template, verdicts

from periplus_cache.domain import Mode, Policy, Template
from periplus_cache.plan import Item, OutputRef, Plan, Raw, StepQuery, Unknown
from periplus_cache.service import CANDIDATES, Cache
from periplus_common.errors import Invalid


async def test_what_was_done_is_a_hit_with_its_outputs_and_its_maker(cache, did):
    await did("a", {"c": "1"}, {"y": "2"}, result="text")
    (found,) = await cache.resolve(plan(step("s", c="1")))
    assert (found.verdict, found.run, found.step, found.saved_us) == (HIT, "r1", "main.a", 60_000_000)
    assert found.outputs.parameters == (("y", "2"),)
    assert found.outputs.result == "text"
    assert found.fingerprint.startswith("sha256:")


async def test_what_was_never_done_is_a_miss_that_says_so(cache, did):
    await did("b")
    (found,) = await cache.resolve(plan(step("s", c="1")))
    assert (found.verdict, found.reason) == (MISS, "it was never run before with this code and environment")


async def test_other_inputs_are_a_miss_that_says_so(cache, did):
    await did("a", {"c": "1"})
    (found,) = await cache.resolve(plan(step("s", c="2")))
    assert (found.verdict, found.reason) == (MISS, "it was run before, but not with these inputs")


async def test_a_chain_of_hits_is_one_query(cache, memory, did):
    for i in range(20):
        await did(f"k{i}", {"x": str(i)}, {"y": str(i + 1)}, step=f"main.s{i}")
    memory.queries = 0
    chain = [step("s0", "k0", x="0")] + [
        step(f"s{i}", f"k{i}", x=OutputRef(f"s{i - 1}", "y")) for i in range(1, 20)
    ]
    found = await cache.resolve(plan(*chain))
    assert {verdict.verdict for verdict in found} == {HIT}
    assert memory.queries == 1


async def test_a_parameter_only_plan_does_not_touch_the_object_store(cache, objects, did):
    objects.away = True
    await did("a", {"c": "1"}, {"y": "2"})
    found = await verdicts(cache, plan(step("s", c="1"), step("t", "b", c=OutputRef("s", "y"))))
    assert found["s"].verdict is HIT
    assert objects.stats == 0


async def test_a_step_behind_a_miss_is_unknown_only_if_some_entry_could_match(cache, did):
    await did("b", {"x": "1"})
    asked = plan(step("s", "a"), step("t", "b", x=OutputRef("s", "y")), step("u", "c", x=OutputRef("s", "y")))
    found = await verdicts(cache, asked)
    assert found["s"].verdict is MISS
    assert (found["t"].verdict, found["t"].reason) == (
        UNKNOWN,
        "its input x is not known yet: s has to run first",
    )
    assert (found["u"].verdict, found["u"].reason) == (
        MISS,
        "it was never run before with this code and environment",
    )


async def test_an_unknown_input_that_the_policy_ignores_is_no_obstacle(cache, did):
    policy = Policy(ignored=frozenset({"name"}))
    await did("a", {"c": "1", "name": "run-1"}, policy=policy)
    asked = plan(step("s", c="1", name=Unknown("workflow.name")), a=template("a", policy))
    assert (await cache.resolve(asked))[0].verdict is HIT


@pytest.mark.parametrize(
    ("policy", "uncacheable", "verdict", "said"),
    [
        (Policy(Mode.OFF), "", UNCACHEABLE, "off"),
        (Policy(side_effects=True), "", UNCACHEABLE, "side effects"),
        (Policy(), "it mounts a volume", UNCACHEABLE, "it mounts a volume"),
        (Policy(Mode.WRITE), "", MISS, "write"),
        (Policy(Mode.REFRESH), "", MISS, "refresh"),
        (Policy(Mode.READ), "", HIT, "r1"),
        (Policy(Mode.READWRITE), "", HIT, "r1"),
    ],
)
async def test_the_policy_decides_whether_a_step_is_looked_up(cache, did, policy, uncacheable, verdict, said):
    await did("a", {"c": "1"})
    (found,) = await cache.resolve(plan(step("s", c="1"), a=template("a", policy, uncacheable)))
    assert found.verdict is verdict
    assert said in found.reason


async def test_a_template_of_which_nothing_is_known_is_not_cached(cache):
    asked = Plan("p", {"a": Template("a", "{}")}, (step("s"),))
    assert (await cache.resolve(asked))[0].verdict is UNCACHEABLE


async def test_the_ttl_of_who_asks_bounds_the_age_of_what_it_gets(cache, did, clock):
    await did("a", {"c": "1"})
    asked = plan(step("s", c="1"), a=template("a", Policy(ttl=timedelta(hours=1))))
    clock.move(minutes=58)
    assert (await cache.resolve(asked))[0].verdict is HIT
    clock.move(minutes=1)
    (found,) = await cache.resolve(asked)
    assert (found.verdict, found.reason) == (MISS, "what run r1 made is older than its ttl of 1 h")


async def test_the_ttl_of_who_made_it_ends_an_entry(cache, did, clock):
    await did("a", {"c": "1"}, policy=Policy(ttl=timedelta(hours=1)))
    asked = plan(step("s", c="1"))
    assert (await cache.resolve(asked))[0].verdict is HIT
    clock.move(minutes=59)
    assert (await cache.resolve(asked))[0].verdict is MISS


async def test_projects_share_nothing(cache, did):
    await did("a", {"c": "1"}, project="p")
    assert (await cache.resolve(plan(step("s", c="1"), project="q")))[0].verdict is MISS


async def test_a_new_epoch_disowns_what_went_before(memory, objects, clock, did):
    await did("a", {"c": "1"})
    later = Cache(memory, objects, epoch=1, clock=clock)
    assert (await later.resolve(plan(step("s", c="1"))))[0].verdict is MISS


async def test_a_result_that_is_asked_for_and_was_not_kept_makes_a_miss_until_it_is(cache, did):
    await did("a", {}, {"y": "1"}, run="r1")
    asked = plan(step("s"), step("t", "b", x=OutputRef("s", "", result=True)))
    found = await verdicts(cache, asked)
    assert (found["s"].verdict, "its result was not kept" in found["s"].reason) == (MISS, True)
    assert (await cache.resolve(plan(step("s"))))[0].verdict is HIT
    await did("a", {}, {"y": "1"}, result="text", run="r2")
    assert (await verdicts(cache, asked))["s"].verdict is HIT


async def test_what_the_newest_entries_do_not_hold_is_asked_for_exactly(cache, memory, did, clock):
    await did("first", {}, {"y": "0"})
    for i in range(100):
        at = clock.now - timedelta(minutes=100 - i)
        await did("work", {"x": str(i)}, {"y": str(i)}, step=f"main.w{i}", at=at)
    old = plan(step("first", "first"), step("work", "work", x=OutputRef("first", "y")))
    memory.queries = 0
    assert (await verdicts(cache, old))["work"].verdict is HIT
    assert memory.queries == 2


async def test_a_step_that_is_not_there_however_crowded_its_template_is_a_miss(cache, did):
    await did("first", {}, {"y": "none"})
    for i in range(100):
        await did("work", {"x": str(i)}, step=f"main.w{i}")
    asked = plan(step("first", "first"), step("work", "work", x=OutputRef("first", "y")))
    found = (await verdicts(cache, asked))["work"]
    assert (found.verdict, found.reason) == (MISS, "it was run before, but not with these inputs")


async def test_no_plan_fetches_more_candidates_than_there_may_be(cache, memory, did, monkeypatch):
    asked_for: list[int] = []
    ask = memory.candidates

    async def counting(project, limits, fingerprints, now):
        asked_for.append(sum(limits.values()))
        return await ask(project, limits, fingerprints, now)

    monkeypatch.setattr(memory, "candidates", counting)
    fans = [step(f"w{i}", f"k{i}", x=Item(), items=(OutputRef("list", "items"),)) for i in range(40)]
    ones = [step(f"o{i}", f"o{i}", x=OutputRef("list", "y")) for i in range(40)]
    await cache.resolve(plan(step("list", "list"), *fans, *ones))
    assert 0 < asked_for[0] <= CANDIDATES + 40 * 4


@pytest.mark.parametrize(
    ("steps", "field", "reason"),
    [
        ([step("s"), step("s")], "steps[1].id", "STEP_TWICE"),
        ([step("s", x=OutputRef("t", "y"))], "steps[0].parameters[0].value.parts[0].output", "STEP_UNKNOWN"),
        ([step("s", x=OutputRef("s", "y"))], "steps[0].parameters[0].value.parts[0].output", "STEP_UNKNOWN"),
        ([step("s", artifacts=[("a", OutputRef("t", "y"))])], "steps[0].artifacts[0].output", "STEP_UNKNOWN"),
        ([step("s", items=(OutputRef("t", "y"),))], "steps[0].items.parts[0].output", "STEP_UNKNOWN"),
        ([step("t"), step("s", x=OutputRef("t", ""))], "steps[1].parameters[0].value.parts[0].output.name", "OUTPUT_MISSING"),
        ([step("s", x=Item())], "steps[0].parameters[0].value.parts[0]", "ITEM_MISPLACED"),
        ([step("s", items=(Item(),))], "steps[0].items.parts[0]", "ITEM_MISPLACED"),
        ([StepQuery("s", "a", (("x", ()), ("x", ())))], "steps[0].parameters[1].name", "INPUT_TWICE"),
        ([StepQuery("s", "a", (), (("x", Raw("")), ("x", Raw(""))))], "steps[0].artifacts[1].name", "INPUT_TWICE"),
    ],
)  # fmt: skip
async def test_a_plan_that_contradicts_itself_is_refused_with_the_field(cache, steps, field, reason):
    with pytest.raises(Invalid) as caught:
        await cache.resolve(plan(*steps))
    assert (caught.value.field, caught.value.reason) == (field, reason)


async def test_an_unknown_template_and_a_bad_document_are_refused_with_the_field(cache):
    with pytest.raises(Invalid) as caught:
        await cache.resolve(Plan("p", {}, (step("s"),)))
    assert caught.value.field == "steps[0].template"
    with pytest.raises(Invalid) as caught:
        await cache.resolve(Plan("p", {"a": Template("a", '{"x": NaN}')}, (step("s"),)))
    assert caught.value.field == 'templates["a"].document'


async def test_an_empty_plan_asks_nothing(cache, memory):
    assert await cache.resolve(Plan("p", {}, ())) == []
    assert memory.queries == 0
