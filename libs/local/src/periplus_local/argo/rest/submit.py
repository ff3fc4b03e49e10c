"""The handler of `/api/v1/workflows/{namespace}/submit`: a workflow from a template that the server keeps."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from periplus_local.argo import again, birth, submission
from periplus_local.argo.faults import invalid
from periplus_local.argo.library import NARROW, WIDE, Shelves
from periplus_local.argo.rest.answers import answer, sent, texts
from periplus_local.argo.workflows import Workflows

KINDS = {
    **dict.fromkeys(("workflowtemplate", "workflowtemplates", "wftmpl"), NARROW),
    **dict.fromkeys(("clusterworkflowtemplate", "clusterworkflowtemplates", "cwftmpl", "cwft"), WIDE),
}
LABELS = {NARROW: "workflow-template", WIDE: "cluster-workflow-template"}
NAMES = ("name", "generateName", "entryPoint", "serviceAccount", "labels", "annotations")
SPEC = {"entryPoint": "entrypoint", "serviceAccount": "serviceAccountName", "priority": "priority"}
LISTS = ("parameters",)
SWITCHES = ("dryRun", "serverDryRun")
Body = dict[str, Any]


class Submit:
    """Starts workflows from templates."""

    def __init__(self, workflows: Workflows, shelves: Shelves) -> None:
        """Start them among these workflows, from the templates on those shelves."""
        self._workflows = workflows
        self._shelves = shelves

    async def submit(self, request: Request) -> Response:
        """Start a workflow from a template, or with `dryRun` only say what it would be."""
        asked = await sent(request)
        kind, name = str(asked.get("resourceKind", "")), str(asked.get("resourceName", ""))
        found = KINDS.get(kind.lower())
        if found is None:
            raise invalid(f"Resource kind '{kind}' is not supported for submitting")
        self._shelves.spec_of(name, found == WIDE)
        options = _options(asked.get("submitOptions") or {})
        workflow = _workflow(found, name, options)
        workflow["metadata"]["namespace"] = request.path_params["namespace"]
        made = submission.accepted(workflow, self._shelves, self._workflows.around.endpoint)
        if options.get("dryRun"):
            return answer(made[0])
        if options.get("serverDryRun"):
            return answer({**made[0], "metadata": birth.metadata(made[0])})
        return answer(self._workflows.create(*made).document())


def _options(given: Any) -> Body:
    if not isinstance(given, dict):
        raise invalid("submitOptions: is not an object")
    for key, value in given.items():
        if not value:
            continue
        if key not in {*NAMES, *SPEC, *LISTS, *SWITCHES}:
            raise invalid(f"submitOptions.{key}: does not work here")
        if key in NAMES and not isinstance(value, str):
            raise invalid(f"submitOptions.{key}: is not a text")
    return given


def _workflow(kind: str, name: str, options: Body) -> Body:
    reference = {"name": name, **({"clusterScope": True} if kind == WIDE else {})}
    spec: Body = {"workflowTemplateRef": reference}
    spec |= {field: options[key] for key, field in SPEC.items() if options.get(key)}
    labels = {
        "workflows.argoproj.io/" + LABELS[kind]: name,
        **_pairs("labels", options.get("labels") or ""),
    }
    metadata: Body = {"labels": labels}
    if options.get("annotations"):
        metadata["annotations"] = _pairs("annotations", options["annotations"])
    if options.get("name"):
        metadata["name"] = options["name"]
    else:
        metadata["generateName"] = options.get("generateName") or f"{name}-"
    return {"metadata": metadata, "spec": again.with_parameters(spec, texts(options, "parameters"))}


def _pairs(field: str, text: str) -> dict[str, str]:
    found = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(equals for _, equals, _ in found):
        raise invalid(f"submitOptions.{field}: {text!r} is not of the form KEY=VALUE,…")
    return {key: value for key, _, value in found}
