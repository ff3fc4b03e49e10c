"""The images that pods really ran are compared with the digests that the steps' keys name."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from dispatcher_harness import Harness
from manifests import ANY_KEYS, dag, say, task, workflow
from test_images import DIGEST, IMAGES, Registry

from periplus.dispatcher.v1 import events_pb2
from periplus_common.errors import Unavailable
from periplus_dispatcher import kubernetes
from periplus_dispatcher.domain import ContainerImage
from periplus_dispatcher.follow.follower import Follower, FollowerTimings
from periplus_dispatcher.follow.images import NOT_SEEN
from periplus_dispatcher.manifest.images import ImagePolicy
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.pods import KubernetesPods
from periplus_dispatcher.service import Dispatcher
from periplus_dispatcher.settings import Settings

OTHER = "sha256:" + "e" * 64
DRIFTED = "periplus.dispatcher.v1.ImageDrifted"


@dataclass
class NodePods:
    """Pods of the Workflows of a local Argo, which all ran one digest; or none, as if they were deleted at once."""

    harness: Harness
    image: str
    digest: str = DIGEST
    are_deleted: bool = False
    is_away: bool = False
    listed: list[str] = field(default_factory=list)

    async def list_images(self, namespace: str, workflow: str):
        self.listed.append(workflow)
        if self.is_away:
            raise Unavailable("the pods can not be listed")
        found = await self.harness.argo.get(workflow) or {}
        nodes = found["status"]["nodes"].items()
        pods = {i: (ContainerImage("main", self.image, self.digest),) for i, n in nodes if n["type"] == "Pod"}
        return {} if self.are_deleted else pods


def manifest(text: str):
    templates = [say(name, text) for name in ("a", "b")]
    for template in templates:
        template["container"]["image"] = "python:3.11"
    return workflow(dag(task("a", "a"), task("b", "b", depends="a")), *templates)


@asynccontextmanager
async def comparing(harness: Harness, policy: ImagePolicy, cluster_pods: NodePods) -> AsyncIterator[Harness]:
    """The harness with a policy for images, and with pods."""
    await harness.crash()
    registry = Registry(digests={"python:3.11": DIGEST})
    planner = Planner(harness.cache, registry, harness.argo, IMAGES, ANY_KEYS, image_policy=policy)
    dispatcher = Dispatcher(harness.runs, harness.argo, planner, harness.repository, timedelta(seconds=30))
    follower = Follower(
        dispatcher.launch,
        harness.runs,
        harness.argo,
        harness.cache,
        harness.repository,
        harness.observer,
        FollowerTimings(retry_delay=timedelta(seconds=0.1)),
        cluster_pods,
    )
    following = asyncio.create_task(follower.follow())
    yield replace(harness, dispatcher=dispatcher)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


def reasons(run) -> set[str]:
    return {event.template.uncacheable_reason for event in run.finished}


async def test_a_step_whose_pod_ran_the_image_that_its_tag_pointed_to_is_cached(harness: Harness):
    cluster_pods = NodePods(harness, "python:3.11")
    async with comparing(harness, ImagePolicy.CHECK, cluster_pods) as checked:
        run = await checked.run(manifest("right"))
        assert reasons(run) == {""}
        assert await checked.published(DRIFTED, run.run.id) == []
        submitted = json.loads(run.run.manifest)["spec"]["templates"][1]["container"]["image"]
        assert submitted == "python:3.11"
        assert (await checked.run(manifest("right"))).cached == {"a", "b"}


async def test_a_step_whose_pod_ran_another_image_is_not_cached_and_an_event_says_so(harness: Harness):
    async with comparing(harness, ImagePolicy.CHECK, NodePods(harness, "python:3.11", OTHER)) as checked:
        run = await checked.run(manifest("drifted"))
        (reason,) = reasons(run)
        assert reason == f"its container main ran {OTHER} instead of {DIGEST}, to which python:3.11 pointed"
        bodies = await checked.published(DRIFTED, run.run.id)
        events = [events_pb2.ImageDrifted.FromString(body) for body in bodies]
        assert {event.step for event in events} == {"a", "b"}
        assert {(e.container, e.image, e.expected_digest, e.actual_digest) for e in events} == {
            ("main", "python:3.11", DIGEST, OTHER)
        }


async def test_an_image_that_a_webhook_renamed_is_compared_by_its_digest(harness: Harness):
    for digest, expected in ((DIGEST, False), (OTHER, True)):
        async with comparing(
            harness, ImagePolicy.PIN, NodePods(harness, "mirror/python:3.11", digest)
        ) as checked:
            run = await checked.run(manifest(f"renamed {digest}"))
            assert any(reasons(run)) is expected


@pytest.mark.parametrize("gone", [{"are_deleted": True}, {"is_away": True}, {"digest": ""}])
async def test_a_step_whose_pod_was_not_seen_is_cached_only_if_its_image_was_pinned(harness: Harness, gone):
    for policy, image, expected in (
        (ImagePolicy.CHECK, "python:3.11", {NOT_SEEN}),
        (ImagePolicy.PIN, f"python@{DIGEST}", {""}),
    ):
        async with comparing(harness, policy, NodePods(harness, image, **gone)) as checked:
            assert reasons(await checked.run(manifest(f"{policy} {gone}"))) == expected


async def test_pods_of_a_run_without_images_by_tag_are_not_listed(harness: Harness):
    cluster_pods = NodePods(harness, "busybox")
    async with comparing(harness, ImagePolicy.CHECK, cluster_pods) as checked:
        template = say("a", "trusted")
        template["container"]["image"] = "localhost/x"
        await checked.run(workflow(dag(task("a", "a")), template))
        assert cluster_pods.listed == []


def test_the_policy_check_needs_the_address_of_the_cluster():
    given = dict.fromkeys(("argo_url", "argo_namespace", "cache_address", "snapshotter_address"), "x")
    given |= dict.fromkeys(
        ("postgres_dsn", "nats_url", "grpc_address", "token", "s3_endpoint", "s3_bucket"), "x"
    )
    with pytest.raises(ValueError, match="check needs kubernetes_url"):
        Settings(**given, image_policy="check")
    assert Settings(**given, image_policy="check", kubernetes_url="https://x").kubernetes_url


def pod(node: str, image_id: str):
    return {
        "metadata": {"annotations": {"workflows.argoproj.io/node-id": node}},
        "spec": {
            "containers": [{"name": "main", "image": "python:3.11"}, {"name": "wait", "image": "argoexec"}]
        },
        "status": {"containerStatuses": [{"name": "main", "imageID": image_id}]},
    }


async def test_pods_are_listed_page_by_page_with_the_token_that_the_file_has_now(tmp_path: Path):
    asked: list[tuple[str, str]] = []
    pages = [
        {"metadata": {"continue": "next"}, "items": [pod("n1", f"docker.io/library/python@{DIGEST}"), {}]},
        {"metadata": {}, "items": [pod("n2", ""), pod("n3", OTHER)]},
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            body = json.dumps(pages[len(asked) - 1]).encode() if len(asked) <= len(pages) else b"[]"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "token").write_text("secret\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        async with kubernetes.connect(url, token_file=str(tmp_path / "token")) as session:
            assert session is not None
            found = KubernetesPods(session)
            images = await found.list_images("argo", "run-1")
            with pytest.raises(Unavailable, match="no object"):
                await found.list_images("argo", "run-1")
        server.shutdown()
    assert {node: [image.digest for image in listed] for node, listed in images.items()} == {
        "n1": [DIGEST, ""], "n2": ["", ""], "n3": [OTHER, ""],
    }  # fmt: skip
    first, second, _ = asked
    assert first == (
        "/api/v1/namespaces/argo/pods?labelSelector=workflows.argoproj.io%2Fworkflow%3Drun-1&limit=500",
        "Bearer secret",
    )
    assert second[0].endswith("&continue=next")


async def test_without_an_address_there_are_no_pods():
    async with kubernetes.connect("") as session:
        assert session is None
