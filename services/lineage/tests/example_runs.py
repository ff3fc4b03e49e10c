"""Two runs of one pipeline: the first runs every step, the second is served most of them from the cache."""

from google.protobuf.message import Message
from run_events import RunEvents, artifact, renamed, timestamp

from periplus.dispatcher.v1.events_pb2 import StepDelayed, StepFinished, StepStarted
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus.types.v1 import step_pb2 as types

RAW = artifact("raw", "external/raw.csv", "raw")
TABLE = artifact("table", "r1/features/table.tgz", "table")
MODELS = tuple(artifact("model", f"r1/train({i})/model.tgz", f"model {i}") for i in range(2))
NEW_MODEL = artifact("model", "r2/train(1)/model.tgz", "new model 1")


def first() -> RunEvents:
    run = RunEvents("r1", parameters={"c": "1"}, snapshot="sha256:" + "1" * 64)
    run.step("features", inputs=(RAW,), outputs=(TABLE,), document='{"code": {"features.py": "1"}}')
    for i, model in enumerate(MODELS):
        run.step(
            f"train({i})",
            inputs=(TABLE,),
            outputs=(model,),
            parameters={"c": str(i)},
            output_parameters={"accuracy": f"0.9{i}"},
            planned=False,
            document='{"container": {"image": "train:1"}}',
        )
    # The plan has the fan-out "train" and not its items; "choose" passes a parameter and no artifact.
    run.step("choose", depends_on=("train",), output_parameters={"best": "1"})
    run.step(
        "register", depends_on=("choose",), inputs=(renamed(MODELS[1], "model"),), parameters={"best": "1"}
    )
    return run


def second() -> RunEvents:
    run = RunEvents("r2", at=1000, parameters={"c": "2"}, snapshot="sha256:" + "2" * 64)
    run.step("features", inputs=(RAW,), outputs=(TABLE,), producer=("r1", "features"))
    run.step(
        "train(0)",
        inputs=(TABLE,),
        outputs=(MODELS[0],),
        parameters={"c": "0"},
        output_parameters={"accuracy": "0.90"},
        producer=("r1", "train(0)"),
        planned=False,
    )
    run.step(
        "train(1)",
        inputs=(TABLE,),
        outputs=(NEW_MODEL,),
        parameters={"c": "2"},
        output_parameters={"accuracy": "0.95"},
        planned=False,
        document='{"container": {"image": "train:2"}}',
    )
    run.step("choose", depends_on=("train",), output_parameters={"best": "1"})
    run.step(
        "register", depends_on=("choose",), inputs=(renamed(NEW_MODEL, "model"),), parameters={"best": "1"}
    )
    return run


def snapshots() -> list[Message]:
    return [
        SnapshotTaken(
            project="default", snapshot=f"sha256:{str(i) * 64}", environment="sha256:" + "e" * 64, commit=str(i) * 40
        )
        for i in (1, 2)
    ]  # fmt: skip


def irregular() -> list[Message]:
    """A step that was retried, a step of a run without RunSubmitted, and two steps that depend on each other."""
    flaky = {"project": "default", "run": "r1", "step": "flaky"}
    cycle = RunEvents("r3", at=2000)
    cycle.step(
        "a",
        depends_on=("b",),
        inputs=(artifact("in", "cycle/b", "b"),),
        outputs=(artifact("out", "cycle/a", "a"),),
    )
    cycle.step(
        "b",
        depends_on=("a",),
        inputs=(artifact("in", "cycle/a", "a"),),
        outputs=(artifact("out", "cycle/b", "b"),),
    )
    return [
        StepDelayed(**flaky, template="flaky", node="1", reason="Unschedulable", observed_at=timestamp(3)),
        StepDelayed(**flaky, template="flaky", node="1", reason="ErrImagePull", observed_at=timestamp(3)),
        StepDelayed(**flaky, template="flaky", node="1", observed_at=timestamp(4)),
        StepStarted(**flaky, template="flaky", node="1", started_at=timestamp(5)),
        StepFinished(**flaky, phase=types.STEP_PHASE_FAILED, finished_at=timestamp(6), message="no"),
        StepStarted(**flaky, template="flaky", node="2", started_at=timestamp(7)),
        StepFinished(**flaky, phase=types.STEP_PHASE_SUCCEEDED, finished_at=timestamp(8), attempts=2),
        StepStarted(project="default", run="unannounced", step="x", started_at=timestamp(9)),
        *cycle.events,
    ]


def all_events() -> list[Message]:
    return [*snapshots(), *first().events, *second().events, *irregular()]
