"""What the tests of the whole share: one stack for a session, started when the first test asks for it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # for `stack`, which is a module of the tests and of nobody else

from stack import Stack, up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Periplus as a user has it after `periplus up`."""
    with up(tmp_path_factory.mktemp("stack") / "home") as running:
        yield running
