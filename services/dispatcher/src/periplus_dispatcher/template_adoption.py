"""Adopt a WorkflowTemplate or CronWorkflow: every later run of it asks the cache at gates. Release: it is as it was.

Nothing that is known when it is adopted is written into it, as it may be stale when it runs: each step that may be cached is
behind a gate. Its templates stay; those that the rewrite changes are copied, and its entrypoint becomes the copy, so that
whoever calls one of its templates by `templateRef` is not affected.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from periplus_common.errors import Invalid, NotFound, Refused
from periplus_dispatcher.domain import Json, RunState
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest import rewritten
from periplus_dispatcher.manifest.calls import is_invocator
from periplus_dispatcher.manifest.library import without_nulls
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_dispatcher.manifest.rewritten import ANNOTATION, MAX_ANNOTATION_BYTES, REWRITTEN_LABEL, Rewrite
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.observed.namespaces import Observation
from periplus_dispatcher.ports import WorkflowTemplates
from periplus_dispatcher.rewrite.plan import Plan, decide
from periplus_dispatcher.rewrite.rewriter import rewrite
from periplus_manifest.bounds import MAX_MANIFEST_BYTES
from periplus_model.queries import StepVerdict
from periplus_model.steps import Verdict

_PARAMETER = re.compile(r"\{\{\s*workflow\.parameters\.[-\w]+\s*\}\}")
_UNKNOWN = {"configMapKeyRef": {"name": "periplus", "key": "known-when-it-runs"}}
"""A value of a workflow's parameter that nobody knows before the run."""


class TemplateKind(StrEnum):
    """What can be adopted."""

    WORKFLOW_TEMPLATE = "WorkflowTemplate"
    CRON_WORKFLOW = "CronWorkflow"

    @property
    def short(self) -> str:
        """As in `kubectl get`."""
        return "wftmpl" if self is TemplateKind.WORKFLOW_TEMPLATE else "cron"


@dataclass(frozen=True)
class AdoptedTemplate:
    """An object before and after; the plan of its steps, None if it was released."""

    namespace: str
    before: Json
    after: Json
    plan: Plan | None = None

    @property
    def is_changed(self) -> bool:
        return self.before != self.after


