"""The restricted process that parses one lockfile: `python -I -m periplus_snapshotter.lockfiles <name>`.

It reads the content from standard input and writes one JSON object to standard output: {"packages": …} or
{"invalid": …, "fix": …}. Memory, processor time and files are limited before the first byte is read.
"""

import json
import resource
import sys

MAX_MEMORY_BYTES = 512 << 20  # of address space
MAX_CPU_SECONDS = 5


def restrict_process() -> None:
    """Lower the limits of this process to what a parser needs. It can not raise them again."""
    limits = {
        resource.RLIMIT_AS: MAX_MEMORY_BYTES,
        resource.RLIMIT_CPU: MAX_CPU_SECONDS,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowered, lowered))


def main(name: str) -> None:
    """Parse standard input, and write the result."""
    # Imported before the limits apply: these are for parsing alone.
    from periplus_common.errors import Invalid
    from periplus_snapshotter.lockfiles.formats import parse_lockfile

    restrict_process()
    try:
        result: dict[str, object] = {"packages": parse_lockfile(name, sys.stdin.buffer.read())}
    except Invalid as error:
        result = {"invalid": error.message, "fix": error.fix}
    except MemoryError:
        result = {"invalid": f"takes more than {MAX_MEMORY_BYTES >> 20} MiB to parse", "fix": ""}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
