"""Walks: from some nodes up to what made them, or down to what came of them, nearest first."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from periplus_common.errors import NotFound, Refused
from periplus_lineage.domain import graph
from periplus_lineage.domain.graph import (
    CACHED,
    Edge,
    Frontier,
    Instance,
    Node,
    Origin,
    Start,
    StepKey,
    Walked,
)
from periplus_lineage.domain.page import Pages
from periplus_lineage.service.ports import Flows, Links, Steps

_PAGE = 1_000
_DEPTH = 100
_ROOM = 100_000  # nodes that a walk may meet
_EDGES = 50_000  # of a page


@dataclass
class Trail:
    """What a walk has met so far."""

    depth: dict[str, int] = field(default_factory=dict)
    steps: dict[str, StepKey] = field(default_factory=dict)
    instances: dict[str, set[Instance]] = field(default_factory=dict)
    edges: set[Edge] = field(default_factory=set)

    def enter(self, met: Frontier, depth: int) -> Frontier:
        """Note what was met at a depth, and return what of it is new."""
        fresh = Frontier()
        for step in met.steps:
            if step.id not in self.depth:
                self.depth[step.id] = depth
                self.steps[step.id] = step
                fresh.steps.add(step)
        for instance in met.instances:
            known = self.instances.setdefault(instance.id, set())
            if instance not in known:
                # The same bytes at another place have other makers, though they are the same node.
                self.depth.setdefault(instance.id, depth)
                known.add(instance)
                fresh.instances.add(instance)
        return fresh


class Walks:
    """Walks the graph."""

    def __init__(self, flows: Flows, links: Links, steps: Steps, pages: Pages) -> None:
        self._flows = flows
        self._links = links
        self._steps = steps
        self._pages = pages

    async def walk(
        self, project: str, starts: Sequence[str], depth: int, size: int, token: str, *, up: bool
    ) -> Walked:
        """A page of the nodes within `depth` edges of the starts, by distance and id, and the edges between them.

        Raises `NotFound` where nothing is known of a start, `Invalid` for a start that is none or a token of
        another walk, `Refused` where the walk would meet too many nodes.
        """
        depth, size = depth or _DEPTH, size or _PAGE
        question = ("walk", project, list(starts), depth, up)
        after = self._pages.place(question, token) if token else None
        place = (int(str(after[0])), str(after[1])) if after else (-1, "")
        met = Frontier()
        for at, text in enumerate(starts):
            field_path = f"start[{at}]"
            found = await self._begin(project, graph.start(text, field_path))
            if not found:
                raise NotFound(f"nothing is known of {text!r} (yet)", field=field_path, reason="NODE_UNKNOWN")
            met.steps |= found.steps
            met.instances |= found.instances
        trail = Trail()
        page = await self._follow(project, met, trail, depth, size, place, up=up)
        more = len(page) > size
        page = page[:size]
        nodes = await self._described(project, trail, page)
        return Walked(
            nodes,
            _between(trail, page, place),
            self._pages.token(question, (page[-1][0], page[-1][1])) if more else "",
        )

    async def _begin(self, project: str, start: Start) -> Frontier:
        if start.step:
            return Frontier(steps={start.step} if await self._links.known(project, start.step) else set())
        if start.run:
            made = await self._flows.outputs(project, start.run)
            barren = await self._flows.barren(project, start.run)
            return Frontier(steps=set(barren), instances={flow.instance for flow in made})
        if start.digest:
            return Frontier(instances=set(await self._flows.of(project, start.digest)))
        return Frontier(instances=set(await self._flows.at([graph.place(project, start.object)])))

    async def _follow(
        self,
        project: str,
        met: Frontier,
        trail: Trail,
        depth: int,
        size: int,
        place: tuple[int, str],
        *,
        up: bool,
    ) -> list[tuple[int, str]]:
        """Meet nodes level by level until a page is full, and return what comes after `place`, in order."""
        level = 0
        page: list[tuple[int, str]] = []
        while (frontier := trail.enter(met, level)) and level <= depth and len(page) <= size:
            if len(trail.depth) > _ROOM:
                raise Refused(
                    f"the walk meets more than {_ROOM:,} nodes",
                    reason="WALK_TOO_LARGE",
                    fix="walk with a smaller depth",
                )
            ids = {step.id for step in frontier.steps} | {i.id for i in frontier.instances}
            page += sorted((level, id_) for id_ in ids if trail.depth[id_] == level and (level, id_) > place)
            met = await self._next(project, frontier, trail, up=up)
            level += 1
        return page

    async def _next(self, project: str, frontier: Frontier, trail: Trail, *, up: bool) -> Frontier:
        """What lies one edge from the frontier. The edges are noted whether or not they lead to anything new."""
        met = Frontier()
        hang = self._flows.makers if up else self._flows.users
        ask = self._links.sources if up else self._links.followers
        # Side by side: a walk is as slow as it is deep, and each answer takes its time to come.
        flows, links, hung = await asyncio.gather(
            self._flows.flows(project, frontier.steps, made=not up) if frontier.steps else _nothing(),
            ask(project, frontier.steps) if frontier.steps else _nothing(),
            hang(project, frontier.instances) if frontier.instances else _nothing(),
        )
        for flow in flows:
            met.instances.add(flow.instance)
            ends = (flow.instance.id, flow.step.id) if up else (flow.step.id, flow.instance.id)
            trail.edges.add(Edge(*ends, flow.name))
        for link in links:
            met.steps.add(link.source if up else link.step)
            trail.edges.add(Edge(link.source.id, link.step.id, CACHED if link.cached else ""))
        for instance, flow in hung:
            met.steps.add(flow.step)
            ends = (flow.step.id, instance.id) if up else (instance.id, flow.step.id)
            trail.edges.add(Edge(*ends, flow.name))
        return met

    async def _described(
        self, project: str, trail: Trail, page: Iterable[tuple[int, str]]
    ) -> tuple[Node, ...]:
        ids = [id_ for _, id_ in page]
        keys = [trail.steps[id_] for id_ in ids if id_ in trail.steps]
        instances = [i for id_ in ids for i in trail.instances.get(id_, ())]
        found, origins = await asyncio.gather(
            self._steps.steps(project, keys), self._flows.origins(instances)
        )
        steps = {StepKey(s.run, s.path): s for s in found}

        def node(id_: str) -> Node:
            if id_ in trail.steps:
                key = trail.steps[id_]
                return Node(id_, key.path, key.run, trail.depth[id_], step=steps.get(key))
            return _artifact(id_, trail, origins)

        return tuple(node(id_) for id_ in ids)


async def _nothing() -> list[Any]:
    return []


def _artifact(id_: str, trail: Trail, origins: dict[Instance, Origin]) -> Node:
    """An artifact's node: named by who made it first, and where nobody is known to, by its place."""
    instances = sorted(trail.instances[id_], key=lambda i: i.object)
    made = [origins[i] for i in instances if i in origins]
    if not made:
        name = graph.object_key(instances[0].object).rpartition("/")[2]
        return Node(id_, name, "", trail.depth[id_], artifact=graph.artifact(name, instances[0], 0))
    first = min(made, key=lambda o: (o.at is None, o.at.timestamp() if o.at else 0, o.run, o.instance.object))
    artifact = graph.artifact(first.name, first.instance, first.size)
    return Node(id_, first.name, first.run, trail.depth[id_], artifact=artifact)


def _between(trail: Trail, page: Sequence[tuple[int, str]], place: tuple[int, str]) -> tuple[Edge, ...]:
    """The edges between a node of the page and one of it or of an earlier page."""
    here = {id_ for _, id_ in page}
    earlier = {id_ for id_, depth in trail.depth.items() if (depth, id_) <= place}
    known = here | earlier
    edges = [
        edge
        for edge in trail.edges
        if edge.source in known and edge.target in known and (edge.source in here or edge.target in here)
    ]
    if len(edges) > _EDGES:
        raise Refused(
            f"the page holds more than {_EDGES:,} edges",
            field="page_size",
            reason="PAGE_TOO_LARGE",
            fix="ask for smaller pages",
        )
    return tuple(sorted(edges))
