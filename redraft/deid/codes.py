"""Code sequence items (PS3.3 8.8): published codes in their scheme's own words."""

from __future__ import annotations

from functools import lru_cache

from pydicom.dataset import Dataset

from redraft.deid import values

CODE_PARTS = frozenset((0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080119, 0x00080120, 0x0008010F, 0x00080105))


def is_code(ds: Dataset) -> bool:
    return any(tag in ds for tag in (0x00080100, 0x00080104, 0x00080119, 0x00080120))


@lru_cache(maxsize=1024)
def _meaning(scheme: str, value: str) -> str:
    return values.code_meaning(scheme, value)


def code_item(scheme: str, value: str) -> Dataset:
    """A code sequence item. Raises Unreadable for what is no published code."""
    item = Dataset()
    meaning = _meaning(scheme, value)
    item.add_new(0x00080100, "SH", value)
    item.add_new(0x00080102, "SH", scheme)
    item.add_new(0x00080104, "LO", meaning)
    return item
