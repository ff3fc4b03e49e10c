"""SDK pipelines in images that have nothing of Periplus: on the real Argo that ARGO_SERVER names, or else on the local one."""

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cluster import Argo
from stack import FINAL_PHASES, ROOT, Stack

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import compile  # noqa: A004 - the public name
from periplus.types.v1 import step_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DIGITS = ROOT / "examples" / "digits" / "pipeline.py"
POD_RUN_SECONDS = 400.0
"""Eleven pods on a small cluster that others use, too."""
TRAININGS = [f"train({number})" for number in range(6)]


@pytest.fixture(scope="module")
def science_image() -> str:
    """An image with Python 3.11, numpy and scikit-learn; on the local Argo any, as it runs none."""
    if "PERIPLUS_TEST_SCIENCE_IMAGE" not in os.environ:
        pytest.skip("PERIPLUS_TEST_SCIENCE_IMAGE is not set; `make demo` runs the digits on the local Argo")
    return os.environ["PERIPLUS_TEST_SCIENCE_IMAGE"]


def ended(cluster: Stack, name: str) -> lineage_pb2.Run:
    """A run that has ended, with the entries of its steps recorded."""
    deadline = time.monotonic() + POD_RUN_SECONDS
    while phase_of(cluster, name) not in FINAL_PHASES:
        assert time.monotonic() < deadline, cluster.run(name)
        time.sleep(0.5)
    run = cluster.wait_for_run(name)
    cluster.wait_for_cache(run)
    return run


def phase_of(cluster: Stack, name: str) -> int:
    """The phase of a run now; 0 if lineage has not received it yet."""
    try:
        return cluster.run(name).phase
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return step_pb2.RUN_PHASE_UNSPECIFIED


def run_digits(cluster: Stack, image: str, *parameters: str) -> lineage_pb2.Run:
    """Run the digits by the command."""
    options = [option for parameter in parameters for option in ("-p", parameter)]
    done = cluster.periplus("run", str(DIGITS), "--image", image, *options, "--no-watch", "-o", "json")
    run = ended(cluster, json.loads(done.stdout)["run"])
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, [step.message for step in run.steps]
    return run


def ran(run: lineage_pb2.Run) -> set[str]:
    return {step.path for step in run.steps if step.phase == step_pb2.STEP_PHASE_SUCCEEDED}


@pytest.mark.timeout(3 * POD_RUN_SECONDS)
def test_digits_run_cold_then_warm_without_a_pod_then_only_what_a_parameter_changes(
    cluster: Stack, argo: Argo, science_image: str
) -> None:
    cold = run_digits(cluster, science_image)
    assert ran(cold) == {"evaluate", "features", "ingest", "register", "settings", *TRAININGS}
    assert len(argo.pods(cold.id)) == 11
    assert cold.cached_steps == 0
    (accuracy,) = cold.outputs.parameters
    assert float(accuracy.value) > 0.9

    warm = run_digits(cluster, science_image)
    assert (ran(warm), warm.cached_steps) == (set(), 11)
    assert argo.workflow(warm.id) is None
    assert warm.outputs == cold.outputs

    changed = run_digits(cluster, science_image, "gamma=[0.01, 0.02]")
    assert ran(changed) >= {"settings", "evaluate", "train(1)", "train(3)", "train(5)"}
    assert not ran(changed) & {"ingest", "features", "train(0)", "train(2)", "train(4)"}
    pods = {name.partition("(")[0] for name in argo.pods(changed.id)}
    assert not pods & {"ingest", "features"}


FLOW = """
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from periplus.sdk import Artifact, each, pipeline, step

SALT = "{salt}"


class Made(NamedTuple):
    numbers: list[int]
    data: bytes
    table: Artifact[dict[str, int]]


@step
def make(count: int) -> Made:
    with tempfile.TemporaryFile() as scratch:
        scratch.write(b"x" * count)
    return Made(list(range(count)), SALT.encode(), {{"rows": count}})


@step
def square(number: int) -> int:
    return number * number


@step
def folder(squares: list[int], data: bytes, table: Artifact[dict[str, int]]) -> Path:
    made = Path(tempfile.mkdtemp())
    (made / "total.txt").write_text(str(sum(squares) + table["rows"]))
    return made


@step
def user() -> str:
    writable = [path for path in ("/", "/usr", "/etc") if os.access(path, os.W_OK)]
    return f"{{os.getuid()}} {{writable}}"


@step
def read(source: Path) -> str:
    return (source / "total.txt").read_text()


@pipeline
def flow(count: int = 3) -> str:
    user()
    made = make(count)
    return read(folder(square.map(each(made.numbers)), made.data, made.table))
"""

