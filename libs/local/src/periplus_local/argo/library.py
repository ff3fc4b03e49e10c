"""The WorkflowTemplates of the server, which workflows may refer to by name."""

import uuid
from typing import Any

from periplus_local.argo import birth, machine, names, references, submission
from periplus_local.argo.faults import exists, invalid, missing
from periplus_local.argo.store import Store

WIDE = "ClusterWorkflowTemplate"
NARROW = "WorkflowTemplate"
PLURALS = {WIDE: "clusterworkflowtemplates", NARROW: "workflowtemplates"}
Body = dict[str, Any]


class Shelves:
    """Templates by kind, namespace and name, kept in the store."""

    def __init__(self, store: Store) -> None:
        """The templates that the store keeps."""
        self._store = store

    def spec_of(self, name: str, cluster: bool) -> Body:
        """The spec of the template of that name, in whatever namespace; Fault when there is none."""
        found = self._store.templates(WIDE if cluster else NARROW, "", name)
        if not found:
            raise missing(f'{PLURALS[WIDE if cluster else NARROW]}.argoproj.io "{name}" not found')
        return dict(found[0]["spec"])

    def create(self, kind: str, namespace: str, template: Any) -> Body:
        """Keep a new template; Fault when it is none, cannot run here, or its name is taken."""
        body = self.checked(kind, template)
        metadata = body["metadata"] = dict(body.get("metadata") or {})
        if not metadata.get("name") and not metadata.get("generateName"):
            raise invalid("metadata.name: name or generateName is required")
        name = metadata.get("name") or names.generated(str(metadata["generateName"]))
        birth.check_name("metadata.name", name)
        stamped = {"uid": str(uuid.uuid4()), "creationTimestamp": names.stamp(names.now())}
        version = {"resourceVersion": str(self._store.next_version()), "generation": 1}
        place = {} if kind == WIDE else {"namespace": namespace}
        metadata.update({"name": name, **place, **stamped, **version})
        if not self._store.put_template(kind, "" if kind == WIDE else namespace, name, body):
            raise exists(f'{PLURALS[kind]}.argoproj.io "{name}" already exists')
        return body

    def checked(self, kind: str, template: Any) -> Body:
        """The template as it is kept; Fault for what it may not hold, or refers to and is not there."""
        if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
            raise invalid("template.spec: is not an object")
        spec = template["spec"]
        submission.refuse("spec", spec, "spec")
        for index, item in enumerate(spec.get("templates") or ()):
            if not isinstance(item, dict) or not item.get("name"):
                raise invalid(f"spec.templates[{index}].name: is required")
        body = {"metadata": template.get("metadata") or {}, "spec": spec}
        submission.checked(kind, body)
        made = submission.normalised(body)
        machine.check_processes(made["spec"])
        references.check(made["spec"], self)
        return dict(made)

    def get(self, kind: str, namespace: str, name: str) -> Body:
        """The template of that name; Fault when there is none."""
        found = self._store.templates(kind, "" if kind == WIDE else namespace, name)
        if not found:
            raise missing(f'{PLURALS[kind]}.argoproj.io "{name}" not found')
        return found[0]

    def change(self, kind: str, namespace: str, name: str, template: Any) -> Body:
        """Replace the spec of a template."""
        old, new = self.get(kind, namespace, name), self.checked(kind, template)
        version = {"resourceVersion": str(self._store.next_version())}
        labels = {key: value for key, value in new["metadata"].items() if key in {"labels", "annotations"}}
        body = {"metadata": {**old["metadata"], **labels, **version}, "spec": new["spec"]}
        self._store.change_template(kind, "" if kind == WIDE else namespace, name, body)
        return body

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Take a template away; Fault when there is none."""
        if not self._store.drop_template(kind, "" if kind == WIDE else namespace, name):
            raise missing(f'{PLURALS[kind]}.argoproj.io "{name}" not found')

    def all(self, kind: str, namespace: str) -> list[Body]:
        """The templates of a kind, in a namespace or in all."""
        return self._store.templates(kind, namespace)
