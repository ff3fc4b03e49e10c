"""Traversal of the graph: from start nodes upstream or downstream, nearest nodes first."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from periplus_common.errors import NotFound, Refused
from periplus_lineage.graph.model import (
    CACHED_EDGE,
    ArtifactUsage,
    ArtifactVersion,
    Edge,
    Frontier,
    Node,
    StartNode,
    StepDependency,
    StepKey,
    TraversalPage,
    Writer,
    artifact_of,
    parse_start,
)
from periplus_lineage.objects import object_hash, object_key
from periplus_lineage.page_tokens import PageTokens
from periplus_lineage.runs.model import Step


@dataclass(frozen=True)
class TraversalLimits:
    """Defaults and bounds of Traverse."""

    default_page_size: int = 1_000
    default_depth: int = 100
    max_nodes: int = 100_000
    max_page_edges: int = 50_000


class GraphStore(Protocol):
    """The stored edges of the graph. Every method raises `Refused` for an answer of too many rows."""

    async def step_exists(self, project: str, step: StepKey) -> bool:
        """Whether an event of the step was received."""

    async def upstream_steps(self, project: str, steps: Collection[StepKey]) -> list[StepDependency]:
        """The steps that these waited for or were served the outputs of, unless an artifact connects the two."""

    async def downstream_steps(self, project: str, steps: Collection[StepKey]) -> list[StepDependency]:
        """The steps that waited for these or were served their outputs, unless an artifact connects the two."""

    async def usages(self, project: str, steps: Collection[StepKey], *, outputs: bool) -> list[ArtifactUsage]:
        """The outputs, or the inputs, of the steps."""

    async def run_outputs(self, project: str, run: str) -> list[ArtifactUsage]:
        """The output artifacts of all steps of a run."""

    async def steps_without_artifacts(self, project: str, run: str) -> list[StepKey]:
        """The steps of a run that have no output artifact."""

    async def versions_of_object(self, object_hash: bytes) -> list[ArtifactVersion]:
        """The contents that an object is known to have held."""

    async def versions_with_digest(self, project: str, digest: bytes) -> list[ArtifactVersion]:
        """The objects that are known to have held a content."""

    async def writers(
        self, project: str, versions: Collection[ArtifactVersion]
    ) -> list[tuple[ArtifactVersion, ArtifactUsage]]:
        """The steps that wrote the versions."""

    async def readers(
        self, project: str, versions: Collection[ArtifactVersion]
    ) -> list[tuple[ArtifactVersion, ArtifactUsage]]:
        """The steps that read the versions."""

    async def first_writers(self, versions: Collection[ArtifactVersion]) -> dict[ArtifactVersion, Writer]:
        """The first writers of the versions, without those of which no writer is known."""


class StepStore(Protocol):
    """The stored steps."""

    async def steps(self, project: str, keys: Collection[StepKey]) -> Sequence[Step]:
        """Those of the steps of which an event was received, in any order."""


@dataclass
class Visited:
    """The nodes and edges that a traversal has met."""

    depths: dict[str, int] = field(default_factory=dict)
    """By node id."""
    steps: dict[str, StepKey] = field(default_factory=dict)
    versions: dict[str, set[ArtifactVersion]] = field(default_factory=dict)
    edges: set[Edge] = field(default_factory=set)

    def add(self, frontier: Frontier, depth: int) -> Frontier:
        """Add what was met at a depth, and return what of it is new."""
        new = Frontier()
        for step in frontier.steps:
            if step.node_id not in self.depths:
                self.depths[step.node_id] = depth
                self.steps[step.node_id] = step
                new.steps.add(step)
        for version in frontier.versions:
            present = self.versions.setdefault(version.node_id, set())
            if version not in present:
                # The same content in another object is the same node, but has other writers.
                self.depths.setdefault(version.node_id, depth)
                present.add(version)
                new.versions.add(version)
        return new


Position = tuple[int, str]
"""Depth and id of a node: where a page ends."""


class GraphQueries:
    """Answers queries about the graph."""

    def __init__(
        self,
        graph: GraphStore,
        steps: StepStore,
        page_tokens: PageTokens,
        limits: TraversalLimits = TraversalLimits(),
    ) -> None:
        self._graph = graph
        self._steps = steps
        self._page_tokens = page_tokens
        self._limits = limits

    async def traverse(
        self,
        project: str,
        starts: Sequence[str],
        *,
        upstream: bool,
        depth: int = 0,
        page_size: int = 0,
        page_token: str = "",
    ) -> TraversalPage:
        """A page of the nodes within `depth` edges of the starts, by distance and id, and the edges between them.

        Raises `NotFound` for a start that does not exist, `Invalid` for one that is not a node id and for a token of
        another traversal, `Refused` for a traversal with too many nodes.
        """
        depth, page_size = depth or self._limits.default_depth, page_size or self._limits.default_page_size
        query = ("traverse", project, list(starts), depth, upstream)
        after: Position = (-1, "")
        if page_token:
            position = self._page_tokens.read(query, page_token)
            after = (int(str(position[0])), str(position[1]))
        frontier = await self._start(project, starts)
        visited = Visited()
        page = await self._visit(
            project, frontier, visited, depth=depth, page_size=page_size, after=after, upstream=upstream
        )
        has_more = len(page) > page_size
        page = page[:page_size]
        return TraversalPage(
            await self._nodes(project, visited, page),
            self._page_edges(visited, page, after),
            self._page_tokens.issue(query, page[-1]) if has_more else "",
        )

    async def _start(self, project: str, starts: Sequence[str]) -> Frontier:
        frontier = Frontier()
        for index, text in enumerate(starts):
            field_path = f"start[{index}]"
            found = await self._resolve(project, parse_start(text, field_path))
            if not found:
                raise NotFound(
                    f"no event of {text!r} was received (yet)", field=field_path, reason="NODE_UNKNOWN"
                )
            frontier.steps |= found.steps
            frontier.versions |= found.versions
        return frontier

    async def _resolve(self, project: str, start: StartNode) -> Frontier:
        graph = self._graph
        if start.step:
            return Frontier(steps={start.step} if await graph.step_exists(project, start.step) else set())
        if start.run:
            outputs = await graph.run_outputs(project, start.run)
            others = await graph.steps_without_artifacts(project, start.run)
            return Frontier(steps=set(others), versions={usage.version for usage in outputs})
        if start.digest:
            return Frontier(versions=set(await graph.versions_with_digest(project, start.digest)))
        return Frontier(versions=set(await graph.versions_of_object(object_hash(project, start.object_uri))))

    async def _visit(
        self,
        project: str,
        frontier: Frontier,
        visited: Visited,
        *,
        depth: int,
        page_size: int,
        after: Position,
        upstream: bool,
    ) -> list[Position]:
        """Breadth first, until a page is full: the nodes after the position, in order."""
        level = 0
        page: list[Position] = []
        while (new := visited.add(frontier, level)) and level <= depth and len(page) <= page_size:
            if len(visited.depths) > self._limits.max_nodes:
                raise Refused(
                    f"the traversal meets more than {self._limits.max_nodes:,} nodes",
                    reason="TRAVERSAL_TOO_LARGE",
                    fix="use a smaller depth",
                )
            ids = {step.node_id for step in new.steps} | {version.node_id for version in new.versions}
            page += sorted(
                (level, id_) for id_ in ids if visited.depths[id_] == level and (level, id_) > after
            )
            frontier = await self._neighbours(project, new, visited, upstream=upstream)
            level += 1
        return page

    async def _neighbours(
        self, project: str, frontier: Frontier, visited: Visited, *, upstream: bool
    ) -> Frontier:
        """The nodes one edge from the frontier. All edges are added to `visited`, also those to nodes met before."""
        graph = self._graph
        steps, versions = frontier.steps, frontier.versions
        dependencies_of = graph.upstream_steps if upstream else graph.downstream_steps
        users_of = graph.writers if upstream else graph.readers
        # Concurrently, as a traversal takes one round trip for each level.
        usages, dependencies, users = await asyncio.gather(
            graph.usages(project, steps, outputs=not upstream) if steps else _nothing(),
            dependencies_of(project, steps) if steps else _nothing(),
            users_of(project, versions) if versions else _nothing(),
        )
        found = Frontier()
        for usage in usages:
            found.versions.add(usage.version)
            visited.edges.add(_usage_edge(usage, usage.version, is_output=not upstream))
        for dependency in dependencies:
            found.steps.add(dependency.upstream if upstream else dependency.step)
            name = CACHED_EDGE if dependency.cached else ""
            visited.edges.add(Edge(dependency.upstream.node_id, dependency.step.node_id, name))
        for version, usage in users:
            found.steps.add(usage.step)
            visited.edges.add(_usage_edge(usage, version, is_output=upstream))
        return found

    async def _nodes(self, project: str, visited: Visited, page: Iterable[Position]) -> tuple[Node, ...]:
        ids = [id_ for _, id_ in page]
        keys = [visited.steps[id_] for id_ in ids if id_ in visited.steps]
        versions = [version for id_ in ids for version in visited.versions.get(id_, ())]
        found, writers = await asyncio.gather(
            self._steps.steps(project, keys), self._graph.first_writers(versions)
        )
        steps = {StepKey(step.run, step.path): step for step in found}

        def node(id_: str) -> Node:
            if id_ in visited.steps:
                key = visited.steps[id_]
                return Node(id_, key.path, key.run, visited.depths[id_], step=steps.get(key))
            return _artifact_node(id_, visited, writers)

        return tuple(node(id_) for id_ in ids)

    def _page_edges(self, visited: Visited, page: Sequence[Position], after: Position) -> tuple[Edge, ...]:
        """The edges between a node of the page and a node of this or an earlier page."""
        on_page = {id_ for _, id_ in page}
        earlier = {id_ for id_, depth in visited.depths.items() if (depth, id_) <= after}
        sent = on_page | earlier
        edges = [
            edge
            for edge in visited.edges
            if edge.source in sent
            and edge.target in sent
            and (edge.source in on_page or edge.target in on_page)
        ]
        if len(edges) > self._limits.max_page_edges:
            raise Refused(
                f"the page has more than {self._limits.max_page_edges:,} edges",
                field="page_size",
                reason="PAGE_TOO_LARGE",
                fix="use a smaller page_size",
            )
        return tuple(sorted(edges))


def _usage_edge(usage: ArtifactUsage, version: ArtifactVersion, *, is_output: bool) -> Edge:
    if is_output:
        return Edge(usage.step.node_id, version.node_id, usage.name)
    return Edge(version.node_id, usage.step.node_id, usage.name)


async def _nothing() -> list[Any]:
    return []


def _artifact_node(id_: str, visited: Visited, writers: dict[ArtifactVersion, Writer]) -> Node:
    """A node with the name of the first writer's output or, if no writer is known, of the object."""
    versions = sorted(visited.versions[id_], key=lambda version: version.object_uri)
    candidates = [writers[version] for version in versions if version in writers]
    if not candidates:
        name = object_key(versions[0].object_uri).rpartition("/")[2]
        return Node(id_, name, "", visited.depths[id_], artifact=artifact_of(name, versions[0], 0))
    first = min(
        candidates,
        key=lambda writer: (
            writer.finished_at is None,
            writer.finished_at.timestamp() if writer.finished_at else 0,
            writer.run,
            writer.version.object_uri,
        ),
    )
    artifact = artifact_of(first.output, first.version, first.size_bytes)
    return Node(id_, first.output, first.run, visited.depths[id_], artifact=artifact)
