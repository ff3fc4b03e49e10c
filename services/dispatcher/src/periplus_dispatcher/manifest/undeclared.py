"""What the containers of a template get that no input declares: from the pod, from Secrets and ConfigMaps, from volumes.

Templates, defaults and pod spec patches are not merged as Argo merges them: whatever one of them names counts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from periplus_dispatcher.domain import ConfigObject, ConfigRef, Json
from periplus_dispatcher.manifest.policy import read_names

_CONFIG_KINDS = {"secret": "Secret", "configMap": "ConfigMap"}
_POD_FIELDS = ("fieldRef", "resourceFieldRef")
SCRATCH = "emptyDir"
"""The volume that has nothing that the step did not write."""


@dataclass(frozen=True)
class IgnoredSources:
    """What annotations declare not to change a result: variables, objects of `envFrom`, volumes, each by name."""

    env: frozenset[str] = frozenset()
    env_from: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()

    @property
    def by_annotation(self) -> dict[str, frozenset[str]]:
        return {"ignore-env": self.env, "ignore-env-from": self.env_from, "ignore-volumes": self.volumes}


@dataclass(frozen=True)
class Source:
    """Something that a container gets from elsewhere.

    `what` gets it (`its variable TOKEN`), `origin` is where from. `refs` are the data of config objects that it consists of;
    without any, it can not be part of a key. `annotation` is what declares that it does not matter.
    """

    what: str
    origin: str
    annotation: str
    refs: tuple[ConfigRef, ...] = ()


def read_ignored(annotations: Json, path: str) -> IgnoredSources:
    """`path` is the field path of the annotations. Raises `Invalid` with the field's path."""
    env, env_from, volumes = (
        read_names(annotations, name, path) for name in ("ignore-env", "ignore-env-from", "ignore-volumes")
    )
    return IgnoredSources(env, env_from, volumes)


