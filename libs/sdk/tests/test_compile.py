"""A pipeline compiles to one manifest that Argo and hera accept, or is refused with function, argument and fix."""

import ast
import io
import json
import tarfile
from pathlib import Path

import pytest

from periplus.sdk import PipelineError
from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import compile  # noqa: A004 - the public name

GOLDEN = Path(__file__).parent / "golden"

EVERYTHING = """
from pathlib import Path
from typing import NamedTuple, TypedDict
import dataclasses

class Table(TypedDict):
    rows: int

class Parts(NamedTuple):
    raw: bytes
    names: list[str]
    table: Table

@step(image="registry.example.org/data:1", cache="refresh", ttl="12h")
def fetch(url: str, day: str | None = None) -> Parts:
    raise AssertionError

@step(retries=2, ignore_inputs=["note"])
def measure(raw: bytes, name: str, weight: float = 0.5, note: str = "") -> float:
    raise AssertionError

@step(name="pick_best", cache="off")
def pick(values: list[float], big: Artifact[dict[str, int]]) -> int:
    raise AssertionError

@step
def count(table: Table) -> Artifact[dict[str, int]]:
    raise AssertionError

@step(side_effects=True)
def publish(best: int, folder: Path) -> None:
    raise AssertionError

@step
def write(best: int) -> Path:
    raise AssertionError

@pipeline(image="registry.example.org/base:1")
def everything(url: str, limit: int = 3, weights: list[float] = [0.5, 1.0]) -> int:
    parts = fetch(url)
    measured = measure.map(parts.raw, each(parts.names), note="cost: $5 {{x}}")
    again = measure.map(parts.raw, name="a", weight=each(weights))
    both = measure.map(parts.raw, each(["p", "q"]), each([1, 2]))
    table = count(parts.table)
    best = pick(measured, table)
    pick(again, table)
    with when((best > 2) & ~(best == limit)):
        folder = write(best)
        publish(best, folder)
    return best
"""


def test_the_manifest_equals_the_golden_file(compiled):
    manifest = compiled(EVERYTHING, url="https://example.org").manifest
    manifest = json.loads(json.dumps(manifest))
    for template in manifest["spec"]["templates"]:
        for artifact in template.get("inputs", {}).get("artifacts", []):
            if "s3" in artifact:
                assert artifact["s3"]["key"].startswith("code/default/sha256/")
                artifact["s3"]["key"] = "(key)"
    golden = GOLDEN / "everything.json"
    assert manifest == json.loads(golden.read_text()), json.dumps(manifest, indent=2)


def test_hera_reads_the_manifest_and_writes_the_same(compiled):
    result = compiled(EVERYTHING, url="https://example.org")
    assert result.workflow().to_dict() == result.manifest


def test_compiling_twice_gives_the_same_bytes(compiled):
    first, second = compiled(EVERYTHING), compiled(EVERYTHING)
    assert first.manifest == second.manifest
    assert first.archive == second.archive


def test_the_archive_holds_the_modules_of_the_project_below_one_folder(write):
    folder = write({
        "flow.py": "from periplus.sdk import pipeline, step\nfrom pkg.used import f\n"
                   "@step\ndef one() -> int:\n    return f()\n@pipeline\ndef flow() -> int:\n    return one()\n",
        "pkg/__init__.py": "", "pkg/used.py": "def f(): return 1\n", "pkg/by_name.py": "", "notes.txt": "",
        "broken.py": "(", "random.py": "", "pytest.py": "", "env/pyvenv.cfg": "", "env/installed.py": "",
    })  # fmt: skip
    result = compile(load(folder / "flow.py"))
    with tarfile.open(fileobj=io.BytesIO(result.archive)) as tar:
        entries = {one.name: (one.mtime, one.uid, one.uname) for one in tar.getmembers()}
    of_project = [name for name in entries if not name.startswith("code/periplus-runner")]
    assert of_project == [
        "code",
        "code/pkg",
        "code/flow.py",
        "code/pkg/__init__.py",
        "code/pkg/by_name.py",
        "code/pkg/used.py",
    ]
    assert set(entries.values()) == {(0, 0, "")}
    assert result.archive[4:8] == bytes(4)  # gzip's own time
    hexadecimal = result.archive_digest.removeprefix("sha256:")
    assert result.archive_key == f"code/default/sha256/{hexadecimal[:2]}/{hexadecimal[2:4]}/{hexadecimal}.tgz"


