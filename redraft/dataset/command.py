"""Running git and DVC: argument lists, no shell, no prompts, errors with the tool's own words."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from redraft.errors import VersioningError

_ENV = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_AUTHOR_NAME": "redraft",
    "GIT_AUTHOR_EMAIL": "redraft@localhost",
    "GIT_COMMITTER_NAME": "redraft",
    "GIT_COMMITTER_EMAIL": "redraft@localhost",
    "DVC_NO_ANALYTICS": "1",
    "SSH_ASKPASS_REQUIRE": "never",
    "LC_ALL": "C.UTF-8",
}
# A git hook that calls redraft exports these; inherited, they would send a project's commits to another repository.
_FOREIGN = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT",
    "GIT_QUARANTINE_PATH", "GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE", "DVC_ROOT", "DVC_STAGE",
)  # fmt: skip
_GRACE_SECONDS = 5.0


def run(
    command: Sequence[str],
    cwd: Path,
    *,
    do: str,
    code: str,
    allow: Sequence[int] = (0,),
    timeout: float = 3600,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a session of its own, without a terminal: nothing can stop and ask.

    Parameters
    ----------
    do : str
        What the user can do when it fails.
    code : str
        Code of the error when it fails.
    allow : sequence of int
        Exit codes that are answers, not failures.
    timeout : float
        Seconds.
    env : mapping, optional
        Further environment variables.

    Raises
    ------
    VersioningError
        With the last lines of what the command said, credentials in URLs blanked.
    """
    full = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    # Above the project nothing is looked at: a project that lost its .git must not commit to the repository around it.
    full |= {**_ENV, "GIT_CEILING_DIRECTORIES": str(cwd.resolve().parent), **(env or {})}
    name = " ".join(_spoken(command)[:2])
    try:
        process = subprocess.Popen(
            command, cwd=cwd, env=full, text=True, errors="replace", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        if not cwd.is_dir():
            raise VersioningError(f"The project directory {cwd} is gone.", "Bring it back.", code=code) from error
        raise VersioningError(f"{command[0]} is not installed.", "Install it and run the command again.") from error
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _end(process)
        raise VersioningError(f"`{name}` did not end within {timeout:.0f} s.", do, code=code, retry=True) from error
    except BaseException:  # Ctrl-C: git and DVC remove their locks when they are asked to end
        _end(process)
        raise
    if process.returncode not in allow:
        said = [line for line in (err.strip() or out.strip()).splitlines() if line.strip()][-6:]
        text = " / ".join(line.strip() for line in said) or f"exit code {process.returncode}"
        raise VersioningError(f"`{name}` failed: {without_credentials(text)}.", do, code=code)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def without_credentials(text: str) -> str:
    """Blank user and password in the URLs of a text."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", text)


def _spoken(command: Sequence[str]) -> list[str]:
    """The command as a person would type it: `git push`, `dvc add data`."""
    words = list(command)
    if len(words) > 2 and words[1] == "-m":
        words = words[2:]
    spoken = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "-c":
            skip = True
        elif not word.startswith(("-", "/")):
            spoken.append(word)
    return spoken


def _end(process: subprocess.Popen[str]) -> None:
    """End a command and its children (its session): asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_GRACE_SECONDS)
            break
        except subprocess.TimeoutExpired:
            continue
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()
