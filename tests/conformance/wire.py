"""What an Argo answers to requests that it cannot do: asked, compared by status, code and meaning, and recorded.

    ARGO_SERVER=https://… ARGO_TOKEN=… python -m tests.conformance.wire

writes the server's answers into recordings/wire.json. A case is a request (what is made `before` it is taken away
again), a pattern for what the message `says`, and the `answer`. Where the local Argo does otherwise on purpose, `here`
has its status and code, and why.
"""

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from periplus_local.argo.testing import Client, Refusal

from .theirs import theirs

FILE = Path(__file__).parent / "recordings" / "wire.json"
MADE = ("workflows/{namespace}/wire-gate", "workflow-templates/{namespace}/wire-template")
Case = dict[str, Any]


def cases() -> list[Case]:
    """All cases, in their order."""
    return list(json.loads(FILE.read_text()))


def answer(client: Client, case: Case) -> dict[str, Any]:
    """What the server answers: its status, and for a refusal the code and the message."""
    for request in case.get("before", ()):
        _send(client, request)
    try:
        return _send(client, case)
    finally:
        for path in MADE if "before" in case else ():
            with suppress(Refusal):
                client.call("DELETE", path.format(namespace=client.namespace))


def _send(client: Client, request: Case) -> dict[str, Any]:
    body = request["raw"].encode() if "raw" in request else request.get("body")
    try:
        with client.open(
            request["method"], request["path"].format(namespace=client.namespace), body
        ) as answered:
            return {"status": answered.status}
    except Refusal as refusal:
        told = json.loads(refusal.body)
        stream = told.get("error", {})
        code, message = stream.get("grpc_code", told.get("code")), stream.get("message", told.get("message"))
        return {"status": refusal.status, "code": code, "message": message}


def differences(case: Case, seen: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """How an answer differs from the one that is expected; its words need only say the same."""
    found = [f"{key}: {seen.get(key)}" for key in ("status", "code") if seen.get(key) != expected.get(key)]
    if "code" in seen and "code" in expected and not re.search(case["says"], str(seen["message"])):
        found.append(f"says: {seen['message']}")
    return found


def main() -> int:
    """The command."""
    if "ARGO_SERVER" not in os.environ:
        sys.stderr.write("ARGO_SERVER is not set: recordings are made of a real Argo only\n")
        return 2
    client, recorded = theirs(), cases()
    for case in recorded:
        case["answer"] = answer(client, case)
        if differences(case, case["answer"], case["answer"]):
            sys.stdout.write(f"{case['told']}: not as it says: {case['answer']}\n")
    FILE.write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in recorded) + "\n]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
