"""What a reproduction needs, and whether it is as it was."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from periplus_dispatcher.domain import ObjectContent, ResolvedImage
from periplus_model.steps import Artifact, ObjectRef

MAX_STEPS = 100
"""Steps that one requirement names."""
MAX_OMITTED = 20
"""Omitted files that have a requirement of their own."""
MAX_NAMED = 5
"""Differences of two environments that are named."""
_ENVIRONMENT = ("package.", "python", "platform")


class Kind(IntEnum):
    """What is needed (`RequirementKind`)."""

    IMAGE = 1
    ENVIRONMENT = 2
    CODE = 3
    INPUT = 4
    TEMPLATE = 5
    SECRET = 6
    EFFECT = 7
    OUTPUT = 8


class State(IntEnum):
    """Whether it is as it was (`RequirementState`)."""

    MET = 1
    CHANGED = 2
    MISSING = 3
    UNKNOWN = 4
    UNSAFE = 5

    @property
    def refuses(self) -> bool:
        """Whether nothing is run because of it, unless the caller says so."""
        return self in (State.CHANGED, State.MISSING, State.UNSAFE)


@dataclass(frozen=True)
class Requirement:
    """Something that a reproduction needs. `steps` are the paths of the steps that need it; empty: the whole run."""

    kind: Kind
    name: str
    state: State
    reason: str = ""
    fix: str = ""
    steps: tuple[str, ...] = ()
    expected: str = ""
    actual: str = ""


@dataclass(frozen=True)
class NeededObject:
    """An object that steps of a run read and none of them wrote, and the digest of what they read; empty if it is not known."""

    ref: ObjectRef
    digest: str
    is_code: bool = False
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class NeededImage:
    """An image of containers, in the words of the resolved manifest."""

    image: str
    steps: tuple[str, ...] = ()
    is_local: bool = False
    """The nodes have it and ask no registry for it (`imagePullPolicy: Never`)."""


@dataclass(frozen=True)
class Needs:
    """All that a manifest needs. `others` are what needs no look at anything else."""

    images: tuple[NeededImage, ...] = ()
    objects: tuple[NeededObject, ...] = ()
    others: tuple[Requirement, ...] = field(default_factory=tuple)


def of_image(needed: NeededImage, found: ResolvedImage | None, immutable: Sequence[str]) -> Requirement:
    """Whether an image is still there. `found` is what its registry says, None if it was not asked."""

    def requirement(state: State, reason: str = "", fix: str = "") -> Requirement:
        digest = needed.image.rpartition("@")[2] if is_pinned else ""
        actual = digest if state is State.MET else ""
        return Requirement(Kind.IMAGE, needed.image, state, reason, fix, needed.steps, digest, actual)

    is_pinned = "@sha256:" in needed.image
    if needed.is_local:
        return requirement(State.UNKNOWN, "the nodes have it and ask no registry (imagePullPolicy: Never)")
    if not is_pinned:
        if needed.image.startswith(tuple(immutable)):
            reason = "it is named by a tag, which never changes by DISPATCHER_IMMUTABLE_IMAGE_PREFIXES"
        else:
            reason = "the digest of its tag was not resolved then, so that what the tag points to now runs"
        return requirement(State.UNKNOWN, reason)
    if found is None:
        return requirement(State.UNKNOWN, "its registry was not asked")
    if found.digest:
        return requirement(State.MET)
    if found.is_absent:
        repository = needed.image.partition("@")[0]
        fix = f"copy it back from where there is one: skopeo copy --all docker://COPY docker://{repository}:reproduce"
        return requirement(State.MISSING, found.reason, fix)
    return requirement(State.UNKNOWN, found.reason, found.fix)


def of_object(needed: NeededObject, found: ObjectContent) -> Requirement:
    """Whether an object still has its content."""
    ref = needed.ref
    repository = f"s3://{ref.bucket}{'@' + ref.endpoint if ref.endpoint else ''}/" if ref.bucket else ""
    kind = Kind.CODE if needed.is_code else Kind.INPUT

    def requirement(state: State, reason: str = "", fix: str = "") -> Requirement:
        return Requirement(
            kind, repository + ref.key, state, reason, fix, needed.steps, needed.digest, found.digest
        )

    if found.is_absent and ref.endpoint:
        return requirement(State.UNKNOWN, "it is in a store that the cache does not read")
    if needed.is_code and found.is_absent:
        fix = "plan the pipeline from the same code, which stores it again: periplus plan PIPELINE.py"
        return requirement(State.MISSING, "the code archive is gone", fix)
    if found.is_absent:
        fix = f"put it back; what else has the same content: periplus lineage up artifact:{needed.digest}"
        return requirement(State.MISSING, "the object is gone", fix if needed.digest else "put it back")
    if not needed.digest:
        return requirement(State.UNKNOWN, "the digest of what the run read is not recorded")
    if not found.digest:
        return requirement(State.UNKNOWN, found.reason)
    if found.digest != needed.digest:
        fix = f"put the earlier content back; what else has it: periplus lineage up artifact:{needed.digest}"
        return requirement(
            State.CHANGED, "the object was overwritten: it has other content than the run read", fix
        )
    return requirement(State.MET)


def of_output(artifact: Artifact, found: ObjectContent, steps: tuple[str, ...]) -> Requirement:
    """Whether an output of a run still has its bytes. What can not be proven counts as missing: a rollback promises them."""
    key = artifact.object.key

    def requirement(state: State, reason: str = "") -> Requirement:
        fix = "" if state is State.MET else "make them anew: periplus reproduce RUN"
        return Requirement(Kind.OUTPUT, key, state, reason, fix, steps, artifact.digest, found.digest)

    if found.is_absent:
        return requirement(State.MISSING, "the object is gone")
    if not artifact.digest:
        return requirement(
            State.MISSING,
            "the digest of what the run wrote is not recorded (yet), so that nothing proves its bytes",
        )
    if not found.digest:
        return requirement(State.MISSING, found.reason)
    if found.digest != artifact.digest:
        return requirement(
            State.CHANGED, "the object was overwritten: it has other content than the run wrote"
        )
    return requirement(State.MET)


def of_environment(snapshot: str, expected: str, actual: str, differences: Sequence[str]) -> Requirement:
    """Whether this machine has the packages, interpreter and platform of the run. `differences` are those of the snapshots."""
    steps_are = "the steps are processes of this machine"

    def requirement(state: State, reason: str = "", fix: str = "") -> Requirement:
        return Requirement(
            Kind.ENVIRONMENT, "packages, interpreter and platform", state, reason, fix, (), expected, actual
        )

    if not expected:
        return requirement(State.UNKNOWN, f"{steps_are}, and the run has no snapshot of its environment")
    if not actual:
        return requirement(State.UNKNOWN, f"{steps_are}, and the request does not say what it has")
    if expected != actual:
        named = [each for each in differences if each.startswith(_ENVIRONMENT)]
        more = f", and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
        listed = f": {', '.join(named[:MAX_NAMED])}{more}" if named else ""
        reason = f"{steps_are}, which has not the environment of the run{listed}"
        return requirement(
            State.CHANGED, reason, f"install what the run had: periplus snapshot show {snapshot} -o json"
        )
    return requirement(State.MET)


def of_omitted(omitted: Sequence[tuple[str, str]]) -> list[Requirement]:
    """Files that the run's work tree had and its snapshot has not: whether a step used one of them is not known."""
    found = [
        Requirement(Kind.CODE, name, State.UNKNOWN, f"the run's snapshot has it not: {why}")
        for name, why in omitted[:MAX_OMITTED]
    ]
    if more := len(omitted) - len(found):
        reason = "the run's snapshot has them not: periplus snapshot show RUN lists them"
        found.append(Requirement(Kind.CODE, f"{more} more files", State.UNKNOWN, reason))
    return found


def in_order(found: Iterable[Requirement]) -> list[Requirement]:
    """Those that refuse first, then what can not be determined; each names at most `MAX_STEPS` steps."""
    ranks = {State.UNKNOWN: 1, State.MET: 2}
    return sorted(found, key=lambda each: (ranks.get(each.state, 0), each.kind, each.name))
