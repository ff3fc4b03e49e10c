"""The commands that read: runs, watch, logs, why, diff, lineage, cancel."""

from textwrap import dedent

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2 as cache
from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
from periplus.lineage.v1 import lineage_pb2 as lineage
from periplus.snapshotter.v1 import snapshotter_pb2 as snapshotter
from periplus.types.v1 import step_pb2 as types
from periplus_common.errors import NotFound, Refused


def run(name: str, phase: int = types.RUN_PHASE_SUCCEEDED) -> lineage.Run:
    return lineage.Run(
        project="default",
        id=name,
        pipeline="digits",
        phase=phase,
        submitted_at=Timestamp(seconds=1_800_000_000),
        finished_at=Timestamp(seconds=1_800_000_075),
        step_count=12,
        cached_steps=9,
        saved=Duration(seconds=41),
        complete=True,
    )


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_runs_are_listed_newest_first(script, periplus):
    script.answers["ListRuns"] = lineage.ListRunsResponse(runs=[run("digits-2"), run("digits-1")])
    assert periplus("runs").out == dedent("""\
        RUN       PIPELINE  PHASE      SUBMITTED            TOOK        STEPS  CACHED  SAVED
        digits-2  digits    succeeded  2027-01-15 08:00:00  1 min 15 s  12     9       41 s
        digits-1  digits    succeeded  2027-01-15 08:00:00  1 min 15 s  12     9       41 s
        """)


def test_runs_are_filtered_by_pipeline_phase_and_number(script, periplus):
    script.answers["ListRuns"] = lineage.ListRunsResponse()
    result = periplus("runs", "--pipeline", "digits", "--phase", "failed", "-n", "3", "--project", "other")
    assert result.out == "no runs in project other\n"
    (request,) = script.requests("ListRuns")
    assert (request.project, request.pipeline, request.phase, request.page_size) == (
        "other", "digits", types.RUN_PHASE_FAILED, 3,
    )  # fmt: skip


def test_one_run_is_shown_with_its_steps(script, periplus):
    one = run("digits-2")
    one.parameters.add(name="seed", value="7")
    one.steps.add(path="ingest", phase=types.STEP_PHASE_CACHED, producer_run="digits-1").saved.seconds = 2
    for index in range(2000):
        one.steps.add(path=f"train({index})", phase=types.STEP_PHASE_SUCCEEDED)
    one.outputs.parameters.add(name="accuracy", value="0.98")
    script.answers["ListRuns"] = lineage.ListRunsResponse(runs=[one])
    script.answers["GetRun"] = lineage.GetRunResponse(run=one)
    result = periplus("runs", "@latest")
    assert result.out == dedent("""\
        run:        digits-2
        pipeline:   digits
        phase:      succeeded
        submitted:  2027-01-15 08:00:00
        took:       1 min 15 s
        parameters: seed=7

        STEP           PHASE
        ingest         cached           from digits-1, saved 2.0 s
        train(0…1999)  2,000 succeeded

        outputs:
          accuracy = 0.98
        """)
    assert periplus("runs", "digits-2", "-o", "json").document["steps"][0]["producer_run"] == "digits-1"


def test_a_fan_out_is_replaced_by_its_items(script, periplus):
    one = run("digits-2")
    one.steps.add(path="train", phase=types.STEP_PHASE_PENDING)
    one.steps.add(path="train(0)", phase=types.STEP_PHASE_SUCCEEDED)
    one.steps.add(path="train-more", phase=types.STEP_PHASE_SUCCEEDED)
    script.answers["GetRun"] = lineage.GetRunResponse(run=one)
    assert periplus("runs", "digits-2").out.endswith(
        "STEP        PHASE\ntrain(0)    succeeded\ntrain-more  succeeded\n"
    )


