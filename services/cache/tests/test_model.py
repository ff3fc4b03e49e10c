"""Random workflows, run again and again through the cache: whatever is served is what would have been made.

Steps are pure functions of what their key should cover. Between runs, code, inputs and outside objects change,
bytes are deleted, overwritten and forgotten, and events come late, twice and in any order.
"""

import asyncio
import hashlib
import json
import random
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from periplus_cache import domain
from periplus_cache.domain import Artifact, Inputs, Mode, Phase, Policy, Template, Verdict
from periplus_cache.entry import Selector
from periplus_cache.plan import Item, Literal, Object, OutputRef, Plan, StepQuery
from periplus_cache.recording import Finished
from periplus_cache.service import Cache

OUTSIDE = ("out/0", "out/1")


@dataclass(frozen=True)
class Step:
    """A step of a random workflow. `code` is what a programmer may change; sources are numbers of earlier steps."""

    code: int
    literal: str
    reads: int | None  # the parameter y of this step
    says: int | None  # the result of this step
    artifact: int | str | None  # the artifact of this step, or an outside object
    items: int | str | None  # a fan-out over this step's list, or over this literal
    policy: Policy


policies = st.sampled_from(
    [Policy()] * 6
    + [Policy(Mode.OFF), Policy(Mode.READ), Policy(Mode.WRITE), Policy(Mode.REFRESH)]
    + [Policy(ttl=timedelta(seconds=30)), Policy(side_effects=True)]
)


