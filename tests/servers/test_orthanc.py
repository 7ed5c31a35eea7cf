"""The test server itself: what other rooms' tests rely on."""

from __future__ import annotations

from pathlib import Path

import requests

from redraft.phantom import write_phantom
from tests.servers.orthanc import Orthanc


def test_it_holds_what_is_put_and_lets_nobody_in_without_the_password(orthanc: Orthanc, tmp_path: Path) -> None:
    """Files come back byte for byte; without the password nothing does, over REST and DICOMweb alike."""
    write_phantom(tmp_path, 1, seed=5)
    paths = sorted((tmp_path / "images").rglob("*.dcm"))[:3]
    ids = orthanc.put(paths)
    for path, one in zip(paths, ids, strict=True):
        assert orthanc.rest("GET", f"instances/{one}/file").content == path.read_bytes()
    assert len(orthanc.get("dicom-web/series")) >= 1
    for url in (f"{orthanc.url}/system", f"{orthanc.dicomweb_url}/studies"):
        assert requests.get(url, timeout=10).status_code == 401
    orthanc.clear()
    assert orthanc.get("instances") == []


def test_modalities_can_be_made_known_while_it_runs(orthanc: Orthanc) -> None:
    """A destination for C-MOVE is added without a restart."""
    orthanc.add_modality("redraft", "REDRAFT", 11112)
    assert orthanc.get("modalities/redraft/configuration")["AET"] == "REDRAFT"
