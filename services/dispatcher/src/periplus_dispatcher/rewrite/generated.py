"""Names of the parameters that generated templates have, and what a rewrite gives."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from periplus_dispatcher.domain import FanOut, GeneratedTemplate, Json, StretchMember

IS_HIT = "periplus-hit"
"""Of a gate: "true" if the answer is a hit."""
ITEMS = "periplus-items"
"""The items of a fan-out, as a JSON array."""
REMAINING_ITEMS = "periplus-todo"
"""The items of a fan-out that are no hits, as a JSON array."""
RESULT = "periplus-result"
"""`outputs.result` as an output parameter, which a wrapper can have."""
VERDICT = "periplus-verdict"
"""Of a member of a stretch: SERVED, RUN or ASK."""
SERVED, RUN, ASK = "hit", "run", "ask"
REST = "periplus-rest"
"""Of a member that asked: a JSON object with outputs of the gate of its stretch, for the members behind it."""
NOTHING = "{}"
STRETCH_GATE = "periplus-gate"
"""Name of the gate of a stretch."""
NO_OP = "periplus-never"
"""Name of a template that is never run."""


@dataclass(frozen=True)
class RewrittenManifest:
    """The manifest for Argo, and what `RunState` has of it. If `is_too_large`, it is not rewritten, as it would be too large."""

    manifest: Json
    generated: Mapping[str, GeneratedTemplate] = field(default_factory=dict)
    fan_outs: Mapping[str, FanOut] = field(default_factory=dict)
    stretches: Mapping[str, Mapping[str, StretchMember]] = field(default_factory=dict)
    is_too_large: bool = False


def parameter_of(name: str) -> str:
    """The parameter that carries an output parameter of a hit."""
    return f"periplus-p-{name}"


def artifact_of(name: str) -> str:
    """The parameter or artifact that carries an output artifact of a hit."""
    return f"periplus-a-{name}"


def reference_of(number: int) -> str:
    """The input of a wrapper or gate for what an argument takes from elsewhere."""
    return f"periplus-ref-{number}"


def member_output(task: str, parameter: str) -> str:
    """The output of a stretch's gate that carries a parameter to a member. Names of tasks have no underscore."""
    return f"{task}_{parameter.removeprefix('periplus-')}"


def with_result_as_parameter(value: Any, task: str) -> Any:
    """References to `tasks.X.outputs.result` as references to the parameter of X's wrapper."""
    if isinstance(value, dict):
        return {key: with_result_as_parameter(item, task) for key, item in value.items()}
    if isinstance(value, list):
        return [with_result_as_parameter(item, task) for item in value]
    if not isinstance(value, str) or task not in value:
        return value
    name = re.escape(task)
    value = re.sub(
        r"\{\{\s*(tasks|steps)\." + name + r"\.outputs\.result\s*\}\}",
        lambda m: "{{" + f"{m[1]}.{task}.outputs.parameters.{RESULT}" + "}}",
        value,
    )
    return re.sub(
        r"\b(tasks|steps)(\." + name + r"|\[\s*['\"]" + name + r"['\"]\s*\])\.outputs\.result\b",
        lambda m: f"{m[1]}{m[2]}.outputs.parameters['{RESULT}']",
        value,
    )
