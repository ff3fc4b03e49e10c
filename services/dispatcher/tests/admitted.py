"""The admission of a Workflow in tests: the webhook's decision without its server, and the object that Kubernetes would make."""

import copy
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from fakes import MemoryCache, MemorySnapshotter, MemoryTemplates
from manifests import ANY_KEYS, PROCESSES

from periplus_dispatcher.admission import Admission, AdmissionAnswer, Validation, WithoutSnapshots
from periplus_dispatcher.observed.namespaces import Observation, parse_namespaces
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.ports import Cache, Templates

Json = dict[str, Any]


def observation(text: str, label: str = "", recorded: Sequence[str] = ()) -> Observation:
    return Observation({n.name: n for n in parse_namespaces(text)}, label, frozenset(recorded))


def admission(
    cache: Cache | None = None,
    templates: Templates | None = None,
    observed: Observation | None = None,
    validation: Validation = Validation.WARN,
    seconds: float = 60.0,
) -> Admission:
    found = observed or observation("argo=default", recorded=["default"])
    planner = Planner(
        cache or MemoryCache(), WithoutSnapshots(MemorySnapshotter()), templates or MemoryTemplates(), PROCESSES, ANY_KEYS
    )  # fmt: skip
    return Admission(
        dict.fromkeys(found.namespaces, planner),
        found,
        validation=validation,
        budget=timedelta(seconds=seconds),
        gate_timeout=timedelta(seconds=30),
    )


def patched(workflow: Json, operations: Iterable[Json]) -> Json:
    """The object after the operations of a JSON patch (RFC 6902) that the webhook uses."""
    found = copy.deepcopy(workflow)
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        holder: Any = found
        for part in way:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        if operation["op"] == "remove":
            del holder[last]
        elif isinstance(holder, list) and last == "-":
            holder.append(operation["value"])
        elif isinstance(holder, list):
            assert operation["op"] == "replace"
            holder[int(last)] = operation["value"]
        else:
            assert operation["op"] == "add" or last in holder
            holder[last] = operation["value"]
    return found


async def admitted(asked: Admission, workflow: Json, namespace: str = "argo") -> tuple[Json, AdmissionAnswer]:
    """The Workflow as it is created, and the answer."""
    answer = await asked.admit(copy.deepcopy(workflow), namespace)
    assert answer.refusal is None
    return patched(workflow, answer.patch), answer
