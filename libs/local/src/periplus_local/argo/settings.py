"""The knobs of the local Argo.

Read without a library: this process lives for as long as a laptop is on, and the library that the services read
theirs with would be a third of its memory.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

PREFIX = "ARGO_"
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class ArgoSettings:
    """Each is an environment variable that begins with ARGO_."""

    home: Path = Path(".periplus/argo")
    port: int = 0
    token_file: Path | None = None
    s3_endpoint: str = "127.0.0.1:8333"
    s3_access_key: str = field(default="", repr=False)
    s3_secret_key: str = field(default="", repr=False)
    s3_bucket: str = "artifacts"
    s3_secure: bool = False
    slots: int = os.cpu_count() or 1
    grace_seconds: float = 10.0
    transient_error_pattern: re.Pattern[str] | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """The settings that the environment gives; RuntimeError names every variable that says nothing of use."""
        told: dict[str, Any] = {}
        wrong = []
        for name, reading in READINGS.items():
            text = environment.get(PREFIX + name.upper())
            if text is not None:
                try:
                    told[name] = reading(text)
                except (ValueError, KeyError, re.error):
                    wrong.append(f"{PREFIX}{name.upper()}: {text!r} is {WANTED[reading]}")
        if wrong:
            raise RuntimeError("; ".join(wrong))
        return cls(**told)


def _truth(text: str) -> bool:
    return TRUTHS[text.lower()]


READINGS: dict[str, Callable[[str], Any]] = {
    "home": Path,
    "port": int,
    "token_file": Path,
    "s3_endpoint": str,
    "s3_access_key": str,
    "s3_secret_key": str,
    "s3_bucket": str,
    "s3_secure": _truth,
    "slots": int,
    "grace_seconds": float,
    "transient_error_pattern": re.compile,
}
WANTED: dict[Callable[[str], Any], str] = {
    int: "not a whole number",
    float: "not a number",
    _truth: "neither true nor false",
    re.compile: "not a regular expression",
}
