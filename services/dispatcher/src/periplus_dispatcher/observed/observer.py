"""Find the Workflows that others submitted, and the runs that stand for them. Nothing is ever written to Argo."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

from periplus_common.errors import Conflict, Invalid
from periplus_dispatcher.domain import Json, ObservedWorkflow, Run
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.observed import kubeflow
from periplus_dispatcher.observed.namespaces import Observation
from periplus_dispatcher.observed.run import new_run, with_stored_templates
from periplus_dispatcher.observed.workflow import checked, observed_workflow, run_id
from periplus_dispatcher.ports import ObservedArgo, Runs

log = logging.getLogger(__name__)


MAX_NODES_READ_INLINE = 500
"""A Workflow with more nodes is read in a thread: it would delay every other call."""


class Observer:
    """The observed namespaces of one Argo, by name in `argos`."""

    def __init__(
        self,
        argos: Mapping[str, ObservedArgo],
        observation: Observation,
        runs: Runs,
        environment: StepEnvironment,
    ) -> None:
        self._argos = argos
        self._observation = observation
        self._runs = runs
        self._environment = environment

    @property
    def namespaces(self) -> tuple[str, ...]:
        return tuple(self._argos)

    def namespaces_of(self, project: str) -> tuple[str, ...]:
        """The namespaces whose Workflows may belong to a project."""
        return tuple(n for n, found in self._observation.namespaces.items() if project in found.projects)

    def project_of(self, namespace: str, workflow: Json) -> str | None:
        """The project of a Workflow that was read; None if its label names one that is not its namespace's."""
        return self._observation.namespaces[namespace].project_of(workflow)

    def watch(self, namespace: str) -> AsyncIterator[Json | None]:
        """The Workflows of a namespace as they change, unchecked; None first, as the changes before it were missed."""
        return self._argos[namespace].watch(self._observation.selector)

    async def read(self, workflow: Json) -> Json | None:
        """The fields of a Workflow that are used, checked, with the names that Kubeflow Pipelines gives; None if it is unreadable."""
        try:
            read = await asyncio.to_thread(checked, workflow) if _is_large(workflow) else checked(workflow)
        except Invalid as error:
            log.warning("a Workflow is not observed, as it can not be read: %s", error)
            return None
        if kubeflow.is_compiled(read["spec"]):
            read["status"]["nodes"] = kubeflow.with_task_names(read["status"]["nodes"])
        return read

    async def run_of(self, namespace: str, workflow: Json) -> Run | None:
        """The run of a Workflow that was read, which is stored if it is new; None if it is not observed, or has not begun."""
        found = observed_workflow(workflow, namespace)
        stored = await self._runs.get(run_id(found.name, found.uid))
        if stored is not None or not workflow["status"]["phase"] or not self._observation.selects(workflow):
            return stored  # without a phase, Argo has not read the Workflow yet, nor what it refers to
        project = self.project_of(namespace, workflow)
        if project is None:
            log.warning(
                "%s/%s is not observed: its label names a project that is not its namespace's",
                namespace,
                found.name,
            )
            return None
        is_recorded = project in self._observation.recorded_projects
        run, nodes = await asyncio.to_thread(
            new_run, workflow, found, project, self._environment, is_recorded=is_recorded
        )
        try:
            return await self._runs.add(run, [], nodes)
        except Conflict as error:
            log.warning("%s/%s is not observed: %s", namespace, found.name, error)
            return None

    def with_stored_templates(self, run: Run, workflow: Json) -> Run:
        """The run with the templates that its Workflow has called so far."""
        return with_stored_templates(run, workflow, self._environment)

    async def newest(self, found: ObservedWorkflow) -> Json | None:
        """The Workflow of a run, live or archived, unchecked; None if Argo does not have it any more. Raises `Unavailable`."""
        argo = self._argos[found.namespace]
        workflow = await argo.get(found.name)
        if workflow is not None and (workflow.get("metadata") or {}).get("uid") == found.uid:
            return workflow
        return await argo.get_archived(found.uid)

    async def unrecorded(self, namespace: str, *, archived: bool) -> AsyncIterator[Json]:
        """The Workflows of a namespace, live or archived, that have no run or whose run has not finished; unchecked."""
        argo = self._argos[namespace]
        async for name, uid in argo.list(self._observation.selector, archived=archived):
            run = await self._runs.get(run_id(name, uid))
            if run is None or not run.phase.is_final:
                workflow = await self.newest(ObservedWorkflow(namespace, name, uid))
                if workflow is not None:
                    yield workflow


def _is_large(workflow: Json) -> bool:
    status = workflow.get("status")
    nodes = status.get("nodes") if isinstance(status, dict) else None
    return isinstance(nodes, dict) and len(nodes) > MAX_NODES_READ_INLINE
