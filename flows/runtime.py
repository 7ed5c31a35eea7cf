"""How flows reach Prefect: the server that `redraft up` started where there is one, otherwise in this process.

Prefect reads its settings when it is imported, so this module is used before the first `import prefect`.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from redraft.errors import ServiceError
from redraft.project import Project

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
}


def api_url(project: Project) -> str | None:
    """URL of a Prefect API that answers: the configured one, else the one `redraft up` started; None when neither."""
    from redraft.services.local import service_url

    for url in (project.config.services.prefect, service_url(project, "prefect")):
        if url and _answers(url):
            return url
    return None


@contextmanager
def prefect_for(project: Project, *, verbose: bool = False) -> Iterator[str]:
    """Point Prefect at the project's server or at a throw-away one of its own; yields which.

    Prefect's own settings and database stay inside the project's `.redraft`, never in the user's home.
    """
    url = api_url(project)
    os.environ.update(QUIET)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
    if not verbose:
        # The caller says what went wrong; a server still gets the error with its trace.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if url is not None:
        os.environ["PREFECT_API_URL"] = url
    elif "prefect" not in sys.modules:
        os.environ.pop("PREFECT_API_URL", None)
        os.environ["PREFECT_HOME"] = str(project.state / "prefect-local")
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # Without a server nobody watches heartbeats, and waiting for their thread costs 0.9 s a flow.
    settings = {} if url else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    from httpx import HTTPError
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with temporary_settings(settings):
            yield url or "in-process"
    except (PrefectHTTPStatusError, HTTPError) as error:
        raise _prefect_failed(url, str(error).splitlines()[0]) from error
    except RuntimeError as error:
        if "Prefect API server" not in str(error):
            raise
        raise _prefect_failed(url, str(error).splitlines()[0]) from error


def _prefect_failed(url: str | None, why: str) -> ServiceError:
    place = f"the server at {url}" if url else "this process"
    do = "Look at its log (`redraft up` keeps it in .redraft)" if url else "Look for a full disk or no memory left"
    return ServiceError(
        f"Prefect in {place} does not do it: {why}",
        f"{do}, then run the command again; it goes on where it stopped.",
        code="service.prefect",
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
