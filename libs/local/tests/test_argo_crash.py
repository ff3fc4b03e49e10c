"""After kill -9 and a restart of the local Argo every workflow goes on, and no finished step runs twice."""

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from periplus_local.argo.testing import ArgoProcess, Client, Refusal, nodes_of, phases_of


@pytest.fixture
def home() -> Iterator[Path]:
    """A home outside of /tmp, since every step has a /tmp of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="argo-crash-") as path:
        yield Path(path)


@pytest.fixture
def server(home: Path) -> Iterator[ArgoProcess]:
    server = ArgoProcess(home / "argo", slots=2)
    try:
        yield server
    finally:
        server.stop()


def step(home: Path, seconds: float) -> dict:
    """A template that appends a line to a file each time it runs to its end."""
    script = f"sleep {seconds}; echo x >> {home}/ran-{{{{inputs.parameters.n}}}}; echo {{{{inputs.parameters.n}}}} > /tmp/o"
    return {
        "name": "step",
        "inputs": {"parameters": [{"name": "n"}]},
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]},
        "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]},
    }


def task(name: str, value: str, **more: object) -> dict:
    return {
        "name": name,
        "template": "step",
        "arguments": {"parameters": [{"name": "n", "value": value}]},
        **more,
    }


def pipeline(home: Path, seconds: float = 0.05) -> dict:
    """Ten steps one after another, then eight together, then one that depends on all of them."""
    tasks = [task("c0", "c0")]
    tasks += [task(f"c{i}", f"c{i}", depends=f"c{i - 1}") for i in range(1, 10)]
    tasks += [task("fan", "f{{item}}", depends="c9", withItems=list(range(8)))]
    tasks += [task("last", "last", depends="fan")]
    main = {"name": "main", "dag": {"tasks": tasks}}
    return {
        "metadata": {"generateName": "crash-"},
        "spec": {"entrypoint": "main", "templates": [main, step(home, seconds)]},
    }


def runs(home: Path) -> dict[str, int]:
    """How often each step ran to its end."""
    return {path.name[4:]: len(path.read_text().splitlines()) for path in home.glob("ran-*")}


def test_a_run_goes_on_after_each_kill_and_no_finished_step_runs_twice(
    home: Path, server: ArgoProcess
) -> None:
    argo = server.start()
    name = argo.create(pipeline(home))
    for pause in (0.15, 0.4, 0.3, 0.6, 0.2):
        time.sleep(pause)
        before = finished(argo, name)
        server.kill()
        argo = server.start()
        assert before <= finished(argo, name)
    ended = argo.ended(name)
    assert ended["status"]["phase"] == "Succeeded"
    counts = runs(home)
    assert sorted(counts) == sorted([f"c{i}" for i in range(10)] + [f"f{i}" for i in range(8)] + ["last"])
    ran_again_values = {
        node["inputs"]["parameters"][0]["value"] for node in nodes_of(ended).values() if ran_again(node)
    }
    assert {step for step, count in counts.items() if count > 1} <= ran_again_values


def finished(argo: Client, name: str) -> set[str]:
    """The nodes that have succeeded."""
    return {node for node, phase in phases_of(argo.get(name)).items() if phase == "Succeeded"}


def ran_again(node: dict) -> bool:
    """Whether the node's message says that its step was run again."""
    return "run again" in node.get("message", "")


def test_a_step_that_runs_during_the_kill_is_adopted_or_says_that_it_ran_again(
    home: Path, server: ArgoProcess
) -> None:
    argo = server.start()
    main = {"name": "main", "steps": [[task("long", "long")]]}
    workflow = {
        "metadata": {"name": "one"},
        "spec": {"entrypoint": "main", "templates": [main, step(home, 1.5)]},
    }
    argo.create(workflow)
    argo.until("one", lambda w: phases_of(w).get("$[0].long") == "Running")
    server.kill()
    argo = server.start()
    ended = argo.ended("one")
    assert ended["status"]["phase"] == "Succeeded"
    node = nodes_of(ended)["one[0].long"]
    assert "restarted while this step ran" in node["message"]
    assert runs(home)["long"] == (2 if ran_again(node) else 1)
    assert node["outputs"]["parameters"][0]["value"] == "long"


def test_an_open_gate_stays_open_after_a_kill_and_its_answer_is_not_lost(
    home: Path, server: ArgoProcess
) -> None:
    gate = {
        "name": "gate",
        "suspend": {},
        "outputs": {"parameters": [{"name": "x", "valueFrom": {"supplied": {}}}]},
    }
    then = task("then", "{{steps.gate.outputs.parameters.x}}")
    main = {"name": "main", "steps": [[{"name": "gate", "template": "gate"}], [then]]}
    workflow = {
        "metadata": {"name": "g"},
        "spec": {"entrypoint": "main", "templates": [main, gate, step(home, 0)]},
    }
    argo = server.start()
    argo.create(workflow)
    argo.until("g", lambda w: phases_of(w).get("$[0].gate") == "Running")
    server.kill()
    argo = server.start()
    restarted = argo.until("g", lambda w: phases_of(w).get("$[0].gate") == "Running")
    argo.answer("g", nodes_of(restarted)["g[0].gate"]["id"], {"x": "answered"})
    server.kill()
    argo = server.start()
    assert argo.ended("g")["status"]["phase"] == "Succeeded"
    assert runs(home) == {"answered": 1}


