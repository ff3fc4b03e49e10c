"""The restricted process that reads one layer: `python -I -m periplus_snapshotter.layers`.

It reads the layer from standard input and writes one JSON object to standard output: {"records": …, "removed": …,
"replaced": …} or {"invalid": …}. Memory, processor time and files are limited before the first byte is read.
"""

import json
import os
import resource
import sys
from dataclasses import asdict

MAX_MEMORY_BYTES = 512 << 20  # of address space
MAX_CPU_SECONDS = 900


def main() -> None:
    """Read standard input, and write the result."""
    # Imported before the limits apply: these are for reading alone.
    from periplus_common.errors import Invalid
    from periplus_snapshotter.layers.layer import read_layer

    os.nice(10)
    for limit, value in {
        resource.RLIMIT_AS: MAX_MEMORY_BYTES,
        resource.RLIMIT_CPU: MAX_CPU_SECONDS,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }.items():
        hard = resource.getrlimit(limit)[1]
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowered, lowered))
    try:
        result: dict[str, object] = asdict(read_layer(sys.stdin.buffer))
        while sys.stdin.buffer.read(
            1 << 20
        ):  # what follows the end of the archive is part of the layer's digest
            pass
    except Invalid as error:
        result = {"invalid": error.message}
    except MemoryError:
        result = {"invalid": f"reading it takes more than {MAX_MEMORY_BYTES >> 20} MiB"}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
