"""The digest of a step's code changes when what the step computes may change, and only then."""

import ast
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus.sdk.compiler.closure import Project, closure
from periplus.sdk.compiler.closure.canonical import digest
from periplus.sdk.errors import PipelineError

FLOW = """
from periplus.sdk import step
from helpers import normalise
import variants.round as circles
LIMIT = 3
OTHER = 4

@step(retries=1)
def train(x: float) -> float:
    '''Train.'''
    # a comment
    values = [normalise(one) for one in range(LIMIT)]
    return sum(values) + circles.area(x)

@step
def features(x: float) -> float:
    return x + OTHER
"""

HELPERS = """
import math
SCALE = 2.0

def scaled(x):
    return x * SCALE

def normalise(x):
    return scaled(math.sqrt(x))

def unrelated(x):
    return x
"""

ROUND = """
def area(r):
    return 3.14 * r * r

def girth(r):
    return 6.28 * r
"""

PROJECT = {"flow.py": FLOW, "helpers.py": HELPERS, "variants/round.py": ROUND, "variants/__init__.py": ""}


def digests(folder: Path, module: str = "flow", name: str = "train") -> dict[str, str]:
    return closure(Project(folder), module, name).digests


def changed(
    write: Any, files: dict[str, str], file: str, old: str, new: str, name: str = "train"
) -> set[str]:
    """The names whose digests differ after one edit."""
    before = digests(write(files), name=name)
    assert old in files[file]
    after = digests(write({file: files[file].replace(old, new)}), name=name)
    return {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)}


def test_the_closure_names_what_the_step_uses_in_every_module_and_nothing_else(write):
    found = closure(Project(write(PROJECT)), "flow", "train")
    assert set(found.digests) == {
        "flow.py:<imports>", "flow.py:LIMIT", "flow.py:train", "helpers.py:<imports>", "helpers.py:SCALE",
        "helpers.py:normalise", "helpers.py:scaled", "variants/round.py:area",
    }  # fmt: skip
    assert list(found.files) == ["flow.py", "helpers.py", "variants/__init__.py", "variants/round.py"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow.py", "# a comment", "# another comment\n    # and one more"),
        ("flow.py", "'''Train.'''", "'''Train it\n\n    well.'''"),
        ("flow.py", "'''Train.'''", ""),
        ("flow.py", "sum(values) + circles.area(x)", "(sum( values )\n        + circles . area (x))"),
        ("flow.py", "@step(retries=1)", "@step(retries=5, ttl='7d')"),
        ("flow.py", "return x + OTHER", "return x - OTHER"),
        ("flow.py", "OTHER = 4", "OTHER = 5"),
        ("helpers.py", "def unrelated(x):\n    return x", "def unrelated(x):\n    return x + 1"),
        ("helpers.py", "SCALE = 2.0", "# the scale\nSCALE = 2.0  # twice\nUNUSED = 1"),
        ("helpers.py", "SCALE = 2.0", 'SCALE = 2.0\nif __name__ == "__main__":\n    print(1)'),
        ("variants/round.py", "6.28", "6.2831"),
        ("variants/round.py", "def area(r):", "'''Round things.'''\n\n\ndef area(r):\n    ''' '''"),
    ],
)
def test_an_edit_that_changes_no_result_changes_no_digest(write, file, old, new):
    assert changed(write, PROJECT, file, old, new) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("flow.py", "sum(values) + ", "sum(values) - ", {"flow.py:train"}),
        ("flow.py", "LIMIT = 3", "LIMIT = 4", {"flow.py:LIMIT"}),
        ("flow.py", "x: float) -> float:\n    '''", "x: float = 1.0) -> float:\n    '''", {"flow.py:train"}),
        ("helpers.py", "x * SCALE", "x / SCALE", {"helpers.py:scaled"}),
        ("helpers.py", "SCALE = 2.0", "SCALE = 2", {"helpers.py:SCALE"}),
        ("helpers.py", "import math", "import cmath as math", {"helpers.py:<imports>"}),
        ("variants/round.py", "3.14", "3.1416", {"variants/round.py:area"}),
        ("variants/__init__.py", "", "print('imported')", {"variants/__init__.py:<module>"}),
        ("helpers.py", "import math", "import math, random\nrandom.seed(1)", {"helpers.py:<module>", "helpers.py:<imports>"}),
        ("helpers.py", "SCALE = 2.0", "SCALE = 2.0\nSCALE += 1", {"helpers.py:SCALE"}),
    ],
)  # fmt: skip
def test_a_change_of_logic_changes_the_digest_of_the_name_that_changed(write, file, old, new, named):
    assert changed(write, PROJECT, file, old, new) == named


