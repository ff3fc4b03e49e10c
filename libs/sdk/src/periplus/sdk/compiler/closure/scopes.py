"""The names that a statement takes from outside itself, by Python's rules of scope."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from periplus.sdk.compiler.closure.canonical import NOTHING, Spelling
from periplus.sdk.compiler.closure.local_names import READ_OTHERS, READ_OWN

# With these, code can use any name of its module, or any module of the project.
_ANY_NAME = frozenset({"globals", "eval", "exec", "__subclasses__"})
_ANY_MODULE = frozenset({"__import__", "run_path", "run_module", "exec_module", "load_module"})
_NAMED_MODULE = "import_module"
_READ_DOCSTRINGS = frozenset({"__doc__", "getdoc", "getsource", "getsourcelines"})
READ_SPELLING = _READ_DOCSTRINGS | READ_OTHERS

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True)
class Reference:
    """A name with the attributes taken from it: `helpers.normalise` is ("helpers", "normalise").

    `level` and `module` are set for what an import inside a function names.
    """

    path: tuple[str, ...]
    module: str | None = None
    level: int = 0


@dataclass
class Uses:
    """What a piece of code uses.

    `imported_modules`: modules that it imports, with the level of a relative import. `any_name`, `any_module`: it looks
    names or modules up at run time, so any may be used; `named_module`: by `import_module`, which a step's process reports.
    `spelling`: what it reads of the spelling of code.
    """

    references: set[Reference] = field(default_factory=set)
    imported_modules: set[tuple[str, int]] = field(default_factory=set)
    any_name: bool = False
    any_module: bool = False
    named_module: bool = False
    spelling: Spelling = NOTHING

    def notice(self, names: Sequence[str]) -> None:
        """Note what follows from the use of a name with these attributes, whatever it is a name of."""
        self.any_name |= not _ANY_NAME.isdisjoint(names)
        self.any_module |= not _ANY_MODULE.isdisjoint(names) or tuple(names[:2]) == ("sys", "modules")
        self.named_module |= _NAMED_MODULE in names
        if not _READ_DOCSTRINGS.isdisjoint(names):
            self.spelling |= Spelling(docstrings=True)
        if not READ_OTHERS.isdisjoint(names):
            self.spelling |= Spelling(local_names=True)


def uses(node: ast.AST) -> Uses:
    """The references of a module-level statement or expression."""
    collector = _NameCollector()
    collector.visit(node)
    return collector.found


def imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Reference]]:
    """Each name that an import binds, with what it refers to."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            if alias.asname:
                yield alias.asname, Reference((), alias.name)
            else:
                yield alias.name.split(".")[0], Reference((), alias.name.split(".")[0])
    else:
        for alias in statement.names:
            yield (
                alias.asname or alias.name,
                Reference((alias.name,), statement.module or "", statement.level),
            )


