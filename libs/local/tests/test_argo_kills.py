"""kill -9 of the local Argo at random moments: workflows go on, and no finished step starts again.

`KILLS=500 pytest libs/local/tests/test_argo_kills.py` runs for a long time; `SEED` repeats the random choices.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from periplus_local.argo.samples import Body, dag, output, sh, steps, task, workflow
from periplus_local.argo.testing import COMPLETED, ArgoProcess, Client, nodes_of

KILLS = int(os.environ.get("KILLS", "6"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
RERUN_MESSAGE = "it was run again"


@pytest.fixture
def home() -> Iterator[Path]:
    """A home outside of /tmp, since every step has a /tmp of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="argo-kills-") as path:
        yield Path(path)


def step(home: Path, name: str, code: str = "0", **more: Body) -> Body:
    """A template that writes a mark at the start and at the end of its step, and exits with its code."""
    marks_file = f"{home}/marks/{{{{inputs.parameters.n}}}}"
    line = f"echo s >> {marks_file}; sleep 0.0{{{{inputs.parameters.n}}}}; echo {{{{inputs.parameters.n}}}} > /tmp/o"
    inputs = {"parameters": [{"name": "n"}]}
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}
    return sh(name, f"{line}; echo e >> {marks_file}; exit {code}", inputs=inputs, outputs=outputs, **more)


def call(name: str, number: str, template: str = "step", **more: object) -> Body:
    return task(name, template, given={"n": number}, **more)


def pipeline(home: Path) -> Body:
    """A chain, then a loop, retries, a mutex, nested steps with a suspend node, and an exit handler."""
    chain = [call(f"c{at}", f"1{at}", **({"depends": f"c{at - 1}"} if at else {})) for at in range(5)]
    middle = [
        call("fan", "2{{item}}", depends="c4", withItems=list(range(5))),
        call("tried", "30", "flaky", depends="c4"),
        call("held", "4{{item}}", "locked", depends="c4", withItems=[0, 1]),
        task("inner", "inner", depends="c4"),
    ]
    last = call(
        "last", "{{=int(tasks.c4.outputs.parameters.o) + 50}}", depends="fan && tried && held && inner"
    )
    inner = {
        **steps([call("x", "70"), call("y", "71")], [task("pause", "pause")], [call("z", "72")]),
        "name": "inner",
    }
    flaky = step(home, "flaky", "$((1{{retries}} < 12))", retryStrategy={"limit": 3})
    locked = step(home, "locked", synchronization={"mutexes": [{"name": "door"}]})
    pause = {"name": "pause", "suspend": {"duration": "1"}}
    handler = dag(call("after", "80"))
    templates = [dag(*chain, *middle, last), inner, step(home, "step"), flaky, locked, pause]
    return workflow(*templates, {**handler, "name": "handler"}, onExit="handler")


def marks_of(home: Path) -> dict[str, str]:
    """The marks of each step so far: an s for each start, an e for each end."""
    return {path.name: path.read_text().replace("\n", "") for path in (home / "marks").iterdir()}


def kill(server: ArgoProcess, chance: random.Random) -> str:
    """Kill the server, sometimes with its fork server or with all its processes; gives which."""
    killed = chance.choice(["server", "server", "fork server", "all"])
    below = psutil.Process(server.pid).children(recursive=True) if killed != "server" else []
    server.kill()
    for each in below[:1] if killed == "fork server" else below:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    return killed


def pods(argo: Client, name: str, *phases: str) -> dict[str, str]:
    """The messages of the pods in one of the phases, by the number that is their input."""
    found = [each for each in nodes_of(argo.get(name)).values() if each["type"] == "Pod"]
    return {number(pod): pod.get("message", "") for pod in found if pod["phase"] in phases}


def number(pod: Body) -> str:
    return str(pod["inputs"]["parameters"][0]["value"])


def one_run(home: Path, server: ArgoProcess, chance: random.Random, most: int) -> int:
    """Run one workflow with at most `most` kills; gives how many there were."""
    argo, kills = server.start(), 0
    crashes: list[set[str]] = []  # the steps that had ended when all processes were killed
    name = argo.create(pipeline(home))
    while kills < most:
        time.sleep(chance.uniform(0, 0.9))
        over = argo.get(name)["metadata"]["labels"].get(COMPLETED) == "true"
        ended, before = pods(argo, name, "Succeeded"), marks_of(home)
        if over:
            break
        killed = [kill(server, chance)]
        kills += 1
        if chance.random() < 0.3:
            server.begin()
            time.sleep(chance.uniform(0, 0.7))
            killed.append(kill(server, chance))
        crashes += [set(ended)] if "all" in killed else []
        print(name, "killed:", *killed, "with", len(ended), "steps ended")
        argo = server.start()
        assert ended.keys() <= pods(argo, name, "Succeeded").keys()
        assert {each: before[each] for each in ended} == {each: marks_of(home)[each] for each in ended}
    verify(home, argo.ended(name), crashes)
    server.stop()
    return kills


def verify(home: Path, workflow_body: Body, crashes: list[set[str]]) -> None:
    """Assert that it succeeded and that a step ran again only if its process was killed and its node says so."""
    assert workflow_body["status"]["phase"] == "Succeeded", workflow_body["status"]
    ran = [each for each in nodes_of(workflow_body).values() if each["type"] == "Pod"]
    reported = {number(pod) for pod in ran if RERUN_MESSAGE in pod.get("message", "")}
    assert {number(pod) for pod in ran} == marks_of(home).keys()
    for each, marks in marks_of(home).items():
        tries = sum(number(pod) == each for pod in ran)
        may_run_again = each in reported and any(each not in ended for ended in crashes)
        assert marks.count("s") == tries or (may_run_again and marks.count("s") > tries), (
            each,
            marks,
            crashes,
        )
    assert output(workflow_body, ".last") == "64"
    for path in (home / "marks").iterdir():
        path.unlink()


def test_runs_go_on_after_every_kill_and_no_finished_step_starts_again(home: Path) -> None:
    print(f"SEED={SEED}")
    (home / "marks").mkdir()
    chance, left = random.Random(SEED), KILLS
    server = ArgoProcess(home / "argo", slots=3)
    try:
        while left > 0:
            left -= max(one_run(home, server, chance, left), 1)
    finally:
        server.kill()
