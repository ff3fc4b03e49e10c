"""The YAML in docs/rewrite.md is what the rewrite gives."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from fakes import MemoryCache, MemorySnapshotter, MemoryTemplates
from manifests import ANY_KEYS, PROCESSES, dag, workflow

from periplus_dispatcher.domain import RunRequest
from periplus_dispatcher.manifest import read
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.rewrite.plan import decide
from periplus_dispatcher.rewrite.rewriter import rewrite
from periplus_model.queries import StepVerdict
from periplus_model.steps import Artifact, ObjectRef, Outputs, Verdict

DOC = Path(__file__).parents[3] / "docs" / "rewrite.md"
LIBRARY, COPIES, BEFORE, MAIN, ADDED, STRETCH_MAIN, STRETCH_ADDED, HANDLER = re.findall(
    r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL
)
DATA = Artifact("data", ObjectRef("runs/a/data.csv"))


def rewritten(**verdicts: StepVerdict) -> list[dict[str, Any]]:
    """The templates of the document's manifest after the rewrite."""
    checked = read.read(BEFORE, {})
    expanded = checked.expand(PROCESSES)
    done = rewrite(
        checked.manifest, decide(expanded, verdicts), expanded.templates, gate_timeout=timedelta(seconds=60)
    )
    templates: list[dict[str, Any]] = done.manifest["spec"]["templates"]
    return templates


async def test_the_copies_of_library_templates_are_those_of_the_document() -> None:
    found = yaml.safe_load(LIBRARY)
    templates = MemoryTemplates({(found["metadata"]["name"], False): found})
    planner = Planner(MemoryCache(), MemorySnapshotter(), templates, PROCESSES, ANY_KEYS)
    call = {"name": "a", "templateRef": {"name": "lib.v1", "template": "pipeline"}}
    request = RunRequest("p", json.dumps(workflow(dag(call))), {})
    submitted = (await planner.plan(request)).manifest["spec"]["templates"]
    assert submitted == [dag({"name": "a", "template": "lib-v1--pipeline"}), *yaml.safe_load(COPIES)]


def user_templates() -> dict[str, Any]:
    before: dict[str, Any] = yaml.safe_load(BEFORE)
    return {template["name"]: template for template in before["spec"]["templates"]}


def test_the_yaml_of_the_document_is_what_the_rewrite_gives() -> None:
    templates = rewritten(
        prepare=StepVerdict("prepare", Verdict.HIT, outputs=Outputs({}, (DATA,))),
        train=StepVerdict("train", Verdict.MISS),
        evaluate=StepVerdict("evaluate", Verdict.UNKNOWN),
    )
    user = user_templates()
    assert [t for t in templates if t["name"] not in user] == yaml.safe_load(ADDED)
    assert {t["name"]: t for t in templates if t["name"] in user} == user | {"main": yaml.safe_load(MAIN)}


def test_the_yaml_of_the_stretch_is_what_the_rewrite_gives() -> None:
    templates = rewritten(
        prepare=StepVerdict("prepare", Verdict.MISS),
        train=StepVerdict("train", Verdict.UNKNOWN),
        evaluate=StepVerdict("evaluate", Verdict.UNKNOWN),
    )
    user = user_templates()
    shown = yaml.safe_load(STRETCH_ADDED)
    assert [t for t in templates if t["name"] in {each["name"] for each in shown}] == shown
    assert {t["name"]: t for t in templates if t["name"] in user} == user | {
        "main": yaml.safe_load(STRETCH_MAIN)
    }
    single = [f"{step}--{role}" for step in ("train", "evaluate") for role in ("cached", "gate", "select")]
    assert {t["name"] for t in templates} == {
        *user, *single, "periplus-gate", "train--stretch", "evaluate--stretch",
    }  # fmt: skip


def test_the_exit_handler_of_the_document_need_not_run_for_a_cached_run() -> None:
    manifest: dict[str, Any] = yaml.safe_load(BEFORE)
    handler = yaml.safe_load(HANDLER)
    manifest["spec"] |= {"templates": [*manifest["spec"]["templates"], handler], "onExit": handler["name"]}
    hits = {
        "prepare": StepVerdict("prepare", Verdict.HIT, outputs=Outputs({}, (DATA,))),
        "train": StepVerdict("train", Verdict.HIT, outputs=Outputs({}, (replace(DATA, name="model"),))),
        "evaluate": StepVerdict("evaluate", Verdict.HIT, outputs=Outputs({"accuracy": "0.98"})),
    }
    assert decide(read.read(yaml.safe_dump(manifest), {}).expand(PROCESSES), hits).is_complete
    del handler["metadata"]
    assert not decide(read.read(yaml.safe_dump(manifest), {}).expand(PROCESSES), hits).is_complete
