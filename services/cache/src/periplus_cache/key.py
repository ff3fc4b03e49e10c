"""A step's key, its fingerprint, and the static key, which is known before the inputs are.

The key is a map: {v, project, tier, epoch, template, parameters, artifacts}, with `discovered` if the step has discovered
inputs. A parameter of more than `MAX_PLAIN_CHARACTERS` is there as [digest, size]. The fingerprint is the digest of its canonical form; the base fingerprint is that of the map without `discovered`, which
is known before the step runs; the static key is the digest of the map without inputs of any kind. Canonical CBOR sorts
shorter names first, and `artifacts`, `discovered` and `parameters` are the longest: the bytes of all other members come first,
and are hashed once for all steps of a template.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from periplus_cache import document
from periplus_common import digest
from periplus_model.steps import MAX_PLAIN_CHARACTERS, Inputs, OmittedValue

VERSION = 1
TIER = "trusted"

_STATIC_MEMBERS = 5
_ALL_MEMBERS = 7
_MAP = 0xA0  # CBOR: a map of up to 23 pairs, their number in the low bits
_PARAMETERS = digest.canonical("parameters")
_DISCOVERED = digest.canonical("discovered")
_ARTIFACTS = digest.canonical("artifacts")


@dataclass(frozen=True, slots=True)
class Scope:
    """The project, which never shares entries with others, and the epoch: raising it makes older entries unreachable."""

    project: str
    epoch: int = 0


def static_members(scope: Scope, text: str) -> dict[str, Any]:
    """The members of the key that are known before the inputs. Raises `Invalid` for an invalid document."""
    return {
        "v": VERSION,
        "project": scope.project,
        "tier": TIER,
        "epoch": scope.epoch,
        "template": document.parse(text),
    }


def whole_key(scope: Scope, text: str, inputs: Inputs) -> dict[str, Any]:
    """The key of a step with these inputs. Raises `Invalid` for an invalid document."""
    key = {
        **static_members(scope, text),
        "parameters": _plain(inputs.parameters, inputs.omitted),
        "artifacts": {artifact.name: artifact.digest for artifact in inputs.artifacts},
    }
    return {**key, "discovered": dict(inputs.discovered)} if inputs.discovered else key


def _plain(
    parameters: Mapping[str, str], omitted: Mapping[str, OmittedValue] | None
) -> Mapping[str, str | list[str | int]]:
    """Parameters as the key has them."""
    if not omitted and all(len(value) <= MAX_PLAIN_CHARACTERS for value in parameters.values()):
        return dict(parameters)
    plain: dict[str, str | list[str | int]] = {}
    for name, value in parameters.items():
        if len(value) > MAX_PLAIN_CHARACTERS:
            content = value.encode("utf-8", "surrogatepass")
            plain[name] = [digest.sha256(content), len(content)]
        else:
            plain[name] = value
    return plain | {name: [value.digest, value.size_bytes] for name, value in (omitted or {}).items()}


class TemplateKey:
    """What the keys of all steps of a template have in common."""

    __slots__ = ("_prefix", "_prefix_with_discovered", "static_key")

    def __init__(self, scope: Scope, text: str) -> None:
        canonical = digest.canonical(static_members(scope, text))
        self.static_key = digest.sha256(canonical)
        self._prefix = hashlib.sha256(bytes([_MAP | _ALL_MEMBERS]) + canonical[1:])
        self._prefix_with_discovered = hashlib.sha256(bytes([_MAP | (_ALL_MEMBERS + 1)]) + canonical[1:])
        assert canonical[0] == _MAP | _STATIC_MEMBERS

    def fingerprint(
        self,
        parameters: Mapping[str, str],
        artifacts: Mapping[str, str],
        discovered: Mapping[str, str] | None = None,
        omitted: Mapping[str, OmittedValue] | None = None,
    ) -> str:
        """The digest of `whole_key` with these inputs."""
        hashed = (self._prefix_with_discovered if discovered else self._prefix).copy()
        hashed.update(_ARTIFACTS + digest.canonical(artifacts))
        if discovered:
            hashed.update(_DISCOVERED + digest.canonical(discovered))
        hashed.update(_PARAMETERS + digest.canonical(_plain(parameters, omitted)))
        return "sha256:" + hashed.hexdigest()


class TemplateKeys:
    """The keys of the templates that were used last, by the digest of the document, which may be long."""

    def __init__(self, max_size: int = 4096) -> None:
        self._max_size = max_size
        self._keys: OrderedDict[tuple[Scope, bytes], TemplateKey] = OrderedDict()

    def get(self, scope: Scope, text: str) -> TemplateKey:
        """The key of a template's document. Raises `Invalid` for an invalid document."""
        name = (scope, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = TemplateKey(scope, text)
            if len(self._keys) > self._max_size:
                self._keys.popitem(last=False)
        else:
            self._keys.move_to_end(name)
        return key
