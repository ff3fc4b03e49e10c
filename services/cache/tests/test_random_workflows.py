"""Random workflows that run repeatedly through the cache: every hit has the outputs that the step would have written.

Steps are pure functions of what their key should cover. Between runs, code, inputs and external objects change, objects
are deleted and overwritten, entries are invalidated, and events are delivered late, twice and in any order.
"""

import asyncio
import hashlib
import json
import random
from dataclasses import dataclass, replace
from datetime import timedelta

from cache_memory import Clock, MemoryObjectStore, MemoryStore
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus_cache.domain import EntrySelector
from periplus_cache.record.finished import FinishedStep
from periplus_cache.resolve.request import ResolveRequest
from periplus_cache.service import Cache
from periplus_model.queries import Item, Literal, OutputRef, StepQuery
from periplus_model.steps import (
    Artifact,
    CacheMode,
    CachePolicy,
    Inputs,
    ObjectRef,
    Outputs,
    StepPhase,
    StepTemplate,
    Verdict,
)

EXTERNAL_KEYS = ("out/0", "out/1")


@dataclass(frozen=True)
class Step:
    """A step of a random workflow. `code` stands for its source; the other steps are indices of earlier ones."""

    code: int
    literal: str
    parameter_of: int | None  # the parameter y of this step
    result_of: int | None  # the result of this step
    artifact: int | str | None  # the artifact of this step, or an external object
    items: int | str | None  # a fan-out over this step's list, or over this literal
    policy: CachePolicy


policies = st.sampled_from(
    [CachePolicy()] * 6
    + [
        CachePolicy(CacheMode.OFF),
        CachePolicy(CacheMode.READ),
        CachePolicy(CacheMode.WRITE),
        CachePolicy(CacheMode.REFRESH),
    ]
    + [CachePolicy(ttl=timedelta(seconds=30)), CachePolicy(side_effects=True)]
)


