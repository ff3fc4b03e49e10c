"""Timestamps as Argo writes them; durations and integers as manifests write them."""

import datetime as dt
from typing import Any

from periplus_local.argo.errors import invalid_argument
from periplus_manifest.duration import parse_argo_duration
from periplus_manifest.errors import ManifestError


def now() -> dt.datetime:
    """The time in UTC, to the microsecond."""
    return dt.datetime.now(dt.UTC)


def timestamp(time: dt.datetime) -> str:
    """RFC 3339 in UTC to the second, as Kubernetes stores times."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp_of_unix(seconds: float) -> str:
    """The timestamp of a time in Unix seconds."""
    return timestamp(dt.datetime.fromtimestamp(seconds, dt.UTC))


def parse_timestamp(text: str) -> dt.datetime:
    """The time of a timestamp; raises ValueError when it is none."""
    return dt.datetime.fromisoformat(text)


def duration_seconds(text: str | float) -> float:
    """A duration of a manifest in seconds; raises ArgoError for what Argo does not read as a duration."""
    try:
        return parse_argo_duration(str(text)).total_seconds()
    except ManifestError as error:
        raise invalid_argument(f"unable to parse {text} as a duration: {error.message}") from None


def integer(field: str, value: Any) -> int:
    """The integer of a field that is written as 3 or "3"; raises ManifestError that names the field."""
    try:
        return int(str(value))
    except ValueError as error:
        raise ManifestError(field, f"value '{value}' is not a whole number") from error
