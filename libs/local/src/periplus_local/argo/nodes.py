"""The nodes of one workflow: the tree that `status.nodes` shows, and what of it has changed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from periplus_local.argo import names

Node = dict[str, Any]

FULFILLED = frozenset({"Succeeded", "Failed", "Error", "Skipped", "Omitted"})
COMPLETED = frozenset({"Succeeded", "Failed", "Error"})
FAILED = frozenset({"Failed", "Error"})
DONE = frozenset({"Succeeded", "Skipped", "Omitted"})
PROGRESSING = frozenset({"Pod", "Suspend"})


def fulfilled(node: Node | None) -> bool:
    """Whether nothing more will happen to the node itself."""
    return node is not None and node["phase"] in FULFILLED


class Nodes:
    """All nodes of a workflow by id; every change is noted, so that only changes are written."""

    def __init__(self, workflow: str, changed: Callable[[], None]) -> None:
        """The nodes of the workflow of that name; `changed` is called after each change."""
        self.workflow = workflow
        self.by_id: dict[str, Node] = {}
        self.dirty: set[str] = set()
        self.gone: set[str] = set()
        self.watchers: dict[str, list[Callable[[Node], None]]] = {}
        self.complete = 0
        self.counted = 0
        self._changed = changed
        self._json: dict[str, bytes] = {}
        self._children: dict[str, set[str]] = {}

    def __iter__(self) -> Iterator[Node]:
        """Every node."""
        return iter(self.by_id.values())

    def id_of(self, name: str) -> str:
        """The id that a node of that name has."""
        return names.node_id(self.workflow, name)

    def named(self, name: str) -> Node | None:
        """The node of that name."""
        return self.by_id.get(self.id_of(name))

    def load(self, node: Node) -> None:
        """Take in a node that is on disk already."""
        self.by_id[node["id"]] = node
        self._children[node["id"]] = set(node.get("children", ()))
        self._count(node, 1)

    def start(self, name: str, kind: str, phase: str, **fields: Any) -> Node:
        """A new node; `fields` are Argo's, and those that are None are left out."""
        boundary = self.by_id.get(fields.get("boundaryID") or "")
        node: Node = {
            "id": self.id_of(name),
            "name": name,
            "displayName": names.display_name(name, boundary["name"]) if boundary else name,
            "type": kind,
            "phase": phase,
            "startedAt": names.stamp(names.now()),
        }
        node.update({key: value for key, value in fields.items() if value not in (None, "")})
        if kind in PROGRESSING:
            node["progress"] = "0/1"
        if phase in FULFILLED:
            node["finishedAt"] = node["startedAt"]
        self.by_id[node["id"]] = node
        self._children[node["id"]] = set()
        self._count(node, 1)
        self.touch(node)
        return node

    def mark(self, node: Node, phase: str, message: str | None = None) -> Node:
        """Change the phase of a node, and its message unless that is None."""
        self._count(node, -1)
        node["phase"] = phase
        if message:
            node["message"] = message
        elif message is not None:
            node.pop("message", None)
        if phase in FULFILLED:
            node.setdefault("finishedAt", names.stamp(names.now()))
        if node["type"] in PROGRESSING and phase in DONE:
            node["progress"] = "1/1"
        self._count(node, 1)
        self.touch(node)
        for watcher in list(self.watchers.get(node["id"], ())):
            watcher(node)
        return node

    @contextmanager
    def watching(self, node_id: str, watcher: Callable[[Node], None]) -> Iterator[None]:
        """Call the watcher with the node of that id each time that it is marked."""
        self.watchers.setdefault(node_id, []).append(watcher)
        try:
            yield
        finally:
            self.watchers[node_id].remove(watcher)
            if not self.watchers[node_id]:
                del self.watchers[node_id]

    def touch(self, node: Node) -> None:
        """Note that the node has changed."""
        self.dirty.add(node["id"])
        self._json.pop(node["id"], None)
        self._changed()

    def connect(self, parent: Node, child_name: str) -> None:
        """Make the node of that name a child of the parent, once."""
        child = self.id_of(child_name)
        known = self._children[parent["id"]]
        if child not in known:
            known.add(child)
            parent.setdefault("children", []).append(child)
            self.touch(parent)

    def disconnect(self, child_name: str) -> None:
        """Undo `connect` for a node that was not made after all."""
        child = self.id_of(child_name)
        for parent in [node for node in self if child in self._children[node["id"]]]:
            self._children[parent["id"]].discard(child)
            parent["children"].remove(child)
            self.touch(parent)

    def forget(self, node_id: str) -> None:
        """Take the node away."""
        node = self.by_id.pop(node_id)
        self._count(node, -1)
        self._children.pop(node_id)
        self._json.pop(node_id, None)
        self.dirty.discard(node_id)
        self.gone.add(node_id)
        self._changed()

    def restate(self, node: Node) -> None:
        """Note a change of children that was made in place."""
        self._children[node["id"]] = set(node.get("children", ()))
        self.touch(node)

    def fragment(self, node_id: str) -> bytes:
        """The node as JSON; made once per change."""
        made = self._json.get(node_id)
        if made is None:
            made = self._json[node_id] = json.dumps(
                self.by_id[node_id], ensure_ascii=False, separators=(",", ":")
            ).encode()
        return made

    def document(self) -> bytes:
        """`status.nodes` as JSON."""
        parts = (b'"%s":%s' % (name.encode(), self.fragment(name)) for name in self.by_id)
        return b"{" + b",".join(parts) + b"}"

    def _count(self, node: Node, sign: int) -> None:
        if node["type"] in PROGRESSING:
            self.counted += sign
            self.complete += sign * (node["phase"] in DONE)
