"""Discovered inputs: what a step used of the project's code beyond its template, and the code index that tells what each is now."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX

OUTPUT = "periplus-discovered"
"""The output parameter in which the runner of the SDK reports. It is no output of the step."""

MAX_REPORT_CHARACTERS = 32 << 10
MAX_NAMES = 1000
MAX_NAME_CHARACTERS = 1024
_DIGEST = re.compile(r"[0-9a-f]{32,64}", re.ASCII)
_INDEX = ANNOTATION_PREFIX + "code-index"


@dataclass(frozen=True)
class Discovered:
    """Digests by name, and why the result is not to be cached, as a sentence."""

    code: Mapping[str, str] = field(default_factory=dict)
    uncacheable_reason: str = ""


def read_index(manifest: Json) -> dict[str, str]:
    """The digest of each name of the code that a workflow runs; empty without one. Raises `Invalid`."""
    text = ((manifest.get("metadata") or {}).get("annotations") or {}).get(_INDEX)
    if not text:
        return {}
    try:
        return _digests(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise Invalid(
            f"is no JSON object of digests by name: {error}",
            field=f"spec.manifest.metadata.annotations['{_INDEX}']",
        ) from error


def read_report(text: str, *, steps_are_processes: bool) -> Discovered:
    """What a step reported. It may be anything: a step can write what it wants.

    Where steps run in images, the files and variables that they read are those of the image.
    """
    if not text:
        return Discovered(uncacheable_reason="its process did not report what it used")
    try:
        if len(text) > MAX_REPORT_CHARACTERS:
            raise ValueError(f"has more than {MAX_REPORT_CHARACTERS} characters")
        report = json.loads(text)
        code, files, variables = (report.get(name, empty) for name, empty in _MEMBERS.items())
        files, variables = [str(file)[:200] for file in files], [str(name)[:200] for name in variables]
        found = _digests(code)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return Discovered(uncacheable_reason=f"its report of what it used cannot be read: {error}"[:200])
    if files and steps_are_processes:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return Discovered(
            found,
            f"it read {files[0]}{more}, which it does not declare: keep it beside the code and write @step(files=[…])",
        )
    if not steps_are_processes:
        variables = [name for name in variables if name not in _OF_IMAGE]
    if variables:
        return Discovered(
            found,
            f"it read the environment variable {variables[0]}, which differs from "
            f"{'machine to machine' if variables[0] in _OF_IMAGE else 'run to run'}",
        )
    return Discovered(found)


_OF_IMAGE = frozenset({"HOME", "LANG", "PATH"})
"""Variables that an image sets, and which are the machine's where steps are its processes."""

_MEMBERS: dict[str, Json | list[str]] = {"code": {}, "files": [], "variables": []}


def _digests(found: object) -> dict[str, str]:
    if not isinstance(found, dict) or len(found) > MAX_NAMES * 10:
        raise ValueError("no object, or one with too many names")
    for name, digest in found.items():
        if len(name) > MAX_NAME_CHARACTERS or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError(f"the digest of {name[:100]!r} is none")
    return found
