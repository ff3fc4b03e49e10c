"""Why a step ran: the nearest entry, and the fields that differ, in words."""

import copy
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_cache import difference
from periplus_cache.domain import Mode, Phase, Policy
from periplus_cache.ports import Burial
from periplus_common import digest
from periplus_common.errors import NotFound

texts = st.sampled_from(["", "a", "name", "value", "b"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.0, -0.0, 1.0]) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def changed(path: str, value: object) -> dict:
    """The usual document with one member changed."""
    document = copy.deepcopy(USUAL)
    *rest, last = path.split("/")
    holder = document
    for name in rest:
        holder = holder[name]
    holder[last] = value
    return document


USUAL = {
    "container": {"image": "python@sha256:0", "args": ["a", "b", "c"], "env": {"FOO": "1"}},
    "code": {"train.py": "sha256:1", "features.py": "sha256:2"},
    "environment": "sha256:3",
}


named = st.lists(st.fixed_dictionaries({"name": texts}, optional={"value": values, "a": values}), max_size=3)


@pytest.fixture
def ran(cache, train, clock):
    """Records a step, an hour after the last."""

    async def record(run, **more):
        clock.move(hours=1)
        await cache.record(train(run, at=clock.now, **({"document": USUAL} | more)))

    return record


def shown(explanation) -> list[tuple]:
    return [(c.field, c.old, c.new) for c in explanation.changes]


async def test_a_changed_parameter_is_named_with_old_and_new(cache, ran):
    await ran("r1", parameters={"c": "0.1", "d": "1"})
    await ran("r2", parameters={"c": "0.5", "d": "1"})
    found = await cache.explain("p", "r2", "main.train")
    assert shown(found) == [("inputs.parameters.c", "0.1", "0.5")]
    assert found.reason == "c was 0.1 and is 0.5"
    assert (found.run, found.step, found.hit) == ("r1", "main.train", False)
    assert found.nearest.startswith("sha256:")
    assert found.nearest != found.fingerprint


@pytest.mark.parametrize(
    ("path", "value", "field", "reason"),
    [
        ("code/features.py", "sha256:9", "code.features.py", "code.features.py has other contents"),
        ("container/image", "python@sha256:9", "container.image", "container.image was python@sha256:0 and is python@sha256:9"),
        ("container/args", ["a", "b", "z"], "container.args[2]", "container.args[2] was c and is z"),
        ("container/env", {"FOO": "2"}, "container.env.FOO", "container.env.FOO was 1 and is 2"),
        ("environment", "sha256:9", "environment", "environment was sha256:3 and is sha256:9"),
        ("code/new.py", "sha256:9", "code.new.py", "code.new.py is new (sha256:9)"),
    ],
)  # fmt: skip
async def test_a_changed_template_is_named_by_its_field(cache, ran, path, value, field, reason):
    await ran("r1")
    await ran("r2", document=changed(path, value))
    found = await cache.explain("p", "r2", "main.train")
    assert [c.field for c in found.changes] == [field]
    assert found.reason == reason


async def test_changed_bytes_are_named_by_their_digests(cache, ran, objects):
    await ran("r1", given={"data": objects.put("one", b"1")})
    await ran("r2", given={"data": objects.put("two", b"2")})
    found = await cache.explain("p", "r2", "main.train")
    ((field, old, new),) = shown(found)
    assert field == "inputs.artifacts.data"
    assert old != new
    assert old.startswith("sha256:")
    assert found.reason == "data has other contents"


async def test_the_most_telling_field_comes_first(cache, ran, objects):
    await ran("r1", parameters={"c": "1"}, given={"data": objects.put("one", b"1")})
    other = copy.deepcopy(USUAL)
    other["container"] |= {"image": "python@sha256:9", "args": ["z"]}
    other["environment"] = "sha256:9"
    other["code"]["train.py"] = "sha256:9"
    await ran("r2", parameters={"c": "2"}, given={"data": objects.put("two", b"2")}, document=other)
    found = await cache.explain("p", "r2", "main.train")
    assert [c.field for c in found.changes] == [
        "code.train.py",
        "container.image",
        "inputs.parameters.c",
        "inputs.artifacts.data",
        "environment",
        "container.args[0]",
        "container.args[1]",
        "container.args[2]",
    ]
    assert found.reason.endswith("; and 5 more")


async def test_the_same_step_of_the_run_before_is_nearer_than_its_neighbours(cache, ran, clock):
    for index, c in enumerate(["0.1", "0.2"]):
        await ran("r1", step=f"main.train({index})", parameters={"c": c})
    for index, c in enumerate(["0.7", "0.8"]):
        await ran("r2", step=f"main.train({index})", parameters={"c": c})
    for index, reason in enumerate(["c was 0.1 and is 0.7", "c was 0.2 and is 0.8"]):
        found = await cache.explain("p", "r2", f"main.train({index})")
        assert (found.run, found.step, found.reason) == ("r1", f"main.train({index})", reason)


async def test_fewer_differences_are_nearer_than_newer_entries(cache, ran):
    await ran("r1", parameters={"c": "1", "d": "1"})
    await ran("r2", parameters={"c": "2", "d": "2"})
    await ran("r3", parameters={"c": "1", "d": "3"})
    found = await cache.explain("p", "r3", "main.train")
    assert (found.run, shown(found)) == ("r1", [("inputs.parameters.d", "1", "3")])


