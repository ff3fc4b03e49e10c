"""The stack on an Argo: the real one that ARGO_SERVER names, or else the local one."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `cluster`, a module of these tests

from cluster import GATE_SECONDS, Argo, connected, prepare_cluster
from stack import Stack, up


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
        prepare_cluster(environment)
        with up(home, "--cluster") as running:
            yield running


@pytest.fixture(scope="module")
def argo(cluster: Stack) -> Iterator[Argo]:
    """The Argo of `cluster`."""
    with connected(cluster) as found:
        yield found
