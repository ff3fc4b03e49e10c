"""What services, manifests and steps say can not steer the terminal, and starts no line of its own in a command's output."""

import ast
import importlib.util
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from stack import ROOT

from periplus.cache.v1 import cache_pb2
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.sdk.cli.text import printable
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus_common.errors import Conflict, Invalid, NotFound, Refused

# The scripted services and the command of the SDK's own tests.
_found = importlib.util.spec_from_file_location("cli_conftest", ROOT / "libs/sdk/tests/cli/conftest.py")
assert _found
assert _found.loader
_cli = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_cli)
_served, script, periplus, clean_environment = (
    _cli._served,
    _cli.script,
    _cli.periplus,
    _cli.clean_environment,
)

CORPUS = {
    "a line": "x\nFORGED",
    "lines": "x\r\n\nFORGED\n",
    "a carriage return": "x\rFORGED",
    "other line breaks": "x\x0bFORGED\x0cFORGED\x85FORGED\u2028FORGED\u2029FORGED\x1cFORGED",
    "colour": "x\x1b[31m\x1b[2J\x1b[1;1HFORGED\x1b[0m",
    "a link": "x\x1b]8;;https://evil.example\x07FORGED\x1b]8;;\x07",
    "a title, not closed": "x\x1b]0;FORGED",
    "8 bit": "x\x9b2J\x9d0;t\x9c\x90q\x9cFORGED",
    "a device string": "x\x1bP+q544e\x1b\\FORGED",
    "nested": "x\x1b\x1b[[31m\x1b]\x1b]0;FORGED",
    "a reset": "x\x1bc\x1b(0\x1b7\x1b=FORGED",
    "direction": "x\u202eDEGROF\u202c\u2066\u2067\u2069\u200e\u200f\u061c",
    "invisible": "x\u200b\u2060\ufeff\u00ad\u180e\ufff9\U000e0041FORGED",
    "backspaces": "x" + "\x08" * 80 + "FORGED\x7f\x00\x07",
}  # fmt: skip
SHA = f"sha256:{'a' * 64}"
STEERING = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")
COMMANDS = {
    "runs": ["runs"],
    "a run": ["runs", "r-1"],
    "watch": ["watch", "r-1"],
    "run": ["run", "hello.yaml"],
    "run without watching": ["run", "hello.yaml", "--no-watch"],
    "plan": ["plan", "hello.yaml"],
    "cancel": ["cancel", "r-1"],
    "logs": ["logs", "r-1"],
    "logs of a step": ["logs", "r-1", "--step", "main"],
    "cache ls": ["cache", "ls"],
    "cache show": ["cache", "show", SHA],
    "cache invalidate": ["cache", "invalidate", SHA, "--yes"],
    "cache savings": ["cache", "savings"],
    "why": ["why", "r-1", "main"],
    "snapshot show": ["snapshot", "show", SHA],
    "snapshot show --content": ["snapshot", "show", SHA, "--content"],
    "lineage up": ["lineage", "up", "r-1"],
    "lineage down": ["lineage", "down", "r-1/main"],
    "diff": ["diff", "r-1", "r-2"],
    "shadow": ["shadow"],
    "adopt": ["adopt", "--dry-run"],
    "adopt a template": ["adopt", "wftmpl/x"],
    "release": ["release", "wftmpl/x"],
    "reproduce --dry-run": ["reproduce", "r-1", "--dry-run"],
    "reproduce": ["reproduce", "r-1"],
    "rollback": ["rollback", "p", "--to", "r-1", "--yes"],
    "rollback --dry-run": ["rollback", "p", "--to", "r-1", "--dry-run"],
}
MAY_HAVE_LINES = {"logs of a step", "snapshot show --content"}
"""Logs and patches have lines of their own; nothing else of a command is printed among them."""
WITHOUT_TEXT = {"cancel", "cache savings", "cache invalidate", "release"}
"""Commands that print nothing of a response but numbers."""
STREAMS = {"WatchRun", "ReadLogs", "AdoptRuns"}


def hostile(message: Message, text: str, phase: int, depth: int = 6) -> None:
    """Put the text into every field that can have it, and this phase wherever there is one."""
    for field in message.DESCRIPTOR.fields:
        if field.name.endswith(("page_token", "expires_at")) or not depth:
            continue
        target = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            if value.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                target[text] = text.encode() if value.type == FieldDescriptor.TYPE_BYTES else text
                target[f"untracked/{text}"] = target[text]
        elif field.message_type and field.is_repeated:
            for _ in range(2):
                hostile(target.add(), text, phase, depth - 1)
        elif field.message_type:
            if not field.containing_oneof or not message.WhichOneof(field.containing_oneof.name):
                target.SetInParent()
                hostile(target, text, phase, depth - 1)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            value = text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
            if field.is_repeated:
                target.extend([value, value])
            else:
                setattr(message, field.name, value)
        elif field.name == "phase":
            message.phase = phase  # type: ignore[attr-defined]


