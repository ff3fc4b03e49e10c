"""Proto to domain and back. The only meeting of the two."""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from periplus.snapshotter.v1 import events_pb2 as events
from periplus.snapshotter.v1 import snapshotter_pb2 as pb
from periplus_snapshotter.comparing import Change
from periplus_snapshotter.domain import (
    Claim,
    File,
    Git,
    Lockfile,
    Package,
    Part,
    Platform,
    Snapshot,
    Taken,
    normalised,
    shown,
)


def claim(message: pb.Claim) -> Claim:
    """A claim in the order in which it came, with names in normal form."""
    return Claim(
        git=_git(message.git) if message.HasField("git") else None,
        lockfile=Lockfile(message.lockfile.name, Part.of_file(message.lockfile.content))
        if message.HasField("lockfile")
        else None,
        installed=tuple(
            Package(normalised(p.name), p.version, editable=p.editable) for p in message.installed
        ),
        platform=Platform(
            message.platform.python_version,
            message.platform.python_implementation,
            message.platform.system,
            message.platform.machine,
        ),
        code=Part.of(message.code_archive),
    )


def _git(message: pb.GitState) -> Git:
    return Git(
        message.commit,
        message.branch,
        message.remote,
        Part.of(message.patch),
        tuple(File(file.path, Part.of_file(file.content)) for file in message.untracked),
    )


def taken_to_proto(taken: Taken) -> pb.TakeSnapshotResponse:
    return pb.TakeSnapshotResponse(
        snapshot=taken.id, environment=taken.environment, code_key=taken.code_key, warnings=taken.warnings
    )


def taken_event(snapshot: Snapshot) -> events.SnapshotTaken:
    """What others are told of a new snapshot."""
    git = snapshot.claim.git
    return events.SnapshotTaken(
        project=snapshot.project,
        snapshot=snapshot.id,
        environment=snapshot.environment,
        commit=git.commit if git else "",
        dirty=git.dirty if git else False,
        platform=_platform(snapshot.claim.platform),
        locked_packages=len(snapshot.locked),
        taken_at=_time(snapshot),
    )


def snapshot_to_proto(snapshot: Snapshot) -> pb.Snapshot:
    """With the bytes of those parts that have them."""
    return pb.Snapshot(
        id=snapshot.id,
        claim=_claim(snapshot.claim),
        locked=_packages(snapshot.locked),
        environment=snapshot.environment,
        taken_at=_time(snapshot),
        digests=_digests(snapshot.claim),
        warnings=snapshot.warnings,
    )


def change_to_proto(change: Change) -> pb.SnapshotChange:
    return pb.SnapshotChange(field=change.field, old=change.old, new=change.new)


def _claim(claim: Claim) -> pb.Claim:
    message = pb.Claim(installed=_packages(claim.installed), platform=_platform(claim.platform))
    if claim.git:
        message.git.commit = claim.git.commit
        message.git.branch = claim.git.branch
        message.git.remote = claim.git.remote
        message.git.patch = claim.git.patch.content if claim.git.patch else b""
        for file in claim.git.untracked:
            message.git.untracked.add(path=file.path, content=file.part.content)
    if claim.lockfile:
        message.lockfile.name = claim.lockfile.name
        message.lockfile.content = claim.lockfile.part.content
    return message


def _packages(packages: Iterable[Package]) -> list[pb.Package]:
    return [pb.Package(name=p.name, version=p.version, hashes=p.hashes) for p in packages]


def _platform(platform: Platform) -> pb.Platform:
    return pb.Platform(**vars(platform))


def _time(snapshot: Snapshot) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(snapshot.taken_at)
    return stamp


def _digests(claim: Claim) -> dict[str, str]:
    found = {}
    if claim.git:
        if claim.git.patch:
            found["git.patch"] = claim.git.patch.digest
        found |= {f"untracked/{shown(file.path)}": file.part.digest for file in claim.git.untracked}
    if claim.lockfile:
        found["lockfile"] = claim.lockfile.part.digest
    if claim.code:
        found["code"] = claim.code.digest
    return found
