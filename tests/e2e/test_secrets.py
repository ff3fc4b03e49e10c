"""Steps that get data of a Secret on a real Argo: hits for as long as that data is the same.

The local Argo has no Secrets; there services/dispatcher/tests/test_config_runs.py does the same against a server of the Kubernetes API.
"""

import base64
import json
import os
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cluster import Argo
from stack import Stack, up

from periplus.types.v1 import step_pb2

NEEDED = (
    "ARGO_SERVER",
    "DISPATCHER_KUBERNETES_URL",
    "DISPATCHER_KUBERNETES_TOKEN_FILE",
    "DISPATCHER_KUBERNETES_CA_FILE",
)
"""The token may also create, change and delete Secrets."""
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        any(name not in os.environ for name in NEEDED),
        reason=f"the local Argo has no Secrets; needs {', '.join(NEEDED)}",
    ),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DISPATCHER_IMMUTABLE_IMAGE_PREFIXES", os.environ["PERIPLUS_TEST_IMAGE"])
        with up(tmp_path_factory.mktemp("secrets") / "home", "--cluster") as running:
            yield running


@pytest.fixture
def argo() -> Iterator[Argo]:
    with httpx.Client(base_url=os.environ["ARGO_SERVER"], timeout=30) as http:
        yield Argo(http, os.environ["ARGO_NAMESPACE"], os.environ["PERIPLUS_TEST_IMAGE"])


class Secret:
    """A Secret of the namespace of the runs."""

    def __init__(self, http: httpx.Client, namespace: str) -> None:
        self.name = f"periplus-{uuid.uuid4().hex[:12]}"
        self._http, self._path = http, f"/api/v1/namespaces/{namespace}/secrets"

    def write(self, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.name}, "data": data}
        answer = self._http.put(f"{self._path}/{self.name}", json=body)
        if answer.status_code == httpx.codes.NOT_FOUND:
            answer = self._http.post(self._path, json=body)
        answer.raise_for_status()

    def delete(self) -> None:
        self._http.delete(f"{self._path}/{self.name}")


@contextmanager
def kubernetes() -> Iterator[httpx.Client]:
    token = Path(os.environ["DISPATCHER_KUBERNETES_TOKEN_FILE"]).read_text().strip()
    verify = ssl.create_default_context(cafile=os.environ["DISPATCHER_KUBERNETES_CA_FILE"])
    url, headers = os.environ["DISPATCHER_KUBERNETES_URL"], {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, verify=verify, timeout=30) as http:
        yield http


@pytest.fixture
def secret() -> Iterator[Secret]:
    with kubernetes() as http:
        found = Secret(http, os.environ["ARGO_NAMESPACE"])
        yield found
        found.delete()


def manifest(secret: str, image: str, salt: str, how: str) -> str:
    """One step that prints what it gets of a Secret."""
    source = f"import os, pathlib\nvalue = os.environ.get('TOKEN') or pathlib.Path('/creds/token').read_text()\nopen('/tmp/o', 'w').write(value)  # {salt}"
    script = {"image": image, "command": ["python3"], "source": source}
    spec = {}
    if how == "secretKeyRef":
        script["env"] = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}}]
    elif how == "volume":
        script["volumeMounts"] = [{"name": "creds", "mountPath": "/creds"}]
        items = [{"key": "token", "path": "token"}]
        spec["volumes"] = [
            {"name": "creds", "projected": {"sources": [{"secret": {"name": secret, "items": items}}]}}
        ]
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": "secret-"},
            "spec": {
                "entrypoint": "main",
                "templates": [{"name": "main", "script": script, "outputs": outputs}],
                **spec,
            },
        }
    )


@pytest.mark.parametrize("how", ["secretKeyRef", "volume"])
def test_a_step_is_a_hit_as_long_as_what_it_gets_of_its_secret_is_the_same(
    stack: Stack, argo: Argo, secret: Secret, how: str
) -> None:
    text = manifest(secret.name, argo.image, uuid.uuid4().hex, how)

    def outcome() -> tuple[str, str]:
        run = stack.finish(text)
        (step,) = run.steps
        phase = step_pb2.StepPhase.Name(step.phase).removeprefix("STEP_PHASE_")
        return phase, "".join(p.value for p in step.outputs.parameters)

    secret.write(token="one", other="x")
    assert outcome() == ("SUCCEEDED", "one")
    assert outcome() == ("CACHED", "one")
    secret.write(token="two", other="x")
    assert outcome() == ("SUCCEEDED", "two")
    secret.write(token="one", other="x")
    assert outcome() == ("CACHED", "one")
    secret.write(token="one", other="y")
    assert outcome() == ("CACHED", "one")
