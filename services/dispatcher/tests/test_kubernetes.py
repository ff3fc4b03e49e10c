"""Gates that are answered together through the Kubernetes API, and what happens where that can not be."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from periplus_common.errors import Conflict, NotFound, Unavailable
from periplus_dispatcher import kubernetes
from periplus_dispatcher.argo import client as argo
from periplus_dispatcher.domain import GateAnswer
from periplus_dispatcher.kubernetes import KubernetesWorkflows
from periplus_model.queries import StepVerdict
from periplus_model.steps import Verdict

Json = dict[str, Any]
HIT = GateAnswer({"periplus-hit": "true"}, StepVerdict("", Verdict.HIT, "an entry of run r"))
MISS = GateAnswer({}, StepVerdict("", Verdict.MISS, "no entry"))


def workflow(version: str, /, **nodes: str) -> Json:
    """A Workflow with suspend nodes of these phases."""
    found = {name: {"type": "Suspend", "phase": phase} for name, phase in nodes.items()}
    return {"metadata": {"name": "w", "resourceVersion": version}, "status": {"nodes": found}}


@dataclass
class Api:
    """A server that gives its answers in order, and keeps the requests."""

    answers: list[tuple[int, object]]
    requests: list[tuple[str, str, Mapping[str, str], Json | None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                line, *lines = head.splitlines()
                headers = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = line.split()
                self.requests.append((method, path, headers, json.loads(body) if body else None))
                status, answer = self.answers.pop(0)
                text = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 %d \r\ncontent-length: %d\r\n\r\n%s" % (status, len(text), text))

    @property
    def methods(self) -> list[str]:
        return [method for method, *_ in self.requests]


@asynccontextmanager
async def served(*answers: tuple[int, object]) -> AsyncIterator[tuple[Api, str]]:
    api = Api(list(answers))
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    try:
        yield api, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def cluster(
    *answers: tuple[int, object], token_file: Path
) -> AsyncIterator[tuple[Api, KubernetesWorkflows]]:
    async with (
        served(*answers) as (api, url),
        kubernetes.connect(url, token_file=str(token_file)) as session,
    ):
        assert session is not None
        yield api, KubernetesWorkflows(session, "ml")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


async def test_open_gates_are_answered_by_one_patch_of_the_version_that_was_read(token_file: Path) -> None:
    found = workflow("7", a="Running", b="Running", c="Succeeded")
    async with cluster((200, found), (200, {}), token_file=token_file) as (api, client):
        assert await client.answer_gates("w", {"a": HIT, "b": MISS, "c": HIT, "gone": HIT}) == {"c", "gone"}
    path = "/apis/argoproj.io/v1alpha1/namespaces/ml/workflows/w"
    assert [(method, path) for method, path, *_ in api.requests] == [("GET", path), ("PATCH", path)]
    _, _, headers, patch = api.requests[1]
    assert headers["content-type"] == "application/merge-patch+json"
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7"}
    nodes = patch["status"]["nodes"]
    assert {node: each["phase"] for node, each in nodes.items()} == {"a": "Succeeded", "b": "Succeeded"}
    assert nodes["a"]["outputs"] == {"parameters": [{"name": "periplus-hit", "value": "true"}]}
    assert nodes["a"]["message"] == "an entry of run r"
    assert "outputs" not in nodes["b"]


async def test_without_an_open_gate_nothing_is_patched(token_file: Path) -> None:
    async with cluster((200, workflow("7", a="Failed")), token_file=token_file) as (api, client):
        assert await client.answer_gates("w", {"a": HIT}) == {"a"}
    assert api.methods == ["GET"]


async def test_a_workflow_that_changed_meanwhile_is_read_again(token_file: Path) -> None:
    answers = [
        (200, workflow("7", a="Running", b="Running")),
        (409, {"kind": "Status"}),
        (200, workflow("8", a="Running", b="Succeeded")),
        (200, {}),
    ]
    async with cluster(*answers, token_file=token_file) as (api, client):
        assert await client.answer_gates("w", {"a": HIT, "b": HIT}) == {"b"}
    assert list(api.requests[3][3]["status"]["nodes"]) == ["a"]  # type: ignore[index]


async def test_the_token_is_read_for_each_request(token_file: Path) -> None:
    answers = [(200, workflow("7", a="Failed"))] * 2
    async with cluster(*answers, token_file=token_file) as (api, client):
        await client.answer_gates("w", {"a": HIT})
        token_file.write_text("second\n")  # noqa: ASYNC240 - a few bytes
        await client.answer_gates("w", {"a": HIT})
    assert [request[2]["authorization"] for request in api.requests] == ["Bearer first", "Bearer second"]


async def test_argo_gets_the_token_of_a_file_too(token_file: Path) -> None:
    async with (
        served((200, {}), (200, {})) as (api, url),
        argo.connect(url, "Bearer old", "ml", token_file=str(token_file)) as found,
    ):
        await found.get("w")
        token_file.write_text("second")  # noqa: ASYNC240 - a few bytes
        await found.answer_gates("w", {"a": MISS})
        token_file.unlink()  # noqa: ASYNC240
        with pytest.raises(Unavailable, match="No such file"):
            await found.get("w")
    assert [request[2]["authorization"] for request in api.requests] == ["Bearer first", "Bearer second"]


COMPRESSED = workflow("7") | {"status": {"compressedNodes": "H4sI"}}
OFFLOADED = workflow("7") | {"status": {"offloadNodeStatusVersion": "fnv:1"}}
CONFLICTS: Sequence[tuple[int, object]] = [(200, workflow("7", a="Running")), (409, {})] * 5


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([(200, COMPRESSED)], "compressed"),
        ([(200, OFFLOADED)], "kept elsewhere"),
        ([(403, {"message": "forbidden"})], "answers 403: .*forbidden"),
        ([(200, ["no object"])], "answers 200"),
        (CONFLICTS, "changed during each of 5 patches"),
    ],
    ids=["compressed", "offloaded", "forbidden", "no object", "conflicts"],
)
async def test_what_can_not_be_patched_is_answered_one_by_one_through_argo(
    token_file: Path, answers: Sequence[tuple[int, object]], reason: str
) -> None:
    async with cluster(*answers, token_file=token_file) as (_, client):
        with pytest.raises(Unavailable, match=reason):
            await client.answer_gates("w", {"a": HIT})
    gone = (500, {"code": 13, "message": "no suspend nodes matching nodeFieldSelector"})
    async with (
        cluster(*answers, token_file=token_file) as (_, client),
        served((200, {}), gone) as (api, url),
        argo.connect(url, "", "ml", kubernetes=client) as found,
    ):
        assert await found.answer_gates("w", {"a": HIT, "b": MISS}) == {"b"}
    assert [path for _, path, *_ in api.requests] == ["/api/v1/workflows/ml/w/set"] * 2


async def test_a_workflow_that_does_not_exist_is_not_found(token_file: Path) -> None:
    async with cluster((404, {"kind": "Status"}), token_file=token_file) as (_, client):
        with pytest.raises(NotFound, match="Kubernetes has no Workflow w"):
            await client.answer_gates("w", {"a": HIT})


async def test_a_token_file_that_is_missing_or_a_server_that_does_not_answer_is_unavailable(
    tmp_path: Path, token_file: Path
) -> None:
    async with cluster(token_file=tmp_path / "none") as (_, client):
        with pytest.raises(Unavailable, match="No such file"):
            await client.answer_gates("w", {"a": HIT})
    async with kubernetes.connect("http://127.0.0.1:9", token_file=str(token_file)) as session:
        assert session is not None
        with pytest.raises(Unavailable, match="can not be reached"):
            await KubernetesWorkflows(session, "ml").answer_gates("w", {"a": HIT})


@pytest.mark.parametrize("kind", ["WorkflowTemplate", "CronWorkflow"])
async def test_an_object_is_replaced_with_the_version_that_was_read(token_file: Path, kind: str) -> None:
    stored: Json = {"metadata": {"name": "train", "resourceVersion": "7"}, "spec": {"unknown-to-argo": 1}}
    async with cluster((200, stored), (200, {}), token_file=token_file) as (api, client):
        read = await client.read(kind, "train")
        assert read == stored
        await client.replace(kind, {**stored, "spec": {"changed": True}})
    path = f"/apis/argoproj.io/v1alpha1/namespaces/ml/{kind.lower()}s/train"
    assert [(method, where) for method, where, *_ in api.requests] == [("GET", path), ("PUT", path)]
    assert api.requests[1][3] == {**stored, "spec": {"changed": True}}


async def test_an_object_that_was_changed_meanwhile_is_not_overwritten_and_one_that_is_not_there_is_none(
    token_file: Path,
) -> None:
    conflict = (409, {"kind": "Status", "message": "the object has been modified"})
    async with cluster(conflict, (404, {"kind": "Status"}), token_file=token_file) as (_, client):
        with pytest.raises(Conflict, match="WorkflowTemplate train was changed meanwhile"):
            await client.replace("WorkflowTemplate", {"metadata": {"name": "train"}, "spec": {}})
        assert await client.read("WorkflowTemplate", "train") is None
