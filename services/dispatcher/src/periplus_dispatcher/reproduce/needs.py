"""What a resolved manifest needs from outside of itself, from the manifest and the record of its run."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from periplus_dispatcher.domain import (
    ABSENT,
    RAW_CONTENT,
    ContainerTemplate,
    Json,
    RecordedRun,
    RecordedStep,
    plan_path,
)
from periplus_dispatcher.manifest.calls import ExpandedWorkflow, items_of, template_kind
from periplus_dispatcher.manifest.undeclared import containers_of
from periplus_dispatcher.reproduce.requirements import (
    MAX_STEPS,
    Kind,
    NeededImage,
    NeededObject,
    Needs,
    Requirement,
    State,
)
from periplus_manifest import tags
from periplus_model.steps import ObjectRef, StepPhase

CODE_ARTIFACT = "periplus-code"
"""The input of the SDK's steps that has their code."""
_STORES = ("gcs", "azure", "oss", "hdfs", "http", "artifactory", "plugin")
_ACTS_OUTSIDE = {"resource": "it changes objects of the cluster", "http": "it sends a request"}
_OWN_TAGS = ("workflow.name", "workflow.uid", "pod.name", "workflow.creationTimestamp")
"""Tags that give each run an object of its own."""
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def needs(
    manifest: Json,
    parameters: Mapping[str, str],
    expanded: ExpandedWorkflow,
    record: RecordedRun,
    earlier: Mapping[str, ContainerTemplate],
) -> Needs:
    """What a run of a resolved manifest needs. `expanded` are its calls as they are planned now.

    `record` is what the run did that it was resolved for, `earlier` what its templates did then.
    """
    steps: dict[str, list[str]] = {}
    for step in record.steps:
        if step.phase is not StepPhase.SKIPPED:
            steps.setdefault(step.template, []).append(step.path)
    used = {call.template for call in expanded.calls} | set(steps) | set(_handlers(manifest["spec"]))
    used.add(manifest["spec"].get("entrypoint", ""))
    templates = [
        template
        for template in manifest["spec"].get("templates") or ()
        if not expanded.calls or template.get("name") in used
    ]
    by_template = {name: tuple(sorted(paths)[:MAX_STEPS]) for name, paths in steps.items()}
    constants = {f"workflow.parameters.{name}": value for name, value in parameters.items()}
    return Needs(
        images=_images(manifest["spec"], templates, constants, by_template),
        objects=_objects(expanded, record),
        others=tuple(_others(manifest["spec"], templates, expanded, earlier, by_template)),
    )


def _handlers(spec: Json) -> Iterator[str]:
    """Templates that are called by other fields than those of calls."""
    if spec.get("onExit"):
        yield str(spec["onExit"])
    for found in _walk(spec):
        for hook in (found.get("hooks") or {}).values() if isinstance(found.get("hooks"), dict) else ():
            yield str((hook or {}).get("template") or "")
        if isinstance(found.get("onExit"), str):
            yield found["onExit"]


def _images(
    spec: Json, templates: list[Json], constants: Mapping[str, str], steps: Mapping[str, tuple[str, ...]]
) -> tuple[NeededImage, ...]:
    found: dict[tuple[str, bool], tuple[str, ...]] = {}
    for template in (*templates, spec.get("templateDefaults") or {}):
        for container in containers_of(template):
            if container.get("image"):
                image = tags.substitute_all(str(container["image"]), constants.get, strict=False)
                key = image, container.get("imagePullPolicy") == "Never"
                found[key] = (*found.get(key, ()), *steps.get(template.get("name", ""), ()))[:MAX_STEPS]
    return tuple(NeededImage(image, paths, is_local) for (image, is_local), paths in found.items())


def _objects(expanded: ExpandedWorkflow, record: RecordedRun) -> tuple[NeededObject, ...]:
    """The objects that come from outside of the run: those that the manifest names, and those that a step read and none wrote."""
    named = {
        (call.path, name): source
        for call in expanded.calls
        if call.query is not None
        for name, source in call.query.artifacts.items()
        if isinstance(source, ObjectRef)
    }
    written = {artifact.object for step in record.steps for artifact in step.outputs.artifacts}
    elsewhere = {RAW_CONTENT, *written}
    found: dict[tuple[ObjectRef, str], NeededObject] = {}
    for step in record.steps:
        if step.phase is StepPhase.SKIPPED:
            continue
        for name, ref, digest in _read_by(step, named, elsewhere):
            present = found.get((ref, digest), NeededObject(ref, digest, name == CODE_ARTIFACT))
            paths = (*present.steps, step.path)[:MAX_STEPS]
            found[ref, digest] = NeededObject(ref, digest, present.is_code, paths)
    return tuple(found.values())


def _read_by(
    step: RecordedStep, named: Mapping[tuple[str, str], ObjectRef], elsewhere: set[ObjectRef]
) -> Iterator[tuple[str, ObjectRef, str]]:
    """Name, object and digest of each input of a step that comes from outside of the run.

    `elsewhere` are the objects that the run wrote, and content in the manifest. The inputs of a cached step are recorded as those of its producer: their digests count, and not where they were.
    """
    path = plan_path(step.path)
    digests = {artifact.name: artifact.digest for artifact in step.inputs.artifacts}
    own = {name: ref for (of, name), ref in named.items() if of == path}
    for name, ref in own.items():
        yield name, ref, digests.get(name, "")
    if step.phase is StepPhase.CACHED:
        return
    for artifact in step.inputs.artifacts:
        if artifact.name not in own and artifact.object not in elsewhere:
            yield artifact.name, artifact.object, artifact.digest


