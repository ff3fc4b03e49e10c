"""What a step reports is checked: a step can write anything, and a report that cannot be read is never a hit."""

import json

import pytest

from periplus_common.errors import Invalid
from periplus_dispatcher.manifest.discovered import MAX_REPORT_CHARACTERS, read_index, read_report

D = "d" * 32


def test_a_report_has_digests_by_name():
    found = read_report(json.dumps({"code": {"models.py:tree": D}}), steps_are_processes=True)
    assert (found.code, found.uncacheable_reason) == ({"models.py:tree": D}, "")
    assert read_report("{}", steps_are_processes=True).uncacheable_reason == ""


def test_files_and_variables_of_the_machine_count_where_steps_are_processes_and_those_of_the_pod_everywhere():
    files = json.dumps({"files": ["/home/me/data.csv", "/b"]})
    reason = read_report(files, steps_are_processes=True).uncacheable_reason
    assert reason.startswith("it read /home/me/data.csv and 1 more, which it does not declare")
    assert not read_report(files, steps_are_processes=False).uncacheable_reason
    variables = json.dumps({"variables": ["HOSTNAME"]})
    for each in (True, False):
        assert "HOSTNAME" in read_report(variables, steps_are_processes=each).uncacheable_reason
    of_machine = json.dumps({"variables": ["HOME", "PATH"]})
    reason = read_report(of_machine, steps_are_processes=True).uncacheable_reason
    assert reason == "it read the environment variable HOME, which differs from machine to machine"
    assert not read_report(of_machine, steps_are_processes=False).uncacheable_reason


@pytest.mark.parametrize(
    "text",
    [
        "", "no JSON", "[]", "1", "null", '{"code": []}', '{"code": {"a": 1}}', '{"code": {"a": ""}}', '{"code": {"a": "zz"}}',
        '{"files": 1}', '{"code": "x"}', "[" * 5000, json.dumps({"code": {"n" * 2000: D}}), " " * (MAX_REPORT_CHARACTERS + 1),
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_read_is_not_cached(text):
    found = read_report(text, steps_are_processes=True)
    assert found.uncacheable_reason
    assert not found.code


def test_an_index_that_is_none_is_refused_with_its_field():
    def manifest(text):
        return {"metadata": {"annotations": {"periplus.dev/code-index": text}}}

    assert read_index(manifest(json.dumps({"a.py": D}))) == {"a.py": D}
    assert read_index({}) == {}
    for text in ("[", "[]", '{"a": 1}'):
        with pytest.raises(Invalid) as refused:
            read_index(manifest(text))
        assert refused.value.field == "spec.manifest.metadata.annotations['periplus.dev/code-index']"
