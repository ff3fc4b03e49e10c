"""What Argo's own languages gave for each of these texts, and that ours give the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from periplus_manifest import condition, expression, gotext, regex
from periplus_manifest.errors import ConditionError, ManifestError
from periplus_manifest.scalar import resolve

VECTORS = Path(__file__).parent / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


EXPRESSIONS = vectors("expression")
DRAWN = vectors("drawn")
# Numbers come into an expression as floats: out of JSON.
DRAWN["env"] = json.loads(json.dumps(DRAWN["env"]), parse_int=float)


@pytest.mark.parametrize("case", EXPRESSIONS["cases"], ids=lambda case: case["text"])
def test_an_expression_gives_what_expr_lang_gives(case):
    agrees(case, EXPRESSIONS["env"])


def test_expressions_drawn_from_a_grammar_give_what_expr_lang_gives():
    for case in DRAWN["cases"]:
        agrees(case, DRAWN["env"])


def agrees(case, env):
    try:
        written = gotext.json_text(expression.evaluate(case["text"], env))
    except ValueError:  # an ExpressionError, or a value that has no JSON form
        written = None
    if case.get("refused"):
        assert written is None, case
    else:
        assert written is not None, case
        assert json.loads(written) == case["value"], case


@pytest.mark.parametrize("case", vectors("condition")["cases"], ids=lambda case: case["text"])
def test_a_condition_decides_as_govaluate_decides(case):
    if case.get("refused"):
        with pytest.raises(ConditionError):
            condition.evaluate(case["text"])
    else:
        assert condition.evaluate(case["text"]) is case["value"]


@pytest.mark.parametrize("case", vectors("scalar")["cases"], ids=lambda case: case["text"])
def test_a_plain_scalar_is_what_argos_reader_makes_of_it(case):
    assert gotext.json_text(resolve(case["text"])) == case["json"]


@pytest.mark.parametrize(
    "case", vectors("regex")["cases"], ids=lambda case: f"{case['pattern']} on {case['text']}"
)
def test_a_regular_expression_matches_as_go_matches(case):
    if case.get("refused"):
        with pytest.raises(ManifestError):
            regex.compile(case["pattern"])
        return
    text, compiled = case["text"], regex.compile(case["pattern"])
    found = [
        [
            text[spans[2 * n] : spans[2 * n + 1]] if spans[2 * n] >= 0 else ""
            for n in range(compiled.groups + 1)
        ]
        for spans in compiled.find_all(text, lambda _: None)
    ]
    assert (found or None) == case["found"]
