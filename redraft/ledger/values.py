"""Values as the ledger keeps them: equal values are equal bytes, in the database, in the chain and in JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Any

from sqlalchemy import Boolean, Float, Integer, String, Text, TypeDecorator

from redraft.digest import canonical


class Json(TypeDecorator[Any]):
    """A JSON value as canonical text (RFC 8785), so that equal values are equal bytes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else canonical(value).decode("utf-8")

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        return None if value is None else json.loads(value)


def plain(value: Any) -> Any:
    """A Python value as what the ledger stores and the chain hashes."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("the ledger takes aware datetimes only")
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    raise TypeError(f"the ledger does not take {type(value).__name__}")


def of_type(name: str, kind: Any, value: Any) -> Any:
    """A plain value, if it is of its column's type. Raises TypeError or ValueError."""
    if isinstance(kind, Json):
        try:
            canonical(value)
        except ValueError as error:  # NaN, or a whole number that JSON readers would round
            raise ValueError(f"{name} cannot be JSON: {error}") from error
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(kind, Float) and is_number:
        if not isfinite(value):
            raise ValueError(f"{name} takes finite numbers or None, not {value}")
        return float(value)
    fits = (
        (isinstance(kind, Boolean) and isinstance(value, bool))
        or (isinstance(kind, String) and isinstance(value, str))
        or (type(kind) is Integer and is_number and isinstance(value, int))
    )
    if not fits:
        raise TypeError(f"{name} takes {type(kind).__name__}, not {type(value).__name__}")
    return value
