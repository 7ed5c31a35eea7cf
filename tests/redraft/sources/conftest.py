"""What the tests of every source share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from redraft.config.base import SecretRef
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.security.secrets import read_secret
from redraft.sources.protocol import SourceContext


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., SourceContext]:
    """Makes what a source is given, for a project folder in the test's own: ``context(env={...})``."""

    def make(env: Mapping[str, str] = os.environ) -> SourceContext:
        project = tmp_path / "project"
        project.mkdir(exist_ok=True)

        def secret(reference: SecretRef) -> str:
            return read_secret(reference, env, project)

        return SourceContext(
            pseudonyms=Pseudonyms(KeyRing.published_demo()),
            secret=secret,
            project=project,
            inbox=tmp_path / "inbox",
        )

    return make
