"""Keys: one meaning, one fingerprint; another meaning, another."""

import copy
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periplus_cache import key
from periplus_cache.key import Scope, TemplateKey, TemplateKeys
from periplus_common import digest
from periplus_model.steps import MAX_PLAIN_CHARACTERS, Artifact, Inputs, ObjectRef, OmittedValue

VECTORS = Path(__file__).parents[3] / "proto" / "vectors" / "fingerprint.json"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
documents = st.dictionaries(texts, values, max_size=4)
parameters = st.dictionaries(texts, texts, max_size=4)
digests = st.integers(0, 5).map(lambda n: "sha256:" + str(n) * 64)
artifacts = st.dictionaries(texts, digests, max_size=3)


def fingerprint(
    document: Any, parameters_: dict[str, str], artifacts_: dict[str, str], project: str = "p", epoch: int = 0
) -> str:
    return TemplateKey(Scope(project, epoch), json.dumps(document)).fingerprint(parameters_, artifacts_)


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text())["vectors"], ids=lambda v: v["name"])
def test_the_published_vectors_hold(vector: dict[str, Any]):
    template_key = TemplateKey(Scope(vector["project"], vector["epoch"]), vector["template"])
    assert template_key.static_key == vector["static_key"]
    assert template_key.fingerprint(vector["parameters"], vector["artifacts"]) == vector["fingerprint"]


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text())["vectors"], ids=lambda v: v["name"])
def test_the_published_vectors_follow_from_the_standard_alone(vector: dict[str, Any]):
    whole = {
        "v": 1, "project": vector["project"], "tier": "trusted", "epoch": vector["epoch"],
        "template": json.loads(vector["template"]),
        "parameters": vector["parameters"], "artifacts": vector["artifacts"],
    }  # fmt: skip
    assert "sha256:" + hashlib.sha256(cbor(whole)).hexdigest() == vector["fingerprint"]


