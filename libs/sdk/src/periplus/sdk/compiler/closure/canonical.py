"""A canonical form of code, which comments, layout, docstrings and the names of local variables do not change."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from periplus.sdk.compiler.closure.idle import is_idle
from periplus.sdk.compiler.closure.local_names import local_variables

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# `ctx` follows from where a name stands; the others are spelling: type comments and the u of u"…".
_LEFT_OUT = frozenset({"ctx", "type_comment", "kind", "type_ignores"})
_NAMES = frozenset({"id", "name", "names", "rest"})

_CACHED = 20_000
"""Statements whose form is kept, as many closures have the same ones."""


@dataclass(frozen=True)
class Spelling:
    """What counts of the spelling: docstrings, for code that reads some, and names of local variables, for code that reads frames."""

    docstrings: bool = False
    local_names: bool = False

    def __or__(self, other: Spelling) -> Spelling:
        return Spelling(self.docstrings or other.docstrings, self.local_names or other.local_names)


NOTHING = Spelling()


def digest(nodes: Iterable[ast.AST], spelling: Spelling = NOTHING) -> str:
    """`sha256:…` of statements in order."""
    return _sha256(_form(node, spelling, True) for node in nodes)


def digest_without_bodies(statements: Iterable[ast.AST], spelling: Spelling = NOTHING) -> str:
    """`sha256:…` of what an import of a module with these statements runs: not the bodies of its functions and methods."""
    return _sha256(
        _form(node, spelling, not isinstance(node, _DOCUMENTED)) for node in statements if not is_idle(node)
    )


def _sha256(forms: Iterable[bytes]) -> str:
    hashed = hashlib.sha256()
    for form in forms:
        hashed.update(form)
    return "sha256:" + hashed.hexdigest()


@lru_cache(maxsize=_CACHED)
def _form(node: ast.AST, spelling: Spelling, bodies: bool) -> bytes:
    """The tokens of a statement, each with a null byte at its end. Nodes are equal only to themselves, and are not changed."""
    numbers = {} if spelling.local_names else local_variables(node)
    form = _Form(spelling, bodies, numbers)
    form.add(node)
    return "\0".join([*form.tokens, ""]).encode()


@lru_cache
def _fields(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, f".{name}") for name in sorted(set(names) - _LEFT_OUT))


class _Form:
    """A tree as a sequence of tokens that determines the tree, so that two trees never give the same sequence.

    Not `ast.dump`, whose output changes between Python versions. Empty fields are left out: a field that a newer
    Python adds changes nothing for code that does not use it. Text is escaped to ASCII, which no Unicode version
    changes.
    """

    def __init__(self, spelling: Spelling, bodies: bool, numbers: dict[ast.AST, list[int | None]]) -> None:
        self._spelling = spelling
        self._bodies = bodies
        self._numbers = numbers
        self.tokens: list[str] = []

    def add(self, value: Any) -> None:
        """Add a node, a list of nodes, or a constant."""
        if isinstance(value, ast.AST):
            self._node(value)
        elif isinstance(value, list):
            self.tokens.append("[")
            for one in value:
                self.add(one)
            self.tokens.append("]")
        else:
            self.tokens.append(f"{type(value).__name__} {value!a}")

    def _node(self, node: ast.AST) -> None:
        self.tokens.append(f"({type(node).__name__}")
        numbers = self._numbers.get(node)
        is_constant = isinstance(node, ast.Constant)
        for name, token in _fields(*node._fields):
            child = getattr(node, name, None)
            if name == "body" and isinstance(child, list):
                if not self._bodies and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                child = self._active(node, child)
            if is_constant or (child is not None and child != []):
                self.tokens.append(token)
                if numbers is not None and name in _NAMES:
                    self._variables(child, numbers)
                else:
                    self.add(child)
        self.tokens.append(")")

    def _variables(self, names: Any, numbers: list[int | None]) -> None:
        """A name or the names of `nonlocal`: a variable is its number."""
        for name, number in zip([names] if isinstance(names, str) else names, numbers, strict=True):
            self.tokens.append(f"str {name!a}" if number is None else f"variable {number}")

    def _active(self, node: ast.AST, body: list[ast.stmt]) -> list[ast.stmt]:
        """A body without statements that do nothing: constants, docstrings among them, and `pass`."""
        keeps_first = self._spelling.docstrings and isinstance(node, _DOCUMENTED)
        return [one for index, one in enumerate(body) if not is_idle(one) or (keeps_first and index == 0)]
