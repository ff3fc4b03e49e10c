"""The service as its callers have it, on real servers."""

import json
import socket
from datetime import timedelta

from cache_served import (
    LATER,
    TOKEN,
    Served,
    failing,
    literal,
    parameters,
    query,
    running,
    settings,
    stamp,
    template,
)
from google.protobuf.duration_pb2 import Duration

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.types.v1 import step_pb2 as types
from periplus_cache.app import app
from periplus_common import rpc
from periplus_common.errors import Invalid, NotFound, Unauthenticated
from periplus_local.stack.testing import Servers


async def test_an_entry_is_shown_explained_counted_and_withdrawn(served: Served):
    inputs = types.Inputs(parameters=parameters(c="0.1"))
    await served.tell(served.finished("main.a", "a", inputs=inputs))
    (hit,) = await served.until_hit(query("s", "a", c=literal("0.1")))
    other = types.Inputs(parameters=parameters(c="0.5"))
    later = stamp(LATER + timedelta(seconds=1))
    await served.tell(
        served.finished("main.a", "a", "r2", inputs=other, finished_at=later),
        served.finished(
            "main.a", "a", "r3", phase=types.STEP_PHASE_CACHED, fingerprint=hit.fingerprint, producer_run="r1",
            producer_step="main.a", saved=Duration(seconds=60), finished_at=later,
        ),
    )  # fmt: skip
    await served.until_hit(query("s", "a", c=literal("0.5")))
    p = served.project
    why = await served.stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r2", step="main.a"))
    assert [(c.field, c.old, c.new) for c in why.changes] == [("inputs.parameters.c", "0.1", "0.5")]
    assert (why.reason, why.producer_run, why.hit) == ("c was 0.1 and is 0.5", "r1", False)
    assert why.nearest_fingerprint == hit.fingerprint
    assert why.recorded_at == stamp(LATER)
    savings = await served.until_saved()
    assert (savings.hits, savings.saved.seconds) == (1, 60)
    why = await served.stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r3", step="main.a"))
    assert (why.hit, why.producer_run) == (True, "r1")

    entry = (await served.stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint=hit.fingerprint))).entry
    key = json.loads(entry.key)
    assert (key["template"], key["parameters"], key["project"]) == ({"does": "a"}, {"c": "0.1"}, p)
    assert (entry.hits, entry.producer_run, entry.template, entry.duration.seconds) == (1, "r1", "a", 60)

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
