"""The codec is held to the protos: every value survives a round trip, and what no type can hold is refused by field."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from periplus.cache.v1 import cache_pb2
from periplus.types.v1 import step_pb2
from periplus_common.errors import Invalid
from periplus_common.validation import validate
from periplus_model import codec
from periplus_model.queries import (
    Item,
    Literal,
    OutputRef,
    Raw,
    StepQuery,
    StepVerdict,
    Unknown,
    literal,
    literal_text,
)
from periplus_model.steps import (
    Artifact,
    CacheMode,
    CachePolicy,
    Inputs,
    ObjectRef,
    Outputs,
    RunPhase,
    StepPhase,
    StepTemplate,
    Verdict,
)

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
objects = st.builds(ObjectRef, names, names, names)
artifacts = st.builds(
    Artifact, name=names, object=objects, digest=texts, etag=st.just(""), size_bytes=st.integers(0, 2**40)
)
parameters = st.dictionaries(names, texts, max_size=3)
inputs = st.builds(Inputs, parameters, st.lists(artifacts, max_size=2).map(tuple))
outputs = st.builds(
    Outputs,
    parameters,
    st.lists(artifacts, max_size=2).map(tuple),
    st.none() | texts,
    st.none() | st.integers(0, 255),
)
durations = st.timedeltas(timedelta(), codec.MAX_DURATION)
policies = st.builds(
    CachePolicy,
    st.sampled_from(CacheMode),
    st.none() | durations,
    st.frozensets(names, max_size=2),
    st.booleans(),
)
templates = st.builds(StepTemplate, names, texts, policies, names | st.just(""))
refs = st.builds(OutputRef, names, names, st.booleans())
parts = st.builds(Literal, texts) | refs | st.builds(Item, texts) | st.builds(Unknown, texts)
values = st.lists(parts, max_size=3).map(tuple)
sources = refs | objects | st.builds(Raw, texts) | st.builds(Unknown, texts)
queries = st.builds(
    StepQuery, names, names, st.dictionaries(names, values, max_size=2), st.dictionaries(names, sources, max_size=2),
    st.none() | values,
)  # fmt: skip
verdicts = st.builds(
    StepVerdict, names, st.sampled_from(Verdict), texts, texts, outputs, names, names, durations,
    st.lists(st.builds(StepVerdict, names, st.just(Verdict.MISS)), max_size=2).map(tuple), texts,
)  # fmt: skip


@given(inputs, outputs, templates, queries, verdicts)
def test_every_value_survives_a_round_trip(i, o, template, query, verdict):
    assert codec.decode_inputs(codec.encode_inputs(i)) == i
    assert codec.decode_outputs(codec.encode_outputs(o)) == o
    assert codec.decode_template(codec.encode_template(template)) == template
    assert codec.decode_query(codec.encode_query(query)) == query
    assert codec.decode_verdict(codec.encode_verdict(verdict)) == verdict


@given(parameters)
def test_parameters_keep_their_order(given_):
    assert list(codec.decode_parameters(codec.encode_parameters(given_)).items()) == list(given_.items())


@pytest.mark.parametrize(
    ("kind", "contract", "prefix"),
    [
        (StepPhase, step_pb2.StepPhase, "STEP_PHASE_"),
        (RunPhase, step_pb2.RunPhase, "RUN_PHASE_"),
        (Verdict, step_pb2.Verdict, "VERDICT_"),
        (CacheMode, step_pb2.CacheMode, "CACHE_MODE_"),
    ],
)
def test_enums_have_the_members_and_numbers_of_the_contract(kind, contract, prefix):
    ours = {f"{prefix}{member.name}": member.value for member in kind}
    if kind is CacheMode:
        ours["CACHE_MODE_UNSPECIFIED"] = 0
    assert ours == dict(contract.items())
    assert all(kind.from_label(member.label) is member for member in kind)
    with pytest.raises(ValueError, match="'nonsense' is not one of"):
        kind.from_label("nonsense")


OFF, READ, WRITE, READWRITE, REFRESH = CacheMode


@pytest.mark.parametrize(
    ("step", "run", "effective"),
    [
        *((mode, None, mode) for mode in CacheMode),
        *((mode, OFF, OFF) for mode in CacheMode),
        (OFF, REFRESH, OFF),
        (READ, REFRESH, OFF),
        (WRITE, REFRESH, REFRESH),
        (READWRITE, REFRESH, REFRESH),
        (REFRESH, REFRESH, REFRESH),
        (REFRESH, READWRITE, REFRESH),
        (REFRESH, READ, OFF),
        (WRITE, READWRITE, WRITE),
        (WRITE, READ, OFF),
        (READ, READWRITE, READ),
        (READWRITE, READ, READ),
        (READWRITE, READWRITE, READWRITE),
    ],
)
def test_a_run_takes_permissions_away_and_never_adds_one(step, run, effective):
    assert step.restricted_by(run) is effective
    assert CachePolicy(step).restricted_by(run) == CachePolicy(effective)


def test_a_mode_that_is_not_given_is_readwrite():
    assert codec.decode_template(step_pb2.StepTemplate(name="t")).policy.mode is READWRITE
    assert codec.decode_run_mode(0) is None
    assert codec.decode_run_mode(codec.encode_run_mode(REFRESH)) is REFRESH
    assert codec.encode_run_mode(None) == step_pb2.CACHE_MODE_UNSPECIFIED


def test_an_absent_document_is_an_empty_object():
    assert codec.encode_template(StepTemplate("t", '{"a": 1}'), with_document=False).document == "{}"


def test_a_long_reason_is_shortened_to_what_the_contract_takes():
    encoded = codec.encode_template(StepTemplate("t", "{}", uncacheable_reason="é" * 5000))
    assert (len(encoded.uncacheable_reason), encoded.uncacheable_reason[-2:]) == (1024, "é…")
    validate(encoded)


@pytest.mark.parametrize(
    ("decode", "message", "field"),
    [
        (codec.decode_template, step_pb2.StepTemplate(name="a\0"), "name"),
        (
            codec.decode_template,
            step_pb2.StepTemplate(name="a", uncacheable_reason="\0"),
            "uncacheable_reason",
        ),
        (
            codec.decode_template,
            step_pb2.StepTemplate(policy=step_pb2.CachePolicy(mode=99)),  # type: ignore[arg-type]
            "policy.mode",
        ),
        (codec.decode_object, step_pb2.ObjectRef(key="\0"), "object.key"),
        (codec.decode_object, step_pb2.ObjectRef(key="k", bucket="\0"), "object.bucket"),
        (codec.decode_object, step_pb2.ObjectRef(key="k", endpoint="\0"), "object.endpoint"),
        (codec.decode_verdict, cache_pb2.StepVerdict(verdict=99), "verdict"),  # type: ignore[arg-type]
        (codec.decode_verdict, cache_pb2.StepVerdict(verdict=step_pb2.VERDICT_HIT), "outputs"),
        (lambda message: codec.decode_time(message, "at"), Timestamp(seconds=2**60), "at"),
    ],
)
def test_what_no_type_can_hold_is_refused_by_field(decode, message, field):
    with pytest.raises(Invalid) as refused:
        decode(message)
    assert refused.value.field == field


def test_durations_are_bounded_and_times_are_utc():
    assert codec.decode_duration(Duration(seconds=2**60)) == codec.MAX_DURATION
    assert codec.decode_duration(Duration(seconds=-(2**60))) == -codec.MAX_DURATION
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    stamp = codec.encode_time(at)
    assert stamp is not None
    assert codec.decode_time(stamp, "at") == at
    assert codec.encode_time(None) is None
    assert codec.encode_duration(None) is None


def test_a_text_is_literal_only_if_all_its_parts_are():
    assert literal_text(literal("x")) == "x"
    assert literal_text(()) == ""
    assert literal_text((Literal("a"), Literal("b"))) == "ab"
    assert literal_text((Literal("a"), Item())) is None
