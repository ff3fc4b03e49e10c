"""The workflow that runs one step of a run again, with the inputs that it had."""

import json
from dataclasses import replace

from periplus_common.errors import NotFound, Refused
from periplus_dispatcher.domain import Json, RecordedRun, RecordedStep
from periplus_dispatcher.manifest.calls import items_of
from periplus_model.steps import Artifact, StepPhase

STEP = "step"
"""The name of the one step of the workflow."""
_CALLER = "periplus-reproduction"
_KEPT_ELSEWHERE = ("onExit", "hooks", "workflowTemplateRef", "entrypoint")


def one_step(manifest: Json, record: RecordedRun, path: str) -> tuple[Json, RecordedRun]:
    """The workflow, and the record with the step alone, under the path that it has there. Raises `NotFound`, `Refused`."""
    step = next((each for each in record.steps if each.path == path), None)
    if step is None:
        raise NotFound(f"the run has no step {path}", field="step", fix="periplus runs RUN")
    if step.phase in (StepPhase.SKIPPED, StepPhase.PENDING):
        raise _refused(f"{path} did not run: it is {step.phase.label}")
    spec = manifest["spec"]
    template = next((each for each in spec.get("templates") or () if each.get("name") == step.template), None)
    if template is None:
        raise _refused(f"the template {step.template} of {path} is not stored with the run")
    call = {"name": STEP, "template": step.template, "arguments": _arguments(template, step)}
    caller = {"name": _CALLER, "steps": [[call]]}
    kept = {name: value for name, value in spec.items() if name not in _KEPT_ELSEWHERE}
    arguments = {"parameters": items_of(spec, "arguments", "parameters")}
    workflow = {
        **manifest,
        "spec": {
            **kept,
            "entrypoint": _CALLER,
            "arguments": arguments,
            "templates": [caller, *spec["templates"]],
        },
    }
    return workflow, replace(record, steps=(replace(step, path=STEP),))


def _arguments(template: Json, step: RecordedStep) -> Json:
    """The values that the step had. Raises `Refused` for what is not recorded, or can not be written in a manifest."""
    parameters = []
    for declared in items_of(template, "inputs", "parameters"):
        name = declared["name"]
        if name not in step.inputs.parameters:
            raise _refused(f"the value of its input {name} is not recorded")
        value = step.inputs.parameters[name]
        if "{{" in value:
            raise _refused(f"its input {name} contains {{{{, which Argo would read as a tag")
        parameters.append({"name": name, "value": value})
    recorded = {artifact.name: artifact for artifact in step.inputs.artifacts}
    artifacts = []
    for declared in items_of(template, "inputs", "artifacts"):
        found = recorded.get(declared["name"])
        if found is not None:
            artifacts.append({"name": found.name, "s3": _location(found)})
        elif not declared.get("optional") and not _is_located(declared):
            raise _refused(f"where its input {declared['name']} was is not recorded")
    return {"parameters": parameters, "artifacts": artifacts}


def _location(artifact: Artifact) -> Json:
    ref = artifact.object
    if ref.endpoint:
        raise _refused(f"its input {artifact.name} is in another store, {ref.endpoint}")
    return {"key": ref.key, **({"bucket": ref.bucket} if ref.bucket else {})}


def _is_located(declared: Json) -> bool:
    """Whether a template says itself where its input is."""
    rest = set(json.loads(json.dumps(declared))) - {"name", "path", "mode", "optional", "archive", "from"}
    return bool(rest)


def _refused(reason: str) -> Refused:
    return Refused(reason, reason="NOT_REPRODUCIBLE", fix="reproduce the whole run, without --step")
