"""What a spec must say, beyond what Argo asks for, to run without images and with one S3 store."""

from collections.abc import Iterator
from typing import Any

from periplus_local.argo.faults import invalid
from periplus_local.argo.templates import LEAVES, merged

NO_COMMAND = "is required here: images are not used on this machine, so what {} would run is unknown"
FOREIGN = "is another store than that of this machine"


def check(spec: dict[str, Any], endpoint: str) -> None:
    """Refuse, by the path of its field, what could not run here; raises Fault.

    A process needs its command written out. An artifact with an S3 endpoint of its own must lie in the
    store of this machine.
    """
    defaults = spec.get("templateDefaults") or {}
    for path, template in _templates(spec):
        for kind in LEAVES:
            if kind in template:
                process = merged(defaults.get(kind) or {}, template[kind])
                if not process.get("command"):
                    raise invalid(
                        f"{path}.{kind}.command: {NO_COMMAND.format(process.get('image') or 'the image')}"
                    )
                for at, variable in enumerate(process.get("env") or ()):
                    if not variable.get("name"):
                        raise invalid(f"{path}.{kind}.env[{at}].name: is required")
        for puts in ("inputs", "outputs"):
            _places(template.get(puts), f"{path}.{puts}", endpoint)
    _places(spec.get("arguments"), "spec.arguments", endpoint)


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
