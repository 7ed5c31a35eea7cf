"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.orthanc import Orthanc
    from tests.servers.s3 import S3

# No service may phone home from a test, and a test never picks up the developer's own project or keys.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DVC_NO_ANALYTICS="1",
    GX_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
)
for name in ("REDRAFT_PROJECT", "REDRAFT_KEYS"):
    os.environ.pop(name, None)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("real images are not here: ../shared/data is absent")
    return SHARED


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A DICOM server of this worker's own, for the whole session: `clear()` it before use. Skips where it is absent."""
    from tests.servers.orthanc import running_orthanc

    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 endpoint over HTTP for the whole session; each test makes a bucket of its own."""
    from tests.servers.s3 import running_s3

    with running_s3() as server:
        yield server
