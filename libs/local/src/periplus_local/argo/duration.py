"""Durations of manifests in seconds."""

from periplus_local.argo.faults import invalid
from periplus_manifest.duration import parse_argo_duration
from periplus_manifest.errors import ManifestError


def seconds_of(text: str | int) -> float:
    """The duration in seconds. Raises Fault for what Argo does not read as a duration."""
    try:
        return parse_argo_duration(str(text)).total_seconds()
    except ManifestError as error:
        raise invalid(f"unable to parse {text} as a duration: {error.message}") from None
