"""Every way an identifier may be written down: order of a name, dates, character sets, escapes, base64."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, quote_plus

SHORTEST = 4  # characters; shorter ones stand everywhere by chance
_WHOLE_WORD = 6  # below this length an identifier counts only where no letter or digit stands beside it
_WHOLE_NUMBER = 10
# Character sets of PS3.3 C.12.1.1.2 and what Windows programs write, beside UTF-8 and UTF-16.
_CHARSETS = (
    "latin-1", "iso8859-2", "iso8859-3", "iso8859-4", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9",
    "cp1250", "cp1251", "cp1252", "shift_jis", "iso2022_jp", "euc_jp", "euc_kr", "gb18030", "tis-620", "mac_roman",
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """One byte string that means an identifier.

    `data` is in lower case (ASCII letters) unless `exact`; `word` asks for the end of a word on both sides, `unit` is
    the size of a character there in bytes.
    """

    data: bytes
    name: str
    exact: bytes | None = None
    word: bool = False
    unit: int = 1


def forms(identifier: str) -> Iterator[Form]:
    """Every form of one identifier, each byte string once."""
    seen: set[tuple[bytes, bytes | None]] = set()
    for form in _all(identifier):
        if len(form.data) >= SHORTEST and (form.data, form.exact) not in seen:
            seen.add((form.data, form.exact))
            yield form


def _all(identifier: str) -> Iterator[Form]:
    for text, how in _texts(identifier):
        word = _is_short(text)
        for variant in dict.fromkeys(_cases(text)):
            yield from _encoded(variant, how, word)
        if len(text.encode()) >= 6:
            for variant in dict.fromkeys((text, text.lower(), text.upper(), text.title())):
                yield from _base64(variant, how)


def _texts(identifier: str) -> Iterator[tuple[str, str]]:
    """The identifier in the orders and formats people and programs use, also without its accents."""
    plain = unicodedata.normalize("NFC", identifier.strip())
    yield from _orders(plain, "")
    yield from ((text, "date, ") for text in _dates(plain))
    bare = unicodedata.normalize("NFD", plain).encode("ascii", "ignore").decode()
    if bare != plain and len(bare) >= len(plain) * 0.7:
        yield from _orders(bare, "without accents, ")


def _orders(plain: str, how: str) -> Iterator[tuple[str, str]]:
    yield plain, how
    groups = plain.split("=")
    for group in groups:
        if len(groups) > 1 and len(group) >= SHORTEST:
            yield group, f"{how}part of a name, "
        parts = [part.strip() for part in group.split("^") if part.strip()]
        if len(parts) < 2:
            continue
        family, given, rest = parts[0], parts[1], parts[2:]
        for order in ([given, family], [family, given], [given, *rest, family], parts):
            for mark in (" ", ", ", ",", "_", "-", ".", "^", "+", ""):
                yield mark.join(order), f"{how}name in other order, "
    letters = "".join(character for character in plain if character.isalnum())
    if letters != plain and len(letters) >= _WHOLE_WORD:
        yield letters, f"{how}without separators, "
    words = [word for word in re.split(r"[\W_]+", plain) if word]
    if len(words) > 1 and "^" not in plain:
        for mark in (" ", "_", "-", ".", "^"):
            if len(joined := mark.join(words)) >= _WHOLE_WORD:
                yield joined, f"{how}with other separators, "


def _dates(text: str) -> Iterator[str]:
    found = re.fullmatch(r"(\d{4})[-./]?(\d{2})[-./]?(\d{2})", text)
    if not found:
        return
    try:
        day = date(*(int(part) for part in found.groups()))
    except ValueError:
        return
    if not 1850 <= day.year <= 2200:
        return
    year, month, number = f"{day.year:04d}", f"{day.month:02d}", f"{day.day:02d}"
    for mark in ("-", ".", "/", "", " ", "_"):
        yield mark.join((year, month, number))
        yield mark.join((number, month, year))
        yield mark.join((month, number, year))
        if mark:
            yield mark.join((str(day.day), str(day.month), year))
            yield mark.join((str(day.month), str(day.day), year))
    for style in ("%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%d-%b-%Y"):
        yield day.strftime(style)
        yield day.strftime(style).lstrip("0")


def _is_short(text: str) -> bool:
    return len(text) < (_WHOLE_NUMBER if re.fullmatch(r"[\d.,/ -]+", text) else _WHOLE_WORD)


def _cases(text: str) -> Iterator[str]:
    """Cases of letters beyond ASCII, which the search itself does not fold; accents apart from their letters too."""
    yield text
    if not text.isascii():
        for case in (text, text.lower(), text.upper(), text.title(), text.casefold()):
            yield case
            yield unicodedata.normalize("NFD", case)


def _encoded(text: str, how: str, word: bool) -> Iterator[Form]:
    yield _form(text.encode("utf-8", "surrogatepass"), f"{how}UTF-8", word)
    for name in ("utf-16-le", "utf-16-be"):
        yield _form(text.encode(name, "surrogatepass"), f"{how}UTF-16", word, 2)
    if not text.isascii():
        for name in _CHARSETS:
            try:
                yield _form(text.encode(name), f"{how}{name}", word)
            except UnicodeEncodeError:
                continue
        yield _form(json.dumps(text)[1:-1].encode(), f"{how}JSON escapes", False)
        yield _form(text.encode("unicode_escape"), f"{how}escapes", False)
        yield _form("".join(c if c.isascii() else f"&#{ord(c)};" for c in text).encode(), f"{how}entities", False)
        yield _form("".join(c if c.isascii() else f"&#x{ord(c):x};" for c in text).encode(), f"{how}entities", False)
    for quoted in (quote(text, safe=""), quote(text), quote_plus(text), quote(text, safe="^=, /")):
        if quoted != text:
            yield _form(quoted.encode(), f"{how}percent-encoded", False)
    if len(text) >= _WHOLE_WORD:
        yield _form(text.encode("utf-8", "surrogatepass").hex().encode(), f"{how}hexadecimal", False)


def _form(data: bytes, name: str, word: bool, unit: int = 1) -> Form:
    return Form(data.lower(), name, word=word, unit=unit)


def _base64(text: str, how: str) -> Iterator[Form]:
    """The part of the base64 text that does not depend on what stands before and after, at each of three alignments."""
    for charset in ("utf-8", "utf-16-le"):
        data = text.encode(charset, "surrogatepass")
        for lead in range(3):
            whole = base64.b64encode(b"\0" * lead + data).decode().rstrip("=")
            # A character of base64 holds six bits: leave out those that share bits with a neighbour.
            first, last = -(-lead * 8 // 6), (lead + len(data)) * 8 // 6
            core = whole[first:last]
            if len(core) < 7:
                continue
            for spelt in {core, core.translate(str.maketrans("+/", "-_"))}:
                yield Form(spelt.lower().encode(), f"{how}base64", exact=spelt.encode())