Submit = Callable[..., lineage_pb2.Run]


@pytest.fixture
def submit(cluster: Stack, argo: Argo, tmp_path: Path) -> Submit:
    """Compile a pipeline, let a function change its manifest, run it, and wait for its end."""

    def submitted(text: str, change: Callable[[dict[str, Any]], None] = lambda _: None) -> lineage_pb2.Run:
        (tmp_path / "flow.py").write_text(text)
        made = compile(load(tmp_path / "flow.py"), image=argo.image)
        change(made.manifest)
        spec = dispatcher_pb2.RunSpec(project="default", manifest=json.dumps(made.manifest))
        spec.claim.code_archive = made.archive
        request = dispatcher_pb2.SubmitRunRequest(spec=spec, request_id=str(uuid.uuid4()))
        return ended(cluster, cluster.dispatcher.SubmitRun(request, timeout=60).run)

    return submitted


def as_nobody(manifest: dict[str, Any]) -> None:
    """The rights that Kubernetes' restricted policy leaves to a pod, and a file system that can not be written to."""
    manifest["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for template in manifest["spec"]["templates"]:
        if "container" in template:
            template["container"]["securityContext"] = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def output(run: lineage_pb2.Run, path: str, name: str = "output") -> str:
    (step,) = [step for step in run.steps if step.path == path]
    return next(one.value for one in step.outputs.parameters if one.name == name)


@pytest.mark.skipif("ARGO_SERVER" not in os.environ, reason="the local Argo runs steps as its own user")
def test_steps_run_without_root_on_a_file_system_that_they_can_not_write_to(
    submit: Submit, argo: Argo
) -> None:
    text = FLOW.format(salt=uuid.uuid4())
    run = submit(text, as_nobody)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    assert json.loads(output(run, "user")) == "65532 []"
    assert json.loads(output(run, "read")) == "8"
    again = submit(text, as_nobody)
    assert again.phase == step_pb2.RUN_PHASE_SUCCEEDED, again.message
    assert again.cached_steps == len(again.steps)
    assert argo.workflow(again.id) is None


def message(run: lineage_pb2.Run) -> str:
    (step,) = run.steps
    return step.message


def test_a_step_whose_code_is_not_stored_says_what_to_do(cluster: Stack, argo: Argo, tmp_path: Path) -> None:
    flow = "from periplus.sdk import pipeline, step\n@step\ndef one() -> str:\n    return {!r}\n@pipeline\ndef flow() -> str:\n    return one()\n"
    (tmp_path / "flow.py").write_text(flow.format(str(uuid.uuid4())))
    manifest = cluster.periplus("compile", str(tmp_path / "flow.py"), "--image", argo.image).stdout
    run = cluster.finish(manifest)
    assert run.phase == step_pb2.RUN_PHASE_ERROR
    assert "artifact periplus-code failed to load" in message(run)
    assert message(run).endswith("`periplus run` of its file stores it)")
    assert "`periplus run` of its file stores it" in cluster.periplus("runs", run.id).stdout


def test_a_package_that_the_image_lacks_is_named_where_the_run_is_shown(
    cluster: Stack, submit: Submit
) -> None:
    flow = "from periplus.sdk import pipeline, step\n@step\ndef one() -> int:\n    import not_installed.anywhere\n@pipeline\ndef flow() -> int:\n    return one()\n"
    run = submit(flow)
    assert run.phase == step_pb2.RUN_PHASE_FAILED
    what = "the module not_installed is not in this step's environment"
    logs = cluster.periplus("logs", run.id, "--step", "one").stdout
    assert f"periplus: {what}\n" in logs
    assert '@step(image="…")' in logs
    if "ARGO_SERVER" in os.environ:  # the local Argo has no termination message
        assert f"exit code 1): periplus: {what}; fix: run the step in an image that has it" in message(run)
