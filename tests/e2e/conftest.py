"""The stack on an Argo: the real one that ARGO_SERVER names, or else the local one."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `cluster`, a module of these tests

from cluster import GATE_SECONDS, Argo
from stack import Stack, up

from periplus_local.stack.home import Home
from periplus_local.stack.services import ARGO_NAMESPACE

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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services on this machine. On a real Argo the test images count as ones that never change under their tags."""
    home = tmp_path_factory.mktemp("cluster") / "home"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DISPATCHER_GATE_SECONDS", str(GATE_SECONDS))
        if "ARGO_SERVER" not in os.environ:
            with up(home) as running:
                yield running
            return
        if missing := [name for name in NEEDED if name not in os.environ]:
            pytest.fail(f"ARGO_SERVER is set, and {', '.join(missing)} are not")
        images = [os.environ[name] for name in TEST_IMAGES if name in os.environ]
        environment.setenv("DISPATCHER_IMMUTABLE_IMAGE_PREFIXES", ",".join(images))
        with up(home, "--cluster") as running:
            yield running


@pytest.fixture(scope="module")
def argo(cluster: Stack) -> Iterator[Argo]:
    """The Argo of `cluster`."""
    if "ARGO_SERVER" in os.environ:
        address, transport, token = os.environ["ARGO_SERVER"], None, os.environ.get("ARGO_TOKEN", "")
        namespace, image = os.environ["ARGO_NAMESPACE"], os.environ["PERIPLUS_TEST_IMAGE"]
    else:
        home = Home(cluster.home)
        address, transport = "http://localhost", httpx.HTTPTransport(uds=str(home.run / "argo.sock"))
        token = f"Bearer {(home.secrets / 'argo-token').read_text().strip()}"
        namespace, image = ARGO_NAMESPACE, "python:3.11"
    headers = {"Authorization": token} if token else {}
    with httpx.Client(base_url=address, transport=transport, headers=headers, timeout=30) as http:
        yield Argo(http, namespace, image)
