"""Any manifest is either refused with its field or planned and rewritten."""

import copy
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import PROCESSES, UNKNOWN, dag, hit, say, task, workflow

from periplus_common.errors import Invalid
from periplus_dispatcher.manifest import read as manifest_reading
from periplus_dispatcher.rewrite.plan import decide
from periplus_dispatcher.rewrite.rewriter import rewrite, to_submit
from periplus_manifest.check import check
from periplus_model.queries import StepVerdict
from periplus_model.steps import Verdict

Json = dict[str, Any]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "tests" / "conformance" / "recordings" / "manifests").glob("*.yaml"))
ODD: list[Any] = [None, "", "x", "{{item}}", "{{=1 +}}", "{{inputs.parameters.x}}", "{{", 0, -1, 1.5, True, [], {}, [None],
                  [{}], {"name": None}, "é\u0000", "a" * 300]  # fmt: skip


def fields_of(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every field and element of a document, as (container, key)."""
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        found.append((value, key))
        fields_of(value[key], found)
    return found


def corrupted(document: Json, draw: random.Random) -> Json:
    """The document with one or two fields changed, deleted or duplicated."""
    document = copy.deepcopy(document)
    for _ in range(draw.randint(1, 2)):
        holder, key = draw.choice(fields_of(document, []))
        choice = draw.random()
        if choice < 0.2:
            del holder[key]
        elif choice < 0.3 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = copy.deepcopy(draw.choice(ODD))
    return document


def planned(document: Json, draw: random.Random) -> None:
    """Read, expand, plan with random verdicts and rewrite: Argo must accept the result as it accepted the input."""
    read = manifest_reading.read(json.dumps(document), {})
    expanded = read.expand(PROCESSES)
    items = (hit(o="1"), StepVerdict("", Verdict.MISS))
    verdicts = [
        hit(o="1", result="1"),
        UNKNOWN,
        StepVerdict("", Verdict.MISS),
        StepVerdict("", Verdict.MISS, items=items, items_json="[1,2]"),
    ]
    known = {
        call.path: draw.choice(verdicts if call.query.items is not None else verdicts[:3])
        for call in expanded.calls
        if call.query is not None
    }
    done = rewrite(
        read.manifest, decide(expanded, known), expanded.templates, gate_timeout=timedelta(seconds=5)
    )
    sent = to_submit(done.manifest, "run-1", "ns", "p", read.parameters, NOW)
    check(json.loads(json.dumps(sent)))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_corrupted_manifest_is_refused_with_its_field_or_is_planned(source: Path) -> None:
    document = yaml.safe_load(source.read_text())
    draw = random.Random(source.stem)
    for corrupt in [lambda d, _: d, *[corrupted] * 25]:
        broken = corrupt(document, draw)
        refused = outcome(broken, draw)
        assert refused is None or refused.field.startswith("spec."), refused


def outcome(document: Json, draw: random.Random) -> Invalid | None:
    try:
        planned(document, draw)
    except Invalid as refused:
        return refused
    return None


def test_a_variable_without_a_name_is_left_to_argo_to_refuse() -> None:
    leaf = say("t", "1")
    leaf["container"]["env"] = [{"value": "1"}]
    assert outcome(workflow(leaf), random.Random(0)) is None


def test_a_workflow_with_a_template_reference_is_not_changed() -> None:
    manifest = workflow(say("x", "1"))
    manifest["spec"] = {"workflowTemplateRef": {"name": "elsewhere"}}
    read = manifest_reading.read(json.dumps(manifest), {})
    expanded = read.expand(PROCESSES)
    plan = decide(expanded, {})
    assert not plan.is_complete
    assert (
        rewrite(read.manifest, plan, expanded.templates, gate_timeout=timedelta(seconds=5)).manifest
        == manifest
    )


def test_changing_a_read_manifest_does_not_change_the_cached_one() -> None:
    text = json.dumps(workflow(dag(task("a", "t", given={"x": "1"})), say("t", "$x", "x")))
    first = manifest_reading.read(text, {})
    first.manifest["spec"]["templates"].clear()
    assert manifest_reading.read(text, {}).manifest == json.loads(text)
