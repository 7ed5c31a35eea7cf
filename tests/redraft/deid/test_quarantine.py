"""What may show text or a face is set aside; a CT, MR or PET that says nothing about it is normal."""

from __future__ import annotations

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from redraft.config.schema import Deid
from redraft.deid import quarantine_rule
from tests.redraft.deid.objects import ct


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({}, None),
        ({"BurnedInAnnotation": "NO"}, None),
        ({"BurnedInAnnotation": "YES"}, "burned_in_annotation"),
        ({"BurnedInAnnotation": ""}, "burned_in_annotation"),
        ({"RecognizableVisualFeatures": "YES"}, "recognizable_visual_features"),
        ({"RecognizableVisualFeatures": "NO"}, None),
        ({"Modality": "US"}, "modality_with_text"),
        ({"Modality": "us"}, "modality_with_text"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "encapsulated_document"),
        ({"EncapsulatedDocument": b"%PDF"}, "encapsulated_document"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen_capture"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DOSE_INFO"]}, "screen_capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, None),
        ({"ConversionType": "DF"}, "converted_from_picture"),
    ],
)
def test_rules(values: dict[str, object], rule: str | None) -> None:
    """Each sign of text in the pixels has its rule."""
    assert quarantine_rule(ct(**values), Deid()) == rule


def test_modalities_are_the_projects_choice() -> None:
    """A project that reads ultrasound can say so."""
    assert quarantine_rule(ct(Modality="US"), Deid(quarantine_modalities=("SC",))) is None


def test_an_unreadable_sign_counts_as_a_sign() -> None:
    """What cannot be read does not say NO."""
    ds = ct()
    ds[0x00280301] = RawDataElement(Tag(0x00280301), "US", 1, b"\x01", 0, False, True)
    assert quarantine_rule(ds, Deid()) == "burned_in_annotation"
