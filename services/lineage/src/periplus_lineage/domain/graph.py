"""The graph: steps and artifacts, and how they hang together.

An artifact's node is its contents, by digest, and until somebody has read them its place. But edges follow places: a
step that read an object hangs on the step that wrote that very object, and only where nobody is known to have written
it, on whoever wrote the same bytes elsewhere. Else every step that ever wrote an empty file would be an ancestor of
every step that read one.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from periplus_common.errors import Invalid
from periplus_lineage.domain.run import Artifact, Step

CACHED = "cached"
"""The name of an edge from the step that made the outputs to the step that has them from the cache."""


class StepKey(NamedTuple):
    """A step in the graph."""

    run: str
    path: str

    @property
    def id(self) -> str:
        """Its node id."""
        return f"step:{self.run}/{self.path}"


class Instance(NamedTuple):
    """Some contents at a place. Without a digest they are unknown, or the place was overwritten since."""

    place: bytes
    object: str
    digest: bytes | None

    @property
    def id(self) -> str:
        """Its node id, which it shares with the same contents at other places."""
        return f"artifact:sha256:{self.digest.hex()}" if self.digest else f"artifact:{self.object}"


class Flow(NamedTuple):
    """An artifact at a step."""

    step: StepKey
    name: str
    instance: Instance
    cached: bool = False


class Link(NamedTuple):
    """A step that waited for another, or has its outputs from it."""

    step: StepKey
    source: StepKey
    cached: bool


class Edge(NamedTuple):
    """An edge between nodes, in the direction of the data."""

    source: str
    target: str
    name: str


@dataclass(frozen=True)
class Origin:
    """Who made an artifact first, as far as its own places tell."""

    run: str
    name: str
    instance: Instance
    size: int
    at: datetime | None


@dataclass(frozen=True)
class Node:
    """A node of a walk, with what is known of it."""

    id: str
    name: str
    run: str
    depth: int
    step: Step | None = None
    artifact: Artifact | None = None


@dataclass(frozen=True)
class Walked:
    """A page of a walk."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    token: str


@dataclass
class Frontier:
    """Steps and artifacts at one distance from the start."""

    steps: set[StepKey] = field(default_factory=set)
    instances: set[Instance] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.steps or self.instances)


@dataclass(frozen=True)
class Start:
    """What a walk starts from: exactly one field is set."""

    step: StepKey | None = None
    digest: bytes | None = None
    object: str = ""
    run: str = ""


def start(text: str, field: str) -> Start:
    """What a node id, or "run:<run>", names. Raises `Invalid`."""
    kind, _, rest = text.partition(":")
    run, _, path = rest.partition("/")
    if kind == "run" and rest:
        return Start(run=rest)
    if kind == "step" and run and path:
        return Start(step=StepKey(run, path))
    if kind == "artifact" and rest.startswith("s3://") and object_key(rest):
        return Start(object=rest)
    if kind == "artifact" and rest.startswith("sha256:"):
        try:
            digest = bytes.fromhex(rest.removeprefix("sha256:"))
        except ValueError:
            digest = b""
        if len(digest) == 32:
            return Start(digest=digest)
    raise Invalid(
        f"no node: {text[:100]!r}",
        field=field,
        reason="NODE_INVALID",
        fix="name run:<run>, step:<run>/<path>, artifact:sha256:<digest> or artifact:s3://<bucket>/<key>",
    )


def object_name(endpoint: str, bucket: str, key: str) -> str:
    """A place, as node ids write it. `endpoint` is empty for the default store: no bucket's name holds an "@"."""
    return f"s3://{bucket}{'@' + endpoint if endpoint else ''}/{key}"


def place(project: str, name: str) -> bytes:
    """The key of a place: a hash, as names are long and their index is large."""
    return hashlib.blake2b(f"{project}\0{name}".encode(), digest_size=16).digest()


def object_key(name: str) -> str:
    """The key of an object, from its name."""
    return name.removeprefix("s3://").partition("/")[2]


def artifact(name: str, instance: Instance, size: int) -> Artifact:
    """An artifact, from its place's name."""
    store, _, key = instance.object.removeprefix("s3://").partition("/")
    bucket, _, endpoint = store.partition("@")
    digest = f"sha256:{instance.digest.hex()}" if instance.digest else ""
    return Artifact(name, endpoint, bucket, key, digest, size)
