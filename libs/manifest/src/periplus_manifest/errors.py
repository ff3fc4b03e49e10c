"""Errors that say which field of a manifest is wrong, and why."""

from __future__ import annotations


class ManifestError(ValueError):
    """A manifest, or a text inside it, that Argo would refuse or that Periplus does not accept.

    `path` names the field ("spec.templates[1].dag.tasks[0].template") and is empty where only a text was
    given. `message` says what is wrong. As text: "path: message".
    """

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message
        super().__init__(path, message)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def under(self, path: str) -> ManifestError:
        """Return the same error, of the same class, with `path` before its path."""
        return type(self)(join(path, self.path), self.message)


class BoundError(ManifestError):
    """Something is larger than its bound in `bounds`; the message has its size and the bound."""


class ExpressionError(ManifestError):
    """An expr-lang expression that does not parse, names an unknown function, or fails when evaluated."""


class UnknownVariable(ExpressionError):
    """An expression that names a variable which its environment does not have."""


class ConditionError(ManifestError):
    """A `when` text that is no condition, or whose value is neither true nor false."""


def join(path: str, tail: str) -> str:
    """Append `tail` to `path`: "spec" and "templates" give "spec.templates", "x" and "[0]" give "x[0]"."""
    if not path or not tail:
        return path or tail
    return path + tail if tail[0] == "[" else f"{path}.{tail}"
