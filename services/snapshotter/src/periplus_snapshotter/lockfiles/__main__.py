"""The confined process that reads one lockfile: `python -I -m periplus_snapshotter.lockfiles <name>`.

The bytes come on the standard input; one JSON object goes to the standard output: {"packages": …} or
{"invalid": …, "fix": …}. Memory, processor time and files are limited before the first byte is read.
"""

import json
import resource
import sys

MEMORY = 512 << 20  # bytes of address space
PROCESSOR = 5  # seconds


def confine() -> None:
    """Give up what reading a text does not need. None of it can be had back."""
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: PROCESSOR,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bounded, bounded))


def main(name: str) -> None:
    """Read, and tell what was found."""
    # Imported before the limits: what is loaded is ours, and open files may be none afterwards.
    from periplus_common.errors import Invalid
    from periplus_snapshotter.lockfiles.reading import packages

    confine()
    try:
        told: dict[str, object] = {"packages": packages(name, sys.stdin.buffer.read())}
    except Invalid as error:
        told = {"invalid": error.message, "fix": error.fix}
    except MemoryError:
        told = {"invalid": f"takes more than {MEMORY >> 20} MiB to read", "fix": ""}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
