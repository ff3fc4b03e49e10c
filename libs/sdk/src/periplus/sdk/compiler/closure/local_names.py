"""Which names of a statement are local variables whose spelling changes nothing, so that a key need not have it.

Not parameters, which calls name, not names of functions, classes and imports, which objects have, and nothing that code could look up by
its text: a statement that reads its own variables (`locals()`, `eval`, `frame.query("x > @limit")`) keeps all names, and a name that is
a word of a text in the statement is kept. Code that reads variables of its callers is for the traversal to notice: `READ_OTHERS`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from periplus.sdk.compiler.closure.idle import is_idle

READ_OWN = frozenset(
    {"locals", "vars", "dir", "eval", "exec", "query", "sql", "execute", "executemany", "evaluate", "from_formula", "ols", "glm", "logit",
     "dmatrix", "dmatrices"}
)  # fmt: skip
"""Functions and methods that read the variables of the function that calls them; those of pandas, DuckDB, numexpr and of formulas are
given a text that names them.
"""

READ_OTHERS = frozenset(
    {"_getframe", "currentframe", "stack", "trace", "f_back", "f_locals", "tb_frame", "settrace", "setprofile", "__code__", "co_varnames",
     "co_freevars", "co_cellvars", "getsource", "getsourcelines", "getclosurevars"}
)  # fmt: skip
"""With these, code reads the variables or the source of any function."""

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, getattr(ast, "TypeAlias", ast.ClassDef))
_WORD = re.compile(r"[^\W\d]\w*")


def local_variables(statement: ast.AST) -> dict[ast.AST, list[int | None]]:
    """For nodes that name local variables: their numbers, in the order in which variables are first met. None for a name that
    stays as it is; only `nonlocal` has more than one.
    """
    walker = _Walker(statement)
    if not walker.reads_own:
        walker.visit(statement)
    return walker.found


class _Walker(ast.NodeVisitor):
    """Visits a statement with the scopes around the current node: what each name is there, a variable or a name that stays."""

    def __init__(self, statement: ast.AST) -> None:
        self.found: dict[ast.AST, list[int | None]] = {}
        self._kept: set[str] = set()
        self.reads_own = False
        self._scopes: list[tuple[bool, dict[str, object | None]]] = []
        self._numbers: dict[object, int] = {}
        for node in _active(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._kept.update(_WORD.findall(node.value))
            elif isinstance(node, ast.Name | ast.Attribute):
                self.reads_own |= (node.id if isinstance(node, ast.Name) else node.attr) in READ_OWN

    def visit_Name(self, node: ast.Name) -> None:
        self._note(node, node.id)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._note(node, node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self._note(node, node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self._note(node, node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._note(node, node.rest)
        self.generic_visit(node)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self._note(node, *node.names)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [one for one in (arguments.vararg, arguments.kwarg) if one]
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        outer = [*arguments.defaults, *arguments.kw_defaults]
        if not isinstance(node, ast.Lambda):
            outer += [*node.decorator_list, node.returns, *(one.annotation for one in every)]
        self._visit(outer)
        own = {**self._variables(body), **dict.fromkeys(one.arg for one in every)}
        own |= {one.name: None for one in getattr(node, "type_params", ())}
        self._inside(True, own, body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815
    visit_Lambda = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit([*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)])
        self._inside(False, dict.fromkeys(self._variables(node.body)), node.body)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        first, *others = node.generators
        self._visit([first.iter])
        targets = [
            one.id
            for generator in node.generators
            for one in ast.walk(generator.target)
            if isinstance(one, ast.Name)
        ]
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        inner: list[ast.AST] = [first.target, *first.ifs]
        for other in others:
            inner += [other.iter, other.target, *other.ifs]
        self._inside(True, {name: self._variable(name) for name in targets}, [*inner, *results])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def _inside(
        self, is_visible_inside: bool, names: dict[str, object | None], nodes: Iterable[ast.AST]
    ) -> None:
        self._scopes.append((is_visible_inside, names))
        self._visit(nodes)
        self._scopes.pop()

    def _visit(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _note(self, node: ast.AST, *names: str | None) -> None:
        numbers = [None if name is None else self._number(name) for name in names]
        if any(number is not None for number in numbers):
            self.found[node] = numbers

    def _number(self, name: str) -> int | None:
        for depth, (is_visible_inside, scope) in enumerate(reversed(self._scopes)):
            if name in scope and (is_visible_inside or depth == 0):
                variable = scope[name]
                return None if variable is None else self._numbers.setdefault(variable, len(self._numbers))
        return None

    def _variable(self, name: str) -> object | None:
        """A new variable; None for a name that stays. Names with two underscores are changed by the class around them, or have a meaning."""
        return None if name in self._kept or name.startswith("__") else object()

    def _variables(self, body: Iterable[ast.AST]) -> dict[str, object | None]:
        """The names that the body of a function binds."""
        stay: set[str] = set()
        bound: set[str] = set()
        outer: set[str] = set()
        pending = list(body)
        while pending:
            node = pending.pop()
            if isinstance(node, ast.Global):
                stay.update(node.names)
            elif isinstance(node, ast.Nonlocal):
                outer.update(node.names)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                stay.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            elif isinstance(node, _DEFINITIONS):
                name = node.name
                stay.add(name if isinstance(name, str) else name.id)
                pending += _outside(node)
                continue
            elif isinstance(node, COMPREHENSIONS):
                bound.update(_named_inside(node))
                continue
            elif isinstance(node, ast.Lambda):
                pending += _outside(node)
                continue
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                bound.add(node.id)
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                bound.add(node.name)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                bound.add(node.rest)
            pending += ast.iter_child_nodes(node)
        # In the order of their names: only which are variables matters, and not in what order.
        found = {name: self._variable(name) for name in sorted(bound - stay - outer)}
        return {**found, **dict.fromkeys(stay - outer)}


def _named_inside(comprehension: ast.AST) -> Iterator[str]:
    """The names that `:=` binds in a comprehension, which are those of the function around it."""
    pending = [comprehension]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.NamedExpr):
            yield node.target.id
        if not isinstance(node, ast.Lambda):
            pending += ast.iter_child_nodes(node)


def _outside(node: ast.AST) -> list[ast.AST]:
    """The parts of a definition that are evaluated where it stands, and can bind names there by `:=`."""
    found: list[ast.AST | None] = [*getattr(node, "decorator_list", ())]
    if isinstance(node, _FUNCTIONS):
        found += [*node.args.defaults, *node.args.kw_defaults]
    if isinstance(node, ast.ClassDef):
        found += [*node.bases, *(keyword.value for keyword in node.keywords)]
    return [one for one in found if one is not None]


def _active(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all inside it, without statements that do nothing, such as docstrings."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, ast.stmt) and is_idle(one):
            continue
        yield one
        pending += ast.iter_child_nodes(one)