def test_a_comment_changes_the_archive_and_no_annotation(write, compiled):
    before = compiled(EVERYTHING)
    after = compiled(EVERYTHING + "\n# a comment\n")
    assert before.archive_digest != after.archive_digest
    assert before.steps == after.steps
    texts = [json.dumps(one.manifest).replace(one.archive_key, "") for one in (before, after)]
    assert texts[0] == texts[1]


def test_parameters_replace_defaults(compiled):
    result = compiled(EVERYTHING, url="u", weights=[2.0])
    assert result.manifest["spec"]["arguments"]["parameters"] == [
        {"name": "url", "value": '"u"'}, {"name": "limit", "value": "3"}, {"name": "weights", "value": "[2.0]"},
    ]  # fmt: skip
    assert {"name": "url"} in compiled(EVERYTHING).manifest["spec"]["arguments"]["parameters"]


def test_a_parameter_of_the_command_line_is_json_or_bare_text(write, compiled):
    compiled(EVERYTHING)
    flow = load(write({}) / "flow.py")
    assert flow.parse({"url": "https://x", "limit": "4", "weights": "[1, 2.5]"}) == {
        "url": "https://x", "limit": 4, "weights": [1.0, 2.5],
    }  # fmt: skip
    assert flow.parse({"url": '"quoted"'}) == {"url": "quoted"}
    for texts in ({"limit": "four"}, {"limit": "1.5"}, {"weights": "NaN"}, {"other": "1"}, {"limit": "true"}):
        with pytest.raises(PipelineError, match=r"everything\(\)"):
            flow.parse(texts)


def test_a_step_that_depends_on_a_conditional_step_waits_for_its_success(compiled):
    result = compiled(EVERYTHING)
    tasks = {one["name"]: one for one in result.manifest["spec"]["templates"][0]["dag"]["tasks"]}
    assert tasks["publish"]["depends"] == "pick-best && write.Succeeded"
    best = "{{tasks.pick-best.outputs.parameters.output}}"
    assert tasks["write"]["when"] == f"({best} > 2) && (!({best} == {{{{workflow.parameters.limit}}}}))"


def test_all_steps_downstream_of_a_conditional_step_depend_on_its_success(compiled):
    result = compiled(
        """
        @step
        def one(x: int) -> int: return x
        @pipeline
        def flow() -> None:
            start = one(0)
            with when(start > 1):
                second = one(start)
            third = one(second)
            one(third)
        """
    )
    tasks = result.manifest["spec"]["templates"][0]["dag"]["tasks"]
    assert [one.get("depends") for one in tasks] == [None, "one", "one-2.Succeeded", "one-3.Succeeded"]


HEAD = """
import numpy as np
from typing import NamedTuple, Any
class Pair(NamedTuple):
    left: int
    right: np.ndarray
@step
def number() -> int: return 1
@step
def text() -> str: return "a"
@step
def numbers() -> list[int]: return [1]
@step
def pair() -> Pair: return Pair(1, np.zeros(1))
@step
def take(x: int) -> int: return x
@step
def add(x: int, y: int) -> int: return x + y
@step
def array(x: np.ndarray) -> np.ndarray: return x
@step
def total(xs: list[int]) -> int: return sum(xs)
@step
def arrays(xs: list[int]) -> np.ndarray: return np.array(xs)
@step
def blob(x: int) -> bytes: return b""
@step
def blobs(xs: bytes) -> int: return 1
"""


