"""Runs on a real Argo: as they are, through Periplus with a cold cache, and with a warm one.

    python bench/real_argo.py [items] [gates] [manifest]

Needs the environment variables of tests/e2e: the Argo, its store, and PERIPLUS_TEST_IMAGE. Starts the services on this machine
with `periplus up --cluster`. Per run: seconds on the clock, pods, and nodes in Argo's status; and, with DISPATCHER_KUBERNETES_URL and a token
that may read /metrics, how many requests for Workflows its API server got, of everybody: controller, Argo's server and Periplus.

- `manifest` (examples/yaml/train.yaml): plain, cold, warm.
- A fan-out of `items` (20) that only the first step of the run knows, and a step that collects them.
- A chain of 10 behind a miss whose outputs stay equal.
- `gates` (20) gates that are open at once: seconds from a gate's event to that of its end, the dispatcher and the controller in
  between. What the controller waits before it looks again (DEFAULT_REQUEUE_TIME) is not part of it.
"""

import json
import os
import ssl
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from harness import Stack, machine, up

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.sdk.client import Client
from periplus.types.v1 import step_pb2

EXAMPLE = Path(__file__).parent.parent / "examples" / "yaml" / "train.yaml"
IMAGE = os.environ.get("PERIPLUS_TEST_IMAGE", "")
ADDRESS = f"{os.environ.get('ARGO_SERVER', '')}/api/v1/workflows/{os.environ.get('ARGO_NAMESPACE', '')}"
TIMEOUT_SECONDS = 600
CHAIN = 10
FINAL_PHASES = ("Succeeded", "Failed", "Error")
LABELS = {"periplus.dev/project": "default"}
"""Periplus adds it; here for the plain runs, as the store's keys may begin with it."""
Manifest = dict[str, Any]


@dataclass
class Measured:
    """A run that has ended."""

    seconds: float
    pods: int
    nodes: int
    gates: int
    requests: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:6.1f} s  {self.pods:4} pods  {self.nodes:4} nodes  {self.gates:3} gates"
            f"  {self.requests:5} requests"
        )


class Argo:
    """The Argo server, asked directly, and the API server behind it."""

    def __init__(self) -> None:
        token = os.environ.get("ARGO_TOKEN")
        self._http = httpx.Client(headers={"Authorization": token} if token else {}, timeout=60)
        self._kubernetes = None
        if url := os.environ.get("DISPATCHER_KUBERNETES_URL"):
            bearer = Path(os.environ["DISPATCHER_KUBERNETES_TOKEN_FILE"]).read_text().strip()
            context = ssl.create_default_context(cafile=os.environ["DISPATCHER_KUBERNETES_CA_FILE"])
            headers = {"Authorization": f"Bearer {bearer}"}
            self._kubernetes = httpx.Client(base_url=url, headers=headers, verify=context, timeout=60)

    def requests(self) -> int:
        """Requests for Workflows that the API server has answered, and watches that have ended; 0 if that is not known."""
        if self._kubernetes is None:
            return 0
        lines = self._kubernetes.get("/metrics").raise_for_status().text.splitlines()
        counted = (line for line in lines if line.startswith("apiserver_request_total{"))
        return sum(int(float(line.rpartition(" ")[2])) for line in counted if 'resource="workflows"' in line)

    def run(self, manifest: Manifest) -> Measured:
        """Create a Workflow as it is, and wait for its end."""
        began, before = time.perf_counter(), self.requests()
        created = self._http.post(ADDRESS, json={"workflow": manifest}).raise_for_status().json()
        name = created["metadata"]["name"]
        for found in _changes(name):
            phase = found.get("status", {}).get("phase")
            if phase in FINAL_PHASES:
                assert phase == "Succeeded", found["status"]["message"]
                break
        return self.measured(name, time.perf_counter() - began, before)

    def measured(self, name: str, seconds: float, requests_before: int) -> Measured:
        """The pods and nodes of a Workflow; none, if there is no such Workflow."""
        requests = self.requests() - requests_before
        found = self._http.get(f"{ADDRESS}/{name}")
        if found.status_code == 404:
            return Measured(seconds, 0, 0, 0, requests)
        nodes = found.raise_for_status().json()["status"].get("nodes", {}).values()
        kinds = [node["type"] for node in nodes]
        return Measured(seconds, kinds.count("Pod"), len(kinds), kinds.count("Suspend"), requests)


