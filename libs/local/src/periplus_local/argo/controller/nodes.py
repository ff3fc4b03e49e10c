"""The nodes of one workflow (`status.nodes`), and which of them have unsaved changes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.scalars import now, timestamp
from periplus_manifest import measure
from periplus_manifest.bounds import RunBounds

Node = dict[str, Any]

FULFILLED = frozenset({"Succeeded", "Failed", "Error", "Skipped", "Omitted"})
COMPLETED = frozenset({"Succeeded", "Failed", "Error"})
FAILED = frozenset({"Failed", "Error"})
PROGRESS_DONE = frozenset({"Succeeded", "Skipped", "Omitted"})
# The types of nodes that count for `progress`.
PROGRESS_TYPES = frozenset({"Pod", "Suspend"})


# What a node has besides its texts, and an id in a list of children, in bytes of JSON.
NODE_BYTES = 200
CHILD_BYTES = 3


class TooLargeError(Exception):
    """The workflow has more nodes, or larger ones, than it may have; it is being ended."""


def is_fulfilled(node: Node | None) -> bool:
    """Whether the node has its final phase."""
    return node is not None and node["phase"] in FULFILLED


class Nodes:
    """All nodes of a workflow by id. Each change is recorded, so that only changed nodes are written.

    `bytes` is about the size of all of them as JSON.
    """

    def __init__(
        self,
        workflow: str,
        on_change: Callable[[], None],
        on_overflow: Callable[[str], None],
        run_bounds: RunBounds,
    ) -> None:
        """The nodes of the workflow of that name.

        `on_change` is called after each change; `on_overflow` with the reason when there are more nodes than a
        workflow may have, or larger ones.
        """
        self.workflow = workflow
        self.bytes = 0
        self._on_overflow = on_overflow
        self._bounds = run_bounds
        self._bytes_of: dict[str, int] = {}
        self.by_id: dict[str, Node] = {}
        self.dirty: set[str] = set()
        self.removed: set[str] = set()
        self.listeners: dict[str, list[Callable[[Node], None]]] = {}
        self.progress_done = 0
        self.progress_total = 0
        self._on_change = on_change
        self._json: dict[str, bytes] = {}
        self._children: dict[str, set[str]] = {}

    def __iter__(self) -> Iterator[Node]:
        """Every node."""
        return iter(self.by_id.values())

    def id_of(self, name: str) -> str:
        """The id that a node of that name has."""
        return names.node_id(self.workflow, name)

    def by_name(self, name: str) -> Node | None:
        """The node of that name."""
        return self.by_id.get(self.id_of(name))

    def load(self, node: Node) -> None:
        """Add a node that is on disk already."""
        self.by_id[node["id"]] = node
        self._children[node["id"]] = set(node.get("children", ()))
        self._count(node, 1)
        self._measure(node["id"], NODE_BYTES + measure.text_size(node))

    def start(self, name: str, kind: str, phase: str, **fields: Any) -> Node:
        """Add a new node; `fields` are Argo's, and those that are None or empty are left out.

        Raises TooLargeError when the workflow has all the nodes that it may have.
        """
        if len(self.by_id) >= self._bounds.nodes:
            self._on_overflow(f"the workflow has more than {self._bounds.nodes} nodes")
            raise TooLargeError
        boundary = self.by_id.get(fields.get("boundaryID") or "")
        node: Node = {
            "id": self.id_of(name),
            "name": name,
            "displayName": names.display_name(name, boundary["name"]) if boundary else name,
            "type": kind,
            "phase": phase,
            "startedAt": timestamp(now()),
        }
        node.update({key: value for key, value in fields.items() if value not in (None, "")})
        if kind in PROGRESS_TYPES:
            node["progress"] = "0/1"
        if phase in FULFILLED:
            node["finishedAt"] = node["startedAt"]
        if not self._measure(node["id"], NODE_BYTES + measure.text_size(node)):
            raise TooLargeError
        self.by_id[node["id"]] = node
        self._children[node["id"]] = set()
        self._count(node, 1)
        self.mark_dirty(node)
        return node

    def set_phase(self, node: Node, phase: str, message: str | None = None) -> Node:
        """Change the phase of a node, and its message unless that is None; an empty message removes it."""
        self._count(node, -1)
        node["phase"] = phase
        if message:
            node["message"] = message
        elif message is not None:
            node.pop("message", None)
        if phase in FULFILLED:
            node.setdefault("finishedAt", timestamp(now()))
        if node["type"] in PROGRESS_TYPES and phase in PROGRESS_DONE:
            node["progress"] = "1/1"
        self._count(node, 1)
        self.mark_dirty(node)
        for listener in list(self.listeners.get(node["id"], ())):
            listener(node)
        return node

    @contextmanager
    def listening(self, node_id: str, listener: Callable[[Node], None]) -> Iterator[None]:
        """Call the listener with the node of that id each time its phase is set."""
        self.listeners.setdefault(node_id, []).append(listener)
        try:
            yield
        finally:
            self.listeners[node_id].remove(listener)
            if not self.listeners[node_id]:
                del self.listeners[node_id]

    def mark_dirty(self, node: Node) -> None:
        """Record that the node has changed."""
        self.dirty.add(node["id"])
        self._json.pop(node["id"], None)
        self._on_change()

    def connect(self, parent: Node, child_name: str) -> None:
        """Make the node of that name a child of the parent, unless it is one."""
        child = self.id_of(child_name)
        children = self._children[parent["id"]]
        if child not in children:
            children.add(child)
            parent.setdefault("children", []).append(child)
            if not self._measure(parent["id"], self._bytes_of[parent["id"]] + len(child) + CHILD_BYTES):
                raise TooLargeError
            self.mark_dirty(parent)

    def disconnect(self, child_name: str) -> None:
        """Undo `connect` for a node that was not started after all."""
        child = self.id_of(child_name)
        for parent in [node for node in self if child in self._children[node["id"]]]:
            self._children[parent["id"]].discard(child)
            parent["children"].remove(child)
            self.mark_dirty(parent)

    def remove(self, node_id: str) -> None:
        """Remove the node."""
        node = self.by_id.pop(node_id)
        self._count(node, -1)
        self.bytes -= self._bytes_of.pop(node_id)
        self._children.pop(node_id)
        self._json.pop(node_id, None)
        self.dirty.discard(node_id)
        self.removed.add(node_id)
        self._on_change()

    def children_changed(self, node: Node) -> None:
        """Record a change of `children` that was made in the node itself."""
        self._children[node["id"]] = set(node.get("children", ()))
        self.mark_dirty(node)

    def node_json(self, node_id: str) -> bytes:
        """The node as JSON; encoded once per change."""
        encoded = self._json.get(node_id)
        if encoded is None:
            encoded = self._json[node_id] = json.dumps(
                self.by_id[node_id], ensure_ascii=False, separators=(",", ":")
            ).encode()
            self._measure(node_id, len(encoded))
        return encoded

    def to_json(self) -> bytes:
        """`status.nodes` as JSON."""
        items = (b'"%s":%s' % (node_id.encode(), self.node_json(node_id)) for node_id in self.by_id)
        return b"{" + b",".join(items) + b"}"

    def _measure(self, node_id: str, size_in_bytes: int) -> bool:
        """Note the size of a node; False when the workflow is now larger than it may be."""
        self.bytes += size_in_bytes - self._bytes_of.get(node_id, 0)
        self._bytes_of[node_id] = size_in_bytes
        if self.bytes <= self._bounds.status_bytes:
            return True
        self._on_overflow(f"status.nodes of the workflow has more than {self._bounds.status_bytes} bytes")
        return False

    def _count(self, node: Node, sign: int) -> None:
        if node["type"] in PROGRESS_TYPES:
            self.progress_total += sign
            self.progress_done += sign * (node["phase"] in PROGRESS_DONE)
