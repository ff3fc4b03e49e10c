"""A template that is a process: `container` and `script`."""

from typing import Any

from periplus_local.argo import names, outputs
from periplus_local.argo.call import Frame
from periplus_local.argo.duration import seconds_of
from periplus_local.argo.executor.job import Job, JobResult
from periplus_local.argo.nodes import Node, fulfilled
from periplus_local.argo.number import whole
from periplus_local.argo.templates import ARTIFACT_PLACE
from periplus_manifest.errors import ManifestError

RERUN = "the local Argo was restarted while this step ran: it was run again"
ADOPTED = "the local Argo was restarted while this step ran: its process went on"


async def run(frame: Frame) -> Node:
    """Run the process of a container or script template; its node tells how it ended."""
    run = frame.run
    async with run.pod_slots.one():
        node = frame.node()
        known = node is not None and run.recovered
        if node is None:
            node = frame.start("Pod", "Pending", hostNodeName="localhost")
        if run.shuts(frame.call.exit_part):
            return run.nodes.mark(node, "Failed", f"workflow shutdown with strategy: {run.shutdown}")
        if run.expired() and not frame.call.exit_part:
            return run.nodes.mark(node, "Failed", "Step exceeded its deadline")
        job = _job(frame, node)
        run.jobs[job.id] = frame.call.exit_part
        try:
            done, said = await _process(frame, job, node, known)
        finally:
            run.jobs.pop(job.id, None)
        return _ended(frame, node, done, run.reasons.pop(job.id, None), said)


def job_id(uid: str, node_name: str, control: dict[str, Any]) -> str:
    """The id of the job of a node; another one after each retry of the whole workflow."""
    turn = control.get("retried", 0)
    return f"{uid}-{names.fnv32a(node_name)}" + (f"-{turn}" if turn else "")


def _job(frame: Frame, node: Node) -> Job:
    run, call, template = frame.run, frame.call, frame.template
    for artifact in (template.get("inputs") or {}).get("artifacts") or ():
        if not artifact.get("optional") and not any(place in artifact for place in ARTIFACT_PLACE):
            raise ManifestError(f"inputs.artifacts.{artifact['name']}", "has no location (s3 or raw)")
    pod = names.pod_name(run.name, call.name, template.get("name", ""))
    captured = call.boundary is not None and call.step in call.boundary.captured
    return Job(
        id=job_id(run.uid, call.name, run.control),
        workflow=run.name,
        pod_name=pod,
        template=template,
        key_prefix=f"{run.name}/{pod}",
        capture_result=captured,
        deadline_seconds=_deadline(frame, node),
    )


def _deadline(frame: Frame, node: Node) -> float | None:
    limits: list[float] = []
    if frame.template.get("activeDeadlineSeconds") is not None:
        limits.append(max(whole("activeDeadlineSeconds", frame.template["activeDeadlineSeconds"]), 1))
    if frame.template.get("timeout"):
        past = (names.now() - names.parse(node["startedAt"])).total_seconds()
        limits.append(max(seconds_of(frame.template["timeout"]) - int(past), 0.1))
    if frame.until is not None:
        limits.append(max(frame.until - names.now().timestamp(), 0.1))
    return min(limits, default=None)


async def _process(frame: Frame, job: Job, node: Node, known: bool) -> tuple[JobResult, str | None]:
    run = frame.run

    async def started() -> None:
        if not fulfilled(node):
            run.nodes.mark(node, "Running")
            run.write(run)  # before the process begins, so that a restart knows that it may have

    if not run.recovered:
        return await run.around.executor.run(job, on_start=started), None
    was_running = known and node["phase"] == "Running"
    if known:
        await started()
    done = await run.around.executor.adopt(job)
    if done is not None:
        return done, ADOPTED if was_running else None
    return await run.around.executor.run(job, on_start=started), RERUN if was_running else None


def _ended(frame: Frame, node: Node, done: JobResult, reason: str | None, said: str | None) -> Node:
    run = frame.run
    made: dict[str, Any] = {}
    if reason is None:
        if done.exit_code is not None:
            made["exitCode"] = str(done.exit_code)
        if done.result is not None:
            made["result"] = done.result
        declared = (frame.template.get("outputs") or {}).get("parameters") or []
        if declared:
            made["parameters"] = [_parameter(item, done.parameters) for item in declared]
        if done.artifacts:
            made["artifacts"] = done.artifacts
    if made:
        node["outputs"] = {key: made[key] for key in sorted(made)}
        outputs.export(run, node["outputs"])
    node["taskResultSynced"] = True
    node["finishedAt"] = names.stamp_of(done.finished_at)
    run.finished[node["id"]] = done.finished_at
    phase = "Failed" if reason else done.phase
    message = "; ".join(filter(None, [reason or done.message, said]))
    return run.nodes.mark(node, phase, message)


def _parameter(declared: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    name = declared["name"]
    return {**declared, "value": values[name]} if name in values else declared
