"""`periplus lineage` and `periplus diff`: where data come from, what uses them, and how two runs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from periplus.sdk.cli.options import LATEST, Format, Output, Project, client, resolve, width
from periplus.sdk.cli.terminal import say
from periplus.sdk.cli.text import changed_value, one_line, table

if TYPE_CHECKING:
    from periplus.lineage.v1 import lineage_pb2 as pb
    from periplus.lineage.v1.lineage_pb2 import RunChange
    from periplus.sdk.client import Client

SNAPSHOT = "snapshot"
"""The field of RunChange that holds the snapshots of the runs."""

UP, DOWN = 1, 2
STEP = 1
DEFAULT_LIMIT = 1000
MAX_PAGE_SIZE = 10_000
CODE = "periplus-code"
"""The archive with the code of SDK steps: an input of every step, and no data."""

Node = Annotated[
    str,
    typer.Argument(
        help="A run (or @latest), a step as RUN/STEP, an artifact as sha256:… or s3://bucket/key."
    ),
]
Depth = Annotated[
    int, typer.Option("--depth", min=1, max=1000, help="Follow at most this many edges from the start.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most this many nodes.")]


def up(
    node: Node,
    depth: Depth = 100,
    limit: Limit = DEFAULT_LIMIT,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Show the steps and artifacts that something was made from.

    \b
    Examples:
      periplus lineage up @latest
      periplus lineage up digits-x7k2p/register --depth 2
    """
    _traverse(node, UP, depth, limit, project, output)


def down(
    node: Node,
    depth: Depth = 100,
    limit: Limit = DEFAULT_LIMIT,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Show the steps and artifacts that were made from something.

    \b
    Examples:
      periplus lineage down digits-x7k2p/ingest
      periplus lineage down sha256:4e07…
    """
    _traverse(node, DOWN, depth, limit, project, output)


def _traverse(node: str, direction: int, depth: int, limit: int, project: str, output: Format) -> None:
    with client(project) as services:
        start = _node_id(services, node)
        nodes, edges, more = _pages(services, start, direction, depth, limit)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        graph: dict[str, Any] = {"start": start, "nodes": [document(one) for one in nodes]}
        print_json(graph | {"edges": [document(one) for one in edges], "more": more})
        return
    say(*tree(nodes, edges, direction), width=width())
    if more:
        say(f"… and more: --limit {limit * 10}")


def _node_id(services: Client, node: str) -> str:
    """The id of a node, from one of the short forms of the command line."""
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
        size = min(MAX_PAGE_SIZE, limit - len(nodes))
        response = services.traverse(start, direction, depth=depth, size=size, page=page)
        nodes += response.nodes
        edges += response.edges
        page = response.next_page_token
        if not page:
            break
    return nodes, edges, bool(page)


def tree(nodes: list[pb.Node], edges: list[pb.Edge], direction: int) -> list[str]:
    """The graph as a tree from its start nodes; the children of a node are listed where it first appears only."""
    by_id = {node.id: node for node in nodes if node.name != CODE}
    children: dict[str, list[tuple[str, str]]] = {}
    for edge in edges:
        here, there = (getattr(edge, "from"), edge.to)[:: -1 if direction == UP else 1]
        if here in by_id and there in by_id:
            children.setdefault(here, []).append((there, edge.name))
    lines: list[str] = []
    listed: set[str] = set()
    reached = {there for found in children.values() for there, _ in found}
    starts = [node.id for node in by_id.values() if node.depth == 0] or [n for n in by_id if n not in reached]
    # An explicit stack, as a chain may be longer than Python's recursion limit.
    stack = [(start, "", 0) for start in reversed(starts)]
    while stack:
        identity, name, indent = stack.pop()
        is_repeated = identity in listed and bool(children.get(identity))
        lines.append("  " * indent + _label(by_id[identity], name) + (" (see above)" if is_repeated else ""))
        if identity in listed:
            continue
        listed.add(identity)
        stack += [(there, via, indent + 1) for there, via in reversed(children.get(identity, []))]
    return lines


def _label(node: pb.Node, name: str) -> str:
    if node.kind == STEP:
        from periplus.sdk.cli.document import step_phase_name

        phase = f"  {step_phase_name(node.step.phase)}" if node.HasField("step") else ""
        return f"{one_line(node.run)}/{one_line(node.name)}{phase}"
    digest = node.artifact.digest.removeprefix("sha256:")[:12]
    where = f"sha256:{digest}" if digest else node.artifact.object.key or node.id.removeprefix("artifact:")
    return f"[{one_line(name or node.name)}] {one_line(where)}"


def diff(
    old: Annotated[str, typer.Argument(help="The older run: its id, or @latest~1.")],
    new: Annotated[str, typer.Argument(help="The newer run.")] = "@latest",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Compare two runs. Shows differences of parameters, steps, inputs, outputs, and of the claimed code and environment.

    \b
    Examples:
      periplus diff @latest~1 @latest
      periplus diff digits-x7k2p digits-9q4md -o json
    """
    with client(project) as services:
        before, after = resolve(services, old), resolve(services, new)
        changes = list(services.diff_runs(before, after).changes)
        claims = _snapshot_changes(services, changes)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        runs: dict[str, Any] = {"old": before, "new": after}
        print_json(
            runs | {"changes": [document(c) for c in changes], "snapshot": [document(c) for c in claims]}
        )
        return
    if not changes:
        say(f"{before} and {after} do not differ")
        return
    rows = [(c.step or "(run)", c.field, changed_value(c, "old"), changed_value(c, "new")) for c in changes]
    say(*table(("STEP", "FIELD", one_line(before), one_line(after)), rows, width()))
    if claims:
        lines = [(c.field, changed_value(c, "old"), changed_value(c, "new")) for c in claims]
        say("", *table(("CODE AND ENVIRONMENT", "OLD", "NEW"), lines, width()))


def _snapshot_changes(services: Client, changes: list[RunChange]) -> list[Any]:
    """The differences between the snapshots of the runs, if both have one."""
    for change in changes:
        if not change.step and change.field == SNAPSHOT and change.old and change.new:
            return list(services.diff_snapshots(change.old, change.new).changes)
    return []


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    group = typer.Typer(
        help="Where data come from (up), and what was made from them (down).",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("up")(up)
    group.command("down")(down)
    app.add_typer(group, name="lineage")
    app.command("diff")(diff)
