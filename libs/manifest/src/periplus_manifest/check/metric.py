"""The metrics of a template: names that Prometheus takes, a help text, and a value."""

from __future__ import annotations

import re

from periplus_manifest.errors import ManifestError

from .manifest import Fields, items

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)


def check(template: Fields, path: str) -> None:
    """Check the metrics of a template."""
    for index, metric in enumerate(items(template, "metrics", "prometheus")):
        _metric(metric, f"{path}.metrics.prometheus[{index}]")


def _metric(metric: Fields, path: str) -> None:
    _check_name(metric.get("name"), f"{path}.name")
    for index, label in enumerate(metric.get("labels") or ()):
        _check_name(label.get("key"), f"{path}.labels[{index}].key")
    if not metric.get("help"):
        raise ManifestError(f"{path}.help", "is required")
    for kind in ("gauge", "counter", "histogram"):
        value = (metric.get(kind) or {}).get("value")
        if metric.get(kind) is not None and not value:
            raise ManifestError(f"{path}.{kind}.value", "is required")
        if kind == "gauge" and value and metric[kind].get("realtime") and "resourcesDuration." in value:
            raise ManifestError(f"{path}.gauge.value", "resourcesDuration cannot be used in real time")


def _check_name(name: str | None, path: str) -> None:
    if not _NAME.fullmatch(name or ""):
        raise ManifestError(
            path, f"'{(name or '')[:80]}' is invalid: it must consist of letters, digits or '_'"
        )
