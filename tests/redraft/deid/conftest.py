"""A project's de-identification with the published key."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redraft.config.schema import Deid
from redraft.deid import Deidentifier
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms


@pytest.fixture(scope="session")
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(KeyRing.published_demo())


@pytest.fixture(scope="session")
def deidentifier(pseudonyms: Pseudonyms) -> Deidentifier:
    return Deidentifier(pseudonyms, Deid(), ["liver", "GTV_Mass", "Leber"])


@pytest.fixture(scope="session")
def make(pseudonyms: Pseudonyms) -> Callable[..., Deidentifier]:
    """A de-identifier with other options."""

    def build(names: tuple[str, ...] = (), **options: object) -> Deidentifier:
        return Deidentifier(pseudonyms, Deid(**options), names)  # type: ignore[arg-type]

    return build
