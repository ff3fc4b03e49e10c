"""Templates by name: the kinds that run here, and the resolution of what a step calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from periplus_local.argo.errors import invalid_argument

Template = dict[str, Any]

CONTAINER_KINDS = ("container", "script")
KINDS = ("container", "script", "dag", "steps", "suspend")
ARTIFACT_SOURCES = ("s3", "raw", "from", "fromExpression")


class TemplateGetter(Protocol):
    """Gives the WorkflowTemplates that the server stores."""

    def spec_of(self, name: str, cluster_scope: bool) -> dict[str, Any]:
        """The spec of the template of that name; raises ArgoError when there is none."""
        ...


@dataclass(frozen=True)
class TemplateSet:
    """The templates of one spec, and the `templateScope` by which nodes refer to it."""

    scope: str
    templates: Mapping[str, Template]

    def template(self, name: str) -> Template:
        """The template of that name; raises ArgoError when there is none."""
        if name not in self.templates:
            raise invalid_argument(f"template {name} not found")
        return self.templates[name]


def template_set(scope: str, spec: Mapping[str, Any]) -> TemplateSet:
    """The templates of a spec."""
    return TemplateSet(scope, {item["name"]: item for item in spec.get("templates") or ()})


def kind_of(template: Mapping[str, Any]) -> str:
    """Which of KINDS a template is; raises ArgoError when it is none."""
    for kind in KINDS:
        if kind in template:
            return kind
    raise invalid_argument(f"Template '{template.get('name', '')}' missing specification")


class TemplateResolver:
    """Finds the template that a step of one workflow calls, and applies `templateDefaults`."""

    def __init__(self, local: TemplateSet, defaults: Template | None, stored: TemplateGetter) -> None:
        """`local` are the workflow's own templates, `defaults` its `templateDefaults`."""
        self.local = local
        self.defaults = defaults or {}
        self.stored = stored
        self._referenced: dict[tuple[str, bool], TemplateSet] = {}

    def resolve(self, caller: TemplateSet, step: Mapping[str, Any]) -> tuple[TemplateSet, Template]:
        """The template that a step calls, and the set in which that template's own steps look up names.

        `caller` is the set of the template that contains the step. Raises ArgoError when there is no such
        template.
        """
        if "inline" in step:
            return caller, self._with_defaults(step["inline"])
        reference = step.get("templateRef")
        if reference:
            found = self._referenced_set(reference["name"], bool(reference.get("clusterScope")))
            return found, self._with_defaults(found.template(reference["template"]))
        return caller, self._with_defaults(caller.template(step.get("template", "")))

    def _referenced_set(self, name: str, cluster_scope: bool) -> TemplateSet:
        found = self._referenced.get((name, cluster_scope))
        if found is None:
            scope = f"{'cluster' if cluster_scope else 'namespaced'}/{name}"
            found = template_set(scope, self.stored.spec_of(name, cluster_scope))
            self._referenced[name, cluster_scope] = found
        return found

    def _with_defaults(self, template: Template) -> Template:
        if not self.defaults:
            return template
        kind = kind_of(template)
        usable = {k: v for k, v in self.defaults.items() if k == kind or k not in KINDS}
        return merged(usable, template)


def merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Two maps merged deeply; the values of `overrides` win."""
    result = dict(defaults)
    for key, value in overrides.items():
        default = result.get(key)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            result[key] = merged(default, value)
        else:
            result[key] = value
    return result