def objects_of(value: Any) -> list[Json]:
    """The objects of a list. Kubernetes runs no pod in whose spec there is something else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def containers_of(template: Json) -> Iterator[Json]:
    """All containers of a template, of template defaults or of a pod spec."""
    yield from objects_of([template.get("container"), template.get("script")])
    for kind in ("initContainers", "sidecars", "containers", "ephemeralContainers"):
        yield from objects_of(template.get(kind))
    yield from objects_of(_object(template.get("containerSet")).get("containers"))


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def without_ignored(template: Json, ignored: IgnoredSources) -> Json:
    """The template, or template defaults, without what annotations declare not to change its result."""
    if ignored == IgnoredSources():
        return template
    found = dict(template)
    for kind in ("container", "script"):
        if found.get(kind):
            found[kind] = _container(found[kind], ignored)
    for kind in ("initContainers", "sidecars", "containers"):
        if found.get(kind):
            found[kind] = [_container(each, ignored) for each in objects_of(found[kind])]
    if found.get("volumes"):
        found["volumes"] = _unnamed(found["volumes"], ignored.volumes)
    return found


def _unnamed(value: Any, names: frozenset[str]) -> list[Json]:
    return [each for each in objects_of(value) if str(each.get("name")) not in names]


def _container(container: Json, ignored: IgnoredSources) -> Json:
    found = dict(container)
    if found.get("env"):
        found["env"] = _unnamed(found["env"], ignored.env)
    if found.get("envFrom"):
        found["envFrom"] = [
            s for s in objects_of(found["envFrom"]) if _object_name(s) not in ignored.env_from
        ]
    for field in ("volumeMounts", "volumeDevices"):
        if found.get(field):
            found[field] = _unnamed(found[field], ignored.volumes)
    return {name: value for name, value in found.items() if value or value == container[name]}


def mounted(parts: Sequence[Json]) -> list[str]:
    """The names of the volumes that a container of one of the parts of a pod mounts, each once."""
    mounts = (
        mount.get("name")
        for part in parts
        for container in containers_of(part)
        for field in ("volumeMounts", "volumeDevices")
        for mount in objects_of(container.get(field))
    )
    return list(dict.fromkeys(str(name) for name in mounts))


def sources(
    parts: Sequence[Json], volumes: Mapping[str, Sequence[Json]], ignored: IgnoredSources
) -> list[Source]:
    """What the containers of a pod get. `parts` are its template, defaults and patches without what is ignored, `volumes` what it
    mounts, by name.
    """
    found = [
        source
        for part in parts
        for container in containers_of(part)
        for source in (*_variables(container), *_env_from(container, ignored))
    ]
    for name, named in volumes.items():
        what, annotation = f"its volume {name}", f"ignore-volumes: {name}"
        if not named:
            found.append(Source(what, "a volume that the workflow does not declare", annotation))
        found += [source for volume in named for source in _volume(volume, what, annotation)]
    return found


def by_name(volumes: Iterable[Json]) -> dict[str, tuple[Json, ...]]:
    """Volumes by their names; several may have one."""
    found: dict[str, list[Json]] = {}
    for volume in volumes:
        found.setdefault(str(volume.get("name")), []).append(volume)
    return {name: tuple(each) for name, each in found.items()}


def applied(
    ignored: IgnoredSources, parts: Sequence[Json], volumes: Mapping[str, Sequence[Json]]
) -> IgnoredSources:
    """Those of the ignored names that the parts of a pod have, or the `volumes` that it can mount besides theirs.

    With `envFrom`, variables of any name are possible.
    """
    if ignored == IgnoredSources():
        return ignored
    containers = [container for part in parts for container in containers_of(part)]
    env_from = {_object_name(s) for container in containers for s in objects_of(container.get("envFrom"))}
    env = {str(v.get("name")) for container in containers for v in objects_of(container.get("env"))}
    named = {str(volume.get("name")) for part in parts for volume in objects_of(part.get("volumes"))}
    return IgnoredSources(
        ignored.env if env_from else ignored.env & env,
        ignored.env_from & env_from,
        frozenset(name for name in ignored.volumes if name in named or name in volumes),
    )


def _variables(container: Json) -> Iterator[Source]:
    for variable in objects_of(container.get("env")):
        if variable.get("valueFrom") is None:
            continue
        given = _object(variable["valueFrom"])
        name = variable.get("name")
        what, annotation = f"its variable {name}", f"ignore-env: {name}"
        if any(field in given for field in _POD_FIELDS):
            yield Source(what, "a field of the pod", annotation)
            continue
        selected = {
            kind: given[f"{field}KeyRef"]
            for field, kind in _CONFIG_KINDS.items()
            if f"{field}KeyRef" in given
        }
        if not selected:
            yield Source(what, " and ".join(sorted(map(str, given))) or "nowhere", annotation)
        for kind, selector in selected.items():
            ref = _ref(kind, _object(selector), key=str(_object(selector).get("key") or ""))
            yield Source(what, str(ref.object), annotation, (ref,))


def _env_from(container: Json, ignored: IgnoredSources) -> Iterator[Source]:
    for given in objects_of(container.get("envFrom")):
        prefix = str(given.get("prefix") or "")
        keys = sorted(name.removeprefix(prefix) for name in ignored.env if name.startswith(prefix))
        for field, kind in _CONFIG_KINDS.items():
            if selector := _object(given.get(f"{field}Ref")):
                ref = _ref(kind, selector, without=tuple(keys))
                annotation = f"ignore-env-from: {ref.object.name}"
                yield Source("its envFrom", str(ref.object), annotation, (ref,))


def _object_name(source: Json) -> str:
    """The object that an element of `envFrom` names."""
    named = [_object(source.get(f"{field}Ref")).get("name") for field in _CONFIG_KINDS]
    return next((str(name) for name in named if name), "")


def _volume(volume: Json, what: str, annotation: str) -> Iterator[Source]:
    kinds = sorted(str(field) for field in volume if field != "name") or ["nothing"]
    for kind in kinds:
        given = _object(volume.get(kind))
        if kind in _CONFIG_KINDS:
            yield _volume_source(kind, given, what, annotation)
        elif kind == "projected":
            for projection in objects_of(given.get("sources")):
                for field, inner in projection.items():
                    if field in _CONFIG_KINDS:
                        yield _volume_source(field, _object(inner), what, annotation)
                    else:
                        yield Source(what, f"a projected {field}", annotation)
        elif kind != SCRATCH:
            yield Source(what, f"a {kind}", annotation)


def _volume_source(kind: str, given: Json, what: str, annotation: str) -> Source:
    given = {"name": given.get("secretName"), **given}
    items = objects_of(given.get("items"))
    refs = [_ref(_CONFIG_KINDS[kind], given, key=str(item.get("key") or "")) for item in items]
    refs = refs or [_ref(_CONFIG_KINDS[kind], given)]
    return Source(what, str(refs[0].object), annotation, tuple(refs))


def _ref(kind: str, selector: Json, *, key: str = "", without: tuple[str, ...] = ()) -> ConfigRef:
    name = str(selector.get("name") or "")
    return ConfigRef(ConfigObject(kind, name), key, without, is_optional=bool(selector.get("optional")))
