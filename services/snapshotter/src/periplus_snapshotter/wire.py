"""Protobuf ↔ claims and snapshots. The only module that knows both."""

from collections.abc import Iterable
from datetime import datetime

from periplus.snapshotter.v1 import events_pb2 as events
from periplus.snapshotter.v1 import snapshotter_pb2 as pb
from periplus_common.errors import Refused
from periplus_common.rpc_limits import MAX_MESSAGE_BYTES
from periplus_model import codec
from periplus_snapshotter.images.reading import ImageContent, PackageUse, ProjectImage
from periplus_snapshotter.images.resolver import ResolvedImage
from periplus_snapshotter.snapshots.claim import (
    Blob,
    Claim,
    File,
    GitState,
    LibraryTemplate,
    Lockfile,
    OmittedFile,
    Package,
    Platform,
    normalize_package_name,
    printable_path,
)
from periplus_snapshotter.snapshots.diff import SnapshotChange
from periplus_snapshotter.snapshots.snapshot import Snapshot, TakenSnapshot


def decode_claim(message: pb.Claim) -> Claim:
    """A claim with normalized package names, in the order of the message."""
    return Claim(
        git=_decode_git(message.git) if message.HasField("git") else None,
        lockfile=Lockfile(message.lockfile.name, Blob.of(message.lockfile.content))
        if message.HasField("lockfile")
        else None,
        installed=tuple(
            Package(normalize_package_name(p.name), p.version, editable=p.editable) for p in message.installed
        ),
        platform=Platform(
            python_version=message.platform.python_version,
            python_implementation=message.platform.python_implementation,
            system=message.platform.system,
            machine=message.platform.machine,
        ),
        code_archive=Blob.of_optional(message.code_archive),
        templates=tuple(LibraryTemplate(each.name, Blob.of(each.content)) for each in message.templates),
        omitted=tuple(OmittedFile(each.path, each.reason) for each in message.omitted),
    )


def _decode_git(message: pb.GitState) -> GitState:
    return GitState(
        commit=message.commit,
        branch=message.branch,
        remote=message.remote,
        patch=Blob.of_optional(message.patch),
        untracked=tuple(
            File(file.path, Blob.of(file.content), file.executable) for file in message.untracked
        ),
    )


def encode_taken_snapshot(taken: TakenSnapshot) -> pb.TakeSnapshotResponse:
    return pb.TakeSnapshotResponse(
        snapshot=taken.id, environment=taken.environment, code_key=taken.code_key, warnings=taken.warnings
    )


def encode_snapshot_taken(snapshot: Snapshot) -> events.SnapshotTaken:
    """The event of a new snapshot."""
    git = snapshot.claim.git
    return events.SnapshotTaken(
        project=snapshot.project,
        snapshot=snapshot.id,
        environment=snapshot.environment,
        commit=git.commit if git else "",
        dirty=git.is_dirty if git else False,
        platform=_encode_platform(snapshot.claim.platform),
        locked_packages=len(snapshot.locked),
        taken_at=codec.encode_time(snapshot.taken_at),
    )


def encode_snapshot(snapshot: Snapshot) -> pb.GetSnapshotResponse:
    """A snapshot, with the contents of those blobs that have them. Raises `Refused` if it exceeds a message's size."""
    response = pb.GetSnapshotResponse(
        snapshot=pb.Snapshot(
            id=snapshot.id,
            claim=_encode_claim(snapshot.claim),
            locked=_encode_packages(snapshot.locked),
            environment=snapshot.environment,
            taken_at=codec.encode_time(snapshot.taken_at),
            digests=_digests(snapshot.claim),
            warnings=snapshot.warnings,
        )
    )
    size = response.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise Refused(
            f"the snapshot has {size} bytes, and a message holds {MAX_MESSAGE_BYTES}",
            field="with_content",
            reason="SNAPSHOT_TOO_LARGE",
            fix="get it without content; each content is the object snapshots/sha256/<2>/<2>/<digest> of the artifact repository",
        )
    return response


def encode_change(change: SnapshotChange) -> pb.SnapshotChange:
    return pb.SnapshotChange(field=change.field, old=change.old, new=change.new)


def encode_resolved_image(found: ResolvedImage) -> pb.ResolvedImage:
    return pb.ResolvedImage(
        image=found.image,
        digest=found.digest,
        pinned=found.pinned,
        also=found.also,
        reason=found.reason,
        fix=found.fix,
        is_absent=found.is_absent,
    )


def encode_image_moved(project: str, image: str, old: str, new: str, at: datetime) -> events.ImageMoved:
    return events.ImageMoved(
        project=project, image=image, old_digest=old, new_digest=new, observed_at=codec.encode_time(at)
    )


def encode_checked_image(known: ProjectImage, now: ResolvedImage) -> pb.CheckedImage:
    return pb.CheckedImage(
        image=known.name,
        digest=known.digest,
        resolved_at=codec.encode_time(known.resolved_at),
        now=encode_resolved_image(now),
    )


def encode_image_content(content: ImageContent) -> pb.ReadImageResponse:
    return pb.ReadImageResponse(
        image=encode_resolved_image(content.image), packages=_encode_packages(content.packages)
    )


def encode_package_use(found: PackageUse) -> pb.FindPackageResponse:
    return pb.FindPackageResponse(
        images=[
            pb.ImageWithPackage(
                image=use.name,
                digest=use.digest,
                resolved_at=codec.encode_time(use.resolved_at),
                package=use.package,
                version=use.version,
            )
            for use in found.images
        ],
        snapshots=[
            pb.SnapshotWithPackage(
                snapshot=snapshot, taken_at=codec.encode_time(at), version=version, installed=installed
            )
            for snapshot, at, version, installed in found.snapshots
        ],
    )


def _encode_claim(claim: Claim) -> pb.Claim:
    message = pb.Claim(installed=_encode_packages(claim.installed), platform=_encode_platform(claim.platform))
    if claim.git:
        message.git.commit = claim.git.commit
        message.git.branch = claim.git.branch
        message.git.remote = claim.git.remote
        message.git.patch = claim.git.patch.content if claim.git.patch else b""
        for file in claim.git.untracked:
            message.git.untracked.add(path=file.path, content=file.blob.content, executable=file.executable)
    if claim.lockfile:
        message.lockfile.name = claim.lockfile.name
        message.lockfile.content = claim.lockfile.blob.content
    for template in claim.templates:
        message.templates.add(name=template.name, content=template.blob.content)
    for omitted in claim.omitted:
        message.omitted.add(path=omitted.path, reason=omitted.reason)
    return message


def _encode_packages(packages: Iterable[Package]) -> list[pb.Package]:
    return [pb.Package(name=p.name, version=p.version, hashes=p.hashes) for p in packages]


def _encode_platform(platform: Platform) -> pb.Platform:
    return pb.Platform(**vars(platform))


def _digests(claim: Claim) -> dict[str, str]:
    digests = {}
    if claim.git:
        if claim.git.patch:
            digests["git.patch"] = claim.git.patch.digest
        digests |= {
            f"untracked/{printable_path(file.path)}": file.blob.digest for file in claim.git.untracked
        }
    if claim.lockfile:
        digests["lockfile"] = claim.lockfile.blob.digest
    if claim.code_archive:
        digests["code"] = claim.code_archive.digest
    digests |= {f"template/{template.name}": template.blob.digest for template in claim.templates}
    return digests
