"""Runs with a stretch on the local Argo: one gate, one question, one answer, whoever fails meanwhile."""

import asyncio
import random
import uuid
from datetime import timedelta
from typing import Any

import pytest
from dispatcher_harness import WAIT_SECONDS, FinishedRun, Harness
from manifests import ANY_KEYS, PROCESSES, dag, gives, say, sh, shows, task, workflow

from periplus_common.errors import NotFound
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.rewrite.answers import MAX_ANSWER_CHARACTERS
from periplus_dispatcher.service import Dispatcher
from periplus_model.steps import RunPhase, Verdict

Json = dict[str, Any]
NAMES = [f"s{n}" for n in range(1, 11)]


def of(name: str) -> str:
    return "{{tasks." + name + ".outputs.parameters.o}}"


def chain(command: str = "true", names: list[str] = NAMES, leaf: Json | None = None, **spec: Any) -> Json:
    """`up`, and one step behind the other. `command` stands in the first one's: another one makes it run again."""
    up = say("up", "1")
    up["container"]["args"][0] += f"; {command}"
    tasks = [
        task(name, "t", depends=before, given={"x": of(before), "n": name})
        for before, name in zip(["up", *names], names, strict=False)
    ]
    return workflow(
        dag(task("up", "up"), *tasks, outputs=shows(f"tasks.{names[-1]}.outputs.parameters.o")),
        up, leaf or say("t", "$x.", "x", "n"), **spec,
    )  # fmt: skip


async def gates_of(harness: Harness, run: str) -> list[Json]:
    nodes = (await harness.argo.get(run) or {}).get("status", {}).get("nodes") or {}
    return [node for node in nodes.values() if node["type"] == "Suspend"]


async def opened_gate(harness: Harness, run: str) -> Json:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if found := [gate for gate in await gates_of(harness, run) if gate["phase"] == "Running"]:
                return found[0]
            await asyncio.sleep(0.02)


async def waiting(harness: Harness, **more: Any) -> tuple[str, Json]:
    """A run whose stretch waits while no follower runs: its name and its gate."""
    await harness.run(chain(**more))
    await harness.crash()
    name = (await harness.submit(chain("sleep 0", **more))).run.id
    return name, await opened_gate(harness, name)


def of_diamond(command: str = "true") -> Json:
    """`up`, `a`, then `b` and `c` side by side, then a fan-out, `d` and `e`."""
    up = say("up", "1")
    up["container"]["args"][0] += f"; {command}"

    def step(name: str, *before: str, **more: Any) -> Json:
        given = {"x": "".join(map(of, before)), "n": name} | more.pop("given", {})
        return task(name, "t", depends=" && ".join(before), given=given, **more)

    return workflow(
        dag(
            task("up", "up"), step("a", "up"), step("b", "a"), step("c", "a"),
            step("f", "b", "c", withItems=["p", "q"], given={"x": "{{item}}" + of("b") + of("c"), "n": "f"}),
            step("d", "f", "a"), step("e", "d"), outputs=shows("tasks.e.outputs.parameters.o"),
        ),
        up, say("t", "$x$n.", "x", "n"),
    )  # fmt: skip


def forget(harness: Harness, step: str) -> None:
    """Forget the entry of one step of the chain."""
    (key,) = [key for key in harness.cache.entries if f'"n": "{step}"' in key[1]]
    del harness.cache.entries[key]


async def again(harness: Harness, **more: Any) -> FinishedRun:
    """The chain once more, with a first step that runs and gives the same as before."""
    harness.cache.asked.clear()
    return await harness.run(chain(f"# {uuid.uuid4()}", **more))


async def test_a_chain_of_ten_behind_a_miss_has_one_gate_and_one_question(harness: Harness) -> None:
    plain = await harness.run(chain())
    warm = await again(harness)
    assert (warm.ran, warm.cached, warm.output) == ({"up"}, set(NAMES), plain.output)
    assert list(warm.phases) == ["up", *NAMES]
    (gate,) = await gates_of(harness, warm.run.id)
    assert gate["displayName"] == "periplus-gate"
    assert [len(queries) for queries in harness.cache.asked] == [11, 10]
    assert gate["message"] == "10 of 10 steps are hits"
    hits = {event.step: event.producer_run for event in warm.finished if event.step in NAMES}
    assert set(hits.values()) == {"earlier"}


