"""What a spec must have, beyond Argo's own rules, to run without a cluster, without images and with one S3 store."""

from collections.abc import Iterable, Iterator
from typing import Any

from periplus_local.argo.errors import ArgoError, invalid_argument
from periplus_local.argo.templates import CONTAINER_KINDS, TemplateGetter, merged

NO_COMMAND = "is required here: images are not used on this machine, so what {} would run is unknown"
UNMOUNTED = "cannot be mounted here: only an emptyDir of the same workflow can, once in a step and as a whole"
FOREIGN = "is another store than that of this machine"
Step = dict[str, Any]
Spec = dict[str, Any]


def check_runnable(spec: Spec, templates: TemplateGetter, s3_endpoint: str) -> None:
    """Refuse, by the path of its field, what cannot run here; raises ArgoError.

    An artifact with an S3 endpoint of its own must lie at `s3_endpoint`.
    """
    check_processes(spec)
    for path, template in _templates(spec):
        for side in ("inputs", "outputs"):
            _check_endpoints(template.get(side), f"{path}.{side}", s3_endpoint)
    _check_endpoints(spec.get("arguments"), "spec.arguments", s3_endpoint)
    check_references(spec, templates)


def check_processes(spec: Spec) -> None:
    """Refuse a container without a command, or one that mounts more than empty folders; raises ArgoError."""
    defaults = spec.get("templateDefaults") or {}
    for path, template in _templates(spec):
        volumes = [volume for of in (spec, defaults, template) for volume in of.get("volumes") or ()]
        for kind in CONTAINER_KINDS:
            if kind in template:
                container = merged(defaults.get(kind) or {}, template[kind])
                _check_container(container, f"{path}.{kind}")
                _check_mounts(container.get("volumeMounts") or (), volumes, f"{path}.{kind}.volumeMounts")


def _check_container(container: dict[str, Any], path: str) -> None:
    if not container.get("command"):
        raise invalid_argument(f"{path}.command: {NO_COMMAND.format(container.get('image') or 'the image')}")
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            raise invalid_argument(f"{path}.env[{index}].name: is required")


def _check_mounts(mounts: Iterable[dict[str, Any]], volumes: list[dict[str, Any]], path: str) -> None:
    """Refuse a mount of anything but an emptyDir, since each step has an empty folder of its own there."""
    empty = {volume.get("name") for volume in volumes if volume.get("emptyDir") is not None}
    mounted: set[Any] = set()
    for index, mount in enumerate(mounts):
        name = mount.get("name")
        if name not in empty or name in mounted or mount.get("subPath") or mount.get("subPathExpr"):
            raise invalid_argument(f"{path}[{index}]: {name!r} {UNMOUNTED}")
        mounted.add(name)


def _check_endpoints(artifacts: dict[str, Any] | None, path: str, s3_endpoint: str) -> None:
    for index, artifact in enumerate((artifacts or {}).get("artifacts") or ()):
        endpoint = (artifact.get("s3") or {}).get("endpoint") or s3_endpoint
        if endpoint != s3_endpoint and "{{" not in endpoint:
            raise invalid_argument(f"{path}.artifacts[{index}].s3.endpoint: {endpoint} {FOREIGN}")


def check_references(spec: Spec, templates: TemplateGetter) -> None:
    """Refuse, by the path of its field, a `templateRef` to a template that does not exist; raises ArgoError."""
    for path, step in _steps_and_hooks(spec):
        reference = step.get("templateRef")
        if not reference or "{{" in f"{reference.get('name')}{reference.get('template')}":
            continue
        name, template = reference["name"], reference["template"]
        try:
            found = templates.spec_of(name, bool(reference.get("clusterScope")))
        except ArgoError as error:
            raise invalid_argument(f"{path}.templateRef: {error.message}") from error
        if template not in {item["name"] for item in found.get("templates") or ()}:
            raise invalid_argument(f"{path}.templateRef: template reference {name}.{template} not found")


def _templates(spec: Spec) -> Iterator[tuple[str, dict[str, Any]]]:
    """The templates of a spec with their paths, inline ones included."""
    pending = [(f"spec.templates[{index}]", item) for index, item in enumerate(spec.get("templates") or ())]
    while pending:
        path, template = pending.pop()
        yield path, template
        pending += [
            (f"{step_path}.inline", step["inline"])
            for step_path, step in _steps(template, path)
            if step.get("inline")
        ]


def _steps(template: dict[str, Any], path: str) -> Iterator[tuple[str, Step]]:
    """The tasks and steps of one template, with their paths."""
    for index, task in enumerate((template.get("dag") or {}).get("tasks") or ()):
        yield f"{path}.dag.tasks[{index}]", task
    for outer, group in enumerate(template.get("steps") or ()):
        for inner, step in enumerate(group.get("steps", ()) if isinstance(group, dict) else group):
            yield f"{path}.steps[{outer}][{inner}]", step


def _steps_and_hooks(spec: Spec) -> Iterator[tuple[str, Step]]:
    """Whatever may have a `templateRef`, with its path, in the order of the manifest."""
    yield from _hooks(spec, "spec")
    for index, template in enumerate(spec.get("templates") or ()):
        yield from _steps_and_hooks_within(template, f"spec.templates[{index}]")


def _steps_and_hooks_within(template: dict[str, Any], path: str) -> Iterator[tuple[str, Step]]:
    for step_path, step in _steps(template, path):
        yield step_path, step
        yield from _hooks(step, step_path)
        if step.get("inline"):
            yield from _steps_and_hooks_within(step["inline"], f"{step_path}.inline")


def _hooks(holder: dict[str, Any], path: str) -> Iterator[tuple[str, Step]]:
    for name, hook in (holder.get("hooks") or {}).items():
        yield f"{path}.hooks.{name}", hook
