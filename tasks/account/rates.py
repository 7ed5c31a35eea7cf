"""Which price applies: role × site × day. A missing price is an error, never a guess."""

from __future__ import annotations

from datetime import date

from redraft.config.schema import Rate, RateCard
from redraft.errors import ConfigError


def rate_for(card: RateCard, role: str, site: str, day: date) -> Rate:
    """The hourly rate of a role at a site on a day: the latest that was valid by then.

    Raises
    ------
    ConfigError
        The card has no such role and site, only later ones, or two with one date.
    """
    of_role = [rate for rate in card.rates if rate.role == role and rate.site == site]
    valid = [rate for rate in of_role if rate.valid_from <= day]
    if not valid:
        known = ", ".join(sorted({f"{rate.role} at {rate.site} from {rate.valid_from}" for rate in card.rates}))
        raise ConfigError(
            f"Rate card {card.version} has no rate for role `{role}` at site `{site}` on {day.isoformat()}.",
            f"Add one to rates.yaml; it has: {known}.",
            code="config.rate_missing",
        )
    latest = max(rate.valid_from for rate in valid)
    chosen = [rate for rate in valid if rate.valid_from == latest]
    if len(chosen) > 1:
        raise ConfigError(
            f"Rate card {card.version} has {len(chosen)} rates for role `{role}` at site `{site}` from {latest}.",
            "Keep one of them.",
            code="config.rate_twice",
        )
    return chosen[0]


def check_currency(card: RateCard, currency: str) -> None:
    """Raise ConfigError when the card's currency is not the project's: redraft converts no money."""
    if card.currency != currency:
        raise ConfigError(
            f"Rate card {card.version} is in {card.currency}, the project's money is {currency}.",
            "Set both to one currency; amounts are never converted.",
            code="config.currency",
        )
