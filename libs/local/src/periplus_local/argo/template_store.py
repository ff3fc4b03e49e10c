"""The WorkflowTemplates of the server, checked when stored, which workflows refer to by name."""

import uuid
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.errors import already_exists, invalid_argument, not_found
from periplus_local.argo.scalars import now, timestamp
from periplus_local.argo.storage.state_store import StateStore
from periplus_local.argo.submission import runnable, validate
from periplus_local.argo.submission.new_workflow import check_name

CLUSTER_KIND = "ClusterWorkflowTemplate"
NAMESPACED_KIND = "WorkflowTemplate"
PLURALS = {CLUSTER_KIND: "clusterworkflowtemplates", NAMESPACED_KIND: "workflowtemplates"}
Body = dict[str, Any]


class TemplateStore:
    """Templates by kind, namespace and name. The namespace of a cluster template is empty."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    def spec_of(self, name: str, cluster_scope: bool) -> Body:
        """The spec of the template of that name, in whatever namespace; raises ArgoError when there is none."""
        kind = CLUSTER_KIND if cluster_scope else NAMESPACED_KIND
        found = self._state.templates(kind, "", name)
        if not found:
            raise _not_found(kind, name)
        return dict(found[0]["spec"])

    def create(self, kind: str, namespace: str, template: Any) -> Body:
        """Store a new template; raises ArgoError when it is invalid, cannot run here, or its name is taken."""
        body = self.validated(kind, template)
        metadata = body["metadata"] = dict(body.get("metadata") or {})
        if not metadata.get("name") and not metadata.get("generateName"):
            raise invalid_argument("metadata.name: name or generateName is required")
        name = metadata.get("name") or names.generated(str(metadata["generateName"]))
        check_name("metadata.name", name)
        stored_in = _namespace_of(kind, namespace)
        metadata.update(
            {
                "name": name,
                **({"namespace": namespace} if kind == NAMESPACED_KIND else {}),
                "uid": str(uuid.uuid4()),
                "creationTimestamp": timestamp(now()),
                "resourceVersion": str(self._state.next_version()),
                "generation": 1,
            }
        )
        if not self._state.add_template(kind, stored_in, name, body):
            raise already_exists(f'{PLURALS[kind]}.argoproj.io "{name}" already exists')
        return body

    def validated(self, kind: str, template: Any) -> Body:
        """The template as it would be stored; raises ArgoError when it is invalid or cannot run here."""
        if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
            raise invalid_argument("template.spec: is not an object")
        spec = template["spec"]
        validate.ignored_fields("spec", spec, "spec")
        for index, item in enumerate(spec.get("templates") or ()):
            if not isinstance(item, dict) or not item.get("name"):
                raise invalid_argument(f"spec.templates[{index}].name: is required")
        body = {"metadata": template.get("metadata") or {}, "spec": spec}
        validate.check_argo_rules(kind, body, self)
        normalized = validate.normalized(body)
        runnable.check_processes(normalized["spec"])
        runnable.check_references(normalized["spec"], self)
        return dict(normalized)

    def get(self, kind: str, namespace: str, name: str) -> Body:
        """The template of that name; raises ArgoError when there is none."""
        found = self._state.templates(kind, _namespace_of(kind, namespace), name)
        if not found:
            raise _not_found(kind, name)
        return found[0]

    def update(self, kind: str, namespace: str, name: str, template: Any) -> Body:
        """Replace the spec, the labels and the annotations of a template, unless it has changed since the version that is given."""
        old, new = self.get(kind, namespace, name), self.validated(kind, template)
        if new["metadata"].get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
            raise already_exists(
                f'Operation cannot be fulfilled on {PLURALS[kind]}.argoproj.io "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
        version = {"resourceVersion": str(self._state.next_version())}
        labels = {key: value for key, value in new["metadata"].items() if key in {"labels", "annotations"}}
        body = {"metadata": {**old["metadata"], **labels, **version}, "spec": new["spec"]}
        self._state.update_template(kind, _namespace_of(kind, namespace), name, body)
        return body

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete a template; raises ArgoError when there is none."""
        if not self._state.delete_template(kind, _namespace_of(kind, namespace), name):
            raise _not_found(kind, name)

    def templates(self, kind: str, namespace: str) -> list[Body]:
        """The templates of a kind, in a namespace or, when it is empty, in all."""
        return self._state.templates(kind, namespace)


def _namespace_of(kind: str, namespace: str) -> str:
    return "" if kind == CLUSTER_KIND else namespace


def _not_found(kind: str, name: str) -> Exception:
    return not_found(f'{PLURALS[kind]}.argoproj.io "{name}" not found')
