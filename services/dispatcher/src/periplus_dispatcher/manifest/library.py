"""Templates of other objects that a workflow refers to: read once for a plan, with what they call themselves."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.calls import is_loop, items_of
from periplus_dispatcher.manifest.rewritten import released
from periplus_manifest.bounds import MAX_NESTING
from periplus_manifest.check import shape
from periplus_manifest.errors import ManifestError

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
CIRCLE = (
    "give one of its calls a `when` that ends it: as they are written, Argo would repeat them until 100 templates are "
    "within one another, and fail"
)


@dataclass(frozen=True)
class LibraryBounds:
    """How much is read for one plan: objects, their bytes as JSON together, and the seconds that it may take."""

    objects: int = 100
    size_bytes: int = 8 << 20
    seconds: float = 15.0


@dataclass(frozen=True, order=True)
class LibraryRef:
    """A WorkflowTemplate of the namespace or, `is_cluster`, a ClusterWorkflowTemplate."""

    name: str
    is_cluster: bool = False

    @property
    def kind(self) -> str:
        return "ClusterWorkflowTemplate" if self.is_cluster else "WorkflowTemplate"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


Key = tuple[LibraryRef, str]
"""A template of a library object."""
GetTemplate = Callable[[LibraryRef], Awaitable[Json | None]]


@dataclass(frozen=True)
class LibraryTemplate:
    """A template of a library object that a workflow uses.

    `origin` is the path of the workflow's field that leads to it. Not `is_movable`: what it calls is known only during the
    run, by names that mean something in its own object alone.
    """

    key: Key
    body: Json
    index: int
    origin: str
    is_movable: bool

    @property
    def place(self) -> str:
        return f"{self.key[0]}: spec.templates[{self.index}]"


@dataclass
class Library:
    """The objects that were read, and their templates that a workflow uses, in the order in which they were found."""

    objects: dict[LibraryRef, Json] = field(default_factory=dict)
    used: dict[Key, LibraryTemplate] = field(default_factory=dict)


def callers(template: Json, path: str) -> Iterator[tuple[Json, str]]:
    """What calls a template in a template, with its path: steps, tasks, hooks, and those of inline templates."""
    calls = [(task, f"{path}.dag.tasks[{i}]") for i, task in enumerate(items_of(template, "dag", "tasks"))]
    for outer, group in enumerate(template.get("steps") or ()):
        calls += [(step, f"{path}.steps[{outer}][{inner}]") for inner, step in enumerate(group)]
    for call, call_path in calls:
        yield call, call_path
        yield from hooks_of(call, call_path)
        if call.get("inline"):
            yield from callers(call["inline"], f"{call_path}.inline")


def hooks_of(value: Json, path: str) -> Iterator[tuple[Json, str]]:
    """The hooks of a call or of a workflow's spec, with their paths."""
    for name, hook in (value.get("hooks") or {}).items():
        yield hook, f"{path}.hooks.{name}"


def callers_of_workflow(spec: Json) -> Iterator[tuple[Json, str]]:
    """What calls a template in a workflow."""
    yield from hooks_of(spec, "spec")
    for index, template in enumerate(spec.get("templates") or ()):
        yield from callers(template, f"spec.templates[{index}]")


def reference_of(caller: Json) -> Key | None:
    """What a caller's `templateRef` refers to; None without one, or if it is known only during the run."""
    reference = caller.get("templateRef") or {}
    name, template = str(reference.get("name") or ""), str(reference.get("template") or "")
    if not name or not template or "{{" in name + template:
        return None
    return LibraryRef(name, bool(reference.get("clusterScope"))), template


