"""A job (one run of one pod) and its result: what the controller hands to the executor and gets back."""

from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["Succeeded", "Failed", "Error"]


@dataclass(frozen=True)
class Job:
    """One run of one pod, with every reference already replaced by its value.

    `id` names the working folder. `template` is a container or script template as Argo writes it. Output
    artifacts go to `<key_prefix>/<name>.tgz` unless the template names an S3 key. `deadline_seconds` counts
    from the moment the pod gets its slot.
    """

    id: str
    workflow: str
    pod_name: str
    template: dict[str, Any]
    key_prefix: str
    capture_result: bool = False
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class JobResult:
    """How a pod ended: phase and message as Argo writes them, its outputs, times in Unix seconds.

    `exit_code` is None where no process was started. `artifacts` are written as in a node's status. `read` and `written` are the ETags of the objects
    that input artifacts came from and output artifacts went to, by their names.
    """

    phase: Phase
    message: str
    exit_code: int | None
    started_at: float
    finished_at: float
    parameters: dict[str, str] = field(default_factory=dict)
    result: str | None = None
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    read: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)


class PodError(Exception):
    """The pod ends in phase Error: its inputs, its folder or its outputs failed, not its own program."""
