"""Explanations: the most similar entry, and the fields that differ."""

import copy
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_cache.domain import Invalidation
from periplus_cache.explain import difference
from periplus_common import digest
from periplus_common.errors import NotFound
from periplus_model.steps import CacheMode, CachePolicy, StepPhase

texts = st.sampled_from(["", "a", "name", "value", "b"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.0, -0.0, 1.0]) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def changed(path: str, value: object) -> dict:
    """The document with one member changed."""
    document = copy.deepcopy(DOCUMENT)
    *rest, last = path.split("/")
    holder = document
    for name in rest:
        holder = holder[name]
    holder[last] = value
    return document


DOCUMENT = {
    "container": {"image": "python@sha256:0", "args": ["a", "b", "c"], "env": {"FOO": "1"}},
    "code": {"train.py": "sha256:1", "features.py": "sha256:2"},
    "environment": "sha256:3",
}


named = st.lists(st.fixed_dictionaries({"name": texts}, optional={"value": values, "a": values}), max_size=3)


@pytest.fixture
def recorded(cache, finished, clock):
    """Records a step, an hour after the last."""

    async def record(run, **more):
        clock.move(hours=1)
        await cache.record(finished(run, at=clock.now, **({"document": DOCUMENT} | more)))

    return record


def changed_fields(explanation) -> list[tuple]:
    return [(c.field, c.old, c.new) for c in explanation.changes]


async def test_of_two_equal_steps_at_the_same_time_each_says_so(cache, finished, clock):
    await cache.record(finished("r1", "main.one", document=DOCUMENT, at=clock.now))
    await cache.record(finished("r1", "main.two", document=DOCUMENT, at=clock.now))
    found = await cache.explain("p", "r1", "main.two")
    assert found.reason == "step main.one of run r1 did the same at the same time"


async def test_an_entry_that_had_expired_is_said_to_have(cache, finished, clock):
    policy = CachePolicy(ttl=timedelta(minutes=5))
    await cache.record(finished("r1", "main.one", document=DOCUMENT, policy=policy, at=clock.now))
    later = clock.now + timedelta(hours=1)
    # Its own result was refused by a run that only reads.
    await cache.record(
        finished("r2", "main.two", document=DOCUMENT, policy=CachePolicy(CacheMode.READ), at=later)
    )
    found = await cache.explain("p", "r2", "main.two")
    assert found.reason.startswith(
        "run r1 did the same in step main.one, but its time to live was over on 2026-11-22 at"
    )


async def test_a_step_is_compared_with_one_of_its_own_pipeline_while_there_is_one(cache, finished, clock):
    async def record(run, pipeline, at, **more):
        step = finished(run, document=DOCUMENT, at=clock.now + timedelta(hours=at), **more)
        await cache.record(replace(step, pipeline=pipeline))

    await record("mine", "mine", 1, parameters={"c": "1", "d": "1", "e": "1"})
    await record("theirs", "theirs", 2, parameters={"c": "2"})
    await record("new", "mine", 3, parameters={"c": "3"})
    assert (await cache.explain("p", "new", "main.train")).producer_run == "mine"
    await record("else", "else", 4, parameters={"c": "4"})
    assert (await cache.explain("p", "else", "main.train")).producer_run == "new"


async def test_a_changed_parameter_is_named_with_its_old_and_new_value(cache, recorded):
    await recorded("r1", parameters={"c": "0.1", "d": "1"})
    await recorded("r2", parameters={"c": "0.5", "d": "1"})
    found = await cache.explain("p", "r2", "main.train")
    assert changed_fields(found) == [("inputs.parameters.c", "0.1", "0.5")]
    assert found.reason == "c was 0.1 and is 0.5"
    assert (found.producer_run, found.producer_step, found.hit) == ("r1", "main.train", False)
    assert found.nearest_fingerprint.startswith("sha256:")
    assert found.nearest_fingerprint != found.fingerprint


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
async def test_a_changed_field_of_the_template_is_named(cache, recorded, path, value, field, reason):
    await recorded("r1")
    await recorded("r2", document=changed(path, value))
    found = await cache.explain("p", "r2", "main.train")
    assert [c.field for c in found.changes] == [field]
    assert found.reason == reason


async def test_a_secret_with_another_version_is_named_without_its_versions(cache, recorded):
    for run, version in (("r1", "hmac-sha256:1"), ("r2", "hmac-sha256:2")):
        await recorded(run, document=changed("config", {"Secret/db/token": version}))
    found = await cache.explain("p", "r2", "main.train")
    assert [c.field for c in found.changes] == ["config.Secret/db/token"]
    assert found.reason == "config.Secret/db/token has other contents"


