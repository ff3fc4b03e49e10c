"""expr-lang, the language of {{=…}}, `expression` and `fromExpression`: compiled, and evaluated within bounds.

Nothing here is ever given to Python to run: an expression is parsed to a tree of our own, and the tree is
walked with a budget of steps and room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from periplus_manifest.errors import ExpressionError

if TYPE_CHECKING:
    from .tree import Node

__all__ = ["Expression", "ExpressionError", "compile", "evaluate"]

_LONGEST_KEPT = 512


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `variables` are the names that it reads from its environment, with as much of their path as is written out
    ("tasks.a.outputs.parameters.x"). `required` are those that no ?. or ?? stands in for.
    """

    text: str
    tree: Node
    variables: frozenset[str]
    required: frozenset[str]

    def evaluate(self, env: Mapping[str, Any]) -> Any:
        """Give its value. Raises ExpressionError; UnknownVariable when `env` lacks a name that it reads."""
        from .evaluation import Evaluation

        evaluation = Evaluation(env)
        try:
            return evaluation.budget.weigh(evaluation.value(self.tree))
        except RecursionError:
            raise ExpressionError("", "nested too deeply") from None


def compile(text: str) -> Expression:  # noqa: A001 - the word that languages have for it
    """Parse an expression and look up its functions.

    Raises ExpressionError for more than 16 KiB, bad syntax, and a function that Argo does not have.
    """
    # Short ones come again with every run of a workflow; long ones would only fill the memory.
    return _kept(text) if len(text) <= _LONGEST_KEPT else _compiled(text)


def _compiled(text: str) -> Expression:
    # The parser, the evaluator and two hundred functions load with the first expression: many manifests
    # have none, and whoever only reads or checks those starts sooner.
    from . import scope
    from .parsing import parse

    tree = parse(text)
    found = scope.names(tree)
    return Expression(text, tree, frozenset(found.variables), frozenset(found.required))


_kept = lru_cache(maxsize=2048)(_compiled)


def evaluate(text: str, env: Mapping[str, Any]) -> Any:
    """Compile and evaluate. `env` is nested maps; texts, numbers, booleans, lists and maps come back.

    Raises ExpressionError, and UnknownVariable when `env` lacks a name. At most 500,000 steps are taken, and
    no value becomes larger than a million characters or items.
    """
    return compile(text).evaluate(env)
