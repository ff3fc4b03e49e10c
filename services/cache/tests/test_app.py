"""The whole service in process, on real NATS, Postgres and S3."""

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1 import events_pb2 as out
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.dispatcher.v1 import events_pb2 as dispatcher
from periplus.types.v1 import step_pb2 as types
from periplus_cache.app import app
from periplus_cache.settings import Settings
from periplus_common import blobs, bus, rpc
from periplus_common.errors import Invalid, NotFound, PeriplusError, Unauthenticated
from periplus_local.stack.testing import Servers

TOKEN = "secret"
NOW = datetime.now(UTC)
LATER = NOW + timedelta(minutes=10)  # as the objects of these tests are written after NOW


def settings(embedded: Servers, dsn: str, **more: Any) -> Settings:
    s3 = embedded.s3
    return Settings(
        **{
            "postgres_dsn": dsn, "nats_url": embedded.service_nats_urls["cache"], "grpc_address": "127.0.0.1:0", "token": TOKEN,
            "s3_endpoint": s3.endpoint, "s3_access_key": s3.access_key, "s3_secret_key": s3.secret_key,
            "s3_bucket": s3.bucket,
        } | more
    )  # fmt: skip


@dataclass
class Served:
    """A running service, a client of it, and a link on which to tell it things."""

    stub: CacheServiceStub
    link: bus.Link
    store: blobs.Blobs
    project: str

    async def tell(self, *events: dispatcher.StepFinished) -> None:
        await self.link.publish(
            [
                bus.event(e, project=e.project, run=e.run, key=e.step + secrets.token_hex(4), at=NOW)
                for e in events
            ]
        )

    async def resolve(self, *steps: pb.StepQuery) -> list[pb.StepVerdict]:
        templates = {step.template: template(step.template) for step in steps}
        request = pb.ResolveStepsRequest(project=self.project, run="asks", templates=templates, steps=steps)
        return list((await self.stub.ResolveSteps(request)).verdicts)

    async def until_hit(self, *steps: pb.StepQuery) -> list[pb.StepVerdict]:
        async with asyncio.timeout(20):
            while True:
                found = await self.resolve(*steps)
                if all(v.verdict == types.VERDICT_HIT for v in found):
                    return found
                await asyncio.sleep(0.05)

    async def until_saved(self) -> pb.GetSavingsResponse:
        async with asyncio.timeout(20):
            while True:
                savings = await self.stub.GetSavings(pb.GetSavingsRequest(project=self.project))
                if savings.hits:
                    return savings
                await asyncio.sleep(0.05)

    def finished(self, step: str, kind: str, run: str = "r1", **more: Any) -> dispatcher.StepFinished:
        return dispatcher.StepFinished(
            **{
                "project": self.project, "run": run, "step": step, "template": template(kind),
                "phase": types.STEP_PHASE_SUCCEEDED, "verdict": types.VERDICT_MISS,
                "started_at": stamp(LATER - timedelta(seconds=60)), "finished_at": stamp(LATER),
            } | more
        )  # fmt: skip


@asynccontextmanager
async def running(given: Settings, nats_url: str) -> AsyncIterator[Served]:
    async with (
        app(given) as port,
        rpc.channel(f"127.0.0.1:{port}", TOKEN) as channel,
        bus.link(nats_url) as link,
    ):
        store = blobs.connect(given)
        yield Served(CacheServiceStub(channel), link, store, f"p-{secrets.token_hex(4)}")
        store.close()


@pytest.fixture
async def served(embedded: Servers, dsn: str) -> AsyncIterator[Served]:
    async with running(settings(embedded, dsn), embedded.nats_url) as opened:
        yield opened


def template(kind: str) -> types.StepTemplate:
    return types.StepTemplate(name=kind, document=json.dumps({"does": kind}))


def stamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message


def parameters(**values: str) -> list[types.Parameter]:
    return [types.Parameter(name=name, value=value) for name, value in values.items()]


def query(id_: str, kind: str, items: pb.Part | None = None, **values: pb.Part) -> pb.StepQuery:
    return pb.StepQuery(
        id=id_,
        template=kind,
        parameters=[pb.ParameterSource(name=n, value=pb.Text(parts=[part])) for n, part in values.items()],
        items=None if items is None else pb.Text(parts=[items]),
    )


def literal(text: str) -> pb.Part:
    return pb.Part(literal=text)


def output(step: str, name: str) -> pb.Part:
    return pb.Part(output=pb.OutputRef(step=step, name=name))


