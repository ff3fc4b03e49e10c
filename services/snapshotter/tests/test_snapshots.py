from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from periplus_common.errors import Invalid
from periplus_snapshotter.snapshots.claim import Blob, Claim, File, GitState, Package, printable_path
from periplus_snapshotter.snapshots.validation import validate_claim
from periplus_snapshotter.snapshots.warnings import claim_warnings


def test_every_field_of_a_claim_changes_its_id(claim: Claim) -> None:
    git = claim.git
    others = [
        replace(claim, git=None),
        replace(claim, git=replace(git, commit="b" * 40)),
        replace(claim, git=replace(git, branch="other")),
        replace(claim, git=replace(git, patch=None)),
        replace(claim, git=replace(git, untracked=git.untracked[1:])),
        replace(
            claim,
            git=replace(git, untracked=(replace(git.untracked[0], executable=True), *git.untracked[1:])),
        ),
        replace(claim, lockfile=None),
        replace(claim, lockfile=replace(claim.lockfile, name="pylock.toml")),
        replace(claim, installed=()),
        replace(claim, platform=replace(claim.platform, machine="aarch64")),
        replace(claim, code_archive=None),
        replace(claim, templates=()),
        replace(claim, templates=claim.templates[1:]),
        replace(claim, omitted=()),
        replace(claim, omitted=(replace(claim.omitted[0], reason="another"), claim.omitted[1])),
    ]
    assert len({claim.id, *(other.id for other in others)}) == len(others) + 1


def test_the_order_of_packages_and_files_does_not_change_the_id(claim: Claim) -> None:
    git = replace(claim.git, untracked=claim.git.untracked[::-1])
    other = replace(claim, git=git, installed=claim.installed[::-1] + claim.installed)
    other = replace(other, templates=claim.templates[::-1])
    assert other.canonical() == claim.canonical()
    assert other.canonical().id == claim.canonical().id


def test_the_environment_depends_on_packages_interpreter_and_platform_only(claim: Claim) -> None:
    assert replace(claim, git=None, lockfile=None, code_archive=None).environment == claim.environment
    assert replace(claim, installed=()).environment != claim.environment
    assert replace(claim, platform=replace(claim.platform, system="Darwin")).environment != claim.environment


def test_the_canonical_form_does_not_change(claim: Claim) -> None:
    """A change gives every snapshot another id, and every step without an image another cache key."""
    assert claim.environment == "sha256:50be293425b4ccc197bea8520c3cb43eaa498fd48f70088217e93dc0f233c30c"
    assert (
        replace(claim, templates=(), omitted=()).id
        == "sha256:4741317e457ae0bcbe7ea6dd978d0dbc74a8df9764d863f061b229673ca060d3"
    )


@given(st.binary(min_size=1), st.binary(min_size=1))
@example(b"\\xff", b"\xff")
@example(b"\\n", b"\n")
def test_paths_are_printable_and_different_paths_stay_different(one: bytes, other: bytes) -> None:
    assert printable_path(one).isprintable()
    printable_path(one).encode()
    assert (printable_path(one) == printable_path(other)) == (one == other)


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../x", b"a/../b", b"a//b", b"./a", b"a/", b"a\0b", b".."])
def test_a_path_that_is_not_normalized_is_refused_with_its_field(claim: Claim, path: bytes) -> None:
    files = (*claim.git.untracked, File(path, Blob.of(b"")))
    with pytest.raises(Invalid) as caught:
        validate_claim(replace(claim, git=replace(claim.git, untracked=files)))
    assert caught.value.field == "claim.git.untracked[3].path"


def test_a_duplicate_path_is_refused(claim: Claim) -> None:
    git = replace(claim.git, untracked=claim.git.untracked * 2)
    with pytest.raises(Invalid, match=r"untracked\[3\].path: is a duplicate"):
        validate_claim(replace(claim, git=git))


@pytest.mark.parametrize(
    "remote",
    ["https://me:secret@code.example/x", "https://secret@code.example/x", "ssh://git:secret@code.example/x"],
)
def test_a_remote_with_credentials_is_refused_and_not_logged(remote: str) -> None:
    with pytest.raises(Invalid) as caught:
        validate_claim(Claim(git=GitState("a" * 40, remote=remote)))
    assert caught.value.field == "claim.git.remote"
    assert "secret" not in str(caught.value) + caught.value.fix


@pytest.mark.parametrize(
    "remote", ["git@code.example:x", "https://code.example/x@y", "/srv/x", "file:///srv/x"]
)
def test_a_remote_without_credentials_is_accepted(remote: str) -> None:
    validate_claim(Claim(git=GitState("a" * 40, remote=remote)))


def test_a_code_archive_that_is_not_gzip_and_texts_with_control_characters_are_refused(claim: Claim) -> None:
    for changed, field in [
        (replace(claim, code_archive=Blob.of(b"PK")), "claim.code_archive"),
        (replace(claim, platform=replace(claim.platform, system="a\0")), "claim.platform.system"),
        (replace(claim, installed=(Package("a", "1\n"),)), "claim.installed[0].version"),
        (replace(claim, git=replace(claim.git, branch="\x1b[2J")), "claim.git.branch"),
    ]:
        with pytest.raises(Invalid) as caught:
            validate_claim(changed)
        assert caught.value.field == field


def test_warnings_name_the_packages_that_differ_and_are_bounded(claim: Claim) -> None:
    locked = (Package("numpy", "2.1.0"), Package("elsewhere", "1.0"))
    dirty, other, extra = claim_warnings(claim, locked)
    assert "3 untracked files" in dirty
    assert other == "installed packages differ from uv.lock: numpy 2.0.1 (locked 2.1.0)"
    assert extra == "installed packages that uv.lock does not lock: stray 0.1"
    many = tuple(Package(f"p{index:03}", "1") for index in range(500))
    assert claim_warnings(replace(claim, git=None, installed=many), locked)[0].endswith("; and 480 more")


def test_periplus_and_editable_packages_need_no_lock(claim: Claim) -> None:
    installed = (
        Package("mine", "0.1", editable=True),
        Package("periplus", "0.1.0"),
        Package("periplus-sdk", "0.1.0"),
        Package("pip", "25.0"),
    )
    assert claim_warnings(replace(claim, git=None, installed=installed), ()) == ()
    other = (*installed, Package("periplusx", "1"), Package("mine-too", "1"))
    (extra,) = claim_warnings(replace(claim, git=None, installed=other), ())
    assert extra.endswith(": mine-too 1; periplusx 1")


def test_an_editable_package_has_the_digest_of_an_installed_one(claim: Claim) -> None:
    installed = (Package("mine", "0.1"), Package("numpy", "2.0.1"))
    plain = replace(claim, installed=installed)
    editable = replace(claim, installed=(replace(installed[0], editable=True), installed[1]))
    assert (plain.id, plain.environment) == (editable.id, editable.environment)


def test_a_clean_work_tree_with_the_locked_packages_gives_no_warning(claim: Claim) -> None:
    clean = replace(claim, git=GitState("a" * 40), installed=(Package("numpy", "2.1.0"),))
    assert claim_warnings(clean, (Package("numpy", "2.1.0"), Package("numpy", "2.0.0"))) == ()
