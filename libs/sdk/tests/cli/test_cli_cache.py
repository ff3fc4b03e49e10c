"""`periplus cache` and `periplus snapshot`: entries listed, shown, invalidated with a confirmation, and summed up."""

import json
import os
import pty
import subprocess
import sys
import time
from textwrap import dedent

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2 as cache
from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
from periplus.lineage.v1 import lineage_pb2 as lineage
from periplus.snapshotter.v1 import snapshotter_pb2 as snapshotter
from periplus.types.v1 import step_pb2 as types
from periplus_common.errors import Invalid, NotFound

SHA = "sha256:" + "ab12" * 16
OTHER = "sha256:" + "ab99" * 16


def entry(fingerprint: str = SHA, **fields: object) -> cache.Entry:
    return cache.Entry(
        fingerprint=fingerprint, template="train", producer_run="digits-1", producer_step="train(2)", hits=1200,
        recorded_at=Timestamp(seconds=1_800_000_000), duration=Duration(seconds=75), **fields,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def latest(script):
    script.answers["ListRuns"] = lineage.ListRunsResponse(runs=[lineage.Run(id="digits-9")])


def test_entries_are_listed_with_their_producer_and_state(script, periplus):
    script.answers["ListEntries"] = cache.ListEntriesResponse(
        entries=[
            entry(),
            entry(OTHER, expires_at=Timestamp(seconds=4_000_000_000)),
            entry(OTHER, expires_at=Timestamp(seconds=1_000_000_000)),
            entry(OTHER, invalidation_reason="wrong\x1b[31m labels"),
        ]
    )
    assert periplus("cache", "ls").out == dedent("""\
        FINGERPRINT   TEMPLATE  PRODUCED BY        RECORDED             TOOK        HITS   STATE
        ab12ab12ab12  train     digits-1/train(2)  2027-01-15 08:00:00  1 min 15 s  1,200  served
        ab99ab99ab99  train     digits-1/train(2)  2027-01-15 08:00:00  1 min 15 s  1,200  expires 2096-10-02 07:06:40
        ab99ab99ab99  train     digits-1/train(2)  2027-01-15 08:00:00  1 min 15 s  1,200  expired 2001-09-09 01:46:40
        ab99ab99ab99  train     digits-1/train(2)  2027-01-15 08:00:00  1 min 15 s  1,200  invalidated: wrong labels
        """)


def test_entries_are_filtered_and_fetched_page_by_page_up_to_the_limit(script, periplus, latest):
    def page(request: cache.ListEntriesRequest) -> cache.ListEntriesResponse:
        start = int(request.page_token or 0)
        end = min(start + request.page_size, 2500)
        return cache.ListEntriesResponse(
            entries=[entry(f"sha256:{number:064x}") for number in range(start, end)],
            next_page_token=str(end) if end < 2500 else "",
        )

    script.answers["ListEntries"] = page
    result = periplus(
        "cache", "ls", "--template", "train", "--run", "@latest", "--all", "-n", "1500", "-o", "json"
    )
    assert (len(result.document["entries"]), result.document["next_page_token"]) == (1500, "1500")
    first, second = script.requests("ListEntries")
    assert (first.project, first.template, first.producer_run, first.show_invalidated) == (
        "default", "train", "digits-9", True,
    )  # fmt: skip
    assert (first.page_size, second.page_size, second.page_token) == (1000, 500, "1000")
    result = periplus("cache", "ls", "-n", "2000", "--page-token", "1500", "-o", "json")
    assert (len(result.document["entries"]), result.document["next_page_token"]) == (1000, "")
    assert periplus("cache", "ls").out.endswith("\n… and older ones: -n 100\n")


def test_an_empty_cache_says_so(script, periplus):
    script.answers["ListEntries"] = cache.ListEntriesResponse()
    assert periplus("cache", "ls").out == "no entries in project default\n"
    assert periplus("cache", "ls", "-o", "json").document == {"entries": [], "next_page_token": ""}


def test_a_page_token_of_another_list_exits_with_2(script, periplus):
    script.answers["ListEntries"] = Invalid("is not a token of this list", field="page_token")
    result = periplus("cache", "ls", "--page-token", "x")
    assert (result.code, result.err) == (2, "error: is not a token of this list\n  where: page_token\n")


def test_an_entry_is_shown_with_its_outputs_and_key(script, periplus):
    one = entry(key='{"inputs":{"c":"1"},"epoch":1}')
    one.outputs.parameters.add(name="accuracy", value="0.98")
    script.answers["GetEntry"] = cache.GetEntryResponse(entry=one)
    result = periplus("cache", "show", SHA)
    assert result.out == dedent(f"""\
        fingerprint:  {SHA}
        template:     train
        produced by:  digits-1/train(2)
        recorded:     2027-01-15 08:00:00
        took:         1 min 15 s
        hits:         1,200
        state:        served

        outputs:
          accuracy = 0.98

        key:
          {{
            "inputs": {{
              "c": "1"
            }},
            "epoch": 1
          }}
        """)
    document = periplus("cache", "show", SHA, "-o", "json").document
    assert (document["hits"], document["duration"], document["producer_step"]) == (1200, 75.0, "train(2)")


@pytest.mark.parametrize(
    "typed", [SHA, SHA.removeprefix("sha256:"), "ab12ab", "sha256:ab12ab12", "@latest/train(2)"]
)
def test_an_entry_may_be_named_by_its_step_or_by_the_start_of_its_fingerprint(
    script, periplus, latest, typed
):
    script.answers["ListEntries"] = cache.ListEntriesResponse(entries=[entry(OTHER), entry(SHA)])
    script.answers["ExplainMiss"] = cache.ExplainMissResponse(fingerprint=SHA)
    script.answers["GetEntry"] = cache.GetEntryResponse(entry=entry())
    assert periplus("cache", "show", typed).code == 0
    assert [request.fingerprint for request in script.requests("GetEntry")] == [SHA]
    for request in script.requests("ExplainMiss"):
        assert (request.run, request.step) == ("digits-9", "train(2)")


@pytest.mark.parametrize(
    ("typed", "code", "result"),
    [
        ("ab", 2, "'ab' names no entry\n  fix:   give RUN/STEP, as in @latest/train"),
        ("abcdeg", 2, "names no entry"),
        ("ffffff", 5, "no entry begins with ffffff\n  fix:   periplus cache ls --all"),
        ("ab12ab", 2, "several entries begin with ab12ab\n  fix:   give more digits"),
    ],
)
def test_a_name_of_no_or_several_entries_is_refused(script, periplus, typed, code, result):
    several = [entry(SHA), entry("sha256:ab12ab" + "0" * 58)]
    script.answers["ListEntries"] = cache.ListEntriesResponse(entries=several)
    done = periplus("cache", "show", typed)
    assert done.code == code
    assert result in done.err


def test_a_step_that_is_not_recorded_exits_with_5(script, periplus):
    script.answers["ExplainMiss"] = NotFound("digits-1 has no step x", field="step")
    assert periplus("cache", "invalidate", "digits-1/x", "--yes").code == 5


def counts(request: cache.InvalidateEntriesRequest) -> cache.InvalidateEntriesResponse:
    return cache.InvalidateEntriesResponse(count=0 if request.template == "unknown" else 3)


def test_entries_are_counted_then_invalidated_with_a_reason(script, periplus, latest):
    script.answers["InvalidateEntries"] = counts
    result = periplus(
        "cache",
        "invalidate",
        SHA,
        "--template",
        "train",
        "--run",
        "@latest",
        "--reason",
        "wrong labels",
        "--yes",
    )
    assert (result.code, result.out) == (0, "3 entries invalidated\n")
    first, second = script.requests("InvalidateEntries")
    assert (first.validate_only, second.validate_only) == (True, False)
    assert (second.project, list(second.fingerprints), second.template, second.producer_run, second.reason) == (
        "default", [SHA], "train", "digits-9", "wrong labels",
    )  # fmt: skip


def test_a_dry_run_only_counts(script, periplus):
    script.answers["InvalidateEntries"] = counts
    assert (
        periplus("cache", "invalidate", "--template", "train", "--dry-run").out
        == "3 entries would be invalidated\n"
    )
    result = periplus("cache", "invalidate", "--template", "train", "--dry-run", "-o", "json")
    assert result.document == {"count": 3, "dry_run": True}
    assert all(request.validate_only for request in script.requests("InvalidateEntries"))


def test_nothing_that_matches_is_no_error(script, periplus):
    script.answers["InvalidateEntries"] = counts
    result = periplus("cache", "invalidate", "--template", "unknown")
    assert (result.code, result.out) == (0, "no entry matches, nothing was invalidated\n")
    assert len(script.requests("InvalidateEntries")) == 1


def test_without_a_selector_nothing_is_called(script, periplus):
    result = periplus("cache", "invalidate", "--yes")
    assert result.code == 2
    assert "fix:   name entries, or give --template or --run" in result.err
    assert not script.calls


@pytest.mark.parametrize("output", [(), ("-o", "json")])
def test_without_a_terminal_the_confirmation_must_be_an_option(script, periplus, output):
    script.answers["InvalidateEntries"] = counts
    result = periplus("cache", "invalidate", "--template", "train", *output)
    assert result.code == 2
    assert "3 entries match, and the command was not confirmed\n  fix:   add --yes" in result.err
    assert all(request.validate_only for request in script.requests("InvalidateEntries"))


@pytest.mark.parametrize(("answer", "code", "calls"), [("y", 0, 2), ("n", 130, 1), ("", 130, 1)])
def test_on_a_terminal_the_command_asks(script, answer, code, calls):
    script.answers["InvalidateEntries"] = counts
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "periplus.sdk.cli", "cache", "invalidate", "--template", "train"],
        stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        os.write(main, f"{answer}\n".encode())
        printed, _ = process.communicate(timeout=60)
    os.close(main)
    os.close(terminal)
    assert process.returncode == code, printed
    assert "Invalidate 3 entries? Their steps will run again. [y/N]" in printed
    assert len(script.requests("InvalidateEntries")) == calls


