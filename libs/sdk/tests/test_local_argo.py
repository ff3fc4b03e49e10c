"""Compiled pipelines on the local Argo, with its executor and a real S3 store."""

import io
import json

import pytest
from minio import Minio

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import Compiled
from periplus.sdk.pipelines.ports import PROTOCOL
from periplus_local.argo.executor.filesystem import plan_filesystem
from periplus_local.argo.executor.inputs import input_paths, mount_paths, output_paths
from periplus_local.argo.executor.program import path_rewriter
from periplus_local.argo.testing import local_argo, nodes_of
from periplus_local.stack.testing import embedded

__all__ = ["embedded"]

EVERY_WAY = """
ODD = "$(HOME) $$ {{workflow.name}} '\\"\\n"
from pathlib import Path
from typing import NamedTuple
class Parts(NamedTuple):
    raw: bytes
    names: list[str]
@step
def parts(n: int) -> Parts:
    return Parts(b"12345", ["a b", '"q"', "$x {{y}}", "5", "null"][:n])
@step
def label(raw: bytes, name: str) -> str:
    return f"{len(raw)}:{name}"
@step
def upper(text: str) -> dict[str, float]:
    return {text.upper(): 1.0}
@step
def only(one: dict[str, float]) -> str:
    return next(iter(one))
@step
def join(known: list[dict[str, float]], texts: list[str], odd: str) -> Path:
    place = Path("made")
    place.mkdir()
    (place / "ü v").write_text("|".join([*(key for one in known for key in one), *texts]) + odd)
    return place
@step
def read(place: Path) -> str:
    return (place / "ü v").read_text()
@step
def small() -> float:
    return 0.00001
@step
def never(x: float) -> str:
    return "ran"
@step
def same(text: str) -> bool:
    return True
@step
def after(text: str) -> str:
    return text
@pipeline
def flow(n: int = 5, odd: str = "") -> str:
    made = parts(n)
    labels = label.map(made.raw, each(made.names))
    loud = upper.map(each(labels))
    known = upper.map(each(["x", "y{{z}}"]))
    value = small()
    with when(value > 0.9):
        text = never(value)
    after(text)
    with when(~(value > 0.9)):
        after("yes")
    with when((after(odd) == ODD) & same(odd)):
        after("same")
    with when((after(odd) == "other") | ~same(odd)):
        after("not the same")
    return read(join(known, only.map(each(loud)), odd))
"""


@pytest.fixture
def argo(embedded):
    s3 = embedded.s3
    with local_argo(
        s3_endpoint=s3.endpoint, s3_access_key=s3.access_key, s3_secret_key=s3.secret_key, s3_bucket=s3.bucket
    ) as client:
        yield client, Minio(s3.endpoint, s3.access_key, s3.secret_key, secure=False), s3.bucket


def run(argo, made: Compiled):
    client, store, bucket = argo
    store.put_object(bucket, made.archive_key, io.BytesIO(made.archive), len(made.archive))
    return client.ended(client.create(made.manifest), seconds=90)


def test_every_way_to_pass_a_value_works_on_the_local_argo(argo, compiled):
    odd = "$(HOME) $$ {{workflow.name}} '\"\n"
    ended = run(argo, compiled(EVERY_WAY, odd=odd))
    nodes = nodes_of(ended)
    assert ended["status"]["phase"] == "Succeeded", [
        one["message"] for one in nodes_of(ended).values() if one.get("message")
    ]
    (root,) = [one for one in nodes.values() if one["name"] == ended["metadata"]["name"]]
    flow = load(compiled(EVERY_WAY).root / "flow.py")
    (output,) = root["outputs"]["parameters"]
    assert flow.parse({"odd": output["value"]})["odd"] == 'X|Y{{Z}}|5:A B|5:"Q"|5:$X {{Y}}|5:5|5:NULL' + odd
    phases = {one["displayName"]: one["phase"] for one in nodes.values()}
    assert (phases["never"], phases["after"], phases["after-2"]) == ("Skipped", "Omitted", "Succeeded")
    assert (phases["after-4"], phases["after-6"]) == ("Succeeded", "Skipped")


