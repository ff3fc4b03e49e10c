"""The name of a local variable is no part of a key, unless code could look it up by its text."""

import ast

import pytest

from periplus.sdk.compiler.closure import Project, closure
from periplus.sdk.compiler.closure.canonical import Spelling, digest


def same(one: str, other: str) -> bool:
    return digest(ast.parse(one).body) == digest(ast.parse(other).body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x):\n    a = x\n    return a", "def f(x):\n    b = x\n    return b"),
        ("def f(x):\n    for a in x:\n        a += 1", "def f(x):\n    for b in x:\n        b += 1"),
        ("def f(x):\n    return [a for a in x]", "def f(x):\n    return [b for b in x]"),
        ("S = [a for a in X if a]", "S = [b for b in X if b]"),
        ("def f():\n    a = 1\n    def g():\n        nonlocal a\n        a += 1\n    return g",
         "def f():\n    b = 1\n    def g():\n        nonlocal b\n        b += 1\n    return g"),
        ("def f():\n    a = 1\n    return lambda x: x + a", "def f():\n    b = 1\n    return lambda x: x + b"),
        ("def f():\n    try:\n        g()\n    except E as a:\n        h(a)", "def f():\n    try:\n        g()\n    except E as b:\n        h(b)"),
        ("def f(x):\n    match x:\n        case [a, *c] | {'k': a, **c}:\n            return a, c",
         "def f(x):\n    match x:\n        case [b, *d] | {'k': b, **d}:\n            return b, d"),
        ("def f(x):\n    with x as a, open(a):\n        del a", "def f(x):\n    with x as b, open(b):\n        del b"),
        ("class C:\n    def f(self):\n        a = self.a\n        return a", "class C:\n    def f(self):\n        b = self.a\n        return b"),
        ("def f(x):\n    if (a := x) > 1:\n        return a", "def f(x):\n    if (b := x) > 1:\n        return b"),
        ("def f(x):\n    a, b = x\n    return a - b", "def f(x):\n    b, a = x\n    return b - a"),
    ],
)  # fmt: skip
def test_a_local_variable_has_any_name(one, other):
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(a):\n    return a", "def f(b):\n    return b"),
        ("def f():\n    return lambda a: a", "def f():\n    return lambda b: b"),
        ("def f():\n    global a\n    a = 1", "def f():\n    global b\n    b = 1"),
        ("def f():\n    return a", "def f():\n    return b"),
        ("def f(x):\n    a = x\n    return b", "def f(x):\n    b = x\n    return b"),
        ("def f(x):\n    a, b = x\n    return a - b", "def f(x):\n    a, b = x\n    return b - a"),
        ("def f():\n    def a():\n        pass\n    return a", "def f():\n    def b():\n        pass\n    return b"),
        ("def f():\n    class A:\n        a = 1\n    return A", "def f():\n    class A:\n        b = 1\n    return A"),
        ("def f():\n    import a", "def f():\n    import b"),
        ("def f():\n    a = 1\n    return locals()", "def f():\n    b = 1\n    return locals()"),
        ("def f(x):\n    a = 1\n    return eval(x)", "def f(x):\n    b = 1\n    return eval(x)"),
        ("def f(x):\n    a = 1\n    return x.query(T)", "def f(x):\n    b = 1\n    return x.query(T)"),
        ("def f():\n    a = 1\n    return sql('select * from a')", "def f():\n    b = 1\n    return sql('select * from a')"),
        ("def f():\n    a = 1\n    return show('a + 1')", "def f():\n    b = 1\n    return show('a + 1')"),
        ("def f():\n    a = 1\n    return f'{a=}'", "def f():\n    b = 1\n    return f'{b=}'"),
        ("def f(x):\n    [(lambda: (a := 1)) for _ in x]\n    return a", "def f(x):\n    [(lambda: (b := 1)) for _ in x]\n    return b"),
        ("def f():\n    def g():\n        a = 1\n    return a", "def f():\n    def g():\n        b = 1\n    return b"),
        ("def f():\n    a = 1\n    class C:\n        a = a", "def f():\n    b = 1\n    class C:\n        a = b"),
        ("a = 1", "b = 1"),
        ("for a in X:\n    pass", "for b in X:\n    pass"),
        ("class C:\n    def f(self):\n        __a = 1\n        return _C__a", "class C:\n    def f(self):\n        __b = 1\n        return _C__a"),
    ],
)  # fmt: skip
def test_a_name_that_is_used_by_its_text_counts(one, other):
    assert not same(one, other)
    code = ast.parse("def f():\n    a = 1\n    return a").body
    assert digest(code, Spelling(local_names=True)) != digest(code)


@pytest.mark.parametrize(
    "reader",
    [
        "import inspect\ndef names():\n    return list(inspect.currentframe().f_back.f_locals)",
        "from inspect import currentframe as here\ndef names():\n    return here()",
        "import sys\ndef names():\n    return sys._getframe(1)",
        "names = eval",
    ],
)
def test_names_count_in_the_closure_of_code_that_reads_variables_of_others(write, reader):
    def digests(variable: str) -> dict[str, str]:
        flow = f"from reading import names\ndef train():\n    {variable} = 1\n    return names()\n"
        return closure(Project(write({"flow.py": flow, "reading.py": reader})), "flow", "train").digests

    assert digests("one")["flow.py:train"] != digests("other")["flow.py:train"]
