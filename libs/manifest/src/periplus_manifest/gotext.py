"""Values as Go writes them: JSON as encoding/json, numbers as strconv, for texts that must equal Argo's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self

# encoding/json escapes these, so that JSON can be embedded in HTML; Argo does not switch it off.
_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_HTML_CHARACTER = re.compile("[<>&\u2028\u2029]")
_EXACT = 1 << 53


class WrittenNumber(float):
    """A JSON number that remembers how it was written, because Argo passes loop items on as written."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Take the number as it stood in the JSON text."""
        number = super().__new__(cls, text)
        number.text = text
        return number


class NilList(list[Any]):
    """A nil slice of Go: it is empty, and null as JSON."""


class AnyKeyed(dict[Any, Any]):
    """A map whose keys may be anything (groupBy and fromPairs make such), which Go cannot write as JSON."""


def json_text(value: Any, *, indent: str = "", html: bool = True) -> str:
    """Write a value as Go's json.Marshal does: compact, keys sorted, and <, > and & escaped unless not `html`.

    With `indent` it is json.MarshalIndent. Raises ValueError for NaN, infinities and what JSON has no form
    for.
    """
    out: list[str] = []
    _write(value, out, indent, "\n")
    text = "".join(out)
    # JSON has <, > and & only inside strings, so one pass over the whole text escapes them.
    return _HTML_CHARACTER.sub(lambda match: _HTML[match[0]], text) if html else text


def _write(value: Any, out: list[str], indent: str, newline: str) -> None:
    if isinstance(value, str):
        out.append(_quoted(value))
    elif value is None or isinstance(value, NilList):
        out.append("null")
    elif isinstance(value, bool):
        out.append("true" if value else "false")
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, float):
        out.append(float_json(value))
    elif isinstance(value, Mapping) and not isinstance(value, AnyKeyed):
        _write_map(value, out, indent, newline)
    elif isinstance(value, timedelta):
        out.append(str(value // timedelta(microseconds=1) * 1000))
    elif isinstance(value, datetime):
        out.append(_quoted(moment_text(value)))
    elif isinstance(value, (list, tuple)):
        _write_list(value, out, indent, newline)
    else:
        what = "map with keys of any kind" if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f"a {what} has no JSON form")


def _write_map(value: Mapping[Any, Any], out: list[str], indent: str, newline: str) -> None:
    if not value:
        out.append("{}")
        return
    inner = newline + indent if indent else ""
    out.append("{")
    for position, key in enumerate(sorted(value, key=str)):
        out.append(("," if position else "") + inner + _quoted(str(key)) + (": " if indent else ":"))
        _write(value[key], out, indent, inner)
    out.append((newline if indent else "") + "}")


def _write_list(value: list[Any] | tuple[Any, ...], out: list[str], indent: str, newline: str) -> None:
    if not value:
        out.append("[]")
        return
    inner = newline + indent if indent else ""
    out.append("[")
    for position, item in enumerate(value):
        out.append(("," if position else "") + inner)
        _write(item, out, indent, inner)
    out.append((newline if indent else "") + "]")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def unescaped(text: str) -> str:
    """Undo the escapes of <, > and & in a JSON text, as Argo does in node names."""
    return text.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")


def float_json(number: float) -> str:
    """Write a float as Go's JSON: shortest digits, an exponent below 1e-6 and from 1e21."""
    if isinstance(number, WrittenNumber):
        return number.text
    if not math.isfinite(number):
        raise ValueError(f"{number} has no JSON form")
    size = abs(number)
    if number and (size < 1e-6 or size >= 1e21):
        return _exponent(number, 1)
    return float_plain(number)


def float_plain(number: float) -> str:
    """Write a finite float without an exponent, with the fewest digits that give it back (1.0 is "1")."""
    if number == int(number) and abs(number) < _EXACT:
        return str(int(number)) if number or str(number)[0] != "-" else "-0"
    text = format(Decimal(repr(float(number))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def float_general(number: float) -> str:
    """Write a float as Go's %v: an exponent below 1e-4 and from 1e6 (1e+06)."""
    if math.isnan(number):
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "+Inf" if number > 0 else "-Inf"
    size = abs(number)
    return _exponent(number, 2) if number and (size < 1e-4 or size >= 1e6) else float_plain(number)


def _exponent(number: float, width: int) -> str:
    digits = Decimal(repr(float(number))).normalize().as_tuple()
    mantissa = "".join(map(str, digits.digits))
    exponent = int(digits.exponent) + len(mantissa) - 1
    fraction = "." + mantissa[1:] if mantissa[1:] else ""
    sign = "-" if digits.sign else ""
    return f"{sign}{mantissa[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):0{width}d}"


def parameter_text(value: Any) -> str:
    """Return the text that Argo stores for a parameter written as a string, number or boolean."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Argo reads every JSON number as a float, so integers above 2**53 lose digits there.
        return str(value) if abs(value) <= _EXACT else float_plain(float(value))
    if isinstance(value, float):
        return float_plain(value)
    raise ValueError(f"a parameter is a string, a number or a boolean, not {kind(value)}")


def display(value: Any) -> str:
    """Write a value as Go's fmt.Sprint does (map[a:1 b:2], [1 2], <nil>)."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_general(value)
    if isinstance(value, Mapping):
        pairs = (f"{key}:{display(value[key])}" for key in sorted(value, key=str))
        return f"map[{' '.join(pairs)}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(display(item) for item in value)}]"
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, datetime):
        zone = f"{value.strftime('%z')} {value.tzname()}"
        return f"{value.replace(tzinfo=None).isoformat(sep=' ')} {zone}"
    return str(value)


_GO_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_GO_ESCAPES |= {'"': '\\"', "\\": "\\\\"}


def go_quoted(text: str) -> str:
    """Put a text into double quotes as Go's %q does."""
    return '"' + "".join(_go_escaped(character) for character in text) + '"'


def _go_escaped(character: str) -> str:
    if (found := _GO_ESCAPES.get(character)) is not None:
        return found
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def duration_text(span: timedelta) -> str:
    """Write a duration as Go does: 1h30m0s, 1.5s, 20ms, 3µs, 0s."""
    micros = abs(span) // timedelta(microseconds=1)
    sign = "-" if span < timedelta() else ""
    if not micros:
        return "0s"
    if micros < 1_000_000:
        unit, size = ("ms", 1000) if micros >= 1000 else ("µs", 1)
        return f"{sign}{float_plain(micros / size)}{unit}"
    minutes, rest = divmod(micros, 60_000_000)
    seconds = float_plain(rest / 1_000_000) + "s"
    hours = f"{minutes // 60}h" if minutes >= 60 else ""
    return sign + hours + (f"{minutes % 60}m" if minutes else "") + seconds


def moment_text(moment: datetime) -> str:
    """Write a time as Go's JSON does: RFC 3339, with as much of the second's fraction as there is."""
    text = moment.replace(tzinfo=None).isoformat()
    text = text.rstrip("0") if "." in text else text
    offset = moment.strftime("%z")
    return text + ("Z" if offset in ("", "+0000") else f"{offset[:3]}:{offset[3:5]}")


def kind(value: Any) -> str:
    """Name the kind of a value for error messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, (list, tuple)) else "a map"
