"""The calls of templates in a manifest: what expanding it gives, and loops, order and dependencies of single calls."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

from periplus_dispatcher.domain import ContainerTemplate, Json
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_manifest import depends
from periplus_manifest.depends import Depends
from periplus_model.queries import ArtifactSource, StepQuery, Text

TEMPLATE_KINDS = (
    "container", "script", "suspend", "dag", "steps", "resource", "http", "plugin", "data", "containerSet",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call of a template: a step, or the call of a template invocator, whose own calls follow it.

    `query` is None if the step is not looked up in the cache; `uncacheable_reason` says why. `condition` is the text of
    `when`. `siblings` are the paths of the tasks that `waits_for` can name. `result_used` is whether others read
    `outputs.result`. `ungated_reason` says why it can be served only where all of its inputs are known at submission.
    `is_entrypoint` is whether the workflow is this one step.
    """

    path: str
    template: str
    depends_on: tuple[str, ...] = ()
    condition: Text | None = None
    condition_uses_item: bool = False
    query: StepQuery | None = None
    uncacheable_reason: str = ""
    ungated_reason: str = ""
    waits_for: Depends | None = None
    siblings: Mapping[str, str] = field(default_factory=dict)
    result_used: bool = False
    is_invocator: bool = False
    is_entrypoint: bool = False

    @property
    def is_expanded(self) -> bool:
        """Whether its own calls follow it, so that it is no step itself."""
        return self.is_invocator and not self.uncacheable_reason

    @property
    def is_fan_out(self) -> bool:
        """Whether the cache is asked for each of its items."""
        return self.query is not None and self.query.items is not None


@dataclass(frozen=True)
class ExitHandler:
    """The templates that run when the workflow ends.

    `pods` is how many pods they start; not `is_exact`, that depends on the run. `is_optional`: an annotation says that
    they need not run in a run whose steps are all cached.
    """

    templates: tuple[str, ...]
    pods: int
    is_exact: bool
    is_optional: bool

    @property
    def cost(self) -> str:
        """What it costs in a run whose steps are all cached, as a sentence with the annotation that saves it."""
        pods = f"{'' if self.is_exact else 'about '}{self.pods} pod{'' if self.pods == 1 else 's'}"
        return (
            f"every step is cached, but the exit handler {' and '.join(self.templates)} runs: it costs a Workflow and "
            f"{pods}; if it need not run then, annotate it with {ANNOTATION_PREFIX}on-exit: if-run"
        )


@dataclass(frozen=True)
class ExpandedWorkflow:
    """A manifest's calls in topological order, and its container templates by name.

    `parameters` and `artifacts` are the entrypoint's outputs, without those that are known only during the run.
    `steps_decide_all` is whether the outcome of the run follows from the outcomes of the steps: no hooks but the exit
    handler, no output that is known only during the run. `warnings` say why there are no calls, or which inputs
    keep steps from ever being hits.
    """

    calls: tuple[Call, ...]
    templates: Mapping[str, ContainerTemplate]
    parameters: Mapping[str, Text]
    artifacts: Mapping[str, ArtifactSource]
    steps_decide_all: bool
    exit_handler: ExitHandler | None = None
    warnings: tuple[str, ...] = ()


def items_of(value: Json, *path: str) -> list[Json]:
    """The list at a path of fields; empty if a field is absent or null."""
    for key in path:
        value = value.get(key) or {}
    return value or []  # type: ignore[return-value]


def template_kind(template: Json) -> str:
    return next((kind for kind in TEMPLATE_KINDS if kind in template), "nameless")


def is_invocator(template: Json) -> bool:
    return "dag" in template or "steps" in template


def is_loop(task: Json) -> bool:
    return any(task.get(key) is not None for key in ("withItems", "withParam", "withSequence"))


def text_of(value: Any) -> str:
    """A value of a manifest as Argo formats it as text."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def dependencies(template: Json) -> dict[str, Depends | None]:
    """What each task of a DAG waits for; empty for a steps template, whose groups run one after the other."""
    return {task["name"]: depends.of(task) for task in items_of(template, "dag", "tasks")}


def groups(
    template: Json, dependencies: Mapping[str, Depends | None], targets: list[str] | None
) -> Iterator[list[Json]]:
    """The calls of a template invocator in topological order; those of one group can run at the same time.

    With `targets`: only these tasks of a DAG and those that they wait for.
    """
    if "steps" in template:
        yield from template["steps"]
        return
    tasks = {task["name"]: task for task in template["dag"]["tasks"]}
    predecessors = {name: set(found.tasks) if found else set() for name, found in dependencies.items()}
    if targets is not None:
        predecessors = _with_ancestors(predecessors, [name for name in targets if name in predecessors])
    sorter = TopologicalSorter(predecessors)
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        yield [tasks[name] for name in ready]
        sorter.done(*ready)


def _with_ancestors(predecessors: Mapping[str, set[str]], targets: list[str]) -> dict[str, set[str]]:
    """Only the targets and their ancestors."""
    wanted: dict[str, set[str]] = {}
    queue = list(targets)
    while queue:
        if (name := queue.pop()) not in wanted:
            wanted[name] = predecessors[name]
            queue += predecessors[name]
    return wanted
