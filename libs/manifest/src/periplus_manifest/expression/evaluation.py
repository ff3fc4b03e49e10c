"""Evaluates an expression's tree with an environment, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from periplus_manifest.errors import ExpressionError, UnknownVariable

from . import static_kinds, value
from .budget import Budget
from .builtin import predicates, times
from .functions import FUNCTIONS
from .operator import applied
from .sprig import semver
from .tree import (
    Array,
    Call,
    Closure,
    Comparison,
    Infix,
    Let,
    Literal,
    Map,
    Method,
    Name,
    Node,
    OperatorChain,
    Path,
    PipedValue,
    Pointer,
    Prefix,
    Sequence,
    Slice,
    Ternary,
)


class Evaluation:
    """One evaluation: its environment, the variables that let bound so far, and its budget."""

    def __init__(self, env: Mapping[str, Any]) -> None:
        self._env = env
        self._bound: dict[str, Any] = {}
        self._item: tuple[Any, int, Any] | None = None
        self._piped_value: Any = None
        self.budget = Budget()

    def value(self, node: Node) -> Any:
        """Return a node's value. Raises ExpressionError, and UnknownVariable for a name that is not in the environment."""
        self.budget.step()
        return self._evaluators[type(node)](self, node)

    def _name(self, node: Name) -> Any:
        if node.name in self._bound:
            return self._bound[node.name]
        if node.name in self._env:
            return self._env[node.name]
        raise UnknownVariable("", f"unknown name {node.name}")

    def _pointer(self, node: Pointer) -> Any:
        assert self._item is not None
        item, index, accumulated = self._item
        return {"": item, "index": index, "acc": accumulated}[node.name]

    def _path(self, node: Path) -> Any:
        found = self.value(node.base)
        skipping = False
        for step in node.steps:
            self.budget.step()
            if isinstance(step, Slice):
                skipping = False
                start = None if step.start is None else self.value(step.start)
                found = value.sliced(found, start, None if step.end is None else self.value(step.end))
                continue
            dotted = isinstance(step, Method) or step.dotted
            # a?.b.c is nil as a whole when a is; [0] after it is not part of that chain.
            skipping = (skipping and dotted) or (step.optional and found is None)
            if skipping:
                continue
            if isinstance(step, Method):
                found = self._method(found, step)
            else:
                found = value.fetched(found, self.value(step.key))
        return found

    def _method(self, found: Any, step: Method) -> Any:
        arguments = [self.value(argument) for argument in step.arguments]
        own = semver.method if isinstance(found, semver.Version) else times.method
        return own(found, step.name, arguments)

    def _prefix(self, node: Prefix) -> Any:
        operand = self.value(node.operand)
        if node.operator == "not":
            return not self._bool(operand, "not")
        if node.operator == "+" and not isinstance(node.operand, Literal):
            return operand
        if not value.is_number(operand):
            raise ExpressionError("", f"invalid operation: {node.operator} {value.kind(operand)}")
        if node.operator == "+":
            return operand
        return -operand if isinstance(operand, float) else value.wrapped(-operand)

    def _bool(self, found: Any, operator: str) -> bool:
        if not isinstance(found, bool):
            raise ExpressionError("", f"invalid operation: {operator} takes bool, not {value.kind(found)}")
        return found

    def _chain(self, node: OperatorChain) -> Any:
        left = self.value(node.first)
        for index, infix in enumerate(node.operations):
            self.budget.step()
            lazy = self._lazy.get(infix.operator)
            if lazy is not None:
                left = lazy(self, left, infix)
                continue
            right = self.value(infix.right)
            if infix.operator in ("==", "!=") and value.kind(left) != value.kind(right):
                before = OperatorChain(node.first, node.operations[:index]) if index else node.first
                static_kinds.check_comparable(before, infix.right, self._env, self._bound)
            left = applied(self.budget, infix.operator, left, right, negated=infix.negated)
        return left

    def _and(self, left: Any, infix: Infix) -> Any:
        static_kinds.check_bool(infix.right, infix.operator, self._env, self._bound)
        return self._right(infix) if self._bool(left, infix.operator) else False

    def _or(self, left: Any, infix: Infix) -> Any:
        static_kinds.check_bool(infix.right, infix.operator, self._env, self._bound)
        return True if self._bool(left, infix.operator) else self._right(infix)

    def _right(self, infix: Infix) -> Any:
        """Return the right side of and/or; Go does not check its type where it is a variable."""
        return self.value(infix.right)

    def _else(self, left: Any, infix: Infix) -> Any:
        return self.value(infix.right) if left is None else left

    def _pipe(self, left: Any, infix: Infix) -> Any:
        before, self._piped_value = self._piped_value, left
        try:
            return self.value(infix.right)
        finally:
            self._piped_value = before

    def _comparison(self, node: Comparison) -> bool:
        left = self.value(node.first)
        for sign, part in node.operations:
            right = self.value(part)
            if not value.compares(sign, left, right):
                return False
            left = right
        return True

    def _ternary(self, node: Ternary) -> Any:
        condition = self.value(node.condition)
        if self._bool(condition, "?"):
            return condition if node.yes is None else self.value(node.yes)
        return self.value(node.no)

    def _call(self, node: Call) -> Any:
        if node.function in predicates.PREDICATES:
            return self._predicate(node)
        arguments = [self.value(argument) for argument in node.arguments]
        return FUNCTIONS[node.function].call(self.budget, arguments)

    def _predicate(self, node: Call) -> Any:
        first, *others = node.arguments
        items = self.value(first)
        evaluate = self._predicate_function(others[0]) if others else None
        initial = self.value(others[1]) if len(others) > 1 else None
        if node.function == "reduce":
            assert evaluate is not None
            return predicates.reduced(items, evaluate, initial, started=len(others) > 1)
        return predicates.apply(self.budget, node.function, items, evaluate, initial)

    def _predicate_function(self, node: Node) -> predicates.Predicate:
        body = node.body if isinstance(node, Closure) else node

        def evaluate(item: Any, index: int, accumulated: Any) -> Any:
            before, self._item = self._item, (item, index, accumulated)
            try:
                return self.value(body)
            finally:
                self._item = before

        return evaluate

    def _let(self, node: Let) -> Any:
        bound = self.value(node.value)
        before = self._bound
        self._bound = {**before, node.name: bound}
        try:
            return self.value(node.body)
        finally:
            self._bound = before

    def _sequence(self, node: Sequence) -> Any:
        return [self.value(part) for part in node.parts][-1]

    def _array(self, node: Array) -> list[Any]:
        return [self.value(item) for item in node.items]

    def _map(self, node: Map) -> dict[str, Any]:
        found = {}
        for key, item in node.pairs:
            name = self.value(key)
            if not isinstance(name, str):
                raise ExpressionError("", f"a map's key is a string, not {value.kind(name)}")
            found[name] = self.value(item)
        return found

    def _literal(self, node: Literal) -> Any:
        return node.value

    def _piped(self, _: PipedValue) -> Any:
        return self._piped_value

    _lazy: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "and": _and,
        "&&": _and,
        "or": _or,
        "||": _or,
        "??": _else,
        "|": _pipe,
    }

    _evaluators: ClassVar[Mapping[type, Callable[..., Any]]] = {
        Literal: _literal,
        Name: _name,
        Pointer: _pointer,
        Path: _path,
        Prefix: _prefix,
        OperatorChain: _chain,
        Comparison: _comparison,
        PipedValue: _piped,
        Ternary: _ternary,
        Call: _call,
        Let: _let,
        Sequence: _sequence,
        Array: _array,
        Map: _map,
    }
