"""What a pod is asked to do, and what became of it."""

from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["Succeeded", "Failed", "Error"]


@dataclass(frozen=True)
class Job:
    """One attempt of one pod, with every reference already replaced by its value.

    `id` is the node's id and names the working folder. `template` is a container or script
    template as Argo writes it. Output artifacts go to `<key_prefix>/<name>.tgz` unless the
    template names an S3 key. `deadline_seconds` counts from the moment the pod gets its slot.
    """

    id: str
    workflow: str
    pod_name: str
    template: dict[str, Any]
    key_prefix: str
    capture_result: bool = False
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class Done:
    """How a pod ended: phase and message in Argo's words, its outputs, times as Unix seconds.

    `exit_code` is None where no process was started. `artifacts` are written as in a node's status.
    """

    phase: Phase
    message: str
    exit_code: int | None
    started_at: float
    finished_at: float
    parameters: dict[str, str] = field(default_factory=dict)
    result: str | None = None
    artifacts: list[dict[str, Any]] = field(default_factory=list)


class PodError(Exception):
    """The pod itself cannot go on (phase Error): its inputs, its folder or its outputs failed."""
