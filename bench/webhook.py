"""The admission webhook: how long an answer takes at 200 Workflows a second, and whether a create is ever refused.

    python bench/webhook.py [rate] [seconds] [creates]

Starts its own stack. The real dispatcher is asked by HTTPS as Kubernetes asks it, at a fixed `rate` (200) for `seconds` (20),
whether or not it keeps up: a time counts from the moment at which its request was due. The limit is the 2 s after which Kubernetes
goes on without an answer. First the same workflow of 10 steps each time, all of which are cached; then each time another one,
none of whose steps is. The floor is a request for an object that is no Workflow, which is answered at once.

With KUBECONFIG the webhook is registered at that API server as well, by its address on this machine and for a label of its own, and
`creates` (10,000) Workflows are created by `dryRun=All`, so that nothing runs: 200 with the dispatcher alive, 200 while it is
stopped (SIGSTOP: Kubernetes waits 2 s for each), and the rest after it was killed. None may be refused.
"""

import asyncio
import base64
import json
import os
import secrets
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from harness import Stack, fill_cache, machine, run_spec, up

STEPS, CONNECTIONS = 10, 128
LIMIT_SECONDS = 2.0
SERVICES = ("periplus_dispatcher", "periplus_cache")
TOKEN = secrets.token_urlsafe(24)
with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]
LABEL = f"periplus.dev/bench-{os.getpid()}"
Json = dict[str, Any]


def workflow(mark: str) -> Json:
    """A chain of steps; another mark is another workflow."""
    source = {
        "image": "alpine",
        "command": ["sh"],
        "source": f"echo {{{{inputs.parameters.x}}}} > /tmp/y # {mark}",
    }
    template = {
        "name": "step",
        "inputs": {"parameters": [{"name": "x"}]},
        "script": source,
        "outputs": {"parameters": [{"name": "y", "valueFrom": {"path": "/tmp/y"}}]},
    }
    tasks: list[Json] = []
    for number in range(STEPS):
        value = f"{{{{tasks.s{number - 1}.outputs.parameters.y}}}}" if number else "0"
        before = {"depends": f"s{number - 1}"} if number else {}
        tasks.append({
            "name": f"s{number}", "template": "step", **before,
            "arguments": {"parameters": [{"name": "x", "value": value}]},
        })  # fmt: skip
    return {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"generateName": "bench-", "labels": {LABEL: "true"}},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "dag": {"tasks": tasks}}, template]},
    }  # fmt: skip


def review(made: Json, kind: str = "Workflow") -> bytes:
    request = {
        "uid": str(uuid.uuid4()), "kind": {"group": "argoproj.io", "version": "v1alpha1", "kind": kind},
        "operation": "CREATE", "namespace": "argo", "object": made,
    }  # fmt: skip
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


class Connections:
    """Connections that are kept and used again, as Kubernetes does with its own."""

    def __init__(self, authority: Path) -> None:
        self._context = ssl.create_default_context(cafile=str(authority))
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def post(self, body: bytes) -> Json:
        async with self._places:
            reader, writer = connection = (
                self._free.pop()
                if self._free
                else await asyncio.open_connection("127.0.0.1", PORT, ssl=self._context)
            )
            head = f"POST /mutate/{TOKEN} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            received = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(
                int(line[15:]) for line in received.splitlines() if line.startswith("content-length:")
            )
            answer = await reader.readexactly(length)
            self._free.append(connection)
        assert received.startswith("http/1.1 200"), received + answer.decode()
        found: Json = json.loads(answer)["response"]
        return found


async def measured(
    asked: Connections, body: Callable[[], bytes], rate: int, seconds: int
) -> tuple[list[float], int]:
    """Seconds from the moment at which each request was due to its answer, and how many answers had a patch."""
    loop = asyncio.get_running_loop()
    bodies = [body() for _ in range(rate * seconds)]
    began = loop.time() + 0.1

    async def one(number: int) -> tuple[float, bool]:
        due = began + number / rate
        await asyncio.sleep(due - loop.time())
        answer = await asked.post(bodies[number])
        return loop.time() - due, "patch" in answer

    found = await asyncio.gather(*map(one, range(len(bodies))))
    return [took for took, _ in found], sum(patched for _, patched in found)


def show(what: str, times: list[float], patched: int, floor: float = 0) -> float:
    ordered = sorted(times)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    ratio = f"  {p99 / floor:5.1f} x floor" if floor else " " * 15
    print(
        f"  {what:34} p50 {p50 * 1e3:8.2f} ms  p99 {p99 * 1e3:8.2f} ms{ratio}  {LIMIT_SECONDS / p99:7.1f} x under the limit"
        f"  {patched} of {len(times)} patched",
        flush=True,
    )
    return p99


def used(stack: Stack) -> dict[str, float]:
    """Seconds of processor that the two services have used."""
    found = {}
    for name, process in stack.processes():
        if name in SERVICES:
            times = process.cpu_times()
            found[name] = times.user + times.system
    return found


async def answers(stack: Stack, authority: Path, mark: str, rate: int, seconds: int) -> None:
    with stack.client() as client:
        await asyncio.to_thread(fill_cache, client, run_spec(workflow(mark)), STEPS)
    asked = Connections(authority)
    print(f"\nanswers of the webhook at {rate} a second; {machine()}")
    same = workflow(mark)
    await measured(asked, lambda: review(same), rate, 1)
    kinds: dict[str, Callable[[], bytes]] = {
        "an object of another kind": lambda: review({}, "Pod"),
        "the same workflow, all cached": lambda: review(same),
        "another workflow each time": lambda: review(workflow(str(uuid.uuid4()))),
    }
    floor = 0.0
    for what, body in kinds.items():
        before = used(stack)
        p99 = show(what, *await measured(asked, body, rate, seconds), floor)
        floor = floor or p99
        spent = {name: (now - before[name]) / (rate * seconds) for name, now in used(stack).items()}
        print(
            "    processor an answer: "
            + ", ".join(
                f"{name.removeprefix('periplus_')} {each * 1e3:.2f} ms" for name, each in spent.items()
            )
        )
    print(f"  {machine()}")


