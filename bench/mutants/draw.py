"""Mutants of the example: each is one edit, and says of what kind it is and what to edit to find out which steps use what it edits."""

import ast
import builtins
import copy
import io
import random
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from mutants.oracle import Version

NEUTRAL = ("comment", "layout", "unused docstring", "local rename")
"""Kinds that change no key: each step must stay a hit."""

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add,), ast.Mult: (ast.Add, ast.Sub), ast.Div: (ast.Mult,),
    ast.Mod: (ast.Add,), ast.Pow: (ast.Mult,), ast.Gt: (ast.LtE, ast.GtE), ast.GtE: (ast.Lt, ast.Gt), ast.LtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,), ast.In: (ast.NotIn,), ast.Is: (ast.IsNot,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# The value of a name of a module or a class that raises at whatever is done with it.
_POISON = "__import__('types').SimpleNamespace(poison=1)"


@dataclass(frozen=True)
class Mutant:
    """`version`: the edited project. `file`: what was edited in it, if a file was. `probe`: a version in which each step that uses what
    was edited ends otherwise; None where a step that has it uses it.
    """

    kind: str
    what: str
    version: Version
    file: str = ""
    probe: Version | None = None


@dataclass(frozen=True)
class Site:
    """A place that can be edited: the text of `file` between two offsets, and the new text. `statement`: for the probe."""

    kind: str
    file: str
    start: int
    end: int
    new: str
    statement: ast.stmt | None = None
    owner: ast.AST | None = None


def draw(base: Version, count: int, seed: int, kinds: frozenset[str] = frozenset()) -> Iterator[Mutant]:
    """`count` mutants: kinds in turn, and of each kind one that is drawn. No two are equal."""
    chance = random.Random(seed)
    sites: dict[str, list[Site]] = {}
    for file, text in base.files.items():
        if file.endswith(".py") and text:
            for site in _sites(file, text):
                sites.setdefault(site.kind, []).append(site)
    for found in sites.values():
        chance.shuffle(found)
    others: dict[str, list[Mutant]] = {}
    for mutant in _others(base, chance):
        others.setdefault(mutant.kind, []).append(mutant)
    for each in others.values():
        chance.shuffle(each)
    made = 0
    names = sorted(name for name in {*sites, *others} if not kinds or name in kinds)
    while made < count and names:
        for name in list(names):
            if made == count:
                break
            mutant = (
                others[name].pop()
                if others.get(name)
                else _mutant(base, sites[name].pop())
                if sites.get(name)
                else None
            )
            if mutant is None:
                names.remove(name)
                continue
            made += 1
            yield mutant


def _mutant(base: Version, site: Site) -> Mutant:
    text = base.files[site.file]
    line = text.count("\n", 0, site.start) + 1
    edited = text[: site.start] + site.new + text[site.end :]
    what = f"{site.file}:{line}: {text[site.start : site.end]!r:.60} -> {site.new!r:.60}"
    probe = None
    if site.statement is not None:
        probe = _with_file(base, site.file, _poisoned(text, site.statement, site.owner))
    return Mutant(site.kind, what, _with_file(base, site.file, edited), site.file, probe)


def _with_file(base: Version, name: str, text: str) -> Version:
    return replace(base, files={**base.files, name: text})


def _poisoned(text: str, statement: ast.stmt, owner: ast.AST | None) -> str:
    """The text with a statement whose use ends a step: in a function it raises, a definition raises when it is called, and a name has a
    value with which nothing can be done.
    """
    start, end = _span(text, statement)
    indent = " " * statement.col_offset
    if isinstance(statement, _DEFINITIONS):
        name = statement.name
        new = f"class {name}:\n{indent}    def __init__(self, *a, **k): raise SystemError('poison')"
        if not isinstance(statement, ast.ClassDef):
            new = f"def {name}(*a, **k): raise SystemError('poison')"
        if any("step" in ast.unparse(one) for one in statement.decorator_list):
            return text[:start] + text[start:end] + text[end:]
        return text[:start] + new + text[end:]
    if isinstance(owner, ast.Module | ast.ClassDef):
        names = [
            one.id
            for one in ast.walk(statement)
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
        ]
        new = "; ".join(f"{name} = {_POISON}" for name in names) or "raise SystemError('poison')"
        return text[:start] + new + text[end:]
    return text[:start] + "raise SystemError('poison')" + text[end:]


def _span(text: str, node: ast.stmt | ast.expr | ast.alias) -> tuple[int, int]:
    lines = text.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    decorators = getattr(node, "decorator_list", [])
    first = decorators[0].lineno - 1 if decorators else node.lineno - 1
    column = decorators[0].col_offset - 1 if decorators else node.col_offset
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return offsets[first] + column, offsets[node.end_lineno - 1] + node.end_col_offset


def _sites(file: str, text: str) -> Iterator[Site]:
    tree = ast.parse(text)
    yield from _neutral(file, text, tree)
    functions = [one.name for one in tree.body if isinstance(one, ast.FunctionDef)]
    for statement, owner in _statements(tree):
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if is_docstring:
            continue
        place = {ast.Module: "module constant", ast.ClassDef: "class attribute"}.get(type(owner))

        def site(
            kind: str,
            node: ast.expr | ast.stmt | ast.alias,
            new: str,
            statement: ast.stmt = statement,
            owner: ast.AST = owner,
        ) -> Site:
            return Site(kind, file, *_span(text, node), new, statement, owner)

        defaults = set()
        if isinstance(statement, ast.FunctionDef):
            for default in (*statement.args.defaults, *filter(None, statement.args.kw_defaults)):
                defaults |= set(ast.walk(default))
        for node in _own_nodes(statement):
            kind = "default value" if node in defaults else None
            if isinstance(node, ast.Constant) and not isinstance(node.value, str) and node.value is not None:
                for new in _numbers(node.value):
                    yield site(kind or place or "constant", node, new)
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and "\n" not in node.value
                and not _in_fstring(statement, node)
            ):
                for new in _texts(node.value):
                    yield site(kind or place or "constant", node, repr(new))
            elif isinstance(node, ast.BinOp | ast.Compare | ast.BoolOp):
                for changed in _operators(node):
                    yield site("operator", node, f"({ast.unparse(changed)})")
            elif isinstance(node, ast.Call):
                yield from (site("called function", *one) for one in _calls(node, functions))
            elif isinstance(node, ast.Lambda) and node.args.defaults:
                yield site("default value", node.args.defaults[0], "11")
            elif isinstance(node, ast.Dict) and len(node.values) > 1 and all(node.values):
                yield site("dispatch table", node.values[0], ast.unparse(node.values[1]))
            elif isinstance(node, ast.IfExp):
                yield site("condition", node.test, f"(not {ast.unparse(node.test)})")
            elif isinstance(node, ast.comprehension):
                yield site("called function", node.iter, f"list({ast.unparse(node.iter)})[1:]")
        if isinstance(statement, ast.If | ast.While | ast.Assert):
            yield site("condition", statement.test, f"(not ({ast.unparse(statement.test)}))")
        if isinstance(
            statement, ast.Expr | ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Return | ast.Assert
        ):
            yield site("statement", statement, "pass")
        if isinstance(statement, ast.AugAssign):
            new = copy.deepcopy(statement)
            new.op = ast.Sub()
            yield site("operator", statement, ast.unparse(new))
        if isinstance(statement, _DEFINITIONS):
            yield from _definitions(file, text, statement, owner)
        if isinstance(statement, ast.ImportFrom):
            kind = "re-export" if file.endswith("__init__.py") else "import"
            yield from (replace(one, kind=kind) for one in _imports(file, text, statement, owner))


