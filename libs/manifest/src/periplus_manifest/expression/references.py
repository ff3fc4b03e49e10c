"""What an expression refers to: its variables with their paths, and its functions, which must exist."""

from __future__ import annotations

from dataclasses import dataclass, field

from periplus_manifest import regex
from periplus_manifest.errors import ExpressionError, ManifestError

from .builtin import times
from .builtin.predicates import PREDICATES
from .functions import FUNCTIONS
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
    Member,
    Method,
    Name,
    Node,
    OperatorChain,
    Path,
    Pointer,
    Prefix,
    Sequence,
    Slice,
    Ternary,
)

_METHODS = times.METHODS | semver.METHODS


@dataclass(slots=True)
class References:
    """The variables of an expression, those that are required (not guarded by ?. or ??), and its volatile functions."""

    variables: set[str] = field(default_factory=set)
    required: set[str] = field(default_factory=set)
    volatile: set[str] = field(default_factory=set)


def names(tree: Node) -> References:
    """Collect a tree's variables. Raises ExpressionError for an unknown function, a wrong number of
    arguments, # outside of a predicate, and a bad regular expression.
    """
    collector = _Collector()
    collector.node(tree, frozenset(), predicate=False, guarded=False)
    return collector.references


class _Collector:
    def __init__(self) -> None:
        self.references = References()

    def node(self, node: Node, bound: frozenset[str], *, predicate: bool, guarded: bool) -> None:
        if isinstance(node, Path):
            self._path(node, bound, predicate=predicate, guarded=guarded)
        elif isinstance(node, Name):
            self._variable(node.name, node.name, bound, guarded=guarded)
        elif isinstance(node, Pointer):
            self._pointer(node, predicate=predicate)
        elif isinstance(node, OperatorChain):
            self._chain(node, bound, predicate=predicate, guarded=guarded)
        elif isinstance(node, Let):
            self.node(node.value, bound, predicate=predicate, guarded=guarded)
            self.node(node.body, bound | {node.name}, predicate=predicate, guarded=guarded)
        elif isinstance(node, Call):
            self._call(node, bound, predicate=predicate, guarded=guarded)
        elif isinstance(node, Closure):
            raise ExpressionError(
                "", "a predicate in braces is only allowed in functions such as filter and map"
            )
        else:
            for child in _children(node):
                self.node(child, bound, predicate=predicate, guarded=guarded)

    def _variable(self, name: str, path: str, bound: frozenset[str], *, guarded: bool) -> None:
        if name not in bound:
            self.references.variables.add(path)
            if not guarded:
                self.references.required.add(path)

    def _pointer(self, node: Pointer, *, predicate: bool) -> None:
        if not predicate:
            raise ExpressionError(
                "", f"#{node.name} is only allowed in the predicate of a function such as filter"
            )
        if node.name not in ("", "acc", "index"):
            raise ExpressionError("", f"unknown pointer #{node.name}")

    def _path(self, node: Path, bound: frozenset[str], *, predicate: bool, guarded: bool) -> None:
        parts: list[str] = []
        optional = False
        for step in node.steps:
            if (
                not isinstance(step, Member)
                or not isinstance(step.key, Literal)
                or not isinstance(step.key.value, str)
            ):
                break
            optional = optional or step.optional
            parts.append(step.key.value)
        if isinstance(node.base, Name):
            path = ".".join((node.base.name, *parts))
            self._variable(node.base.name, path, bound, guarded=guarded or optional)
        else:
            self.node(node.base, bound, predicate=predicate, guarded=guarded)
        for step in node.steps:
            if isinstance(step, Method) and step.name not in _METHODS:
                raise ExpressionError("", f"unknown function {step.name}")
            for child in _inside(step):
                self.node(child, bound, predicate=predicate, guarded=guarded)

    def _chain(self, node: OperatorChain, bound: frozenset[str], *, predicate: bool, guarded: bool) -> None:
        has_fallback = any(infix.operator == "??" for infix in node.operations)
        self.node(node.first, bound, predicate=predicate, guarded=guarded or has_fallback)
        for infix in node.operations:
            _check_pattern(infix)
            self.node(infix.right, bound, predicate=predicate, guarded=guarded)

    def _call(self, node: Call, bound: frozenset[str], *, predicate: bool, guarded: bool) -> None:
        arguments = node.arguments
        limits = PREDICATES.get(node.function)
        if limits is None:
            if node.function not in FUNCTIONS:
                raise ExpressionError("", f"unknown function {node.function}")
            function = FUNCTIONS[node.function]
            function.check_count(len(arguments))
            if function.is_volatile or (
                function.time_argument is not None and _is_text(arguments[function.time_argument])
            ):
                self.references.volatile.add(node.function)
        elif not limits[0] <= len(arguments) <= limits[1]:
            raise ExpressionError(
                "", f"{node.function} takes {limits[0]} to {limits[1]} arguments, not {len(arguments)}"
            )
        for index, argument in enumerate(arguments):
            is_predicate = limits is not None and index == 1
            inner = argument.body if is_predicate and isinstance(argument, Closure) else argument
            self.node(inner, bound, predicate=predicate or is_predicate, guarded=guarded)


def _check_pattern(infix: Infix) -> None:
    if (
        infix.operator == "matches"
        and isinstance(infix.right, Literal)
        and isinstance(infix.right.value, str)
    ):
        try:
            regex.compile(infix.right.value)
        except ManifestError as error:
            raise ExpressionError("", error.message) from None


def _is_text(node: Node) -> bool:
    """Whether a node is a text or a variable: those of Argo are texts."""
    if isinstance(node, Literal):
        return isinstance(node.value, str)
    return isinstance(node, Name) or (isinstance(node, Path) and isinstance(node.base, Name))


def _inside(step: Member | Slice | Method) -> tuple[Node, ...]:
    if isinstance(step, Member):
        return (step.key,)
    if isinstance(step, Method):
        return step.arguments
    return tuple(part for part in (step.start, step.end) if part is not None)


def _children(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Prefix):
        return (node.operand,)
    if isinstance(node, Comparison):
        return (node.first, *(part for _, part in node.operations))
    if isinstance(node, Ternary):
        return tuple(part for part in (node.condition, node.yes, node.no) if part is not None)
    if isinstance(node, Sequence):
        return node.parts
    if isinstance(node, Array):
        return node.items
    if isinstance(node, Map):
        return tuple(part for pair in node.pairs for part in pair)
    return ()
