"""Which workflows a client asked for: by labels, by name and namespace, by time."""

import datetime as dt
import re
from collections.abc import Callable, Mapping

from periplus_local.argo import names, selector
from periplus_local.argo.faults import internal, invalid
from periplus_local.argo.store import Row

Test = Callable[[Row], bool]
FIELD = re.compile(r"metadata\.(name|namespace)(==|!=|=)(.*)")
UNCOUNTED = "ext.showRemainingItemCount"
BY_NAME: dict[str, Callable[[str, str], bool]] = {
    "": str.__eq__,
    "Exact": str.__eq__,
    "Prefix": str.startswith,
    "Contains": str.__contains__,
    "NotEquals": str.__ne__,
}


def chosen(query: Mapping[str, str]) -> Test:
    """A test of workflows from the query of a list; Fault for a selector that is none."""
    labels = selector.labels(query.get("listOptions.labelSelector", ""))
    fields = [
        _field(part, query.get("nameFilter", ""))
        for part in query.get("listOptions.fieldSelector", "").split(",")
        if part and not part.startswith(UNCOUNTED)
    ]
    times = _times(query)
    return lambda row: (
        labels(row.metadata.get("labels") or {}) and all(test(row) for test in (*fields, *times))
    )


def only_name(fields: str) -> str:
    """The name that a field selector of a stream picks; empty when it picks all, Fault when it is another."""
    found = FIELD.fullmatch(fields)
    if fields and (found is None or found[1] != "name" or found[2] == "!="):
        raise invalid(f"unsupported requirement {fields}: a stream is of metadata.name=…, or of all")
    return found[3] if found else ""


def _field(part: str, by_name: str) -> Test:
    found = FIELD.fullmatch(part)
    if found is None or by_name not in BY_NAME:
        raise invalid(f"unsupported requirement {part}")
    _, operator, value = found.groups()
    if found[1] == "namespace":
        return lambda row: (row.namespace == value) is (operator != "!=")
    compare = BY_NAME["NotEquals" if operator == "!=" else by_name]
    return lambda row: compare(row.name, value)


def _times(query: Mapping[str, str]) -> list[Test]:
    tests: list[Test] = []
    if query.get("createdAfter"):
        earliest = _time("createdAfter", query["createdAfter"])
        tests.append(lambda row: names.parse(row.metadata["creationTimestamp"]) > earliest)
    if query.get("finishedBefore"):
        latest = _time("finishedBefore", query["finishedBefore"])
        tests.append(lambda row: _ended_before(row, latest))
    return tests


def _ended_before(row: Row, latest: dt.datetime) -> bool:
    ended = row.status.get("finishedAt")
    return ended is not None and names.parse(ended) < latest


def _time(name: str, text: str) -> dt.datetime:
    try:
        time = names.parse(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise internal(f"{name}: {text!r} is not a time of RFC 3339")
    return time