async def test_changed_contents_are_named_with_their_digests(cache, recorded, objects):
    await recorded("r1", input_artifacts={"data": objects.put("one", b"1")})
    await recorded("r2", input_artifacts={"data": objects.put("two", b"2")})
    found = await cache.explain("p", "r2", "main.train")
    ((field, old, new),) = changed_fields(found)
    assert field == "inputs.artifacts.data"
    assert old != new
    assert old.startswith("sha256:")
    assert found.reason == "data has other contents"


async def test_the_most_informative_field_is_first(cache, recorded, objects):
    await recorded("r1", parameters={"c": "1"}, input_artifacts={"data": objects.put("one", b"1")})
    other = copy.deepcopy(DOCUMENT)
    other["container"] |= {"image": "python@sha256:9", "args": ["z"]}
    other["environment"] = "sha256:9"
    other["code"]["train.py"] = "sha256:9"
    await recorded(
        "r2", parameters={"c": "2"}, input_artifacts={"data": objects.put("two", b"2")}, document=other
    )
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


async def test_the_same_step_of_the_previous_run_is_nearer_than_other_items(cache, recorded, clock):
    for index, c in enumerate(["0.1", "0.2"]):
        await recorded("r1", step=f"main.finished({index})", parameters={"c": c})
    for index, c in enumerate(["0.7", "0.8"]):
        await recorded("r2", step=f"main.finished({index})", parameters={"c": c})
    for index, reason in enumerate(["c was 0.1 and is 0.7", "c was 0.2 and is 0.8"]):
        found = await cache.explain("p", "r2", f"main.finished({index})")
        assert (found.producer_run, found.producer_step, found.reason) == (
            "r1",
            f"main.finished({index})",
            reason,
        )


async def test_fewer_differences_are_nearer_than_newer_entries(cache, recorded):
    await recorded("r1", parameters={"c": "1", "d": "1"})
    await recorded("r2", parameters={"c": "2", "d": "2"})
    await recorded("r3", parameters={"c": "1", "d": "3"})
    found = await cache.explain("p", "r3", "main.train")
    assert (found.producer_run, changed_fields(found)) == ("r1", [("inputs.parameters.d", "1", "3")])


async def test_differing_inputs_are_nearer_than_a_differing_template(cache, recorded):
    await recorded("r1", parameters={"c": "1", "d": "1"})
    await recorded("r2", parameters={"c": "2", "d": "2"}, document=changed("environment", "sha256:9"))
    await recorded("r3", parameters={"c": "2", "d": "2"})
    assert (await cache.explain("p", "r3", "main.train")).producer_run == "r1"


async def test_very_large_documents_are_compared_with_a_few_entries_only(cache, recorded, monkeypatch):
    read = []
    changes = difference.changes
    monkeypatch.setattr(difference, "changes", lambda old, new: read.append(old) or changes(old, new))
    for i in range(12):
        await recorded(f"r{i}", document=changed("environment", f"{i}" * 300_000))
    await recorded("r99")
    found = await cache.explain("p", "r99", "main.train")
    assert [c.field for c in found.changes] == ["environment"]
    assert 1 <= len(read) <= 4


async def test_entries_that_were_recorded_later_explain_nothing(cache, recorded):
    await recorded("r1")
    await recorded("r2", parameters={"c": "2"})
    found = await cache.explain("p", "r1", "main.train")
    assert (found.reason, found.changes) == ("no step of this template was recorded before", ())


async def test_other_templates_explain_nothing(cache, recorded):
    await recorded("r1", name="other", step="main.other", document=changed("environment", "sha256:9"))
    await recorded("r2")
    assert (await cache.explain("p", "r2", "main.train")).nearest_fingerprint == ""