class TemplateAdoption:
    """Adopts and releases the objects of namespaces that are observed: nobody would answer the gates of others."""

    def __init__(
        self,
        argos: Mapping[str, WorkflowTemplates],
        observation: Observation,
        environment: StepEnvironment,
        gate_timeout: timedelta,
    ) -> None:
        self._argos = argos
        self._observation = observation
        self._environment = environment
        self._gate_timeout = gate_timeout

    async def adopt(
        self, project: str, namespace: str, kind: TemplateKind, name: str, *, validate_only: bool
    ) -> AdoptedTemplate:
        """Rewrite an object; one that is adopted already is as it would be. Raises `Invalid`, `NotFound`, `Refused`, `Conflict`."""
        namespace, argo = self._argo(project, namespace)
        found = await self._get(argo, kind, name)
        after, plan = self._rewritten(_released(found, kind), kind)
        if (label := self._observation.label) and not self._observation.selects(_labelled(after)):
            raise Refused(
                f"only Workflows with the label {label} are observed, which its Workflows do not have",
                fix=f"add the label to spec.workflowMetadata.labels of {kind.short}/{name}",
            )
        if not _is_same(found, after) and not validate_only:
            await argo.replace(kind, after)
        return AdoptedTemplate(namespace, found, found if _is_same(found, after) else after, plan)

    async def release(
        self, project: str, namespace: str, kind: TemplateKind, name: str, *, validate_only: bool
    ) -> AdoptedTemplate:
        """Make an object as it was; one that was not adopted stays. Raises `NotFound`, `Refused`, `Conflict`."""
        namespace, argo = self._argo(project, namespace)
        found = await self._get(argo, kind, name)
        after = _released(found, kind)
        if after != found and not validate_only:
            await argo.replace(kind, after)
        return AdoptedTemplate(namespace, found, after)

    def _argo(self, project: str, namespace: str) -> tuple[str, WorkflowTemplates]:
        names = [n for n, found in self._observation.namespaces.items() if project in found.projects]
        if not names or (namespace and namespace not in names):
            raise Refused(
                f"no Workflows of {namespace or 'any namespace'} are observed for project {project}: nobody would answer their gates",
                fix=f"set DISPATCHER_OBSERVE={namespace or '<namespace>'}={project} of the dispatcher",
            )
        if not namespace and len(names) > 1:
            raise Refused(
                f"the namespaces {', '.join(names)} are observed for project {project}",
                fix="name one with --namespace",
            )
        return namespace or names[0], self._argos[namespace or names[0]]

    async def _get(self, argo: WorkflowTemplates, kind: TemplateKind, name: str) -> Json:
        found = await argo.read(kind, name)
        if found is None:
            raise NotFound(
                f"there is no {kind} {name}",
                fix=f"argo {'template' if kind.short == 'wftmpl' else 'cron'} list",
            )
        return found

    def _rewritten(self, original: Json, kind: TemplateKind) -> tuple[Json, Plan]:
        name, spec = original["metadata"]["name"], _workflow_spec(original, kind)
        _check_own(spec, kind, name)
        ours = {
            n: v
            for n, v in (original["metadata"].get("annotations") or {}).items()
            if n.startswith(ANNOTATION_PREFIX)
        }
        checked = manifests.read(json.dumps(_manifest(name, spec, ours)), {})
        expanded = checked.expand(self._environment)
        asked = {
            call.path: StepVerdict(call.path, Verdict.UNKNOWN, "it asks at a gate") for call in expanded.calls
        }
        plan = decide(expanded, asked)
        done = rewrite(
            checked.manifest,
            plan,
            expanded.templates,
            gate_timeout=self._gate_timeout,
            copies_entrypoint=True,
        )
        if done.is_too_large:
            raise Refused(f"with its gates it would have more than {MAX_MANIFEST_BYTES} bytes")
        if not done.generated:
            return original, plan
        own, made = spec["templates"], done.manifest["spec"]
        after = {
            **spec,
            "entrypoint": made["entrypoint"],
            "templates": [*own, *made["templates"][len(own) :]],
        }
        state = RunState({}, done.generated, done.fan_outs, done.stretches)
        carried = Rewrite(state, (), spec, after["entrypoint"], rewritten.spec_digest(after))
        return _with_rewrite(original, kind, after, carried, ours), plan


