"""Invented people. Nobody here exists; the names are there so that de-identification has something to find."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

FAMILY = ("Abendroth", "Quintavalle", "Szczepański", "Østerhagen", "Kowalczyk-Reyes", "Dragoumis", "Fitzwarren",
          "Ōtsuki", "Петренкова", "Haddad-Mansour", "Nwankwo", "Žižková")  # fmt: skip
GIVEN = ("Leopoldine", "Ambrosio", "Małgorzata", "Bjørg", "Ignatius", "Xanthippe", "Peregrin", "Harumi", "Людмила",
         "Zubaida", "Chidiebere", "Květoslava")  # fmt: skip
DOCTORS = ("Vandersloot^Cornelia^^Dr", "Ravensbourne^Tiberius^^Prof", "Okonjo^Adaeze^^Dr")


@dataclass(frozen=True)
class Identity:
    """What a scanner would write about one invented patient."""

    name: str
    patient_id: str
    birth_date: str
    sex: str
    physician: str
    institution: str
    accession: str
    phone: str

    def planted(self) -> list[str]:
        """Every string that must never leave the vault."""
        parts = [part for part in self.name.split("^") if part]
        return [*parts, *(value for key, value in asdict(self).items() if key not in ("sex", "name", "institution"))]


def draw_identity(rng: np.random.Generator, number: int) -> Identity:
    """One invented patient; `number` keeps patient ids distinct."""
    family = FAMILY[int(rng.integers(len(FAMILY)))]
    given = GIVEN[int(rng.integers(len(GIVEN)))]
    return Identity(
        name=f"{family}^{given}",
        patient_id=f"PHM-{number:04d}-{int(rng.integers(10_000, 99_999))}",
        birth_date=f"{int(rng.integers(1931, 1996))}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}",
        sex="FM"[int(rng.integers(2))],
        physician=DOCTORS[int(rng.integers(len(DOCTORS)))],
        institution="St. Phantasma Teaching Hospital",
        accession=f"ACC{int(rng.integers(10**9, 10**10))}",
        phone=f"+00 555 {int(rng.integers(10**6, 10**7))}",
    )