async def test_a_hit_names_its_producer(cache, recorded, memory, clock, finished):
    await recorded("r1")
    (fingerprint,) = memory.entries
    hit = finished("r2", phase=StepPhase.CACHED, at=clock.now)
    await cache.record(replace(hit, fingerprint=fingerprint, producer_run="r1", producer_step="main.train"))
    found = await cache.explain("p", "r2", "main.train")
    assert (found.hit, found.producer_run, found.producer_step, found.nearest_fingerprint) == (
        True,
        "r1",
        "main.train",
        fingerprint,
    )
    assert found.recorded_at == clock.now


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"policy": CachePolicy(CacheMode.OFF)}, "its cache mode is off"),
        ({"policy": CachePolicy(side_effects=True)}, "it has side effects"),
        ({"uncacheable_reason": "it mounts a volume"}, "it mounts a volume"),
        ({"policy": CachePolicy(CacheMode.WRITE)}, "its cache mode was write"),
        ({"run_mode": CacheMode.REFRESH}, "its cache mode was refresh"),
        ({"run_mode": CacheMode.OFF}, "the run's cache mode is off"),
        (
            {"run_mode": CacheMode.REFRESH, "policy": CachePolicy(CacheMode.READ)},
            "the run's cache mode is refresh and its own is read, so it is neither looked up nor recorded",
        ),
        ({"run_mode": CacheMode.REFRESH, "policy": CachePolicy(CacheMode.OFF)}, "its cache mode is off"),
        (
            {"run_mode": CacheMode.OFF, "policy": CachePolicy(side_effects=True)},
            "it has side effects, so it always runs",
        ),
        ({"phase": StepPhase.SKIPPED}, "it was skipped"),
    ],
)
async def test_a_step_that_was_not_looked_up_is_explained_by_its_policy(cache, recorded, more, expected):
    await recorded("r1")
    await recorded("r2", **more)
    assert expected in (await cache.explain("p", "r2", "main.train")).reason


@pytest.mark.parametrize("milliseconds", [0, 900])  # Argo's end of a step is a whole second
async def test_an_invalid_entry_is_named_with_the_reason(cache, recorded, memory, clock, milliseconds):
    await recorded("r1")
    (fingerprint,) = memory.entries
    gone = Invalidation(fingerprint, "r1", "main.train", "bytes are gone")
    await memory.invalidate("p", [gone], clock.now + timedelta(hours=1, milliseconds=milliseconds))
    await recorded("r2")
    found = await cache.explain("p", "r2", "main.train")
    assert (
        found.reason
        == "run r1 did the same in step main.train, but its result is no longer served: bytes are gone"
    )


async def test_an_expired_entry_is_named_although_it_was_replaced(cache, recorded):
    await recorded("r1", policy=CachePolicy(ttl=timedelta(minutes=5)))
    await recorded("r2")
    found = await cache.explain("p", "r2", "main.train")
    assert "its time to live was over" in found.reason
    assert found.producer_run == "r1"


async def test_a_failure_explains_why_the_step_ran_again(cache, recorded):
    await recorded("r1", phase=StepPhase.FAILED)
    await recorded("r2")
    found = await cache.explain("p", "r2", "main.train")
    assert (found.reason, found.producer_run) == ("run r1 tried the same and did not succeed", "r1")


async def test_a_result_that_could_not_be_recorded_explains_why_the_step_ran_again(cache, recorded, objects):
    gone = objects.put("gone")
    del objects.objects[gone]
    await recorded("r1", output_artifacts={"m": gone})
    await recorded("r2")
    assert (
        "could not be recorded: there is no object gone"
        in (await cache.explain("p", "r2", "main.train")).reason
    )


async def test_a_step_that_is_not_recorded_is_not_found(cache, recorded):
    await recorded("r1")
    for project, run, step in (("q", "r1", "main.train"), ("p", "r9", "main.train"), ("p", "r1", "main.x")):
        with pytest.raises(NotFound):
            await cache.explain(project, run, step)


def test_long_values_are_shortened():
    (change,) = difference.changes({"parameters": {"c": "x" * 1000}}, {"parameters": {"c": "y"}})
    assert change.old == "x" * 200 + "… (1000 characters)"


def test_values_of_different_types_differ_although_they_look_alike():
    found = difference.changes({"template": {"a": 1, "b": None}}, {"template": {"a": "1", "b": "null"}})
    assert [(c.field, c.old, c.new) for c in found] == [("a", "1", '"1"'), ("b", "null", '"null"')]


def test_named_elements_are_compared_by_name():
    old = {"template": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}
    new = {"template": {"containers": [{"name": "b", "image": "3"}, {"name": "a", "image": "1"}]}}
    assert [(c.field, c.old, c.new) for c in difference.changes(old, new)] == [
        ("containers.b.image", "2", "3"),
        ("containers.order", "a, b", "b, a"),
    ]


@given(values | named, values | named)
def test_keys_that_differ_have_a_field_that_differs(one, other):
    """Else a miss would have no reason."""
    old, new = ({"template": {"x": value}, "parameters": {}, "artifacts": {}} for value in (one, other))
    same = digest.of(old) == digest.of(new)
    assert bool(difference.changes(old, new)) is not same
