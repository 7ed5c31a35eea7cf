from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from redraft.config.sources import ReceiveSource
from redraft.errors import ConfigError, ServiceError
from redraft.phantom import write_phantom
from redraft.sources.dimse import DimseSource
from redraft.sources.receive.inbox import InboxSource
from redraft.sources.receive.receiver import receiving
from tests.servers.dimse import NAMES, by_uid, certificates, free_port, pacs, port_of, wait_until
from tests.servers.orthanc import Orthanc, running_orthanc


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, 2, seed=3)
    return sorted((folder / "images").rglob("*.dcm"))


@pytest.fixture
def loaded(orthanc: Orthanc, phantom: list[Path]) -> Orthanc:
    orthanc.clear()
    orthanc.put(phantom)
    return orthanc


def introduce(loaded: Orthanc, source: DimseSource) -> None:
    """Make us known to the PACS."""
    loaded.add_modality("redraft", "REDRAFT", port_of(source))


def test_series_of_a_pacs_arrive_as_they_are_there(loaded: Orthanc, phantom: list[Path], tmp_path: Path) -> None:
    """C-ECHO, C-FIND and C-MOVE of a real PACS: announced counts are right, each dataset equals the original."""
    source = pacs(loaded.dicom_port, loaded.ae_title, retry={"attempts": 2, "timeout_seconds": 20})
    introduce(loaded, source)
    source.echo()
    offers = list(source.discover())
    originals = by_uid(phantom)
    expected: dict[str, int] = {}
    for ds in originals.values():
        key = NAMES.series_id(ds.SeriesInstanceUID)
        expected[key] = expected.get(key, 0) + 1
    assert {offer.series_id: offer.files for offer in offers} == expected and len(offers) == 2
    assert [offer.version for offer in offers] == [offer.version for offer in source.discover()]
    for offer in offers:
        paths = source.fetch(offer, tmp_path / offer.series_id)
        assert len(paths) == offer.files and {path.stat().st_mode & 0o777 for path in paths} == {0o600}
        for uid, ds in by_uid(paths).items():
            assert ds == originals.pop(uid)
        before = {path: path.stat().st_mtime_ns for path in paths}
        assert source.fetch(offer, tmp_path / offer.series_id) == paths, "whole already"
        assert before == {path: path.stat().st_mtime_ns for path in paths}
    assert not originals


def test_a_folder_that_is_half_full_is_completed(loaded: Orthanc, tmp_path: Path) -> None:
    """What an interrupted fetch left is completed; what does not belong there any more goes."""
    source = pacs(loaded.dicom_port, loaded.ae_title, retry={"attempts": 2, "timeout_seconds": 20})
    introduce(loaded, source)
    offer = next(source.discover())
    paths = source.fetch(offer, tmp_path)
    contents = {path: path.read_bytes() for path in paths}
    for path in paths[::2]:
        path.unlink()
    (tmp_path / ".partial-x-1").write_bytes(b"cut")
    (tmp_path / "2.25.1.dcm").write_bytes(paths[1].read_bytes())
    assert source.fetch(offer, tmp_path) == paths
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == contents


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"modalities": ["CT"]}, 2),
        ({"modalities": ["MR", "CT"]}, 2),
        ({"modalities": ["MR"]}, 0),
        ({"dates": ["1900-01-01", "1900-12-31"]}, 0),
        ({"dates": ["1900-01-01", None]}, 2),
        ({"study_description": "*"}, 2),
        ({"series_description": "no such*"}, 0),
    ],
)
def test_only_wanted_series_of_a_pacs_are_offered(loaded: Orthanc, wanted: dict[str, Any], count: int) -> None:
    """Conditions of project.yaml reach a real PACS as keys that it understands."""
    source = pacs(loaded.dicom_port, loaded.ae_title, wanted, retry={"timeout_seconds": 20})
    assert len(list(source.discover())) == count


def test_texts_match_without_case(loaded: Orthanc, phantom: list[Path]) -> None:
    """A PACS that compares with case still gives what a pattern in other case means."""
    first = pydicom.dcmread(phantom[0])
    text = str(first.get("StudyDescription") or "")
    assert text, "the phantom has study descriptions"
    for pattern in (text.upper(), text.lower(), f"{text[:3].swapcase()}*"):
        source = pacs(loaded.dicom_port, loaded.ae_title, {"study_description": pattern}, retry={"timeout_seconds": 20})
        assert list(source.discover()), pattern