class LibraryReader:
    """Reads library objects by `get`, or from `given`, which come with the workflow. Raises `Invalid`, `Unavailable`."""

    def __init__(
        self,
        get: GetTemplate,
        given: Mapping[LibraryRef, Json],
        namespace: str,
        bounds: LibraryBounds,
    ) -> None:
        self._get = get
        self._given = given
        self._namespace = namespace
        self._bounds = bounds
        self._size = 0
        self._edges: dict[Key, list[Key]] = {}
        self._by_name: dict[LibraryRef, dict[Any, tuple[int, Json]]] = {}
        self.library = Library()

    async def read_object(self, ref: LibraryRef, origin: str) -> Json:
        """One object as it is. `origin` is the path of the field that refers to it."""
        await self._load({ref: origin})
        return self.library.objects[ref]

    async def read_used(self, spec: Json) -> None:
        """The templates that a workflow uses by `templateRef`, and those that they use, until all are there."""
        wanted = [
            (key, f"{path}.templateRef")
            for caller, path in callers_of_workflow(spec)
            if (key := reference_of(caller)) is not None
        ]
        while wanted:
            await self._load({ref: origin for (ref, _), origin in reversed(wanted)})
            # In a thread: megabytes of templates take a while, and would delay every other call.
            wanted = await asyncio.to_thread(self._use_all, wanted)
        await asyncio.to_thread(self._check_circles)

    async def _load(self, origins: Mapping[LibraryRef, str]) -> None:
        missing = [ref for ref in origins if ref not in self.library.objects]
        if len(self.library.objects) + len(missing) > self._bounds.objects:
            raise _invalid(
                f"refers to more than {self._bounds.objects} WorkflowTemplates, directly or through each other",
                origins[missing[-1]],
                "TEMPLATES_TOO_MANY",
            )
        for ref in missing:
            if not NAME.fullmatch(ref.name):
                raise _invalid(
                    f"{ref.name[:100]!r} is not a Kubernetes name",
                    f"{origins[ref]}.name",
                    "TEMPLATE_NOT_FOUND",
                )
        found = await asyncio.gather(*map(self._read, missing))
        for ref, read in zip(missing, found, strict=True):
            self.library.objects[ref] = await asyncio.to_thread(self._checked, ref, read, origins[ref])

    async def _read(self, ref: LibraryRef) -> Json | None:
        return self._given[ref] if ref in self._given else await self._get(ref)

    def _checked(self, ref: LibraryRef, found: Json | None, origin: str) -> Json:
        if found is None:
            where = "in the cluster" if ref.is_cluster else f"in the namespace {self._namespace}"
            raise _invalid(
                f"there is no {ref} {where}",
                f"{origin}.name",
                "TEMPLATE_NOT_FOUND",
                fix=f"create it, or add the {ref.kind} to the file that is run, as a document of its own after ---",
            )
        if _is_deep(found):
            raise _invalid(f"{ref}: nested deeper than {MAX_NESTING}", origin, "TEMPLATES_TOO_LARGE")
        found = released(without_nulls(found))
        found.setdefault("spec", {})
        self._size += len(json.dumps(found))
        if self._size > self._bounds.size_bytes:
            raise _invalid(
                f"the WorkflowTemplates that it refers to have more than {self._bounds.size_bytes} bytes",
                origin,
                "TEMPLATES_TOO_LARGE",
            )
        try:
            shape.check(found["spec"], "Spec", "spec")
        except ManifestError as error:
            raise _invalid(f"{ref}: {error}", origin, "MANIFEST_INVALID") from error
        return found

    def _use_all(self, wanted: list[tuple[Key, str]]) -> list[tuple[Key, str]]:
        return [inner for key, origin in wanted for inner in self._use(key, origin)]

    def _use(self, key: Key, origin: str) -> Iterator[tuple[Key, str]]:
        """Add a template, and give what it calls."""
        if key in self.library.used:
            return
        ref, name = key
        if ref not in self._by_name:
            templates = enumerate(self.library.objects[ref]["spec"].get("templates") or ())
            self._by_name[ref] = {template.get("name"): (index, template) for index, template in templates}
        by_name = self._by_name[ref]
        if name not in by_name:
            names = ", ".join(str(each) for each in list(by_name)[:20])
            raise _invalid(
                f"the {ref} has no template {name[:100]}; it has: {names or 'none'}",
                f"{origin}.template" if origin.endswith("templateRef") else origin,
                "TEMPLATE_NOT_FOUND",
            )
        index, body = by_name[name]
        local = [
            called
            for caller, _ in callers(body, "")
            for called in (caller.get("template"), caller.get("onExit"))
            if called
        ]
        is_movable = not any("{{" in called for called in local)
        self.library.used[key] = LibraryTemplate(key, body, index, origin, is_movable)
        self._edges[key] = []
        if not is_movable:
            return
        for caller, _ in callers(body, ""):
            called = [(ref, caller[each]) for each in ("template", "onExit") if caller.get(each)]
            if (other := reference_of(caller)) is not None:
                called.append(other)
            for each in called:
                if not _is_conditional(caller):
                    self._edges[key].append(each)
                yield each, origin

    def _check_circles(self) -> None:
        """Refuse templates that call each other in a circle without a condition: they would never end."""
        try:
            TopologicalSorter(self._edges).prepare()
        except CycleError as error:
            circle: list[Key] = error.args[1][::-1]
            raise _invalid(
                "the templates call each other in a circle: "
                + " -> ".join(f"{ref.name}/{template}" for ref, template in circle[:20]),
                self.library.used[circle[0]].origin,
                "TEMPLATES_IN_A_CIRCLE",
                fix=CIRCLE,
            ) from None


def _is_conditional(caller: Json) -> bool:
    """Whether a call may be left out: its condition or its loop can end a recursion."""
    return bool(
        caller.get("when")
        or caller.get("expression")
        or is_loop(caller)
        or "." in str(caller.get("depends") or "")
    )


def _is_deep(value: Any) -> bool:
    """Whether maps and lists are deeper within one another than in a manifest; without recursion, which would fail then."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
    return bool(level)


def _invalid(message: str, origin: str, reason: str, fix: str = "") -> Invalid:
    return Invalid(message, field=f"spec.manifest.{origin}", reason=reason, fix=fix)


def without_nulls(value: Any) -> Any:
    """A manifest as Argo reads it: a field that is null is absent. Items of loops are kept as they are."""
    if isinstance(value, dict):
        return {
            key: each if key == "withItems" else without_nulls(each)
            for key, each in value.items()
            if each is not None
        }
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def contents(objects: Mapping[LibraryRef, Json]) -> Sequence[tuple[str, bytes]]:
    """Name and content of each object, for a snapshot: without what Kubernetes adds to it."""
    found = []
    for ref, each in sorted(objects.items()):
        metadata = each.get("metadata") or {}
        kept = {name: metadata[name] for name in ("labels", "annotations") if metadata.get(name)}
        body = {"kind": ref.kind, "metadata": {"name": ref.name, **kept}, "spec": each.get("spec") or {}}
        found.append((f"{ref.kind}/{ref.name}", json.dumps(body, sort_keys=True).encode()))
    return found
