"""What a DICOMweb server says of a series, as far as it tells one state of the series from another."""

from __future__ import annotations

from typing import Any

import pytest

from redraft.sources.dicomweb.qido import told

SERIES = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "0020000E": {"vr": "UI", "Value": ["1.2.3.4"]},
    "0008103E": {"vr": "LO", "Value": ["portal venous"]},
    "00201209": {"vr": "IS", "Value": [120]},
}


def marked(creator: str, number: str, moment: str, block: str = "10") -> dict[str, Any]:
    return {
        **SERIES,
        f"777700{block}": {"vr": "LO", "Value": [creator]},
        f"7777{block}{number}": {"vr": "DT", "Value": [moment]},
    }


@pytest.mark.parametrize(
    ("tag", "value"), [("0008103E", "arterial"), ("00201209", 121), ("0020000D", "1.2.9"), ("00080021", "20260101")]
)
def test_what_describes_a_series_is_part_of_its_state(tag: str, value: object) -> None:
    """Another count, description, study or date is another state."""
    assert told({**SERIES, tag: {"vr": "LO", "Value": [value]}}) != told(SERIES)


@pytest.mark.parametrize("tag", ["00080056", "00081190", "00201206", "00201208"])
def test_what_changes_by_itself_is_not(tag: str) -> None:
    """Availability, URLs and counts of the study change while the series stays as it is."""
    assert told({**SERIES, tag: {"vr": "LO", "Value": ["x"]}}) == told(SERIES)


@pytest.mark.parametrize("number", ["31", "6F"])
@pytest.mark.parametrize("block", ["10", "1F"])
def test_a_change_that_dcm4chee_tells_is_seen(number: str, block: str) -> None:
    """As many instances, all else alike, changed later: another state, whichever block the attributes lie in."""
    first, second = (marked("DCM4CHEE Archive 5", number, moment, block) for moment in ("20260101", "20260102"))
    assert len({told(SERIES), told(first), told(second)}) == 3


@pytest.mark.parametrize(("creator", "number"), [("ACME 1.1", "31"), ("DCM4CHEE Archive 5", "22")])
def test_other_private_attributes_mean_nothing(creator: str, number: str) -> None:
    """The same numbers under another creator, and times of access, are no change."""
    assert told(marked(creator, number, "20260101")) == told(marked(creator, number, "20260102"))
