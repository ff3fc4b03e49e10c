"""The modules of a project: the statements that bind their names, their imports, and what runs on import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from periplus.sdk.compiler.closure.canonical import NOTHING
from periplus.sdk.compiler.closure.idle import is_idle
from periplus.sdk.compiler.closure.local_names import COMPREHENSIONS
from periplus.sdk.compiler.closure.scopes import READ_SPELLING, Reference, Uses, imported, uses
from periplus.sdk.errors import PipelineError


@dataclass(frozen=True, eq=False)
class Statement:
    """One statement of a module's top level."""

    node: ast.stmt
    names: frozenset[str]

    @cached_property
    def uses(self) -> Uses:
        """The names and modules that it uses."""
        return uses(self.node)


@dataclass
class Module:
    """A module of the project, parsed and never imported.

    `bindings`: name → the statements that bind it. `imports`: name → what an import binds it to. `imported_modules`:
    the modules that its import imports. `stars`: modules of an `import *`. `effects`: statements that do
    something when the module is imported, beyond binding a name. `body`: the whole of its top level.
    """

    name: str
    file: str
    package: str
    opaque: bytes | None = None
    docstring: str | None = None
    statements: list[Statement] = field(default_factory=list)
    bindings: dict[str, list[Statement]] = field(default_factory=dict)
    imports: dict[str, set[Reference]] = field(default_factory=dict)
    imported_modules: set[tuple[str, int]] = field(default_factory=set)
    stars: set[tuple[str, int]] = field(default_factory=set)
    effects: list[Statement] = field(default_factory=list)
    body: list[ast.stmt] = field(default_factory=list)

    @cached_property
    def reads_spelling(self) -> bool:
        """Whether code in it may read docstrings, or names of variables of other functions."""
        return any(one.uses.spelling != NOTHING for one in self.statements) or any(
            not READ_SPELLING.isdisjoint(reference.path)
            for references in self.imports.values()
            for reference in references
        )

    def absolute(self, module: str, level: int) -> str:
        """The full name of a module as an import in this one names it."""
        if level == 0:
            return module
        parts = self.package.split(".") if self.package else []
        parts = parts[: len(parts) - (level - 1)]
        return ".".join([*parts, module] if module else parts)


def read_module(name: str, path: Path, file: str) -> Module:
    """Read a module from its file; `file` is what digests call it. Raises PipelineError if it cannot be parsed."""
    is_package = path.name == "__init__.py"
    package = name if is_package else name.rpartition(".")[0]
    data = path.read_bytes()
    if path.suffix != ".py":
        return Module(name, file, package, opaque=data)
    try:
        tree = ast.parse(data, file)
    except (SyntaxError, ValueError) as broken:
        raise PipelineError(f"{file} cannot be parsed: {broken}") from broken
    module = Module(name, file, package, docstring=ast.get_docstring(tree, clean=False), body=tree.body)
    for node in tree.body:
        _add(module, node)
    _strip_sdk_decorators(module)
    return module


def _add(module: Module, node: ast.stmt) -> None:
    if is_idle(node) or _is_main(node):
        return
    if _is_type_checking(node):
        assert isinstance(node, ast.If)
        _add_imports(module, node.body)
        for other in node.orelse:
            _add(module, other)
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        _add_imports(module, [node])
        module.imported_modules |= _imported_modules(node)
        return
    statement = Statement(node, frozenset(_names(node)))
    module.statements.append(statement)
    for name in statement.names:
        module.bindings.setdefault(name, []).append(statement)
    if isinstance(node, _DEFINES):
        return
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and _binds_only_names(node):
        return
    module.effects.append(statement)
    inner = [one for one in ast.walk(node) if isinstance(one, ast.Import | ast.ImportFrom)]
    _add_imports(module, inner)
    module.imported_modules |= {one for node in inner for one in _imported_modules(node)}


_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, getattr(ast, "TypeAlias", ast.ClassDef))


def _add_imports(module: Module, nodes: Iterable[ast.stmt]) -> None:
    for node in nodes:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name, reference in imported(node):
            if name == "*":
                module.stars.add((reference.module or "", reference.level))
            else:
                module.imports.setdefault(name, set()).add(reference)


def _imported_modules(node: ast.Import | ast.ImportFrom) -> set[tuple[str, int]]:
    if isinstance(node, ast.Import):
        return {(alias.name, 0) for alias in node.names}
    return {(node.module or "", node.level)}


def _names(node: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement binds, those inside its blocks too."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    pending: list[ast.AST] = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield one.name
        elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
            yield one.id
        elif isinstance(one, COMPREHENSIONS):
            # Its targets are local to it; names that `:=` binds inside it are the module's.
            yield from (inner.target.id for inner in ast.walk(one) if isinstance(inner, ast.NamedExpr))
        elif not isinstance(one, ast.Lambda):
            pending += ast.iter_child_nodes(one)


def _binds_only_names(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [one for target in targets for one in ast.walk(target)]
    plain = (ast.Name, ast.Tuple, ast.List, ast.Starred, ast.expr_context)
    return all(isinstance(one, plain) for one in names) and not any(
        isinstance(one, ast.Name) and one.id == "_" for one in names
    )


def _is_main(node: ast.stmt) -> bool:
    """Whether this is `if __name__ == "__main__":`, which no import runs."""
    return (
        isinstance(node, ast.If)
        and not node.orelse
        and ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")
    )


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def _strip_sdk_decorators(module: Module) -> None:
    """Take @step and @pipeline off: they say how a function runs, not what it computes."""
    for statement in module.statements:
        node = statement.node
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [one for one in node.decorator_list if not _of_sdk(module, one)]


def _of_sdk(module: Module, decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name, *attributes = ast.unparse(called).split(".")
    if ("periplus.sdk", 0) in module.stars and name in ("step", "pipeline"):
        return name not in module.bindings
    meant = {".".join([one.module or "", *one.path, *attributes]) for one in module.imports.get(name, ())}
    return any(one.startswith("periplus.sdk.") for one in meant)