async def test_differing_inputs_are_nearer_than_a_differing_template(cache, ran):
    await ran("r1", parameters={"c": "1", "d": "1"})
    await ran("r2", parameters={"c": "2", "d": "2"}, document=changed("environment", "sha256:9"))
    await ran("r3", parameters={"c": "2", "d": "2"})
    assert (await cache.explain("p", "r3", "main.train")).run == "r1"


async def test_huge_templates_are_compared_with_a_few_and_not_with_all(cache, ran, monkeypatch):
    read = []
    changes = difference.changes
    monkeypatch.setattr(difference, "changes", lambda old, new: read.append(old) or changes(old, new))
    for i in range(12):
        await ran(f"r{i}", document=changed("environment", f"{i}" * 300_000))
    await ran("r99")
    found = await cache.explain("p", "r99", "main.train")
    assert [c.field for c in found.changes] == ["environment"]
    assert 1 <= len(read) <= 4


async def test_entries_made_later_explain_nothing(cache, ran):
    await ran("r1")
    await ran("r2", parameters={"c": "2"})
    found = await cache.explain("p", "r1", "main.train")
    assert (found.reason, found.changes) == ("no step of this template was recorded before", ())


async def test_other_templates_explain_nothing(cache, ran):
    await ran("r1", name="other", step="main.other", document=changed("environment", "sha256:9"))
    await ran("r2")
    assert (await cache.explain("p", "r2", "main.train")).nearest == ""


async def test_a_hit_says_who_made_it(cache, ran, memory, clock, train):
    await ran("r1")
    (fingerprint,) = memory.entries
    hit = train("r2", phase=Phase.CACHED, at=clock.now)
    await cache.record(replace(hit, fingerprint=fingerprint, producer_run="r1", producer_step="main.train"))
    found = await cache.explain("p", "r2", "main.train")
    assert (found.hit, found.run, found.step, found.nearest) == (True, "r1", "main.train", fingerprint)
    assert found.recorded_at == clock.now


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"policy": Policy(Mode.OFF)}, "its cache policy is off"),
        ({"policy": Policy(side_effects=True)}, "it has side effects"),
        ({"uncacheable": "it mounts a volume"}, "it mounts a volume"),
        ({"policy": Policy(Mode.WRITE)}, "its cache policy was write"),
        ({"override": Mode.REFRESH}, "its cache policy was refresh"),
        ({"override": Mode.OFF}, "its cache policy is off"),
        ({"phase": Phase.SKIPPED}, "it was skipped"),
    ],
)
async def test_what_may_not_be_served_is_explained_by_its_policy(cache, ran, more, said):
    await ran("r1")
    await ran("r2", **more)
    assert said in (await cache.explain("p", "r2", "main.train")).reason


async def test_an_entry_that_was_taken_out_of_use_is_named_with_the_reason(cache, ran, memory, clock):
    await ran("r1")
    (fingerprint,) = memory.entries
    await memory.bury("p", [Burial(fingerprint, "r1", "main.train", "bytes are gone")], clock.now)
    await ran("r2")
    found = await cache.explain("p", "r2", "main.train")
    assert (
        found.reason
        == "run r1 did the same in step main.train, but its result is no longer served: bytes are gone"
    )


async def test_an_expired_entry_is_named_though_its_successor_has_its_place(cache, ran):
    await ran("r1", policy=Policy(ttl=timedelta(minutes=5)))
    await ran("r2")
    found = await cache.explain("p", "r2", "main.train")
    assert "its time to live was over" in found.reason
    assert found.run == "r1"


async def test_a_failure_before_is_why_it_ran_again(cache, ran):
    await ran("r1", phase=Phase.FAILED)
    await ran("r2")
    found = await cache.explain("p", "r2", "main.train")
    assert (found.reason, found.run) == ("run r1 tried the same, and it did not end well", "r1")


async def test_a_result_that_could_not_be_kept_is_why_it_ran_again(cache, ran, objects):
    gone = objects.put("gone")
    del objects.found[gone]
    await ran("r1", made={"m": gone})
    await ran("r2")
    assert (
        "could not be kept: there is no object gone" in (await cache.explain("p", "r2", "main.train")).reason
    )


async def test_a_step_that_is_not_recorded_is_not_found(cache, ran):
    await ran("r1")
    for project, run, step in (("q", "r1", "main.train"), ("p", "r9", "main.train"), ("p", "r1", "main.x")):
        with pytest.raises(NotFound):
            await cache.explain(project, run, step)


def test_long_values_are_shortened():
    (change,) = difference.changes({"parameters": {"c": "x" * 1000}}, {"parameters": {"c": "y"}})
    assert change.old == "x" * 200 + "… (1000 characters)"


def test_values_of_other_types_differ_though_they_look_alike():
    found = difference.changes({"template": {"a": 1, "b": None}}, {"template": {"a": "1", "b": "null"}})
    assert [(c.field, c.old, c.new) for c in found] == [("a", "1", '"1"'), ("b", "null", '"null"')]


def test_named_elements_are_found_by_their_name():
    old = {"template": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}
    new = {"template": {"containers": [{"name": "b", "image": "3"}, {"name": "a", "image": "1"}]}}
    assert [(c.field, c.old, c.new) for c in difference.changes(old, new)] == [
        ("containers.b.image", "2", "3"),
        ("containers.order", "a, b", "b, a"),
    ]


@given(values | named, values | named)
def test_keys_that_differ_have_a_field_that_does(one, other):
    """Else a miss would have no reason."""
    old, new = ({"template": {"x": value}, "parameters": {}, "artifacts": {}} for value in (one, other))
    same = digest.of(old) == digest.of(new)
    assert bool(difference.changes(old, new)) is not same