def cbor(value: Any) -> bytes:
    """Deterministic CBOR by RFC 8949, 4.2, written for this test so that it shares no code with the tested one."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        for lead, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
            try:
                packed = struct.pack(form, value)
            except OverflowError:
                continue
            if struct.unpack(form, packed)[0] == value:
                return lead + packed
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    pairs = sorted((cbor(name), cbor(inner)) for name, inner in value.items())
    return head(5, len(pairs)) + b"".join(name + inner for name, inner in pairs)


def head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + number.to_bytes(size, "big")


@given(documents, parameters, artifacts)
def test_the_fingerprint_is_the_digest_of_the_whole_key(document, parameters_, artifacts_):
    text = json.dumps(document)
    scope = Scope("p", 3)
    assert TemplateKey(scope, text).fingerprint(parameters_, artifacts_) == digest.of(
        key.whole_key(scope, text, inputs(parameters_, artifacts_))
    )
    assert TemplateKey(scope, text).static_key == digest.of(key.static_members(scope, text))


def inputs(parameters_: dict[str, str], artifacts_: dict[str, str]) -> Inputs:
    found = tuple(Artifact(name, ObjectRef("k"), digest=value) for name, value in artifacts_.items())
    return Inputs(parameters_, found)


def test_a_large_parameter_has_the_same_fingerprint_whether_it_is_whole_or_omitted():
    scope, text = Scope("p"), "{}"
    of = TemplateKey(scope, text)
    large = "é" * (MAX_PLAIN_CHARACTERS + 1)
    omitted = {"x": OmittedValue(digest.sha256(large.encode()), len(large.encode()))}
    whole = of.fingerprint({"x": large, "y": "1"}, {})
    assert whole == of.fingerprint({"y": "1"}, {}, None, omitted)
    assert whole == digest.of(key.whole_key(scope, text, Inputs({"y": "1"}, omitted=omitted)))
    assert whole != of.fingerprint({"x": large[1:] + "e", "y": "1"}, {})
    assert whole != of.fingerprint({"y": "1"}, {})
    as_text = json.dumps([omitted["x"].digest, omitted["x"].size_bytes])
    assert whole != of.fingerprint({"x": as_text, "y": "1"}, {})


@given(documents, parameters, artifacts, st.randoms())
def test_the_order_of_members_does_not_matter(document, parameters_, artifacts_, random):
    assert fingerprint(document, parameters_, artifacts_) == fingerprint(
        shuffled(document, random), shuffled(parameters_, random), shuffled(artifacts_, random)
    )


def shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, dict):
        members = list(value.items())
        random.shuffle(members)
        return {name: shuffled(inner, random) for name, inner in members}
    return [shuffled(inner, random) for inner in value] if isinstance(value, list) else value


@given(documents, parameters, artifacts, documents, parameters, artifacts)
@settings(max_examples=150)
def test_two_keys_share_a_fingerprint_only_if_they_are_equal(d1, p1, a1, d2, p2, a2):
    same = (typed(d1), p1, a1) == (typed(d2), p2, a2)
    assert (fingerprint(d1, p1, a1) == fingerprint(d2, p2, a2)) is same


def typed(value: Any) -> Any:
    """The value with its types, as Python holds 1, 1.0 and True equal."""
    if isinstance(value, dict):
        return {name: typed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return type(value).__name__, repr(value)


DOCUMENT: dict[str, Any] = {
    "container": {
        "image": "python@sha256:" + "0" * 64, "command": ["python", "-c"], "args": ["a", "b"],
        "env": {"A": "1"}, "workingDir": "/w",
    },
    "script": {"source": "print(1)"},
    "initContainers": [{"name": "i", "image": "x"}],
    "inputs": {"parameters": ["c"], "artifacts": {"x": {"path": "/x"}}},
    "outputs": {"parameters": {"y": {"path": "/y"}}, "artifacts": {"m": {"path": "/m"}}},
    "code": {"train.py": "sha256:" + "1" * 64},
    "environment": "sha256:" + "2" * 64,
}  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for path in [path] if path] + [p for name, v in inner for p in paths(v, (*path, name))]


@pytest.mark.parametrize("path", paths(DOCUMENT), ids=lambda p: ".".join(map(str, p)))
@pytest.mark.parametrize("change", ["changed", "removed"])
def test_every_field_alone_changes_the_fingerprint(path, change):
    changed = copy.deepcopy(DOCUMENT)
    holder = changed
    for name in path[:-1]:
        holder = holder[name]
    if change == "removed":
        del holder[path[-1]]
    else:
        holder[path[-1]] = {"quite": "different"}
    before, after = (TemplateKey(Scope("p"), json.dumps(d)) for d in (DOCUMENT, changed))
    assert before.static_key != after.static_key
    assert before.fingerprint({"c": "1"}, {}) != after.fingerprint({"c": "1"}, {})


def test_scope_and_inputs_change_the_fingerprint():
    variants = [
        fingerprint(DOCUMENT, {"c": "1"}, {"x": "sha256:0"}),
        fingerprint(DOCUMENT, {"c": "1"}, {"x": "sha256:0"}, project="q"),
        fingerprint(DOCUMENT, {"c": "1"}, {"x": "sha256:0"}, epoch=1),
        fingerprint(DOCUMENT, {"c": "2"}, {"x": "sha256:0"}),
        fingerprint(DOCUMENT, {"d": "1"}, {"x": "sha256:0"}),
        fingerprint(DOCUMENT, {"c": "1"}, {"x": "sha256:1"}),
        fingerprint(DOCUMENT, {"c": "1"}, {"y": "sha256:0"}),
        fingerprint(DOCUMENT, {"c": "1"}, {}),
        fingerprint(DOCUMENT, {}, {"x": "sha256:0"}),
        fingerprint(DOCUMENT, {"c": "1", "x": "sha256:0"}, {}),
        fingerprint(DOCUMENT, {}, {"c": "1", "x": "sha256:0"}),
    ]
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": 0.0}, {"a": -0.0}),
        ({"a": None}, {}),
        ({"a": None}, {"a": "null"}),
        ({"a": []}, {"a": {}}),
        ({"a": "\u00e9"}, {"a": "e\u0301"}),
        ({"a": ["ab", "c"]}, {"a": ["a", "bc"]}),
        ({"a": [["a"], "b"]}, {"a": ["a", ["b"]]}),
        ({"ab": "c"}, {"a": "bc"}),
    ],
)
def test_values_that_look_alike_have_different_fingerprints(one, other):
    assert fingerprint(one, {}, {}) != fingerprint(other, {}, {})


def test_names_and_values_of_parameters_have_boundaries():
    assert fingerprint({}, {"a": "bc", "d": ""}, {}) != fingerprint({}, {"ab": "c", "d": ""}, {})


def test_only_the_keys_that_were_used_last_are_cached():
    keys = TemplateKeys(max_size=2)
    first = keys.get(Scope("p"), '{"a":1}')
    assert keys.get(Scope("p"), '{"a":1}') is first
    assert keys.get(Scope("q"), '{"a":1}') is not first
    keys.get(Scope("p"), '{"a":2}')
    assert keys.get(Scope("p"), '{"a":1}') is not first
