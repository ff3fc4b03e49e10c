"""The paths of a step: private where it declares them, the host's everywhere else."""

# A test may block: nothing else runs in its loop.
# ruff: noqa: ASYNC240,PTH208

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.filesystem import plan_filesystem
from periplus_local.argo.executor.job import Job, PodError
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.program import path_rewriter
from periplus_local.argo.executor.settings import ExecutorSettings

Sh = Callable[..., Job]
Parameters = Callable[..., dict[str, Any]]


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder of this machine that is not below /tmp."""
    folder = Path(f"/var/tmp/periplus-executor-{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


async def test_an_output_may_be_in_a_folder_that_the_host_does_not_have(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    outputs = parameters(a="/out-of-pod/model", b="/flat-of-pod", c="/deep-of-pod/x/y/z")
    line = "mkdir /out-of-pod && echo a > /out-of-pod/model; echo b > /flat-of-pod"
    line += "; mkdir -p /deep-of-pod/x/y; echo c > /deep-of-pod/x/y/z"
    done = await executor.run(sh(line, outputs=outputs))
    assert done.message == ""
    assert done.parameters == {"a": "a", "b": "b", "c": "c"}
    assert not any(Path(f"/{name}-of-pod").exists() for name in ("out", "flat", "deep"))


async def test_a_step_makes_the_folder_of_its_output_as_it_must_in_a_container(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    outputs = parameters(o="/mnt/out-of-pod/o")
    created = await executor.run(sh("mkdir /mnt/out-of-pod && echo o > /mnt/out-of-pod/o", outputs=outputs))
    assert created.parameters == {"o": "o"}
    missing = await executor.run(sh("echo o > /mnt/out-of-pod/o", outputs=outputs))
    assert missing.phase == "Failed"


async def test_a_relative_path_in_the_default_working_folder_is_an_absolute_path_below_root(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    outputs = parameters(flat="/flat-of-pod", deep="/deep-of-pod/x")
    line = "echo flat > flat-of-pod; mkdir deep-of-pod; echo deep > deep-of-pod/x"
    done = await executor.run(sh(line, outputs=outputs))
    assert done.parameters == {"flat": "flat", "deep": "deep"}


async def test_changes_below_the_working_folder_do_not_reach_folders_of_the_host(
    tmp_path: Path, nowhere: S3Config, sh: Sh, outside: Path
) -> None:
    (outside / "precious").write_text("")
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        if executor.isolation == "none":
            pytest.skip(executor.isolation_reason)
        line = f"rm -rf ./var; mkdir -p ./var; echo x > ./var/left; ls {outside}"
        done = await executor.run(sh(line, capture_result=True))
        assert done.result == "precious"
        assert (await executor.run(sh(f"ls ./var {outside}", capture_result=True))).result == (
            f"./var:\n\n{outside}:\nprecious"
        )


async def test_an_output_in_a_folder_of_the_host_is_not_visible_on_the_host(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters, outside: Path
) -> None:
    (outside / "there").write_text("machine's")
    (outside / "beside").write_text("machine's")
    outputs = parameters(new=f"{outside}/new", there=f"{outside}/there", deep=f"{outside}/d/e")
    line = f"""
        cat {outside}/beside; test ! -e {outside}/there || echo leaked
        echo new > {outside}/new; echo mine > {outside}/there
        mkdir -p {outside}/d; echo deep > {outside}/d/e
    """
    done = await executor.run(sh(line, outputs=outputs, capture_result=True))
    assert done.result == "machine's"
    assert done.parameters == {"new": "new", "there": "mine", "deep": "deep"}
    assert sorted(path.name for path in outside.iterdir()) == ["beside", "there"]
    assert (outside / "there").read_text() == "machine's"


async def test_an_output_below_a_folder_that_is_itself_an_output(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters, outside: Path
) -> None:
    (outside / "d").mkdir()
    (outside / "d" / "old").write_text("machine's")
    outputs = parameters(one=f"{outside}/d/one", two=f"{outside}/d/two/x")
    line = f"mkdir -p {outside}/d/two; echo 1 > {outside}/d/one; echo 2 > {outside}/d/two/x"
    done = await executor.run(sh(line, outputs=outputs))
    assert done.parameters == {"one": "1", "two": "2"}
    assert [path.name for path in (outside / "d").iterdir()] == ["old"]


async def test_a_symbolic_link_of_an_output_is_resolved_in_the_steps_file_system(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    line = """
        echo value > /tmp/real; ln -s /tmp/real /tmp/absolute; ln -s real /tmp/relative
        mkdir /tmp/d; ln -s d /tmp/e; echo deep > /tmp/d/x; ln -s ../tmp/e/x /tmp/through
    """
    outputs = parameters(a="/tmp/absolute", r="/tmp/relative", t="/tmp/through", e="/tmp/e/x")
    done = await executor.run(sh(line, outputs=outputs))
    assert done.parameters == {"a": "value", "r": "value", "t": "deep", "e": "deep"}


async def test_a_parameter_that_is_no_regular_file_is_an_error(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    for line in ("mkfifo /tmp/o", "mkdir /tmp/o", "ln -s o /tmp/o", "ln -s /dev/zero /tmp/o"):
        done = await executor.run(sh(line, outputs=parameters(o="/tmp/o")))
        assert done.phase == "Error"
        assert "cannot save parameter /tmp/o: " in done.message


async def test_a_parameter_of_more_than_a_mebibyte_is_an_error(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    done = await executor.run(sh("head -c 2000000 /dev/zero > /tmp/o", outputs=parameters(o="/tmp/o")))
    assert done.phase == "Error"
    assert "make it an artifact" in done.message


async def test_one_newline_is_trimmed_from_a_parameter(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    outputs = parameters(a="/tmp/a", b="/tmp/b", c="/tmp/c")
    line = "printf 'x\\n\\n' > /tmp/a; printf ' y ' > /tmp/b; : > /tmp/c"
    assert (await executor.run(sh(line, outputs=outputs))).parameters == {
        "a": "x\n",
        "b": " y ",
        "c": "",
    }


async def test_a_missing_parameter_has_its_default_or_is_an_error(executor: ProcessExecutor, sh: Sh) -> None:
    source: dict[str, Any] = {"path": "/tmp/none", "default": "fallback"}
    outputs = {"parameters": [{"name": "p", "valueFrom": source}]}
    assert (await executor.run(sh("true", outputs=outputs))).parameters == {"p": "fallback"}
    del source["default"]
    done = await executor.run(sh("true", outputs=outputs))
    assert (done.phase, done.exit_code) == ("Error", 0)
    assert done.message == (
        "wait: Error (exit code 64): cannot save parameter /tmp/none: /tmp/none: no such file or directory"
    )


async def test_a_failed_step_keeps_its_own_message_and_the_outputs_it_has(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    outputs = parameters(a="/tmp/a", b="/tmp/b")
    done = await executor.run(sh("echo a > /tmp/a; exit 4", outputs=outputs))
    assert (done.phase, done.message) == ("Failed", "main: Error (exit code 4)")
    assert done.parameters == {"a": "a"}


@pytest.mark.parametrize("path", ["/", "/proc/x", "/sys/x", "/etc/passwd/x"])
async def test_a_path_that_cannot_be_private_is_an_error_that_names_it(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters, path: str
) -> None:
    done = await executor.run(sh("true", outputs=parameters(o=path)))
    assert done.phase == "Error"
    assert repr(path) in done.message


async def test_a_relative_path_of_an_output_starts_at_the_working_folder(
    executor: ProcessExecutor, sh: Sh, parameters: Parameters
) -> None:
    line, there = "mkdir -p a; echo x > a/x; echo y > /tmp/y", {"workingDir": "/tmp"}
    done = await executor.run(sh(line, container=there, outputs=parameters(x="a/x", y="y")))
    assert (done.message, done.parameters) == ("", {"x": "x", "y": "y"})


async def test_a_volume_is_a_private_empty_folder(executor: ProcessExecutor, sh: Sh) -> None:
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/mnt/vol-of-pod"}]}
    line = "ls /mnt/vol-of-pod; echo x > /mnt/vol-of-pod/x && cat /mnt/vol-of-pod/x"
    done = await executor.run(sh(line, container=mounts, capture_result=True))
    assert done.result == "x"
    assert not Path("/mnt/vol-of-pod").exists()


async def test_with_namespaces_a_volume_is_a_mount(tmp_path: Path, nowhere: S3Config, sh: Sh) -> None:
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        if executor.isolation == "none":
            pytest.skip(executor.isolation_reason)
        paths = ("/mnt/vol-of-pod", "/vol-of-pod", "/tmp/vol-of-pod")
        mounts = {"volumeMounts": [{"name": path, "mountPath": path} for path in paths]}
        line = "; ".join(f"grep -c ' {path} ' /proc/mounts" for path in paths)
        done = await executor.run(sh(line, container=mounts, capture_result=True))
        assert done.result == "1\n1\n1"


async def test_with_namespaces_a_step_may_write_anywhere_below_its_root(
    tmp_path: Path, nowhere: S3Config, sh: Sh, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Folders below /tmp on a search path are shared with the step, whose /tmp is to be empty here.
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(
        sys, "path", [path for path in sys.path if not path.startswith(tempfile.gettempdir())]
    )
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        if executor.isolation == "none":
            pytest.skip(executor.isolation_reason)
        for _ in range(2):  # the second has a root that was used before
            line = "test ! -e /new-of-pod && mkdir /new-of-pod && ls -A /tmp && ls / | wc -l"
            done = await executor.run(sh(line, capture_result=True))
            assert done.phase == "Succeeded"
            assert int((done.result or "0").split()[-1]) >= len(os.listdir("/"))
        assert not Path("/new-of-pod").exists()


async def test_a_name_that_one_step_hides_is_visible_to_the_next(
    tmp_path: Path, nowhere: S3Config, sh: Sh, parameters: Parameters
) -> None:
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        if executor.isolation == "none":
            pytest.skip(executor.isolation_reason)
        await executor.run(sh("true"))
        hides = await executor.run(
            sh("ls -A /opt; echo o > /opt/o", outputs=parameters(p="/opt", o="/opt/o"))
        )
        assert hides.parameters.get("o") == "o"
        done = await executor.run(sh("ls -A /opt", capture_result=True))
        assert sorted((done.result or "").split()) == sorted(os.listdir("/opt"))
        assert "o" not in os.listdir("/opt")


def test_rewriting_touches_whole_paths_only(tmp_path: Path) -> None:
    filesystem = plan_filesystem(tmp_path, ["/out-of-pod/model"], [], namespaces=False)
    rewrite, root = path_rewriter(filesystem), f"{tmp_path}/root"
    moved = f"{root}/out-of-pod/model"
    for before in ("", "--out=", "-o ", "-o", "'", '"', "file://", ">", "a:", "x\n", "(", "cat "):
        for after in ("", " ", "/x", "'", ":", ";", ")", "\n", ". And"):
            text = before + "/out-of-pod/model" + after
            expected = before + moved + after
            if before == "-o":
                text, expected = "cc " + text, "cc " + expected
            assert rewrite(text) == expected, text
    for untouched in ("/var/tmp/x", "/a/out-of-pod", "s/tmp/", "$HOME/tmp", "/tmpfs", "~/tmp/x"):
        assert rewrite(untouched) == untouched
    assert rewrite("/out-of-pod/model.json") == f"{root}/out-of-pod/model.json"
    assert rewrite("/tmp and /tmp/x") == f"{root}/tmp and {root}/tmp/x"


@given(st.text(alphabet="/tmpout-. x'\"$\n", max_size=60))
def test_rewriting_a_text_without_declared_paths_changes_nothing(text: str) -> None:
    filesystem = plan_filesystem(Path("/home/p"), [], [], namespaces=False)
    if "/tmp" not in text:
        assert path_rewriter(filesystem)(text) == text


def test_a_shared_folder_below_tmp_is_not_rewritten(tmp_path: Path) -> None:
    filesystem = plan_filesystem(tmp_path, [], ["/tmp/kept-of-pod"], namespaces=False)
    assert (
        path_rewriter(filesystem)("/tmp/kept-of-pod/x /tmp/y") == f"/tmp/kept-of-pod/x {tmp_path}/root/tmp/y"
    )


def test_a_folder_with_too_many_entries_is_refused(tmp_path: Path, outside: Path) -> None:
    for number in range(3):
        (outside / str(number)).write_text("")
    with pytest.raises(PodError, match="too many entries"):
        plan_filesystem(tmp_path, [f"{outside}/new"], [], namespaces=True, max_overlay_entries=2)


async def test_changes_of_a_root_do_not_reach_the_next_step_or_the_host(
    tmp_path: Path, nowhere: S3Config, sh: Sh, outside: Path
) -> None:
    (outside / "precious").write_text("")
    line = f"""
        rm -rf /tmp /argo/staging /argo/work; ln -s {outside} /tmp; ln -s {outside} /argo/staging
        mkdir /left; echo x > /left/x; chmod 700 /
        for name in /*; do test -L $name && rm $name && mkdir $name && echo x > $name/x; done; true
    """
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        if executor.isolation == "none":
            pytest.skip(executor.isolation_reason)
        await executor.run(sh(line))
        look = "ls -A /tmp /argo/staging; test ! -e /left; ls -ld /bin; echo x > /tmp/x"
        done = await executor.run(sh(look, capture_result=True))
    assert done.phase == "Succeeded"
    assert (done.result or "").startswith("/argo/staging:\n\n/tmp:\n")
    assert Path("/bin").is_symlink() == ("->" in (done.result or ""))
    assert [path.name for path in outside.iterdir()] == ["precious"]


async def test_a_step_that_empties_its_tmp_does_not_remove_shared_folders_of_the_host(
    tmp_path: Path, nowhere: S3Config, sh: Sh
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "precious").write_text("code")
    async with ProcessExecutor(
        tmp_path / "pods", nowhere, ExecutorSettings(slots=1, visible=(project,))
    ) as executor:
        if executor.isolation == "none":
            pytest.skip(executor.isolation_reason)
        done = await executor.run(
            sh(f"cat {project}/precious; rm -rf /tmp/* 2>/dev/null; true", capture_result=True)
        )
    assert (done.phase, done.result) == ("Succeeded", "code")
    assert (project / "precious").read_text() == "code"
