"""The errors that commands print, and their exit codes."""

from pathlib import Path

import pytest

from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
from periplus.types.v1 import step_pb2 as types
from periplus_common.errors import Conflict, Invalid, Refused

MANIFEST = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n"


@pytest.fixture
def workflow(tmp_path: Path) -> str:
    (tmp_path / "workflow.yaml").write_text(MANIFEST)
    return "workflow.yaml"


@pytest.mark.parametrize(
    ("error", "code", "where"),
    [
        (
            Invalid("unknown template x", field="spec.manifest", fix="name one that is there"),
            2,
            "spec.manifest",
        ),
        (Conflict("differs"), 2, "dispatcher"),
        (Refused("not now"), 6, "dispatcher"),
        (ZeroDivisionError("inside"), 70, "dispatcher at 127.0.0.1"),
    ],
)
def test_an_error_of_a_service_is_printed_with_where_and_fix(script, periplus, workflow, error, code, where):
    script.answers["SubmitRun"] = error
    result = periplus("run", workflow)
    assert result.code == code
    assert result.err.startswith("error: ")
    assert f"  where: {where}" in result.err
    assert "Traceback" not in result.err
    assert "inside" not in result.err
    if getattr(error, "fix", ""):
        assert f"  fix:   {error.fix}\n" in result.err


def test_with_json_output_an_error_is_a_document(script, periplus, workflow):
    script.answers["PlanRun"] = Invalid("unknown template x", field="spec.manifest")
    result = periplus("plan", workflow, "-o", "json")
    assert result.document == {
        "error": {"what": "unknown template x", "where": "spec.manifest", "fix": "", "exit_code": 2}
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nothing.yaml"], "nothing.yaml"),
        (["run", "nothing.py"], "nothing.py is no Python file"),
        (["run", "workflow.yaml", "-p", "c"], "'c' is not NAME=VALUE"),
        (["run", "workflow.yaml", "-p", "c=1", "-p", "c=2"], "c is given twice"),
        (["run", "workflow.yaml", "--image", "x:1"], "--image is for the steps of a pipeline"),
        (["run", "workflow.yaml", "--cache", "never"], "never"),
        (["run"], "file"),
        (["run", "large.yaml"], "larger than 1 MiB"),
        (["run", "binary.yaml"], "not UTF-8"),
        (["run", "broken.py"], "SyntaxError"),
        (["run", "raises.py"], "ZeroDivisionError"),
        (["run", "exits.py"], "SystemExit"),
        (["run", "empty.py"], "no @pipeline"),
        (["compile", "workflow.yaml"], "only pipelines are compiled"),
        (["frobnicate"], "frobnicate"),
        (["runs", "--limit", "0"], "limit"),
        (["runs", "@latest~x"], "names no run"),
    ],
)
def test_bad_input_prints_no_traceback_and_exits_with_2(
    script, periplus, workflow, tmp_path, arguments, expected
):
    (tmp_path / "large.yaml").write_bytes(b"x" * (1024 * 1024 + 1))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "broken.py").write_text("def x(:\n")
    (tmp_path / "raises.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit('no')\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    result = periplus(*arguments)
    assert result.code == 2, result
    assert result.err.startswith("error: ")
    assert expected in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert script.calls == []


def test_an_error_in_a_users_file_names_its_line(script, periplus, tmp_path):
    (tmp_path / "divides_by_zero.py").write_text("x = 1\ny = x / 0\n")
    result = periplus("run", "divides_by_zero.py")
    assert f"  where: {tmp_path}/divides_by_zero.py:2" in result.err


def test_escape_sequences_in_data_are_not_printed(script, periplus, workflow):
    evil = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eevil\r\nline\x00"
    answer = dispatcher.SubmitRunResponse(run=evil, phase=types.RUN_PHASE_SUCCEEDED, plan={})
    answer.plan.steps.add(path=evil, reason=evil, verdict=types.VERDICT_HIT, producer_run=evil)
    answer.plan.warnings.append(evil)
    answer.outputs.parameters.add(name=evil, value=evil)
    script.answers["SubmitRun"] = answer
    result = periplus("run", workflow)
    assert "evil line" in result.out
    assert not set("\x1b\x9b\x07\x00\r\u202e") & set(result.out + result.err)
    script.answers["SubmitRun"] = Invalid(evil, field=evil, fix=evil)
    assert not set("\x1b\x9b\x07\x00\r\u202e") & set(periplus("run", workflow).err)


def test_no_stack_exits_with_3_and_says_how_to_start_one(clean_environment, periplus, tmp_path):
    (tmp_path / "workflow.yaml").write_text(MANIFEST)
    result = periplus("run", "workflow.yaml")
    assert result.code == 3
    assert "fix:   periplus up --detach" in result.err


def test_a_stack_that_does_not_answer_exits_with_3(script, periplus, workflow, monkeypatch):
    monkeypatch.setenv("PERIPLUS_DISPATCHER", "127.0.0.1:1")
    result = periplus("run", workflow)
    assert result.code == 3
    assert result.err == (
        "error: does not answer\n  where: dispatcher at 127.0.0.1:1\n  fix:   periplus doctor\n"
    )


def test_a_wrong_token_exits_with_3(script, periplus, workflow, monkeypatch):
    monkeypatch.setenv("PERIPLUS_TOKEN", "another")
    result = periplus("run", workflow)
    assert result.code == 3
    assert "no valid token" in result.err


@pytest.mark.parametrize(
    "code",
    [
        "def deep(x):\n    return x" + " + 1" * 2_000,
        "def deep(x):\n    return x" + ".real" * 2_000,
        "".join(f"def f{n}(x):\n    return f{n + 1}(x)\n" for n in range(2_000))
        + "def f2000(x):\n    return x\n\ndef deep(x):\n    return f0(x)",
    ],
    ids=["terms", "attributes", "calls"],
)
def test_code_that_nests_too_deeply_is_refused_in_words(periplus, tmp_path, code):
    (tmp_path / "deep.py").write_text(
        f"from periplus.sdk import pipeline, step\n\n{code}\n\n@step\ndef s(x: int) -> int:\n    return deep(x)\n\n"
        "@pipeline\ndef p() -> int:\n    return s(1)\n"
    )
    result = periplus("compile", str(tmp_path / "deep.py"))
    assert result.code == 2
    assert "error: is nested too deeply to be read" in result.err
    assert "RecursionError" not in result.err
    assert "Traceback" not in result.err
