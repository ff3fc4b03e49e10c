"""The RPCs, on a running service with real NATS, Postgres and S3."""

import json
import socket
from datetime import timedelta

from cache_service import (
    LATER,
    TOKEN,
    Service,
    error_of,
    literal,
    parameters,
    query,
    running,
    settings,
    template,
    timestamp,
)
from google.protobuf.duration_pb2 import Duration

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.types.v1 import step_pb2 as types
from periplus_cache.app import app
from periplus_common import rpc
from periplus_common.errors import Invalid, NotFound, Unauthenticated
from periplus_local.stack.testing import Servers


async def test_an_entry_is_returned_explained_counted_and_invalidated(service: Service):
    inputs = types.Inputs(parameters=parameters(c="0.1"))
    await service.publish(service.finished("main.a", "a", inputs=inputs))
    (hit,) = await service.until_all_hit(query("s", "a", c=literal("0.1")))
    other = types.Inputs(parameters=parameters(c="0.5"))
    later = timestamp(LATER + timedelta(seconds=1))
    await service.publish(
        service.finished("main.a", "a", "r2", inputs=other, finished_at=later),
        service.finished(
            "main.a", "a", "r3", phase=types.STEP_PHASE_CACHED, fingerprint=hit.fingerprint, producer_run="r1",
            producer_step="main.a", saved=Duration(seconds=60), finished_at=later,
        ),
    )  # fmt: skip
    await service.until_all_hit(query("s", "a", c=literal("0.5")))
    p = service.project
    why = await service.stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r2", step="main.a"))
    assert [(c.field, c.old, c.new) for c in why.changes] == [("inputs.parameters.c", "0.1", "0.5")]
    assert (why.reason, why.producer_run, why.hit) == ("c was 0.1 and is 0.5", "r1", False)
    assert why.nearest_fingerprint == hit.fingerprint
    assert why.recorded_at == timestamp(LATER)
    savings = await service.until_a_hit_is_counted()
    assert (savings.hits, savings.saved.seconds) == (1, 60)
    why = await service.stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r3", step="main.a"))
    assert (why.hit, why.producer_run) == (True, "r1")

    entry = (await service.stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint=hit.fingerprint))).entry
    key = json.loads(entry.key)
    assert (key["template"], key["parameters"], key["project"]) == ({"does": "a"}, {"c": "0.1"}, p)
    assert (entry.hits, entry.producer_run, entry.template, entry.duration.seconds) == (1, "r1", "a", 60)

    request = pb.InvalidateEntriesRequest(
        project=p, fingerprints=[hit.fingerprint], reason="bad", validate_only=True
    )
    assert (await service.stub.InvalidateEntries(request)).count == 1
    request.validate_only = False
    assert (await service.stub.InvalidateEntries(request)).count == 1
    assert (await service.stub.InvalidateEntries(request)).count == 0
    (found,) = await service.resolve(query("s", "a", c=literal("0.1")))
    assert found.verdict == types.VERDICT_MISS


async def test_entries_are_listed_page_by_page_and_their_time_to_live_is_named(service: Service):
    p = service.project
    limited = template("limited")
    limited.policy.ttl.seconds = 3600
    await service.publish(
        *(service.finished(f"main.a({i})", "a", inputs=types.Inputs(parameters=parameters(c=str(i)))) for i in range(4)),
        service.finished("main.b", "b", "r2", template=limited, finished_at=timestamp(LATER + timedelta(seconds=1))),
    )  # fmt: skip
    request = pb.ListEntriesRequest(project=p, page_size=2)
    await service.until_listed(5)
    pages = []
    while True:
        page = await service.stub.ListEntries(request)
        pages.append(list(page.entries))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [len(entries) for entries in pages] == [2, 2, 1]
    entries = [entry for page in pages for entry in page]
    assert [entry.producer_run for entry in entries] == ["r2", "r1", "r1", "r1", "r1"]
    assert {entry.producer_step for entry in entries[1:]} == {f"main.a({i})" for i in range(4)}
    expires_at = timestamp(LATER + timedelta(seconds=3601))
    assert (entries[0].template, entries[0].key, entries[0].expires_at) == ("limited", "", expires_at)
    assert not entries[1].HasField("expires_at")
    details = await service.stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint=entries[0].fingerprint))
    assert (details.entry.expires_at, bool(details.entry.key)) == (expires_at, True)

    by_run = await service.stub.ListEntries(pb.ListEntriesRequest(project=p, producer_run="r2"))
    assert [entry.fingerprint for entry in by_run.entries] == [entries[0].fingerprint]
    by_template = pb.ListEntriesRequest(project=p, template="a")
    assert len((await service.stub.ListEntries(by_template)).entries) == 4
    await service.stub.InvalidateEntries(pb.InvalidateEntriesRequest(project=p, template="a", reason="bad"))
    assert len((await service.stub.ListEntries(by_template)).entries) == 0
    by_template.show_invalidated = True
    assert [e.invalidation_reason for e in (await service.stub.ListEntries(by_template)).entries] == [
        "bad"
    ] * 4
    by_template.page_token = request.page_token
    error = await error_of(service.stub.ListEntries(by_template))
    assert (type(error), error.field) == (Invalid, "page_token")


