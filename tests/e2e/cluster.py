"""The Argo under test, asked directly."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from stack import Stack

from periplus_local.stack.home import Home
from periplus_local.stack.services import ARGO_NAMESPACE

GATE_SECONDS = 10

NEEDED = (
    "ARGO_NAMESPACE",
    "S3_ENDPOINT",
    "S3_BUCKET",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "PERIPLUS_TEST_IMAGE",
)
"""The variables that go with ARGO_SERVER. The image needs Python 3.11, and the cluster must be able to pull it.

PERIPLUS_TEST_SCIENCE_IMAGE may name one with numpy and scikit-learn, for tests/e2e/test_pipelines.py.
"""

TEST_IMAGES = ("PERIPLUS_TEST_IMAGE", "PERIPLUS_TEST_SCIENCE_IMAGE")


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


def prepare_cluster(environment: pytest.MonkeyPatch) -> None:
    """Check the variables that go with ARGO_SERVER. Test images count as ones that never change under their tags."""
    if missing := [name for name in NEEDED if name not in os.environ]:
        pytest.fail(f"ARGO_SERVER is set, and {', '.join(missing)} are not")
    images = [os.environ[name] for name in TEST_IMAGES if name in os.environ]
    environment.setenv("DISPATCHER_IMMUTABLE_IMAGE_PREFIXES", ",".join(images))


@contextmanager
def connected(stack: Stack | None, socket: Path | None = None) -> Iterator[Argo]:
    """The real Argo that ARGO_SERVER names, or else the local one of a stack, at `socket` if it was moved there."""
    if "ARGO_SERVER" in os.environ:
        address, transport, token = os.environ["ARGO_SERVER"], None, os.environ.get("ARGO_TOKEN", "")
        namespace, image = os.environ["ARGO_NAMESPACE"], os.environ["PERIPLUS_TEST_IMAGE"]
    else:
        assert stack is not None
        home = Home(stack.home)
        address, transport = (
            "http://localhost",
            httpx.HTTPTransport(uds=str(socket or home.run / "argo.sock")),
        )
        token = f"Bearer {(home.secrets / 'argo-token').read_text().strip()}"
        namespace, image = ARGO_NAMESPACE, "python:3.11"
    headers = {"Authorization": token} if token else {}
    with httpx.Client(base_url=address, transport=transport, headers=headers, timeout=30) as http:
        yield Argo(http, namespace, image)
