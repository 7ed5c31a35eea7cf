"""Running git and DVC: argument lists, no shell, no prompts, errors with the tool's own words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from redraft.errors import VersioningError

_ENV = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "redraft",
    "GIT_AUTHOR_EMAIL": "redraft@localhost",
    "GIT_COMMITTER_NAME": "redraft",
    "GIT_COMMITTER_EMAIL": "redraft@localhost",
    "DVC_NO_ANALYTICS": "1",
    "LC_ALL": "C.UTF-8",
}


def run(
    command: Sequence[str], cwd: Path, *, do: str, code: str, allow: Sequence[int] = (0,), timeout: float = 3600
) -> subprocess.CompletedProcess[str]:
    """Run a command. Raises VersioningError with the last lines of what it said.

    Parameters
    ----------
    do : str
        What the user can do when it fails.
    allow : sequence of int
        Exit codes that are answers, not failures.
    """
    env: Mapping[str, str] = {**os.environ, **_ENV}
    name = " ".join(part for part in command[:4] if not part.startswith("/"))
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout
        )
    except FileNotFoundError as error:
        raise VersioningError(f"{command[0]} is not installed.", "Install it and run the command again.") from error
    except subprocess.TimeoutExpired as error:
        raise VersioningError(f"`{name}` did not end within {timeout:.0f} s.", do, retry=True) from error
    if done.returncode not in allow:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-6:]
        raise VersioningError(f"`{name}` failed: {' / '.join(said) or f'exit code {done.returncode}'}.", do, code=code)
    return done
