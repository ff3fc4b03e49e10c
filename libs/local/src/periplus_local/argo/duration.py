"""Lengths of time as manifests write them: "90", "1.5s", "1h30m"."""

import re

from periplus_local.argo.faults import invalid

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d)")


def seconds_of(text: str | float) -> float:
    """The length in seconds; a bare number is seconds. Raises Fault when it is no length of time."""
    written = str(text).strip()
    if re.fullmatch(r"\d+", written):
        return float(written)
    parts = list(PART.finditer(written))
    if not parts or "".join(part.group() for part in parts) != written:
        raise invalid(f'"{written}" is not a length of time such as "30s", "1h30m" or "90"')
    return sum(float(part[1]) * UNITS[part[2]] for part in parts)
