"""The stack that tests share: one per session, started when the first test uses it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `stack`, a module of the tests

from stack import Stack, up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Periplus after `periplus up`."""
    with up(tmp_path_factory.mktemp("stack") / "home") as running:
        yield running
