"""What became of one manifest, and why: as its author would expect, or what kept it from that."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from periplus_local.argo.testing import Client, Refusal, nodes_of

Kind = Literal["expected", "refused", "needs", "long", "differs"]
# How each kind is told, in a line and in the summary.
TOLD: dict[Kind, str] = {
    "expected": "ran as expected",
    "refused": "refused",
    "needs": "needs",
    "long": "runs long",
    "differs": "differs",
}
# How the examples of Argo itself say that they may end in any way.
LABEL = "workflows.argoproj.io/no-test"
LOG_BYTES = 4 << 20
MOST = 3
NO_IMAGE = re.compile(r"so what (\S+) would run is unknown")
NO_PROGRAM = re.compile(r'exec: "([^"]+)": (?:executable file not found|stat .*no such file)')
# What shells, Python and programs that use the network print when they lack something.
LACKS = (
    (re.compile(r"(?m)^\S*sh: (?:line )?(?:\d+: )?(\S+): (?:command )?not found"), "{}"),
    (re.compile(r"ModuleNotFoundError: No module named '([^'.]+)"), "the Python module {}"),
    (
        re.compile(r"Could not resolve host: (\S+)|(?:name resolution|Name or service not known)"),
        "the network",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """The verdict on a manifest; `why` is the field, the program or the message that decided it."""

    path: str
    kind: Kind
    why: str = ""
    phase: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """The line that is printed."""
        told = f"{self.path}: {TOLD[self.kind]}"
        return f"{told} ({self.phase})" if self.kind == "expected" else f"{told}: {self.why}"


def refused(path: str, body: str) -> Outcome:
    """The outcome of a manifest that the server did not take."""
    try:
        said = str(json.loads(body).get("message") or body)
    except ValueError:
        said = body.strip()
    image = NO_IMAGE.search(said)
    if image:
        return Outcome(path, "needs", f"the command of image {image[1]}, to be written out")
    return Outcome(path, "refused", said)


def ended(
    client: Client, path: str, labels: dict[str, Any], workflow: dict[str, Any], took: float
) -> Outcome:
    """The outcome of a workflow that has come to its end."""
    phase = workflow["status"]["phase"]
    bad = [node for node in nodes_of(workflow).values() if node["phase"] in {"Failed", "Error"}]
    needs = _needs(client, workflow, [node for node in bad if node["type"] == "Pod"])
    if needs:
        return Outcome(path, "needs", ", ".join(needs), phase, took)
    if phase == "Succeeded" or LABEL in labels:
        return Outcome(path, "expected", "", phase, took)
    said = sorted({node["message"] for node in bad if node.get("message")})[:MOST]
    message = workflow["status"].get("message") or ""
    return Outcome(path, "differs", f"{phase}: {'; '.join(said) or message}", phase, took)


def _needs(client: Client, workflow: dict[str, Any], failed: list[dict[str, Any]]) -> list[str]:
    """The programs, modules and connections for want of which steps failed."""
    if not failed:
        return []
    found = [match[1] for node in failed if (match := NO_PROGRAM.search(node.get("message", "")))]
    printed = _printed(client, workflow["metadata"]["name"])
    for pattern, told in LACKS:
        found += [told.format(match[1]) for match in pattern.finditer(printed)]
    return list(dict.fromkeys(found))[:MOST]


def _printed(client: Client, name: str) -> str:
    """What the steps of a workflow printed, as far as it is kept."""
    try:
        with client.open("GET", f"workflows/{client.namespace}/{name}/log?logOptions.container=main") as log:
            text = log.read(LOG_BYTES).decode(errors="replace")
    except Refusal:
        return ""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(str(json.loads(line)["result"].get("content", "")))
        except (ValueError, KeyError):
            continue  # the last line may be cut off
    return "\n".join(lines)
