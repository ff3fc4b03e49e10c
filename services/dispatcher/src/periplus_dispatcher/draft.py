"""An order that is read, with all that is known of it before anything runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from periplus_common import digest
from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher.calls import Walk
from periplus_dispatcher.domain import Mode, Resolved, Template
from periplus_dispatcher.plan import Plan, decide
from periplus_dispatcher.ports import Argo, Cache, Snapshotter
from periplus_dispatcher.walk import walk
from periplus_manifest.check import check
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read

Json = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What is to be run."""

    project: str
    manifest: str
    parameters: Mapping[str, str]
    cache: Mode | None
    claim: object | None

    @property
    def digest(self) -> str:
        """Names the order, so that a request id used twice for different ones is noticed."""
        mode = self.cache.value if self.cache else ""
        return digest.of([self.project, self.manifest, dict(self.parameters), mode])


@dataclass(frozen=True)
class Draft:
    """An order that was read, with all that is known of it before anything runs."""

    manifest: Json
    parameters: Mapping[str, str]
    walk: Walk
    plan: Plan
    snapshot: str
    warnings: tuple[str, ...]

    @property
    def pipeline(self) -> str:
        """What the runs of one pipeline share: the workflow's name, or the prefix of it."""
        metadata = self.manifest.get("metadata") or {}
        return str(metadata.get("generateName") or metadata.get("name") or "workflow").rstrip("-.")


class Reader:
    """Reads orders, and asks the others what is known of them."""

    def __init__(self, argo: Argo, cache: Cache, snapshotter: Snapshotter) -> None:
        self._argo = argo
        self._cache = cache
        self._snapshotter = snapshotter

    async def draft(self, order: Order) -> Draft:
        """Read an order. Raises `Invalid`, with the field's path."""
        manifest, parameters = _read(order)
        snapshot, environment = "", ""
        warnings: list[str] = []
        if order.claim is not None:
            try:
                snapshot, environment, warnings = await self._snapshotter.take(order.project, order.claim)
            except Unavailable as error:
                warnings = [f"no snapshot was taken: {error}"]
        try:
            if not await self._argo.local():
                environment = ""  # there, the image's digest says it
        except Unavailable as error:
            # Nobody can tell where the steps will run: with the environment, too much is in their keys, not too little.
            warnings = [*warnings, f"Argo was not asked: {error}"]
        walked = _walked(manifest, parameters, environment)
        templates = _overridden(walked.templates, order.cache)
        walked = replace(walked, templates=templates)
        queries = [call.query for call in walked.calls if call.query is not None]
        resolved: dict[str, Resolved] = {}
        try:
            if queries:
                resolved = await self._cache.resolve(order.project, "", templates, queries)
        except (Unavailable, Invalid) as error:
            # What the cache can not be asked is run; the order itself is not at fault.
            warnings = [*warnings, f"the cache was not asked: {error}"]
        return Draft(manifest, parameters, walked, decide(walked, resolved), snapshot, tuple(warnings))


def nodes(draft: Draft) -> list[Json]:
    """The steps as the run plans them, for those who draw it before it has happened; items where they are known."""
    return [
        {
            "path": path,
            "template": step.call.template,
            "after": list(step.call.after),
            "verdict": found.verdict.value,
            "reason": found.reason,
        }
        for step in draft.plan.steps
        if not step.call.nested
        for path, found in step.each
    ]


def _walked(manifest: Json, parameters: Mapping[str, str], environment: str) -> Walk:
    """Follow a manifest. Raises `Invalid`, with the field's path."""
    try:
        return walk(manifest, parameters, environment)
    except ManifestError as error:
        path = f"spec.manifest.{error.path}" if error.path else "spec.manifest"
        raise Invalid(error.message, field=path, reason="MANIFEST_INVALID") from error
    except Invalid as error:
        raise Invalid(
            error.message, field=f"spec.manifest.{error.field}", reason="MANIFEST_INVALID"
        ) from error


def _read(order: Order) -> tuple[Json, dict[str, str]]:
    """The manifest and the values of its parameters. Raises `Invalid`, with the field's path."""
    try:
        manifest = _without_nulls(read(order.manifest))
        check(manifest, parameters=order.parameters)
    except ManifestError as error:
        path = f"spec.manifest.{error.path}" if error.path else "spec.manifest"
        raise Invalid(error.message, field=path, reason="MANIFEST_INVALID") from error
    if manifest.get("kind") != "Workflow":
        raise Invalid(f"is a {manifest.get('kind')}, not a Workflow", field="spec.manifest.kind")
    declared = ((manifest["spec"].get("arguments") or {}).get("parameters")) or []
    names = [p["name"] for p in declared]
    for name in order.parameters:
        if name not in names:
            known = ", ".join(names) or "none"
            raise Invalid(
                f"the workflow has no parameter {name}; it has: {known}", field=f"spec.parameters[{name}]"
            )
    values = {
        p["name"]: order.parameters.get(p["name"], _text(p.get("value", p.get("default")))) for p in declared
    }
    return manifest, {name: value for name, value in values.items() if value is not None}


def _without_nulls(value: Any) -> Any:
    """A manifest as Argo reads it: a field that is null is not there. Items of loops stay as they are."""
    if isinstance(value, dict):
        return {
            key: each if key == "withItems" else _without_nulls(each)
            for key, each in value.items()
            if each is not None
        }
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _overridden(templates: Mapping[str, Template], mode: Mode | None) -> Mapping[str, Template]:
    if mode is None:
        return templates
    return {name: replace(t, policy=replace(t.policy, mode=mode)) for name, t in templates.items()}
