"""The traversal from one function to all code of the project that it can reach."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from periplus.sdk.compiler.closure.canonical import NOTHING, Spelling
from periplus.sdk.compiler.closure.modules import Module, Statement
from periplus.sdk.compiler.closure.project import Project
from periplus.sdk.compiler.closure.scopes import Reference, Uses


@dataclass
class CodeTraversal:
    """The statements, names and modules that were reached so far.

    `included`: statements by module, in no order. `bound`: the imported names used, by module. `whole`: modules
    of which every statement counts. `reached`: modules that are imported. `named_module`, `spelling`: as in Uses.
    """

    project: Project
    included: dict[str, set[Statement]] = field(default_factory=dict)
    bound: dict[str, set[str]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    named_module: bool = False
    spelling: Spelling = NOTHING
    _resolved: set[tuple[str, Reference]] = field(default_factory=set)

    def start(self, module: str, name: str) -> None:
        """Include a name of a module with all that it needs; the whole module if the name is not to be found."""
        self._path(module, (name,))

    def _reach(self, name: str) -> None:
        """Importing a module runs its packages, its imports, and its statements that do something."""
        if not name or name in self.reached:
            return
        self._reach(name.rpartition(".")[0])
        if self.project.file(name) is None:
            return
        self.reached.add(name)
        module = self.project.module(name)
        if module.opaque is not None:
            self.whole.add(name)
        for imported_modules in sorted(module.imported_modules):
            self._reach(module.absolute(*imported_modules))
            self._reach_submodules(module, imported_modules)
        for star in sorted(module.stars):
            self._whole(module.absolute(*star))
        for statement in module.statements:
            if statement in module.effects or self._has_side_effects(module, statement):
                self._include(module, statement)

    def _reach_submodules(self, module: Module, imported_modules: tuple[str, int]) -> None:
        """`from pkg import mod` imports pkg.mod as well."""
        for references in module.imports.values():
            for reference in references:
                if (reference.module, reference.level) == imported_modules and reference.path:
                    self._reach(f"{module.absolute(*imported_modules)}.{reference.path[0]}")

    def _whole(self, name: str) -> None:
        if name in self.whole or self.project.file(name) is None:
            return
        self.whole.add(name)
        self._reach(name)
        module = self.project.module(name)
        for statement in module.statements:
            self._include(module, statement)
        for imported in module.imports:
            for reference in module.imports[imported]:
                if reference.path:
                    self._resolve(module, Reference((imported,)))

    def _include(self, module: Module, statement: Statement) -> None:
        included = self.included.setdefault(module.name, set())
        if statement in included:
            return
        included.add(statement)
        used = statement.uses
        for imported_modules in sorted(used.imported_modules):
            self._reach(module.absolute(*imported_modules))
        for reference in sorted(used.references, key=repr):
            self._resolve(module, reference)
        self._notice(module, used)

    def _notice(self, module: Module, used: Uses) -> None:
        self.spelling |= used.spelling
        self.named_module |= used.named_module
        if used.any_name:
            self._whole(module.name)
        if used.any_module:
            for name in self.project.every_module():
                self._whole(name)

    def _resolve(self, module: Module, reference: Reference) -> None:
        if (module.name, reference) in self._resolved:
            return
        self._resolved.add((module.name, reference))
        if reference.module is not None:
            self._path(module.absolute(reference.module, reference.level), reference.path)
            return
        name, *rest = reference.path
        for statement in module.bindings.get(name, ()):
            self._include(module, statement)
        for bound in sorted(module.imports.get(name, ()), key=repr):
            self.bound.setdefault(module.name, set()).add(name)
            used = Uses()
            used.notice((*bound.path, *rest))
            self._notice(module, used)
            self._path(module.absolute(bound.module or "", bound.level), (*bound.path, *rest))

    def _path(self, name: str, path: tuple[str, ...]) -> None:
        """Follow attributes from a module to the name in it that they mean."""
        if self.project.file(name) is None:
            if path and self.project.is_folder(name):
                self._path(f"{name}.{path[0]}", path[1:])
            return
        self._reach(name)
        module = self.project.module(name)
        if not path:
            self._whole(name)
        elif path[0] in module.bindings or path[0] in module.imports:
            self._resolve(module, Reference(path))
        elif self.project.file(f"{name}.{path[0]}") or self.project.is_folder(f"{name}.{path[0]}"):
            self._path(f"{name}.{path[0]}", path[1:])
        elif path[0] not in ("__name__", "__file__"):
            self._whole(name)

    def _has_side_effects(self, module: Module, statement: Statement) -> bool:
        """Whether a definition or assignment runs code of the project, when it is imported, that may have side effects.

        A decorator of the project may register the function, a base class its subclass, and a called function may
        do anything. Decorators, base classes and functions of other packages are assumed to have no side effects.
        """
        return any(
            self._registers(module, part, set())
            if isinstance(part, ast.ClassDef)
            else self._is_of_project(module, part, classes=not isinstance(part, ast.Call))
            for part in _run_on_import(statement.node)
        )

    def _is_of_project(self, module: Module, node: ast.expr, *, classes: bool) -> bool:
        """Whether a decorator or a called expression is defined in the project."""
        path: list[str] = []
        while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
            if isinstance(node, ast.Attribute):
                path.insert(0, node.attr)
            node = node.func if isinstance(node, ast.Call) else node.value
        if not isinstance(node, ast.Name):
            return not isinstance(node, ast.Constant | ast.JoinedStr)
        found = self._definitions(module, (node.id, *path), set())
        return any(classes or not isinstance(one, ast.ClassDef) for _, one in found)

    def _registers(self, module: Module, node: ast.ClassDef, checked: set[ast.ClassDef]) -> bool:
        """Whether making this class runs a metaclass or an `__init_subclass__` of the project."""
        if node in checked:
            return False
        checked.add(node)
        if any(keyword.arg == "metaclass" or keyword.arg is None for keyword in node.keywords):
            return True
        for base in node.bases:
            path = tuple(ast.unparse(base).split("[")[0].split("."))
            for owner, parent in self._definitions(module, path, set()):
                if not isinstance(parent, ast.ClassDef):
                    return True  # a class that something made
                hooks = [one for one in parent.body if isinstance(one, ast.FunctionDef)]
                if any(one.name == "__init_subclass__" for one in hooks):
                    return True
                if self._registers(owner, parent, checked):
                    return True
        return False

    def _definitions(
        self, module: Module, path: tuple[str, ...], checked: set[tuple[str, tuple[str, ...]]]
    ) -> Iterator[tuple[Module, ast.stmt | None]]:
        """What binds a name with attributes in the project, through imports and re-exports; None for what no statement binds."""
        name, *rest = path
        for statement in module.bindings.get(name, ()):
            yield module, statement.node
        for bound in module.imports.get(name, ()):
            source = module.absolute(bound.module or "", bound.level)
            yield from self._defined_in(source, (*bound.path, *rest), checked)
        if name not in module.bindings and name not in module.imports:
            for star in module.stars:
                for found in self._defined_in(module.absolute(*star), path, checked):
                    if found[1] is not None:
                        yield found

    def _defined_in(
        self, name: str, path: tuple[str, ...], checked: set[tuple[str, tuple[str, ...]]]
    ) -> Iterator[tuple[Module, ast.stmt | None]]:
        if (name, path) in checked:
            return
        checked.add((name, path))
        if self.project.file(name) is None:
            if path and self.project.is_folder(name):
                yield from self._defined_in(f"{name}.{path[0]}", path[1:], checked)
            return
        module = self.project.module(name)
        found = list(self._definitions(module, path, checked)) if path else []
        if found or (path and path[0] in module.imports):
            yield from found
        elif path and (self.project.file(f"{name}.{path[0]}") or self.project.is_folder(f"{name}.{path[0]}")):
            yield from self._defined_in(f"{name}.{path[0]}", path[1:], checked)
        else:
            yield module, None


def _run_on_import(statement: ast.stmt) -> Iterator[ast.expr | ast.ClassDef]:
    """Classes, decorators and calls of a definition or assignment, but those in bodies of functions."""
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef):
            yield node
        if isinstance(node, ast.Call):
            yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            pending += getattr(node, "decorator_list", ())
            if isinstance(node, ast.Lambda):
                continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from (one for one in node.decorator_list if not isinstance(one, ast.Call))
            yield from (one.func for one in node.decorator_list if isinstance(one, ast.Call))
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)
