"""The service as the dispatcher's events have it, on real servers."""

import asyncio
import secrets

from cache_served import (
    Served,
    literal,
    output,
    parameters,
    query,
)

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1 import events_pb2 as out
from periplus.types.v1 import step_pb2 as types
from periplus_common import blobs


async def test_what_the_dispatcher_tells_is_what_a_plan_finds(served: Served):
    await served.tell(
        served.finished(
            "main.list", "list", outputs=types.Outputs(parameters=parameters(items='["a","b"]'), result="text", exit_code=0)
        ),
        *(
            served.finished(
                f"main.work({i})", "work",
                inputs=types.Inputs(parameters=parameters(x=x)), outputs=types.Outputs(parameters=parameters(y=x + "!")),
            )
            for i, x in enumerate("ab")
        ),
        served.finished("main.join", "join", inputs=types.Inputs(parameters=parameters(all='["a!","b!"]'))),
    )  # fmt: skip
    listed, work, join = await served.until_hit(
        query("list", "list"),
        query("work", "work", output("list", "items"), x=pb.TextPart(item="")),
        query("join", "join", all=output("work", "y")),
    )
    assert (listed.producer_run, listed.producer_step, listed.saved.seconds) == ("r1", "main.list", 60)
    assert (listed.outputs.result, listed.outputs.exit_code) == ("text", 0)
    assert listed.outputs.HasField("exit_code")
    assert [(item.id, item.producer_step) for item in work.items] == [
        ("work(0)", "main.work(0)"),
        ("work(1)", "main.work(1)"),
    ]
    assert work.items_json == '["a","b"]'
    assert work.outputs.parameters[0].value == '["a!","b!"]'
    assert work.saved.seconds == 120
    assert not join.outputs.HasField("result")


async def test_artifacts_are_digested_told_and_verified(served: Served):
    key = f"cache-test/{secrets.token_hex(6)}/model.tgz"
    await served.store.put(blobs.Place(key), b"weights")
    model = types.Artifact(name="model", object=types.ObjectRef(key=key))
    jetstream = (await served.link.client()).jetstream()
    heard = await jetstream.subscribe(
        f"periplus.cache.v1.ArtifactsDigested.{served.project}.*", stream="CACHE", ordered_consumer=True
    )
    await served.tell(
        served.finished("main.make", "make", outputs=types.Outputs(artifacts=[model])),
        served.finished("main.use", "use", inputs=types.Inputs(artifacts=[model])),
    )
    reads = pb.ArtifactSource(name="model", output=pb.OutputRef(step="make", name="model"))
    use = pb.StepQuery(id="use", template="use", artifacts=[reads])
    made, _ = await served.until_hit(query("make", "make"), use)
    (artifact,) = made.outputs.artifacts
    assert artifact.object == types.ObjectRef(key=key)
    assert artifact.digest.startswith("sha256:")
    assert artifact.size_bytes == 7
    told = [out.ArtifactsDigested.FromString((await heard.next_msg(timeout=10)).data) for _ in range(2)]
    assert sorted((e.step, len(e.inputs), len(e.outputs)) for e in told) == [
        ("main.make", 0, 1),
        ("main.use", 1, 0),
    ]
    assert {a.digest for e in told for a in (*e.inputs, *e.outputs)} == {artifact.digest}

    await served.store.put(blobs.Place(key), b"tampered")
    made, _ = await served.resolve(query("make", "make"), use)
    assert made.verdict == types.VERDICT_MISS
    entry = (
        await served.stub.GetEntry(pb.GetEntryRequest(project=served.project, fingerprint=made.fingerprint))
    ).entry
    assert entry.invalidation_reason == "bytes were changed"


async def test_values_with_every_character_survive(served: Served):
    strange = "a\0b\u2028 é 🚢 \"\\' {{x}} %s"
    inputs, outputs = parameters(x=strange), parameters(y=strange)
    await served.tell(
        served.finished(
            "main.a", "a", inputs=types.Inputs(parameters=inputs), outputs=types.Outputs(parameters=outputs)
        )
    )
    (found,) = await served.until_hit(query("s", "a", x=literal(strange)))
    assert found.outputs.parameters[0].value == strange


async def test_messages_that_come_often_and_late_have_one_effect(served: Served):
    step = served.finished("main.a", "a", inputs=types.Inputs(parameters=parameters(c="1")))
    hit = served.finished(
        "main.a", "a", "r2", phase=types.STEP_PHASE_CACHED, fingerprint="sha256:" + "1" * 64
    )
    await served.tell(*[hit, step] * 10)
    (found,) = await served.until_hit(query("s", "a", c=literal("1")))
    await served.tell(*[step, hit] * 10)
    savings = await served.until_saved()
    assert savings.hits == 1
    assert found.producer_run == "r1"


async def test_a_message_that_makes_no_sense_is_dead_and_holds_nothing_up(served: Served):
    jetstream = (await served.link.client()).jetstream()
    dead = await jetstream.subscribe("periplus-dead.cache", stream="DEAD", ordered_consumer=True)
    bad = served.finished("main.bad", "a", template=types.StepTemplate(name="a", document='{"x": NaN}'))
    await served.tell(bad, served.finished("main.a", "a"))
    await served.until_hit(query("s", "a"))
    async with asyncio.timeout(15):
        while True:
            message = await dead.next_msg(timeout=15)
            if served.project in message.headers["ce-subject"]:
                break
    assert "NaN" in message.headers["periplus-reason"]
