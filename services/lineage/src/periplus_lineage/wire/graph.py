"""Pages of a traversal and differences of runs as responses."""

from collections.abc import Iterable

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus_lineage.graph.model import Node, TraversalPage
from periplus_lineage.runs.diff import Difference
from periplus_lineage.wire.runs import encode_steps
from periplus_model import codec


def encode_traversal_page(page: TraversalPage) -> pb.TraverseResponse:
    steps = iter(encode_steps(node.step for node in page.nodes if node.step))
    edges = [pb.Edge(**{"from": edge.source, "to": edge.target, "name": edge.name}) for edge in page.edges]
    nodes = [_encode_node(node, next(steps) if node.step else None) for node in page.nodes]
    return pb.TraverseResponse(nodes=nodes, edges=edges, next_page_token=page.next_page_token)


def _encode_node(node: Node, step: pb.Step | None) -> pb.Node:
    return pb.Node(
        id=node.id,
        kind=pb.NODE_KIND_ARTIFACT if node.artifact else pb.NODE_KIND_STEP,
        name=node.name,
        run=node.run,
        depth=node.depth,
        step=step,
        artifact=codec.encode_artifact(node.artifact) if node.artifact else None,
    )


def encode_differences(differences: Iterable[Difference]) -> pb.DiffRunsResponse:
    return pb.DiffRunsResponse(
        changes=[pb.RunChange(step=d.step, field=d.field, old=d.old, new=d.new) for d in differences]
    )
