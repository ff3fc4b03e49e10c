"""The graph and the differences of runs as the contract tells them."""

from collections.abc import Iterable

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus_lineage.domain.diff import Difference
from periplus_lineage.domain.graph import Node, Walked
from periplus_lineage.wire import noun
from periplus_lineage.wire.answer import to_steps


def to_walked(known: Walked) -> pb.TraverseResponse:
    """A page of a walk."""
    steps = iter(to_steps(node.step for node in known.nodes if node.step))
    edges = [pb.Edge(**{"from": edge.source, "to": edge.target, "name": edge.name}) for edge in known.edges]
    nodes = [_node(node, next(steps) if node.step else None) for node in known.nodes]
    return pb.TraverseResponse(nodes=nodes, edges=edges, next_page_token=known.token)


def _node(known: Node, step: pb.Step | None) -> pb.Node:
    return pb.Node(
        id=known.id,
        kind=pb.NODE_KIND_ARTIFACT if known.artifact else pb.NODE_KIND_STEP,
        name=known.name,
        run=known.run,
        depth=known.depth,
        step=step,
        artifact=noun.to_artifact(known.artifact) if known.artifact else None,
    )


def to_changes(known: Iterable[Difference]) -> pb.DiffRunsResponse:
    """How two runs differ."""
    return pb.DiffRunsResponse(
        changes=[pb.RunChange(step=d.step, field=d.field, old=d.old, new=d.new) for d in known]
    )
