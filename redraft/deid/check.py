"""Proof that nothing of a list of identifiers is left in a project: what was searched, found, and could not be read.

A finding names the identifier by its number in the list only; the report must be as clean as the project should be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redraft.deid.contents import Contents
from redraft.deid.forms import SHORTEST
from redraft.deid.matcher import Matcher
from redraft.errors import UsageError
from redraft.security.vault import Vault

_FOREIGN = 6  # bytes in UTF-8: two ideographs are a name, two letters are not
# What a link says of where a file lay, not who somebody is: paths, and the name of a source (see CONFIGURED).
_PATHS = frozenset(("folder", "file"))
# A source's name in project.yaml, kept in receipts and in the ledger on purpose; "folder" and "archive" are words, too.
CONFIGURED = "source"


@dataclass(frozen=True)
class Identifiers:
    """What must not be found: text by ordinal (line of the file, or place in the vault's list)."""

    texts: tuple[tuple[int, str], ...] = field(repr=False)
    too_short: tuple[int, ...]
    source: str

    @property
    def count(self) -> int:
        return len(self.texts) + len(self.too_short)

    @classmethod
    def of(cls, lines: Iterable[tuple[int, str]], source: str) -> Identifiers:
        kept, short, seen = [], [], set()
        for number, line in lines:
            text = line.strip()
            if not text or text in seen:
                continue
            seen.add(text)
            if len(bare := text.strip("^=. ")) < SHORTEST and len(bare.encode()) < _FOREIGN:
                short.append(number)
            else:
                kept.append((number, text))
        return cls(tuple(kept), tuple(short), source)

    @classmethod
    def read(cls, path: Path) -> Identifiers:
        """One identifier per line, or a JSON list of texts; UTF-8.

        Raises UsageError when the file cannot be read or holds none.
        """
        try:
            lines = _lines(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise UsageError(
                f"The list of identifiers cannot be read ({error.strerror}).", "Check --against."
            ) from None
        except UnicodeDecodeError:
            raise UsageError("The list of identifiers is no UTF-8 text.", "Save it as UTF-8.") from None
        found = cls.of(enumerate(lines, 1), "list")
        if not found.count:
            raise UsageError("The list of identifiers is empty.", "Write one identifier per line.")
        return found

    @classmethod
    def from_vault(cls, vault: Vault, known_paths: Sequence[str] = ()) -> Identifiers:
        """Everything the vault's link table knows, and the parts of persons' names.

        `known_paths` are texts in which paths stand on purpose (project.yaml): paths found there are left out.
        """
        texts: dict[str, None] = {}
        for link in vault.links():
            for kind, value in link["identity"].items():
                if kind == CONFIGURED:
                    continue
                for text in _from_paths(str(value), known_paths) if kind in _PATHS else _from_value(kind, str(value)):
                    texts.setdefault(text)
        for original in vault.originals():
            for text in _from_paths(original.source, known_paths):
                texts.setdefault(text)
        found = cls.of(enumerate(texts, 1), "vault")
        if not found.count:
            raise UsageError("The vault knows nobody yet: there is nothing to look for.", "Take exams in first.")
        return found


def _lines(text: str) -> list[str]:
    """A JSON list read as lines would be looked for with its quotation marks, and never found."""
    try:
        content = json.loads(text) if text.lstrip().startswith(("[", "{")) else None
    except ValueError:  # an identifier may begin with a bracket
        return text.splitlines()
    if content is None:
        return text.splitlines()
    if not (isinstance(content, list) and all(isinstance(one, str) for one in content)):
        raise UsageError("The list of identifiers is JSON, but no list of texts.", "Write one identifier per line.")
    return content


def _from_value(kind: str, value: str) -> Iterator[str]:
    yield value
    if "name" in kind.lower():
        yield from (
            part for part in re.split(r"[\^=,\s]+", value) if len(part) > SHORTEST or len(part.encode()) >= _FOREIGN
        )


def _from_paths(value: str, known: Sequence[str]) -> Iterator[str]:
    """A path as a whole; not where the project's own configuration names it."""
    if len(value) >= SHORTEST and not any(value in text for text in known):
        yield value


@dataclass
class Finding:
    """One identifier in one place and form, however often it stands there."""

    identifier: int
    place: str
    form: str
    offset: int
    times: int = 1

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass
class Report:
    """What a check saw. `ok` when all was read, every identifier could be looked for, and none was found."""

    identifiers: int
    searched: dict[str, int]
    found: list[Finding]
    not_read: list[tuple[str, str]]
    not_checkable: tuple[int, ...]

    @property
    def ok(self) -> bool:
        return not (self.found or self.not_read or self.not_checkable)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "identifiers": self.identifiers,
            "searched": self.searched,
            "found": [finding.to_dict() for finding in self.found],
            "not_read": [{"place": place, "why": why} for place, why in self.not_read],
            "not_checkable": list(self.not_checkable),
        }


def check(paths: Sequence[Path], identifiers: Identifiers) -> Report:
    """Look for identifiers in everything below some paths."""
    matcher = Matcher(identifiers.texts)
    found: dict[tuple[int, str, str], Finding] = {}
    not_read: list[tuple[str, str]] = []
    bytes_read = 0

    def emit(place: str, blocks: Iterator[bytes], *, numeric: bool = False) -> None:
        nonlocal bytes_read

        def counted() -> Iterator[bytes]:
            nonlocal bytes_read
            for block in blocks:
                bytes_read += len(block)
                yield block

        for hit in matcher.stream(counted(), numeric=numeric):
            key = (hit.identifier, place, hit.form)
            if key in found:
                found[key].times += 1
                found[key].offset = min(found[key].offset, hit.offset)
            else:
                found[key] = Finding(hit.identifier, place, hit.form, hit.offset)

    contents = Contents(emit, lambda place, why: not_read.append((place, why)))
    for path in paths:
        contents.tree(path)
    for finding in found.values():
        finding.place = masked(matcher, finding.place)
    return Report(
        identifiers.count,
        {**contents.counts, "bytes unpacked": bytes_read},
        sorted(found.values(), key=lambda item: (item.place, item.identifier, item.form)),
        [(masked(matcher, place), why) for place, why in not_read],
        identifiers.too_short,
    )


def masked(matcher: Matcher, place: str) -> str:
    """A place without the identifiers in it: a report of what leaked must not leak it again."""
    data = place.encode("utf-8", "surrogateescape")
    spans = [(hit.offset, hit.offset + size, hit.identifier) for hit, size in matcher.spans(data)]
    for start, end, identifier in _merged(spans):
        data = data[:start] + f"[identifier {identifier}]".encode() + data[end:]
    return data.decode("utf-8", "backslashreplace")


def _merged(spans: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Spans from the last to the first, overlapping ones joined."""
    out: list[tuple[int, int, int]] = []
    for start, end, identifier in sorted(spans):
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]), out[-1][2])
        else:
            out.append((start, end, identifier))
    return out[::-1]
