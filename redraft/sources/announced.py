"""A series that did not arrive as its source had announced it, said in the same words and counts by every source."""

from __future__ import annotations

from collections.abc import Mapping

from redraft.errors import TransferError
from redraft.sources.protocol import Offer


def not_as_announced(
    source: str, offer: Offer, announced: int, arrived: int, *, rule: str = "incomplete_transfer",
    why: str = "not every instance came", do: str, measured: Mapping[str, object] | None = None,
) -> TransferError:  # fmt: skip
    """What to raise; the receipt gets the counts `announced` (0: the source did not say) and `arrived`.

    Parameters
    ----------
    source : str
        Its name in project.yaml.
    measured : mapping, optional
        What else was counted.
    """
    return TransferError(
        f"Series {offer.series_id} of source {source}: {why} ({arrived} of {announced or 'an unknown number'}).",
        do, rule=rule, measured={"announced": announced, "arrived": arrived, **(measured or {})},
    )  # fmt: skip
