"""Tags: found, replaced and listed as Argo does it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_manifest import tags
from periplus_manifest.errors import ExpressionError, ManifestError

KNOWN = {"inputs.parameters.a": "A", "item": "i", "inputs.parameters.i": "nested", "odd": 'q"\n\\{{item}}'}
ENV = {"inputs": {"parameters": {"a": "A", "n": "3"}}, "item": "i"}


def test_a_tag_has_its_offsets_and_its_body():
    first, second = tags.spans("x{{ a.b }}y{{=1 + 1}}")
    assert (first.start, first.end, first.body, first.is_expression, first.name) == (
        1,
        10,
        " a.b ",
        False,
        "a.b",
    )
    assert (second.body, second.is_expression, second.name) == ("=1 + 1", True, "1 + 1")


def test_a_tag_ends_at_the_first_closing_braces_also_inside_an_expression():
    assert [tag.body for tag in tags.spans("{{='}}'}} {{b}}")] == ["='", "b"]
    assert [tag.name for tag in tags.spans('{{=f({"a": {"b": 1} } )}}')] == ['f({"a": {"b": 1} } )']


def test_braces_without_an_end_are_plain_text():
    assert tags.spans("a {{ b") == []
    assert tags.substitute("a {{ b", KNOWN.get) == "a {{ b"


def test_simple_tags_are_replaced_and_their_values_are_not_replaced_again():
    assert tags.substitute("-{{inputs.parameters.a}}-{{ item }}-", KNOWN.get) == "-A-i-"
    assert tags.substitute("{{odd}}", KNOWN.get) == KNOWN["odd"]


def test_a_tag_inside_a_tag_completes_its_name():
    assert tags.substitute("<{{inputs.parameters.{{item}}}}>", KNOWN.get) == "<nested>"


# f-strings, str.format, Jinja, Go templates, LaTeX, GitHub Actions, and what only looks like a variable of Argo's.
FOREIGN = [
    """print(f'{{"w": {w}, "b": {b}}}')""",
    "{{}} {{ }} {{{x}}} {{{{x}}}}",
    "'{{}}'.format(1)",
    "{{ x | y }} {% for node in nodes %}{{ node }}{{loop.index}}{% endfor %}",
    "{{ .Values.image }} {{- if eq $x 1 }}{{ end -}}",
    "\\frac{{a}}{{b}}",
    "${{ github.sha }}",
    "{{inputs}} {{workflow}} {{pod}} {{node}} {{tasks}} {{status}} {{ duration }} {{exitCode}}",
    "{{items}} {{itemised.a}} {{retries_left}} {{myworkflow.name}} {{inputsparameters.x}} {{Item}}",
    "{{ =1 + 1 }} {{- inputs.parameters.a }} {{'item'}} {{(item)}} {{item|upper}} {{item[0]}}",
    "{{a.{{b}}}} {{ {{x}} }}",
    """{{"outer": {"inner": {{"k": 1}} }}}""",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_braces_that_argo_leaves_as_they_are_are_text(text):
    assert tags.find(text) == []
    assert tags.references({"source": text}) == set()
    assert tags.substitute(text, KNOWN.get, ENV, strict=False) == text


VARIABLES = [
    "inputs.parameters.a", "inputs.parameters", "inputs.artifacts.a.path", "outputs.parameters.a.path",
    "outputs.artifacts.a.path", "outputs.result", "item", "item.key", "item.a key|odd", "retries", "lastRetry.exitCode",
    "lastRetry.message", "pod.name", "node.name", "steps.name", "tasks.name", "steps.a.outputs.result",
    "tasks.a-b.outputs.parameters.p", "tasks.a.outputs.artifacts.f", "tasks.a.exitCode", "steps.a.ip",
    "workflow.name", "workflow.namespace", "workflow.uid", "workflow.status", "workflow.failures", "workflow.duration",
    "workflow.priority", "workflow.mainEntrypoint", "workflow.serviceAccountName", "workflow.scheduledTime",
    "workflow.parameters", "workflow.parameters.json", "workflow.parameters.p", "workflow.labels.a/b.c",
    "workflow.annotations.json", "workflow.creationTimestamp", "workflow.creationTimestamp.Y",
    "workflow.outputs.parameters.p", "cronworkflow.name",
]  # fmt: skip


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize(
    "form", ["{{%s}}", "{{ %s }}", "{{\t%s\n}}", "{{{{%s}}}}", '{{"w": {w}, "v": "{{%s}}"}}', "{{{ {{%s}}"]
)
def test_every_variable_of_argo_is_a_tag_whatever_stands_around_it(name, form):
    text = form % name
    assert tags.references(text) == {name}
    assert len(tags.find(text)) == 1


def test_an_inner_tag_is_found_alone_where_the_outer_one_is_text():
    text = """f'{{"w": {w}, "v": "{{inputs.parameters.a}}"}}'"""
    [tag] = tags.find(text)
    assert (text[tag.start : tag.end], tag.name) == ("{{inputs.parameters.a}}", "inputs.parameters.a")


@pytest.mark.parametrize(
    "outer", ["inputs.parameters.", " inputs.parameters.", "wor", "", "  ", "item.it's ", "re"]
)
def test_an_outer_tag_whose_name_an_inner_one_may_complete_is_found_with_it(outer):
    text = f"<{{{{{outer}{{{{workflow.name}}}}}}}}>"
    [tag] = tags.find(text)
    assert text[tag.start : tag.end] == f"{{{{{outer}{{{{workflow.name}}}}"
    assert tags.references(text) == {"workflow.name", outer.strip()} - {""}


def test_an_inner_tag_is_replaced_where_the_outer_one_is_text_as_argo_does():
    text = """{{"w": {w}, "v": "{{inputs.parameters.a}}"}} {{inputs.parameters.a}}"""
    assert tags.substitute(text, KNOWN.get, strict=False) == """{{"w": {w}, "v": "A"}} A"""
    assert (
        tags.substitute('{{"v": {{ inputs.parameters.a }} }}', KNOWN.get, strict=False)
        == '{{"v": {{ inputs.parameters.a }} }}'
    )
    assert (
        tags.substitute("{{{{inputs.parameters.a}}}}", KNOWN.get, strict=False)
        == "{{{{inputs.parameters.a}}}}"
    )
    assert (
        tags.substitute("{{inputs.parameters.{{inputs.parameters.a}}}}", KNOWN.get, strict=False)
        == "{{inputs.parameters.A}}"
    )


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


def test_an_expression_with_a_variable_of_a_running_node_is_left_even_with_a_fallback():
    text = "{{=lastRetry.exitCode ?? '0'}}"
    assert tags.substitute(text, KNOWN.get, {"lastRetry": {}}, strict=False) == text
    assert tags.substitute(text, KNOWN.get, {"lastRetry": {"exitCode": "7"}}, strict=False) == "7"


def test_tags_in_nested_values_are_replaced_and_an_error_has_its_path():
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
def test_any_text_is_replaced_or_refused(text):
    with contextlib.suppress(ManifestError):
        tags.substitute(text, {"a": "1", "b": "{{a}}"}.get, {"a": 1})
    for found in (tags.spans(text), tags.find(text)):
        assert "".join(text[tag.start : tag.end] for tag in found) in text or len(found) > 1
    tags.substitute(text, lambda _: None, {}, strict=False)
    tags.references(text)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_value_is_inserted_literally(before, value, after):
    before, after = before.replace("{", ""), after.replace("}", "")
    assert tags.substitute(
        before + "{{x}}" + after.replace("{", ""), {"x": value}.get
    ) == before + value + after.replace("{", "")


@pytest.mark.parametrize(
    "text",
    ["{{=nil}}", "{{=asInt('x')}}", "{{=inputs.parameters.nope}}", "{{=tasks.gone.outputs.result + item}}"],
)
def test_in_the_final_pass_an_expression_that_will_never_have_a_value_is_an_error(text):
    env = {"inputs": {"parameters": {"nope": None}}, "tasks": {}}
    with pytest.raises(ExpressionError, match="failed to evaluate expression"):
        tags.substitute(text, lambda _: None, env, strict=False, final=True)


@pytest.mark.parametrize("text", ["{{=item + 'x'}}", "{{=retries}}", "{{=pod.name}}", "{{unknown}}"])
def test_in_the_final_pass_other_unknown_variables_are_left(text):
    assert tags.substitute(text, lambda _: None, {}, strict=False, final=True) == text
