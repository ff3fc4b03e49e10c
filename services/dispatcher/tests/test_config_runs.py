"""Runs whose steps get data of Secrets: they are hits for as long as the data is the same, and never with other data.

The local Argo ignores a podSpecPatch, so the steps here only name what they would get.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from dispatcher_harness import WAIT_SECONDS, FinishedRun, Harness
from kubernetes_api import KubernetesApi, kubernetes_api
from manifests import ANY_KEYS, PROCESSES, dag, say, shows, task, workflow

from periplus_dispatcher import kubernetes
from periplus_dispatcher.config_objects import KubernetesConfig
from periplus_dispatcher.domain import ConfigObject
from periplus_dispatcher.follow.config import CHANGED, NOT_READ
from periplus_dispatcher.follow.follower import Follower, FollowerTimings
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.service import Dispatcher
from periplus_model.steps import Verdict

Json = dict[str, Any]
SECRET = ConfigObject("Secret", "db")
CANARY = "canary-7f3a"


@dataclass
class Cluster:
    """A dispatcher that reads Secrets, whose follower a test stops and starts."""

    harness: Harness
    api: KubernetesApi
    config: KubernetesConfig
    following: asyncio.Task[None] | None = None

    def follow(self) -> None:
        found = self.harness
        timings = FollowerTimings(poll_interval=timedelta(seconds=0.2), retry_delay=timedelta(seconds=0.1))
        follower = Follower(
            found.dispatcher.launch, found.runs, found.argo, found.cache, found.repository, found.observer, timings,
            None, self.config,
        )  # fmt: skip
        self.following = asyncio.create_task(follower.follow())

    async def stop_following(self) -> None:
        if self.following is not None:
            self.following.cancel()
            with suppress(asyncio.CancelledError):
                await self.following

    async def finished(self, manifest: Json) -> FinishedRun:
        """Run to the end. What was recorded is in the cache."""
        run = await self.harness.run(manifest)
        for event in run.finished:
            if event.template.uncacheable_reason:
                self.harness.cache.entries = {
                    key: outputs
                    for key, outputs in self.harness.cache.entries.items()
                    if key[0] != event.template.document
                }
        return run

    async def until(self, run: str, phase: str, **node: str) -> None:
        """Wait until Argo has a node with these fields in a phase."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                nodes = (((await self.harness.argo.get(run)) or {}).get("status") or {}).get("nodes") or {}
                if any(
                    each.get("phase") == phase and all(each.get(k) == v for k, v in node.items())
                    for each in nodes.values()
                ):
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def cluster(harness: Harness) -> AsyncIterator[Cluster]:
    with kubernetes_api() as api:
        async with opened(harness, api) as found:
            yield found


@asynccontextmanager
async def opened(harness: Harness, api: KubernetesApi) -> AsyncIterator[Cluster]:
    await harness.crash()
    async with kubernetes.connect(api.url) as session:
        assert session is not None
        config = KubernetesConfig(session, "argo", b"k" * 32)
        planner = Planner(
            harness.cache, harness.snapshotter, harness.argo, PROCESSES, ANY_KEYS, config=config
        )
        harness.dispatcher = Dispatcher(
            harness.runs, harness.argo, planner, harness.repository, timedelta(seconds=30)
        )
        found = Cluster(harness, api, config)
        found.follow()
        try:
            yield found
        finally:
            await found.stop_following()


