"""Fields that are checked on their own: paths of artifacts, pod resources, metrics, and cron schedules."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from periplus_manifest.errors import ManifestError

from .manifest import POD_TYPES, Fields, items

_PARENT = re.compile(r"/\.\.(?:/|$)")
_METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# Minimum and maximum of each field, and the names of its numbers.
_CRON_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 6, _DAYS),
)
_SCHEDULE_NAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_CRON_PART = re.compile(
    r"(?:[*?]|([0-9]{1,4}|[a-z]{3})(?:-([0-9]{1,4}|[a-z]{3}))?)(?:/([0-9]{1,4}))?", re.ASCII
)


def check_artifact_path(artifact: Fields, path: str) -> None:
    """Check the path of an artifact of a template that runs something."""
    written = artifact.get("path")
    if not written:
        raise ManifestError(f"{path}.path", f"Artifact '{artifact.get('name')}' did not specify a path")
    parent = _PARENT.search(written)
    if parent is None:
        return
    start = written[: parent.start()]
    cleaned = posixpath.normpath(written)
    if start and not (cleaned.startswith(f"{start}/") and len(cleaned) > len(start) + 1):
        raise ManifestError(f"{path}.path", "directory traversal with '..' is not permitted")


def check_pod_resources(holder: Fields, path: str) -> None:
    """Check the `podResources` of a spec or a template."""
    resources = holder.get("podResources") or {}
    if resources.get("claims"):
        raise ManifestError(f"{path}.podResources.claims", "is not supported for a pod as a whole")
    for field in ("limits", "requests"):
        for name in resources.get(field) or ():
            if name not in ("cpu", "memory") and not name.startswith("hugepages-"):
                raise ManifestError(
                    f"{path}.podResources.{field}", f"{name[:80]!r} is none of cpu, memory and hugepages-*"
                )


def check_template_resources(template: Fields, template_kind: str, path: str) -> None:
    """Check the resources that a template requests for its pod."""
    if template.get("podResources") is not None and template_kind in ("http", "plugin"):
        raise ManifestError(f"{path}.podResources", f"is not supported for {template_kind} templates")
    check_pod_resources(template, path)
    if template.get("resourceClaims") and template_kind not in POD_TYPES:
        raise ManifestError(
            f"{path}.resourceClaims", f"is not supported for {template_kind} templates, which have no pod"
        )


def check_metrics(template: Fields, path: str) -> None:
    """Check the metrics of a template."""
    for index, metric in enumerate(items(template, "metrics", "prometheus")):
        _metric(metric, f"{path}.metrics.prometheus[{index}]")


def _metric(metric: Fields, path: str) -> None:
    _check_metric_name(metric.get("name"), f"{path}.name")
    for index, label in enumerate(metric.get("labels") or ()):
        _check_metric_name(label.get("key"), f"{path}.labels[{index}].key")
    if not metric.get("help"):
        raise ManifestError(f"{path}.help", "is required")
    for kind in ("gauge", "counter", "histogram"):
        value = (metric.get(kind) or {}).get("value")
        if metric.get(kind) is not None and not value:
            raise ManifestError(f"{path}.{kind}.value", "is required")
        if kind == "gauge" and value and metric[kind].get("realtime") and "resourcesDuration." in value:
            raise ManifestError(f"{path}.gauge.value", "resourcesDuration cannot be used in real time")


def _check_metric_name(name: str | None, path: str) -> None:
    if not _METRIC_NAME.fullmatch(name or ""):
        raise ManifestError(
            path, f"'{(name or '')[:80]}' is invalid: it must consist of letters, digits or '_'"
        )


def check_schedules(spec: Any) -> None:
    """Check the schedules of a CronWorkflow's spec."""
    schedules = spec.get("schedules") or ([spec["schedule"]] if spec.get("schedule") else [])
    if not schedules:
        raise ManifestError("spec.schedules", "a cron workflow must have at least one schedule")
    for index, schedule in enumerate(schedules):
        _schedule(schedule.strip(), f"spec.schedules[{index}]" if spec.get("schedules") else "spec.schedule")


def _schedule(text: str, path: str) -> None:
    text = re.sub(r"^(?:CRON_)?TZ=\S+\s+", "", text)
    if text in _SCHEDULE_NAMES or re.fullmatch(r"@every [0-9.hmsuµn]+", text):
        return
    fields = text.lower().split()
    if len(fields) != len(_CRON_FIELDS):
        raise ManifestError(
            path, f"cron schedule {text[:60]!r} is malformed: it has {len(fields)} fields, not 5"
        )
    for field, (name, minimum, maximum, names) in zip(fields, _CRON_FIELDS, strict=True):
        for part in field.split(","):
            if not _is_valid_part(part, minimum, maximum, names):
                raise ManifestError(
                    path, f"cron schedule {text[:60]!r} is malformed: {part[:20]!r} is no {name}"
                )


def _is_valid_part(part: str, minimum: int, maximum: int, names: list[str]) -> bool:
    match = _CRON_PART.fullmatch(part)
    if match is None or match[3] == "0":
        return False
    bounds = [
        names.index(end) + minimum if end in names else int(end) if end.isdigit() else -1
        for end in match.group(1, 2)
        if end
    ]
    return all(minimum <= end <= maximum for end in bounds) and bounds == sorted(bounds)