def test_latest_is_the_newest_run_and_a_number_counts_back_from_it(script, periplus):
    script.answers["ListRuns"] = lambda request: lineage.ListRunsResponse(
        runs=[run("digits-2"), run("digits-1")][: request.page_size]
    )
    script.answers["GetRun"] = lambda request: lineage.GetRunResponse(run=run(request.run))
    assert "digits-2" in periplus("runs", "@latest").out
    assert "digits-1" in periplus("runs", "@latest~1").out
    result = periplus("runs", "@latest~5")
    assert result.code == 5
    assert "there is no run @latest~5: the project has 2" in result.err


def test_an_unknown_run_exits_with_5(script, periplus):
    script.answers["GetRun"] = NotFound("no run x", field="run")
    result = periplus("runs", "x")
    assert (result.code, result.err) == (5, "error: no run x\n  where: run\n")


def test_watch_exits_with_the_code_of_the_run(script, periplus):
    script.answers["WatchRun"] = [lineage.WatchRunResponse(run=run("digits-2", types.RUN_PHASE_ERROR))]
    assert periplus("watch", "digits-2").code == 1
    assert periplus("watch", "digits-2", "-o", "json").document["phase"] == "ERROR"


def test_watch_of_an_unknown_run_exits_with_5_at_once(script, periplus):
    script.answers["WatchRun"] = [NotFound("no event of the run 'x' was received (yet)")]
    script.answers["GetRunPhase"] = NotFound("no run x in project default", fix="periplus runs")
    result = periplus("watch", "x")
    assert (result.code, result.err) == (
        5,
        "error: no run x in project default\n  where: dispatcher\n  fix:   periplus runs\n",
    )
    assert [request.wait.seconds for request in script.requests("WatchRun")] == [0]


def test_watch_of_a_run_that_was_just_accepted_waits_for_its_first_event_and_says_so(script, periplus):
    over = lineage.WatchRunResponse(run=run("digits-2"))
    script.answers["WatchRun"] = lambda request: [over] if request.wait.seconds else [NotFound("no event")]
    script.answers["GetRunPhase"] = dispatcher.GetRunPhaseResponse(phase=types.RUN_PHASE_PENDING)
    result = periplus("watch", "digits-2")
    assert result.code == 0
    assert result.err == (
        "run digits-2 was accepted, and none of its events has arrived: waiting up to 60 s for the first\n"
    )


PULL = 'ImagePullBackOff: Back-off pulling image "nope:1"'


def test_watch_and_runs_say_what_delays_a_step(script, periplus):
    def change(phase: int, message: str, of_run: int = types.RUN_PHASE_RUNNING) -> lineage.WatchRunResponse:
        step = lineage.Step(path="train", phase=phase, message=message)
        return lineage.WatchRunResponse(run=run("digits-2", of_run), steps=[step])

    oom = "main: OOMKilled (exit code 137)"
    script.answers["WatchRun"] = [
        change(types.STEP_PHASE_PENDING, ""),
        change(types.STEP_PHASE_PENDING, PULL),
        change(types.STEP_PHASE_PENDING, ""),
        change(types.STEP_PHASE_RUNNING, ""),
        change(types.STEP_PHASE_RUNNING, f"attempt 1 failed: {oom}"),
        change(types.STEP_PHASE_FAILED, oom, types.RUN_PHASE_FAILED),
    ]
    assert periplus("watch", "digits-2").out.splitlines()[:4] == [
        f"train  pending  {PULL}",
        "train  running",
        f"train  running  attempt 1 failed: {oom}",
        f"train  failed  {oom}",
    ]


DRIFTED = "its container main ran sha256:e instead of sha256:d, to which python:3.11 pointed"


def test_runs_says_of_a_step_that_it_is_not_cached_if_the_plan_had_not_said_so(script, periplus):
    one = run("digits-2", types.RUN_PHASE_SUCCEEDED)
    for path, verdict in (("train", types.VERDICT_MISS), ("notify", types.VERDICT_UNCACHEABLE)):
        one.steps.add(
            path=path, phase=types.STEP_PHASE_SUCCEEDED, verdict=verdict, uncacheable_reason=DRIFTED
        )
    script.answers["GetRun"] = lineage.GetRunResponse(run=one)
    lines = periplus("runs", "digits-2").out.splitlines()
    assert [line for line in lines if DRIFTED in line] == [f"train   succeeded  not cached: {DRIFTED}"]