def test_savings_are_those_of_the_project_or_of_one_run(script, periplus, latest):
    script.answers["GetSavings"] = cache.GetSavingsResponse(hits=1200, saved=Duration(seconds=7500))
    assert (
        periplus("cache", "savings").out
        == "project default: 1,200 steps served from the cache, 2 h 5 min saved\n"
    )
    result = periplus("cache", "savings", "@latest")
    assert result.out == "run digits-9: 1,200 steps served from the cache, 2 h 5 min saved\n"
    assert periplus("cache", "savings", "-o", "json").document == {
        "run": None,
        "hits": 1200,
        "saved_seconds": 7500.0,
    }
    assert [request.run for request in script.requests("GetSavings")] == ["", "digits-9", ""]


def test_shadow_savings_are_shown_by_pipeline_with_their_sum(script, periplus):
    script.answers["GetShadowSavings"] = cache.GetShadowSavingsResponse(pipelines=[
        cache.PipelineShadow(pipeline="digits", runs=3, steps=12, hits=5, saved=Duration(seconds=7500), saved_pods=6,
                             duration=Duration(seconds=9000)),
        cache.PipelineShadow(pipeline="etl", runs=1, steps=2, uncacheable_steps=2, uncacheable_reason="it has volumes"),
    ])  # fmt: skip
    shown = periplus("shadow", "--days", "7").out
    assert "digits    3     12     5" in shown
    assert "2: it has volumes" in shown
    assert shown.endswith("5 of 14 steps would have been cached: 2 h 5 min and 6 pods saved\n")
    assert script.requests("GetShadowSavings")[0].HasField("finished_after")
    found = periplus("shadow", "--pipeline", "digits", "-o", "json").document
    assert [each["pipeline"] for each in found["pipelines"]] == ["digits", "etl"]
    script.answers["GetShadowSavings"] = cache.GetShadowSavingsResponse()
    assert periplus("shadow").out == "no steps of observed runs in project default\n"