@st.composite
def workflows(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for index in range(draw(st.integers(1, 6))):
        earlier = st.none() if not index else st.none() | st.integers(0, index - 1)
        single = [i for i, step in enumerate(steps) if step.items is None]
        steps.append(
            Step(
                draw(st.integers(0, 2)),
                draw(st.sampled_from(["a", "b"])),
                draw(earlier),
                draw(earlier),
                draw(st.sampled_from([None, *EXTERNAL_KEYS, *single])),
                draw(st.sampled_from([None, None, '["p","q"]', "[]", *single])),
                draw(policies),
            )
        )
    return steps


changes = st.lists(
    st.sampled_from(["code", "literal", "external", "delete", "overwrite", "invalidate", "wait", "nothing"]),
    min_size=1,
    max_size=3,
)


class World:
    """Runs workflows through the cache, executes the steps that are no hits, and compares hits with their expected outputs."""

    def __init__(self, cache: Cache, memory, objects, clock, seed: int) -> None:
        self.cache, self.memory, self.objects, self.clock = cache, memory, objects, clock
        self.random = random.Random(seed)
        self.undelivered: list[FinishedStep] = []
        self.hits = 0

    def execute(self, step: Step, inputs: Inputs) -> tuple[dict[str, str], str, bytes]:
        """The outputs of a step: a function of its code and its inputs with few values, so that equal ones are frequent."""
        content = {a.name: self.objects.objects[a.object][0].decode() for a in inputs.artifacts}
        key = json.dumps([step.code, sorted(inputs.parameters.items()), sorted(content.items())])
        number = int(hashlib.sha256(key.encode()).hexdigest(), 16)
        items = json.dumps([f"i{n}" for n in range(number % 3)], separators=(",", ":"))
        return {"y": f"y{number % 2}", "list": items}, f"r{number % 3}", f"m{number % 5}".encode()

    async def run(self, name: str, steps: list[Step]) -> None:
        request = self.request(steps)
        verdicts = await self.cache.resolve(request)
        outputs: list[Outputs] = []
        for index, (step, query, verdict) in enumerate(zip(steps, request.steps, verdicts, strict=True)):
            if step.items is None:
                inputs = self.inputs(step, outputs, "")
                outputs.append(await self.one(name, f"s{index}", step, query, inputs, verdict))
                continue
            items = json.loads(
                outputs[step.items].parameters["list"] if isinstance(step.items, int) else step.items
            )
            item_verdicts = verdict.items or [None] * len(items)
            if verdict.items_json:
                assert json.loads(verdict.items_json) == items
            each = [
                await self.one(
                    name, f"s{index}({i})", step, query, self.inputs(step, outputs, item), item_verdict
                )
                for i, (item, item_verdict) in enumerate(zip(items, item_verdicts, strict=True))
            ]
            joined = {
                "y": json.dumps([o.parameters["y"] for o in each], separators=(",", ":")),
                "list": json.dumps([json.loads(o.parameters["list"]) for o in each], separators=(",", ":")),
            }
            result = json.dumps([o.result for o in each], separators=(",", ":"))
            outputs.append(Outputs(joined, (), result))
            if verdict.verdict is Verdict.HIT and items:
                assert (verdict.outputs.parameters, verdict.outputs.result) == (joined, result)

    async def one(self, run, path, step, query, inputs, verdict) -> Outputs:
        if verdict is None or verdict.verdict is Verdict.UNKNOWN:
            verdict = await self.gate(step, inputs)
        values, result, content = self.execute(step, inputs)
        if verdict.verdict is Verdict.HIT:
            self.hits += 1
            served = verdict.outputs
            assert (served.parameters, served.result) == (values, result)
            assert self.objects.objects[served.artifact("m").object][0] == content
            return served
        ref = self.objects.put(f"{run}/{path}/m", content, self.clock.now)
        outputs = Outputs(values, (Artifact("m", ref),), result, 0)
        template = StepTemplate("t", json.dumps({"code": step.code}), step.policy)
        started, ended = self.clock.now, self.clock.now + timedelta(seconds=1)
        self.undelivered.append(
            FinishedStep(
                "p",
                run,
                path,
                template,
                StepPhase.SUCCEEDED,
                verdict.verdict,
                inputs,
                outputs,
                started,
                ended,
            )
        )
        self.clock.move(seconds=2)
        return outputs

    async def gate(self, step: Step, inputs: Inputs):
        """The verdict of a step whose inputs were not known at the start."""
        query = StepQuery(
            "gate",
            "t",
            {n: (Literal(v),) for n, v in inputs.parameters.items()},
            {a.name: a.object for a in inputs.artifacts},
        )
        template = StepTemplate("t", json.dumps({"code": step.code}), step.policy)
        return (await self.cache.resolve(ResolveRequest("p", {"t": template}, (query,))))[0]

    def request(self, steps: list[Step]) -> ResolveRequest:
        templates = {
            f"t{i}": StepTemplate(f"t{i}", json.dumps({"code": step.code}), step.policy)
            for i, step in enumerate(steps)
        }
        queries = []
        for i, step in enumerate(steps):
            parameters = {"literal": (Literal(step.literal),)}
            if step.parameter_of is not None:
                parameters["reads"] = (Literal("<"), OutputRef(f"s{step.parameter_of}", "y"))
            if step.result_of is not None:
                parameters["says"] = (OutputRef(f"s{step.result_of}", "", result=True),)
            if step.items is not None:
                parameters["item"] = (Item(),)
            artifacts = {}
            if isinstance(step.artifact, int):
                artifacts["a"] = OutputRef(f"s{step.artifact}", "m")
            elif step.artifact:
                artifacts["a"] = ObjectRef(step.artifact)
            items = None
            if step.items is not None:
                source = step.items
                items = (OutputRef(f"s{source}", "list") if isinstance(source, int) else Literal(source),)
            queries.append(StepQuery(f"s{i}", f"t{i}", parameters, artifacts, items))
        return ResolveRequest("p", templates, tuple(queries))

    def inputs(self, step: Step, outputs: list[Outputs], item: str) -> Inputs:
        parameters = {"literal": step.literal}
        if step.parameter_of is not None:
            parameters["reads"] = "<" + outputs[step.parameter_of].parameters["y"]
        if step.result_of is not None:
            parameters["says"] = outputs[step.result_of].result
        if step.items is not None:
            parameters["item"] = item
        artifacts = []
        if isinstance(step.artifact, int):
            artifacts.append(Artifact("a", outputs[step.artifact].artifact("m").object))
        elif step.artifact:
            artifacts.append(Artifact("a", ObjectRef(step.artifact)))
        return Inputs(parameters, tuple(artifacts))

    async def deliver(self) -> None:
        """Deliver every event at least once, in any order."""
        events = self.undelivered + [event for event in self.undelivered if self.random.random() < 0.3]
        self.random.shuffle(events)
        self.undelivered = []
        for event in events:
            await self.cache.record(event)

    async def change(self, what: str, steps: list[Step]) -> list[Step]:
        chosen = self.random.randrange(len(steps))
        written = [ref for ref in self.objects.objects if ref.key not in EXTERNAL_KEYS]
        if what == "code":
            steps = [replace(s, code=(s.code + 1) % 3) if i == chosen else s for i, s in enumerate(steps)]
        elif what == "literal":
            steps = [
                replace(s, literal="b" if s.literal == "a" else "a") if i == chosen else s
                for i, s in enumerate(steps)
            ]
        elif what == "external":
            self.clock.move(seconds=5)
            self.objects.put(
                self.random.choice(EXTERNAL_KEYS), f"o{self.random.randrange(3)}".encode(), self.clock.now
            )
        elif what == "delete" and written:
            del self.objects.objects[self.random.choice(written)]
        elif what == "overwrite" and written:
            self.clock.move(seconds=5)
            self.objects.put(self.random.choice(written).key, b"damaged", self.clock.now)
        elif what == "invalidate":
            await self.cache.invalidate(
                "p", EntrySelector(producer_run=f"r{self.random.randrange(4)}"), "test"
            )
        elif what == "wait":
            self.clock.move(minutes=1)
        return steps


def new_world(seed: int) -> World:
    memory, objects, clock = MemoryStore(), MemoryObjectStore(), Clock()
    for key in EXTERNAL_KEYS:
        objects.put(key, b"o0")
    return World(Cache(memory, objects, clock=clock), memory, objects, clock, seed)


@given(steps=workflows(), between=st.lists(changes, min_size=2, max_size=5), seed=st.integers(0, 999))
@settings(max_examples=120, deadline=None)
def test_hits_have_the_outputs_that_the_step_would_have_written(steps, between, seed):
    async def history() -> None:
        world, now = new_world(seed), steps
        for number, changes_now in enumerate(between):
            await world.run(f"r{number}", now)
            delivered_first = world.random.random() < 0.7
            if delivered_first:
                await world.deliver()
            for change in changes_now:
                now = await world.change(change, now)
            if not delivered_first:
                await world.deliver()

    asyncio.run(history())


@given(steps=workflows(), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_a_second_run_of_the_same_workflow_executes_nothing(steps, seed):
    """A cache without any hit would pass the test above."""
    cacheable = [replace(step, policy=CachePolicy()) for step in steps]

    async def history() -> None:
        world = new_world(seed)
        await world.run("r0", cacheable)
        await world.deliver()
        await world.run("r1", cacheable)
        assert world.undelivered == []

    asyncio.run(history())
