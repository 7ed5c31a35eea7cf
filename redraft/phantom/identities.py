"""Invented people. Nobody here exists; the names are there so that de-identification has something to find."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

# DICOM person names: alphabetic=ideographic=phonetic (PS3.5 6.2.1), as scanners of several countries send them.
PEOPLE = (
    ("F", "Abendroth^Leopoldine"),
    ("M", "Quintavalle^Ambrosio"),
    ("F", "Szczepańska^Małgorzata"),
    ("F", "Østerhagen^Bjørghild"),
    ("M", "Kowalczyk-Reyes^Ignatius^Peregrin"),
    ("F", "Dragoumis^Xanthippe"),
    ("M", "Fitzwarren^Peregrine^^^OBE"),
    ("F", "Otsuki^Harumi=大槻^春海子=おおつき^はるみこ"),
    ("F", "Petrenkova^Lyudmila=Петренкова^Людмила"),
    ("M", "Haddad-Mansour^Zubayr=حداد منصور^زبير"),
    ("M", "Nwankwo^Chidiebere"),
    ("F", "Žižková^Květoslava"),
    ("M", "Papathanasiou^Aristoteles=Παπαθανασίου^Αριστοτέλης"),
    ("M", "Yamanouchi^Shigenobu=山之内^重信朗=やまのうち^しげのぶろう"),
)
DOCTORS = ("Vandersloot^Cornelia^^Dr", "Ravensbourne^Tiberius^^Prof", "Okonjo^Adaezeline^^Dr")
STREETS = ("Imaginary Lane", "Nonesuch Embankment", "Vermutliche Gasse", "Rue Inexistante")


@dataclass(frozen=True)
class Identity:
    """What a scanner would write about one invented patient."""

    name: str
    patient_id: str
    birth_date: str
    sex: str
    physician: str
    operator: str
    institution: str
    accession: str
    phone: str
    address: str
    station: str
    device_serial: str

    @property
    def plain_name(self) -> str:
        """The name as somebody would type it into a free-text field."""
        return " ".join(part for part in self.name.split("=")[0].split("^") if part)

    @property
    def family(self) -> str:
        return self.name.split("^")[0]

    def planted(self) -> list[str]:
        """Every string that must never leave the vault.

        Values as they stand in the headers, and the single parts of persons' names, for a leak often carries only one.
        """
        names = (self.name, self.physician, self.operator)
        parts = {part for name in names for part in re.split(r"[\^=]", name) if len(part) > 4 or not part.isascii()}
        values = {
            self.patient_id, self.birth_date, self.physician, self.operator, self.institution, self.accession,
            self.phone, self.address, self.station, self.device_serial, self.plain_name,
        }  # fmt: skip
        return sorted(parts | values)


def draw_identity(rng: np.random.Generator, number: int, accession: str) -> Identity:
    """One invented patient; `number` keeps patient ids distinct, `accession` is the order's and differs by exam."""
    sex, name = PEOPLE[int(rng.integers(len(PEOPLE)))]
    return Identity(
        name=name,
        patient_id=f"PHM-{number:04d}-{int(rng.integers(10_000, 100_000))}",
        birth_date=f"{int(rng.integers(1931, 1996))}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}",
        sex=sex,
        physician=DOCTORS[int(rng.integers(len(DOCTORS)))],
        operator="Tannenwald^Hieronymus",
        institution="St. Phantasma Teaching Hospital",
        accession=accession,
        phone=f"+00 555 {int(rng.integers(10**6, 10**7))}",
        address=f"{int(rng.integers(100, 1000))} {STREETS[int(rng.integers(len(STREETS)))]}",
        station="PHANTASMA-CT03",
        device_serial=f"SN-PHM-{81_000_000 + 7 * (number % 2)}",
    )