class _NameCollector(ast.NodeVisitor):
    """Visits one statement, with a stack of the scopes around the current node."""

    def __init__(self) -> None:
        self.found = Uses()
        # Each scope maps a bound name to what an import binds it to, or to None for a local variable.
        self.scopes: list[tuple[bool, dict[str, Reference | None]]] = []
        self._called: set[ast.expr] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self._reads_variables(node, node.id)
        self._use(node.id, ())

    def visit_Call(self, node: ast.Call) -> None:
        self._called.add(node.func)
        if isinstance(node.func, ast.Name) and node.func.id == "eval" and not node.keywords:
            match node.args:
                case [ast.Constant(value=str(text))]:
                    with suppress(SyntaxError, ValueError):
                        self._evaluated(ast.parse(text.strip(), mode="eval").body)
                        return
        self.generic_visit(node)

    def _evaluated(self, expression: ast.expr) -> None:
        """A text that is evaluated uses what the same expression in its place would, or names of the module, as it does not see the
        variables of functions around.
        """
        self.visit(expression)
        names = {one.id for one in ast.walk(expression) if isinstance(one, ast.Name)}
        self.found.references |= {Reference((name,)) for name in {*names, "eval"}}

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            attributes.insert(0, value.attr)
            value = value.value
        self._reads_variables(node, attributes[-1])
        self.found.notice(attributes)
        if isinstance(value, ast.Name):
            self.found.notice((value.id, attributes[0]))
            self._use(value.id, tuple(attributes))
        else:
            self.visit(value)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.imported_modules.update((alias.name, 0) for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.found.imported_modules.add((node.module or "", node.level))
        for _, reference in imported(node):
            self._add(reference)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outer in (*node.decorator_list, *_defaults(node.args)):
            self.visit(outer)
        self._type_parameters(node)
        for argument in _arguments(node.args):
            self._annotation(argument.annotation)
        self._annotation(node.returns)
        self._function(node, node.body)
        self.scopes.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for default in _defaults(node.args):
            self.visit(default)
        self._function(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for outer in (*node.decorator_list,):
            self.visit(outer)
        self._type_parameters(node)
        for outer in (*node.bases, *(keyword.value for keyword in node.keywords)):
            self.visit(outer)
        # A class's own names do not hide the module's: `timeout = timeout` reads the module's, and functions in
        # it see the module's only.
        own = {name: bound for name, bound in _bound(node.body).items() if bound is not None}
        self.scopes.append((False, {**own}))
        for statement in node.body:
            self.visit(statement)
        self.scopes.pop()
        self.scopes.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        self._annotation(node.annotation)
        if node.value:
            self.visit(node.value)

    def _comprehension(self, node: Comprehension) -> None:
        self.visit(node.generators[0].iter)
        targets = [name for one in node.generators for name in _targets(one.target)]
        self.scopes.append((True, dict.fromkeys(targets)))
        for index, one in enumerate(node.generators):
            for part in ([] if index == 0 else [one.iter]) + one.ifs:
                self.visit(part)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def _function(self, node: Function, body: list[Any]) -> None:
        names: dict[str, Reference | None] = dict.fromkeys(one.arg for one in _arguments(node.args))
        names.update(_bound(body))
        self.scopes.append((True, names))
        for statement in body:
            self.visit(statement)
        self.scopes.pop()

    def _type_parameters(self, node: ast.AST) -> None:
        """Open a scope with the names of `def f[T]` and `class C[T]`."""
        parameters = getattr(node, "type_params", [])
        self.scopes.append((True, {one.name: None for one in parameters}))
        for one in parameters:
            self.visit(one)

    def _annotation(self, annotation: ast.expr | None) -> None:
        if annotation is None:
            return
        self.visit(annotation)
        for part in ast.walk(annotation):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                with suppress(SyntaxError):  # not every text in an annotation is a quoted type
                    self.visit(ast.parse(part.value, mode="eval").body)

    def _reads_variables(self, node: ast.expr, name: str) -> None:
        """What calls a function that reads the caller's variables keeps its names; whoever else calls it must keep them too."""
        if name in READ_OWN and node not in self._called:
            self.found.spelling |= Spelling(local_names=True)

    def _use(self, name: str, attributes: tuple[str, ...]) -> None:
        for depth, (is_visible_inside, scope) in enumerate(reversed(self.scopes)):
            if name in scope and (is_visible_inside or depth == 0):
                bound = scope[name]
                if bound is not None:
                    self._add(Reference((*bound.path, *attributes), bound.module, bound.level))
                return
        self._add(Reference((name, *attributes)))

    def _add(self, reference: Reference) -> None:
        self.found.notice(reference.path)
        self.found.references.add(reference)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    stars = [one for one in (arguments.vararg, arguments.kwarg) if one]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *stars]


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [*arguments.defaults, *(one for one in arguments.kw_defaults if one)]


def _targets(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _bound(body: list[Any]) -> dict[str, Reference | None]:
    """The names that a function's or class's own body binds."""
    names: dict[str, Reference | None] = {}
    outer: set[str] = set()
    pending = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(imported(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = None
            pending += [*node.decorator_list]
            continue
        elif isinstance(node, ast.Global):
            outer.update(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.setdefault(node.id, None)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names[node.name] = None
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names[node.rest] = None
        elif isinstance(node, Comprehension):
            # Its targets are local to it, but `:=` inside it binds in this scope.
            inside = [one for one in ast.walk(node) if isinstance(one, ast.NamedExpr)]
            names.update(dict.fromkeys(one.target.id for one in inside))
            continue
        if not isinstance(node, ast.Lambda):
            pending += ast.iter_child_nodes(node)
    return {name: bound for name, bound in names.items() if name not in outer}
