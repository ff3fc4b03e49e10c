"""Record what a real Argo makes of the manifests, as data for the suite.

    ARGO_SERVER=https://… ARGO_TOKEN=… python -m tests.conformance.record [NAME…]

Writes recordings/out/NAME.json for each manifest, or for those that are named.
"""

import os
import sys

from periplus_local.argo.testing import Client

from .artifact_contents import artifact_contents
from .folder import argo
from .real_argo import real_repository
from .recording import NAMES, play, write

MAX_SECONDS = 400


def main() -> int:
    """The command."""
    if "ARGO_SERVER" not in os.environ:
        sys.stderr.write("ARGO_SERVER is not set: recordings are made of a real Argo only\n")
        return 2
    with argo() as client:
        recorded = [_record(client, name) for name in sys.argv[1:] or NAMES]
    return 0 if all(recorded) else 1


def _record(client: Client, name: str) -> bool:
    """Record one manifest; False when its workflows did not end in time."""
    try:
        recording = play(client, name, MAX_SECONDS)
    except AssertionError as error:
        sys.stdout.write(f"{name}: not recorded: {error}\n")
        return False
    repository = real_repository()
    if repository and (contents := artifact_contents(*repository, recording.get("workflows", []))):
        recording["contents"] = contents
    write(name, recording)
    phases = [end["status"]["phase"] if end else "deleted" for end in recording.get("workflows", ())]
    refusals = [refusal for refusal in recording.get("actions", ()) if refusal]
    summary = [recording["refused"]] if "refused" in recording else [", ".join(phases), *refusals]
    sys.stdout.write(f"{name}: {'; '.join(summary)}\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
