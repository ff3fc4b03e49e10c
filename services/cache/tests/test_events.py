"""Events in and out, on a running service with real NATS, Postgres and S3."""

import asyncio
import secrets

from cache_service import (
    Service,
    literal,
    output,
    parameters,
    query,
)

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1 import events_pb2 as out
from periplus.types.v1 import step_pb2 as types
from periplus_common import blobs


async def test_finished_steps_become_hits(service: Service):
    await service.publish(
        service.finished(
            "main.list", "list", outputs=types.Outputs(parameters=parameters(items='["a","b"]'), result="text", exit_code=0)
        ),
        *(
            service.finished(
                f"main.work({i})", "work",
                inputs=types.Inputs(parameters=parameters(x=x)), outputs=types.Outputs(parameters=parameters(y=x + "!")),
            )
            for i, x in enumerate("ab")
        ),
        service.finished("main.join", "join", inputs=types.Inputs(parameters=parameters(all='["a!","b!"]'))),
    )  # fmt: skip
    listed, work, join = await service.until_all_hit(
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


async def test_artifacts_are_digested_published_and_verified(service: Service):
    key = f"cache-test/{secrets.token_hex(6)}/model.tgz"
    await service.store.put(blobs.ObjectRef(key), b"weights")
    model = types.Artifact(name="model", object=types.ObjectRef(key=key))
    jetstream = service.broker.connection.jetstream()
    subscription = await jetstream.subscribe(
        f"periplus.cache.v1.ArtifactsDigested.{service.project}.*", stream="CACHE", ordered_consumer=True
    )
    await service.publish(
        service.finished("main.make", "make", outputs=types.Outputs(artifacts=[model])),
        service.finished("main.use", "use", inputs=types.Inputs(artifacts=[model])),
    )
    reads = pb.ArtifactSource(name="model", output=pb.OutputRef(step="make", name="model"))
    use = pb.StepQuery(id="use", template="use", artifacts=[reads])
    produced, _ = await service.until_all_hit(query("make", "make"), use)
    (artifact,) = produced.outputs.artifacts
    assert artifact.object == types.ObjectRef(key=key)
    assert artifact.digest.startswith("sha256:")
    assert artifact.size_bytes == 7
    events = [
        out.ArtifactsDigested.FromString((await subscription.next_msg(timeout=60)).data) for _ in range(2)
    ]
    assert sorted((e.step, len(e.inputs), len(e.outputs)) for e in events) == [
        ("main.make", 0, 1),
        ("main.use", 1, 0),
    ]
    assert {a.digest for e in events for a in (*e.inputs, *e.outputs)} == {artifact.digest}

    await service.store.put(blobs.ObjectRef(key), b"tampered")
    produced, _ = await service.resolve(query("make", "make"), use)
    assert produced.verdict == types.VERDICT_MISS
    entry = (
        await service.stub.GetEntry(
            pb.GetEntryRequest(project=service.project, fingerprint=produced.fingerprint)
        )
    ).entry
    assert entry.invalidation_reason == "bytes were changed"


async def test_values_may_contain_any_character(service: Service):
    text = "a\0b\u2028 é 🚢 \"\\' {{x}} %s"
    inputs, outputs = parameters(x=text), parameters(y=text)
    await service.publish(
        service.finished(
            "main.a", "a", inputs=types.Inputs(parameters=inputs), outputs=types.Outputs(parameters=outputs)
        )
    )
    (found,) = await service.until_all_hit(query("s", "a", x=literal(text)))
    assert found.outputs.parameters[0].value == text


async def test_events_that_are_delivered_repeatedly_and_out_of_order_have_one_effect(service: Service):
    step = service.finished("main.a", "a", inputs=types.Inputs(parameters=parameters(c="1")))
    hit = service.finished(
        "main.a", "a", "r2", phase=types.STEP_PHASE_CACHED, fingerprint="sha256:" + "1" * 64
    )
    await service.publish(*[hit, step] * 10)
    (found,) = await service.until_all_hit(query("s", "a", c=literal("1")))
    await service.publish(*[step, hit] * 10)
    savings = await service.until_a_hit_is_counted()
    assert savings.hits == 1
    assert found.producer_run == "r1"


async def test_an_invalid_event_becomes_a_dead_letter_and_delays_no_other(service: Service):
    jetstream = service.broker.connection.jetstream()
    dead = await jetstream.subscribe("periplus-dead.cache", stream="DEAD", ordered_consumer=True)
    bad = service.finished("main.bad", "a", template=types.StepTemplate(name="a", document='{"x": NaN}'))
    await service.publish(bad, service.finished("main.a", "a"))
    await service.until_all_hit(query("s", "a"))
    async with asyncio.timeout(60):
        while True:
            message = await dead.next_msg(timeout=60)
            if service.project in message.headers["ce-subject"]:
                break
    assert "NaN" in message.headers["periplus-reason"]