def test_swapped_imports_are_a_change_though_each_name_is_as_before(write):
    files = {
        "a.py": "def f(x):\n    return x\ndef g(x):\n    return -x\n",
        "flow.py": "from a import f as one, g as two\ndef train(x):\n    return one(x) + 2 * two(x)\n",
    }
    assert changed(write, files, "flow.py", "f as one, g as two", "g as one, f as two") == {
        "flow.py:<imports>"
    }


@pytest.mark.parametrize(
    ("body", "used"),
    [
        ("class Model:\n    from json import dumps as name\n    def run(self):\n        return name\ndef train():\n    return Model()", True),
        ("def train():\n    global name\n    name += 1\n    return name", True),
        ("def train():\n    def inner():\n        global name\n        return name\n    return inner()", True),
        ("def train(y):\n    def inner():\n        nonlocal y\n        y = name\n    return inner()", True),
        ("def train(y, x=lambda: name):\n    return x()", True),
        ("def train(y):\n    return [name for _ in y]", True),
        ("def train(y):\n    return [one for one in y if (other := name)]", True),
        ("class Base:\n    pass\nclass Model(Base):\n    size = name\ndef train():\n    return Model()", True),
        ("def train(y):\n    return [name for name in y], {name: 1 for name in y}, sum(name for name in y)", False),
        ("def train(y):\n    return [1 for one in y if (name := one)], name", False),
        ("def train(y):\n    for name, _ in y:\n        pass\n    return name", False),
        ("def train(y):\n    with y as name:\n        return name", False),
        ("def train(y):\n    try:\n        y()\n    except ValueError as name:\n        return name", False),
        ("def train(y):\n    match y:\n        case {'a': name, **rest}:\n            return name", False),
        ("def train(y):\n    import json as name\n    return name.dumps(y)", False),
        ("def train(y):\n    def name():\n        return 1\n    return name()", False),
        ("def train(y, *name, z=1):\n    return lambda: name", False),
        ("def train(y):\n    return y.name", False),
    ],
)  # fmt: skip
def test_names_are_looked_up_as_python_does(write, body, used):
    found = digests(write({"flow.py": f"name = 1\n{body}\n"}))
    assert ("flow.py:name" in found) == used


def test_a_submodule_that_is_only_imported_runs_all_the_same(write):
    files = {
        "pkg/__init__.py": "", "pkg/hooks.py": "print('one')\n",
        "flow.py": "from pkg import hooks\ndef train():\n    return 1\n",
    }  # fmt: skip
    assert changed(write, files, "pkg/hooks.py", "one", "two") == {"pkg/hooks.py:<module>"}


@pytest.mark.parametrize(
    "top",
    [
        "from periplus.sdk import step",
        "import periplus.sdk\nstep = 1",
        "from periplus import sdk",
        "from periplus.sdk import *",
        "import periplus.sdk as p",
    ],
)
def test_the_step_decorator_is_not_part_of_the_digest_however_it_is_imported(write, top):
    name = {
        "import periplus.sdk\nstep = 1": "periplus.sdk.step",
        "from periplus import sdk": "sdk.step",
        "import periplus.sdk as p": "p.step",
    }.get(top, "step")
    files = {"flow.py": f"{top}\n@{name}(retries=1)\ndef train(x):\n    return x\n"}
    assert changed(write, files, "flow.py", "retries=1", "retries=2, ttl='1d'") == set()
    assert set(digests(write(files))) == {"flow.py:train"}


