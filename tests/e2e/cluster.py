"""The Argo under test, asked directly."""

from dataclasses import dataclass
from typing import Any

import httpx

GATE_SECONDS = 10


@dataclass
class Argo:
    """The Argo that runs the steps."""

    http: httpx.Client
    namespace: str
    image: str

    def workflow(self, run: str) -> dict[str, Any] | None:
        """A run's Workflow, if there is one."""
        found = self.http.get(f"/api/v1/workflows/{self.namespace}/{run}")
        return None if found.status_code == 404 else found.raise_for_status().json()

    def nodes(self, run: str) -> dict[str, tuple[str, str]]:
        """Type and phase of the nodes of a Workflow, by name; empty if the Workflow does not exist."""
        status = (self.workflow(run) or {}).get("status", {})
        return {n["name"]: (n["type"], n["phase"]) for n in status.get("nodes", {}).values()}

    def pods(self, run: str) -> list[str]:
        """The steps of a run that have a pod, by the names of their nodes without the run's."""
        pods = (name for name, (kind, _) in self.nodes(run).items() if kind == "Pod")
        return sorted(name.removeprefix(f"{run}.") for name in pods)

    def gates(self, run: str) -> dict[str, str]:
        """The phases of a run's suspended nodes, by name without the run's."""
        found = {name: phase for name, (kind, phase) in self.nodes(run).items() if kind == "Suspend"}
        return {name.removeprefix(f"{run}."): phase for name, phase in found.items()}

    def resubmit(self, run: str) -> str:
        """The name of the Workflow that `argo resubmit` would make."""
        answer = self.http.put(f"/api/v1/workflows/{self.namespace}/{run}/resubmit", json={"name": run})
        return str(answer.raise_for_status().json()["metadata"]["name"])

    def store_template(self, template: dict[str, Any]) -> None:
        """Create a WorkflowTemplate, or replace the one of its name."""
        path = f"/api/v1/workflow-templates/{self.namespace}"
        found = self.http.get(f"{path}/{template['metadata']['name']}")
        body = {**template, "metadata": {**template["metadata"], "namespace": self.namespace}}
        if found.status_code == 404:
            self.http.post(path, json={"namespace": self.namespace, "template": body}).raise_for_status()
            return
        name, version = (
            template["metadata"]["name"],
            found.raise_for_status().json()["metadata"]["resourceVersion"],
        )
        body["metadata"]["resourceVersion"] = version
        answer = self.http.put(
            f"{path}/{name}", json={"name": name, "namespace": self.namespace, "template": body}
        )
        answer.raise_for_status()
