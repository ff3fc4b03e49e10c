"""What pipelines are written with: `from periplus.sdk import step, pipeline`.

What only a compiler or a command needs is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from periplus.sdk.errors import PipelineError
from periplus.sdk.formats import Artifact
from periplus.sdk.graph import when
from periplus.sdk.handles import each
from periplus.sdk.pipelines import Pipeline, pipeline
from periplus.sdk.steps import Step, step

if TYPE_CHECKING:
    from periplus.sdk.loading import load
    from periplus.sdk.manifest import Compiled, compile  # noqa: A004

_LATER = {"load": "loading", "compile": "manifest", "Compiled": "manifest"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


__all__ = [
    "Artifact",
    "Compiled",
    "Pipeline",
    "PipelineError",
    "Step",
    "compile",
    "each",
    "load",
    "pipeline",
    "step",
    "when",
]
