"""The platform that a pod chooses for itself: of an image for several, each runs other programs."""

from collections.abc import Sequence
from typing import Any

from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.undeclared import objects_of

LABELS = {
    "kubernetes.io/arch": "arch", "beta.kubernetes.io/arch": "arch", "kubernetes.io/os": "os", "beta.kubernetes.io/os": "os",
}  # fmt: skip
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def placement(parts: Sequence[Json], spec: Json) -> Json:
    """The node selector and the affinity of a pod as Argo takes them: those of the template with its defaults and patches, and
    of the workflow's spec only if they have none.
    """
    found: Json = {}
    for field in ("nodeSelector", "affinity"):
        own = [part[field] for part in reversed(parts) if isinstance(part.get(field), dict) and part[field]]
        merged = {name: value for each in own for name, value in each.items()}
        if chosen := merged or spec.get(field):
            found[field] = chosen
    return found


def chosen_platform(placed: Json) -> Json:
    """What a placement says of the platform, for the key: by label, or as terms of which one has to hold. Empty if nothing."""
    selector = _object(placed.get("nodeSelector"))
    found: Json = {LABELS[label]: value for label, value in sorted(selector.items()) if label in LABELS}
    terms = [term for term in map(_term, _terms(placed)) if term]
    return {**found, **({"terms": terms} if terms else {})}


def is_one_platform(placed: Json) -> bool:
    """Whether all nodes on which the pod may run have one architecture."""
    if any(LABELS.get(label) == "arch" for label in _object(placed.get("nodeSelector"))):
        return True
    single = {
        tuple(
            values[0]
            for name, operator, values in _term(term)
            if name == "arch" and operator == "In" and len(values) == 1
        )
        for term in _terms(placed)
    }
    return len(single) == 1 and single != {()}


def _terms(placed: Json) -> list[Json]:
    """The terms of the required affinity to nodes, of which one has to hold."""
    required = _object(_object(_object(placed.get("affinity")).get("nodeAffinity")).get(_REQUIRED))
    return objects_of(required.get("nodeSelectorTerms"))


def _term(term: Json) -> list[list[Any]]:
    return sorted(
        [LABELS[str(each.get("key"))], str(each.get("operator")), sorted(map(str, each.get("values") or ()))]
        for each in objects_of(term.get("matchExpressions"))
        if str(each.get("key")) in LABELS
    )


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
