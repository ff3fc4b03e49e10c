"""The errors that a pipeline's author gets: what is wrong, in which function and argument, and how to fix it."""

from __future__ import annotations


class PipelineError(Exception):
    """A pipeline, a step or a call of one is not what Periplus can run.

    `what` says what is wrong; `function` and `argument` say where; `fix` says what to write instead.
    """

    def __init__(self, what: str, *, function: str = "", argument: str = "", fix: str = "") -> None:
        self.what = what
        self.function = function
        self.argument = argument
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        where = [f"{self.function}()"] if self.function else []
        where += [f"argument {self.argument}"] if self.argument else []
        text = ": ".join(filter(None, [", ".join(where), self.what]))
        return f"{text}\n  fix: {self.fix}" if self.fix else text


class MismatchError(PipelineError):
    """A value is not of the type that its annotation names, or cannot be written as JSON.

    `path` leads to the part of the value that is wrong, as `[2].name`; it is empty for the whole.
    """

    def __init__(self, reason: str, *, fix: str = "", path: str = "") -> None:
        self.reason = reason
        self.path = path
        super().__init__(f"{path.lstrip('.')}: {reason}" if path else reason, fix=fix)

    def inside(self, key: str) -> MismatchError:
        """The same error as seen from the list, dict or record that holds the value under `key`: `[2]` or `.name`."""
        return MismatchError(self.reason, fix=self.fix, path=key + self.path)