def _changes(name: str) -> Iterator[Any]:
    """A Workflow each time that it changes."""
    url = ADDRESS.replace("/workflows/", "/workflow-events/")
    query = {"listOptions.fieldSelector": f"metadata.name={name}"}
    token = {"Authorization": os.environ["ARGO_TOKEN"]} if "ARGO_TOKEN" in os.environ else {}
    headers = {"Accept": "text/event-stream", **token}
    with httpx.stream("GET", url, params=query, headers=headers, timeout=TIMEOUT_SECONDS) as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))["result"]["object"]


class Runs:
    """Runs through the services."""

    def __init__(self, client: Client, argo: Argo) -> None:
        self._client, self._argo = client, argo

    def run(self, manifest: Manifest, during: "GateTimes | None" = None) -> Measured:
        """Submit, and wait until lineage reports the end."""
        began, before = time.perf_counter(), self._argo.requests()
        spec = dispatcher_pb2.RunSpec(project="default", manifest=json.dumps(manifest))
        accepted = self._client.submit(spec, str(uuid.uuid4()))
        if during:
            during.watch(accepted.run)
        phase = accepted.phase
        for change in self._client.watch(accepted.run, wait_seconds=60):
            phase = change.run.phase
        assert phase == step_pb2.RUN_PHASE_SUCCEEDED, self._client.get_run(accepted.run)
        return self._argo.measured(accepted.run, time.perf_counter() - began, before)

    def fill_cache(self, manifest: Manifest, steps: int) -> Measured:
        """Run until `steps` are hits or wait for one: the cache records a moment after the run has ended."""
        measured = self.run(manifest)
        spec = dispatcher_pb2.RunSpec(project="default", manifest=json.dumps(manifest))
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while sum(s.verdict == step_pb2.VERDICT_HIT for s in self._client.plan(spec).steps) < steps:
            assert time.monotonic() < deadline, "the cache did not record the steps"
            time.sleep(0.2)
        return measured


