"""Field masks: which fields of a response a client wants (`fields=a.b,c`) or does not want (`fields=-a.b`)."""

from typing import Any

Tree = dict[str, Any]
# Argo's responses always have these, if need be empty.
ALWAYS_PRESENT: Tree = {
    "metadata": {},
    "spec": {"arguments": {}},
    "status": {"startedAt": None, "finishedAt": None},
}


class FieldMask:
    """The fields that a client named; none means all."""

    def __init__(self, fields: str, prefix: str = "") -> None:
        """Parse the query parameter; `prefix` may stand before each field."""
        self._excludes = fields.startswith("-")
        paths = [path.strip() for path in fields.removeprefix("-").split(",")]
        self._tree: Tree = {}
        for path in paths:
            if path:
                self._add(path.removeprefix(prefix).split("."))
        self.is_empty = not self._tree

    def _add(self, path: list[str]) -> None:
        level = self._tree
        for name in path[:-1]:
            if name in level and not level[name]:
                return  # the whole of it is in the mask already
            level = level.setdefault(name, {})
        level[path[-1]] = {}

    def includes(self, path: str) -> bool:
        """Whether anything at or below the path is in the response."""
        level = self._tree
        for name in path.split("."):
            if name not in level:
                return self._excludes or self.is_empty
            level = level[name]
            if not level:
                return not self._excludes
        return True

    def of_workflow(self, body: Any) -> Any:
        """The fields of a workflow that are in the mask, and those that are always present."""
        return _with_always_present(self._apply(body))

    def of_list(self, body: Any) -> Any:
        """The same of a list of workflows."""
        found = self._apply(body)
        items = [_with_always_present(item) for item in found.get("items") or ()]
        return {"metadata": {}, **found, "items": items or None}

    def _apply(self, value: Any) -> Any:
        return _without(value, self._tree) if self._excludes else _only(value, self._tree)


def _with_always_present(found: Tree) -> Tree:
    return {**found, **{key: {**empty, **found.get(key, {})} for key, empty in ALWAYS_PRESENT.items()}}


def _only(value: Any, tree: Tree) -> Any:
    if not tree:
        return value
    if isinstance(value, list):
        return [_only(item, tree) for item in value]
    if isinstance(value, dict):
        return {key: _only(item, tree[key]) for key, item in value.items() if key in tree}
    return value


def _without(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_without(item, tree) for item in value]
    if isinstance(value, dict):
        remaining = {key: item for key, item in value.items() if key not in tree or tree[key]}
        return {key: _without(item, tree[key]) if key in tree else item for key, item in remaining.items()}
    return value