async def test_behind_a_miss_inside_a_stretch_the_next_step_asks_for_all_behind_it(harness: Harness) -> None:
    plain = await harness.run(chain())
    forget(harness, "s4")
    warm = await again(harness)
    assert (warm.ran, warm.output) == ({"up", "s4"}, plain.output)
    assert warm.cached == set(NAMES) - {"s4"}
    assert list(warm.phases) == ["up", *NAMES]
    assert len(await gates_of(harness, warm.run.id)) == 2
    assert [len(queries) for queries in harness.cache.asked] == [11, 10, 6]


async def test_each_miss_inside_a_stretch_costs_one_gate(harness: Harness) -> None:
    plain = await harness.run(chain())
    for name in ("s1", "s5", "s6", "s10"):
        forget(harness, name)
    warm = await again(harness)
    assert (warm.ran, warm.output) == ({"up", "s1", "s5", "s6", "s10"}, plain.output)
    assert warm.cached == set(NAMES) - warm.ran
    assert len(warm.finished) == 11
    # One for the stretch, and those of s2, s6 and s7; s10 is a miss that the gate of s7 knows of.
    assert len(await gates_of(harness, warm.run.id)) == 4


async def test_a_stretch_whose_inputs_are_new_runs(harness: Harness) -> None:
    await harness.run(chain())
    warm = await harness.run(chain("printf 2 > /tmp/o"))
    assert (warm.ran, warm.output) == ({"up", *NAMES}, "2..........")


async def test_a_person_who_resumes_the_gate_of_a_stretch_lets_all_of_it_run(harness: Harness) -> None:
    name, gate = await waiting(harness)
    harness.client.do(name, "resume", nodeFieldSelector=f"id={gate['id']}")
    harness.follow()
    assert (await harness.ended(name)).ran == {"up", *NAMES}