def answers(text: str, phase: int) -> dict[str, Any]:
    """A hostile response for each method of the services."""
    found: dict[str, Any] = {}
    for module in (dispatcher_pb2, cache_pb2, lineage_pb2, snapshotter_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                response = getattr(module, method.output_type.name)()
                hostile(response, text, phase)
                found[method.name] = [response] if method.name in STREAMS else response
    found["ListDivergences"].recorded_steps = 1000  # else the commands wait for more
    return found


def check(text: str, output: str, *, may_have_lines: bool = False) -> None:
    steering = {hex(ord(found)) for found in STEERING.findall(output)}
    assert steering == set()
    assert not {c for c in output if unicodedata.category(c) in ("Cf", "Zl", "Zp")}
    if not may_have_lines:
        assert not re.search(r"^(FORGED|DEGROF)", output, re.MULTILINE), output


@pytest.fixture
def manifest(tmp_path: Path) -> None:
    (tmp_path / "hello.yaml").write_text("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_text_of_a_service_steers_the_terminal_or_starts_a_line(
    script: Any, periplus: Callable[..., Any], manifest: None, name: str
) -> None:
    shown = False
    for text in CORPUS.values():
        for phase in (3, 4):
            script.answers.clear()
            script.answers.update(answers(text, phase))
            result = periplus(*COMMANDS[name])
            assert result.code in (0, 1), result.err
            check(text, result.out + result.err, may_have_lines=name in MAY_HAVE_LINES)
            shown |= "FORGED" in result.out + result.err
        document = periplus(*COMMANDS[name], "-o", "json")
        assert document.out.isascii()
        assert not re.search(r"[^\n\x20-\x7e]", document.out)
        json.loads(document.out)
    assert shown == (name not in WITHOUT_TEXT)


KINDS = (Invalid, NotFound, Conflict, Refused)


@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
def test_an_error_of_a_service_is_one_line(
    script: Any, periplus: Callable[..., Any], manifest: None, text: str
) -> None:
    """Each command with each text, and each kind with each of both."""
    for number, arguments in enumerate(COMMANDS.values(), start=list(CORPUS.values()).index(text)):
        kind = KINDS[number % len(KINDS)]
        error = kind(text, field=text, fix=text) if kind is Invalid else kind(text, fix=text)
        for module in (dispatcher_pb2, cache_pb2, lineage_pb2, snapshotter_pb2):
            for service in module.DESCRIPTOR.services_by_name.values():
                script.answers.update({method.name: error for method in service.methods})
        result = periplus(*arguments)
        assert result.code
        check(text, result.out + result.err)
        lines = result.err.splitlines()
        assert [line[:8] for line in lines] == ["error: x", "  where:", "  fix:  "][: len(lines)], lines


def test_what_a_user_names_is_one_line(
    clean_environment: None, periplus: Callable[..., Any], tmp_path: Path
) -> None:
    for text in CORPUS.values():
        name = text.replace("\0", "").replace("/", "")
        commands = [["run", name], ["runs", name], [name], ["runs", f"--{name}"], ["down", "--home", name]]
        commands += [["plan", f"{name}.py"], ["run", "a.yaml", "-p", name]]
        if text in (CORPUS["lines"], CORPUS["8 bit"]):
            commands.append(["doctor", "--home", name])  # which starts programs
        for arguments in commands:
            result = periplus(*arguments)
            check(text, result.out + result.err)


def test_the_lines_of_an_error_that_has_some_can_be_told_from_the_commands(
    clean_environment: None, periplus: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "raises.py").write_text("raise RuntimeError('first\\n  fix:   rm -rf ~\\nerror: forged')\n")
    result = periplus("plan", "raises.py", "--project", "p")
    assert result.code == 2
    assert "\n  | error: forged\n" in result.err
    assert not re.search(r"^(error: forged|  fix:   rm)", result.err, re.MULTILINE)


def test_a_step_can_not_write_a_line_of_another_step(script: Any, periplus: Callable[..., Any]) -> None:
    response = dispatcher_pb2.ReadLogsResponse(step="one", line="a\ntwo | b\x1b[2K\r\nthree | c")
    script.answers["ReadLogs"] = [response]
    assert periplus("logs", "r-1").out == "one | a\none | two | b\none | three | c\n"


def test_a_command_to_copy_has_the_path_of_a_step_as_one_word(
    script: Any, periplus: Callable[..., Any]
) -> None:
    script.answers.update(answers("x'; touch forged; '", 4))
    assert "--step 'x'\"'\"'; touch forged; '\"'\"''" in periplus("watch", "r-1").err


def test_a_manifest_is_printed_unchanged_and_without_steering_characters(
    clean_environment: None, periplus: Callable[..., Any], tmp_path: Path
) -> None:
    import yaml

    code = (
        "from periplus.sdk import pipeline, step\n"
        "@step\ndef one(text: str) -> str:\n    return text\n"
        "@pipeline\ndef main(text: str = 'größe') -> str:\n    return one(text)\n"
    )
    (tmp_path / "main.py").write_text(code)
    assert "größe" in periplus("compile", "main.py", "--project", "p").out
    for text in CORPUS.values():
        (tmp_path / "main.py").write_text(code.replace("'größe'", ascii(text)))
        result = periplus("compile", "main.py", "--project", "p")
        assert result.code == 0, result.err
        check(text, result.out, may_have_lines=True)
        (parameter,) = yaml.safe_load(result.out)["spec"]["arguments"]["parameters"]
        assert json.loads(parameter["value"]) == text


def test_one_module_writes_to_the_terminal() -> None:
    """Every other one calls it; `watching` draws its table by rich, of texts that `one_line` made."""
    folder = ROOT / "libs/sdk/src/periplus/sdk/cli"
    writers = {
        f"{path.name}: {ast.unparse(call.func)}"
        for path in folder.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and re.fullmatch(r"print|.*\.(echo|secho|print|write|writelines|print_exc)", ast.unparse(call.func))
    }
    assert writers == {"terminal.py: print", "watching.py: console.print", "entry.py: traceback.print_exc"}


def test_text_of_any_language_stays() -> None:
    for text in ("größe 漢字", "👩‍👩‍👧 ❤️", "می‌خواهم", "क्‍ष", "עברית", "e\u0301"):
        assert printable(text) == text
