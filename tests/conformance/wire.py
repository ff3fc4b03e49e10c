"""What an Argo answers to requests that fail: sending, comparing by status, code and meaning, and recording.

    ARGO_SERVER=https://… ARGO_TOKEN=… python -m tests.conformance.wire

writes the server's answers into recordings/wire.json. A case is a request, requests that are sent `before` it, a
pattern for what the message `says`, and the `answer`. Where the local Argo answers differently on purpose, `local` has
its status and code, and why.
"""

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from periplus_local.argo.testing import Client, Refusal

from .real_argo import real_argo

FILE = Path(__file__).parent / "recordings" / "wire.json"
# What the requests `before` a case create; deleted after it.
CREATED = ("workflows/{namespace}/wire-gate", "workflow-templates/{namespace}/wire-template")
Case = dict[str, Any]


def cases() -> list[Case]:
    """All cases."""
    return list(json.loads(FILE.read_text()))


def answer(client: Client, case: Case) -> dict[str, Any]:
    """What the server answers: its status, and for a refusal the code and the message."""
    for request in case.get("before", ()):
        _send(client, request)
    try:
        return _send(client, case)
    finally:
        for path in CREATED if "before" in case else ():
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
        body = json.loads(refusal.body)
        stream = body.get("error", {})
        code, message = stream.get("grpc_code", body.get("code")), stream.get("message", body.get("message"))
        return {"status": refusal.status, "code": code, "message": message}


def differences(case: Case, actual: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """How an answer differs from the expected one; the message need only match the case's pattern."""
    keys = ("status", "code")
    found = [f"{key}: {actual.get(key)}" for key in keys if actual.get(key) != expected.get(key)]
    if "code" in actual and "code" in expected and not re.search(case["says"], str(actual["message"])):
        found.append(f"says: {actual['message']}")
    return found


def main() -> int:
    """The command."""
    if "ARGO_SERVER" not in os.environ:
        sys.stderr.write("ARGO_SERVER is not set: recordings are made of a real Argo only\n")
        return 2
    client, recorded = real_argo(), cases()
    for case in recorded:
        case["answer"] = answer(client, case)
        if differences(case, case["answer"], case["answer"]):
            sys.stdout.write(f"{case['case']}: does not match `says`: {case['answer']}\n")
    FILE.write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in recorded) + "\n]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
