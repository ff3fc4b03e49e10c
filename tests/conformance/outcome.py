"""The outcome of one manifest: as its author expects, or what kept it from that."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from periplus_local.argo.testing import Client, Refusal, nodes_of

Kind = Literal["expected", "refused", "needs", "long", "differs"]
DESCRIPTIONS: dict[Kind, str] = {
    "expected": "ran as expected",
    "refused": "refused",
    "needs": "needs",
    "long": "runs long",
    "differs": "differs",
}
# The label with which Argo's own examples say that they may end in any way.
MAY_FAIL_LABEL = "workflows.argoproj.io/no-test"
MAX_LOG_BYTES = 4 << 20
MAX_REASONS = 3
NO_COMMAND = re.compile(r"so what (\S+) would run is unknown")
NO_PROGRAM = re.compile(r'exec: "([^"]+)": (?:executable file not found|stat .*no such file)')
# What shells, Python and programs that use the network print when they lack something, and what that is.
MISSING = (
    (re.compile(r"(?m)^\S*sh: (?:line )?(?:\d+: )?(\S+): (?:command )?not found"), "{}"),
    (re.compile(r"ModuleNotFoundError: No module named '([^'.]+)"), "the Python module {}"),
    (
        re.compile(r"Could not resolve host: (\S+)|(?:name resolution|Name or service not known)"),
        "the network",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a manifest; `why` is the field, the program or the message that decided it."""

    path: str
    kind: Kind
    why: str = ""
    phase: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """The line that is printed."""
        line = f"{self.path}: {DESCRIPTIONS[self.kind]}"
        return f"{line} ({self.phase})" if self.kind == "expected" else f"{line}: {self.why}"


def outcome_of_refusal(path: str, body: str) -> Outcome:
    """The outcome of a manifest that the server refused with that body."""
    try:
        message = str(json.loads(body).get("message") or body)
    except ValueError:
        message = body.strip()
    image = NO_COMMAND.search(message)
    if image:
        return Outcome(path, "needs", f"the command of image {image[1]}, to be written out")
    return Outcome(path, "refused", message)


def outcome_of_end(
    client: Client, path: str, labels: dict[str, Any], workflow: dict[str, Any], seconds: float
) -> Outcome:
    """The outcome of a workflow that has ended after so many seconds."""
    phase = workflow["status"]["phase"]
    failed = [node for node in nodes_of(workflow).values() if node["phase"] in {"Failed", "Error"}]
    missing = _missing(client, workflow, [node for node in failed if node["type"] == "Pod"])
    if missing:
        return Outcome(path, "needs", ", ".join(missing), phase, seconds)
    if phase == "Succeeded" or MAY_FAIL_LABEL in labels:
        return Outcome(path, "expected", "", phase, seconds)
    messages = sorted({node["message"] for node in failed if node.get("message")})[:MAX_REASONS]
    message = workflow["status"].get("message") or ""
    return Outcome(path, "differs", f"{phase}: {'; '.join(messages) or message}", phase, seconds)


def _missing(client: Client, workflow: dict[str, Any], failed: list[dict[str, Any]]) -> list[str]:
    """The programs, modules and connections that failed steps did not find."""
    if not failed:
        return []
    found = [match[1] for node in failed if (match := NO_PROGRAM.search(node.get("message", "")))]
    log = _log(client, workflow["metadata"]["name"])
    for pattern, description in MISSING:
        found += [description.format(match[1]) for match in pattern.finditer(log)]
    return list(dict.fromkeys(found))[:MAX_REASONS]


def _log(client: Client, name: str) -> str:
    """The first MAX_LOG_BYTES of what the steps of a workflow printed."""
    try:
        with client.open("GET", f"workflows/{client.namespace}/{name}/log?logOptions.container=main") as log:
            text = log.read(MAX_LOG_BYTES).decode(errors="replace")
    except Refusal:
        return ""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(str(json.loads(line)["result"].get("content", "")))
        except (ValueError, KeyError):
            continue  # the last line may be cut off
    return "\n".join(lines)
