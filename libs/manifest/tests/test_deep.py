"""However deep a text nests, it is read or refused, and never ends in one of Python's own errors."""

from collections.abc import Iterator

import pytest

from periplus_manifest import condition, depends, expression, loops, regex, tags
from periplus_manifest.errors import ManifestError


def expressions(n: int) -> Iterator[str]:
    """Each construct of the language within itself, n times, and values that nest so."""
    yield from (f"{'(' * n}1{')' * n}", f"{'[' * n}1{']' * n}", f"{'{a:' * n}1{'}' * n}", f"{'!' * n}true")
    yield from (f"{'not ' * n}true", f"{'- ' * n}1", f"1{'+1' * n}", f"1{'**1' * n}", f"true{' && true' * n}")
    yield from (f"nil{' ?? nil' * n}", f"{'true?' * n}1{':2' * n}", f"{'true?1:' * n}2", f"{'nil ?: ' * n}2")
    yield from (f"{'let a=1;' * n}a", f"{'1;' * n}1", f"{'len(' * n}'a'{')' * n}", f"'a'{'|upper()' * n}")
    yield from (f"{'sprig.upper(' * n}'a'{')' * n}", f"a{'.b' * n}", f"a{'?.b' * n}", f"a{'[0]' * n}")
    yield from (f"{'a[' * n}0{']' * n}", f"{'map([1],' * n}#{')' * n}", f"{'map([1],{' * n}#{'})' * n}")
    yield from (f"1{' in [1]' * n}", f"1{'<1' * n}", f"1{'..1' * n}", f"'a'{'[0:]' * n}")
    lists, maps = f"repeat('[',{n})+repeat(']',{n})", f"repeat('{{\"a\":',{n})+'1'+repeat('}}',{n})"
    nested, grown = f"fromJSON({lists})", f"reduce(1..{n}, [#acc], 1)"
    yield from (nested, f"toJSON({nested})", f"flatten({nested})", f"sum({nested})", f"{nested}=={nested}")
    yield from (
        grown,
        f"{grown}=={grown}",
        f"string({grown})",
        f"uniq([{grown},{grown}])",
        f"{grown} in [{grown}]",
    )
    yield from (f"sprig.deepEqual({grown},{grown})", f"sprig.merge(fromJSON({maps}),fromJSON({maps}))")
    yield from (
        f"jsonpath({lists}, '$..a')",
        f"jsonpath('{{}}', '${'.a' * n}')",
        f"jsonpath('{{}}', '$..a{'..a' * n}')",
    )


@pytest.mark.parametrize("depth", [50, 100, 200, 450, 900, 3_000])
def test_a_deep_expression_has_a_value_or_is_refused(depth: int) -> None:
    for text in expressions(depth):
        tags.references("{{=" + text + "}}")
        try:
            tags.as_text(expression.evaluate(text, {"a": {"b": 1}}))
        except ManifestError:
            continue


@pytest.mark.parametrize("depth", [20, 90, 300, 1_000, 20_000])
def test_a_deep_condition_depends_or_pattern_is_read_or_refused(depth: int) -> None:
    n = depth
    conditions = [f"{'(' * n}true{')' * n}", f"{'!' * n}true", f"true{' && true' * n}", f"{'-' * n}1 > 0",
                  f"1{' ** 1' * n} > 0", f"{'true ? ' * n}true{' : true' * n}", f"1 in {'(' * n}1{')' * n}"]  # fmt: skip
    terms = [f"{'(' * n}a{')' * n}", f"{'!' * n}a", f"a{' && a' * n}", f"a{' || a' * n}"]
    patterns = [f"{'(' * n}a{')' * n}", f"{'(?:' * n}{')' * n}", "a{1,1000}" * n, "(a*)" * n]
    for read, texts in ((condition.evaluate, conditions), (depends.parse, terms), (regex.compile, patterns)):
        for text in texts:
            try:
                read(text)
            except ManifestError:
                continue


@pytest.mark.parametrize("depth", [10, 63, 65, 450, 900, 100_000])
def test_deep_items_are_named_or_refused(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, '[{"a":' * depth + "1" + "}]" * depth):
        try:
            items = loops.items({"withParam": text}) or []
        except ManifestError:
            assert depth > 30
            continue
        for item in items:
            loops.item_name("x", 0, item)
            loops.item_scope(item)
