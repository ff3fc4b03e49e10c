"""No manifest, document or path makes a server run without bound, or answers with an error of Python's."""

import json
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import grpc
import psutil
import pytest
from stack import Stack

from periplus.cache.v1 import cache_pb2
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus_local.argo.samples import Body, dag, say, sh, start, steps, task, workflow
from periplus_local.argo.testing import ArgoProcess, Client, Refusal, local_argo, nodes_of, phases_of
from periplus_manifest.bounds import RunBounds

MIB = 1 << 20
SKIPPED = {"when": "1 == 2"}
NOTHING = {"name": "nothing", "suspend": {"duration": "0"}}


@pytest.fixture(scope="module")
def server() -> Iterator[ArgoProcess]:
    """A local Argo as a process, outside of /tmp since steps have a private /tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bounds-") as home:
        server = ArgoProcess(Path(home) / "argo", slots=2, grace_seconds=0.2)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def argo(server: ArgoProcess) -> Client:
    return Client((server.home / "address").read_text(), (server.home / "token").read_text())


@pytest.fixture(scope="module")
def small() -> Iterator[Client]:
    """A local Argo whose workflows may have a tenth of the nodes, so that what exceeds the bound does it soon."""
    with local_argo(slots=2, grace_seconds=0.2, bounds=RunBounds(nodes=2_000)) as client:
        yield client


def named(name: str, *tasks: Body, **fields: Any) -> Body:
    return {"name": name, "dag": {"tasks": list(tasks)}, **fields}


def doubling(levels: int, **call: Any) -> list[Body]:
    """Templates that each call the next twice, down to one that does nothing."""
    calls = [[task(key, f"t{n + 1}", **call) for key in ("a", "b")] for n in range(levels)]
    return [named(f"t{n}", *two) for n, two in enumerate(calls)] + [{**NOTHING, "name": f"t{levels}"}]


def refusal(argo: Client, path: str, body: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        argo.call("POST", path, body)
    return refused.value


def finished(argo: Client, name: str, seconds: float = 100) -> Body:
    """Wait until a large workflow has ended, without reading all of it at each look, and give it."""
    end = time.monotonic() + seconds
    query = f"listOptions.fieldSelector=metadata.name={name}&fields=items.status.phase"
    while time.monotonic() < end:
        [item] = argo.call("GET", f"workflows/argo?{query}")["items"]
        if item.get("status", {}).get("phase") not in {None, "", "Pending", "Running"}:
            return argo.get(name)
        time.sleep(0.1)
    raise AssertionError(f"{name} has not ended within {seconds} seconds")


class Cost:
    """What the server spends while the block runs: seconds of a processor, and growth of its memory in bytes."""

    def __init__(self, server: ArgoProcess) -> None:
        self._process = psutil.Process(server.pid)

    def _now(self) -> tuple[float, int]:
        times = self._process.cpu_times()
        return times.user + times.system, self._process.memory_info().rss

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, memory = self._now()
        self.seconds, self.memory = seconds - self._before[0], memory - self._before[1]


class Others:
    """Runs of one step, one after another, while something else goes on; `slowest` is the longest in seconds."""

    def __init__(self, argo: Client) -> None:
        self._argo, self._stop = argo, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.slowest, self.ended = 0.0, 0

    def _run(self) -> None:
        while not self._stop.is_set() or not self.ended:
            began = time.monotonic()
            name = start(self._argo, sh("main", "true"))
            assert self._argo.ended(name)["status"]["phase"] == "Succeeded"
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.ended += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


@pytest.mark.parametrize("path", ["workflows/argo", "workflows/argo/lint"])
def test_a_billion_nodes_are_refused_by_the_local_argo_with_field_count_and_bound(
    server: ArgoProcess, argo: Client, path: str
) -> None:
    with Cost(server) as cost:
        refused = refusal(argo, path, {"workflow": workflow(*doubling(30))})
    message = "spec.templates[16]: the workflow would have 2147483647 nodes; at most 20000 are allowed"
    assert message in refused.body
    assert cost.seconds < 10
    assert cost.memory < 64 * MIB


def test_a_billion_nodes_of_stored_templates_are_refused(argo: Client) -> None:
    half = {"spec": {"templates": doubling(10)}}
    argo.call("POST", "workflow-templates/argo", {"template": {"metadata": {"name": "many"}, **half}})
    call = {"name": "c", "templateRef": {"name": "many", "template": "t0"}}
    refused = refusal(
        argo, "workflows/argo", {"workflow": workflow(dag({**call, "withItems": list(range(100))}))}
    )
    assert "the workflow would have 204702 nodes" in refused.body
    whole = {"spec": {"entrypoint": "t0", "templates": doubling(30)}}
    refused = refusal(argo, "workflow-templates/argo", {"template": {"metadata": {"name": "x"}, **whole}})
    assert "2147483647 nodes" in refused.body


def test_a_resubmission_with_other_parameters_is_counted_again(argo: Client) -> None:
    loop = task("a", "nothing", withSequence={"count": "{{workflow.parameters.n}}"}, **SKIPPED)
    arguments = {"parameters": [{"name": "n", "value": "2"}]}
    name = start(argo, dag(loop), NOTHING, arguments=arguments)
    argo.ended(name)
    with pytest.raises(Refusal, match="1000000000000 items; at most 10000 are allowed"):
        argo.do(name, "resubmit", parameters=["n=1000000000000"])


def test_a_run_that_makes_more_nodes_than_allowed_while_it_runs_ends_with_the_reason(
    small: Client,
) -> None:
    listed = say(json.dumps(list(range(900))).replace(" ", ""), "list")
    inner = named("inner", *(task(f"t{n}", "nothing", **SKIPPED) for n in range(4)))
    main = dag(
        task("l", "list"), task("a", "inner", depends="l", withParam="{{tasks.l.outputs.parameters.o}}")
    )
    with Others(small) as others:
        ended = finished(small, start(small, main, listed, inner, NOTHING))
    assert ended["status"]["phase"] == "Error"
    assert ended["status"]["message"] == "the workflow has more than 2000 nodes"
    assert len(nodes_of(ended)) <= 2_000
    assert not {"Running", "Pending"} & set(phases_of(ended).values())
    assert others.slowest < 30
    assert others.ended >= 2


def test_a_recursion_that_doubles_ends_with_the_reason_and_its_processes_end(small: Client) -> None:
    again = [task(key, "main", when="'{{workflow.name}}' != 'never'") for key in ("a", "b")]
    with_sleep = {"name": "main", "dag": {"tasks": [task("s", "sleep"), *again]}}
    seconds = f"100.{os.getpid()}"  # a command line of its own
    sleep = sh("sleep", f"sleep {seconds}")
    ended = finished(small, start(small, with_sleep, sleep))
    assert (ended["status"]["phase"], ended["status"]["message"]) == (
        "Error",
        "the workflow has more than 2000 nodes",
    )
    assert len(nodes_of(ended)) <= 2_000
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", seconds]
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("json.dumps(list(range(10001)))", "10001 items; at most 10000 are allowed"),
        ("'[' * 500000 + ']' * 500000", "could not be parsed as a JSON list"),
        ("json.dumps(['x' * 500000])", ""),
    ],
)
def test_items_that_only_the_run_knows_are_bounded_as_well(argo: Client, value: str, reason: str) -> None:
    made = say("", "make")
    made["container"] = {"image": "x", "command": ["python3", "-c"], "args": [
        f"import json; open('/tmp/o', 'w').write({value})"]}  # fmt: skip
    loop = task("b", "nothing", withParam="{{steps.a.outputs.parameters.o}}")
    ended = finished(argo, start(argo, steps([task("a", "make")], [loop]), made, NOTHING))
    assert ended["status"]["phase"] == ("Failed" if reason else "Succeeded")
    assert reason in ended["status"].get("message", "")


def test_a_text_that_doubles_at_each_level_ends_the_run_with_the_reason(
    server: ArgoProcess, argo: Client
) -> None:
    twice = {"arguments": {"parameters": [{"name": "a", "value": "{{inputs.parameters.a}}" * 2}]}}
    inputs = {"inputs": {"parameters": [{"name": "a"}]}}
    levels = [{**named(f"t{n}", {**task("c", f"t{n + 1}"), **twice}), **inputs} for n in range(40)]
    arguments = {"parameters": [{"name": "a", "value": "xxxxxxxx"}]}
    with Cost(server) as cost:
        name = start(argo, *levels, {**NOTHING, "name": "t40", **inputs}, arguments=arguments)
        ended = finished(argo, name)
    assert ended["status"]["phase"] == "Error"
    assert any("more than 1048576 characters" in node.get("message", "") for node in nodes_of(ended).values())
    assert cost.memory < 64 * MIB


def test_items_whose_arguments_fill_the_memory_end_the_run_with_the_reason(
    server: ArgoProcess, argo: Client
) -> None:
    """A thousand items with a text of 500 kB each would be 500 MB."""
    given = {"parameters": [{"name": "a", "value": "{{workflow.parameters.a}}{{item}}"}]}
    loop = {**task("b", "takes", withSequence={"count": "1000"}), "arguments": given}
    takes = {**NOTHING, "name": "takes", "inputs": {"parameters": [{"name": "a"}]}}
    arguments = {"parameters": [{"name": "a", "value": "x" * 500_000}]}
    with Cost(server) as cost:
        ended = finished(argo, start(argo, dag(loop), takes, arguments=arguments))
    assert ended["status"]["phase"] == "Error"
    assert any("33554432" in node.get("message", "") for node in nodes_of(ended).values())
    assert cost.memory < 128 * MIB


def test_a_run_as_large_as_allowed_ends_and_others_go_on_meanwhile(server: ArgoProcess, argo: Client) -> None:
    loops = [task(f"l{n}", "nothing", withSequence={"count": "9998"}, **SKIPPED) for n in range(2)]
    with Others(argo) as others:
        ended = finished(argo, start(argo, dag(*loops), NOTHING))
    assert ended["status"]["phase"] == "Succeeded"
    assert len(nodes_of(ended)) >= 19_990  # ids are hashes of 32 bits, as in Argo: of so many, two may be one
    assert others.slowest < 30


PLANTED = {
    "billion": "spec.templates[16]: the workflow would have 2147483647 nodes; at most 20000 are allowed",
    "nodes": "the stored workflow has 20001 nodes",
    "shape": "the state of the workflow cannot be read",
}


def test_a_planted_state_does_not_end_the_server_and_its_runs_end_with_the_reason(
    server: ArgoProcess, argo: Client
) -> None:
    waiting = start(argo, {"name": "main", "suspend": {}})
    argo.until(waiting, nodes_of)
    server.kill()
    with closing(sqlite3.connect(server.home / "state.sqlite3")) as state, state:
        columns = "created_version, version, completed, metadata, spec, status, control"
        row = state.execute(f"SELECT {columns} FROM workflow WHERE name = ?", (waiting,)).fetchone()
        specs = {
            "billion": workflow(*doubling(30))["spec"],
            "nodes": json.loads(row[4]),
            "shape": {"templates": 5},
        }
        for name, spec in specs.items():
            metadata = {**json.loads(row[3]), "name": name, "uid": name}
            values = (name, "argo", name, *row[:3], json.dumps(metadata), json.dumps(spec), *row[5:])
            state.execute("INSERT INTO workflow VALUES (?,?,?,?,?,?,?,?,?,?)", values)
        body = json.dumps({"id": "x", "name": "x", "type": "Pod", "phase": "Running", "startedAt": "now"})
        state.executemany("INSERT INTO node VALUES ('nodes',?,?)", [(str(n), body) for n in range(20_001)])
        deep = json.dumps({**specs["billion"], "x": 0}).replace('"x": 0', '"x": ' + "[" * 900 + "]" * 900)
        values = ("deep", "argo", "deep", *row[:3], row[3], deep, *row[5:])
        state.execute("INSERT INTO workflow VALUES (?,?,?,?,?,?,?,?,?,?)", values)
    argo = server.start()
    for name, reason in PLANTED.items():
        status = argo.ended(name, 20)["status"]
        assert status["phase"] == "Error"
        assert reason in status["message"]
    with pytest.raises(Refusal):
        argo.get("deep")  # set aside with the file that it was in
    assert psutil.Process(server.pid).memory_info().rss < 200 * MIB
    argo.do(waiting, "resume")
    assert argo.ended(waiting)["status"]["phase"] == "Succeeded"
    assert finished(argo, start(argo, sh("main", "true")))["status"]["phase"] == "Succeeded"
    server.kill()
    argo = server.start()
    assert argo.get("billion")["status"]["phase"] == "Error"


@pytest.mark.parametrize("depth", [70, 2_000, 100_000])
def test_a_deep_request_is_refused_without_a_raw_error(argo: Client, depth: int) -> None:
    for body in (
        b'{"workflow":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}",
        b'{"workflow":' + b"[" * depth + b"]" * depth + b"}",
    ):
        refused = refusal(argo, "workflows/argo", body)
        assert refused.status == 400
        assert "RecursionError" not in refused.body


# The dispatcher, as `periplus up` runs it.


PROJECT = "bounds"
"""Other tests have runs on the same stack."""


def plan_refusal(stack: Stack, manifest: Body, call: str) -> grpc.RpcError:
    spec = dispatcher_pb2.RunSpec(project=PROJECT, manifest=json.dumps(manifest))
    requests = {
        "PlanRun": (stack.dispatcher.PlanRun, dispatcher_pb2.PlanRunRequest(spec=spec)),
        "SubmitRun": (stack.dispatcher.SubmitRun, dispatcher_pb2.SubmitRunRequest(spec=spec, request_id="x")),
    }
    method, request = requests[call]
    with pytest.raises(grpc.RpcError) as refused:
        method(request, timeout=30)
    return refused.value


TWICE = {"arguments": {"parameters": [{"name": "a", "value": "{{inputs.parameters.a}}" * 2}]}}
INPUT = {"inputs": {"parameters": [{"name": "a"}]}}
LONG = [
    *({**named(f"t{n}", {**task("c", f"t{n + 1}"), **TWICE}), **INPUT} for n in range(40)),
    {**NOTHING, "name": "t40", **INPUT},
]
DEEP = [*(named(f"t{n}", task("c", f"t{n + 1}")) for n in range(2_000)), {**NOTHING, "name": "t2000"}]
ATTACKS = {
    "nodes": (workflow(*doubling(30)), "spec.templates[16]", "2147483647 nodes; at most 20000"),
    "depth": (workflow(*DEEP), "spec.templates[98].dag.tasks[0]", "100 templates within one another"),
    "items": (
        workflow(dag(task("a", "nothing", withSequence={"count": "1000000000000"})), NOTHING),
        "spec.templates[0].dag.tasks[0].withSequence",
        "1000000000000 items; at most 10000",
    ),
    "text": (
        workflow(*LONG, arguments={"parameters": [{"name": "a", "value": "xxxxxxxx"}]}),
        "spec.templates[17]",
        "more than 1048576 characters",
    ),
}


@pytest.mark.parametrize("call", ["PlanRun", "SubmitRun"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_dispatcher_refuses_what_multiplies_with_field_size_and_bound(
    stack: Stack, attack: str, call: str
) -> None:
    manifest, field, message = ATTACKS[attack]
    process = psutil.Process(stack.pid("dispatcher"))
    before, began = process.memory_info().rss, process.cpu_times().user
    refused = plan_refusal(stack, manifest, call)
    assert process.cpu_times().user - began < 10
    assert process.memory_info().rss - before < 64 * MIB
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in refused.details()
    assert any(
        f"spec.manifest.{field}".encode() in value
        for _, value in refused.trailing_metadata()
        if isinstance(value, bytes)
    )
    assert not stack.lineage.ListRuns(lineage_pb2.ListRunsRequest(project=PROJECT), timeout=30).runs


def test_a_plan_without_steps_says_why(stack: Stack) -> None:
    spec = dispatcher_pb2.RunSpec(project="default", manifest=json.dumps(workflow(*doubling(13))))
    plan = stack.dispatcher.PlanRun(dispatcher_pb2.PlanRunRequest(spec=spec), timeout=60).plan
    assert not plan.steps
    assert (
        "no step is planned or cached: the workflow has more than 10000 calls of templates" in plan.warnings
    )


def text(*parts: cache_pb2.TextPart) -> cache_pb2.Text:
    return cache_pb2.Text(parts=parts)


def asked(*steps: cache_pb2.StepQuery) -> cache_pb2.ResolveStepsRequest:
    request = cache_pb2.ResolveStepsRequest(project=PROJECT, steps=steps)
    request.templates["t"].name, request.templates["t"].document = "t", '{"x": 1}'
    return request


def given(count: int, value: cache_pb2.Text) -> list[cache_pb2.ParameterSource]:
    return [cache_pb2.ParameterSource(name=f"p{n}", value=value) for n in range(count)]


def many_parts() -> cache_pb2.ResolveStepsRequest:
    """15 MB that are four million small messages."""
    items = text(*(cache_pb2.TextPart(literal="") for _ in range(1_000)))
    return asked(*(cache_pb2.StepQuery(id=f"s{n}", template="t", items=items) for n in range(3_900)))


def many_parts_that_are_invalid() -> cache_pb2.ResolveStepsRequest:
    """The same, which ends once its fields were checked."""
    request = many_parts()
    request.steps[-1].ClearField("id")
    return request


def fan_out() -> cache_pb2.ResolveStepsRequest:
    """300 kB whose values are computed for each of ten thousand items."""
    items = text(cache_pb2.TextPart(literal=json.dumps(list(range(10_000)))))
    value = text(cache_pb2.TextPart(item=""), *(cache_pb2.TextPart(literal="x") for _ in range(100)))
    return asked(cache_pb2.StepQuery(id="s", template="t", items=items, parameters=given(50, value)))


@pytest.mark.parametrize("attack", [many_parts, many_parts_that_are_invalid, fan_out])
def test_the_cache_answers_others_while_it_looks_up_a_large_request(
    stack: Stack, attack: Callable[[], cache_pb2.ResolveStepsRequest]
) -> None:
    """Which takes seconds of a processor."""
    call = stack.channels["cache"].unary_unary("/periplus.cache.v1.CacheService/ResolveSteps")
    slow = call.future(attack().SerializeToString(), timeout=60)
    answers = 0
    try:
        while answers < 8 and not slow.done():
            stack.cache.GetSavings(cache_pb2.GetSavingsRequest(project=PROJECT), timeout=30)
            answers += 1
        assert answers == 8  # and not one after another part of the work
    finally:
        slow.cancel()
    end = time.monotonic() + 60  # and then it ends, as its caller is gone
    process = psutil.Process(stack.pid("cache"))
    while process.cpu_percent(0.2) > 50:
        assert time.monotonic() < end


def test_the_command_names_field_size_and_bound(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "billion.yaml"
    file.write_text(json.dumps(workflow(*doubling(30))))
    for command in ("plan", "run"):
        done = stack.periplus(command, str(file), check=False)
        assert done.returncode == 2
        assert "2147483647 nodes; at most 20000 are allowed" in done.stderr
        assert "spec.templates[16]" in done.stderr
        assert "Traceback" not in done.stderr
