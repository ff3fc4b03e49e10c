"""A run that is followed: what is known of it between two states of its Workflow."""

from dataclasses import dataclass, field

from periplus_dispatcher.domain import Json, Run
from periplus_dispatcher.follow.images import SeenImages
from periplus_dispatcher.follow.leases import RunLeases
from periplus_model.steps import StepPhase


@dataclass
class FollowedRun:
    """A run, the newest state of its Workflow that is not processed yet, and whether a task processes it, or will.

    `version` is the resourceVersion of the newest state since the last check of all runs.

    `published`, `answered` and `delays`, the reasons by path, spare the database what was done already.
    """

    run: Run
    newest: Json | None = None
    version: str = ""
    is_queued: bool = False
    published: set[tuple[str, StepPhase, int]] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    delays: dict[str, str] | None = None
    images: SeenImages = field(default_factory=SeenImages)
    leases: RunLeases = field(default_factory=RunLeases)