def test_ended_workflows_templates_and_events_survive_a_kill(home: Path, server: ArgoProcess) -> None:
    argo = server.start()
    main = {"name": "main", "container": {"image": "x", "command": ["true"]}}
    argo.create({"metadata": {"name": "a"}, "spec": {"entrypoint": "main", "templates": [main]}})
    ended = argo.ended("a")
    argo.call(
        "POST",
        "workflow-templates/argo",
        {"template": {"metadata": {"name": "t"}, "spec": {"templates": [main]}}},
    )
    server.kill()
    argo = server.start()
    assert argo.get("a")["status"] == ended["status"]
    assert argo.call("GET", "workflow-templates/argo/t")["spec"]["templates"] == [main]
    with pytest.raises(Refusal) as refusal:
        argo.create({"metadata": {"name": "a"}, "spec": {"entrypoint": "main", "templates": [main]}})
    assert refusal.value.status == 409
    since = int(ended["metadata"]["resourceVersion"]) - 1
    with argo.open("GET", f"workflow-events/argo?listOptions.resourceVersion={since}") as stream:
        line = next(line for line in stream if line.startswith(b"data: "))
    event = json.loads(line[6:])["result"]
    assert event["object"]["metadata"]["name"] == "a"


def test_a_stop_before_a_kill_still_holds_after_it(home: Path, server: ArgoProcess) -> None:
    argo = server.start()
    main = {"name": "main", "steps": [[task("long", "long")], [task("never", "never")]]}
    workflow = {
        "metadata": {"name": "s"},
        "spec": {"entrypoint": "main", "templates": [main, step(home, 20)]},
    }
    argo.create(workflow)
    argo.until("s", lambda w: phases_of(w).get("$[0].long") == "Running")
    argo.do("s", "stop")
    server.kill()
    argo = server.start()
    ended = argo.ended("s")
    assert ended["status"]["phase"] == "Failed"
    assert "never" not in runs(home)


def test_a_second_server_on_a_home_does_not_start(home: Path, server: ArgoProcess) -> None:
    server.start()
    with pytest.raises(RuntimeError):
        ArgoProcess(home / "argo").start()


def test_a_step_that_was_ended_by_the_servers_stop_runs_again(home: Path, server: ArgoProcess) -> None:
    argo = server.start()
    main = {"name": "main", "steps": [[task("long", "long")]]}
    workflow = {
        "metadata": {"name": "one"},
        "spec": {"entrypoint": "main", "templates": [main, step(home, 1)]},
    }
    argo.create(workflow)
    argo.until("one", lambda w: phases_of(w).get("$[0].long") == "Running")
    server.stop()
    argo = server.start()
    ended = argo.ended("one")
    assert ended["status"]["phase"] == "Succeeded"
    assert ran_again(nodes_of(ended)["one[0].long"])
    assert runs(home) == {"long": 1}


def test_a_mutex_is_held_by_the_same_step_after_a_kill(home: Path, server: ArgoProcess) -> None:
    locked = step(home, 0.7) | {"synchronization": {"mutexes": [{"name": "door"}]}}
    locked["container"]["args"][0] = (
        f"mkdir {home}/inside; " + locked["container"]["args"][0] + f"; rmdir {home}/inside"
    )
    locked["container"]["args"][0] = "set -e; " + locked["container"]["args"][0]
    main = {"name": "main", "dag": {"tasks": [task("w", "w{{item}}", withItems=[1, 2, 3])]}}
    argo = server.start()
    argo.create({"metadata": {"name": "m"}, "spec": {"entrypoint": "main", "templates": [main, locked]}})
    argo.until("m", lambda w: "Running" in [p for n, p in phases_of(w).items() if n.startswith("$.w(")])
    server.kill()
    argo = server.start()
    assert argo.ended("m")["status"]["phase"] == "Succeeded"


def test_a_state_that_cannot_be_written_ends_the_workflow_and_not_the_server(
    home: Path, server: ArgoProcess
) -> None:
    argo = server.start()
    big = {
        "name": "big",
        "suspend": {},
        "outputs": {"parameters": [{"name": "x", "valueFrom": {"supplied": {}}}]},
    }
    argo.create({"metadata": {"name": "big"}, "spec": {"entrypoint": "big", "templates": [big]}})
    argo.until("big", lambda w: phases_of(w).get("$") == "Running")
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    with pytest.raises(Refusal) as refusal:
        argo.answer("big", "big", {"x": "x" * 500_000})
    assert "cannot write its state" in refusal.value.body
    assert argo.call("GET", "version")
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
    assert argo.ended("big")["status"]["phase"] in {"Failed", "Succeeded"}
    argo.create(
        {
            "metadata": {"name": "after"},
            "spec": {"entrypoint": "m", "templates": [{"name": "m", "suspend": {"duration": "0"}}]},
        }
    )
    assert argo.ended("after")["status"]["phase"] == "Succeeded"