def test_adopted_workflows_are_listed_and_counted(script, periplus):
    script.answers["AdoptRuns"] = [
        dispatcher.AdoptRunsResponse(run="a-1@00", pipeline="a"),
        dispatcher.AdoptRunsResponse(run="b-1@00", pipeline="b", skipped_reason="it has not begun"),
    ]
    shown = periplus("adopt", "--namespace", "ml").out
    assert shown == "a-1@00  a\nb-1@00  b: skipped, as it has not begun\n1 Workflow adopted, 1 skipped\n"
    found = periplus("adopt", "--dry-run", "-o", "json").document
    assert (found["dry_run"], len(found["workflows"])) == (True, 2)
    assert [(each.namespace, each.validate_only) for each in script.requests("AdoptRuns")] == [
        ("ml", False),
        ("", True),
    ]


def test_a_template_is_adopted_and_released_by_its_kind_and_name(script, periplus):
    before, after = '{"spec": {"entrypoint": "main"}}', '{"spec": {"entrypoint": "main--call"}}'
    script.answers["AdoptTemplate"] = dispatcher.AdoptTemplateResponse(namespace="ml", before=before, after=after, steps=[
        dispatcher.PlannedStep(path="a", verdict=types.VERDICT_UNKNOWN),
        dispatcher.PlannedStep(path="b", verdict=types.VERDICT_UNCACHEABLE, reason="it has volumes"),
    ])  # fmt: skip
    shown = periplus("adopt", "wftmpl/train", "--dry-run").out
    assert "-  entrypoint: main\n+  entrypoint: main--call\n" in shown
    assert shown.endswith(
        "b: runs always: it has volumes\nwftmpl/train would be adopted: 1 step will ask the cache in every run of it\n"
    )
    found = periplus("adopt", "cron/nightly", "--namespace", "ml", "-o", "json").document
    assert (found["changed"], found["before"], len(found["steps"])) == (True, json.loads(before), 2)
    asked = script.requests("AdoptTemplate")
    assert [(each.template.kind, each.template.name, each.template.namespace, each.validate_only) for each in asked] == [
        (dispatcher.TEMPLATE_KIND_WORKFLOW_TEMPLATE, "train", "", True),
        (dispatcher.TEMPLATE_KIND_CRON_WORKFLOW, "nightly", "ml", False),
    ]  # fmt: skip
    script.answers["ReleaseTemplate"] = dispatcher.ReleaseTemplateResponse(before=after, after=before)
    assert periplus("release", "wftmpl/train").out == "wftmpl/train released\n"
    script.answers["ReleaseTemplate"] = dispatcher.ReleaseTemplateResponse(before=before, after=before)
    assert periplus("release", "wftmpl/train").out == "wftmpl/train is not adopted\n"
    refused = periplus("adopt", "train")
    assert "neither wftmpl/NAME nor cron/NAME" in refused.err


