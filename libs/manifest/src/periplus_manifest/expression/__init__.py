"""expr-lang, the language of {{=…}}, `expression` and `fromExpression`: compiled, and evaluated within bounds.

No expression is ever run by Python: it is parsed to a tree of our own, which is evaluated within a budget of steps
and sizes.
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

_MAX_CACHED_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `variables` are the names that it reads from its environment, with their path as far as it is constant
    ("tasks.a.outputs.parameters.x"). `required` are those without a ?. or ?? that covers their absence. `volatile` are
    the functions that it calls whose value differs at each call, as the time ("sprig.now").
    """

    text: str
    tree: Node
    variables: frozenset[str]
    required: frozenset[str]
    volatile: frozenset[str]

    def evaluate(self, env: Mapping[str, Any]) -> Any:
        """Return its value. Raises ExpressionError; UnknownVariable when `env` lacks a name that it reads."""
        from .evaluation import Evaluation

        evaluation = Evaluation(env)
        try:
            return evaluation.budget.measure(evaluation.value(self.tree))
        except RecursionError:
            raise ExpressionError("", "nested too deeply") from None


def compile(text: str) -> Expression:  # noqa: A001 - the word that languages have for it
    """Parse an expression and look up its functions.

    Raises ExpressionError for more than 16 KiB, bad syntax, and a function that Argo does not have.
    """
    # Short expressions recur in every run of a workflow; long ones would fill the cache's memory.
    return _compile_cached(text) if len(text) <= _MAX_CACHED_CHARACTERS else _compile(text)


def _compile(text: str) -> Expression:
    # The parser, the evaluator and two hundred functions are imported with the first expression: many manifests have
    # none, and a process that reads only those starts faster.
    from . import references
    from .parsing import parse

    tree = parse(text)
    found = references.names(tree)
    return Expression(
        text, tree, frozenset(found.variables), frozenset(found.required), frozenset(found.volatile)
    )


_compile_cached = lru_cache(maxsize=2048)(_compile)


def evaluate(text: str, env: Mapping[str, Any]) -> Any:
    """Compile and evaluate. `env` is nested maps; the value is a text, number, boolean, list or map.

    Raises ExpressionError, and UnknownVariable when `env` lacks a name. At most 500,000 steps are taken, and
    no value becomes larger than a million characters or items.
    """
    return compile(text).evaluate(env)
