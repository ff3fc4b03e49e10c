"""Record what an Argo makes of the manifests, as data for the suite.

    ARGO_SERVER=https://… ARGO_TOKEN=… python -m tests.conformance.record [NAME…]

Writes recordings/out/NAME.json for each manifest, or for those that are named.
"""

import os
import sys

from periplus_local.argo.testing import Client

from .contents import contents
from .folder import argo
from .recording import NAMES, made, write
from .theirs import their_store

SECONDS = 400


def main() -> int:
    """The command."""
    if "ARGO_SERVER" not in os.environ:
        sys.stderr.write("ARGO_SERVER is not set: recordings are made of a real Argo only\n")
        return 2
    with argo() as client:
        told = [_recorded(client, name) for name in sys.argv[1:] or NAMES]
    return 0 if all(told) else 1


def _recorded(client: Client, name: str) -> bool:
    """Whether the manifest came to an end, which is then kept."""
    try:
        recording = made(client, name, SECONDS)
    except AssertionError as error:
        sys.stdout.write(f"{name}: not recorded: {error}\n")
        return False
    if (held := their_store()) and (found := contents(*held, recording.get("workflows", []))):
        recording["contents"] = found
    write(name, recording)
    ends = [end["status"]["phase"] if end else "deleted" for end in recording.get("workflows", ())]
    refused = [said for said in recording.get("deeds", ()) if said]
    said = [recording["refused"]] if "refused" in recording else [", ".join(ends), *refused]
    sys.stdout.write(f"{name}: {'; '.join(said)}\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
