"""What a spec must say, beyond what Argo asks for, to run without images and with one S3 store."""

from collections.abc import Iterable, Iterator
from typing import Any

from periplus_local.argo.faults import invalid
from periplus_local.argo.templates import LEAVES, merged

NO_COMMAND = "is required here: images are not used on this machine, so what {} would run is unknown"
UNMOUNTED = "cannot be mounted here: only an emptyDir of the same workflow can, once in a step and as a whole"
FOREIGN = "is another store than that of this machine"


def check(spec: dict[str, Any], endpoint: str) -> None:
    """Refuse, by the path of its field, what could not run here; raises Fault.

    An artifact with an S3 endpoint of its own must lie in the store of this machine.
    """
    check_processes(spec)
    for path, template in _templates(spec):
        for puts in ("inputs", "outputs"):
            _places(template.get(puts), f"{path}.{puts}", endpoint)
    _places(spec.get("arguments"), "spec.arguments", endpoint)


def check_processes(spec: dict[str, Any]) -> None:
    """Refuse a process without its command, or one that mounts more than empty folders; raises Fault."""
    defaults = spec.get("templateDefaults") or {}
    for path, template in _templates(spec):
        volumes = [each for of in (spec, defaults, template) for each in of.get("volumes") or ()]
        for kind in LEAVES:
            if kind in template:
                process = merged(defaults.get(kind) or {}, template[kind])
                _process(process, f"{path}.{kind}")
                _mounts(process.get("volumeMounts") or (), volumes, f"{path}.{kind}.volumeMounts")


def _process(process: dict[str, Any], path: str) -> None:
    if not process.get("command"):
        raise invalid(f"{path}.command: {NO_COMMAND.format(process.get('image') or 'the image')}")
    for at, variable in enumerate(process.get("env") or ()):
        if not variable.get("name"):
            raise invalid(f"{path}.env[{at}].name: is required")


def _mounts(mounts: Iterable[dict[str, Any]], volumes: list[dict[str, Any]], path: str) -> None:
    """Refuse a mount of anything but an empty folder that the step has for itself."""
    empty = {each.get("name") for each in volumes if each.get("emptyDir") is not None}
    mounted: set[Any] = set()
    for at, mount in enumerate(mounts):
        name = mount.get("name")
        if name not in empty or name in mounted or mount.get("subPath") or mount.get("subPathExpr"):
            raise invalid(f"{path}[{at}]: {name!r} {UNMOUNTED}")
        mounted.add(name)


def _templates(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    listed = [(f"spec.templates[{at}]", item) for at, item in enumerate(spec.get("templates") or ())]
    while listed:
        path, template = listed.pop()
        yield path, template
        for at, task in enumerate((template.get("dag") or {}).get("tasks") or ()):
            listed += _inline(task, f"{path}.dag.tasks[{at}]")
        for outer, group in enumerate(template.get("steps") or ()):
            for inner, step in enumerate(group.get("steps", ()) if isinstance(group, dict) else group):
                listed += _inline(step, f"{path}.steps[{outer}][{inner}]")


def _inline(step: dict[str, Any], path: str) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{path}.inline", step["inline"])] if step.get("inline") else []


def _places(puts: dict[str, Any] | None, path: str, endpoint: str) -> None:
    for at, artifact in enumerate((puts or {}).get("artifacts") or ()):
        place = (artifact.get("s3") or {}).get("endpoint") or endpoint
        if place != endpoint and "{{" not in place:
            raise invalid(f"{path}.artifacts[{at}].s3.endpoint: {place} {FOREIGN}")