def test_a_delayed_item_of_a_fan_out_says_what_delays_it(script, periplus):
    one = run("digits-2", types.RUN_PHASE_RUNNING)
    for index in range(50):
        one.steps.add(path=f"train({index})", phase=types.STEP_PHASE_RUNNING)
    one.steps.add(path="train(50)", phase=types.STEP_PHASE_PENDING, message=PULL)
    script.answers["GetRun"] = lineage.GetRunResponse(run=one)
    assert periplus("runs", "digits-2").out.endswith(f"train(0…50)  50 running, 1 pending  {PULL}\n")


def test_logs_name_the_step_and_strip_escape_sequences(script, periplus):
    lines = [("a", "\x1b[31mred\x1b[0m"), ("b(2)", "two\twords\r")]
    script.answers["ReadLogs"] = [dispatcher.ReadLogsResponse(step=s, line=t) for s, t in lines]
    assert periplus("logs", "digits-2").out == "a | red\nb(2) | two\twords\n"
    assert periplus("logs", "digits-2", "--step", "a", "--follow").out == "red\ntwo\twords\n"
    assert script.requests("ReadLogs")[1].follow
    assert periplus("logs", "digits-2", "-o", "json").document == {
        "lines": [{"step": "a", "line": "\x1b[31mred\x1b[0m"}, {"step": "b(2)", "line": "two\twords\r"}]
    }


def test_logs_of_a_fully_cached_run_exit_with_6(script, periplus):
    script.answers["ReadLogs"] = Refused("nothing was run: the cache had it all")
    assert periplus("logs", "digits-2").code == 6


def test_why_names_each_field_with_both_values(script, periplus):
    script.answers["ExplainMiss"] = cache.ExplainMissResponse(
        reason="an input differs",
        producer_run="digits-1",
        producer_step="train(2)",
        changes=[
            cache.FieldChange(field="inputs.parameters.c", old="1.0", new="10.0"),
            cache.FieldChange(field="code.features.py", new="sha256:aa"),
        ],
    )
    result = periplus("why", "digits-2", "train(2)")
    assert result.out == dedent("""\
        train(2) of digits-2 was not served from the cache: an input differs
        the most similar entry was produced by train(2) of digits-1

        FIELD                BEFORE  NOW
        inputs.parameters.c  1.0     10.0
        code.features.py     -       sha256:aa
        """)
    document = periplus("why", "digits-2", "train(2)", "-o", "json").document
    assert document["changes"][1] == {"field": "code.features.py", "old": None, "new": "sha256:aa"}


def test_diff_shows_differences_of_the_runs_and_of_their_snapshots(script, periplus):
    old, new = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    script.answers["DiffRuns"] = lineage.DiffRunsResponse(
        changes=[
            lineage.RunChange(field="parameters.c", old="1", new="2"),
            lineage.RunChange(field="snapshot", old=old, new=new),
            lineage.RunChange(step="train", field="outputs.accuracy", old="0.97", new="0.98"),
        ]
    )
    script.answers["DiffSnapshots"] = snapshotter.DiffSnapshotsResponse(
        changes=[snapshotter.SnapshotChange(field="package.numpy", old="2.0", new="2.1")]
    )
    result = periplus("diff", "digits-1", "digits-2")
    assert "(run)  parameters.c      1" in result.out
    assert "train  outputs.accuracy  0.97" in result.out
    assert result.out.endswith("CODE AND ENVIRONMENT  OLD  NEW\npackage.numpy         2.0  2.1\n")
    (request,) = script.requests("DiffSnapshots")
    assert (request.old, request.new) == (old, new)
    document = periplus("diff", "digits-1", "digits-2", "-o", "json").document
    assert document["snapshot"] == [{"field": "package.numpy", "old": "2.0", "new": "2.1"}]