def with_secret(template: Json, **annotations: str) -> Json:
    variable = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "token"}}}
    patch = {"containers": [{"name": "main", "env": [variable]}]}
    named = {f"periplus.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return {**template, "podSpecPatch": json.dumps(patch), "metadata": {"annotations": named}}


def one_step(text: str, **annotations: str) -> Json:
    return workflow(dag(task("a", "a")), with_secret(say("a", text), **annotations))


async def test_a_step_is_a_hit_as_long_as_what_it_gets_of_a_secret_is_the_same(cluster: Cluster) -> None:
    manifest = one_step(uuid.uuid4().hex)
    cluster.api.write("db", token="one", other="x")
    assert (await cluster.finished(manifest)).ran == {"a"}
    assert (await cluster.finished(manifest)).cached == {"a"}
    cluster.api.write("db", token="two", other="x")
    assert (await cluster.finished(manifest)).ran == {"a"}
    cluster.api.write("db", token="one", other="y")
    assert (await cluster.finished(manifest)).cached == {"a"}, "changed back; another key does not matter"


async def test_the_plan_says_what_could_not_be_read_and_the_step_runs(cluster: Cluster) -> None:
    manifest = one_step(uuid.uuid4().hex)
    request = cluster.harness.request(manifest)

    async def reason() -> str:
        (step,) = (await cluster.harness.dispatcher.plan(request)).plan.steps
        assert step.verdict.verdict is Verdict.UNCACHEABLE
        return step.verdict.reason

    ignore = "annotate periplus.dev/ignore-env: TOKEN if it does not change the result"
    assert await reason() == f"its variable TOKEN comes from the Secret db, which does not exist, or {ignore}"
    cluster.api.write("db", token="one")
    cluster.api.status = 403
    assert await reason() == (
        "its variable TOKEN comes from the Secret db, which the dispatcher may not read: give its role the verb get for "
        f"secrets (deploy/k8s/argo/config.yaml), or {ignore}"
    )
    run = await cluster.finished(manifest)
    assert run.ran == {"a"}
    assert "may not read" in run.finished[0].template.uncacheable_reason
    ignored = await cluster.harness.dispatcher.plan(
        cluster.harness.request(one_step("x", ignore_env="TOKEN, TOKNE"))
    )
    assert ignored.plan.steps[0].verdict.verdict is Verdict.MISS
    assert "periplus.dev/ignore-env names TOKNE, which no step has to which it applies" in ignored.warnings


@pytest.mark.parametrize("values", [("two",), ("two", "one"), ("one",)])
async def test_a_step_during_which_its_secret_was_written_is_not_recorded(
    cluster: Cluster, values: tuple[str, ...]
) -> None:
    manifest = one_step(uuid.uuid4().hex)
    cluster.api.write("db", token="one")
    await cluster.stop_following()
    run = (await cluster.harness.submit(manifest)).run.id
    await cluster.until(run, "Succeeded", displayName="a")
    for value in values:  # it may have started with any of them
        cluster.api.write("db", token=value)
    cluster.follow()
    ended = await cluster.harness.ended(run)
    assert [e.template.uncacheable_reason for e in ended.finished] == [CHANGED.format(SECRET)]


@pytest.mark.parametrize("then", ["away", "deleted"])
async def test_a_step_whose_secret_can_not_be_read_again_is_not_recorded(cluster: Cluster, then: str) -> None:
    cluster.api.write("db", token="one")
    await cluster.stop_following()
    run = (await cluster.harness.submit(one_step(uuid.uuid4().hex))).run.id
    await cluster.until(run, "Succeeded", displayName="a")
    if then == "deleted":
        cluster.api.delete("db")
    else:
        cluster.api.status = 503
    cluster.follow()
    reasons = [e.template.uncacheable_reason for e in (await cluster.harness.ended(run)).finished]
    assert reasons == [(NOT_READ if then == "away" else CHANGED).format(SECRET)]


def two_steps(first: str, last: str) -> Json:
    """`b` is known once `a` has run, whose output is always the same."""
    a = say("a", "same")
    a["container"]["env"] = [{"name": "RUN_AGAIN", "value": first}]
    b = with_secret(say("b", f"{last} $x", "x"))
    main = dag(
        task("a", "a"),
        task("b", "b", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"}),
        outputs=shows("tasks.b.outputs.parameters.o"),
    )
    return workflow(main, a, b)


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_gate_serves_nothing_once_the_secret_was_written(cluster: Cluster, is_written: bool) -> None:
    last = uuid.uuid4().hex
    cluster.api.write("db", token="one")
    assert (await cluster.finished(two_steps("1", last))).ran == {"a", "b"}
    await cluster.stop_following()
    run = (await cluster.harness.submit(two_steps("2", last))).run.id
    await cluster.until(run, "Running", type="Suspend")
    if is_written:
        cluster.api.write("db", token="two")
    cluster.follow()
    ended = await cluster.harness.ended(run)
    assert ended.ran == ({"a", "b"} if is_written else {"a"})
    of_b = next(event for event in ended.finished if event.step == "b")
    assert of_b.template.uncacheable_reason == (CHANGED.format(SECRET) if is_written else "")


async def test_no_value_is_in_a_row_an_event_a_plan_or_a_log(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    manifest = one_step(uuid.uuid4().hex)
    cluster.api.write("db", token=CANARY)
    planned = await cluster.harness.dispatcher.plan(cluster.harness.request(manifest))
    await cluster.finished(manifest)
    await cluster.finished(manifest)
    async with cluster.harness.database.connection() as connection:
        rows = [
            dict(row)
            for table in ("run", "published", "gate_answer", "outbox", "step_delay")
            for row in await connection.fetch(f"SELECT * FROM {table}")
        ]
    assert any("hmac-sha256" in repr(row) for row in rows)
    for place in (repr(rows), repr(planned), caplog.text):
        assert CANARY not in place