def kubeconfig() -> Json:
    found: Json = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    return found


@asynccontextmanager
async def registered(authority: bytes) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A client of the API server that KUBECONFIG names, at which the webhook is registered, and the namespace."""
    config = kubeconfig()
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {"Authorization": f"Bearer {user['token']}"}
    name = f"periplus-bench-{os.getpid()}"
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{
            "name": "bench.webhook.periplus.dev",
            "clientConfig": {
                "url": f"https://127.0.0.1:{PORT}/mutate/{TOKEN}", "caBundle": base64.b64encode(authority).decode(),
            },
            "rules": [{"apiGroups": ["argoproj.io"], "apiVersions": ["v1alpha1"], "resources": ["workflows"], "operations": ["CREATE"]}],
            "objectSelector": {"matchLabels": {LABEL: "true"}}, "failurePolicy": "Ignore", "timeoutSeconds": 2,
            "sideEffects": "None", "reinvocationPolicy": "IfNeeded", "admissionReviewVersions": ["v1"],
        }],
    }  # fmt: skip
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(
        base_url=cluster["server"],
        verify=context,
        headers=headers,
        timeout=60,
        trust_env=False,
        limits=limits,
    ) as http:
        (await http.post(path, json=configuration)).raise_for_status()
        try:
            yield http, config["contexts"][0]["context"].get("namespace", "default")
        finally:
            (await http.delete(f"{path}/{name}")).raise_for_status()


async def creates(
    http: httpx.AsyncClient, namespace: str, made: Json, what: str, count: int, at_a_time: int
) -> Counter[str]:
    """Create Workflows that do not run; how many were created as they are, rewritten, or refused."""
    path = f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
    places, times, found = asyncio.Semaphore(at_a_time), [], Counter[str]()

    async def one() -> None:
        async with places:
            began = time.perf_counter()
            response = await http.post(path, params={"dryRun": "All"}, json=made)
            times.append(time.perf_counter() - began)
        if not response.is_success:
            found["refused"] += 1
            return
        labels = response.json()["metadata"]["labels"]
        found["rewritten" if "periplus.dev/rewritten" in labels else "as it is"] += 1

    await asyncio.gather(*(one() for _ in range(count)))
    ordered = sorted(times)
    print(
        f"  {what:34} {count:6} creates, {found['refused']} refused, {found['rewritten']} rewritten;"
        f" p50 {statistics.median(ordered) * 1e3:8.1f} ms  p99 {ordered[int(count * 0.99)] * 1e3:8.1f} ms",
        flush=True,
    )
    return found


async def on_kubernetes(stack: Stack, authority: bytes, made: Json, count: int) -> None:
    dispatcher = next(process for name, process in stack.processes() if name == "periplus_dispatcher")
    supervisor = stack.process
    async with registered(authority) as (http, namespace):
        print(f"\ncreates at a real API server, by dryRun; {machine()}")
        async with asyncio.timeout(60):  # until the API server has read the new configuration
            while not (await creates(http, namespace, made, "while it is registered", 1, 1))["rewritten"]:  # noqa: ASYNC110
                await asyncio.sleep(1)
        totals = await creates(http, namespace, made, "the dispatcher is alive", 200, 4)
        assert totals["rewritten"] == 200
        dispatcher.suspend()
        totals += await creates(http, namespace, made, "it is stopped and does not answer", 200, 50)
        dispatcher.resume()
        os.kill(supervisor.pid, signal.SIGSTOP)  # it would start the dispatcher again
        try:
            dispatcher.kill()
            totals += await creates(http, namespace, made, "it is dead", max(0, count - 400), 8)
        finally:
            os.kill(supervisor.pid, signal.SIGCONT)
    print(f"  refused: {totals['refused']} of {totals.total():,}")


def certificate(folder: Path) -> tuple[Path, Path]:
    text = subprocess.check_output([sys.executable, "-m", "periplus_local.certificate"], text=True)
    private, begin, public = text.partition("-----BEGIN CERTIFICATE-----")
    authority, key = folder / "tls.crt", folder / "tls.key"
    authority.write_text(begin + public)
    key.touch(mode=0o600)
    key.write_text(private)
    return authority, key


def main(rate: int = 200, seconds: int = 20, count: int = 10_000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        authority, key = certificate(Path(folder))
        os.environ |= {
            "DISPATCHER_WEBHOOK_ADDRESS": f"127.0.0.1:{PORT}", "DISPATCHER_WEBHOOK_TOKEN": TOKEN,
            "DISPATCHER_WEBHOOK_CERT_FILE": str(authority), "DISPATCHER_WEBHOOK_KEY_FILE": str(key),
            "DISPATCHER_OBSERVE": "argo=default",
        }  # fmt: skip
        with up(Path(folder) / "home") as stack:
            mark = str(uuid.uuid4())
            asyncio.run(answers(stack, authority, mark, rate, seconds))
            if os.environ.get("KUBECONFIG"):
                asyncio.run(on_kubernetes(stack, authority.read_bytes(), workflow(mark), count))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