async def test_invalid_requests_are_refused_with_their_field(service: Service):
    p, sha = service.project, "sha256:" + "0" * 64
    stub = service.stub
    error = await error_of(stub.ResolveSteps(pb.ResolveStepsRequest(project="No Such")))
    assert (type(error), error.field) == (Invalid, "project")
    error = await error_of(stub.ResolveSteps(pb.ResolveStepsRequest(project=p, steps=[query("s", "a")])))
    assert (type(error), error.field, error.reason) == (Invalid, "steps[0].template", "TEMPLATE_UNKNOWN")
    nan = types.StepTemplate(name="a", document='{"x": NaN}')
    error = await error_of(stub.ResolveSteps(pb.ResolveStepsRequest(project=p, templates={"a": nan})))
    assert (type(error), error.field) == (Invalid, 'templates["a"].document')
    error = await error_of(stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint="sha256:1")))
    assert (type(error), error.field) == (Invalid, "fingerprint")
    assert type(await error_of(stub.GetEntry(pb.GetEntryRequest(project=p, fingerprint=sha)))) is NotFound
    error = await error_of(stub.InvalidateEntries(pb.InvalidateEntriesRequest(project=p, reason="x")))
    assert (type(error), error.reason) == (Invalid, "SELECTOR_MISSING")
    error = await error_of(stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r", step="s")))
    assert (type(error), error.reason) == (NotFound, "STEP_NOT_RECORDED")
    for call in (
        stub.ExplainMiss(pb.ExplainMissRequest(project=p, run="r\0", step="s")),
        stub.GetSavings(pb.GetSavingsRequest(project=p, run="\0")),
        stub.InvalidateEntries(pb.InvalidateEntriesRequest(project=p, template="\0", reason="x")),
    ):
        assert type(await error_of(call)) is Invalid


async def test_calls_with_a_wrong_token_are_refused(embedded: Servers, dsn: str):
    async with app(settings(embedded, dsn)) as port, rpc.channel(f"127.0.0.1:{port}", "guess") as channel:
        call = CacheServiceStub(channel).GetSavings(pb.GetSavingsRequest(project="p"))
        assert type(await error_of(call)) is Unauthenticated


async def test_steps_are_resolved_while_nats_is_down(embedded: Servers, dsn: str):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        down = f"nats://127.0.0.1:{unused.getsockname()[1]}"
        async with (
            app(settings(embedded, dsn, nats_url=down)) as port,
            rpc.channel(f"127.0.0.1:{port}", TOKEN) as channel,
        ):
            request = pb.ResolveStepsRequest(
                project="p", templates={"a": template("a")}, steps=[query("s", "a")]
            )
            answer = await CacheServiceStub(channel).ResolveSteps(request)
    assert answer.verdicts[0].verdict == types.VERDICT_MISS


async def test_entries_outlive_the_process(embedded: Servers, dsn: str):
    service_settings = settings(embedded, dsn)
    async with running(service_settings, embedded.nats_url) as first:
        await first.publish(first.finished("main.a", "a"))
        await first.until_all_hit(query("s", "a"))
    async with running(service_settings, embedded.nats_url) as second:
        second.project = first.project
        (found,) = await second.resolve(query("s", "a"))
    assert found.verdict == types.VERDICT_HIT
