import json
import subprocess
import sys
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus_common.errors import Invalid, Unavailable
from periplus_snapshotter.lockfiles.formats import FORMATS, parse_lockfile
from periplus_snapshotter.lockfiles.sandbox import Sandbox

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
HEAD = 'version = 1\nrequires-python = ">=3.11"\n'
UV = HEAD + (
    f'[[package]]\nname = "Zope.Interface"\nversion = "7.0"\nsource = {{ registry = "https://index.example" }}\n'
    f'sdist = {{ url = "https://f.example/z.tar.gz", hash = "{B}" }}\nwheels = [{{ hash = "{A}" }}]\n'
)
PYLOCK = (
    'lock-version = "1.0"\ncreated-by = "uv"\n[[packages]]\nname = "attrs"\nversion = "25.1.0"\n'
    'index = "https://index.example/simple"\n'
    f'wheels = [{{ url = "https://f.example/attrs-25.1.0-py3-none-any.whl", hashes = {{ sha256 = "{"a" * 64}" }} }}]\n'
)
POETRY = (
    f'[[package]]\nname = "attrs"\nversion = "25.1.0"\nfiles = [{{ file = "attrs.whl", hash = "{A}" }}]\n'
    '[metadata]\nlock-version = "2.1"\npython-versions = ">=3.11"\ncontent-hash = "c"\n'
)
POETRY_1 = (
    '[[package]]\nname = "attrs"\nversion = "25.1.0"\n[metadata]\nlock-version = "1.1"\ncontent-hash = "c"\n'
    f'[metadata.files]\nattrs = [{{ file = "attrs.whl", hash = "{A}" }}]\n'
)
PDM = (
    '[metadata]\nlock_version = "4.5.0"\n'
    f'[[package]]\nname = "attrs"\nversion = "25.1.0"\nfiles = [{{ file = "attrs.whl", hash = "{A}" }}]\n'
    f'[[package]]\nname = "attrs"\nversion = "25.1.0"\nextras = ["x"]\nfiles = [{{ file = "attrs.whl", hash = "{A}" }}]\n'
    '[[package]]\nname = "mine"\nversion = "0.1"\npath = "./mine"\n'
)
PIPFILE = json.dumps(
    {
        "_meta": {
            "hash": {"sha256": "c"},
            "pipfile-spec": 6,
            "sources": [{"url": "https://$USER:${PASSWORD}@index.example/simple", "name": "a"}],
        },
        "default": {
            "attrs": {"hashes": [A], "index": "pypi", "version": "==25.1.0"},
            "mine": {"editable": True, "path": "."},
            "forked": {"git": "https://code.example/forked.git", "ref": "a" * 40},
        },
        "develop": {"attrs": {"hashes": [A, B], "version": "==25.1.0"}},
    }
)
REQUIREMENTS = (
    f"# made by a tool\n--index-url https://index.example/simple\nattrs==25.1.0 \\\n    --hash={A} \\\n"
    f"    --hash={B}\n    # via something\nZope.Interface[test]==7.0 ; python_version > '3' --hash={A}  # why\n"
)


