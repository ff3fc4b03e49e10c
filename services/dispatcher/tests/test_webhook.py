"""The webhook's server: HTTPS with certificates that are replaced, who may ask, and requests of strangers."""

import asyncio
import base64
import copy
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from admitted import admission, patched
from fakes import MemoryCache
from test_admission import PARTLY, UNKNOWN, Verdicts, pipeline

from periplus_dispatcher.admission import Validation
from periplus_dispatcher.manifest.rewritten import REWRITTEN_LABEL
from periplus_dispatcher.webhook.review import MAX_WARNING_CHARACTERS
from periplus_dispatcher.webhook.server import WebhookLimits, serving

Json = dict[str, Any]
TOKEN = "a-token-of-this-test"
WAIT_SECONDS = 60
RECORDED = Path(__file__).parent / "admission_review.json"
"""What kube-apiserver 1.34.9 sent for a `kubectl create --dry-run=server`, cut down to the fields that say something."""


class Asked:
    def __init__(self, port: int, authority: Path) -> None:
        self.url, self.authority = f"https://127.0.0.1:{port}/mutate/{TOKEN}", authority

    async def post(self, body: Any, url: str = "", **more: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        context = ssl.create_default_context(cafile=str(self.authority))
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=WAIT_SECONDS) as http:
            return await http.post(url or self.url, content=content, **more)


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key."""
    text = subprocess.check_output([sys.executable, "-m", "periplus_local.certificate"], text=True)
    private, begin, public = text.partition("-----BEGIN CERTIFICATE-----")
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_text(begin + public)
    key.write_text(private)
    return certificate, key


@pytest.fixture
async def webhook(tmp_path: Path) -> AsyncIterator[Asked]:
    certificate = pair(tmp_path, "tls")
    cache = Verdicts(default=UNKNOWN, **PARTLY)
    async with serving(admission(cache), "127.0.0.1:0", TOKEN, certificate) as port:
        yield Asked(port, certificate[0])


def review(workflow: Any, **more: Any) -> Json:
    found: Json = json.loads(RECORDED.read_text())
    found["request"] |= {"object": workflow, **more}
    return found


def operations(response: httpx.Response) -> list[Json]:
    answer = response.json()["response"]
    assert answer["patchType"] == "JSONPatch"
    found: list[Json] = json.loads(base64.b64decode(answer["patch"]))
    return found


async def test_a_review_as_kubernetes_sends_it_is_answered_with_a_patch(webhook: Asked) -> None:
    sent = json.loads(RECORDED.read_text())
    response = await webhook.post(sent)
    assert response.status_code == 200
    found = response.json()
    assert (found["apiVersion"], found["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert (found["response"]["uid"], found["response"]["allowed"]) == (sent["request"]["uid"], True)
    created = patched(sent["request"]["object"], operations(response))
    assert created["metadata"]["labels"][REWRITTEN_LABEL] == "true"
    assert created["spec"]["templates"][0]["dag"]["tasks"][0]["template"] == "a--hit"
    again = await webhook.post(review(created))
    assert "patch" not in again.json()["response"]


@pytest.mark.parametrize(
    "more",
    [
        {"operation": "UPDATE"}, {"operation": "DELETE", "object": None}, {"kind": {"group": "", "version": "v1", "kind": "Pod"}},
        {"kind": {"group": "argoproj.io", "version": "v1alpha1", "kind": "CronWorkflow"}},
    ],
)  # fmt: skip
async def test_anything_but_the_creation_of_a_workflow_is_admitted_as_it_is(
    webhook: Asked, more: Json
) -> None:
    response = await webhook.post(review(pipeline(), **more))
    assert response.json()["response"] == {"uid": review({})["request"]["uid"], "allowed": True}


def without(name: str) -> Json:
    found = review(pipeline())
    del found["request"][name]
    return found


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", ""), (b"{", ""), (b"[]", ""), (b"null", ""), (b"\xff\xfe", ""), (b"[" * 200_000, ""), (b'{"a":' * 5000, ""),
        ({}, "apiVersion"), ({**review({}), "apiVersion": "admission.k8s.io/v1beta1"}, "apiVersion"),
        ({**review({}), "request": []}, "request"), (without("uid"), "request.uid"), (without("kind"), "request.kind"),
        (review({}, uid=7), "request.uid"), (review({}, uid="x" * 200), "request.uid"),
        (review({}, namespace={"a": 1}), "request.namespace"), (review(None), "request.object"),
        (review([1]), "request.object"), (review({}), "request.object.metadata"),
        (review({"metadata": {}, "spec": "x"}), "request.object.spec"),
        (review({"metadata": {"labels": [1]}, "spec": {}}), "request.object.metadata.labels"),
        (review({"metadata": {"annotations": {"a": {}}}, "spec": {}}), "request.object.metadata.annotations.a"),
    ],
)  # fmt: skip
async def test_what_is_no_review_is_refused_with_the_field(webhook: Asked, body: Any, field: str) -> None:
    response = await webhook.post(body)
    assert response.status_code == 400
    assert response.json().get("field", "") == field
    assert (await webhook.post(review(pipeline()))).json()["response"]["patch"]


@pytest.mark.parametrize(
    "change",
    [
        {}, {"templates": None}, {"templates": {}}, {"templates": [[]]}, {"templates": [None]}, {"entrypoint": []},
        {"templates": [{"name": "main", "dag": []}]}, {"arguments": [1]}, {"workflowTemplateRef": 7},
        {"workflowTemplateRef": {"name": "none"}}, {"templates": [{"name": "main", "steps": [[[]]]}]},
    ],
)  # fmt: skip
async def test_a_spec_that_makes_no_sense_is_admitted_as_it_is_with_a_warning(
    webhook: Asked, change: Json
) -> None:
    made = pipeline()
    made["spec"] = {**made["spec"], **change} if change else {}
    answer = (await webhook.post(review(made))).json()["response"]
    assert answer["allowed"]
    assert "patch" not in answer
    assert all(len(w) <= MAX_WARNING_CHARACTERS and "\n" not in w for w in answer["warnings"])
    assert answer["warnings"]


async def test_nobody_without_the_token_is_answered(webhook: Asked) -> None:
    base = webhook.url.removesuffix(TOKEN)
    for path in ("", "x", TOKEN[:-1], TOKEN + "x", "é", f"{TOKEN}/"):
        response = await webhook.post(review(pipeline()), base + path, follow_redirects=False)
        assert response.status_code in (404, 307), path
        assert "patch" not in response.text


async def test_a_request_that_is_too_large_is_refused(tmp_path: Path) -> None:
    certificate, limits = pair(tmp_path, "tls"), WebhookLimits(body_bytes=10_000)
    async with serving(admission(), "127.0.0.1:0", TOKEN, certificate, limits) as port:
        asked = Asked(port, certificate[0])
        assert (await asked.post(b" " * 10_001)).status_code == 413
        assert (await asked.post(review(pipeline()))).status_code == 200


async def test_a_request_whose_body_does_not_arrive_is_answered(tmp_path: Path) -> None:
    certificate, limits = pair(tmp_path, "tls"), WebhookLimits(body=timedelta(seconds=0.1))
    async with serving(admission(), "127.0.0.1:0", TOKEN, certificate, limits) as port:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        async with asyncio.timeout(WAIT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(f"POST /mutate/{TOKEN} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{{".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            writer.close()


async def test_a_connection_that_sends_no_request_is_closed(tmp_path: Path) -> None:
    certificate, limits = pair(tmp_path, "tls"), WebhookLimits(head=timedelta(seconds=0.1))
    async with serving(admission(), "127.0.0.1:0", TOKEN, certificate, limits) as port:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                writer.write(b"POST /mutate/")
                assert await reader.read() == b""
                writer.close()
            except ConnectionError:
                pass  # it was closed while it was greeted


async def test_a_refusal_names_the_field(tmp_path: Path) -> None:
    certificate = pair(tmp_path, "tls")
    made = pipeline()
    del made["spec"]["templates"][2]
    async with serving(
        admission(MemoryCache(), validation=Validation.REFUSE), "127.0.0.1:0", TOKEN, certificate
    ) as port:
        answer = (await Asked(port, certificate[0]).post(review(made))).json()["response"]
    assert answer["allowed"] is False
    assert answer["status"] == {
        "code": 422, "reason": "Invalid",
        "message": "spec.templates[0].dag.tasks[1].template: template name 'b' undefined",
    }  # fmt: skip


async def test_a_certificate_is_replaced_while_it_runs_and_a_bad_one_is_not_used(tmp_path: Path) -> None:
    certificate, (other, other_key) = pair(tmp_path, "tls"), pair(tmp_path, "other")
    first = tmp_path / "first.crt"
    first.write_bytes(certificate[0].read_bytes())
    limits = WebhookLimits(certificate_check=timedelta(seconds=0.05))
    async with serving(admission(), "127.0.0.1:0", TOKEN, certificate, limits) as port:
        before, after = Asked(port, first), Asked(port, other)
        assert (await before.post(review(pipeline()))).status_code == 200
        certificate[0].write_bytes(other.read_bytes())  # its key is not there yet
        await asyncio.sleep(0.3)
        assert (await before.post(review(pipeline()))).status_code == 200
        certificate[1].write_bytes(other_key.read_bytes())
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    assert (await after.post(review(pipeline()))).status_code == 200
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
                else:
                    break
        with pytest.raises(httpx.ConnectError):
            await before.post(review(pipeline()))


async def test_a_review_is_not_changed_by_reading_it() -> None:
    from periplus_dispatcher.webhook import review as reviews

    made = pipeline(annotations=None, labels=None)
    read = reviews.read(json.dumps(review(copy.deepcopy(made))).encode())
    assert read.workflow == made
