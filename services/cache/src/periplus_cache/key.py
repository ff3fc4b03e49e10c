"""What makes a step the same step: its key, the fingerprint of it, and the part known before any input.

The key is a map: {v, project, tier, epoch, template, parameters, artifacts}; the fingerprint is the digest of
its canonical form, and the static key that of the same map without parameters and artifacts. Canonical CBOR
puts shorter names first, and `artifacts` and `parameters` are the two longest: so the bytes of all else stand
before them, and are made once for all steps of a template.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from periplus_cache import document
from periplus_common import digest

VERSION = 1
TIER = "trusted"

_STATIC_MEMBERS = 5
_ALL_MEMBERS = 7
_MAP = 0xA0  # CBOR: a map of up to 23 pairs, their number in the low bits
_PARAMETERS = digest.canonical("parameters")
_ARTIFACTS = digest.canonical("artifacts")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose entries: never shared across projects. Raising the epoch disowns all that went before."""

    project: str
    epoch: int = 0


def static(scope: Scope, text: str) -> dict[str, Any]:
    """The part of the key that is known before any input. Raises `Invalid` for a bad document."""
    return {
        "v": VERSION,
        "project": scope.project,
        "tier": TIER,
        "epoch": scope.epoch,
        "template": document.parse(text),
    }


def key(
    scope: Scope, text: str, parameters: Mapping[str, str], artifacts: Mapping[str, str]
) -> dict[str, Any]:
    """The key itself. `artifacts` are content digests by name. Raises `Invalid` for a bad document."""
    return {**static(scope, text), "parameters": dict(parameters), "artifacts": dict(artifacts)}


class Root:
    """What the keys of all steps of a template have in common."""

    __slots__ = ("_started", "static_key")

    def __init__(self, scope: Scope, text: str) -> None:
        canonical = digest.canonical(static(scope, text))
        self.static_key = digest.sha256(canonical)
        self._started = hashlib.sha256(bytes([_MAP | _ALL_MEMBERS]) + canonical[1:])
        assert canonical[0] == _MAP | _STATIC_MEMBERS

    def fingerprint(self, parameters: Mapping[str, str], artifacts: Mapping[str, str]) -> str:
        """The digest of `key(...)`."""
        hashed = self._started.copy()
        hashed.update(_ARTIFACTS + digest.canonical(artifacts) + _PARAMETERS + digest.canonical(parameters))
        return "sha256:" + hashed.hexdigest()


class Roots:
    """The roots of the templates seen last, found by the digest of their text, which may be long."""

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._found: OrderedDict[tuple[Scope, bytes], Root] = OrderedDict()

    def of(self, scope: Scope, text: str) -> Root:
        """The root of a template's document. Raises `Invalid` for a bad document."""
        name = (scope, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        root = self._found.get(name)
        if root is None:
            root = self._found[name] = Root(scope, text)
            if len(self._found) > self._size:
                self._found.popitem(last=False)
        else:
            self._found.move_to_end(name)
        return root
