"""A step's process reports what it used beyond its key, and nothing that its key has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from periplus.sdk.compiler.loading import load
from periplus.sdk.compiler.manifest import compile  # noqa: A004 - the public name
from periplus.sdk.discovery.executed import Executed
from periplus.sdk.errors import PipelineError

MODELS = """
K = 1

class Model:
    weight = K
    def score(self):
        return helped(self.weight)

def helped(x):
    return x

def tree(x):
    return x

def unused(x):
    return x
"""
FLOW = """
from periplus.sdk import pipeline, step
import os, pickle, pkgutil, subprocess, sys, warnings, inspect, importlib.metadata
from pathlib import Path
import models

@step
def one(text: str = "") -> int:
    {body}

@pipeline
def flow() -> int:
    return one()
"""


@pytest.fixture
def report(write, execute):
    """What a step of this body reports."""

    def run(body: str, files: dict[str, str] | None = None, decorator: str = "@step") -> dict:
        folder = write(
            {
                "project/flow.py": FLOW.format(body=body).replace("@step", decorator),
                "project/models.py": MODELS,
            }
            | {f"project/{name}": text for name, text in (files or {}).items()}
        )
        compiled = compile(load(folder / "project/flow.py"))
        execution = execute(compiled)
        execution.run()
        index = json.loads(compiled.manifest["metadata"]["annotations"]["periplus.dev/code-index"])
        found = json.loads(execution.values["tasks.one.outputs.parameters.periplus-discovered"])
        assert all(index[name] == digest for name, digest in found.get("code", {}).items())
        return {"code": sorted(found.pop("code", ())), **found}

    return run


IMPORTS = ["flow.py:", "models.py:"]


@pytest.mark.parametrize(
    ("body", "used"),
    [
        ("return models.tree(1)", []),
        ("return models.Model().score()", []),
        ("return len(pickle.dumps(models.Model()))", []),
        ("return pkgutil.resolve_name('models.tree')(1)", ["models.py", *IMPORTS, "models.py:tree"]),
        ("return pkgutil.resolve_name('models:K')", ["models.py", *IMPORTS]),
        ("from pydoc import locate; return locate('models.K')", ["models.py", *IMPORTS]),
        (
            "return importlib.metadata.EntryPoint('a', 'models:tree', 'g').load()(1)",
            ["models.py", *IMPORTS, "models.py:tree"],
        ),
        (
            "return pickle.loads(b'cmodels\\nModel\\n)R.').score()",
            [*IMPORTS, "models.py:Model", "models.py:helped"],
        ),
        ("return pickle.loads(b'cmodels\\nModel\\n.').weight", [*IMPORTS, "models.py:Model"]),
        ("return pkgutil.resolve_name('plugins.one:value')()", [*IMPORTS, "plugins/__init__.py:", "plugins/one.py",
         "plugins/one.py:", "plugins/one.py:value"]),
        ("return subprocess.call([sys.executable, '-c', ''])", ["*"]),
        ("pid = os.fork(); pid or os._exit(0); return os.waitpid(pid, 0)[1]", ["*"]),
        ("return len(os.listdir(Path(__file__).parent)) * 0", ["/"]),
        ("warnings.warn('shown with its line'); return 1", []),
    ],
)  # fmt: skip
def test_code_beyond_the_closure_is_named(report, body, used):
    plugin = {"plugins/__init__.py": "", "plugins/one.py": "def value():\n    return 1\n"}
    assert report(body, plugin) == {"code": sorted(used)}


def test_a_function_that_a_decorator_of_a_library_registered_is_named(report):
    registered = """
import codecs

def encode(text, errors="strict"):
    return b"", 1

@codecs.register
def find(name):
    return codecs.CodecInfo(encode, None, name=name) if name == "mine" else None
