"""Money: exact decimals, rounded in two named places and nowhere else.

- A cost entry (what the ledger keeps) has six decimals, because storing one exam for a year costs a fraction of a cent.
- A reported amount has two decimals. A reported total is the sum of its reported parts, so that columns add up to the
  cent; it may differ from the exact total by at most half a cent per part.

Both round half to even (ROUND_HALF_EVEN), so that halves do not drift upwards. JSON holds money as text.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

CENT = Decimal("0.01")
MICRO = Decimal("0.000001")


def to_cent(amount: Decimal | float) -> Decimal:
    """Two decimals, for reports."""
    return exact(amount).quantize(CENT, rounding=ROUND_HALF_EVEN)


def to_micro(amount: Decimal) -> Decimal:
    """Six decimals, for entries."""
    return amount.quantize(MICRO, rounding=ROUND_HALF_EVEN)


def exact(value: Decimal | float) -> Decimal:
    """A measured number (minutes, seconds) as the decimal that Python prints for it, not its binary expansion."""
    return value if isinstance(value, Decimal) else Decimal(repr(value))