async def test_the_gate_of_a_stretch_that_ends_by_its_timeout_lets_all_of_it_run(harness: Harness) -> None:
    await harness.run(chain())
    planner = Planner(harness.cache, harness.snapshotter, harness.argo, PROCESSES, ANY_KEYS)
    short = Dispatcher(harness.runs, harness.argo, planner, harness.repository, timedelta(seconds=1))
    await harness.crash()
    name = (await short.submit(harness.request(chain("sleep 0")), str(uuid.uuid4()))).run.id
    async with asyncio.timeout(WAIT_SECONDS):
        while not (await harness.argo.get(name) or {})["status"].get("finishedAt"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    harness.follow()
    ended = await harness.ended(name)
    assert (ended.run.phase, ended.ran) == (RunPhase.SUCCEEDED, {"up", *NAMES})


async def test_two_replicas_give_a_stretch_one_answer(harness: Harness) -> None:
    name, gate = await waiting(harness)
    harness.follow()
    harness.follow()
    ended = await harness.ended(name)
    assert (ended.ran, ended.cached) == ({"up"}, set(NAMES))
    assert len(ended.finished) == 11
    answer = (await harness.runs.get_answers(name))[gate["id"]]
    assert {member.verdict.verdict for member in answer.members.values()} == {Verdict.HIT}
    with pytest.raises(NotFound):
        await harness.argo.answer_gate(name, gate["id"], answer.parameters, "again")


async def test_the_stored_answer_of_a_stretch_is_sent_after_a_crash(harness: Harness) -> None:
    name, _ = await waiting(harness)
    harness.follow()
    await harness.ended(name)
    (answer,) = (await harness.runs.get_answers(name)).values()
    await harness.crash()
    other = (await harness.submit(chain("sleep 0.0"))).run.id
    waits = await opened_gate(harness, other)
    await harness.runs.add_answers(other, {waits["id"]: answer})
    harness.cache.entries.clear()
    harness.follow()
    assert (await harness.ended(other)).cached == set(NAMES)


async def test_without_the_cache_all_of_a_stretch_runs(harness: Harness) -> None:
    name, gate = await waiting(harness)
    harness.cache.is_unreachable = True
    harness.follow()
    ended = await harness.ended(name)
    assert ended.ran == {"up", *NAMES}
    answer = (await harness.runs.get_answers(name))[gate["id"]]
    assert {m.verdict.reason for m in answer.members.values()} == {"the cache could not be reached"}


async def test_an_answer_that_would_be_too_large_leaves_the_rest_to_further_gates(harness: Harness) -> None:
    leaf = sh("t", "head -c 30000 /dev/zero | tr '\\0' x > /tmp/o; : $x", "n", outputs=gives("o"))
    leaf["inputs"]["parameters"].append({"name": "x", "value": ""})
    plain = await harness.run(chain(leaf=leaf, names=NAMES[:5]))
    warm = await again(harness, leaf=leaf, names=NAMES[:5])
    assert (warm.ran, warm.output) == ({"up"}, plain.output)
    answers = (await harness.runs.get_answers(warm.run.id)).values()
    assert len(answers) > 1
    assert all(sum(map(len, a.parameters.values())) < MAX_ANSWER_CHARACTERS for a in answers)


@pytest.mark.parametrize(
    ("missing", "gates"),
    [("", 1), ("a", 4), ("b", 2), ("bc", 2), ("f", 2), ("d", 2), ("e", 1), ("abcde", 5)],
)
async def test_a_diamond_with_a_fan_out_has_few_gates(harness: Harness, missing: str, gates: int) -> None:
    plain = await harness.run(of_diamond())
    for name in missing:
        for key in [key for key in harness.cache.entries if f'"n": "{name}"' in key[1]]:
            del harness.cache.entries[key]
    warm = await harness.run(of_diamond("sleep 0"))
    assert warm.output == plain.output
    ran = {"up", *missing} | ({"f(0)", "f(1)"} if "f" in missing else set())
    assert warm.ran == ran - {"f"}
    assert warm.ran | warm.cached == plain.ran
    assert len(warm.finished) == len(plain.finished)
    assert len(await gates_of(harness, warm.run.id)) <= gates


async def test_a_failed_run_with_a_stretch_is_retried_without_asking_again(harness: Harness) -> None:
    """`argo retry`: what succeeded stays, also the gate, and the failed member runs again."""
    leaf = sh("t", 'printf %s "$x." > /tmp/o; test "$n" != s3', "x", "n", outputs=gives("o"))
    names = NAMES[:3]
    assert (await harness.run(chain(names=names, leaf=leaf))).run.phase is RunPhase.FAILED
    warm = await again(harness, names=names, leaf=leaf)
    assert warm.phases == {"up": "succeeded", "s1": "cached", "s2": "cached", "s3": "failed"}
    (gate,) = await gates_of(harness, warm.run.id)
    harness.client.do(warm.run.id, "retry")
    async with asyncio.timeout(WAIT_SECONDS):
        while (await harness.argo.get(warm.run.id) or {})["status"]["phase"] != "Failed":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [await gates_of(harness, warm.run.id)] == [[gate]]


def random_dag(draw: random.Random, command: str) -> Json:
    """Up to ten steps behind two that run again with each command, some with conditions or items."""
    tasks, names = [task("up", "up"), task("up2", "up")], ["up", "up2"]
    for number in range(draw.randint(3, 10)):
        name, before = f"s{number}", draw.sample(names, min(len(names), draw.randint(1, 3)))
        more: Json = {"given": {"x": "".join(map(of, before)), "n": name}, "depends": " && ".join(before)}
        if draw.random() < 0.2:
            more["withItems"] = ["p", "q"]
            more["given"]["x"] += "{{item}}"
        elif draw.random() < 0.1:
            more["when"] = f"'{of(before[0])}' == 'never'"
        if more.get("when") is None:
            names.append(name)
        tasks.append(task(name, "t", **more))
    up = say("up", "1")
    up["container"]["args"][0] += f"; {command}"
    text = "".join(map(of, names))
    last = task("end", "t", depends=" && ".join(names), given={"x": text, "n": "end"})
    return workflow(
        dag(*tasks, last, outputs=shows("tasks.end.outputs.parameters.o")), up, say("t", "$n($x)", "x", "n")
    )


@pytest.mark.parametrize("seed", range(8))
async def test_a_random_dag_has_the_same_outputs_whatever_the_cache_holds(
    harness: Harness, seed: int
) -> None:
    plain = await harness.run(random_dag(random.Random(seed), "true"))
    entries = harness.cache.entries
    draw = random.Random(seed + 100)
    for number, share in enumerate((1.0, 0.8, 0.5)):
        kept = draw.sample(sorted(entries), round(len(entries) * share))
        harness.cache.entries = {key: entries[key] for key in kept}
        warm = await harness.run(random_dag(random.Random(seed), f"sleep 0.{number}"))
        assert (warm.run.phase, warm.run.outputs) == (plain.run.phase, plain.run.outputs)
        assert len(warm.finished) == len(plain.finished)
        shown = {path: "succeeded" if phase == "cached" else phase for path, phase in warm.phases.items()}
        assert shown == plain.phases
        if share == 1.0:
            assert warm.ran == {"up", "up2"}