def test_a_local_variable_is_not_the_function_of_the_same_name(write):
    files = {
        "flow.py": """
def features(x):
    return x
def train(features, y):
    model = [features for features in y]
    data = lambda data: data
    return model, data
def model(): return 1
def data(): return 2
"""
    }
    assert set(digests(write(files))) == {"flow.py:train"}


@pytest.mark.parametrize(
    "body",
    [
        "def train():\n    from helpers import used\n    return used()",
        "def train():\n    import helpers\n    return helpers.used()",
        "def train():\n    import helpers as h\n    def inner():\n        return h.used()\n    return inner()",
        "import helpers\ndef train():\n    return helpers.used()",
        "from helpers import used as u\ndef train():\n    return u()",
        "from helpers import used\ndef train(f=used):\n    return f()",
        "from helpers import used\ndef train(x: used):\n    return x",
        "from helpers import used\ndef train(x: 'list[used]'):\n    return x",
        "from helpers import used\nclass Model:\n    method = used\ndef train():\n    return Model()",
        "from helpers import used\nclass Model:\n    used = used\ndef train():\n    return Model()",
        "from helpers import used\nrun = used\ndef train():\n    return run()",
        "import helpers\ndef train():\n    global used\n    used = helpers.used\n    return used()",
        "try:\n    from helpers import used\nexcept ImportError:\n    used = None\ndef train():\n    return used()",
    ],
)
def test_every_way_to_reach_a_function_of_another_module_is_followed(write, body):
    helpers = "def used():\n    return deep()\ndef deep():\n    return 1\ndef unused():\n    return 2\n"
    files = {"flow.py": body, "helpers.py": helpers}
    assert changed(write, files, "helpers.py", "return 1", "return 3") == {"helpers.py:deep"}
    assert changed(write, files, "helpers.py", "return 2", "return 3") == set()


@pytest.mark.parametrize(
    "body",
    [
        "from helpers import *\ndef train():\n    return used()",
        "import helpers\ndef train(name):\n    return getattr(helpers, name)()",
        "def train(name):\n    return __import__(name)",
        "import sys\ndef train(name):\n    return sys.modules[name]",
        "import helpers\ndef call(m):\n    return m.used()\ndef train():\n    return call(helpers)",
    ],
)
def test_where_a_name_is_computed_at_run_time_the_whole_module_counts(write, body):
    files = {"flow.py": body, "helpers.py": "def used():\n    return 1\ndef other():\n    return 2\n"}
    assert changed(write, files, "helpers.py", "return 2", "return 3") == {"helpers.py"}


def test_modules_that_are_imported_by_a_name_travel_and_are_for_the_process_to_report(write):
    files = {
        "flow.py": "import importlib\ndef train(name):\n    return importlib.import_module(name)",
        "helpers.py": "def used():\n    return 1\n",
        "broken.py": "def f(:\n",
    }
    found = closure(Project(write(files)), "flow", "train")
    assert set(found.digests) == {"flow.py:<imports>", "flow.py:train"}
    assert set(found.files) == {"flow.py", "helpers.py"}


def test_looking_names_up_in_globals_makes_the_own_module_count_as_a_whole(write):
    files = {"flow.py": "def other():\n    return 2\ndef train(n):\n    return globals()[n]()\n"}
    assert changed(write, files, "flow.py", "return 2", "return 3") == {"flow.py"}