"""
    body = "import codecs, registered; return codecs.lookup('mine').encode('')[1]"
    used = report(body, {"registered.py": registered})["code"]
    assert set(used) >= {"registered.py:encode", "registered.py:find"}


def test_a_file_that_the_step_does_not_declare_is_named(report, tmp_path):
    (tmp_path / "data.csv").write_text("1")
    (tmp_path / "folder").mkdir()
    body = f"return len(open({str(tmp_path / 'data.csv')!r}).read()) + len(os.listdir({str(tmp_path / 'folder')!r}))"
    where = [str(tmp_path / "data.csv"), str(tmp_path / "folder")]
    found = report(body)
    # pytest's folder is one of temporary files, which are left out.
    assert found == {"code": []} or found["files"] == where


def test_files_of_the_machine_and_what_the_step_wrote_itself_are_not_named(report):
    body = "open('mine', 'w').close(); open('/etc/hosts').read(); return len(open('mine').read())"
    assert report(body) == {"code": []}


def test_source_that_is_read_as_data_is_named(report):
    assert report("return len(inspect.getsource(models.tree))")["files"] == ["models.py"]


def test_annotations_that_only_a_type_checker_imports_are_no_file_that_the_step_reads(report):
    decorator = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy as np\n"
        "def pixels(text) -> 'np.ndarray': ...\n@step"
    )
    body = "from periplus.sdk.values.annotations import hints; return len(hints(pixels))"
    assert report(body, decorator=decorator).get("files") is None


def test_a_declared_file_travels_and_is_part_of_the_key(write, execute):
    body = "return int((Path(__file__).parent / 'conf/a.txt').read_text())"
    text = FLOW.format(body=body).replace("@step", '@step(files=["conf"])')
    folder = write({"flow.py": text, "models.py": MODELS, "conf/a.txt": "3"})
    first = compile(load(folder / "flow.py"))
    execution = execute(first)
    assert execution.run() == {"output": 3}
    assert execution.values["tasks.one.outputs.parameters.periplus-discovered"] == "{}"
    write({"conf/a.txt": "4"})
    assert compile(load(folder / "flow.py")).steps[0].digests != first.steps[0].digests


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ('["gone.txt"]', "there is no gone.txt"),
        ('["../up.txt"]', "is not in"),
        ('"conf"', "is a list of names"),
    ],
)
def test_files_that_can_not_travel_are_refused_with_the_fix(write, tmp_path, files, problem):
    (tmp_path / "up.txt").write_text("")
    text = FLOW.format(body="return 1").replace("@step", f"@step(files={files})")
    folder = write({"project/flow.py": text, "project/models.py": MODELS})
    (folder / "up.txt").write_text("")
    with pytest.raises(PipelineError, match=problem) as refused:
        compile(load(folder / "project/flow.py"))
    assert refused.value.fix


def test_a_step_that_misses_a_file_says_how_to_declare_it(write, execute):
    text = FLOW.format(body="return len((Path(__file__).parent / 'config.yaml').read_text())")
    compiled = compile(load(write({"flow.py": text, "models.py": MODELS, "config.yaml": ""}) / "flow.py"))
    with pytest.raises(AssertionError) as failed:
        execute(compiled).run()
    assert '@step(files=["config.yaml"])' in str(failed.value)


def test_variables_that_differ_from_pod_to_pod_or_between_machines_are_named_where_the_project_reads_them(
    write,
):
    script = """
import os, sys
from periplus.sdk import discovery
found = discovery.start("p:one", os.environ, sys.argv[1])
sys.path.insert(0, sys.argv[1])
import p
os.environ["ARGO_NODE_ID"]
print(found.report().get("variables"))
"""
    folder = write({
        "p.py": "import os\nos.getenv('HOSTNAME'), os.environ.get('DB_SERVICE_HOST'), os.getenv('RATE'), os.environ['HOME']\n"
    })  # fmt: skip
    more = {
        "HOSTNAME": "pod",
        "ARGO_NODE_ID": "n",
        "DB_SERVICE_HOST": "10.0.0.1",
        "RATE": "1",
        "HOME": "/root",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['DB_SERVICE_HOST', 'HOME', 'HOSTNAME']\n"


READER = "def shown(what):\n    return what.__doc__\n"


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        ("return len(pkgutil.resolve_name('reader.shown')(pkgutil.resolve_name('models.tree')) or '')", True),
        ("return pkgutil.resolve_name('models.tree')(1)", False),
    ],
)
def test_docstrings_count_where_code_that_reads_some_was_loaded(report, body, counts):
    used = report(body, {"reader.py": READER})["code"]
    assert ("models.py:<spelling>" in used) == counts


def test_a_module_that_is_imported_by_a_name_is_reported(report):
    plugin = {"plugins/__init__.py": "", "plugins/one.py": "RATE = 1\ndef value():\n    return RATE\n"}
    body = "import importlib; return importlib.import_module('plugins.' + 'one').value()"
    assert {"plugins/one.py", "plugins/one.py:value"} <= set(report(body, plugin)["code"])


def test_whether_a_function_was_executed_is_known():
    def never():
        pass

    def once():
        pass

    def often():
        return [one for one in range(100)]  # noqa: C416 - a loop of its own

    executed = Executed()
    executed.watch(lambda: [never.__code__, once.__code__, often.__code__])
    once()
    for _ in range(100):
        often()
    assert not executed.counts([never.__code__])[0]
    assert executed.counts([once.__code__])[0]
    assert executed.counts([often.__code__])[0]
    before = executed.counts([once.__code__])[0]
    executed.begin_again()
    once()
    assert executed.counts([once.__code__])[0] != before


def test_the_report_of_a_large_project_names_files_then_everything(write):
    from periplus.sdk.discovery.names import MAX_NAMES_BYTES, Names

    names = [f"module{number}.py:function" for number in range(1000)]
    digests = {"*": "e" * 32} | dict.fromkeys(names, "d" * 32)
    folder = write({"periplus-runner/digests.json": json.dumps(digests)})
    found = Names(str(folder), "m:f").with_digests(names)
    assert found == {"*": "e" * 32}
    assert len(json.dumps(found)) <= MAX_NAMES_BYTES
    assert Names(str(folder / os.devnull), "m:f").with_digests(["a.py:b"]) == {"*": ""}


def test_the_published_bounds_are_those_of_the_code():
    from periplus.sdk.compiler.closure import index, project
    from periplus.sdk.compiler.files import MAX_FILES
    from periplus.sdk.compiler.manifest import MAX_OTHER_BYTES
    from periplus.sdk.discovery.names import MAX_NAMES_BYTES

    text = (Path(__file__).parents[3] / "docs/limits.md").read_text().partition("## Discovered inputs")[2]
    bounds = (
        index.MAX_INDEX_BYTES, MAX_NAMES_BYTES, project.MAX_OTHER_MODULES, project.MAX_SEEN_FILES, MAX_OTHER_BYTES, MAX_FILES
    )  # fmt: skip
    for bound in bounds:
        assert f"{bound:,}" in text
