"""Resolving plans, through fakes: verdicts, reasons, self-heal, and how little is asked."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from periplus_cache.domain import Mode, Place, Policy, Template, Verdict
from periplus_cache.plan import Item, Literal, Object, OutputRef, Plan, Raw, StepQuery, StepVerdict, Unknown
from periplus_cache.service import CANDIDATES, Cache
from periplus_common.errors import Invalid, Unavailable

HIT, MISS, UNKNOWN, UNCACHEABLE = Verdict.HIT, Verdict.MISS, Verdict.UNKNOWN, Verdict.UNCACHEABLE


def template(kind: str = "a", policy: Policy = Policy(), uncacheable: str = "") -> Template:  # noqa: B008
    return Template(kind, json.dumps({"does": kind}), policy, uncacheable)


def step(id_: str, kind: str = "a", *, items=None, artifacts=(), **parameters) -> StepQuery:
    return StepQuery(
        id_, kind, tuple((name, _text(value)) for name, value in parameters.items()), tuple(artifacts), items
    )


def _text(value):
    return (Literal(value),) if isinstance(value, str) else value if isinstance(value, tuple) else (value,)


def plan(*steps: StepQuery, project: str = "p", **templates: Template) -> Plan:
    kinds = {query.template for query in steps}
    return Plan(project, {kind: templates.get(kind) or template(kind) for kind in kinds}, steps)


@pytest.fixture
def did(cache, train, clock):
    """Records that a step was done, a minute ago unless something else is said."""

    async def record(kind="a", parameters=None, gave=None, *, run="r1", step="", at=None, **more):
        await cache.record(
            train(
                run, step or f"main.{kind}", document={"does": kind}, name=kind, parameters=parameters or {}, gave=gave or {},
                at=at or clock.now - timedelta(minutes=1), **more,
            )
        )  # fmt: skip

    return record


async def verdicts(cache: Cache, asked: Plan) -> dict[str, StepVerdict]:
    return {verdict.id: verdict for verdict in await cache.resolve(asked)}


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


async def test_a_result_that_is_asked_for_and_was_not_kept_makes_a_miss_until_it_is(cache, did):
    await did("a", {}, {"y": "1"}, run="r1")
    asked = plan(step("s"), step("t", "b", x=OutputRef("s", "", result=True)))
    found = await verdicts(cache, asked)
    assert (found["s"].verdict, "its result was not kept" in found["s"].reason) == (MISS, True)
    assert (await cache.resolve(plan(step("s"))))[0].verdict is HIT
    await did("a", {}, {"y": "1"}, result="text", run="r2")
    assert (await verdicts(cache, asked))["s"].verdict is HIT


async def test_a_large_fan_out_of_hits_is_one_query(cache, memory, did):
    for i in range(200):
        await did("work", {"x": str(i)}, {"y": str(i)}, step=f"main.w{i}")
    await did("list", {}, {"items": json.dumps([str(i) for i in range(150)])})
    asked = plan(step("list", "list"), step("work", "work", x=Item(), items=(OutputRef("list", "items"),)))
    memory.queries = 0
    assert (await verdicts(cache, asked))["work"].verdict is HIT
    assert memory.queries == 1


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