def _with_rewrite(original: Json, kind: TemplateKind, after: Json, carried: Rewrite, ours: Json) -> Json:
    """The object with the rewritten spec and what its Workflows carry."""
    if kind is TemplateKind.CRON_WORKFLOW:
        holder = {**original["spec"], "workflowSpec": after}
        carried = replace(
            carried, whole=_cron_digest(holder), workflow_metadata=original["spec"].get("workflowMetadata")
        )
    else:
        holder = after
        carried = replace(carried, whole=rewritten.whole_digest(after))
    text = rewritten.encode(carried)
    if len(text) > MAX_ANNOTATION_BYTES:
        raise Refused(
            f"what its Workflows would carry has {len(text)} bytes, at most {MAX_ANNOTATION_BYTES} fit in an annotation"
        )
    metadata = dict(holder.get("workflowMetadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), REWRITTEN_LABEL: "true"}
    metadata["annotations"] = {**ours, **(metadata.get("annotations") or {}), ANNOTATION: text}
    return {**original, "spec": {**holder, "workflowMetadata": metadata}}


def _released(found: Json, kind: TemplateKind) -> Json:
    """The object as it was before it was adopted. Raises `Refused` if its gates were edited since."""
    spec = found["spec"]
    carried = rewritten.read({**(spec.get("workflowMetadata") or {}), "name": found["metadata"]["name"]})
    if carried is None:
        return found
    is_cron = kind is TemplateKind.CRON_WORKFLOW
    if carried.whole == (_cron_digest(spec) if is_cron else rewritten.whole_digest(spec)):
        if not is_cron:
            return {**found, "spec": carried.source}
        before = {name: value for name, value in spec.items() if name != "workflowMetadata"}
        if carried.workflow_metadata is not None:
            before["workflowMetadata"] = carried.workflow_metadata
        return {**found, "spec": {**before, "workflowSpec": carried.source}}
    names = {template.get("name") for template in _workflow_spec(found, kind).get("templates") or ()}
    if names & carried.state.generated.keys():
        raise Refused(
            "it was edited since it was adopted, and still has gates",
            fix="apply it as you want it, without the templates that have -- in their names or begin with periplus-",
        )
    return {**found, "spec": rewritten.without_metadata(spec)}  # it was applied anew


def _check_own(spec: Json, kind: TemplateKind, name: str) -> None:
    """Raise `Refused` for a spec without templates of its own, or without a start."""
    if reference := spec.get("workflowTemplateRef"):
        raise Refused(
            f"it runs the WorkflowTemplate {reference.get('name')}",
            fix=f"periplus adopt wftmpl/{reference.get('name')}",
        )
    if not spec.get("entrypoint") or not spec.get("templates"):
        raise Refused(
            f"{kind} {name} has no entrypoint: nothing is run of it but what others call by templateRef",
            fix="the steps of those that call it are cached by `periplus run`, or by the admission webhook",
        )


def _workflow_spec(found: Json, kind: TemplateKind) -> Json:
    spec: Json = found["spec"]
    return spec.get("workflowSpec") or {} if kind is TemplateKind.CRON_WORKFLOW else spec


def _cron_digest(spec: Json) -> str:
    """Of what adopting changes in the spec of a CronWorkflow: its schedule may be edited."""
    changed: Json = {name: spec[name] for name in ("workflowSpec", "workflowMetadata") if name in spec}
    return rewritten.whole_digest(changed)


def _manifest(name: str, spec: Json, annotations: Json) -> Json:
    """The manifest that is planned: nobody knows its parameters yet, and what uses one in a container has its value when it runs."""
    arguments = dict(spec.get("arguments") or {})
    arguments["parameters"] = [
        {"name": p["name"], "valueFrom": _UNKNOWN}
        for p in arguments.get("parameters") or ()
        if isinstance(p, dict)
    ]
    templates = [each if is_invocator(each) else _with_known_parameters(each) for each in spec["templates"]]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{name[:50]}-", "annotations": annotations},
        "spec": {**spec, "arguments": arguments, "templates": templates},
    }


def _with_known_parameters(template: Json) -> Json:
    """A container template with some text for each parameter of the workflow, but for its inputs and outputs."""
    kept = ("name", "inputs", "outputs")
    return {
        name: value if name in kept else json.loads(_PARAMETER.sub("known-when-it-runs", json.dumps(value)))
        for name, value in template.items()
    }


def _labelled(found: Json) -> Json:
    return {"metadata": {"labels": (found["spec"].get("workflowMetadata") or {}).get("labels")}}


def _is_same(found: Json, other: Json) -> bool:
    """Whether two objects are the same, but for how their annotation is packed."""
    if without_nulls(found) == without_nulls(other):
        return True
    carried = [rewritten.read(each["spec"].get("workflowMetadata") or {}) for each in (found, other)]
    return carried[0] is not None and carried[0] == carried[1]


def parse(text: str) -> tuple[TemplateKind, str]:
    """A kind and a name, as in `wftmpl/train`. Raises `Invalid`."""
    short, _, name = text.partition("/")
    kinds = {kind.short: kind for kind in TemplateKind}
    if short not in kinds or not name:
        raise Invalid(f"{text[:100]!r} is neither wftmpl/<name> nor cron/<name>", field="template")
    return kinds[short], name
