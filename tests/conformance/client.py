"""A client of Argo's REST API, real or local, as far as the recordings need one."""

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

POLL_SECONDS = 0.1


class Refusal(Exception):
    """The server did not do it: the HTTP status and the body."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Client:
    address: str
    token: str
    namespace: str = "argo"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/api/v1/{path}", data, headers, method=method)
        insecure = ssl.create_default_context()
        if os.environ.get("ARGO_INSECURE") == "true":
            insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(request, timeout=30, context=insecure) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refusal(error.code, error.read().decode()) from error

    def create(self, workflow: dict[str, Any]) -> dict[str, Any]:
        return self.call("POST", f"workflows/{self.namespace}", {"workflow": workflow})

    def get(self, name: str) -> dict[str, Any]:
        return self.call("GET", f"workflows/{self.namespace}/{name}")

    def do(self, name: str, deed: str, **asked: Any) -> dict[str, Any]:
        body = {"name": name, "namespace": self.namespace, **asked}
        return self.call("PUT", f"workflows/{self.namespace}/{name}/{deed}", body)

    def ended(self, name: str, answers: dict[str, dict[str, str]] | None = None, seconds: float = 60) -> Any:
        """The workflow once it has ended; suspend nodes with an answer are answered by display name."""
        end = time.monotonic() + seconds
        answered: set[str] = set()
        while time.monotonic() < end:
            workflow = self.get(name)
            status = workflow.get("status") or {}
            for node in (status.get("nodes") or {}).values():
                if node["type"] == "Suspend" and node["phase"] == "Running" and node["id"] not in answered:
                    answer = (answers or {}).get(node["displayName"])
                    if answer is not None:
                        answered.add(node["id"])
                        self.do(
                            name,
                            "set",
                            nodeFieldSelector=f"id={node['id']}",
                            phase="Succeeded",
                            outputParameters=json.dumps(answer),
                        )
            labels = workflow["metadata"].get("labels") or {}
            if labels.get("workflows.argoproj.io/completed") == "true":
                return workflow
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"{name} has not ended: {json.dumps(self.get(name)['status'])[:4000]}")
