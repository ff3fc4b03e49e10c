"""The graph: steps and artifacts, and the edges between them.

An artifact's node is its content, by digest, or its object until the content was read. But edges follow objects: a step
that read an object depends on the step that wrote that object, and only if no writer of it is known, on the steps that
wrote the same bytes elsewhere. Otherwise every step that ever wrote an empty file would be upstream of every step that
read one.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from periplus_common.errors import Invalid
from periplus_lineage.objects import parse_object_uri
from periplus_lineage.runs.model import Step
from periplus_model.steps import Artifact, ObjectRef

CACHED_EDGE = "cached"
"""Name of the edge from the producer of some outputs to a step that was served them from the cache."""


class StepKey(NamedTuple):
    """A step of a project."""

    run: str
    path: str

    @property
    def node_id(self) -> str:
        return f"step:{self.run}/{self.path}"


class ArtifactVersion(NamedTuple):
    """The content that an object held at one time. `digest` is None if it is unknown, or not the only known one."""

    object_hash: bytes
    object_uri: str
    digest: bytes | None

    @property
    def node_id(self) -> str:
        """The same for versions of other objects with the same content."""
        return f"artifact:sha256:{self.digest.hex()}" if self.digest else f"artifact:{self.object_uri}"


class ArtifactUsage(NamedTuple):
    """A step that read or wrote an artifact version, and the name of its input or output."""

    step: StepKey
    name: str
    version: ArtifactVersion
    cached: bool = False


class StepDependency(NamedTuple):
    """A step that waited for another or, if `cached`, was served its outputs."""

    step: StepKey
    upstream: StepKey
    cached: bool


class Edge(NamedTuple):
    """An edge between the nodes with these ids, in the direction of the data."""

    source: str
    target: str
    name: str


@dataclass(frozen=True)
class Writer:
    """The first writer of an artifact version."""

    run: str
    output: str
    version: ArtifactVersion
    size_bytes: int
    finished_at: datetime | None


@dataclass(frozen=True)
class Node:
    """A node that a traversal met. A step is None if none of its events was received."""

    id: str
    name: str
    run: str
    depth: int
    step: Step | None = None
    artifact: Artifact | None = None


@dataclass(frozen=True)
class TraversalPage:
    """A page of a traversal."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    next_page_token: str


@dataclass
class Frontier:
    """Steps and artifact versions at the same distance from the start."""

    steps: set[StepKey] = field(default_factory=set)
    versions: set[ArtifactVersion] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.steps or self.versions)


@dataclass(frozen=True)
class StartNode:
    """A start node; exactly one field is set."""

    step: StepKey | None = None
    digest: bytes | None = None
    object_uri: str = ""
    run: str = ""


def parse_start(text: str, field: str) -> StartNode:
    """The node with this id, or "run:<run>". Raises `Invalid`."""
    kind, _, name = text.partition(":")
    run, _, path = name.partition("/")
    if kind == "run" and name:
        return StartNode(run=name)
    if kind == "step" and run and path:
        return StartNode(step=StepKey(run, path))
    if kind == "artifact" and parse_object_uri(name):
        return StartNode(object_uri=name)
    if kind == "artifact" and name.startswith("sha256:"):
        try:
            digest = bytes.fromhex(name.removeprefix("sha256:"))
        except ValueError:
            digest = b""
        if len(digest) == 32:
            return StartNode(digest=digest)
    raise Invalid(
        f"is not a node id: {text[:100]!r}",
        field=field,
        reason="NODE_INVALID",
        fix="write run:<run>, step:<run>/<path>, artifact:sha256:<digest> or artifact:s3://<bucket>/<key>",
    )


def artifact_of(name: str, version: ArtifactVersion, size_bytes: int) -> Artifact:
    """The artifact version as an artifact with this name."""
    return Artifact(
        name=name,
        object=parse_object_uri(version.object_uri) or ObjectRef(version.object_uri),
        digest=f"sha256:{version.digest.hex()}" if version.digest else "",
        size_bytes=size_bytes,
    )