def test_relative_imports_and_re_exports_are_followed(write):
    files = {
        "pkg/__init__.py": "from .inner import thing\n",
        "pkg/inner.py": "from . import deep\ndef thing():\n    return deep.value()\n",
        "pkg/deep.py": "def value():\n    return 1\ndef unused():\n    return 2\n",
        "flow.py": "import pkg\ndef train():\n    return pkg.thing()\n",
    }
    assert changed(write, files, "pkg/deep.py", "return 1", "return 3") == {"pkg/deep.py:value"}
    assert changed(write, files, "pkg/deep.py", "return 2", "return 3") == set()


def test_a_namespace_package_and_a_cycle_of_imports_are_followed(write):
    files = {
        "space/one.py": "import space.two\ndef f(n):\n    return space.two.g(n - 1) if n else 0\n",
        "space/two.py": "from space.one import f\ndef g(n):\n    return f(n) + 1\n",
        "flow.py": "from space import one\ndef train():\n    return one.f(3)\n",
    }
    assert changed(write, files, "space/two.py", "+ 1", "+ 2") == {"space/two.py:g"}


def test_a_function_that_registers_itself_counts_though_no_name_leads_to_it(write):
    registry = """
LOADERS = {}
def loader(f):
    LOADERS[f.__name__] = f
    return f
@loader
def csv():
    return 1
def unwrap():
    return 2
"""
    files = {
        "loaders.py": registry,
        "flow.py": "from loaders import LOADERS\ndef train(n):\n    return LOADERS[n]()",
    }
    assert changed(write, files, "loaders.py", "return 1", "return 3") == {"loaders.py:csv"}
    assert changed(write, files, "loaders.py", "return 2", "return 3") == set()


@pytest.mark.parametrize(
    "loaders",
    [
        "from core import registry\n@registry.loader\ndef csv():\n    return 1\n",
        "import core.registry\n@core.registry.loader\ndef csv():\n    return 1\n",
        "from core.registry import *\n@loader\ndef csv():\n    return 1\n",
        "from core.again import loader as read\n@read\ndef csv():\n    return 1\n",
        "from core.registry import loader\nclass Csv:\n    @loader\n    def csv(self):\n        return 1\n",
        "from core.registry import loader\nclass Csv:\n    csv = loader(lambda: 1)\n",
        "from core.registry import loader\ndef unused(x=loader(lambda: 1)):\n    return x\n",
        "from core import registry\nclass Csv(registry.Loader):\n    def csv(self):\n        return 1\n",
        "from core.again import Loader as Base\nclass Csv(Base):\n    def csv(self):\n        return 1\n",
        "from core.registry import *\nclass Csv(Loader):\n    def csv(self):\n        return 1\n",
        "from core.registry import Made\nclass Csv(Made):\n    def csv(self):\n        return 1\n",
    ],
)
def test_what_registers_itself_is_found_however_the_registry_is_imported(write, loaders):
    registry = """
LOADERS = []
def loader(f):
    LOADERS.append(f)
    return f
class Loader:
    def __init_subclass__(cls):
        LOADERS.append(cls)
def make():
    return Loader
Made = make()
"""
    files = {
        "core/registry.py": registry,  # core is a namespace package
        "core/again.py": "from core.registry import Loader, loader\n",
        "loaders.py": loaders,
        "flow.py": "import loaders\nfrom core.registry import LOADERS\ndef train(n):\n    return LOADERS[n]()",
    }
    assert changed(write, files, "loaders.py", "1", "3")


def test_a_text_that_is_evaluated_uses_what_it_names(write):
    files = {
        "flow.py": "RATE = 1\nOTHER = 2\ndef train(x):\n    return eval('x * RATE')\n",
    }
    assert changed(write, files, "flow.py", "RATE = 1", "RATE = 3") == {"flow.py:RATE"}
    assert changed(write, files, "flow.py", "OTHER = 2", "OTHER = 3") == set()


