"""Two runs of one pipeline: the first makes everything, the second has most of it from the cache."""

from google.protobuf.message import Message
from story import Story, artifact, stamp

from periplus.dispatcher.v1.events_pb2 import StepFinished, StepStarted
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus.types.v1 import step_pb2 as types

RAW = artifact("raw", "external/raw.csv", "raw")
TABLE = artifact("table", "r1/features/table.tgz", "table")
MODELS = tuple(artifact("model", f"r1/train({i})/model.tgz", f"model {i}") for i in range(2))
LATER = artifact("model", "r2/train(1)/model.tgz", "model 1 again")


def as_input(known: types.Artifact, name: str) -> types.Artifact:
    given = types.Artifact()
    given.CopyFrom(known)
    given.name = name
    return given


def first() -> Story:
    story = Story("r1", parameters={"c": "1"}, snapshot="sha256:" + "1" * 64)
    story.step("features", inputs=(RAW,), outputs=(TABLE,), document='{"code": {"features.py": "1"}}')
    for i, model in enumerate(MODELS):
        story.step(
            f"train({i})",
            inputs=(as_input(TABLE, "table"),),
            outputs=(model,),
            given={"c": str(i)},
            gave={"accuracy": f"0.9{i}"},
            planned=False,
            document='{"container": {"image": "train:1"}}',
        )
    # "train" stands for items that appeared only mid-run; what is chosen flows as parameters alone.
    story.step("choose", depends_on=("train",), gave={"best": "1"})
    story.step(
        "register", depends_on=("choose",), inputs=(as_input(MODELS[1], "model"),), given={"best": "1"}
    )
    return story


def second() -> Story:
    story = Story("r2", at=1000, parameters={"c": "2"}, snapshot="sha256:" + "2" * 64)
    story.step("features", inputs=(RAW,), outputs=(TABLE,), origin=("r1", "features"))
    story.step(
        "train(0)",
        inputs=(as_input(TABLE, "table"),),
        outputs=(MODELS[0],),
        given={"c": "0"},
        gave={"accuracy": "0.90"},
        origin=("r1", "train(0)"),
        planned=False,
    )
    story.step(
        "train(1)",
        inputs=(as_input(TABLE, "table"),),
        outputs=(LATER,),
        given={"c": "2"},
        gave={"accuracy": "0.95"},
        planned=False,
        document='{"container": {"image": "train:2"}}',
    )
    story.step("choose", depends_on=("train",), gave={"best": "1"})
    story.step("register", depends_on=("choose",), inputs=(as_input(LATER, "model"),), given={"best": "1"})
    return story


def snapshots() -> list[Message]:
    return [
        SnapshotTaken(
            project="default", snapshot=f"sha256:{str(i) * 64}", environment="sha256:" + "e" * 64, commit=str(i) * 40
        )
        for i in (1, 2)
    ]  # fmt: skip


def untidy() -> list[Message]:
    """What the world may bring: a step tried twice, a step of a run that nobody announced, a ring."""
    who = {"project": "default", "run": "r1", "step": "flaky"}
    ring = Story("r3", at=2000)
    ring.step(
        "a",
        depends_on=("b",),
        inputs=(artifact("in", "ring/b", "b"),),
        outputs=(artifact("out", "ring/a", "a"),),
    )
    ring.step(
        "b",
        depends_on=("a",),
        inputs=(artifact("in", "ring/a", "a"),),
        outputs=(artifact("out", "ring/b", "b"),),
    )
    return [
        StepStarted(**who, template="flaky", node="1", started_at=stamp(5)),
        StepFinished(**who, phase=types.STEP_PHASE_FAILED, finished_at=stamp(6), message="no"),
        StepStarted(**who, template="flaky", node="2", started_at=stamp(7)),
        StepFinished(**who, phase=types.STEP_PHASE_SUCCEEDED, finished_at=stamp(8), attempts=2),
        StepStarted(project="default", run="unannounced", step="x", started_at=stamp(9)),
        *ring.events,
    ]


def everything() -> list[Message]:
    return [*snapshots(), *first().events, *second().events, *untidy()]
