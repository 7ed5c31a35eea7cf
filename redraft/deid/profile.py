"""The table of PS3.15 (E.1-1) as the package dicom-anonymizer ships it, pinned to one edition, and types from PS3.3.

Combined actions (X/Z, X/D, X/Z/D, Z/D, X/Z/U*) depend on the type that an attribute has in the object's IOD. highdicom
ships the modules' attributes; where it does not know the attribute, the stricter reading holds: remove before empty,
empty before dummy.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from redraft.digest import sha256_json
from redraft.errors import IntegrityError

EDITION = "2026c"
PROFILE = "PS3.15 E.2 Basic Application Confidentiality Profile"
# Digest of the table by which the rules in this package were reviewed.
TABLE_SHA256 = "fb5cdd83b1b9e95b88a0ad8ffb8fcb17320fa236ba63906b00b7de25ca269e94"
_MODULE = f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{EDITION}"


class Action(StrEnum):
    """Action codes of table E.1-1a."""

    D = "D"
    Z = "Z"
    X = "X"
    U = "U"
    ZD = "Z/D"
    XZ = "X/Z"
    XD = "X/D"
    XZD = "X/Z/D"
    XZU = "X/Z/U*"


_LISTS = {
    "D_TAGS": Action.D, "Z_TAGS": Action.Z, "X_TAGS": Action.X, "U_TAGS": Action.U, "Z_D_TAGS": Action.ZD,
    "X_Z_TAGS": Action.XZ, "X_D_TAGS": Action.XD, "X_Z_D_TAGS": Action.XZD, "X_Z_U_STAR_TAGS": Action.XZU,
}  # fmt: skip


@lru_cache(maxsize=1)
def _entries() -> tuple[tuple[int, int, str], ...]:
    """(tag, mask, action) of every row; the mask leaves out the repeating groups' free digits."""
    module = importlib.import_module(_MODULE)
    rows = []
    for name, action in _LISTS.items():
        for entry in getattr(module, name):
            tag = (entry[0] << 16) | entry[1]
            mask = (entry[2] << 16) | entry[3] if len(entry) == 4 else 0xFFFFFFFF
            rows.append((tag, mask, str(action)))
    return tuple(sorted(rows))


def table_digest() -> str:
    """SHA-256 of the table as installed."""
    return sha256_json([list(row) for row in _entries()])


@lru_cache(maxsize=1)
def table() -> dict[int, Action]:
    """Action of every listed attribute (repeating groups apart).

    Raises IntegrityError when the installed table is not the one that the rules were reviewed with.
    """
    if table_digest() != TABLE_SHA256:
        raise IntegrityError(
            f"The installed table of PS3.15 E.1-1 ({EDITION}) is not the one these rules were reviewed with.",
            "Install the version of dicom-anonymizer that constraints.txt names.",
        )
    return {tag: Action(action) for tag, mask, action in _entries() if mask == 0xFFFFFFFF}


def repeating(tag: int) -> bool:
    """Whether a tag belongs to a repeating group (curves 50xx, overlays 60xx): always removed."""
    return (tag >> 24) in (0x50, 0x60)


# -- types of attributes (PS3.3) --------------------------------------------------------------------------------------
_RANK = {"1": 1, "1C": 1, "2": 2, "2C": 2, "3": 3}


@lru_cache(maxsize=1)
def _standard() -> tuple[dict[str, str], dict[str, list[dict[str, str]]], dict[str, list[dict[str, object]]]]:
    # The JSON files are read from the package's folder: importing highdicom takes seconds and would load what we
    # do not need here.
    spec = find_spec("highdicom")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations))) / "_standard"
    names = ("sop_class_iod_map", "iod_module_map", "module_attribute_map")
    classes, modules, attributes = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in names)
    return classes, modules, attributes


@lru_cache(maxsize=32)
def attribute_types(sop_class: str) -> dict[tuple[str, ...], int]:
    """Type of each attribute of an IOD, by its path of keywords: 1 required, 2 may be empty, 3 optional.

    Conditional types count as unconditional ones (the condition cannot be judged here); of several modules the most
    demanding counts. Empty for a SOP class that is not known.
    """
    classes, modules, attributes = _standard()
    types: dict[tuple[str, ...], int] = {}
    for module in modules.get(classes.get(sop_class, ""), ()):
        for row in attributes[module["key"]]:
            path = (*row["path"], row["keyword"])  # type: ignore[misc]
            rank = _RANK[str(row["type"])]
            types[path] = min(rank, types.get(path, 3))
    return types


def type_of(sop_class: str, path: Sequence[str]) -> int:
    """1, 2 or 3; 3 for what the IOD does not list."""
    return attribute_types(sop_class).get(tuple(path), 3)
