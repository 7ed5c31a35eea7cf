"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
