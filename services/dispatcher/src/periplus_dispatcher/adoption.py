"""Adopt history: record the Workflows that others submitted and that Argo still has, by the path of those that are observed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from periplus_common.errors import Refused
from periplus_dispatcher.domain import ObservedWorkflow
from periplus_dispatcher.follow.follower import Follower
from periplus_dispatcher.observed.observer import Observer
from periplus_dispatcher.observed.run import pipeline
from periplus_dispatcher.observed.workflow import observed_workflow, run_id


@dataclass(frozen=True)
class AdoptedWorkflow:
    """A Workflow that was found. `skipped_reason`: why it was not recorded, as a sentence; empty if it was."""

    run: str
    workflow: ObservedWorkflow
    pipeline: str
    skipped_reason: str = ""


class Adoption:
    """Adopts the Workflows of the namespaces that are observed for a project."""

    def __init__(self, observer: Observer, follower: Follower) -> None:
        self._observer = observer
        self._follower = follower

    async def adopt(
        self, project: str, namespace: str, *, validate_only: bool
    ) -> AsyncIterator[AdoptedWorkflow]:
        """Each Workflow that has no finished run, once it was recorded. Empty `namespace`: all of the project.

        Raises `Refused`, `Unavailable`.
        """
        namespaces = self._observer.namespaces_of(project)
        if not namespaces or (namespace and namespace not in namespaces):
            raise Refused(
                f"no Workflows of {namespace or 'any namespace'} are observed for project {project}",
                fix=f"set DISPATCHER_OBSERVE={namespace or '<namespace>'}={project} of the dispatcher",
            )
        for each in (namespace,) if namespace else namespaces:
            found: set[str] = set()
            for archived in (False, True):
                async for workflow in self._observer.unrecorded(each, archived=archived):
                    read = await self._observer.read(workflow)
                    if read is None or self._observer.project_of(each, read) != project:
                        continue
                    identity = observed_workflow(read, each)
                    if identity.uid in found:
                        continue
                    found.add(identity.uid)
                    adopted = AdoptedWorkflow(run_id(identity.name, identity.uid), identity, pipeline(read))
                    if not validate_only and await self._follower.record(each, workflow) is None:
                        adopted = replace(adopted, skipped_reason="it has not begun")
                    yield adopted