async def failing(call: Any) -> PeriplusError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc.from_status(caught.value)


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
        query("work", "work", output("list", "items"), x=pb.Part(item="")),
        query("join", "join", all=output("work", "y")),
    )
    assert (listed.run, listed.step, listed.saved.seconds) == ("r1", "main.list", 60)
    assert (listed.outputs.result, listed.outputs.exit_code) == ("text", 0)
    assert listed.outputs.HasField("exit_code")
    assert [(item.id, item.step) for item in work.items] == [
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
    assert entry.buried == "bytes were changed"


async def test_an_entry_is_shown_explained_counted_and_withdrawn(served: Served):
    inputs = types.Inputs(parameters=parameters(c="0.1"))
    await served.tell(served.finished("main.a", "a", inputs=inputs))
    (hit,) = await served.until_hit(query("s", "a", c=literal("0.1")))
    other = types.Inputs(parameters=parameters(c="0.5"))
    later = stamp(LATER + timedelta(seconds=1))
    await served.tell(
        served.finished("main.a", "a", "r2", inputs=other, finished_at=later),
        served.finished(
            "main.a", "a", "r3", phase=types.STEP_PHASE_CACHED, fingerprint=hit.fingerprint, from_run="r1",
            from_step="main.a", saved=Duration(seconds=60), finished_at=later,
        ),
    )  # fmt: skip
    await served.until_hit(query("s", "a", c=literal("0.5")))
    p = served.project
    why = await served.stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r2", step="main.a"))
    assert [(c.field, c.old, c.new) for c in why.changes] == [("inputs.parameters.c", "0.1", "0.5")]
    assert (why.reason, why.nearest_run, why.hit) == ("c was 0.1 and is 0.5", "r1", False)
    assert why.nearest_fingerprint == hit.fingerprint
    assert why.nearest_recorded_at == stamp(LATER)
    savings = await served.until_saved()
    assert (savings.hits, savings.saved.seconds) == (1, 60)
    why = await served.stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r3", step="main.a"))
    assert (why.hit, why.nearest_run) == (True, "r1")

    entry = (await served.stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint=hit.fingerprint))).entry
    key = json.loads(entry.key)
    assert (key["template"], key["parameters"], key["project"]) == ({"does": "a"}, {"c": "0.1"}, p)
    assert (entry.hits, entry.run, entry.template, entry.duration.seconds) == (1, "r1", "a", 60)

    ask = pb.InvalidateEntriesRequest(
        project=p, fingerprints=[hit.fingerprint], reason="bad", validate_only=True
    )
    assert (await served.stub.InvalidateEntries(ask)).count == 1
    ask.validate_only = False
    assert (await served.stub.InvalidateEntries(ask)).count == 1
    assert (await served.stub.InvalidateEntries(ask)).count == 0
    (found,) = await served.resolve(query("s", "a", c=literal("0.1")))
    assert found.verdict == types.VERDICT_MISS


async def test_what_is_asked_wrongly_is_told_with_the_field(served: Served):
    p, sha = served.project, "sha256:" + "0" * 64
    stub = served.stub
    error = await failing(stub.ResolveSteps(pb.ResolveStepsRequest(project="No Such")))
    assert (type(error), error.field) == (Invalid, "project")
    error = await failing(stub.ResolveSteps(pb.ResolveStepsRequest(project=p, steps=[query("s", "a")])))
    assert (type(error), error.field, error.reason) == (Invalid, "steps[0].template", "TEMPLATE_UNKNOWN")
    nan = types.StepTemplate(name="a", document='{"x": NaN}')
    error = await failing(stub.ResolveSteps(pb.ResolveStepsRequest(project=p, templates={"a": nan})))
    assert (type(error), error.field) == (Invalid, 'templates["a"].document')
    error = await failing(stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint="sha256:1")))
    assert (type(error), error.field) == (Invalid, "fingerprint")
    assert type(await failing(stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint=sha)))) is NotFound
    error = await failing(stub.InvalidateEntries(pb.InvalidateEntriesRequest(project=p, reason="x")))
    assert (type(error), error.reason) == (Invalid, "SELECTOR_MISSING")
    error = await failing(stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r", step="s")))
    assert (type(error), error.reason) == (NotFound, "STEP_NOT_RECORDED")
    for ask in (
        stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r\0", step="s")),
        stub.GetSavings(pb.GetSavingsRequest(project=p, run="\0")),
        stub.InvalidateEntries(pb.InvalidateEntriesRequest(project=p, template="\0", reason="x")),
    ):
        assert type(await failing(ask)) is Invalid


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
    assert found.run == "r1"


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


async def test_without_a_token_nothing_is_answered(embedded: Servers, dsn: str):
    async with app(settings(embedded, dsn)) as port, rpc.channel(f"127.0.0.1:{port}", "guess") as channel:
        call = CacheServiceStub(channel).GetSavings(pb.GetSavingsRequest(project="p"))
        assert type(await failing(call)) is Unauthenticated


async def test_plans_are_answered_while_nats_is_away(embedded: Servers, dsn: str):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"nats://127.0.0.1:{closed.getsockname()[1]}"
        async with (
            app(settings(embedded, dsn, nats_url=away)) as port,
            rpc.channel(f"127.0.0.1:{port}", TOKEN) as channel,
        ):
            request = pb.ResolveStepsRequest(
                project="p", templates={"a": template("a")}, steps=[query("s", "a")]
            )
            answer = await CacheServiceStub(channel).ResolveSteps(request)
    assert answer.verdicts[0].verdict == types.VERDICT_MISS


async def test_a_new_process_goes_on_with_the_record(embedded: Servers, dsn: str):
    given = settings(embedded, dsn)
    async with running(given, embedded.nats_url) as first:
        await first.tell(first.finished("main.a", "a"))
        await first.until_hit(query("s", "a"))
    async with running(given, embedded.nats_url) as second:
        second.project = first.project
        (found,) = await second.resolve(query("s", "a"))
    assert found.verdict == types.VERDICT_HIT
