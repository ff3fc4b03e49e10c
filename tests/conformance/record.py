"""Record what an Argo makes of the manifests, as data for the suite.

    ARGO_SERVER=https://… ARGO_TOKEN=… python -m tests.conformance.record [NAME…]

Writes recordings/out/NAME.json for each manifest, or for those that are named.
"""

import os
import sys

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
        for name in sys.argv[1:] or NAMES:
            recording = made(client, name, SECONDS)
            if (held := their_store()) and (found := contents(*held, recording.get("workflows", []))):
                recording["contents"] = found
            write(name, recording)
            ends = [end["status"]["phase"] if end else "deleted" for end in recording.get("workflows", ())]
            refused = [said for said in recording.get("deeds", ()) if said]
            said = [recording["refused"]] if "refused" in recording else [", ".join(ends), *refused]
            sys.stdout.write(f"{name}: {'; '.join(said)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