def test_runs_that_do_not_differ_say_so(script, periplus):
    script.answers["DiffRuns"] = lineage.DiffRunsResponse()
    assert periplus("diff", "a", "b").out == "a and b do not differ\n"


def graph(request: lineage.TraverseRequest) -> lineage.TraverseResponse:
    """A diamond, in two pages."""
    sha = "sha256:" + "a" * 64

    def artifact(name: str, depth: int) -> lineage.Node:
        found = types.Artifact(name=name, digest=sha)
        return lineage.Node(id=f"artifact:{name}", kind=2, name=name, run="r", depth=depth, artifact=found)

    def step(name: str, depth: int) -> lineage.Node:
        done = lineage.Step(path=name, phase=types.STEP_PHASE_SUCCEEDED)
        return lineage.Node(id=f"step:r/{name}", kind=1, name=name, run="r", depth=depth, step=done)

    def edge(start: str, end: str, name: str) -> lineage.Edge:
        message = lineage.Edge(to=end, name=name)
        setattr(message, "from", start)
        return message

    if not request.page_token:
        return lineage.TraverseResponse(
            nodes=[artifact("model", 0), step("train", 1)],
            edges=[edge("step:r/train", "artifact:model", "model")],
            next_page_token="2",
        )
    return lineage.TraverseResponse(
        nodes=[artifact("x", 2), artifact("y", 2), step("ingest", 3)],
        edges=[
            edge("artifact:x", "step:r/train", "pixels"),
            edge("artifact:y", "step:r/train", "figures"),
            edge("step:r/ingest", "artifact:x", "x"),
            edge("step:r/ingest", "artifact:y", "y"),
        ],
    )


def test_lineage_is_printed_as_a_tree_and_every_page_is_fetched(script, periplus):
    script.answers["Traverse"] = graph
    result = periplus("lineage", "up", "digits-2", "--depth", "9")
    assert result.out == dedent("""\
        [model] sha256:aaaaaaaaaaaa
          r/train  succeeded
            [pixels] sha256:aaaaaaaaaaaa
              r/ingest  succeeded
            [figures] sha256:aaaaaaaaaaaa
              r/ingest  succeeded
        """)
    assert [r.page_token for r in script.requests("Traverse")] == ["", "2"]
    document = periplus("lineage", "up", "digits-2", "-o", "json").document
    assert (len(document["nodes"]), len(document["edges"]), document["more"]) == (5, 5, False)


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("digits-2", "run:digits-2"),
        ("@latest", "run:digits-9"),
        ("@latest/train(2)", "step:digits-9/train(2)"),
        ("digits-2/main.train", "step:digits-2/main.train"),
        ("sha256:aa", "artifact:sha256:aa"),
        ("s3://bucket/key", "artifact:s3://bucket/key"),
        ("artifact:sha256:aa", "artifact:sha256:aa"),
    ],
)
def test_a_node_may_be_named_in_a_short_form(script, periplus, typed, sent):
    script.answers["ListRuns"] = lineage.ListRunsResponse(runs=[run("digits-9")])
    script.answers["Traverse"] = lineage.TraverseResponse()
    assert periplus("lineage", "down", typed).code == 0
    (request,) = script.requests("Traverse")
    assert list(request.start) == [sent]
    assert request.direction == lineage.DIRECTION_DOWNSTREAM


def test_cancel_calls_the_dispatcher_and_prints_the_phase(script, periplus):
    script.answers["CancelRun"] = dispatcher.CancelRunResponse(phase=types.RUN_PHASE_RUNNING)
    result = periplus("cancel", "digits-2", "--terminate", "--reason", "wrong data")
    assert result.out == "run digits-2 was asked to stop; it is running\n"
    (request,) = script.requests("CancelRun")
    assert (request.run, request.terminate, request.reason) == ("digits-2", True, "wrong data")
    assert periplus("cancel", "digits-2", "-o", "json").document == {"run": "digits-2", "phase": "RUNNING"}
