"""`periplus cache` and `periplus snapshot` on the real stack: what they show, and that an invalidated step runs again."""

import json
import uuid
from pathlib import Path

import pytest
from stack import Stack

PIPELINE = '''
from periplus.sdk import pipeline, step

@step
def count(word: str) -> int:
    """NAME"""
    return len(word)

@step(ttl="1h30m")
def double(number: int) -> int:
    """NAME"""
    return 2 * number

@pipeline
def counted(word: str = "abc") -> int:
    return double(count(word))
'''


@pytest.fixture(scope="module")
def name() -> str:
    return uuid.uuid4().hex


def run(stack: Stack, folder: Path, name: str) -> tuple[str, dict[str, str]]:
    (folder / "counted.py").write_text(
        PIPELINE.replace("def count(", f"def count_{name}(").replace("double(count(", f"double(count_{name}(")
    )
    document = json.loads(stack.periplus("run", "counted.py", "-o", "json", cwd=folder).stdout)
    stack.wait_for_cache(stack.run(document["run"]))
    return document["run"], {step["path"]: step["phase"] for step in document["steps"]}


def document(stack: Stack, *arguments: str) -> dict:
    return json.loads(stack.periplus(*arguments, "-o", "json").stdout)


def test_an_entry_is_listed_shown_and_invalidated_and_its_step_runs_again(
    stack: Stack, tmp_path: Path, name: str
) -> None:
    first, _ = run(stack, tmp_path, name)
    path = f"count-{name}"

    listed = document(stack, "cache", "ls", "--run", first)["entries"]
    assert {entry["producer_step"] for entry in listed} == {path, "double"}
    assert [entry["template"] for entry in document(stack, "cache", "ls", "--template", path)["entries"]] == [
        path
    ]
    paged = document(stack, "cache", "ls", "--run", first, "-n", "1")
    rest = document(stack, "cache", "ls", "--run", first, "--page-token", paged["next_page_token"])
    assert [*paged["entries"], *rest["entries"]] == listed

    entry = document(stack, "cache", "show", f"{first}/{path}")
    assert entry["outputs"]["parameters"] == [{"name": "output", "value": "3"}]
    assert json.loads(entry["key"])
    assert document(stack, "cache", "show", entry["fingerprint"][:19])["fingerprint"] == entry["fingerprint"]
    assert document(stack, "cache", "show", f"{first}/double")["expires_at"]

    counted = stack.periplus("cache", "invalidate", f"{first}/{path}", "--dry-run").stdout
    assert counted == "1 entry would be invalidated\n"
    refused = stack.periplus("cache", "invalidate", f"{first}/{path}", check=False)
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    assert stack.periplus("cache", "invalidate", f"{first}/{path}", "--reason", "test", "--yes").stdout == (
        "1 entry invalidated\n"
    )
    assert document(stack, "cache", "show", entry["fingerprint"])["invalidation_reason"] == "test"
    assert path not in {
        one["producer_step"] for one in document(stack, "cache", "ls", "--run", first)["entries"]
    }
    hidden = document(stack, "cache", "ls", "--run", first, "--all")["entries"]
    assert {one["producer_step"]: one["invalidation_reason"] for one in hidden} == {
        path: "test",
        "double": "",
    }

    second, phases = run(stack, tmp_path, name)
    assert phases == {path: "SUCCEEDED", "double": "CACHED"}
    savings = document(stack, "cache", "savings", second)
    assert (savings["run"], savings["hits"]) == (second, 1)
    assert document(stack, "cache", "savings")["hits"] >= 1
    # @latest is the newest run of the project, which is this one.
    assert stack.periplus("cache", "savings", "@latest").stdout.startswith(f"run {second}: 1 step served")


def test_the_snapshot_of_a_run_says_what_it_was_made_with(stack: Stack, tmp_path: Path, name: str) -> None:
    made, _ = run(stack, tmp_path, name)
    shown = document(stack, "snapshot", "show", made)
    assert shown["claim"]["platform"]["system"] == "Linux"
    assert {package["name"] for package in shown["claim"]["installed"]} >= {"grpcio", "typer"}
    assert shown["digests"]["code"].startswith("sha256:")
    text = stack.periplus("snapshot", "show", shown["id"]).stdout
    assert f"snapshot:    {shown['id']}\n" in text
    assert "commit:      not in a git repository\n" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("cache", "show", "sha256:" + "0" * 64),
        ("snapshot", "show", "sha256:" + "0" * 64),
        ("cache", "show", "nothing/x"),
    ],
)
def test_what_does_not_exist_exits_with_5(stack: Stack, arguments: tuple[str, ...]) -> None:
    done = stack.periplus(*arguments, check=False)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("error: ")
