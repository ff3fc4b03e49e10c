"""What pipelines are written with: `from periplus.sdk import step, pipeline`.

The compiler is imported with the first use of `load`, `compile` or `Compiled`, which keeps `import periplus.sdk` fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.graph import when
from periplus.sdk.pipelines.handles import each
from periplus.sdk.pipelines.pipeline import Pipeline, pipeline
from periplus.sdk.pipelines.steps import Step, step
from periplus.sdk.values.formats import Artifact

if TYPE_CHECKING:
    from periplus.sdk.compiler.loading import load as load
    from periplus.sdk.compiler.manifest import Compiled as Compiled
    from periplus.sdk.compiler.manifest import compile as compile  # noqa: A004 - the public name

_LAZY = {"load": "compiler.loading", "compile": "compiler.manifest", "Compiled": "compiler.manifest"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


# Without `compile`, `load` and `Compiled`: `import *` would hide Python's own `compile`.
__all__ = ["Artifact", "Pipeline", "PipelineError", "Step", "each", "pipeline", "step", "when"]
