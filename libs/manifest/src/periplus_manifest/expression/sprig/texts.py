"""sprig's functions on texts: cases, trimming, padding, splitting and quoting."""

from __future__ import annotations

import re
from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.builtin.texts import BLANKS, pieces, repeated, replaced
from periplus_manifest.expression.function import ANY, TEXT, WHOLE, Table, declare
from periplus_manifest.expression.value import sliced
from periplus_manifest.gotext import display, go_quoted

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
    remaining = [byte for byte in raw if chr(byte) not in BLANKS]
    # sprig takes each byte for a character as soon as there is a blank to take away.
    return text if len(remaining) == len(raw) else "".join(map(chr, remaining))


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


@declare(TABLE, "quote", variadic=ANY)
def _quote(budget: Budget, *arguments: Any) -> str:
    return budget.text(
        " ".join(go_quoted(display(budget.measure(item))) for item in arguments if item is not None)
    )


@declare(TABLE, "squote", variadic=ANY)
def _squote(budget: Budget, *arguments: Any) -> str:
    return budget.text(
        " ".join(f"'{display(budget.measure(item))}'" for item in arguments if item is not None)
    )


@declare(TABLE, "cat", variadic=ANY)
def _cat(budget: Budget, *arguments: Any) -> str:
    return budget.text(" ".join(display(budget.measure(item)) for item in arguments if item is not None))


@declare(TABLE, "toString", ANY)
def _to_string(budget: Budget, argument: Any) -> str:
    return budget.text(display(budget.measure(argument)))


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
    return {f"_{index}": piece for index, piece in enumerate(pieces(budget, text, separator))}


@declare(TABLE, "splitn", TEXT, WHOLE, TEXT)
def _splitn(budget: Budget, separator: str, limit: int, text: str) -> dict[str, str]:
    return {f"_{index}": piece for index, piece in enumerate(pieces(budget, text, separator, limit))}


@declare(TABLE, "splitList", TEXT, TEXT)
def _split_list(budget: Budget, separator: str, text: str) -> list[str]:
    return pieces(budget, text, separator)


@declare(TABLE, "abbrev", WHOLE, TEXT)
def _abbrev(_: Budget, width: int, text: str) -> str:
    return text if width < 4 else _abbreviated(text, 0, width)


@declare(TABLE, "abbrevboth", WHOLE, WHOLE, TEXT)
def _abbrevboth(_: Budget, left: int, right: int, text: str) -> str:
    return text if right < 4 or (left > 0 and right < 7) else _abbreviated(text, left, right)


def _abbreviated(text: str, start: int, width: int) -> str:
    """Cut a text to `width` bytes from byte `start` on, with dots for what is left out."""
    raw = text.encode()
    if len(raw) <= width:
        return text
    start = min(start, len(raw) - (width - 3))
    if start <= 4:
        return raw[: width - 3].decode(errors="replace") + "..."
    if start + width - 3 < len(raw):
        rest = raw[start:].decode(errors="replace")
        return "..." + (_abbreviated(rest, 0, width - 3) if width >= 7 else "")
    return "..." + raw[len(raw) - (width - 3) :].decode(errors="replace")


@declare(TABLE, "wrap", WHOLE, TEXT)
def _wrap(budget: Budget, width: int, text: str) -> str:
    return _wrapped(budget, text, width, "\n", breaks=False)


@declare(TABLE, "wrapWith", WHOLE, TEXT, TEXT)
def _wrap_with(budget: Budget, width: int, separator: str, text: str) -> str:
    return _wrapped(budget, text, width, separator or "\n", breaks=True)


def _wrapped(budget: Budget, text: str, width: int, separator: str, *, breaks: bool) -> str:
    """Cut lines at blanks, by bytes; a word that is longer than a line is cut or left whole."""
    raw, width = text.encode(), max(width, 1)
    lines: list[bytes] = []
    start = 0
    while len(raw) - start > width:
        budget.step()
        if raw[start] == 32:
            start += 1
            continue
        end = raw.rfind(b" ", start, start + width + 1)
        if end < 0 and breaks:
            lines.append(raw[start : start + width])
            start += width
            continue
        end = end if end >= 0 else raw.find(b" ", start + width)
        lines.append(raw[start:] if end < 0 else raw[start:end])
        start = len(raw) if end < 0 else end + 1
        if end < 0:
            return separator.join(line.decode(errors="replace") for line in lines)
        budget.allocate(len(separator))
    return budget.text(separator.join(line.decode(errors="replace") for line in [*lines, raw[start:]]))
