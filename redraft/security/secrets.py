"""Secrets that project.yaml refers to: read when they are needed, never kept, never shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from redraft.config.base import SecretRef
from redraft.errors import SecurityError


def read_secret(reference: SecretRef, env: Mapping[str, str], project_dir: Path) -> str:
    """The secret's text: the variable's value, or the file's content without the line end.

    Raises SecurityError when it is not there, is empty, or lies inside the project directory (that gets published).
    """
    if reference.env is not None:
        value = env.get(reference.env, "")
        if not value:
            raise SecurityError(f"The environment variable {reference.env} is not set.", "Set it to the secret.")
        return value
    assert reference.file is not None
    path = (project_dir / reference.file.expanduser()).resolve()
    if path.is_relative_to(project_dir.resolve()):
        raise SecurityError(f"The secret {path} lies inside the project.", "Move it out: the project gets published.")
    try:
        value = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SecurityError(f"The secret {path} cannot be read.", "Check the path and its permissions.") from error
    if not value:
        raise SecurityError(f"The secret {path} is empty.", "Write the secret into it.")
    return value
