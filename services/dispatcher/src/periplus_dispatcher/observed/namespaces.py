"""Which namespaces are observed, and the projects that their runs belong to: the setting DISPATCHER_OBSERVE."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from periplus_common.object_key import PROJECT_LABEL
from periplus_dispatcher.domain import MANAGED_LABEL, Json

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LABEL = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?(=[-A-Za-z0-9_.]*)?"
)


@dataclass(frozen=True)
class ObservedNamespace:
    """A namespace whose Workflows are observed. A Workflow's project is the first, or the one of these that its label names."""

    name: str
    projects: tuple[str, ...]

    def project_of(self, workflow: Json) -> str | None:
        """The project of a Workflow; None if its label names one that is not this namespace's."""
        named = (workflow["metadata"].get("labels") or {}).get(PROJECT_LABEL)
        if named is None:
            return self.projects[0]
        return named if named in self.projects else None


def parse_namespaces(text: str) -> tuple[ObservedNamespace, ...]:
    """The setting `<namespace>=<project>[|<project>…]`, separated by commas. Raises `ValueError`."""
    found: dict[str, ObservedNamespace] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, projects = entry.partition("=")
        names = tuple(projects.split("|"))
        if not _NAMESPACE.fullmatch(name) or name in found or not all(map(_PROJECT.fullmatch, names)):
            raise ValueError(
                f"{entry!r} is not <namespace>=<project> or <namespace>=<project>|<project>, each namespace once"
            )
        found[name] = ObservedNamespace(name, names)
    return tuple(found.values())


@dataclass(frozen=True)
class Observation:
    """What is observed: namespaces by name, only Workflows with a label (empty: all), and the projects whose cache the results of
    observed steps go to. Raises `ValueError` for a text that is no label.
    """

    namespaces: Mapping[str, ObservedNamespace]
    label: str = ""
    recorded_projects: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.label and not _LABEL.fullmatch(self.label):
            raise ValueError(f"{self.label!r} is not a label as <name> or <name>=<value>")

    @property
    def selector(self) -> str:
        """The label selector of the Workflows to observe: not those of Periplus, and only those with the label."""
        return f"!{MANAGED_LABEL},{self.label}" if self.label else f"!{MANAGED_LABEL}"

    def selects(self, workflow: Json) -> bool:
        """Whether the selector selects a Workflow: a watch also ends with those whose labels have changed."""
        labels = workflow["metadata"].get("labels") or {}
        name, separator, value = self.label.partition("=")
        is_labelled = not name or (labels.get(name) == value if separator else name in labels)
        return is_labelled and MANAGED_LABEL not in labels
