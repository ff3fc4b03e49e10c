"""Tags: found, replaced and listed as Argo does it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_manifest import tags
from periplus_manifest.errors import ExpressionError, ManifestError

KNOWN = {"inputs.parameters.a": "A", "item": "i", "inputs.parameters.i": "nested", "odd": 'q"\n\\{{item}}'}
ENV = {"inputs": {"parameters": {"a": "A", "n": "3"}}, "item": "i"}


def test_a_tag_has_its_place_and_its_body():
    first, second = tags.find("x{{ a.b }}y{{=1 + 1}}")
    assert (first.start, first.end, first.body, first.is_expression, first.name) == (
        1,
        10,
        " a.b ",
        False,
        "a.b",
    )
    assert (second.body, second.is_expression, second.name) == ("=1 + 1", True, "1 + 1")


def test_a_tag_ends_at_the_first_closing_braces_also_inside_an_expression():
    assert [tag.body for tag in tags.find("{{='}}'}} {{b}}")] == ["='", "b"]
    assert [tag.name for tag in tags.find('{{=f({"a": {"b": 1} } )}}')] == ['f({"a": {"b": 1} } )']


def test_braces_without_an_end_are_plain_text():
    assert tags.find("a {{ b") == []
    assert tags.substitute("a {{ b", KNOWN.get) == "a {{ b"


def test_simple_tags_are_replaced_and_what_they_give_is_not_looked_at_again():
    assert tags.substitute("-{{inputs.parameters.a}}-{{ item }}-", KNOWN.get) == "-A-i-"
    assert tags.substitute("{{odd}}", KNOWN.get) == KNOWN["odd"]


def test_a_tag_inside_a_tag_completes_its_name():
    assert tags.substitute("<{{inputs.parameters.{{item}}}}>", KNOWN.get) == "<nested>"


def test_an_unknown_tag_is_refused_or_left_as_it_is():
    with pytest.raises(ManifestError, match=r"failed to resolve \{\{nope\}\}"):
        tags.substitute("a {{nope}}", KNOWN.get)
    assert tags.substitute("a {{nope}} {{item}}", KNOWN.get, strict=False) == "a {{nope}} i"
    assert (
        tags.substitute("{{inputs.parameters.{{nope}}}}", KNOWN.get, strict=False)
        == "{{inputs.parameters.{{nope}}}}"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("{{=1 + 2}}", "3"),
        ("{{='a' + inputs.parameters.a}}", "aA"),
        ("{{=10.0}}", "10"),
        ("{{=true}}", "true"),
        ("{{=[1, 'a<']}}", '[1,"a\\u003c"]'),
        ("{{={'b': 1, 'a': nil}}}", None),
        ("{{={'b': 1, 'a': nil} }}", '{"a":null,"b":1}'),
        ("{{=toJson(['<'])}}", '["\\u003c"]'),
        ("{{=inputs.parameters.a}}/{{=asInt(inputs.parameters.n) * 2}}", "A/6"),
    ],
)
def test_an_expressions_value_becomes_text_as_argo_writes_it(text, written):
    if written is None:
        with pytest.raises(ExpressionError):
            tags.substitute(text, KNOWN.get, ENV)
    else:
        assert tags.substitute(text, KNOWN.get, ENV) == written


@pytest.mark.parametrize("text", ["{{=nil}}", "{{=nowhere}}", "{{=1 +}}", "{{=groupBy([1], #)}}", "{{=1/0}}"])
def test_an_expression_without_a_value_is_refused_or_left_as_it_is(text):
    with pytest.raises(ExpressionError):
        tags.substitute(text, KNOWN.get, ENV)
    assert tags.substitute(text, KNOWN.get, ENV, strict=False) == text


def test_what_is_known_only_when_a_node_runs_waits_for_it_even_with_a_fallback():
    text = "{{=lastRetry.exitCode ?? '0'}}"
    assert tags.substitute(text, KNOWN.get, {"lastRetry": {}}, strict=False) == text
    assert tags.substitute(text, KNOWN.get, {"lastRetry": {"exitCode": "7"}}, strict=False) == "7"


def test_nested_values_are_replaced_with_the_path_of_what_cannot_be():
    value = {"args": ["{{item}}", {"k{{item}}": 3}], "n": 1, "none": None}
    assert tags.substitute_all(value, KNOWN.get) == {"args": ["i", {"ki": 3}], "n": 1, "none": None}
    with pytest.raises(ManifestError) as caught:
        tags.substitute_all({"args": ["x", {"y": "{{nope}}"}]}, KNOWN.get)
    assert caught.value.path == "args[1].y"


def test_references_are_collected_from_tags_and_from_inside_expressions():
    value = {
        "a": "{{tasks.a.outputs.parameters.x}} {{ item }}",
        "b": ["{{=tasks['b-c'].outputs?.parameters?.['y'] ?? inputs.parameters.z}}"],
        "c": "{{=map(fromJSON(workflow.parameters.xs), let v = #.n; v + item.k)}} {{=1 +}}",
        "d": "{{inputs.parameters.{{item}}}}",
    }
    assert tags.references(value) == {
        "tasks.a.outputs.parameters.x", "item", "tasks.b-c.outputs.parameters.y", "inputs.parameters.z",
        "workflow.parameters.xs", "item.k", "inputs.parameters.",
    }  # fmt: skip


@given(st.text(alphabet="{}=ab. '\"+1[]"))
def test_any_text_is_replaced_or_refused_and_never_breaks(text):
    with contextlib.suppress(ManifestError):
        tags.substitute(text, {"a": "1", "b": "{{a}}"}.get, {"a": 1})
    assert "".join(text[tag.start : tag.end] for tag in tags.find(text)) in text or len(tags.find(text)) > 1
    tags.substitute(text, lambda _: None, {}, strict=False)
    tags.references(text)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_value_is_put_in_literally_whatever_it_holds(before, value, after):
    before, after = before.replace("{", ""), after.replace("}", "")
    assert tags.substitute(
        before + "{{x}}" + after.replace("{", ""), {"x": value}.get
    ) == before + value + after.replace("{", "")


@pytest.mark.parametrize(
    "text",
    ["{{=nil}}", "{{=asInt('x')}}", "{{=inputs.parameters.nope}}", "{{=tasks.gone.outputs.result + item}}"],
)
def test_an_expression_that_no_later_pass_can_give_a_value_is_an_error_when_a_step_is_settled(text):
    env = {"inputs": {"parameters": {"nope": None}}, "tasks": {}}
    with pytest.raises(ExpressionError, match="failed to evaluate expression"):
        tags.substitute(text, lambda _: None, env, strict=False, settle=True)


@pytest.mark.parametrize("text", ["{{=item + 'x'}}", "{{=retries}}", "{{=pod.name}}", "{{unknown}}"])
def test_what_a_later_pass_may_know_stays_when_a_step_is_settled(text):
    assert tags.substitute(text, lambda _: None, {}, strict=False, settle=True) == text
