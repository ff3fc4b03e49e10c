"""Code identity: digests of the project's code that a step depends on, which comments and layout do not change."""

from __future__ import annotations

import ast
import contextlib
import hashlib
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from periplus.sdk.compiler.closure.canonical import digest
from periplus.sdk.compiler.closure.index import spans
from periplus.sdk.compiler.closure.project import Project
from periplus.sdk.compiler.closure.traversal import CodeTraversal
from periplus.sdk.discovery.names import WHOLE
from periplus.sdk.errors import PipelineError

if TYPE_CHECKING:
    from periplus.sdk.compiler.closure.modules import Module

__all__ = ["Closure", "Project", "closure"]

# A template carries the digests as an annotation, so a closure of more names has one digest for each file.
MAX_NAMES = 64


@dataclass(frozen=True)
class Closure:
    """The code that one function depends on.

    `digests`: `helpers.py:normalise` → `sha256:…` for each name used; `helpers.py:<imports>` for what the used
    imported names refer to, `helpers.py:<module>` for statements that run on import, `helpers.py` for a module
    used as a whole. `files`: the files that an import of it needs, by their path from the import root; all modules, if it imports some by
    names that are not known. `statements`: for each of
    these, which of the spans of its code index are in the digests; WHOLE for a file that is in them as a whole.
    """

    digests: dict[str, str]
    files: dict[str, Path]
    statements: dict[str, list[int]] = field(default_factory=dict)


def closure(project: Project, module: str, name: str) -> Closure:
    """The closure of one function of a project; empty when the module is not the project's own.

    Raises PipelineError when a file that it needs cannot be parsed.
    """
    traversal = CodeTraversal(project)
    traversal.start(module, name)
    digests: dict[str, str] = {}
    for reached in sorted(traversal.reached):
        digests.update(_digests(traversal, project.module(reached)))
    if len(digests) > MAX_NAMES:
        digests = _by_file(digests)
    files = {project.module(reached).file: project.file(reached) for reached in sorted(traversal.reached)}
    for other in project.every_module() if traversal.named_module else ():
        with contextlib.suppress(PipelineError):  # one that no step imports may be broken
            files[project.module(other).file] = project.file(other)
    statements = {
        module.file: _statements(traversal, module)
        for module in map(project.module, sorted(traversal.reached))
    }
    return Closure(digests, {name: path for name, path in files.items() if path}, statements)


def _statements(traversal: CodeTraversal, module: Module) -> list[int]:
    if module.opaque is not None or module.name in traversal.whole:
        return WHOLE
    included = traversal.included.get(module.name, set())
    nodes = {one.node for one in included}
    ends = [end for end, _ in spans(module)]
    complete = dict.fromkeys(range(len(ends)), True)
    for node in module.body:
        # Imports run no code of this module.
        if node not in nodes and not isinstance(node, ast.Import | ast.ImportFrom):
            complete[bisect_left(ends, node.lineno)] = False
    return [position for position, is_complete in complete.items() if is_complete]


def _digests(traversal: CodeTraversal, module: Module) -> dict[str, str]:
    if module.opaque is not None:
        return {module.file: "sha256:" + hashlib.sha256(module.opaque).hexdigest()}
    digests = {}
    included = [one for one in module.statements if one in traversal.included.get(module.name, ())]
    if module.name in traversal.whole:
        digests[module.file] = digest([one.node for one in included], traversal.spelling)
    else:
        bound = sorted({name for one in included if one not in module.effects for name in one.names})
        for name in bound:
            nodes = [one.node for one in module.bindings[name] if one in included]
            digests[f"{module.file}:{name}"] = digest(nodes, traversal.spelling)
        if effects := [one.node for one in included if one in module.effects]:
            digests[f"{module.file}:<module>"] = digest(effects, traversal.spelling)
    if traversal.spelling.docstrings and module.docstring and included:
        digests[f"{module.file}:__doc__"] = _sha256([module.docstring])
    names = module.imports if module.name in traversal.whole else traversal.bound.get(module.name, ())
    if names:
        lines = [
            f"{name}={one!r}" for name in sorted(names) for one in sorted(module.imports[name], key=repr)
        ]
        digests[f"{module.file}:<imports>"] = _sha256(lines)
    return digests


def _by_file(digests: dict[str, str]) -> dict[str, str]:
    files: dict[str, list[str]] = {}
    for name, one in sorted(digests.items()):
        files.setdefault(name.partition(":")[0], []).append(f"{name} {one}")
    return {file: _sha256(lines) for file, lines in files.items()}


def _sha256(lines: list[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()
