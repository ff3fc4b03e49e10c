"""Resolving steps of which something is known only during the run, with stores in memory: the other steps are not affected."""

import pytest
from cache_requests import HIT, MISS, UNCACHEABLE, UNKNOWN, resolve_request, step, template, verdicts

from periplus_model.queries import Item, OutputRef, Unknown
from periplus_model.steps import CacheMode, CachePolicy, StepTemplate

UNCACHEABLE_TEMPLATES = [
    template("up", uncacheable_reason="it mounts a volume"),
    template("up", CachePolicy(CacheMode.OFF)),
    template("up", CachePolicy(side_effects=True)),
    StepTemplate("up", "{}"),
    StepTemplate("up", '{"x": NaN}', uncacheable_reason="its document can not be read"),
]


@pytest.mark.parametrize("upstream", UNCACHEABLE_TEMPLATES, ids=["reason", "off", "effects", "{}", "NaN"])
async def test_the_outputs_of_an_uncacheable_step_are_unknown_and_the_rest_is_resolved(
    cache, recorded, objects, upstream
):
    await recorded("known", {"x": "1"}, {"y": "2"})
    await recorded("after", {"x": "2"})
    await recorded("run-before", {"x": "1"})
    await recorded("reads", input_artifacts={"m": objects.put("m")})
    request = resolve_request(
        step("up", "up", x="1"),
        step("known", "known", x="1"),
        step("after", "after", x=OutputRef("known", "y")),
        step("run-before", "run-before", x=OutputRef("up", "y")),
        step("result", "run-before", x=OutputRef("up", result=True)),
        step("never-run", "never-run", x=OutputRef("up", "y")),
        step("reads", "reads", artifacts={"m": OutputRef("up", "m")}),
        step("reads-first", "reads-first", artifacts={"m": OutputRef("up", "m")}),
        step("fan-out", "run-before", x=Item(), items=(OutputRef("up", "items"),)),
        step("behind", "after", x=OutputRef("run-before", "y")),
        up=upstream,
    )
    found = await verdicts(cache, request)
    assert {id_: verdict.verdict for id_, verdict in found.items()} == {
        "up": UNCACHEABLE,
        "known": HIT,
        "after": HIT,
        "run-before": UNKNOWN,
        "result": UNKNOWN,
        "never-run": MISS,
        "reads": UNKNOWN,
        "reads-first": MISS,
        "fan-out": UNKNOWN,
        "behind": UNKNOWN,
    }
    assert found["run-before"].reason == "its input x is not known yet: up has to run first"


async def test_unknown_values_make_their_step_unknown_and_the_rest_is_resolved(cache, recorded, objects):
    await recorded("known", {"x": "1"}, {"y": "2"})
    await recorded("run-before", {"x": "1"})
    await recorded("reads", input_artifacts={"m": objects.put("m")})
    unknown = Unknown("an output of main.up, which is not in the cache")
    request = resolve_request(
        step("run-before", "run-before", x=unknown),
        step("never-run", "never-run", x=unknown),
        step("reads", "reads", artifacts={"m": unknown}),
        step("reads-first", "reads-first", artifacts={"m": unknown}),
        step("fan-out", "run-before", x=Item(), items=(unknown,)),
        step("behind", "known", x=OutputRef("run-before", "y")),
        step("known", "known", x="1"),
    )
    found = await verdicts(cache, request)
    assert {id_: verdict.verdict for id_, verdict in found.items()} == {
        "run-before": UNKNOWN,
        "never-run": MISS,
        "reads": UNKNOWN,
        "reads-first": MISS,
        "fan-out": UNKNOWN,
        "behind": UNKNOWN,
        "known": HIT,
    }
    assert found["reads"].reason == f"its input m is not known yet: {unknown.description}"
