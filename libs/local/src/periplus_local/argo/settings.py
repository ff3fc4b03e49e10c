"""Settings of the local Argo.

Read without pydantic: this process lives for as long as a laptop is on, and the library that the services read
their settings with would be a third of its memory.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from periplus_manifest.bounds import RunBounds

PREFIX = "ARGO_"
KEY_FORMAT = "{{workflow.name}}/{{pod.name}}"
"""Argo's own: where the artifacts of a step are stored."""
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What one client may use of the HTTP server. `max_waiting` connections may have sent no request yet.

    `keep_alive` is long because a client that polls every few seconds must not meet a connection that is just being
    closed; Argo keeps connections open, too.
    """

    head_timeout: timedelta = timedelta(seconds=10)
    body_timeout: timedelta = timedelta(seconds=30)
    keep_alive: timedelta = timedelta(hours=1)
    max_head_bytes: int = 32 * 1024
    max_connections: int = 500
    max_waiting: int = 200


@dataclass(frozen=True, kw_only=True)
class ArgoSettings:
    """Each field but `http` and `bounds` is an environment variable that begins with ARGO_, or one that the parent passed by
    a descriptor.

    It serves on the Unix socket where one is named, else on the port of 127.0.0.1. `hidden` are folders that no step
    sees, besides its home, and the files of the folder `hidden_list` hold the path of one more each.
    """

    home: Path = Path(".periplus/argo")
    socket: Path | None = None
    port: int = 0
    token_file: Path | None = None
    hidden: tuple[Path, ...] = ()
    hidden_list: Path | None = None
    s3_endpoint: str = "127.0.0.1:8333"
    s3_access_key: str = field(default="", repr=False)
    s3_secret_key: str = field(default="", repr=False)
    s3_bucket: str = "artifacts"
    s3_secure: bool = False
    s3_ca_file: str = ""
    key_format: str = KEY_FORMAT
    slots: int = os.cpu_count() or 1
    grace_seconds: float = 10.0
    transient_error_pattern: re.Pattern[str] | None = None
    http: HttpLimits = HttpLimits()
    bounds: RunBounds = field(default_factory=RunBounds)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """The settings of an environment; raises RuntimeError that lists every variable that cannot be parsed."""
        values: dict[str, Any] = {}
        errors = []
        for name, parse in PARSERS.items():
            text = environment.get(PREFIX + name.upper())
            if text is not None:
                try:
                    values[name] = parse(text)
                except (ValueError, KeyError, re.error):
                    errors.append(f"{PREFIX}{name.upper()}: {text!r} is {PARSE_ERRORS[parse]}")
        if errors:
            raise RuntimeError("; ".join(errors))
        return cls(**values)


def _boolean(text: str) -> bool:
    return BOOLEANS[text.lower()]


def _paths(text: str) -> tuple[Path, ...]:
    """Paths as in $PATH."""
    return tuple(Path(path) for path in text.split(os.pathsep) if path)


PARSERS: dict[str, Callable[[str], Any]] = {
    "home": Path,
    "socket": Path,
    "port": int,
    "token_file": Path,
    "hidden": _paths,
    "hidden_list": Path,
    "s3_endpoint": str,
    "s3_access_key": str,
    "s3_secret_key": str,
    "s3_bucket": str,
    "s3_secure": _boolean,
    "s3_ca_file": str,
    "key_format": str,
    "slots": int,
    "grace_seconds": float,
    "transient_error_pattern": re.compile,
}
PARSE_ERRORS: dict[Callable[[str], Any], str] = {
    int: "not a whole number",
    float: "not a number",
    _boolean: "neither true nor false",
    re.compile: "not a regular expression",
}
