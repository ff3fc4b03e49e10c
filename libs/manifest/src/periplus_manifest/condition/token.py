"""Splits a `when` into tokens as govaluate does, and checks which may follow which."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from periplus_manifest.errors import ConditionError


class Kind(Enum):
    """What a token is."""

    NUMBER = auto()
    BOOLEAN = auto()
    TEXT = auto()
    TIME = auto()
    WORD = auto()
    ACCESS = auto()
    PREFIX = auto()
    OPERATOR = auto()
    TERNARY = auto()
    SEPARATOR = auto()
    OPEN = auto()
    CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token; a number is a float, a date in quotes is a TIME with its Unix seconds."""

    kind: Kind
    value: Any


_MAX_TOKENS = 50_000
_PREFIXES = frozenset("-!~")
_TERNARIES = frozenset(("?", ":", "??"))
_OPERATORS = frozenset(
    [
        "+",
        "-",
        "*",
        "/",
        "%",
        "**",
        "&",
        "|",
        "^",
        ">>",
        "<<",
        "&&",
        "||",
        "==",
        "!=",
        ">",
        ">=",
        "<",
        "<=",
        "=~",
        "!~",
    ]
)
_AFTER_PREFIX = frozenset((Kind.NUMBER, Kind.BOOLEAN, Kind.WORD, Kind.ACCESS, Kind.OPEN))
_VALUES = _AFTER_PREFIX | {Kind.TEXT, Kind.TIME, Kind.PREFIX}
_JOINS = frozenset((Kind.OPERATOR, Kind.TERNARY, Kind.SEPARATOR, Kind.CLOSE))
_ARITHMETIC = frozenset(("+", "-", "*", "/", "%", "**", "&", "|", "^", ">>", "<<"))

_STAMP = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:(?P<join>[T ])(?P<hour>\d\d)(?::(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,]\d+)?)?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_WRITTEN_START = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) |\d{1,2}:\d\d[AP]M$", re.ASCII)
_WRITTEN = ("%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%I:%M%p")


def tokens(text: str) -> list[Token]:
    """Split a text into tokens. Raises ConditionError for what is no token, and for a token that may not follow the one before."""
    lexer = _Lexer(text)
    found: list[Token] = []
    expects_value = True
    while (token := lexer.token(expects_value=expects_value)) is not None:
        _check_order(found[-1] if found else None, token)
        if (
            token.kind is Kind.TERNARY
            and len(found) > 1
            and found[-1].kind is Kind.TEXT
            and found[-2].value in ("=~", "!~")
        ):
            raise ConditionError(
                "", f"unexpected {token.value!r} after a regular expression; put it in parentheses"
            )
        found.append(token)
        if len(found) > _MAX_TOKENS:
            raise ConditionError("", f"more than {_MAX_TOKENS} tokens")
        expects_value = token.kind in (Kind.OPEN, Kind.OPERATOR, Kind.TERNARY, Kind.SEPARATOR)
    if not found or found[-1].kind not in (_VALUES | {Kind.CLOSE}) - {Kind.PREFIX, Kind.OPEN}:
        raise ConditionError("", "unexpected end")
    return found


def _check_order(previous: Token | None, token: Token) -> None:
    if previous is None or previous.kind in (Kind.OPEN, Kind.OPERATOR, Kind.TERNARY, Kind.SEPARATOR):
        allowed = token.kind in _VALUES or (previous is not None and token.kind is Kind.CLOSE)
        if previous is not None and previous.value in _ARITHMETIC and token.kind is Kind.TIME:
            allowed = False
    elif previous.kind is Kind.PREFIX:
        allowed = token.kind in _AFTER_PREFIX
    else:
        allowed = token.kind in _JOINS and not (previous.kind is Kind.TIME and token.kind is Kind.TERNARY)
    if not allowed:
        where = f"after {previous.value!r}" if previous else "at the start"
        raise ConditionError("", f"unexpected {token.value!r} {where}")