def test_the_runner_and_the_work_folder_are_found_where_no_namespaces_are_made(compiled, tmp_path):
    """There the paths of a step are rewritten in its command line and its environment."""
    text = """
    @step
    def one() -> str: return "1"
    @pipeline
    def flow() -> str: return one()
    """
    (template,) = [one for one in compiled(text).manifest["spec"]["templates"] if "container" in one]
    declared = [*input_paths(template), *output_paths(template), *mount_paths(template)]
    rewritten = path_rewriter(plan_filesystem(tmp_path, declared, [], namespaces=False))
    root = f"{tmp_path}/root"
    assert [rewritten(word) for word in template["container"]["command"]] == [
        "python3",
        f"{root}/periplus/code/periplus-runner",
    ]
    assert {one["name"]: rewritten(one["value"]) for one in template["container"]["env"]} == {
        "PERIPLUS_PROTOCOL": PROTOCOL,
        "PERIPLUS_CODE": f"{root}/periplus/code",
        "TMPDIR": f"{root}/periplus/work",
        "PERIPLUS_OUTPUT_output": f"{root}/periplus/work/out/output.json",
        "PERIPLUS_DISCOVERED": f"{root}/periplus/work/out/periplus-discovered.json",
    }


def test_a_fan_out_over_no_items_has_an_empty_list_of_results(argo, compiled):
    text = """
    @step
    def none() -> list[int]: return []
    @step
    def one(x: int) -> int: return x
    @step
    def total(xs: list[int]) -> int: return sum(xs)
    @pipeline
    def flow() -> int:
        return total(one.map(each(none())))
    """
    ended = run(argo, compiled(text))
    assert ended["status"]["phase"] == "Succeeded", [
        one["message"] for one in nodes_of(ended).values() if one.get("message")
    ]
    (total,) = [one for one in nodes_of(ended).values() if one["displayName"] == "total"]
    assert total["outputs"]["parameters"][0]["value"] == "0"


def test_a_dict_keeps_its_order_however_it_is_passed(argo, compiled):
    text = """
    @step
    def weights() -> dict[str, float]: return {"width": 10.0, "age": 1.0, "Z": -0.0}
    @step
    def tables() -> list[dict[str, int]]: return [{"b": 1, "a": 2}, {"z": 1, "a": {}.get("x", 3)}]
    @step
    def turned(table: dict[str, int]) -> dict[str, int]: return dict(reversed(table.items()))
    @step
    def told(one: dict[str, float], many: list[dict[str, int]], all: list[dict[str, int]]) -> str:
        return repr((one, many, all))
    @pipeline
    def flow() -> str:
        found = tables()
        return told(weights(), turned.map(each(found)), found)
    """
    ended = run(argo, compiled(text))
    assert ended["status"]["phase"] == "Succeeded", [
        one["message"] for one in nodes_of(ended).values() if one.get("message")
    ]
    (node,) = [one for one in nodes_of(ended).values() if one["displayName"] == "told"]
    assert json.loads(node["outputs"]["parameters"][0]["value"]) == repr(
        (
            {"width": 10.0, "age": 1.0, "Z": -0.0},
            [{"a": 2, "b": 1}, {"a": 3, "z": 1}],
            [{"b": 1, "a": 2}, {"z": 1, "a": 3}],
        )
    )


def test_a_failing_step_shows_the_users_traceback_in_its_log(argo, compiled):
    client, _, _ = argo
    ended = run(
        argo,
        compiled(
            "@step\ndef wrong(n: int) -> float:\n    return 1 / n\n@pipeline\ndef flow() -> float:\n    return wrong(0)\n"
        ),
    )
    assert ended["status"]["phase"] == "Failed"
    name = ended["metadata"]["name"]
    with client.open("GET", f"workflows/{client.namespace}/{name}/log?logOptions.container=main") as log:
        text = log.read().decode()
    assert "ZeroDivisionError: division by zero" in text
    assert "periplus/sdk" not in text
