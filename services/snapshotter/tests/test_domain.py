from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from periplus_common.errors import Invalid
from periplus_snapshotter import checking, comparing
from periplus_snapshotter.domain import Claim, File, Git, Package, Part, shown


def test_the_id_is_made_of_everything_that_is_claimed(claim: Claim) -> None:
    git = claim.git
    others = [
        replace(claim, git=None),
        replace(claim, git=replace(git, commit="b" * 40)),
        replace(claim, git=replace(git, branch="other")),
        replace(claim, git=replace(git, patch=None)),
        replace(claim, git=replace(git, untracked=git.untracked[1:])),
        replace(claim, lockfile=None),
        replace(claim, lockfile=replace(claim.lockfile, name="pylock.toml")),
        replace(claim, installed=()),
        replace(claim, platform=replace(claim.platform, machine="aarch64")),
        replace(claim, code=None),
    ]
    assert len({claim.id, *(other.id for other in others)}) == len(others) + 1


def test_the_order_in_which_things_are_claimed_does_not_matter(claim: Claim) -> None:
    git = replace(claim.git, untracked=claim.git.untracked[::-1])
    other = replace(claim, git=git, installed=claim.installed[::-1] + claim.installed)
    assert other.in_order() == claim.in_order()
    assert other.in_order().id == claim.in_order().id


def test_the_environment_is_made_of_packages_interpreter_and_platform_alone(claim: Claim) -> None:
    assert replace(claim, git=None, lockfile=None, code=None).environment == claim.environment
    assert replace(claim, installed=()).environment != claim.environment
    assert replace(claim, platform=replace(claim.platform, system="Darwin")).environment != claim.environment


def test_the_canonical_form_stays_what_it_is(claim: Claim) -> None:
    """Another form would give every snapshot another id, and every laptop step another key."""
    assert claim.environment == "sha256:50be293425b4ccc197bea8520c3cb43eaa498fd48f70088217e93dc0f233c30c"
    assert claim.id == "sha256:4741317e457ae0bcbe7ea6dd978d0dbc74a8df9764d863f061b229673ca060d3"


@given(st.binary(min_size=1), st.binary(min_size=1))
@example(b"\\xff", b"\xff")
@example(b"\\n", b"\n")
def test_paths_are_shown_as_text_and_apart(one: bytes, other: bytes) -> None:
    assert shown(one).isprintable()
    shown(one).encode()
    assert (shown(one) == shown(other)) == (one == other)


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../x", b"a/../b", b"a//b", b"./a", b"a/", b"a\0b", b".."])
def test_a_path_that_leaves_the_root_is_refused_by_its_place(claim: Claim, path: bytes) -> None:
    files = (*claim.git.untracked, File(path, Part.of_file(b"")))
    with pytest.raises(Invalid) as caught:
        checking.check(replace(claim, git=replace(claim.git, untracked=files)))
    assert caught.value.field == "claim.git.untracked[3].path"


def test_a_path_that_comes_twice_is_refused(claim: Claim) -> None:
    git = replace(claim.git, untracked=claim.git.untracked * 2)
    with pytest.raises(Invalid, match=r"untracked\[3\].path: comes twice"):
        checking.check(replace(claim, git=git))


@pytest.mark.parametrize(
    "remote",
    ["https://me:secret@code.example/x", "https://secret@code.example/x", "ssh://git:secret@code.example/x"],
)
def test_a_remote_with_credentials_is_refused_and_not_repeated(remote: str) -> None:
    with pytest.raises(Invalid) as caught:
        checking.check(Claim(git=Git("a" * 40, remote=remote)))
    assert caught.value.field == "claim.git.remote"
    assert "secret" not in str(caught.value) + caught.value.fix


@pytest.mark.parametrize(
    "remote", ["git@code.example:x", "https://code.example/x@y", "/srv/x", "file:///srv/x"]
)
def test_a_remote_without_credentials_is_taken(remote: str) -> None:
    checking.check(Claim(git=Git("a" * 40, remote=remote)))


def test_a_code_archive_that_is_no_gzip_and_text_with_control_characters_are_refused(claim: Claim) -> None:
    for changed, field in [
        (replace(claim, code=Part.of(b"PK")), "claim.code_archive"),
        (replace(claim, platform=replace(claim.platform, system="a\0")), "claim.platform.system"),
        (replace(claim, installed=(Package("a", "1\n"),)), "claim.installed[0].version"),
        (replace(claim, git=replace(claim.git, branch="\x1b[2J")), "claim.git.branch"),
    ]:
        with pytest.raises(Invalid) as caught:
            checking.check(changed)
        assert caught.value.field == field


def test_warnings_name_what_differs_and_are_bounded(claim: Claim) -> None:
    locked = (Package("numpy", "2.1.0"), Package("elsewhere", "1.0"))
    dirty, other, extra = comparing.warnings(claim, locked)
    assert "3 untracked files" in dirty
    assert other == "installed packages differ from uv.lock: numpy 2.0.1 (locked 2.1.0)"
    assert extra == "installed packages that uv.lock does not lock: stray 0.1"
    many = tuple(Package(f"p{index:03}", "1") for index in range(500))
    assert comparing.warnings(replace(claim, git=None, installed=many), locked)[0].endswith("; and 480 more")


def test_periplus_itself_and_editable_packages_need_no_lock(claim: Claim) -> None:
    installed = (
        Package("mine", "0.1", editable=True),
        Package("periplus", "0.1.0"),
        Package("periplus-sdk", "0.1.0"),
        Package("pip", "25.0"),
    )
    assert comparing.warnings(replace(claim, git=None, installed=installed), ()) == ()
    other = (*installed, Package("periplusx", "1"), Package("mine-too", "1"))
    (extra,) = comparing.warnings(replace(claim, git=None, installed=other), ())
    assert extra.endswith(": mine-too 1; periplusx 1")


def test_that_a_package_is_editable_changes_no_digest(claim: Claim) -> None:
    installed = (Package("mine", "0.1"), Package("numpy", "2.0.1"))
    plain = replace(claim, installed=installed)
    editable = replace(claim, installed=(replace(installed[0], editable=True), installed[1]))
    assert (plain.id, plain.environment) == (editable.id, editable.environment)


def test_a_tree_like_its_commit_and_packages_like_their_lock_give_no_warning(claim: Claim) -> None:
    clean = replace(claim, git=Git("a" * 40), installed=(Package("numpy", "2.1.0"),))
    assert comparing.warnings(clean, (Package("numpy", "2.1.0"), Package("numpy", "2.0.0"))) == ()
