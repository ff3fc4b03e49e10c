from dataclasses import replace

import pytest

from periplus_common.errors import Invalid, NotFound
from periplus_snapshotter.snapshots.claim import Blob, Claim, GitState, Lockfile


async def test_a_snapshot_is_returned_with_its_content(snapshotter, claim: Claim) -> None:
    taken = await snapshotter.take("p", claim)
    found = await snapshotter.get("p", taken.id, with_content=True)
    assert taken.id == claim.id
    assert found.claim.git.patch.content == b"--- a\n+++ b\n"
    assert {f.path: f.blob.content for f in found.claim.git.untracked} == {
        b"new file.txt": b"new",
        "größe\n.txt".encode(): b"",
        b"raw\xff\\": b"\x00\xff",
    }
    assert found.claim.lockfile.blob.content == claim.lockfile.blob.content
    assert [package.name for package in found.locked] == ["numpy", "project"]
    without_content = await snapshotter.get("p", taken.id)
    assert without_content.claim.git.patch.content == b""


async def test_a_stored_claim_costs_one_query_and_one_check(snapshotter, claim, objects, parser) -> None:
    first = await snapshotter.take("p", claim)
    snapshotter._store.calls.clear()
    objects.checks.clear()
    objects.writes.clear()
    assert await snapshotter.take("p", claim) == first
    assert snapshotter._store.calls == ["find"]
    assert objects.checks == [claim.code_archive.code_key("p")]
    assert objects.writes == []
    assert parser.parsed == 1


async def test_a_deleted_code_archive_is_written_again(snapshotter, claim, objects) -> None:
    await snapshotter.take("p", claim)
    del objects.objects[claim.code_archive.code_key("p")]
    await snapshotter.take("p", claim)
    assert objects.objects[claim.code_archive.code_key("p")] == claim.code_archive.content


async def test_a_lockfile_of_several_snapshots_is_parsed_once(snapshotter, claim, parser) -> None:
    await snapshotter.take("p", claim)
    await snapshotter.take("p", replace(claim, git=None))
    assert parser.parsed == 1


async def test_only_new_blobs_are_written(snapshotter, claim, objects) -> None:
    await snapshotter.take("p", claim)
    objects.writes.clear()
    patch = Blob.of(b"another")
    await snapshotter.take("p", replace(claim, git=replace(claim.git, patch=patch)))
    assert objects.writes == [patch.key]


async def test_an_invalid_lockfile_is_refused_and_nothing_is_stored(snapshotter, claim, objects) -> None:
    invalid = replace(claim, lockfile=Lockfile("poetry.lock", claim.lockfile.blob))
    with pytest.raises(Invalid) as caught:
        await snapshotter.take("p", invalid)
    assert caught.value.field == "claim.lockfile.content"
    assert "is not a valid poetry.lock" in caught.value.message
    assert objects.objects == {}
    assert snapshotter._store.snapshots == {}


async def test_a_snapshot_of_another_project_is_not_found(snapshotter, claim: Claim) -> None:
    taken = await snapshotter.take("p", claim)
    with pytest.raises(NotFound):
        await snapshotter.get("q", taken.id)
    with pytest.raises(NotFound) as caught:
        await snapshotter.diff("p", taken.id, "sha256:" + "0" * 64)
    assert caught.value.field == "new"


async def test_a_diff_has_the_fields_that_differ_and_no_others(snapshotter, claim: Claim) -> None:
    platform = replace(claim.platform, python_version="3.12.1")
    git = GitState("b" * 40, "main", claim.git.remote, None, claim.git.untracked[::2])
    edited = replace(claim.templates[1], blob=Blob.of(b"edited"))
    other = replace(
        claim,
        installed=claim.installed[:2],
        platform=platform,
        git=git,
        templates=(claim.templates[0], edited),
    )
    old = await snapshotter.take("p", claim)
    new = await snapshotter.take("p", other)
    changes = await snapshotter.diff("p", old.id, new.id)
    assert [(c.field, c.old, c.new) for c in changes] == [
        ("file.new file.txt", claim.git.untracked[1].blob.digest, None),
        ("git.commit", "a" * 40, "b" * 40),
        ("git.patch", claim.git.patch.digest, None),
        ("package.stray", "0.1", None),
        ("python", "CPython 3.11.7", "CPython 3.12.1"),
        ("template.WorkflowTemplate/train", claim.templates[1].blob.digest, edited.blob.digest),
    ]
    assert await snapshotter.diff("p", old.id, old.id) == []
