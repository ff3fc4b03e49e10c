"""The traversal from one function to all code of the project that it can reach."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from periplus.sdk.compiler.closure.modules import Module, Statement
from periplus.sdk.compiler.closure.project import Project
from periplus.sdk.compiler.closure.scopes import Reference


@dataclass
class CodeTraversal:
    """The statements, names and modules that were reached so far.

    `included`: statements by module, in no order. `bound`: the imported names used, by module. `whole`: modules
    of which every statement counts. `reached`: modules that are imported.
    """

    project: Project
    included: dict[str, set[Statement]] = field(default_factory=dict)
    bound: dict[str, set[str]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    docstrings: bool = False
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
        self.docstrings |= used.docstrings
        for imported_modules in sorted(used.imported_modules):
            self._reach(module.absolute(*imported_modules))
        for reference in sorted(used.references, key=repr):
            self._resolve(module, reference)
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
        """Whether a definition or assignment runs code of the project that may have side effects.

        A decorator of the project may register the function, a base class its subclass, and a called function may
        do anything. Decorators, base classes and functions of other packages are assumed to have no side effects.
        """
        node = statement.node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if any(self._is_of_project(module, one) for one in node.decorator_list):
                return True
            return isinstance(node, ast.ClassDef) and self._registers(module, node, set())
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value:
            calls = [one for one in ast.walk(node.value) if isinstance(one, ast.Call)]
            return any(self._is_of_project(module, one.func, classes=False) for one in calls)
        return False

    def _is_of_project(self, module: Module, node: ast.expr, *, classes: bool = True) -> bool:
        """Whether a called expression is defined in the project."""
        while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
            node = node.func if isinstance(node, ast.Call) else node.value
        if not isinstance(node, ast.Name):
            return not isinstance(node, ast.Constant)
        bound = module.bindings.get(node.id, [])
        if bound:
            return classes or not all(isinstance(one.node, ast.ClassDef) for one in bound)
        for reference in module.imports.get(node.id, ()):
            source = module.absolute(reference.module or "", reference.level)
            if self.project.file(source) is None:
                continue
            other = self.project.module(source)
            found = other.bindings.get(reference.path[0], []) if reference.path else []
            if classes or not found or not all(isinstance(one.node, ast.ClassDef) for one in found):
                return True
        return False

    def _registers(self, module: Module, node: ast.ClassDef, checked: set[ast.ClassDef]) -> bool:
        """Whether making this class runs a metaclass or an `__init_subclass__` of the project."""
        if node in checked:
            return False
        checked.add(node)
        if any(keyword.arg == "metaclass" or keyword.arg is None for keyword in node.keywords):
            return True
        for base in node.bases:
            for owner, parent in self._classes(module, base):
                hooks = [one for one in parent.body if isinstance(one, ast.FunctionDef)]
                if any(one.name == "__init_subclass__" for one in hooks):
                    return True
                if self._registers(owner, parent, checked):
                    return True
        return False

    def _classes(self, module: Module, base: ast.expr) -> list[tuple[Module, ast.ClassDef]]:
        """The classes of the project that a base names, following at most one import."""
        path = ast.unparse(base).split("[")[0].split(".")
        candidates = [(module, path[0])]
        for reference in module.imports.get(path[0], ()):
            source = module.absolute(reference.module or "", reference.level)
            whole = (*reference.path, *path[1:])
            if whole and self.project.file(source) is not None:
                candidates.append((self.project.module(source), whole[0]))
        return [
            (owner, statement.node)
            for owner, name in candidates
            for statement in owner.bindings.get(name, ())
            if isinstance(statement.node, ast.ClassDef)
        ]