def snapshot() -> snapshotter.Snapshot:
    found = snapshotter.Snapshot(id=SHA, environment=OTHER, taken_at=Timestamp(seconds=1_800_000_000))
    found.claim.git.commit, found.claim.git.branch = "c" * 40, "main"
    found.claim.platform.python_version, found.claim.platform.python_implementation = "3.11.7", "CPython"
    found.claim.platform.system, found.claim.platform.machine = "Linux", "x86_64"
    found.claim.lockfile.name = "uv.lock"
    found.claim.installed.add(name="numpy", version="2.4.6")
    found.locked.add(name="numpy", version="2.4.6")
    found.digests.update({"git.patch": OTHER, "lockfile": OTHER, "untracked/a b.py": OTHER})
    found.warnings.append("numpy differs")
    return found


def test_the_snapshot_of_a_run_is_shown(script, periplus, latest):
    script.answers["GetRun"] = lineage.GetRunResponse(run=lineage.Run(id="digits-9", snapshot=SHA))
    script.answers["GetSnapshot"] = snapshotter.GetSnapshotResponse(snapshot=snapshot())
    result = periplus("snapshot", "show")
    assert result.out == dedent(f"""\
        snapshot:    {SHA}
        taken:       2027-01-15 08:00:00
        commit:      {"c" * 40}
        branch:      main
        changes:     a patch and 1 untracked file
        lockfile:    uv.lock, 1 package
        installed:   1 package
        python:      CPython 3.11.7
        platform:    Linux x86_64
        environment: {OTHER}
        warning:     numpy differs

        untracked:
          a b.py
        """)
    (request,) = script.requests("GetSnapshot")
    assert (request.project, request.snapshot, request.with_content) == ("default", SHA, False)
    document = periplus("snapshot", "show", "digits-9", "-o", "json").document
    assert (document["id"], document["claim"]["git"]["commit"]) == (SHA, "c" * 40)


def test_a_snapshot_is_shown_by_its_id_and_with_its_patch(script, periplus):
    found = snapshot()
    found.claim.git.patch = b"-a\n+b\xff\x1b[31m\n"
    script.answers["GetSnapshot"] = snapshotter.GetSnapshotResponse(snapshot=found)
    result = periplus("snapshot", "show", SHA, "--content")
    assert result.out.endswith("\n\n-a\n+b\\xff\n")
    assert script.requests("GetSnapshot")[0].with_content
    assert not script.requests("GetRun")


def test_a_snapshot_outside_git_says_so(script, periplus):
    script.answers["GetSnapshot"] = snapshotter.GetSnapshotResponse(snapshot=snapshotter.Snapshot(id=SHA))
    assert (
        "commit:      not in a git repository\nlockfile:    none\n" in periplus("snapshot", "show", SHA).out
    )


def test_a_run_without_a_snapshot_and_an_unknown_one_exit_with_5(script, periplus):
    script.answers["GetRun"] = lineage.GetRunResponse(
        run=lineage.Run(id="digits-1", phase=types.RUN_PHASE_FAILED)
    )
    result = periplus("snapshot", "show", "digits-1")
    assert (result.code, result.err) == (5, "error: run digits-1 has no snapshot\n  where: snapshot\n")
    script.answers["GetSnapshot"] = NotFound("no snapshot", field="snapshot")
    result = periplus("snapshot", "show", SHA, "-o", "json")
    assert (result.code, json.loads(result.out)["error"]["exit_code"]) == (5, 5)