class _Lexer:
    """Reads one token after another."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def token(self, *, expects_value: bool) -> Token | None:
        text = self._text
        while self._position < len(text) and text[self._position].isspace():
            self._position += 1
        if self._position == len(text):
            return None
        first = text[self._position]
        if first.isdigit() or first == ".":
            return self._number()
        if first == "[":
            self._position += 1
            return Token(Kind.WORD, self._until("]", "unclosed parameter bracket"))
        if first.isalpha():
            return _word(self._while(lambda character: character.isalnum() or character in "_."))
        if first in "'\"":
            self._position += 1
            return _quoted(self._until("'\"", "unclosed string literal"))
        if first in ",()":
            self._position += 1
            return Token({",": Kind.SEPARATOR, "(": Kind.OPEN, ")": Kind.CLOSE}[first], first)
        return _symbol(self._while(_is_symbol), expects_value=expects_value)

    def _number(self) -> Token:
        if self._text.startswith("0x", self._position):
            self._position += 2
            digits = self._while(lambda character: character in "0123456789abcdefABCDEF")
            if not digits or len(digits.lstrip("0")) > 16:
                raise ConditionError("", f"unable to parse hex value '{digits[:40]}'")
            return Token(Kind.NUMBER, float(int(digits, 16)))
        digits = self._while(lambda character: character.isdigit() or character == ".")
        if len(digits) > 400 or not re.fullmatch(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", digits, re.ASCII):
            raise ConditionError("", f"unable to parse numeric value '{digits[:40]}'")
        return Token(Kind.NUMBER, float(digits))

    def _while(self, matches: Callable[[str], bool]) -> str:
        """Read on while characters fit; a backslash takes the next one whatever it is; a blank ends it."""
        out: list[str] = []
        text, position = self._text, self._position
        while position < len(text):
            character = text[position]
            if character == "\\" and position + 1 < len(text):
                position += 1
                character = text[position]
            elif character.isspace() or not matches(character):
                break
            out.append(character)
            position += 1
        self._position = position
        return "".join(out)

    def _until(self, ends: str, unclosed: str) -> str:
        out: list[str] = []
        text, position = self._text, self._position
        while position < len(text):
            character = text[position]
            position += 1
            if character in ends:
                self._position = position
                return "".join(out)
            if character == "\\" and position < len(text):
                character = text[position]
                position += 1
            out.append(character)
        raise ConditionError("", unclosed)


def _is_symbol(character: str) -> bool:
    return not (character.isalnum() or character in "()[]'\"")


def _word(text: str) -> Token:
    if text in ("true", "false"):
        return Token(Kind.BOOLEAN, text == "true")
    if text in ("in", "IN"):
        return Token(Kind.OPERATOR, "in")
    if "." not in text:
        return Token(Kind.WORD, text)
    if text.endswith("."):
        raise ConditionError("", f"hanging accessor on '{text[:80]}'; put it in quotes")
    for part in text.split(".")[1:]:
        if part[:1].upper() != part[:1]:
            raise ConditionError("", f"unable to access '{part[:40]}' in '{text[:80]}'; put it in quotes")
    return Token(Kind.ACCESS, text)


def _symbol(text: str, *, expects_value: bool) -> Token:
    if expects_value and text in _PREFIXES:
        return Token(Kind.PREFIX, text)
    if text in _OPERATORS:
        return Token(Kind.OPERATOR, text)
    if text in _TERNARIES:
        return Token(Kind.TERNARY, text)
    raise ConditionError("", f"invalid token: '{text[:40]}' (hint: try wrapping the text in quotes)")


def _quoted(text: str) -> Token:
    moment = _timestamp(text)
    return Token(Kind.TEXT, text) if moment is None else Token(Kind.TIME, moment)


def _timestamp(text: str) -> float | None:
    """Return the Unix seconds of a text in one of the forms that govaluate takes for a time, else None."""
    match = _STAMP.fullmatch(text)
    if match is None and not _WRITTEN_START.match(text):
        return None
    try:
        return _stamp(match) if match else _written(text)
    except (ValueError, OverflowError):
        return None


def _stamp(match: re.Match[str]) -> float | None:
    date, zone, spaced = match["date"], match["zone"], match["join"] == " "
    if match["join"] is None:
        return datetime.strptime(f"{date}+0000", "%Y-%m-%d%z").timestamp()
    if spaced and (match["minute"] is None or (zone and not (match["second"] and ":" in zone))):
        return None
    if not spaced and (zone is None or (":" in zone and match["second"] is None)):
        return None
    clock = f"{match['hour']}:{match['minute'] or '00'}:{match['second'] or '00'}"
    offset = "+0000" if zone in (None, "Z") else zone
    return datetime.strptime(f"{date} {clock}{offset}", "%Y-%m-%d %H:%M:%S%z").timestamp()


def _written(text: str) -> float | None:
    for form in _WRITTEN:
        try:
            moment = datetime.strptime(text, form)  # noqa: DTZ007 - the zone is set below
        except ValueError:
            continue
        if form == "%I:%M%p":
            # A time without a date is in the year 0, which datetime does not have.
            return moment.hour * 3600.0 + moment.minute * 60.0 - 62167219200.0
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
