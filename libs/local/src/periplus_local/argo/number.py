"""Whole numbers as manifests write them: 3 or "3"."""

from typing import Any

from periplus_manifest.errors import ManifestError


def whole(field: str, value: Any) -> int:
    """The number that a field has; raises ManifestError when it has none."""
    try:
        return int(str(value))
    except ValueError as error:
        raise ManifestError(field, f"value '{value}' is not a whole number") from error
