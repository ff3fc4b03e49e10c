"""The paths of artifacts inside a step, which must not lead out of where they begin."""

from __future__ import annotations

import posixpath
import re

from periplus_manifest.errors import ManifestError

from .manifest import Fields

_UP = re.compile(r"/\.\.(?:/|$)")


def check_path(artifact: Fields, path: str) -> None:
    """Check the path of an artifact of a template that runs something."""
    place = artifact.get("path")
    if not place:
        raise ManifestError(f"{path}.path", f"Artifact '{artifact.get('name')}' did not specify a path")
    climbing = _UP.search(place)
    if climbing is None:
        return
    start = place[: climbing.start()]
    cleaned = posixpath.normpath(place)
    if start and not (cleaned.startswith(f"{start}/") and len(cleaned) > len(start) + 1):
        raise ManifestError(f"{path}.path", "directory traversal with '..' is not permitted")
