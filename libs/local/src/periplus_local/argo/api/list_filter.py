"""Filters of a list of workflows: by labels, by name and namespace, by time."""

import datetime as dt
import re
from collections.abc import Callable, Mapping

from periplus_local.argo.errors import internal, invalid_argument
from periplus_local.argo.scalars import parse_timestamp
from periplus_local.argo.selectors import label_selector
from periplus_local.argo.storage.state_store import WorkflowRow

Filter = Callable[[WorkflowRow], bool]
FIELD_REQUIREMENT = re.compile(r"metadata\.(name|namespace)(==|!=|=)(.*)")
# Argo's UI sends it as a requirement; it asks for a count that is not given here.
REMAINING_COUNT = "ext.showRemainingItemCount"
NAME_FILTERS: dict[str, Callable[[str, str], bool]] = {
    "": str.__eq__,
    "Exact": str.__eq__,
    "Prefix": str.startswith,
    "Contains": str.__contains__,
    "NotEquals": str.__ne__,
}


def list_filter(query: Mapping[str, str]) -> Filter:
    """The filter of a list request; raises ArgoError for a selector that does not parse."""
    labels = label_selector(query.get("listOptions.labelSelector", ""))
    fields = [
        _field_filter(part, query.get("nameFilter", ""))
        for part in query.get("listOptions.fieldSelector", "").split(",")
        if part and not part.startswith(REMAINING_COUNT)
    ]
    times = _time_filters(query)
    return lambda row: (
        labels(row.metadata.get("labels") or {}) and all(test(row) for test in (*fields, *times))
    )


def selected_name(field_selector: str) -> str:
    """The name that the field selector of a stream selects; empty for all, ArgoError for another requirement."""
    found = FIELD_REQUIREMENT.fullmatch(field_selector)
    if field_selector and (found is None or found[1] != "name" or found[2] == "!="):
        raise invalid_argument(
            f"unsupported requirement {field_selector}: a stream is of metadata.name=…, or of all"
        )
    return found[3] if found else ""


def _field_filter(part: str, name_filter: str) -> Filter:
    found = FIELD_REQUIREMENT.fullmatch(part)
    if found is None or name_filter not in NAME_FILTERS:
        raise invalid_argument(f"unsupported requirement {part}")
    _, operator, value = found.groups()
    if found[1] == "namespace":
        return lambda row: (row.namespace == value) is (operator != "!=")
    compare = NAME_FILTERS["NotEquals" if operator == "!=" else name_filter]
    return lambda row: compare(row.name, value)


def _time_filters(query: Mapping[str, str]) -> list[Filter]:
    filters: list[Filter] = []
    if query.get("createdAfter"):
        earliest = _time("createdAfter", query["createdAfter"])
        filters.append(lambda row: parse_timestamp(row.metadata["creationTimestamp"]) > earliest)
    if query.get("finishedBefore"):
        latest = _time("finishedBefore", query["finishedBefore"])
        filters.append(lambda row: _finished_before(row, latest))
    return filters


def _finished_before(row: WorkflowRow, latest: dt.datetime) -> bool:
    finished = row.status.get("finishedAt")
    return finished is not None and parse_timestamp(finished) < latest


def _time(name: str, text: str) -> dt.datetime:
    try:
        time = parse_timestamp(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise internal(f"{name}: {text!r} is not a time of RFC 3339")
    return time
