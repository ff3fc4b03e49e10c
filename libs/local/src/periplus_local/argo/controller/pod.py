"""Container and script templates: a pod, which the executor runs as a process."""

from typing import Any

from periplus_local.argo import names
from periplus_local.argo.controller import outputs
from periplus_local.argo.controller.nodes import Node, is_fulfilled
from periplus_local.argo.controller.object_keys import check_keys
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.template_call import TemplateExecution
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.executor.job import Job, JobResult
from periplus_local.argo.scalars import (
    duration_seconds,
    integer,
    now,
    parse_timestamp,
    timestamp_of_unix,
)
from periplus_local.argo.templates import ARTIFACT_SOURCES
from periplus_manifest.errors import ManifestError

RERUN = "the local Argo was restarted while this step ran: it was run again"
ADOPTED = "the local Argo was restarted while this step ran: its process went on"


async def run_pod(execution: TemplateExecution) -> Node:
    """Run the process of a container or script template to its end."""
    run, call = execution.run, execution.call
    async with run.pod_slots.acquire():
        node = execution.node()
        was_started = node is not None and run.recovered
        if node is None:
            node = execution.start_node("Pod", "Pending", hostNodeName="localhost")
        if run.is_shut_down(in_exit_handler=call.in_exit_handler):
            return run.nodes.set_phase(node, "Failed", f"workflow shutdown with strategy: {run.shutdown}")
        if run.is_deadline_passed() and not call.in_exit_handler:
            return run.nodes.set_phase(node, "Failed", "Step exceeded its deadline")
        job = _job(execution, node)
        run.jobs[job.id] = call.in_exit_handler
        try:
            result, restart_message = await _run_job(execution, job, node, was_started)
        finally:
            run.jobs.pop(job.id, None)
        stop_reason = run.stop_reasons.pop(job.id, None)
        return _end_node(execution, node, result, stop_reason, restart_message)


def job_id(uid: str, node_name: str, control: dict[str, Any]) -> str:
    """The id of the job of a node; another one after each retry of the whole workflow."""
    retries = control.get("retried", 0)
    return f"{uid}-{names.fnv32a(node_name)}" + (f"-{retries}" if retries else "")


def _job(execution: TemplateExecution, node: Node) -> Job:
    run, call, template = execution.run, execution.call, execution.template
    for artifact in (template.get("inputs") or {}).get("artifacts") or ():
        if not artifact.get("optional") and not any(source in artifact for source in ARTIFACT_SOURCES):
            raise ManifestError(f"inputs.artifacts.{artifact['name']}", "has no location (s3 or raw)")
    check_keys(run, template)
    pod = names.pod_name(run.name, call.node_name, template.get("name", ""))
    return Job(
        id=job_id(run.uid, call.node_name, run.control),
        workflow=run.name,
        pod_name=pod,
        template=template,
        key_prefix=_key_prefix(run, pod),
        capture_result=call.boundary is not None and call.step in call.boundary.captured_steps,
        deadline_seconds=_deadline_seconds(execution, node),
    )


def _key_prefix(run: WorkflowRun, pod: str) -> str:
    """What the keys of a pod's artifacts begin with. Raises ArgoError for a tag that has no value, as a label that is not set."""
    scope = Scope(run.globals)
    scope.put(pod, "pod", "name")
    return str(scope.fill_strictly(run.context.key_format))


def _deadline_seconds(execution: TemplateExecution, node: Node) -> float | None:
    template, limits = execution.template, list[float]()
    if template.get("activeDeadlineSeconds") is not None:
        limits.append(max(integer("activeDeadlineSeconds", template["activeDeadlineSeconds"]), 1))
    if template.get("timeout"):
        elapsed = (now() - parse_timestamp(node["startedAt"])).total_seconds()
        limits.append(max(duration_seconds(template["timeout"]) - int(elapsed), 0.1))
    if execution.retry_until is not None:
        limits.append(max(execution.retry_until - now().timestamp(), 0.1))
    return min(limits, default=None)


async def _run_job(
    execution: TemplateExecution, job: Job, node: Node, was_started: bool
) -> tuple[JobResult, str | None]:
    """Run the job, or adopt it from an earlier server; its result, and a message about a restart meanwhile."""
    run, executor = execution.run, execution.run.context.executor

    async def on_start() -> None:
        if not is_fulfilled(node):
            run.nodes.set_phase(node, "Running")
            run.flush(run)  # before the process starts, so that after a restart it is known that it may have

    if not run.recovered:
        return await executor.run(job, on_start=on_start), None
    was_running = was_started and node["phase"] == "Running"
    if was_started:
        await on_start()
    result = await executor.adopt(job)
    if result is not None:
        return result, ADOPTED if was_running else None
    return await executor.run(job, on_start=on_start), RERUN if was_running else None


def _end_node(
    execution: TemplateExecution,
    node: Node,
    result: JobResult,
    stop_reason: str | None,
    restart_message: str | None,
) -> Node:
    run = execution.run
    node_outputs: dict[str, Any] = {}
    if stop_reason is None:
        if result.exit_code is not None:
            node_outputs["exitCode"] = str(result.exit_code)
        if result.result is not None:
            node_outputs["result"] = result.result
        declared = (execution.template.get("outputs") or {}).get("parameters") or []
        if declared:
            node_outputs["parameters"] = [_with_value(item, result.parameters) for item in declared]
        if result.artifacts:
            node_outputs["artifacts"] = result.artifacts
    if node_outputs:
        node["outputs"] = {key: node_outputs[key] for key in sorted(node_outputs)}
        outputs.export_globals(run, node["outputs"])
    node.pop("etags", None)  # of an earlier attempt
    if etags := _etags(result):
        node["etags"] = etags
    node["taskResultSynced"] = True
    node["finishedAt"] = timestamp_of_unix(result.finished_at)
    run.finished_at[node["id"]] = result.finished_at
    phase = "Failed" if stop_reason else result.phase
    message = "; ".join(filter(None, [stop_reason or result.message, restart_message]))
    return run.nodes.set_phase(node, phase, message)


def _with_value(declared: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    name = declared["name"]
    return {**declared, "value": values[name]} if name in values else declared


def _etags(result: JobResult) -> dict[str, dict[str, str]]:
    """The ETags of the objects that the step read and wrote, by the names of its artifacts: a field that Argo's nodes have not."""
    found = {
        kind: {name: etag for name, etag in etags.items() if etag}
        for kind, etags in (("inputs", result.read), ("outputs", result.written))
    }
    return {kind: etags for kind, etags in found.items() if etags}
