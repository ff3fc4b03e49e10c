"""The process of a step: its environment, its result, its log."""

# A test may block: nothing else runs in its loop.
# ruff: noqa: ASYNC240

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings

Sh = Callable[..., Job]


async def test_a_step_that_succeeds_has_no_message(executor: ProcessExecutor, sh: Sh) -> None:
    done = await executor.run(sh("true"))
    assert (done.phase, done.message, done.exit_code) == ("Succeeded", "", 0)
    assert done.started_at <= done.finished_at


async def test_an_exit_code_gives_argos_message(executor: ProcessExecutor, sh: Sh) -> None:
    done = await executor.run(sh("exit 3"))
    assert (done.phase, done.message, done.exit_code) == ("Failed", "main: Error (exit code 3)", 3)


async def test_a_step_killed_by_a_signal_has_the_shell_s_exit_code(executor: ProcessExecutor, sh: Sh) -> None:
    done = await executor.run(sh("kill -9 $$$$"))
    assert (done.phase, done.exit_code) == ("Failed", 137)


async def test_a_command_that_is_not_found_fails_with_64(executor: ProcessExecutor, sh: Sh) -> None:
    done = await executor.run(sh("", container={"command": ["no-such-program"]}))
    assert (done.phase, done.exit_code) == ("Failed", 64)
    assert '"no-such-program": executable file not found in $PATH' in done.message


async def test_a_template_without_a_command_is_an_error_that_says_why(
    executor: ProcessExecutor, sh: Sh
) -> None:
    done = await executor.run(sh("", container={"command": []}))
    assert (done.phase, done.exit_code) == ("Error", None)
    assert "template has no command" in done.message


async def test_the_result_is_the_standard_output_without_its_newline(
    executor: ProcessExecutor, sh: Sh
) -> None:
    done = await executor.run(sh("echo one; echo two; echo; echo no >&2", capture_result=True))
    assert done.result == "one\ntwo\n"


async def test_the_result_is_the_last_256_kb(executor: ProcessExecutor, sh: Sh) -> None:
    line = "head -c 700000 /dev/zero | tr '\\0' a; echo end"
    done = await executor.run(sh(line, capture_result=True))
    assert done.result is not None
    assert len(done.result) == 256 * 1024
    assert done.result.endswith("aend")


async def test_the_log_has_standard_output_and_standard_error(executor: ProcessExecutor, sh: Sh) -> None:
    job = sh("echo out; echo err >&2")
    await executor.run(job)
    assert sorted(executor.log_path(job.id).read_text().split()) == ["err", "out"]


async def test_standard_input_is_empty(executor: ProcessExecutor, sh: Sh) -> None:
    done = await executor.run(sh("cat", capture_result=True))
    assert (done.phase, done.result) == ("Succeeded", "")


async def test_a_script_is_run_by_its_command_after_its_args(executor: ProcessExecutor, sh: Sh) -> None:
    script = {"command": ["python"], "args": ["-u"], "source": "import sys\nprint(sys.executable)"}
    job = Job("s-1", "wf", "wf-s", {"script": script}, "wf/s", capture_result=True)
    done = await executor.run(job)
    assert (done.phase, done.result) == ("Succeeded", sys.executable)