def _others(
    spec: Json,
    templates: list[Json],
    expanded: ExpandedWorkflow,
    earlier: Mapping[str, ContainerTemplate],
    steps: Mapping[str, tuple[str, ...]],
) -> Iterator[Requirement]:
    if "workflowTemplateRef" in spec:
        yield _not_stored(str(spec["workflowTemplateRef"].get("name")), ())
    yield from _of_fields({name: value for name, value in spec.items() if name != "templates"}, ())
    for template in templates:
        name = template.get("name", "")
        paths = steps.get(name, ())
        config = list(_config(earlier.get(name), expanded.templates.get(name), paths))
        yield from config
        yield from _of_fields(template, paths, frozenset(each.name for each in config))
        yield from _effects(template, expanded, paths)


def _config(
    earlier: ContainerTemplate | None, now: ContainerTemplate | None, steps: tuple[str, ...]
) -> Iterator[Requirement]:
    """The Secrets and ConfigMaps of a template, by the versions of their data that its keys have."""
    before, after = (_versions(template) for template in (earlier, now))
    for label in dict.fromkeys((*before, *after)):
        then, current = before.get(label, ""), after.get(label, "")
        if not then or not current:
            which = "then" if not then else "now"
            why = now.step.uncacheable_reason if now and not current else ""
            reason = f"the version of its data is not known of {which}" + (f": {why}" if why else "")
            yield Requirement(Kind.SECRET, label, State.UNKNOWN, reason, "", steps)
        elif then == current:
            yield Requirement(Kind.SECRET, label, State.MET, steps=steps)
        else:
            state = State.MISSING if current == ABSENT else State.CHANGED
            reason = "it is gone" if current == ABSENT else "its data is not what it was"
            yield Requirement(Kind.SECRET, label, state, reason, "put its earlier data back", steps)


def _versions(template: ContainerTemplate | None) -> dict[str, str]:
    found = json.loads(template.step.document).get("config") if template else None
    return {label: str(version) for label, version in (found or {}).items()}


def _of_fields(
    value: Json, steps: tuple[str, ...], known: frozenset[str] = frozenset()
) -> Iterator[Requirement]:
    """Fields whose values come from outside and are not objects; without the config objects that are `known`."""
    unknown = "what it had then is not recorded, so that what it has now is used"
    seen = set()
    for found in _walk(value, skip="outputs"):
        if isinstance(reference := found.get("templateRef"), dict):
            name = f"{reference.get('name')}/{reference.get('template')}"
            yield _not_stored(name, steps)
        if isinstance(git := found.get("git"), dict):
            name, revision = f"git {git.get('repo')}", str(git.get("revision") or "HEAD")
            is_commit = _COMMIT.fullmatch(revision) is not None
            reason = "" if is_commit else f"{revision} is no commit, so that what it points to now is read"
            state = State.MET if is_commit else State.UNKNOWN
            yield Requirement(Kind.INPUT, name, state, reason, "", steps)
        for store in _STORES:
            if isinstance(found.get(store), dict) and "name" in found:
                name = f"{store} {found['name']}"
                yield Requirement(Kind.INPUT, name, State.UNKNOWN, unknown, "", steps)
        for name in _references(found):
            if name not in seen and name not in known:
                seen.add(name)
                yield Requirement(Kind.SECRET, name, State.UNKNOWN, unknown, "", steps)


def _references(value: Json) -> Iterator[str]:
    """Secrets and ConfigMaps that containers, volumes and parameters read."""
    for field, kind in (
        ("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap"), ("secretRef", "Secret"),
        ("configMapRef", "ConfigMap"), ("configMap", "ConfigMap"), ("secret", "Secret"),
    ):  # fmt: skip
        found = value.get(field)
        if isinstance(found, dict) and (name := found.get("name") or found.get("secretName")):
            yield f"{kind}/{name}/{found['key']}" if found.get("key") else f"{kind}/{name}"


def _not_stored(name: str, steps: tuple[str, ...]) -> Requirement:
    reason = "its content was not stored with the run, so that Argo runs what it has now"
    return Requirement(Kind.TEMPLATE, name, State.UNKNOWN, reason, "", steps)


def _effects(template: Json, expanded: ExpandedWorkflow, steps: tuple[str, ...]) -> Iterator[Requirement]:
    """What running a template again changes for others."""
    name = str(template.get("name"))
    described = expanded.templates.get(name)
    kind = template_kind(template)
    if described is not None and described.step.policy.side_effects:
        reason = "its side-effects annotation says that it does more than write its outputs, and it would do so again"
        yield Requirement(Kind.EFFECT, name, State.UNSAFE, reason, "", steps)
    elif kind in _ACTS_OUTSIDE:
        yield Requirement(
            Kind.EFFECT, name, State.UNSAFE, f"{_ACTS_OUTSIDE[kind]}, and would do so again", "", steps
        )
    for artifact in items_of(template, "outputs", "artifacts"):
        for store in ("s3", *_STORES):
            located = artifact.get(store)
            key = located.get("key") if isinstance(located, dict) else None
            if key and not any(tag in str(key) for tag in _OWN_TAGS):
                reason = "its output has the same key in every run: running it again overwrites the object that others may use"
                yield Requirement(Kind.EFFECT, f"{name}: {key}", State.UNSAFE, reason, "", steps)


def _walk(value: Any, skip: str = "") -> Iterator[Json]:
    """Every map in a value, but those below a field of the name `skip`. Without recursion: manifests are deep."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += [each for name, each in reversed(found.items()) if name != skip]
        elif isinstance(found, list):
            waiting += reversed(found)
