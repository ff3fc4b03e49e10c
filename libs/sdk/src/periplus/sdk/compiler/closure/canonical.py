"""A canonical form of code, which comments, layout and docstrings do not change."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from typing import Any

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# `ctx` follows from where a name stands; the others are spelling: type comments and the u of u"…".
_LEFT_OUT = frozenset({"ctx", "type_comment", "kind", "type_ignores"})


def digest(nodes: Iterable[ast.AST], *, docstrings: bool = False) -> str:
    """`sha256:…` of statements in order. `docstrings` counts them, for code that reads its own."""
    return _sha256(token for node in nodes for token in _tokens(node, docstrings))


def digest_without_bodies(statements: Iterable[ast.AST], *, docstrings: bool = False) -> str:
    """`sha256:…` of what an import of a module with these statements runs: not the bodies of its functions and methods."""
    return _sha256(
        token
        for node in statements
        if not is_idle(node)
        for token in _tokens(node, docstrings, bodies=not isinstance(node, _DOCUMENTED))
    )


def _sha256(tokens: Iterable[str]) -> str:
    hashed = hashlib.sha256()
    for token in tokens:
        hashed.update(token.encode())
        hashed.update(b"\0")
    return "sha256:" + hashed.hexdigest()


def _tokens(value: Any, docstrings: bool, *, bodies: bool = True) -> Iterable[str]:
    """A tree as a stream of tokens that determines the tree, so that two trees never give the same stream.

    Not `ast.dump`, whose output changes between Python versions. Empty fields are left out: a field that a newer
    Python adds changes nothing for code that does not use it. Text is escaped to ASCII, which no Unicode version
    changes.
    """
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name in sorted(set(value._fields) - _LEFT_OUT):
            if name == "body" and not bodies and isinstance(value, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            child = _body(value, docstrings) if name == "body" else getattr(value, name, None)
            if isinstance(value, ast.Constant) or (child is not None and child != []):
                yield f".{name}"
                yield from _tokens(child, docstrings, bodies=bodies)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for one in value:
            yield from _tokens(one, docstrings, bodies=bodies)
        yield "]"
    else:
        yield f"{type(value).__name__} {value!a}"


def _body(node: ast.AST, docstrings: bool) -> Any:
    """A body without statements that do nothing: constants, docstrings among them, and `pass`."""
    body = getattr(node, "body", None)
    if not isinstance(body, list):
        return body
    return [
        one
        for index, one in enumerate(body)
        if not is_idle(one) or (docstrings and index == 0 and isinstance(node, _DOCUMENTED))
    ]


def is_idle(statement: ast.AST) -> bool:
    """Whether a statement does nothing: a docstring, another constant, `pass`."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