class GateTimes(threading.Thread):
    """From the event that shows a gate as open to that which shows its end, in seconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []

    def watch(self, run: str) -> None:
        self._run = run
        self.start()

    def run(self) -> None:
        opened: dict[str, float] = {}
        for workflow in _changes(self._run):
            now, status = time.perf_counter(), workflow.get("status", {})
            for key, node in status.get("nodes", {}).items():
                if node["type"] == "Suspend" and node["phase"] == "Running":
                    opened.setdefault(key, now)
                elif key in opened:
                    self.seconds.append(now - opened.pop(key))
            if status.get("phase") in FINAL_PHASES:
                return


def workflow(name: str, main: Manifest, *templates: Manifest) -> Manifest:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{name}-", "labels": LABELS},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", **main}, *templates]},
    }


def script(name: str, source: str, *inputs: str) -> Manifest:
    """A template whose standard output is its result and whose file /tmp/out is the parameter `out`."""
    return {
        "name": name,
        "inputs": {"parameters": [{"name": each} for each in inputs]},
        "script": {"image": IMAGE, "command": ["python3"], "source": source},
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
    }


def call(name: str, template: str, depends: str = "", **parameters: str) -> Manifest:
    arguments = {"parameters": [{"name": key, "value": value} for key, value in parameters.items()]}
    after = {"depends": depends} if depends else {}
    return {"name": name, "template": template, "arguments": arguments, **after}


WRITE = "open('/tmp/out', 'w').write({value})  # {word}"


def fan_out(items: int, word: str) -> Manifest:
    tasks = [
        call("list", "list"),
        {**call("each", "each", "list", x="{{item}}"), "withParam": "{{tasks.list.outputs.parameters.out}}"},
        call("collect", "collect", "each", all="{{tasks.each.outputs.parameters.out}}"),
    ]
    return workflow(
        "fan-out",
        {"dag": {"tasks": tasks}},
        script("list", WRITE.format(value=f"str(list(range({items})))", word=word)),
        script("each", WRITE.format(value="'{{inputs.parameters.x}}'", word=word), "x"),
        script("collect", WRITE.format(value="str(len('''{{inputs.parameters.all}}'''))", word=word), "all"),
    )


def chain(word: str, first: str) -> Manifest:
    value = "{{{{tasks.s{}.outputs.parameters.out}}}}"
    behind = [call(f"s{i}", "next", f"s{i - 1}", x=value.format(i - 1)) for i in range(1, CHAIN + 1)]
    tasks = [call("s0", "first"), *behind]
    return workflow(
        "chain",
        {"dag": {"tasks": tasks}},
        script("first", WRITE.format(value="'0'", word=first)),
        script("next", WRITE.format(value="str(int('{{inputs.parameters.x}}') + 1)", word=word), "x"),
    )


def many_gates(gates: int, word: str, first: str) -> Manifest:
    """Steps of a group have a gate each: they wait for the group before and not for a task."""
    value = "{{{{steps.first.outputs.parameters.out}}}}{}"
    group = [call(f"each-{i}", "next", x=value.format(i)) for i in range(gates)]
    return workflow(
        "gates",
        {"steps": [[call("first", "first")], group]},
        script("first", WRITE.format(value="'1'", word=first)),
        script("next", WRITE.format(value="'{{inputs.parameters.x}}'", word=word), "x"),
    )


def named(manifest: Path, word: str) -> Manifest:
    """A manifest with a comment in each script, so that no entry exists, and with the test image."""
    found = yaml.safe_load(manifest.read_text())
    found["metadata"].setdefault("labels", {}).update(LABELS)
    for template in found["spec"]["templates"]:
        if "script" in template:
            template["script"]["source"] += f"\n# {word}\n"
    for parameter in found["spec"].get("arguments", {}).get("parameters", []):
        if parameter["name"] == "image":
            parameter["value"] = IMAGE
    return found


def show(title: str, rows: Mapping[str, Measured]) -> None:
    print(f"\n{title}", flush=True)
    floor = next(iter(rows.values()))
    for name, row in rows.items():
        print(f"  {name:28} {row}  {row.seconds / floor.seconds:5.2f} x", flush=True)


def main(items: int, gates: int, manifest: Path, stack: Stack) -> None:
    argo, word = Argo(), lambda: uuid.uuid4().hex
    with stack.client() as client:
        runs = Runs(client, argo)
        own = named(manifest, word())
        plain = argo.run(own)
        cold = runs.fill_cache(own, 1)
        time.sleep(2)
        show(manifest.name, {"plain": plain, "through us, cold": cold, "through us, warm": runs.run(own)})

        wide = fan_out(items, word())
        plain = argo.run(wide)
        cold = runs.fill_cache(wide, 1)
        time.sleep(2)
        warm = runs.run(wide)
        show(
            f"1, {items} known mid-run, 1",
            {"plain": plain, "through us, cold": cold, "through us, warm": warm},
        )

        same = word()
        line = chain(same, word())
        plain = argo.run(line)
        cold = runs.fill_cache(line, 1)
        time.sleep(2)
        behind = runs.run(chain(same, word()))
        show(
            f"a chain of {CHAIN} behind a step",
            {"plain": plain, "through us, cold": cold, "behind a miss": behind},
        )

        same = word()
        runs.fill_cache(many_gates(gates, same, word()), 1)
        time.sleep(2)
        times = GateTimes()
        behind = runs.run(many_gates(gates, same, word()), times)
        times.join(60)
        show(f"{gates} steps behind a miss", {"gates at once": behind})
        ordered = sorted(times.seconds)
        print(
            f"  a gate is open for {statistics.median(ordered) * 1e3:.0f} ms,"
            f" p99 {ordered[int(len(ordered) * 0.99)] * 1e3:.0f} ms (n={len(ordered)})"
        )
    print(f"\n{machine()}")


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["20", "20", str(EXAMPLE)][len(sys.argv) - 1 :]
    os.environ["DISPATCHER_IMMUTABLE_IMAGE_PREFIXES"] = IMAGE
    with (
        tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory,
        up(Path(directory, "home"), "--cluster") as started,
    ):
        main(int(arguments[0]), int(arguments[1]), Path(arguments[2]), started)
