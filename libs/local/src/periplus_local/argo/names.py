"""Names, identifiers and times in the form in which Argo writes them."""

import datetime as dt
import re
import secrets

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
LONGEST_GENERATED_PREFIX = 58
LONGEST_POD_PREFIX = 242
# The annotation that tells clients how the names of pods are made.
POD_NAMES = "workflows.argoproj.io/pod-name-format"
DIVIDER = re.compile(r"^(\[\d+\])?\.")


def fnv32a(text: str) -> int:
    """The 32 bit FNV-1a hash of the text's UTF-8 bytes."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def node_id(workflow: str, node_name: str) -> str:
    """The id of a node: the workflow's name for the root, else that name and a hash of the node's."""
    return workflow if node_name == workflow else f"{workflow}-{fnv32a(node_name)}"


def pod_name(workflow: str, node_name: str, template: str) -> str:
    """The name of the pod of a node (pod name format v2); artifact keys carry it."""
    if node_name == workflow:
        return workflow
    prefix = f"{workflow}-{template}" if template else workflow
    return f"{prefix[:LONGEST_POD_PREFIX]}-{fnv32a(node_name)}"


def display_name(node_name: str, boundary_name: str) -> str:
    """What a person reads: the node's name without that of the boundary around it."""
    return DIVIDER.sub("", node_name.removeprefix(boundary_name))


def generated(prefix: str) -> str:
    """A name from `metadata.generateName`: the prefix and five random letters."""
    suffix = "".join(secrets.choice(LETTERS) for _ in range(5))
    return prefix[:LONGEST_GENERATED_PREFIX] + suffix


def now() -> dt.datetime:
    """The time in UTC, to the microsecond."""
    return dt.datetime.now(dt.UTC)


def stamp(time: dt.datetime) -> str:
    """RFC 3339 in UTC to the second, as Kubernetes keeps times."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_of(seconds: float) -> str:
    """The stamp of a time in Unix seconds."""
    return stamp(dt.datetime.fromtimestamp(seconds, dt.UTC))


def parse(stamped: str) -> dt.datetime:
    """The time that a stamp names."""
    return dt.datetime.fromisoformat(stamped)