def _statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, ast.AST]]:
    """Each statement with the module, class or function that it is of."""

    def walk(owner: ast.AST, body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.AST]]:
        for statement in body:
            yield statement, owner
            inner = statement if isinstance(statement, _DEFINITIONS) else owner
            for name in ("body", "orelse", "finalbody"):
                yield from walk(inner, getattr(statement, name, []))
            for more in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from walk(inner, more.body)

    yield from walk(tree, tree.body)


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement that are of none inside it, and of no annotation, decorator or pattern."""
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in (
                "annotation",
                "returns",
                "decorator_list",
                "cases",
                "keywords" if isinstance(node, ast.ClassDef) else "",
            ):
                continue
            children = value if isinstance(value, list) else [value]
            pending += [
                one
                for one in children
                if isinstance(one, ast.AST) and not isinstance(one, ast.stmt | ast.ExceptHandler)
            ]


def _in_fstring(statement: ast.stmt, node: ast.AST) -> bool:
    return any(node in set(ast.walk(one)) for one in ast.walk(statement) if isinstance(one, ast.JoinedStr))


def _numbers(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1), str(value + 10), str(value * 3 + 1)]
    return [repr(value + 0.5), repr(value * 2 + 1)] if isinstance(value, float) else []


def _texts(value: str) -> list[str]:
    if value.startswith("lab.") and "." in value[4:]:
        return [value.replace("tree", "forest").replace("KEYS", "SQUARES")]
    return [f"{value}x", value[:-1]] if value else ["x"]


def _operators(node: ast.BinOp | ast.Compare | ast.BoolOp) -> Iterator[ast.expr]:
    found = node.ops[0] if isinstance(node, ast.Compare) else node.op
    for new in _OPERATORS.get(type(found), ()):
        changed = copy.deepcopy(node)
        if isinstance(changed, ast.Compare):
            changed.ops[0] = new()  # type: ignore[call-overload]
        else:
            changed.op = new()  # type: ignore[assignment]
        yield changed


def _calls(node: ast.Call, functions: list[str]) -> Iterator[tuple[ast.expr, str]]:
    if isinstance(node.func, ast.Name):
        others = [one for one in functions if one != node.func.id] if node.func.id in functions else []
        builtin = {
            "sum": "max",
            "max": "min",
            "min": "max",
            "len": "bool",
            "sorted": "list",
            "abs": "float",
            "str": "repr",
            "list": "tuple",
        }
        others += [builtin[node.func.id]] if node.func.id in builtin else []
        yield from ((node.func, one) for one in others[:3])
    if isinstance(node.func, ast.Attribute) and node.func.attr[:1] == "f" and node.func.attr[1:].isdigit():
        yield node.func, f"{ast.unparse(node.func.value)}.f{(int(node.func.attr[1:]) + 1) % 4}"
    if (
        len(node.args) == 1
        and not node.keywords
        and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp)
    ):
        yield node, ast.unparse(node.args[0])
    for keyword in node.keywords:
        if keyword.arg:
            fewer = copy.deepcopy(node)
            fewer.keywords = [one for one in fewer.keywords if one.arg != keyword.arg]
            yield node, ast.unparse(fewer)


def _definitions(file: str, text: str, statement: ast.stmt, owner: ast.AST) -> Iterator[Site]:
    assert isinstance(statement, _DEFINITIONS)
    is_step = any(
        "step" in ast.unparse(one) or "pipeline" in ast.unparse(one) for one in statement.decorator_list
    )
    if is_step:
        return
    span = _span(text, statement)
    if statement.decorator_list:
        new = copy.deepcopy(statement)
        new.decorator_list = new.decorator_list[1:]
        yield Site("decorator", file, *span, _indented(new, statement), statement, owner)
    if isinstance(statement, ast.ClassDef):
        for index in range(len(statement.bases)):
            changed = copy.deepcopy(statement)
            del changed.bases[index]
            yield Site("base class", file, *span, _indented(changed, statement), statement, owner)
        for method in [one for one in statement.body if isinstance(one, ast.FunctionDef)]:
            without = copy.deepcopy(statement)
            without.body = [one for one in without.body if getattr(one, "name", "") != method.name] or [
                ast.Pass()
            ]
            yield Site("method left out", file, *span, _indented(without, statement), method, statement)
    if isinstance(owner, ast.Module):
        added = text[slice(*span)] + f"\n\n\ndef added_{statement.name}(x):\n    return x\n"
        yield Site("new function", file, *span, added, None)


def _indented(node: ast.stmt, like: ast.stmt) -> str:
    return ("\n" + " " * like.col_offset).join(ast.unparse(node).split("\n"))


def _imports(file: str, text: str, statement: ast.ImportFrom, owner: ast.AST) -> Iterator[Site]:
    other = {
        "scaled": "shifted", "shifted": "rooted", "rooted": "shifted", "clip": "widen", "widen": "clip", "Circle": "Shape", "Square": "Rectangle",
        "Rectangle": "Square", "OFFSET": "LIMIT", "LIMIT": "OFFSET", "doubled": "noted", "plus": "doubled", "Small": "Config", "evaluated": "signed",
        "formatted": "filled", "red": "blue",
    }  # fmt: skip
    for alias in statement.names:
        name = alias.name
        new = other.get(name) or (
            f"f{(int(name[1]) + 1) % 4}" if name[:1] == "f" and name[1:].isdigit() else None
        )
        new = new or (f"g{(int(name[1:]) + 1) % 10:02}" if name[:1] == "g" and name[1:].isdigit() else None)
        if new:
            yield Site(
                "import", file, *_span(text, alias), f"{new} as {alias.asname or name}", statement, owner
            )


# What changes no result.


def _neutral(file: str, text: str, tree: ast.Module) -> Iterator[Site]:
    for statement, owner in _statements(tree):
        start, _ = _span(text, statement)
        indent = " " * statement.col_offset
        if text[max(0, start - len(indent)) : start] == indent:
            yield Site("comment", file, start, start, f"# A comment.\n{indent}")
            yield Site("layout", file, start, start, f"\n\n{indent}")
        if isinstance(statement, _DEFINITIONS) and not (
            file == "lab/text.py" and statement.name == "documented"
        ):
            yield from _docstrings(file, text, statement)
        if (
            isinstance(statement, ast.FunctionDef)
            and isinstance(owner, ast.Module | ast.ClassDef)
            and not _reads_locals(statement)
        ):
            yield from _renames(file, text, statement)
    yield Site("layout", file, 0, len(text), ast.unparse(tree) + "\n")
    bare = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
    for one, other in pairwise(bare):
        if _is_quiet(one) and _is_quiet(other):
            first, second = _span(text, one), _span(text, other)
            swapped = text[slice(*second)] + text[first[1] : second[0]] + text[slice(*first)]
            yield Site("order of imports", file, first[0], second[1], swapped)
    if file == "lab/unused.py":
        for number in range(2, 10):
            yield Site("unreached code", file, len(text), len(text), f"\nMORE_{number} = {number}\n")
    for name in ("nobody", "never", "unused", "other", "hidden"):
        for one in tree.body:
            if isinstance(one, ast.FunctionDef) and one.name == name and not one.decorator_list:
                for number in range(4):
                    yield Site(
                        "unreached code",
                        file,
                        *_span(text, one.body[-1]),
                        f"return {number}",
                        one.body[-1],
                        one,
                    )


def _is_quiet(node: ast.stmt) -> bool:
    """Whether an import is of the standard library, or of modules that only define."""
    text = ast.unparse(node)
    return not any(
        word in text
        for word in ("handlers", "cycle", "*", "registry", "shapes", "plugins", "steps", "attributes")
    )


def _docstrings(file: str, text: str, statement: ast.stmt) -> Iterator[Site]:
    assert isinstance(statement, _DEFINITIONS)
    first = statement.body[0]
    start, end = _span(text, first)
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        yield Site("unused docstring", file, start, end, '"""Another text."""')
        if len(statement.body) > 1:
            yield Site("unused docstring", file, start, end, "pass")
    elif statement.lineno != first.lineno:
        yield Site("unused docstring", file, start, start, f'"""A new text."""\n{" " * first.col_offset}')


def _reads_locals(function: ast.FunctionDef) -> bool:
    names = {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
    return bool(names & {"locals", "eval", "inspect", "exec"}) or any(
        isinstance(one, ast.JoinedStr) for one in ast.walk(function)
    )


def _renames(file: str, text: str, function: ast.FunctionDef) -> Iterator[Site]:
    """Renames of each local variable of a function that is no parameter, and has no other meaning in it."""
    every = list(ast.walk(function))
    taken = {one.arg for one in every if isinstance(one, ast.arg)}
    taken |= {name for one in every if isinstance(one, ast.Global | ast.Nonlocal) for name in one.names}
    taken |= {
        one.name
        for one in every
        if isinstance(one, (*_DEFINITIONS, ast.MatchAs, ast.MatchStar, ast.ExceptHandler)) and one.name
    }
    taken |= {
        alias.asname or alias.name
        for one in every
        if isinstance(one, ast.Import | ast.ImportFrom)
        for alias in one.names
    }
    bound = (
        {one.id for one in every if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        - taken
        - set(dir(builtins))
    )
    start, end = _span(text, function)
    body = text[start:end]
    for name in sorted(bound):
        for new in (f"other_{name}", f"q{name}"):
            renamed = "".join(_tokens(body, name, new))
            yield Site("local rename", file, start, end, renamed)


def _tokens(text: str, name: str, new: str) -> Iterator[str]:
    """The text with a name in place of another one: no attribute and no keyword of a call."""
    lines = text.splitlines(keepends=True)
    cut: list[tuple[int, int]] = []
    readable = "if 1:\n " + text if text[0] == " " else text
    found = list(tokenize.generate_tokens(io.StringIO(readable).readline))
    depth = 0
    for position, token in enumerate(found):
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        is_attribute = found[position - 1].string == "."
        following = found[position + 1].string if position + 1 < len(found) else ""
        is_keyword = following == "=" and depth > 0
        if token.type == tokenize.NAME and token.string == name and not is_attribute and not is_keyword:
            cut.append(token.start)
    for row, column in sorted(cut, reverse=True):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + new + line[column + len(name) :]
    yield "".join(lines)


# What is no code.


def _others(base: Version, chance: random.Random) -> Iterator[Mutant]:
    def numbers() -> int:
        return chance.randint(10, 10_000)

    for _ in range(60):
        size = numbers() % 40 + 6
        yield _version(base, "parameter", f"size={size}", parameters={**base.parameters, "size": size})
    yield _version(base, "parameter", "mode=slow", parameters={**base.parameters, "mode": "slow"})
    yield _version(base, "parameter", "mode=same", parameters={**base.parameters, "mode": "same"})
    yield _version(base, "parameter", "label=two", parameters={**base.parameters, "label": "two"})
    for file, text in base.files.items():
        if not file.endswith((".py", ".lock")):
            for number in range(12):
                digit = next(index for index, one in enumerate(text) if one.isdigit())
                edited = text[:digit] + str(numbers()) + text[digit + 1 :]
                if number % 4 == 3 and not file.endswith((".json", "script.txt")):
                    edited = text + "more words\n" * number
                probe = replace(base, files={name: one for name, one in base.files.items() if name != file})
                if file.endswith(("table.json", "script.txt", "a.txt", "b.txt")):
                    probe = _with_file(base, file, "poison" * 20)
                yield Mutant("file", f"{file}: {edited[:60]!r}", _with_file(base, file, edited), file, probe)
    for number in range(8):
        name = f"lab/steps/more_{number}.txt"
        yield Mutant("file", f"new {name}", _with_file(base, name, f"{number}\n"), name)
        name = f"lab/steps/texts/more_{number}.txt"
        yield Mutant("file", f"new {name}", _with_file(base, name, f"{number}\n"), name)
    yield from _packages(base, numbers)
    for name in ("HOME", "LANG", "HOSTNAME", "ARGO_NODE_ID", "EDITOR", "LAB_UNREAD"):
        for _ in range(5):
            value = f"/home/{numbers()}"
            without = {one: text for one, text in base.environment.items() if one != name}
            yield _version(base, "environment", f"{name}={value}", environment={**without, name: value})
    yield _version(base, "platform", "another operating system", system="darwin")


def _packages(base: Version, number: Callable[[], int]) -> Iterator[Mutant]:
    for file, package in (("lab/steps/tools.lock", "labtools"), ("lab/steps/other.lock", "labother")):
        text = base.files[file]
        for _ in range(15):
            version = f"9.{number()}.0"
            edited = _with_file(base, file, text.replace(f"=={base.pinned[package]}", f"=={version}"))
            without = {name: one for name, one in base.pinned.items() if name != package}
            yield Mutant(
                "pinned package",
                f"{package} {version}",
                replace(edited, pinned={**base.pinned, package: version}),
                probe=replace(base, pinned=without),
            )
        yield Mutant("comment", f"{file}: a comment", _with_file(base, file, "# A comment.\n" + text), file)
    for _ in range(10):
        version = f"9.{number()}.0"
        packages = {**base.packages, "labunused": version}
        yield _version(base, "installed package", f"labunused {version}", packages=packages)


def _version(base: Version, kind: str, what: str, **changed: object) -> Mutant:
    return Mutant(kind, what, replace(base, **changed))  # type: ignore[arg-type]
