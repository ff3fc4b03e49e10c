"""What a step's process uses beyond its key: code that its closure does not have, files and variables that it does not declare.

The report is a small JSON object beside the outputs: `code`, names of the code index with their digests, which the cache compares
before it serves the result to another run; `files` and `variables`, for which a result is not cached. Standard library only: it
travels to the step with the runner. How it is meant: docs/discovered-inputs.md.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from periplus.sdk.discovery.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Mapping


def start(entry: str, environment: Mapping[str, str], code: str | None) -> Observation:
    """Begin to observe this process, before anything of the project is imported. `code`: the folder of its code."""
    found = Observation(entry, environment, code)
    found.begin()
    return found


def write(report: Mapping[str, Any], path: str) -> None:
    """Write a report to the file of the step's output."""
    text = json.dumps(report, sort_keys=True, separators=(",", ":"))
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - Path takes longer than all of the rest
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