def wrong(body: str, head: str = "", arguments: str = "") -> str:
    lines = "\n".join("    " + line for line in body.splitlines())
    return f"{HEAD}{head}\n@pipeline\ndef flow({arguments}) -> Any:\n{lines}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (wrong("if number() > 1:\n    text()"), r"number\(\): .*`if`.*\n  fix: write: with when"),
        (wrong("if number():\n    text()"), r"number\(\): .*`if`"),
        (wrong("for x in numbers():\n    take(x)"), r"numbers\(\): .*a loop.*\n  fix: .*each"),
        (wrong("return take(number() + 1)"), r"number\(\): .*by \+, and a step has none.*\n  fix: do it inside a step"),
        (wrong("return take(f'{number()}')"), r"number\(\): .*f-string"),
        (wrong("take(number().real)"), r"number\(\): .*\.real.*\n  fix: .*NamedTuple"),
        (wrong("take(pair().middle)"), r"pair\(\): there is no output middle\n  fix: .*left, right"),
        (wrong("take(pair())"), r"take\(\), argument x: .*several outputs\n  fix: pass one"),
        (wrong("take()"), r"take\(\): wrong arguments: missing.*'x'\n  fix: call take\(x"),
        (wrong("take(1, 2)"), r"take\(\): wrong arguments: too many"),
        (wrong("take('1')"), r"take\(\), argument x: expected int, got '1' \(str\)"),
        (wrong("take(True)"), r"take\(\), argument x: expected int, got True"),
        (wrong("take(text())"), r"take\(\), argument x: takes int, got a JSON value \(str\) from text"),
        (
            wrong("pairs(numbers())", head="@step\ndef pairs(x: tuple[int, ...]) -> int: ..."),
            r"pairs\(\), argument x: takes tuple\[int, \.\.\.\], got a JSON value \(list\[int\]\) from numbers",
        ),
        (
            wrong(
                "last(first())",
                head="@step\ndef first() -> Artifact[list[int]]: ...\n"
                "@step\ndef last(x: Artifact[dict[str, int]]) -> int: ...",
            ),
            r"last\(\), argument x: takes dict\[str, int\], got a JSON file \(list\[int\]\) from first",
        ),
        (wrong("array(1)"), r"array\(\), argument x: takes a file \(npy\), got int\n  fix: pass the output of a step"),
        (wrong("array(number())"), r"array\(\), argument x: takes a file \(npy\), got a JSON value"),
        (wrong("array(blob(1))"), r"array\(\), argument x: takes a file \(npy\), got a file \(bytes\)"),
        (wrong("total([number(), number()])"), r"total\(\), argument xs: a step's output is inside a list"),
        (wrong("take(number() > 1)"), r"take\(\), argument x: .* is a condition"),
        (wrong("take(each([1]))"), r"take\(\): each\(…\) stands in a plain call\n  fix: call take\.map"),
        (wrong("take.map(1)"), r"take\(\): no argument of \.map is marked"),
        (wrong("take.map(each([]))"), r"take\(\): each\(…\) takes lists of one length, with at least one value"),
        (wrong("add.map(each([1]), each([1, 2]))"), r"add\(\): .*one length.*x has 1, y has 2"),
        (wrong("add.map(each(numbers()), each([1]))"), r"add\(\), argument x: several arguments vary"),
        (wrong("take.map(each(number()))"), r"take\(\), argument x: each\(…\) takes a list"),
        (wrong("take.map(each(5))"), r"take\(\), argument x: each\(…\) takes a list"),
        (wrong("array.map(each([1]))"), r"array\(\), argument x: takes a file \(npy\): only JSON values can vary"),
        (
            wrong("blobs(blob.map(each([1])))"),
            r"blobs\(\), argument xs: blob\.map\(…\) returns files, and Argo cannot gather.*\n  fix: return small values",
        ),
        (wrong("take(take.map(each([1])))"), r"take\(\), argument x: take\.map\(…\) gives a list"),
        (wrong("take.map(each(w))", arguments="w: list[str]"), r"take\(\), argument x: takes int, got elements str"),
        (wrong("return number"), r"flow\(\): calls no step"),
        (wrong("take(1)\nreturn 5"), r"flow\(\), argument return, output: returns 5, which is no output"),
        (wrong("return take.map(each([1]))"), r"flow\(\), argument return, output: returns the loose results of take"),
        (
            wrong("with when(number() > 1):\n    x = take(1)\nreturn x"),
            r"flow\(\), argument return, output: returns an output of take, which may be skipped",
        ),
        (wrong("with when(numbers() == 1):\n    take(1)"), r"numbers\(\): .*a condition compares"),
        (wrong("with when('yes'):\n    take(1)"), r"'yes' is no condition"),
        (wrong("take(1)", arguments="x: np.ndarray"), r"flow\(\), argument x: a pipeline's parameter is a JSON value"),
        (wrong("odd()", head="@step\ndef odd() -> set[int]: ..."), r"odd\(\), argument return: values of type set\[int\]"),
        (wrong("odd()", head="@step\ndef odd(x: Any = 1) -> int: ..."), r"odd\(\), argument x: values of type Any"),
        (wrong("odd(1)", head="@step\ndef odd(x: 'Nowhere') -> int: ..."), r"odd\(\): .*'Nowhere'.*not defined"),
        (
            wrong("odd(1)", head="@step(ignore_inputs=['y'])\ndef odd(x: int) -> int: ..."),
            r"odd\(\): ignore_inputs names y, which is no argument",
        ),
        (wrong("odd()", head="def make():\n    @step\n    def odd() -> int: ...\n    return odd\nodd = make()"), r"odd\(\): a step is a function at the top level"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_names_function_argument_and_fix(compiled, text, message):
    with pytest.raises(PipelineError, match=message):
        compiled(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "@step\ndef f(x) -> int: ...",
            r"f\(\), argument x: the annotation is missing\n  fix: write its type",
        ),
        ("@step\ndef f(x: int): ...", r"f\(\): the return annotation is missing\n  fix: .*-> None"),
        ("@step\ndef f(*x: int) -> int: ...", r"f\(\), argument x: a step takes no \* arguments"),
        ("@step\nasync def f() -> int: ...", r"f\(\): a step is a plain function"),
        ("@step\ndef f() -> int:\n    yield 1", r"f\(\): a step is a plain function"),
        ("@step\nclass f: ...", r"@step stands on f, which is no function"),
        ("@step(cache='sometimes')\ndef f() -> int: ...", r"f\(\): cache='sometimes' is no cache mode"),
        ("@step(ttl='a week')\ndef f() -> int: ...", r"f\(\): ttl='a week' is no duration"),
        ("@step(ttl='-5m')\ndef f() -> int: ...", r"f\(\): ttl='-5m' is negative\n  fix: write it as"),
        ("@step(ttl=90)\ndef f() -> int: ...", r"f\(\): ttl=90 is no duration\n  fix: .*1h30m"),
        ("@step(ttl='1 h')\ndef f() -> int: ...", r"f\(\): ttl='1 h' is no duration"),
        ("@step(retries=-1)\ndef f() -> int: ...", r"f\(\): retries=-1"),
        ("@step(ignore_inputs='x')\ndef f(x: int) -> int: ...", r"f\(\): ignore_inputs is a list"),
        ("@pipeline\ndef f(x): ...", r"f\(\), argument x: the annotation is missing"),
    ],
)
def test_a_wrong_definition_is_refused_by_its_decorator(write, text, message):
    with pytest.raises(PipelineError, match=message):
        load(write({"flow.py": f"from periplus.sdk import pipeline, step\n{text}\n"}) / "flow.py")


