"""Statements that do nothing."""

from __future__ import annotations

import ast


def is_idle(statement: ast.AST) -> bool:
    """Whether a statement does nothing: a docstring, another constant, `pass`."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
