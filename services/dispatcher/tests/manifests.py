"""Manifests of tests: templates that run in no time, calls of them, and what the planner makes of a whole."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from periplus_dispatcher.manifest.calls import ExpandedWorkflow
from periplus_dispatcher.manifest.expand import expand
from periplus_dispatcher.manifest.locations import SharedKeys
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.rewrite.plan import Plan, decide
from periplus_manifest.check import check
from periplus_model.queries import StepVerdict
from periplus_model.steps import Outputs, Verdict

Json = dict[str, Any]


PROCESSES = StepEnvironment(runs_images=False)
ANY_KEYS = SharedKeys(writable=("*",))
"""Steps are processes, as on the local Argo, so that images do not matter."""


def sh(name: str, command: str, *inputs: str, **more: Any) -> Json:
    """A container template; its inputs are environment variables, so that no value is read as code."""
    container = {
        "image": "busybox",
        "command": ["sh", "-c"],
        "args": [command],
        "env": [{"name": n, "value": "{{inputs.parameters." + n + "}}"} for n in inputs],
    }
    return {
        "name": name,
        **({"inputs": {"parameters": [{"name": n} for n in inputs]}} if inputs else {}),
        "container": container,
        **more,
    }


def gives(*names: str) -> Json:
    return {"parameters": [{"name": n, "valueFrom": {"path": f"/tmp/{n}"}} for n in names]}


def say(name: str, text: str, *inputs: str, **more: Any) -> Json:
    """A template whose output parameter `o` is a text, in which $x is the input x."""
    return sh(name, f'printf %s "{text}" > /tmp/o', *inputs, outputs=gives("o"), **more)


def task(name: str, template: str, /, **more: Any) -> Json:
    given = more.pop("given", None)
    arguments = (
        {"arguments": {"parameters": [{"name": k, "value": v} for k, v in given.items()]}} if given else {}
    )
    return {"name": name, "template": template, **arguments, **more}


def dag(*tasks: Json, name: str = "main", **more: Any) -> Json:
    return {"name": name, "dag": {"tasks": list(tasks)}, **more}


def steps(*groups: list[Json], name: str = "main", **more: Any) -> Json:
    return {"name": name, "steps": [list(g) for g in groups], **more}


def shows(reference: str, name: str = "o") -> Json:
    """Outputs of a DAG or steps template."""
    return {"parameters": [{"name": name, "valueFrom": {"parameter": "{{" + reference + "}}"}}]}


def workflow(*templates: Json, parameters: Mapping[str, str] | None = None, **spec: Any) -> Json:
    """The first template is where it starts."""
    arguments = {"parameters": [{"name": k, "value": v} for k, v in (parameters or {}).items()]}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "test-"},
        "spec": {
            "entrypoint": templates[0]["name"],
            "templates": list(templates),
            **({"arguments": arguments} if parameters else {}),
            **spec,
        },
    }


def expand_checked(
    manifest: Json, environment: StepEnvironment = PROCESSES, **parameters: str
) -> ExpandedWorkflow:
    """Check a manifest and follow it."""
    check(manifest, parameters=parameters)
    declared = ((manifest["spec"].get("arguments") or {}).get("parameters")) or []
    values = {p["name"]: str(p["value"]) for p in declared if "value" in p} | parameters
    return expand(manifest, values, environment)


HIT, MISS, UNKNOWN = (StepVerdict("", v, v.label) for v in (Verdict.HIT, Verdict.MISS, Verdict.UNKNOWN))


def hit(*, result: str | None = None, saved: float = 1.0, items: tuple[StepVerdict, ...] = (), items_json: str = "",
        **parameters: str) -> StepVerdict:  # fmt: skip
    return StepVerdict(
        "",
        Verdict.HIT,
        "hit",
        "sha256:1",
        Outputs(parameters, result=result),
        "earlier",
        "step",
        timedelta(seconds=saved),
        items,
        items_json,
    )


def planned(manifest: Json, verdicts: Mapping[str, StepVerdict], **parameters: str) -> Plan:
    return decide(expand_checked(manifest, **parameters), verdicts)