@pytest.mark.parametrize("ttl", ["90s", "1h30m", "7d", "1.5h", "2w3d", "250ms", "0s"])
def test_a_ttl_is_what_the_dispatcher_reads(compiled, ttl):
    from periplus_manifest.duration import parse_duration

    result = compiled(
        f"@step(ttl={ttl!r})\ndef one() -> int: return 1\n@pipeline\ndef flow() -> int: return one()\n"
    )
    (template,) = result.manifest["spec"]["templates"][1:]
    assert parse_duration(template["metadata"]["annotations"]["periplus.dev/ttl"], days=True) is not None


def test_load_finds_the_one_pipeline_or_says_which_there_are(write):
    body = "from periplus.sdk import pipeline\n@pipeline\ndef one() -> None: ...\n"
    folder = write({
        "flow.py": body, "two.py": body + "@pipeline\ndef two() -> None: ...\n", "none.py": "x = 1\n",
        "uses.py": "from flow import one\nfrom periplus.sdk import pipeline\n@pipeline\ndef mine() -> None: ...\n",
    })  # fmt: skip
    assert load(folder / "flow.py").name == "one"
    assert load(folder / "uses.py").name == "mine"
    assert load(f"{folder}/two.py:two").name == "two"
    for path, message in [
        ("two.py", r"several pipelines: one, two\n  fix: name one: .*two\.py:one"),
        ("none.py", "no @pipeline"),
        ("two.py:three", "has no pipeline three\n  fix: .*one, two"),
        ("missing.py", "is no Python file"),
    ]:
        with pytest.raises(PipelineError, match=message):
            load(f"{folder}/{path}")


