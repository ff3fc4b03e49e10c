"""A step reaches neither the stack's secrets nor its processes, and can not forge a cache entry."""

import json
import os
import subprocess
import sys
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from stack import Stack, up

from periplus_local.argo.executor import support
from periplus_local.stack.home import Home

HOSTILE = Path(__file__).with_name("hostile_step.py").read_text()


@pytest.fixture(scope="module")
def confined() -> Iterator[Stack]:
    """A stack whose home is where steps would find it, as they do not in /tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="periplus-steps-") as folder:
        if exposure := support.find().exposure:
            pytest.skip(f"steps can not be confined here: {exposure}")
        other = Home(Path(folder) / "other")
        other.create()
        other.secret("token")
        hidden = Path(folder) / "hidden by the user"
        hidden.mkdir()
        (hidden / "token").touch()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PERIPLUS_HIDDEN", f"{folder}/nothing:{hidden}")
            with up(Path(folder) / "home") as running:
                yield running


def run_hostile(stack: Stack, *arguments: str) -> list[str]:
    """What a hostile step of a run of its own achieves."""
    pids = [process.pid for process in psutil.Process(stack.process.pid).children(recursive=True)]
    given = [str(stack.home), json.dumps([stack.process.pid, *pids]), *arguments]
    result = {"name": "result", "valueFrom": {"path": "/tmp/result"}}
    line = 'python3 -c "$0" "$@" > /tmp/result'
    container = {"image": "any", "command": ["sh", "-c"], "args": [line, HOSTILE, *given]}
    main = {"name": "main", "container": container, "outputs": {"parameters": [result]}}
    return json.loads(finish(stack, "hostile-", main))


def finish(stack: Stack, name: str, template: dict[str, object]) -> str:
    """The output of a run of one step."""
    spec = {"entrypoint": "main", "templates": [template]}
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": name},
        "spec": spec,
    }
    (step,) = stack.finish(json.dumps(document)).steps
    assert step.outputs.parameters, step.message
    return str(step.outputs.parameters[0].value)


def test_a_step_reaches_no_secret_no_process_and_no_file_of_the_stack(confined: Stack) -> None:
    assert run_hostile(confined) == []


def test_a_step_leaves_nothing_for_the_next_and_no_process(confined: Stack) -> None:
    assert run_hostile(confined) == []
    seconds = f"98765.{zlib.crc32(str(confined.home).encode())}"
    left = [each for each in psutil.process_iter(["cmdline"]) if seconds in (each.info["cmdline"] or [])]
    assert left == []


def test_a_step_can_not_forge_a_cache_entry(confined: Stack) -> None:
    mark = uuid.uuid4().hex
    result = {"name": "result", "valueFrom": {"path": "/tmp/result"}}
    container = {"image": "any", "command": ["sh", "-c"], "args": [f"printf right > /tmp/result # {mark}"]}
    honest = {"name": "main", "container": container, "outputs": {"parameters": [result]}}
    assert finish(confined, "honest-", honest) == "right"
    assert run_hostile(confined, "forge") == []
    assert finish(confined, "honest-", honest) == "right"


def test_an_ordinary_users_step_is_confined_too_in_a_user_namespace() -> None:
    if os.geteuid() != 0:
        pytest.skip("the tests above run as an ordinary user")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="periplus-steps-") as folder:
        assert apart("as_ordinary_user", folder) == "[]"


def test_doctor_says_what_a_step_can_do_where_it_is_not_confined() -> None:
    said = apart("without_namespaces")
    assert said.startswith("ok   steps")
    assert "a step can do all that you can: read the home's secrets, change cache entries" in said
    assert "unshare: " in said


def apart(*arguments: str) -> str:
    """What the lines of `less_rights.py` print: they fork, which libraries of this process do not survive."""
    command = [sys.executable, str(Path(__file__).with_name("less_rights.py")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr).strip()