@pytest.mark.parametrize("target", ["TABLE['a']", "TABLE.attribute", "TABLE[0], other", "_"])
def test_an_assignment_that_changes_something_counts_though_no_name_leads_to_it(write, target):
    files = {
        "tables.py": f"TABLE = make()\nother = 1\n{target} = compute(1)\nunused = compute(2)\n",
        "flow.py": "from tables import TABLE\ndef train(n):\n    return TABLE[n]\n",
    }
    assert "tables.py:<module>" in changed(write, files, "tables.py", "compute(1)", "compute(3)")
    assert changed(write, files, "tables.py", "compute(2)", "compute(3)") == set()


def test_an_assignment_that_calls_the_projects_own_function_counts_and_making_an_object_does_not(write):
    files = {
        "tables.py": "TABLE = {}\ndef fill():\n    TABLE['a'] = 1\nclass Row:\n    size = 1\ndone = fill()\nrow = Row()\n",
        "flow.py": "from tables import TABLE\ndef train(n):\n    return TABLE[n]\n",
    }
    assert changed(write, files, "tables.py", "= 1\nclass", "= 2\nclass") == {"tables.py:fill"}
    assert changed(write, files, "tables.py", "size = 1", "size = 2") == set()


def test_a_subclass_that_its_base_collects_counts(write):
    models = """
class Model:
    known = []
    def __init_subclass__(cls):
        Model.known.append(cls)
class Tree(Model):
    depth = 1
class Loose:
    depth = 2
"""
    files = {"models.py": models, "flow.py": "from models import Model\ndef train():\n    return Model.known"}
    assert changed(write, files, "models.py", "depth = 1", "depth = 3") == {"models.py:Tree"}
    assert changed(write, files, "models.py", "depth = 2", "depth = 3") == set()


def test_code_that_reads_docstrings_is_changed_by_one(write):
    files = {"flow.py": 'def prompt():\n    """Answer briefly."""\ndef train():\n    return prompt.__doc__\n'}
    assert changed(write, files, "flow.py", "briefly", "at length") == {"flow.py:prompt"}


def test_modules_from_outside_the_project_are_not_included(write):
    files = {"flow.py": "import json, pytest\ndef train():\n    return json.dumps(pytest.approx(1))\n"}
    assert set(digests(write(files))) == {"flow.py:<imports>", "flow.py:train"}
    assert closure(Project(write(files)), "json", "dumps").digests == {}


def test_an_import_for_the_type_checker_only_is_no_import(write):
    files = {
        "flow.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helpers\ndef train(): return 1\n",
        "helpers.py": "print('imported')\n",
    }
    assert closure(Project(write(files)), "flow", "train").files.keys() == {"flow.py"}


def test_a_very_large_closure_has_one_digest_for_each_file(write):
    many = (
        "\n".join(f"def f{n}():\n    return f{n + 1}()\n" for n in range(99)) + "\ndef f99():\n    return 1\n"
    )
    files = {"many.py": many, "flow.py": "from many import f0\ndef train():\n    return f0()\n"}
    assert set(digests(write(files))) == {"flow.py", "many.py"}
    assert changed(write, files, "many.py", "return 1\n", "return 2\n") == {"many.py"}


def test_a_file_that_cannot_be_parsed_is_named(write):
    folder = write({"flow.py": "from broken import f\ndef train(): return f()\n", "broken.py": "def f(:\n"})
    with pytest.raises(PipelineError, match=r"broken\.py cannot be parsed"):
        digests(folder)


def test_digests_equal_those_of_earlier_versions():
    """A change of these digests makes every entry of an SDK step unreachable, so it must be intended."""
    tree = ast.parse(
        "def f(x: int = 1, *rest, y=None) -> str:\n    '''Doc.'''\n    return f'{x!r:>3} é' + u'a'\n"
    )
    assert digest(tree.body) == "sha256:36629057f4319cee834efcd960da76b6ac535f94da5ec037d81934caff848ec7"


