"""sprig's functions on texts: cases, trimming, padding, splitting and quoting."""

from __future__ import annotations

import re
from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.gotext import display, go_quoted

from .budget import Budget
from .builtintext import BLANKS, pieces, repeated, replaced
from .function import ANY, TEXT, WHOLE, Table, declare
from .value import sliced

TABLE: Table = {}


@declare(TABLE, "hello")
def _hello(_: Budget) -> str:
    return "Hello!"


@declare(TABLE, "upper", TEXT)
def _upper(budget: Budget, text: str) -> str:
    return budget.text(text.upper())


@declare(TABLE, "lower", TEXT)
def _lower(budget: Budget, text: str) -> str:
    return budget.text(text.lower())


@declare(TABLE, "title", TEXT)
def _title(budget: Budget, text: str) -> str:
    return budget.text(re.sub(r"(?<![\w'])\w", lambda match: match[0].upper(), text))


@declare(TABLE, "untitle", TEXT)
def _untitle(budget: Budget, text: str) -> str:
    return budget.text(re.sub(r"(?<!\S)\S", lambda match: match[0].lower(), text))


@declare(TABLE, "swapcase", TEXT)
def _swapcase(budget: Budget, text: str) -> str:
    return budget.text(text.swapcase())


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W_A-Za-z0-9]+", text)


@declare(TABLE, "snakecase", TEXT)
def _snakecase(budget: Budget, text: str) -> str:
    return budget.text("_".join(word.lower() for word in _words(text)))


@declare(TABLE, "kebabcase", TEXT)
def _kebabcase(budget: Budget, text: str) -> str:
    return budget.text("-".join(word.lower() for word in _words(text)))


@declare(TABLE, "camelcase", TEXT)
def _camelcase(budget: Budget, text: str) -> str:
    return budget.text("".join(part[:1].upper() + part[1:] for part in re.split(r"[_\-\s]+", text)))


@declare(TABLE, "trim", TEXT)
def _trim(_: Budget, text: str) -> str:
    return text.strip(BLANKS)


@declare(TABLE, "trimall", TEXT, TEXT)
@declare(TABLE, "trimAll", TEXT, TEXT)
def _trim_all(_: Budget, cut: str, text: str) -> str:
    return text.strip(cut) if cut else text


@declare(TABLE, "trimSuffix", TEXT, TEXT)
def _trim_suffix(_: Budget, cut: str, text: str) -> str:
    return text.removesuffix(cut)


@declare(TABLE, "trimPrefix", TEXT, TEXT)
def _trim_prefix(_: Budget, cut: str, text: str) -> str:
    return text.removeprefix(cut)


@declare(TABLE, "nospace", TEXT)
def _nospace(_: Budget, text: str) -> str:
    raw = text.encode()
    kept = [byte for byte in raw if chr(byte) not in BLANKS]
    # sprig takes each byte for a character as soon as there is a blank to take away.
    return text if len(kept) == len(raw) else "".join(map(chr, kept))


@declare(TABLE, "trunc", WHOLE, TEXT)
def _trunc(_: Budget, count: int, text: str) -> str:
    size = len(text.encode())
    if count < 0:
        return str(sliced(text, count, None)) if size + count > 0 else text
    return str(sliced(text, None, count)) if size > count else text


@declare(TABLE, "substr", WHOLE, WHOLE, TEXT)
def _substr(_: Budget, start: int, end: int, text: str) -> str:
    size = len(text.encode())
    if start < 0:
        start = 0
    elif end < 0 or end > size:
        end = size
    if not 0 <= start <= end <= size:
        raise ExpressionError("", f"sprig.substr: {start} to {end} is outside of the text")
    return str(sliced(text, start, end))


@declare(TABLE, "repeat", WHOLE, TEXT)
def _repeat(budget: Budget, times: int, text: str) -> str:
    return repeated(budget, text, times)


@declare(TABLE, "replace", TEXT, TEXT, TEXT)
def _replace(budget: Budget, old: str, new: str, text: str) -> str:
    return replaced(budget, text, old, new)


@declare(TABLE, "contains", TEXT, TEXT)
def _contains(_: Budget, part: str, text: str) -> bool:
    return part in text


@declare(TABLE, "hasPrefix", TEXT, TEXT)
def _has_prefix(_: Budget, part: str, text: str) -> bool:
    return text.startswith(part)


@declare(TABLE, "hasSuffix", TEXT, TEXT)
def _has_suffix(_: Budget, part: str, text: str) -> bool:
    return text.endswith(part)


@declare(TABLE, "quote", more=ANY)
def _quote(budget: Budget, *given: Any) -> str:
    return budget.text(" ".join(go_quoted(display(budget.weigh(item))) for item in given if item is not None))


@declare(TABLE, "squote", more=ANY)
def _squote(budget: Budget, *given: Any) -> str:
    return budget.text(" ".join(f"'{display(budget.weigh(item))}'" for item in given if item is not None))


@declare(TABLE, "cat", more=ANY)
def _cat(budget: Budget, *given: Any) -> str:
    return budget.text(" ".join(display(budget.weigh(item)) for item in given if item is not None))


@declare(TABLE, "toString", ANY)
def _to_string(budget: Budget, given: Any) -> str:
    return budget.text(display(budget.weigh(given)))


def _indented(budget: Budget, spaces: int, text: str) -> str:
    pad = repeated(budget, " ", spaces)
    return pad + replaced(budget, text, "\n", "\n" + pad)


@declare(TABLE, "indent", WHOLE, TEXT)
def _indent(budget: Budget, spaces: int, text: str) -> str:
    return _indented(budget, spaces, text)


@declare(TABLE, "nindent", WHOLE, TEXT)
def _nindent(budget: Budget, spaces: int, text: str) -> str:
    return "\n" + _indented(budget, spaces, text)


@declare(TABLE, "plural", TEXT, TEXT, WHOLE)
def _plural(_: Budget, one: str, many: str, count: int) -> str:
    return one if count == 1 else many


@declare(TABLE, "initials", TEXT)
def _initials(_: Budget, text: str) -> str:
    return "".join(word[0] for word in text.split())


@declare(TABLE, "split", TEXT, TEXT)
def _split(budget: Budget, separator: str, text: str) -> dict[str, str]:
    return {f"_{place}": piece for place, piece in enumerate(pieces(budget, text, separator))}


@declare(TABLE, "splitn", TEXT, WHOLE, TEXT)
def _splitn(budget: Budget, separator: str, most: int, text: str) -> dict[str, str]:
    return {f"_{place}": piece for place, piece in enumerate(pieces(budget, text, separator, most))}


@declare(TABLE, "splitList", TEXT, TEXT)
def _split_list(budget: Budget, separator: str, text: str) -> list[str]:
    return pieces(budget, text, separator)
