"""Which fields of an answer a client asked for, or asked to leave out, as `fields=a.b,c` or `fields=-a.b`."""

from typing import Any

Tree = dict[str, Any]
ALWAYS: Tree = {"metadata": {}, "spec": {"arguments": {}}, "status": {"startedAt": None, "finishedAt": None}}


class Picked:
    """The fields that a client named; none means all."""

    def __init__(self, fields: str, prefix: str = "") -> None:
        """Read the text; `prefix` is what such a text may have before each field of what is picked from."""
        self._out = fields.startswith("-")
        names = [name.strip() for name in fields.removeprefix("-").split(",")]
        self._tree: Tree = {}
        for name in names:
            if name:
                self._add(name.removeprefix(prefix).split("."))
        self.all = not self._tree

    def _add(self, path: list[str]) -> None:
        below = self._tree
        for part in path[:-1]:
            if part in below and not below[part]:
                return  # all of it is named already
            below = below.setdefault(part, {})
        below[path[-1]] = {}

    def has(self, path: str) -> bool:
        """Whether anything at or below the path is in the answer."""
        below = self._tree
        for part in path.split("."):
            if part not in below:
                return self._out or self.all
            below = below[part]
            if not below:
                return not self._out
        return True

    def workflow(self, body: Any) -> Any:
        """What of a workflow was asked for, and what Argo's answers always have, if need be empty."""
        return _whole(self._of(body))

    def workflows(self, body: Any) -> Any:
        """The same of a list of workflows."""
        found = self._of(body)
        items = [_whole(item) for item in found.get("items") or ()]
        return {"metadata": {}, **found, "items": items or None}

    def _of(self, value: Any) -> Any:
        return _without(value, self._tree) if self._out else _with(value, self._tree)


def _whole(found: Tree) -> Tree:
    return {**found, **{part: {**empty, **found.get(part, {})} for part, empty in ALWAYS.items()}}


def _with(value: Any, tree: Tree) -> Any:
    if not tree:
        return value
    if isinstance(value, list):
        return [_with(item, tree) for item in value]
    if isinstance(value, dict):
        return {key: _with(item, tree[key]) for key, item in value.items() if key in tree}
    return value


def _without(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_without(item, tree) for item in value]
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in tree or tree[key]}
        return {key: _without(item, tree[key]) if key in tree else item for key, item in kept.items()}
    return value