def test_names_and_texts_of_the_same_spelling_differ():
    forms = [
        "x = y",
        "x = 'y'",
        "x = b'y'",
        "x = 1",
        "x = 1.0",
        "x = True",
        "x = 1j",
        "x = None",
        "x = ...",
        "x: y",
    ]
    assert len({digest(ast.parse(one).body) for one in forms}) == len(forms)


names = st.sampled_from(["a", "b", "c", "alpha"])
atoms = st.one_of(names, st.integers(0, 99).map(str), st.just("'text'"), st.just("None"))
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "*", "and", "<", "in"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        st.lists(inner, max_size=3).map(lambda t: "[" + ", ".join(t) + "]"),
        st.tuples(names, inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"{{{t[0]}: {t[1]}}}"),
        st.tuples(names, inner).map(lambda t: f"(lambda {t[0]}: {t[1]})"),
    ),
    max_leaves=8,
)
statements = st.one_of(
    st.tuples(names, expressions).map(lambda t: f"{t[0]} = {t[1]}"),
    expressions.map(lambda e: f"return {e}"),
    st.tuples(names, expressions).map(lambda t: f"for {t[0]} in {t[1]}:\n        pass"),
    st.tuples(expressions, expressions).map(lambda t: f"if {t[0]}:\n        return {t[1]}"),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(statements, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_layout_comments_and_docstrings_never_change_a_digest(body: list[str], chance: random.Random):
    plain = "def f(a, b, c):\n" + "".join(f"    {one}\n" for one in body)
    dressed = "# top\n\n\ndef f(\n    a,  # first\n    b, c\n):\n    '''Says what it does.'''\n"
    for one in body:
        dressed += chance.choice(["", "\n", "    # why\n", "\n    #: here\n\n"])
        dressed += f"    {one}" + chance.choice(["", "  # so", ";"]) + "\n"
    assert digest(ast.parse(plain).body) == digest(ast.parse(dressed).body)


@settings(max_examples=100, deadline=None)
@given(expressions, expressions)
def test_different_code_has_different_digests(one: str, other: str):
    left, right = ast.parse(one).body, ast.parse(other).body
    assert (digest(left) == digest(right)) == (ast.dump(left[0]) == ast.dump(right[0]))


def test_an_editable_package_is_project_code_and_an_installed_one_is_not(write, tmp_path, monkeypatch):
    files = {
        "lib/src/edited_pkg/__init__.py": "",
        "lib/src/edited_pkg/maths.py": "def f():\n    return 1\ndef g():\n    return 2\n",
        "env/site-packages/installed_pkg.py": "def f():\n    return 1\n",
        "flow.py": "import installed_pkg\nfrom edited_pkg.maths import f\ndef train():\n    return f() + installed_pkg.f()\n",
    }
    write(files)
    for place in ("lib/src", "env/site-packages"):
        monkeypatch.syspath_prepend(str(tmp_path / place))
    found = closure(Project(tmp_path), "flow", "train")
    assert set(found.digests) == {"flow.py:<imports>", "flow.py:train", "edited_pkg/maths.py:f"}
    assert found.files == {
        "edited_pkg/__init__.py": tmp_path / "lib/src/edited_pkg/__init__.py",
        "edited_pkg/maths.py": tmp_path / "lib/src/edited_pkg/maths.py",
        "flow.py": tmp_path / "flow.py",
    }
    edit = ("lib/src/edited_pkg/maths.py", "return 1", "return 3")
    assert changed(write, files, *edit) == {"edited_pkg/maths.py:f"}


def test_the_variable_of_a_comprehension_is_not_a_name_of_the_module(write):
    files = {
        "flow.py": "ROWS = [scale for scale in range(3)]\ndef scale(x):\n    return x\ndef train():\n    return scale(1)\n"
    }
    assert set(digests(write(files))) == {"flow.py:scale", "flow.py:train"}
