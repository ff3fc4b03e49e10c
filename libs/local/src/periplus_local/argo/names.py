"""Names and ids of nodes, pods and workflows, made as Argo makes them."""

import re
import secrets

GENERATED_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
MAX_GENERATED_PREFIX = 58
MAX_POD_PREFIX = 242
# The annotation that tells clients how the names of pods are made.
POD_NAME_FORMAT = "workflows.argoproj.io/pod-name-format"
LABEL_PREFIX = "workflows.argoproj.io/"
BOUNDARY_SEPARATOR = re.compile(r"^(\[\d+\])?\.")


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
    """The name of the pod of a node (pod name format v2), which artifact keys contain."""
    if node_name == workflow:
        return workflow
    prefix = f"{workflow}-{template}" if template else workflow
    return f"{prefix[:MAX_POD_PREFIX]}-{fnv32a(node_name)}"


def display_name(node_name: str, boundary_name: str) -> str:
    """The node's name without that of the boundary around it."""
    return BOUNDARY_SEPARATOR.sub("", node_name.removeprefix(boundary_name))


def generated(prefix: str) -> str:
    """A name for `metadata.generateName`: the prefix and five random letters."""
    suffix = "".join(secrets.choice(GENERATED_LETTERS) for _ in range(5))
    return prefix[:MAX_GENERATED_PREFIX] + suffix
