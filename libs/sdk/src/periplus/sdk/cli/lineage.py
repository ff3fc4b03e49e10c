"""`periplus lineage`: what made an artifact, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from periplus.sdk.cli.options import LATEST, Format, Output, Project, client, resolve, width
from periplus.sdk.cli.text import line

if TYPE_CHECKING:
    from periplus.lineage.v1 import lineage_pb2 as pb
    from periplus.sdk.client import Client

UP, DOWN = 1, 2
STEP = 1
PAGE = 1000
CODE = "periplus-code"
"""The archive that brings the code of SDK steps: every step has it, and it tells nothing of where data come from."""

Node = Annotated[
    str,
    typer.Argument(
        help="A run (or @latest), a step as RUN/STEP, an artifact as sha256:… or s3://bucket/key."
    ),
]
Depth = Annotated[int, typer.Option("--depth", min=1, max=1000, help="How many edges at most.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many nodes at most.")]


def up(
    node: Node, depth: Depth = 100, limit: Limit = PAGE, project: Project = "", output: Output = Format.TEXT
) -> None:
    """What made this: the steps and artifacts that it comes from.

    \b
    Examples:
      periplus lineage up @latest
      periplus lineage up digits-x7k2p/register --depth 2
    """
    _walk(node, UP, depth, limit, project, output)


def down(
    node: Node, depth: Depth = 100, limit: Limit = PAGE, project: Project = "", output: Output = Format.TEXT
) -> None:
    """What came of this: the steps that used it, and what they made.

    \b
    Examples:
      periplus lineage down digits-x7k2p/ingest
      periplus lineage down sha256:4e07…
    """
    _walk(node, DOWN, depth, limit, project, output)


def _walk(node: str, direction: int, depth: int, limit: int, project: str, output: Format) -> None:
    with client(project) as services:
        start = _named(services, node)
        nodes, edges, more = _pages(services, start, direction, depth, limit)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, show

        told: dict[str, Any] = {"start": start, "nodes": [document(one) for one in nodes]}
        show(told | {"edges": [document(one) for one in edges], "more": more})
        return
    for text in tree(nodes, edges, direction):
        print(line(text, width()))
    if more:
        print(f"… and more: --limit {limit * 10}")


def _named(services: Client, node: str) -> str:
    """The node's id, from the shorter forms that people type."""
    if node.startswith(("run:", "step:", "artifact:")):
        return node
    if node.startswith(("sha256:", "s3://")):
        return f"artifact:{node}"
    run, slash, step = node.partition("/")
    if run.startswith(LATEST):
        run = resolve(services, run)
    return f"step:{run}/{step}" if slash else f"run:{run}"


def _pages(
    services: Client, start: str, direction: int, depth: int, limit: int
) -> tuple[list[pb.Node], list[pb.Edge], bool]:
    nodes: list[pb.Node] = []
    edges: list[pb.Edge] = []
    page = ""
    while len(nodes) < limit:
        size = min(10_000, limit - len(nodes))
        answer = services.traverse(start, direction, depth=depth, size=size, page=page)
        nodes += answer.nodes
        edges += answer.edges
        page = answer.next_page_token
        if not page:
            break
    return nodes, edges, bool(page)


def tree(nodes: list[pb.Node], edges: list[pb.Edge], direction: int) -> list[str]:
    """The graph as a tree from its starts; what stands further up already is named and not unfolded again."""
    known = {node.id: node for node in nodes if node.name != CODE}
    next_: dict[str, list[tuple[str, str]]] = {}
    for edge in edges:
        here, there = (getattr(edge, "from"), edge.to)[:: -1 if direction == UP else 1]
        if here in known and there in known:
            next_.setdefault(here, []).append((there, edge.name))
    lines: list[str] = []
    seen: set[str] = set()
    reached = {there for found in next_.values() for there, _ in found}
    starts = [node.id for node in known.values() if node.depth == 0] or [n for n in known if n not in reached]
    # A stack, as a chain may be longer than Python's own.
    stack = [(start, "", 0) for start in reversed(starts)]
    while stack:
        identity, name, indent = stack.pop()
        again = identity in seen and bool(next_.get(identity))
        lines.append("  " * indent + _label(known[identity], name) + (" (see above)" if again else ""))
        if identity in seen:
            continue
        seen.add(identity)
        stack += [(there, via, indent + 1) for there, via in reversed(next_.get(identity, []))]
    return lines


def _label(node: pb.Node, name: str) -> str:
    if node.kind == STEP:
        from periplus.sdk.cli.document import phase_of_step

        phase = f"  {phase_of_step(node.step.phase)}" if node.HasField("step") else ""
        return f"{line(node.run)}/{line(node.name)}{phase}"
    digest = node.artifact.digest.removeprefix("sha256:")[:12]
    where = f"sha256:{digest}" if digest else node.artifact.object.key or node.id.removeprefix("artifact:")
    return f"[{line(name or node.name)}] {line(where)}"


def add(app: typer.Typer) -> None:
    """Put the commands of this file on the application."""
    group = typer.Typer(
        help="What made an artifact (up), and what came of it (down).",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("up")(up)
    group.command("down")(down)
    app.add_typer(group, name="lineage")
