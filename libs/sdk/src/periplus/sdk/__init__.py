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
    from periplus.sdk.loading import load as load
    from periplus.sdk.manifest import Compiled as Compiled
    from periplus.sdk.manifest import compile as compile  # noqa: A004 - the public name

_LATER = {"load": "loading", "compile": "manifest", "Compiled": "manifest"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


# Without `compile` and what goes with it, since `import *` would hide Python's own.
__all__ = ["Artifact", "Pipeline", "PipelineError", "Step", "each", "pipeline", "step", "when"]
