from dataclasses import replace

import pytest

from periplus_common.errors import Invalid, NotFound
from periplus_snapshotter.domain import Claim, Git, Lockfile, Part


async def test_what_was_taken_comes_back_with_all_its_bytes(snapshotter, claim: Claim) -> None:
    taken = await snapshotter.take("p", claim)
    found = await snapshotter.get("p", taken.id, with_content=True)
    assert taken.id == claim.id
    assert found.claim.git.patch.content == b"--- a\n+++ b\n"
    assert {f.path: f.part.content for f in found.claim.git.untracked} == {
        b"new file.txt": b"new",
        "größe\n.txt".encode(): b"",
        b"raw\xff\\": b"\x00\xff",
    }
    assert found.claim.lockfile.part.content == claim.lockfile.part.content
    assert [package.name for package in found.locked] == ["numpy", "project"]
    bare = await snapshotter.get("p", taken.id)
    assert bare.claim.git.patch.content == b""


async def test_a_known_claim_costs_one_question_and_one_look(snapshotter, claim, objects, reader) -> None:
    first = await snapshotter.take("p", claim)
    snapshotter._store.calls.clear()
    objects.looks.clear()
    objects.writes.clear()
    assert await snapshotter.take("p", claim) == first
    assert snapshotter._store.calls == ["taken"]
    assert objects.looks == [claim.code.code_key]
    assert objects.writes == []
    assert reader.read == 1


async def test_a_code_archive_whose_bytes_are_gone_is_written_again(snapshotter, claim, objects) -> None:
    await snapshotter.take("p", claim)
    del objects.objects[claim.code.code_key]
    await snapshotter.take("p", claim)
    assert objects.objects[claim.code.code_key] == claim.code.content


async def test_a_lockfile_is_read_once_however_many_snapshots_have_it(snapshotter, claim, reader) -> None:
    await snapshotter.take("p", claim)
    await snapshotter.take("p", replace(claim, git=None))
    assert reader.read == 1


async def test_only_new_parts_are_written(snapshotter, claim, objects) -> None:
    await snapshotter.take("p", claim)
    objects.writes.clear()
    patch = Part.of(b"another")
    await snapshotter.take("p", replace(claim, git=replace(claim.git, patch=patch)))
    assert objects.writes == [patch.key]


async def test_a_lockfile_that_lies_is_refused_and_nothing_is_kept(snapshotter, claim, objects) -> None:
    lying = replace(claim, lockfile=Lockfile("poetry.lock", claim.lockfile.part))
    with pytest.raises(Invalid) as caught:
        await snapshotter.take("p", lying)
    assert caught.value.field == "claim.lockfile.content"
    assert "is no poetry.lock" in caught.value.message
    assert objects.objects == {}
    assert snapshotter._store.snapshots == {}


async def test_a_snapshot_of_another_project_is_not_found(snapshotter, claim: Claim) -> None:
    taken = await snapshotter.take("p", claim)
    with pytest.raises(NotFound):
        await snapshotter.get("q", taken.id)
    with pytest.raises(NotFound) as caught:
        await snapshotter.diff("p", taken.id, "sha256:" + "0" * 64)
    assert caught.value.field == "new"


async def test_a_diff_names_what_differs_and_nothing_else(snapshotter, claim: Claim) -> None:
    platform = replace(claim.platform, python_version="3.12.1")
    git = Git("b" * 40, "main", claim.git.remote, None, claim.git.untracked[::2])
    other = replace(claim, installed=claim.installed[:2], platform=platform, git=git)
    old = await snapshotter.take("p", claim)
    new = await snapshotter.take("p", other)
    changes = await snapshotter.diff("p", old.id, new.id)
    assert [(c.field, c.old, c.new) for c in changes] == [
        ("file.new file.txt", claim.git.untracked[1].part.digest, None),
        ("git.commit", "a" * 40, "b" * 40),
        ("git.patch", claim.git.patch.digest, None),
        ("package.stray", "0.1", None),
        ("python", "CPython 3.11.7", "CPython 3.12.1"),
    ]
    assert await snapshotter.diff("p", old.id, old.id) == []
