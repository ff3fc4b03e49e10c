"""The code index: a digest of every name of the project's code, so that code which a step used beyond its closure is known
by name, and whether it is the same now.

Names: `models.py:tree` is a function or class, `models.py:` is what an import of the file runs, without the bodies of its
functions, `models.py` is all of it; `config.yaml` is a file that is no module; `*` is all files, `/` their names. Comments and
layout of modules change none of the digests. Docstrings and names of local variables are in `models.py:<spelling>` only, and in `*` of
a project that has code which reads some.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from periplus.sdk.compiler.closure.canonical import Spelling, digest, digest_without_bodies
from periplus.sdk.discovery.names import DIGESTS_FILE, EVERYTHING, INDEX_FILE, LISTING, SPELLING

if TYPE_CHECKING:
    from pathlib import Path

    from periplus.sdk.compiler.closure.modules import Module


MAX_INDEX_BYTES = 96 * 1024
"""Of the index as JSON: Kubernetes takes 256 KiB for all annotations of an object. A larger index has digests of files only, or
one digest of everything.
"""

DIGEST_LETTERS = 32
"""Of each digest: 128 bits are enough to tell two versions of a project apart."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class CodeIndex:
    """`digests`: name → digest. `statements`: for each module, the last line of each statement of its top level, and the name
    in it that a digest has, or "" for what is part of `models.py:`. `readers`: modules with code that reads docstrings or variables
    of other functions.
    """

    digests: dict[str, str]
    statements: dict[str, list[tuple[int, str]]]
    readers: list[str]

    def travelling(self, closures: Mapping[str, Mapping[str, list[int]]]) -> dict[str, bytes]:
        """The files of the code archive from which a step's process tells what is beyond the closure of its function.

        `closures`: the statements of each, by file, by the entry `module:function`.
        """
        places: dict[str, Any] = {
            "statements": self.statements,
            "readers": self.readers,
            "closures": closures,
        }
        documents = {INDEX_FILE: places, DIGESTS_FILE: self.digests}
        return {
            name: json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
            for name, document in documents.items()
        }


def code_index(files: Mapping[str, Path], modules: Iterable[Module]) -> CodeIndex:
    """The index of the files of a code archive; `modules` are those that were parsed, some of them perhaps not in it."""
    raw = {name: _short(hashlib.sha256(path.read_bytes())) for name, path in files.items()}
    by_file = {module.file: module for module in modules if module.file in files}
    names, statements, readers = dict(raw), {}, []
    for file, module in by_file.items():
        if module.opaque is None:
            statements[file] = spans(module)
            names |= _names(module)
            if module.reads_spelling:
                readers.append(file)
    whole = [(name, names[name]) for name in sorted(raw)]
    if readers:
        whole += [(name, names[name]) for name in sorted(names) if name.endswith(SPELLING)]
    everything = _short(hashlib.sha256(json.dumps(whole).encode()))
    listing = _short(hashlib.sha256(json.dumps(sorted(raw)).encode()))
    for found in (names, {name: names[name] for name in raw}, {}):
        found |= {EVERYTHING: everything, LISTING: listing}
        if len(json.dumps(found)) <= MAX_INDEX_BYTES:
            break
    return CodeIndex(dict(sorted(found.items())), statements, sorted(readers))


def spans(module: Module) -> list[tuple[int, str]]:
    """The last line of each statement of a module, with its name. Statements that share a line are one."""
    found: list[tuple[int, str]] = []
    for node in module.body:
        name = node.name if isinstance(node, _DEFINITIONS) else ""
        end = node.end_lineno or node.lineno
        if found and found[-1][0] >= node.lineno:
            found[-1] = (max(end, found[-1][0]), "")
        else:
            found.append((end, name))
    return found


def _names(module: Module) -> dict[str, str]:
    definitions: dict[str, list[ast.stmt]] = {}
    for node in module.body:
        if isinstance(node, _DEFINITIONS):
            definitions.setdefault(node.name, []).append(node)
    digests = {f"{module.file}:{name}": _of(digest(nodes)) for name, nodes in definitions.items()}
    digests[f"{module.file}:"] = _of(digest_without_bodies(module.body))
    whole = _short(hashlib.sha256(json.dumps(sorted(digests.items())).encode()))
    spelling = _of(digest(module.body, Spelling(docstrings=True, local_names=True)))
    return {**digests, module.file: whole, module.file + SPELLING: spelling}


def _of(whole: str) -> str:
    return whole.removeprefix("sha256:")[:DIGEST_LETTERS]


def _short(hashed: Any) -> str:
    return str(hashed.hexdigest()[:DIGEST_LETTERS])