def test_loading_a_file_again_uses_the_new_text_of_the_file_and_of_its_modules(write):
    flow = "from helper import N\nfrom periplus.sdk import pipeline\n@pipeline\ndef one(x: int = N) -> None: ...\n"
    folder = write({"flow.py": flow, "helper.py": "N = 1\n"})
    assert load(folder / "flow.py").arguments({}) == {"x": "1"}
    write({"helper.py": "N = 22\n"})
    assert load(folder / "flow.py").arguments({}) == {"x": "22"}


def test_a_file_inside_a_package_is_imported_from_above_it(write):
    text = """
    from periplus.sdk import pipeline, step
    from .steps import one
    @pipeline
    def flow() -> int:
        return one()
    """
    steps = "from periplus.sdk import step\n@step\ndef one() -> int:\n    return 1\n"
    folder = write({"project/__init__.py": "", "project/flow.py": text, "project/steps.py": steps})
    result = compile(load(folder / "project/flow.py"))
    assert [one.entry for one in result.steps] == ["project.steps:one"]
    assert result.files == ("project/__init__.py", "project/flow.py", "project/steps.py")


def test_a_step_is_found_in_its_own_module_when_its_decorator_is_in_another(write):
    decorators = """
    import functools
    def loud(function):
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            return function(*args, **kwargs)
        return wrapped
    """
    flow = """
    from decorators import loud
    from periplus.sdk import pipeline, step
    @step
    @loud
    def one(x: int) -> int:
        return x
    @pipeline
    def flow() -> int:
        return one(1)
    """
    result = compile(load(write({"decorators.py": decorators, "flow.py": flow}) / "flow.py"))
    (step,) = result.steps
    assert step.entry == "flow:one"
    assert set(step.digests) == {
        "decorators.py:<imports>",
        "decorators.py:loud",
        "flow.py:<imports>",
        "flow.py:one",
    }


def test_code_that_is_too_large_to_send_is_refused_with_the_largest_file(write):
    import random

    data = random.Random(1).randbytes(9 * 1024 * 1024).hex()
    text = "from periplus.sdk import pipeline, step\nimport data\n@step\ndef one() -> int:\n    return len(data.D)\n@pipeline\ndef flow() -> int:\n    return one()\n"
    folder = write({"data.py": f"D = '{data}'\n", "flow.py": text})
    with pytest.raises(PipelineError, match=r"at most 8388608 are taken\n  fix: .*data\.py"):
        compile(load(folder / "flow.py"))


def test_a_module_that_is_already_imported_is_not_imported_again(write, monkeypatch):
    import importlib
    import sys

    folder = write(
        {"taken_flow.py": "from periplus.sdk import pipeline\n@pipeline\ndef one() -> None: ...\n"}
    )
    monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module("taken_flow")
    assert load(folder / "taken_flow.py") is module.one
    del sys.modules["taken_flow"]


def test_importing_the_sdk_imports_none_of_the_large_packages():
    import subprocess
    import sys

    code = "import sys, periplus.sdk; print([n for n in ('hera', 'pydantic', 'grpc', 'rich', 'typer', 'numpy', 'sklearn', 'joblib', 'yaml', 'asyncio') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []


def test_a_condition_compares_with_the_plain_value_of_a_constant(compiled):
    made = compiled(
        """
        import enum
        import numpy as np
        class Word(enum.StrEnum):
            A = "a"
        class Mixed(str, enum.Enum):
            A = "a"
        @step
        def text() -> str: return "a"
        @step
        def number() -> float: return 1.0
        @step
        def after(x: str) -> None: ...
        @pipeline
        def flow() -> None:
            name, value = text(), number()
            for condition in (name == Word.A, name == Mixed.A, value > np.float64(0.9), value > True):
                with when(condition):
                    after("x")
        """
    )
    tasks = made.manifest["spec"]["templates"][0]["dag"]["tasks"]
    output = "{{tasks.%s.outputs.parameters.output}}"
    assert [one["when"] for one in tasks if "when" in one] == [
        f'{output % "text"} == "a"',
        f'{output % "text"} == "a"',
        f"{output % 'number'} > 0.9",
        f"{output % 'number'} > true",
    ]