@st.composite
def workflows(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for index in range(draw(st.integers(1, 6))):
        earlier = st.none() if not index else st.none() | st.integers(0, index - 1)
        lone = [i for i, step in enumerate(steps) if step.items is None]
        steps.append(
            Step(
                draw(st.integers(0, 2)),
                draw(st.sampled_from(["a", "b"])),
                draw(earlier),
                draw(earlier),
                draw(st.sampled_from([None, *OUTSIDE, *lone])),
                draw(st.sampled_from([None, None, '["p","q"]', "[]", *lone])),
                draw(policies),
            )
        )
    return steps


changes = st.lists(
    st.sampled_from(["code", "literal", "outside", "delete", "overwrite", "invalidate", "wait", "nothing"]),
    min_size=1,
    max_size=3,
)


class World:
    """Runs a workflow through the cache, executes what must be, and compares what is served with the truth."""

    def __init__(self, cache: Cache, memory, objects, clock, seed: int) -> None:
        self.cache, self.memory, self.objects, self.clock = cache, memory, objects, clock
        self.random = random.Random(seed)
        self.late: list[Finished] = []
        self.hits = 0

    def make(self, step: Step, inputs: Inputs) -> tuple[dict[str, str], str, bytes]:
        """What the step gives: a function of its code and its inputs, with few values, so that they meet again."""
        content = {a.name: self.objects.found[a.place][0].decode() for a in inputs.artifacts}
        seen = json.dumps([step.code, sorted(inputs.parameters), sorted(content.items())])
        number = int(hashlib.sha256(seen.encode()).hexdigest(), 16)
        items = json.dumps([f"i{n}" for n in range(number % 3)], separators=(",", ":"))
        return {"y": f"y{number % 2}", "list": items}, f"r{number % 3}", f"m{number % 5}".encode()

    async def run(self, name: str, steps: list[Step]) -> None:
        plan = self.plan(steps)
        verdicts = await self.cache.resolve(plan)
        gave: list[domain.Outputs] = []
        for index, (step, query, verdict) in enumerate(zip(steps, plan.steps, verdicts, strict=True)):
            if step.items is None:
                inputs = self.inputs(step, gave, "")
                gave.append(await self.one(name, f"s{index}", step, query, inputs, verdict))
                continue
            items = json.loads(
                gave[step.items].parameter("list") if isinstance(step.items, int) else step.items
            )
            known = verdict.items or [None] * len(items)
            if verdict.items_json:
                assert json.loads(verdict.items_json) == items
            each = [
                await self.one(name, f"s{index}({i})", step, query, self.inputs(step, gave, item), said)
                for i, (item, said) in enumerate(zip(items, known, strict=True))
            ]
            joined = {
                "y": json.dumps([o.parameter("y") for o in each], separators=(",", ":")),
                "list": json.dumps([json.loads(o.parameter("list")) for o in each], separators=(",", ":")),
            }
            result = json.dumps([o.result for o in each], separators=(",", ":"))
            gave.append(domain.Outputs(tuple(joined.items()), (), result))
            if verdict.verdict is Verdict.HIT and items:
                assert (dict(verdict.outputs.parameters), verdict.outputs.result) == (joined, result)

    async def one(self, run, path, step, query, inputs, verdict) -> domain.Outputs:
        if verdict is None or verdict.verdict is Verdict.UNKNOWN:
            verdict = await self.gate(step, inputs)
        values, result, content = self.make(step, inputs)
        if verdict.verdict is Verdict.HIT:
            self.hits += 1
            served = verdict.outputs
            assert (dict(served.parameters), served.result) == (values, result)
            assert self.objects.found[served.artifact("m").place][0] == content
            return served
        place = self.objects.put(f"{run}/{path}/m", content, self.clock.now)
        outputs = domain.Outputs(tuple(values.items()), (Artifact("m", place),), result, 0)
        template = Template("t", json.dumps({"code": step.code}), step.policy)
        begun, ended = self.clock.now, self.clock.now + timedelta(seconds=1)
        self.late.append(
            Finished(
                "p", run, path, template, Phase.SUCCEEDED, verdict.verdict, inputs, outputs, begun, ended
            )
        )
        self.clock.move(seconds=2)
        return outputs

    async def gate(self, step: Step, inputs: Inputs):
        """What is not known at the start is asked again when it is."""
        query = StepQuery(
            "gate",
            "t",
            tuple((n, (Literal(v),)) for n, v in inputs.parameters),
            tuple((a.name, Object(a.place)) for a in inputs.artifacts),
        )
        template = Template("t", json.dumps({"code": step.code}), step.policy)
        return (await self.cache.resolve(Plan("p", {"t": template}, (query,))))[0]

    def plan(self, steps: list[Step]) -> Plan:
        templates = {
            f"t{i}": Template(f"t{i}", json.dumps({"code": step.code}), step.policy)
            for i, step in enumerate(steps)
        }
        queries = []
        for i, step in enumerate(steps):
            parameters = [("literal", (Literal(step.literal),))]
            if step.reads is not None:
                parameters.append(("reads", (Literal("<"), OutputRef(f"s{step.reads}", "y"))))
            if step.says is not None:
                parameters.append(("says", (OutputRef(f"s{step.says}", "", result=True),)))
            if step.items is not None:
                parameters.append(("item", (Item(),)))
            artifacts = []
            if isinstance(step.artifact, int):
                artifacts.append(("a", OutputRef(f"s{step.artifact}", "m")))
            elif step.artifact:
                artifacts.append(("a", Object(domain.Place(step.artifact))))
            items = None
            if step.items is not None:
                source = step.items
                items = (OutputRef(f"s{source}", "list") if isinstance(source, int) else Literal(source),)
            queries.append(StepQuery(f"s{i}", f"t{i}", tuple(parameters), tuple(artifacts), items))
        return Plan("p", templates, tuple(queries))

    def inputs(self, step: Step, gave: list[domain.Outputs], item: str) -> Inputs:
        parameters = [("literal", step.literal)]
        if step.reads is not None:
            parameters.append(("reads", "<" + gave[step.reads].parameter("y")))
        if step.says is not None:
            parameters.append(("says", gave[step.says].result))
        if step.items is not None:
            parameters.append(("item", item))
        artifacts = []
        if isinstance(step.artifact, int):
            artifacts.append(Artifact("a", gave[step.artifact].artifact("m").place))
        elif step.artifact:
            artifacts.append(Artifact("a", domain.Place(step.artifact)))
        return Inputs(tuple(parameters), tuple(artifacts))

    async def deliver(self) -> None:
        """Every event once at least, late, in any order."""
        events = self.late + [event for event in self.late if self.random.random() < 0.3]
        self.random.shuffle(events)
        self.late = []
        for event in events:
            await self.cache.record(event)

    async def change(self, what: str, steps: list[Step]) -> list[Step]:
        chosen = self.random.randrange(len(steps))
        made = [place for place in self.objects.found if place.key not in OUTSIDE]
        if what == "code":
            steps = [replace(s, code=(s.code + 1) % 3) if i == chosen else s for i, s in enumerate(steps)]
        elif what == "literal":
            steps = [
                replace(s, literal="b" if s.literal == "a" else "a") if i == chosen else s
                for i, s in enumerate(steps)
            ]
        elif what == "outside":
            self.clock.move(seconds=5)
            self.objects.put(
                self.random.choice(OUTSIDE), f"o{self.random.randrange(3)}".encode(), self.clock.now
            )
        elif what == "delete" and made:
            del self.objects.found[self.random.choice(made)]
        elif what == "overwrite" and made:
            self.clock.move(seconds=5)
            self.objects.put(self.random.choice(made).key, b"damaged", self.clock.now)
        elif what == "invalidate":
            await self.cache.invalidate(
                "p", Selector(run=f"r{self.random.randrange(4)}"), "test", only_count=False
            )
        elif what == "wait":
            self.clock.move(minutes=1)
        return steps


def world(memory_kind, objects_kind, clock_kind, seed: int) -> World:
    memory, objects, clock = memory_kind(), objects_kind(), clock_kind()
    for key in OUTSIDE:
        objects.put(key, b"o0")
    return World(Cache(memory, objects, clock=clock), memory, objects, clock, seed)


@pytest.fixture
def kinds(memory, objects, clock):
    return type(memory), type(objects), type(clock)


@given(steps=workflows(), between=st.lists(changes, min_size=2, max_size=5), seed=st.integers(0, 999))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_served_is_what_would_have_been_made(kinds, steps, between, seed):
    async def history() -> None:
        here, now = world(*kinds, seed), steps
        for number, what in enumerate(between):
            await here.run(f"r{number}", now)
            early = here.random.random() < 0.7
            if early:
                await here.deliver()
            for change in what:
                now = await here.change(change, now)
            if not early:
                await here.deliver()

    asyncio.run(history())


@given(steps=workflows(), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_second_run_of_the_same_executes_only_what_must_always_run(kinds, steps, seed):
    """Else a cache that never hits would pass for a right one."""
    free = [replace(step, policy=Policy()) for step in steps]

    async def history() -> None:
        here = world(*kinds, seed)
        await here.run("r0", free)
        await here.deliver()
        await here.run("r1", free)
        assert here.late == []

    asyncio.run(history())