def test_accession_numbers_come_from_a_list(loaded: Orthanc, phantom: list[Path], tmp_path: Path) -> None:
    """One query for each number of the list; others are not offered."""
    first = pydicom.dcmread(phantom[0])
    (tmp_path / "list.txt").write_text(f"# wanted\n{first.AccessionNumber}\nNONE-SUCH\n")
    source = pacs(
        loaded.dicom_port, loaded.ae_title, {"accessions": str(tmp_path / "list.txt")}, retry={"timeout_seconds": 20}
    )
    assert [offer.series_id for offer in source.discover()] == [NAMES.series_id(first.SeriesInstanceUID)]


def test_a_pacs_that_does_not_know_us(loaded: Orthanc, tmp_path: Path) -> None:
    """The error says which AE title, and where the PACS must send to."""
    source = pacs(loaded.dicom_port, loaded.ae_title, ae_title="NOBODY", retry={"attempts": 1, "timeout_seconds": 20})
    with pytest.raises(ServiceError, match=r"NOBODY at this machine's address"):
        source.fetch(next(source.discover()), tmp_path)


def test_a_pacs_stores_into_the_receiver(loaded: Orthanc, phantom: list[Path], tmp_path: Path) -> None:
    """C-STORE from a real PACS: each dataset in the inbox equals the original, and its series are offered."""
    section = ReceiveSource.model_validate(
        {"kind": "receive", "name": "in", "port": 0, "bind": "127.0.0.1", "quiet_seconds": 0,
         "allow": [{"ae_title": loaded.ae_title, "host": "localhost"}]}
    )  # fmt: skip
    inbox = tmp_path / "inbox"
    with receiving(section, inbox, tmp_path / "project", NAMES, Path) as running:
        loaded.add_modality("receiver", "REDRAFT", running.address[1])
        loaded.rest("POST", "modalities/receiver/echo", json={})
        loaded.rest("POST", "modalities/receiver/store", json=loaded.get("studies"))
        # Orthanc keeps its association for later jobs; ending the receiver would break it.
        loaded.rest("PUT", "modalities/receiver", json={"AET": "REDRAFT", "Host": "127.0.0.1", "Port": free_port()})
        wait_until(
            lambda: "open" not in {w.state for w in InboxSource(section, inbox).waiting()}, "the association's release"
        )
        offers = list(InboxSource(section, inbox).discover())
    assert len(offers) == 2
    stored = by_uid(list(inbox.glob("[0-9a-f]*/*.dcm")))
    assert stored == by_uid(phantom)


def test_over_tls_with_a_real_pacs(phantom: list[Path], tmp_path: Path) -> None:
    """C-FIND and C-MOVE over TLS, both sides with certificates of one authority; without ours we do not get in."""
    pki = certificates(tmp_path / "pki")
    options = {
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(pki / "server.pem"),
        "DicomTlsPrivateKey": str(pki / "server.key"), "DicomTlsTrustedCertificates": str(pki / "ca.pem"),
    }  # fmt: skip
    with running_orthanc(tmp_path / "orthanc", options=options) as server:
        server.put(phantom[:5])
        tls = {"ca": pki / "ca.pem", "certificate": pki / "client.pem", "key": pki / "client.key"}
        retry = {"attempts": 1, "timeout_seconds": 20}
        source = pacs(server.dicom_port, server.ae_title, tls=tls, retry=retry, host="localhost")
        server.add_modality("redraft", "REDRAFT", port_of(source), UseDicomTls=True)
        (offer,) = source.discover()
        assert by_uid(source.fetch(offer, tmp_path / "got")) == by_uid(phantom[:5])
        with pytest.raises(ServiceError, match="pacs"):
            pacs(server.dicom_port, server.ae_title, retry=retry).echo()
    with pytest.raises(ConfigError, match="certificate of our own"):
        pacs(1, tls={"ca": pki / "ca.pem"})