def read(name: str, text: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return parse_lockfile(name, text.encode())


def test_each_format_gives_names_versions_and_hashes() -> None:
    assert read("uv.lock", UV) == [("zope-interface", "7.0", (A, B))]
    assert read("pylock.toml", PYLOCK) == [("attrs", "25.1.0", (A,))]
    assert read("poetry.lock", POETRY) == [("attrs", "25.1.0", (A,))]
    assert read("poetry.lock", POETRY_1) == [("attrs", "25.1.0", (A,))]
    assert read("pdm.lock", PDM) == [("attrs", "25.1.0", (A,)), ("mine", "0.1", ())]
    assert read("Pipfile.lock", PIPFILE) == [
        ("attrs", "25.1.0", (A, B)),
        ("forked", "", ()),
        ("mine", "", ()),
    ]
    assert read("requirements.txt", REQUIREMENTS) == [
        ("attrs", "25.1.0", (A, B)),
        ("zope-interface", "7.0", (A,)),
    ]


def test_crlf_and_a_byte_order_mark_are_accepted() -> None:
    assert parse_lockfile("requirements.txt", b"\xef\xbb\xbf" + REQUIREMENTS.replace("\n", "\r\n").encode())
    assert read("uv.lock", UV.replace("\n", "\r\n"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_requirements_in_the_encodings_that_pip_reads_are_read(encoding: str) -> None:
    assert parse_lockfile("requirements.txt", REQUIREMENTS.encode(encoding)) == read(
        "requirements.txt", REQUIREMENTS
    )
    secret = "--index-url https://me:secret@index.example/simple\n" + REQUIREMENTS
    with pytest.raises(Invalid, match="a URL contains a user or a password"):
        parse_lockfile("requirements.txt", secret.encode(encoding))
    with pytest.raises(Invalid, match="is not UTF"):
        parse_lockfile("requirements.txt", REQUIREMENTS.encode(encoding)[:4] + b"\xff")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", [UV, PYLOCK, POETRY, PDM, PIPFILE, REQUIREMENTS])
def test_a_lockfile_with_the_name_of_another_format_is_refused(name: str, text: str) -> None:
    own = {"uv.lock": UV, "pylock.toml": PYLOCK, "poetry.lock": POETRY, "requirements.txt": REQUIREMENTS}
    own |= {"pdm.lock": PDM, "Pipfile.lock": PIPFILE}
    if own[name] != text:
        with pytest.raises(Invalid):
            read(name, text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("uv.lock", UV.replace("version = 1\n", "version = 2\n", 1), "format version 2"),
        ("uv.lock", UV.replace("version = 1\n", "version = true\n", 1), "has no version"),
        ("uv.lock", UV + UV.removeprefix(HEAD), "is a duplicate of package[0]"),
        ("uv.lock", HEAD, "pins no package"),
        ("uv.lock", HEAD + "package = 3", "package is not an array"),
        ("uv.lock", HEAD + "package = [3]", "package[0] is not a table"),
        ("uv.lock", UV.replace("7.0", "latest"), "'latest' is not a version"),
        ("uv.lock", UV.replace("Zope.Interface", "../etc"), "is not a package name"),
        ("uv.lock", UV.replace(A, "sha256:zz"), "is not a hash"),
        ("uv.lock", UV[:-20], "is not TOML"),
        ("pylock.toml", PYLOCK.replace('"1.0"', '"2.0"'), "version 2.0 is not supported"),
        ("pylock.toml", PYLOCK + PYLOCK[PYLOCK.index("[[") :], "is a duplicate"),
        ("poetry.lock", POETRY.replace('"2.1"', '"3.0"'), "lock-version '3.0'"),
        ("poetry.lock", POETRY.replace('content-hash = "c"\n', ""), "content-hash"),
        ("requirements.txt", "-r other.txt\n" + REQUIREMENTS, "-r includes"),
        ("requirements.txt", "-rother.txt\n" + REQUIREMENTS, "-rother.txt includes"),
        ("requirements.txt", "-e .\n" + REQUIREMENTS, "-e includes"),
        ("requirements.txt", "--editable=.\n" + REQUIREMENTS, "--editable includes"),
        ("requirements.txt", "--frobnicate\n" + REQUIREMENTS, "is not an option"),
        ("requirements.txt", f"x @ https://f.example/x.whl --hash={A}", "is a URL"),
        ("requirements.txt", f"https://f.example/x.whl --hash={A}", "is not a requirement"),
        ("requirements.txt", f"x>=1 --hash={A}", "not pinned"),
        ("requirements.txt", f"x==1.* --hash={A}", "not pinned"),
        ("requirements.txt", "x==1", "no --hash"),
        ("requirements.txt", f"x==1 --hash={A} \\", "continues after the end"),
        ("requirements.txt", f"x==1 --hash={A}\nx==1 --hash={A}", "line 2: x 1 is a duplicate of line 1"),
        ("conda.lock", "", "is not one of the supported lockfiles"),
    ],
)
def test_an_invalid_lockfile_is_refused_with_the_position(name: str, text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(name, text)
    assert message in caught.value.message


def test_the_same_version_from_two_sources_is_one_package_with_the_hashes_of_both() -> None:
    other = UV.removeprefix(HEAD).replace("index.example", "other.example").replace(A, "sha256:" + "c" * 64)
    assert read("uv.lock", UV + other) == [("zope-interface", "7.0", (A, B, "sha256:" + "c" * 64))]


@pytest.mark.parametrize(
    "address",
    [
        "https://me:secret@index.example/simple",
        "https://secret@index.example/simple",
        "ssh://git:secret@code.example/x",
        "HTTPS://me:secret@INDEX.example",
    ],
)
def test_a_url_with_credentials_is_refused_and_not_logged(address: str) -> None:
    with pytest.raises(Invalid) as caught:
        read("uv.lock", UV.replace("https://index.example", address))
    assert "line 6" in caught.value.message
    assert "secret" not in str(caught.value)


def test_credentials_from_the_environment_are_accepted() -> None:
    address = "https://${USER}:${PASSWORD}@index.example/simple"
    assert read("requirements.txt", REQUIREMENTS.replace("https://index.example/simple", address))
    assert read("uv.lock", UV.replace("https://index.example", "ssh://git@code.example/x"))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(FORMATS)), content=st.binary(max_size=300))
def test_random_bytes_are_invalid(name: str, content: bytes) -> None:
    with pytest.raises(Invalid):
        parse_lockfile(name, content)


def parses_or_is_invalid(name: str, text: str) -> bool:
    """Whether it has packages, or a short error. Any other exception is raised."""
    try:
        return bool(read(name, text))
    except Invalid as error:
        return len(error.message) < 1000


KEYS = st.sampled_from(
    ["version", "requires-python", "package", "packages", "name", "source", "hash", "hashes", "wheels", "sdist",
     "metadata", "lock-version", "content-hash", "files", "created-by", "marker", "vcs", "archive", "x"]
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from([1, 2.5, True, "1", "1.0", "2.1", "attrs", A, "a" * 64, "", "1979-05-27", []]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def toml(value: object) -> str:
    """The value as inline TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(["uv.lock", "pylock.toml", "poetry.lock"]),
    document=st.dictionaries(KEYS, VALUES, max_size=6),
    begun=st.sampled_from(
        [{}, {"version": 1, "requires-python": "x"}, {"lock-version": "1.0", "created-by": "x"}]
    ),
)
def test_random_documents_are_parsed_or_invalid(name: str, document: dict, begun: dict) -> None:
    text = "\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in (document | begun).items())
    assert parses_or_is_invalid(name, text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab=<>!~1.2*-@#;:\\\n\t [](),'\"https/"), max_size=200))
def test_random_requirements_are_parsed_or_invalid(text: str) -> None:
    assert parses_or_is_invalid("requirements.txt", text + f"\nx==1 --hash={A}\n")


async def test_the_sandbox_returns_what_the_parser_returns() -> None:
    (package,) = await Sandbox(1).parse("uv.lock", UV.encode())
    assert (package.name, package.version, package.hashes) == ("zope-interface", "7.0", (A, B))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + b"[" * 200_000, "nested too deeply"),
        (b"x = " + b"9" * 8_000_000, "512 MiB|limits|not TOML"),
        (b"x" * (8 << 20) + b"y", "larger than 8388608 bytes"),
        (b"a" + b".a" * 2_000_000 + b" = 1", "5 s|512 MiB|limits"),
    ],
)
async def test_a_malicious_lockfile_harms_only_its_own_process_and_is_invalid(
    content: bytes, message: str
) -> None:
    patient = Sandbox(1, timeout=timedelta(seconds=100))  # 5 s of processor time take long on a busy machine
    with pytest.raises(Invalid, match=message):
        await patient.parse("uv.lock", content)


async def test_a_parser_that_does_not_end_in_time_is_ended() -> None:
    with pytest.raises(Unavailable, match="not parsed within 0 s"):
        await Sandbox(1, timeout=timedelta(milliseconds=1)).parse("uv.lock", UV.encode())


async def test_twenty_thousand_packages_are_parsed_and_one_more_is_refused() -> None:
    lines = [f"p{index}==1 --hash={A}\n" for index in range(20_001)]
    assert len(await Sandbox(1).parse("requirements.txt", "".join(lines[:-1]).encode())) == 20_000
    with pytest.raises(Invalid, match="more than 20000"):
        await Sandbox(1).parse("requirements.txt", "".join(lines).encode())


def test_the_process_of_the_parser_is_limited_in_memory_time_and_files() -> None:
    script = (
        "import resource\n"
        "from periplus_snapshotter.lockfiles.__main__ import restrict_process\n"
        "restrict_process()\n"
        "print(*(resource.getrlimit(getattr(resource, f'RLIMIT_{n}'))[1] for n in ('AS', 'CPU', 'FSIZE')))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(512 << 20), "5", "0"]