async def test_the_environment_is_not_that_of_the_server(
    executor: ProcessExecutor, sh: Sh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    env = [
        {"name": "WHO", "value": "world"},
        {"name": "GREETING", "value": "hello $(WHO) $(NOBODY) $$(WHO)"},
        {"name": "NUMBER", "value": 3},
        {"name": "NOTHING"},
    ]
    line = "echo '$(GREETING)'/$NUMBER/$NOTHING/$SECRET_OF_THE_SERVER"
    done = await executor.run(sh(line, container={"env": env}, capture_result=True))
    assert done.result == "hello world $(NOBODY) $(WHO)/3//"


async def test_a_working_folder_that_does_not_exist_is_made(executor: ProcessExecutor, sh: Sh) -> None:
    job = sh("echo x > here; ls", container={"workingDir": "/app-of-an-image"}, capture_result=True)
    assert (await executor.run(job)).result == "here"
    assert not Path("/app-of-an-image").exists()


@pytest.mark.parametrize("namespaces", [True, False])
async def test_a_folder_below_tmp_is_visible_only_if_shared_or_on_a_search_path(
    tmp_path: Path, nowhere: S3Config, sh: Sh, namespaces: bool
) -> None:
    for name in ("project", "modules", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "project" / "main.py").write_text("import found\n")
    (tmp_path / "modules" / "found.py").write_text("print('found')")
    template = {
        "workingDir": f"{tmp_path}/project",
        "env": [
            {"name": "PYTHONPATH", "value": f"{tmp_path}/modules"},
            {"name": "OTHER", "value": f"{tmp_path}/other"},
        ],
    }
    visible = (tmp_path / "project",)
    async with ProcessExecutor(
        tmp_path / "pods", nowhere, ExecutorSettings(slots=1, visible=visible, namespaces=namespaces)
    ) as executor:
        job = sh("python main.py; test ! -e $OTHER", container=template, capture_result=True)
        done = await executor.run(job)
    assert (done.phase, done.result) == ("Succeeded", "found")


async def test_no_more_steps_run_at_once_than_there_are_slots(
    tmp_path: Path, nowhere: S3Config, sh: Sh
) -> None:
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=2)) as executor:
        ended = await asyncio.gather(*(executor.run(sh("sleep 0.05")) for _ in range(8)))
    for each in ended:
        at_once = [e for e in ended if e.started_at <= each.started_at < e.finished_at]
        assert len(at_once) <= 2


async def test_two_steps_with_the_same_paths_do_not_share_files(
    executor: ProcessExecutor, sh: Sh, parameters: Callable[..., dict[str, Any]]
) -> None:
    def job(word: str) -> Job:
        line = f"test ! -e /tmp/o; echo {word} > /tmp/o; sleep 0.2; cat /tmp/o > /tmp/p"
        return sh(line, outputs=parameters(p="/tmp/p"))

    one, two = await asyncio.gather(executor.run(job("one")), executor.run(job("two")))
    assert (one.parameters, two.parameters) == ({"p": "one"}, {"p": "two"})


async def test_an_argument_that_cannot_be_passed_ends_the_step_in_error(
    executor: ProcessExecutor, sh: Sh
) -> None:
    assert (await executor.run(sh("echo \0"))).phase == "Error"
    assert (await executor.run(sh("echo \ud800"))).phase == "Error"
    assert (await executor.run(sh("x" * 3_000_000))).phase == "Error"
    assert (await executor.run(sh("true"))).phase == "Succeeded"


async def test_an_id_that_is_no_file_name_stays_below_the_home(executor: ProcessExecutor, sh: Sh) -> None:
    job = sh("echo hi", id="../../x/é\n")
    assert (await executor.run(job)).phase == "Succeeded"
    assert executor.log_path(job.id).read_text() == "hi\n"
    assert executor.log_path(job.id).parent.parent == executor.log_path("a").parent.parent


async def test_following_a_log_gives_its_lines_and_ends_with_the_step(
    executor: ProcessExecutor, sh: Sh
) -> None:
    job = sh("for i in 1 2 3; do echo $i; sleep 0.1; done; printf 'é no newline'")
    running = asyncio.create_task(executor.run(job))
    await asyncio.sleep(0)
    lines = [line async for line in executor.follow_log(job.id)]
    assert lines == ["1", "2", "3", "é no newline"]
    assert (await running).phase == "Succeeded"


async def test_a_removed_job_leaves_no_files(executor: ProcessExecutor, sh: Sh) -> None:
    job = sh("true")
    await executor.run(job)
    await executor.remove(job.id)
    assert not executor.log_path(job.id).parent.exists()


async def test_a_step_ends_in_error_when_the_home_cannot_be_written(
    tmp_path: Path, nowhere: S3Config, sh: Sh
) -> None:
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        # A file where the home must be: root writes even where it may not.
        home = (tmp_path / "pods").rename(tmp_path / "away")
        (tmp_path / "pods").write_text("")
        done = await executor.run(sh("true"))
        assert done.phase == "Error"
        assert "cannot prepare the step's folder" in done.message
        (tmp_path / "pods").unlink()
        home.rename(tmp_path / "pods")
        assert (await executor.run(sh("true"))).phase == "Succeeded"
