"""HTTP sessions with a source: who we are, whom we trust, and what its failures mean, in words without its URLs."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redraft.config.sources import DicomWebSource, Tls
from redraft.errors import SecurityError, ServiceError
from redraft.sources.protocol import SourceContext
from redraft.sources.retry import NotNow

if TYPE_CHECKING:
    import requests

# What may pass when asked again: timeout, too many requests, and every failure on the server's side.
PASSING = {408, 425, 429, 500, 502, 503, 504, 507, 509}

_REFUSALS = {
    401: ("does not accept the login (HTTP 401)", "Check `basic`, `bearer` or `tls` and the secrets they refer to."),
    403: ("does not permit this (HTTP 403)", "Ask its administrator for the right to search, retrieve and store."),
    404: ("has no DICOMweb service at its `url` (HTTP 404)", "Give its root, what stands before /studies."),
    407: ("is behind a proxy that wants a login (HTTP 407)", "Set the proxy's login in HTTPS_PROXY, or NO_PROXY."),
}


class Refusal(Exception):
    """A status that asking again does not change; `status` is 0 where the connection itself was refused for good."""

    def __init__(self, status: int, what: str, do: str):
        super().__init__(what)
        self.status, self.what, self.do = status, what, do

    @classmethod
    def of(cls, status: int) -> Refusal:
        what, do = _REFUSALS.get(
            status, (f"refuses the request (HTTP {status})", "Check that it offers QIDO-RS, WADO-RS and STOW-RS.")
        )
        return cls(status, what, do)

    @classmethod
    def unclear(cls) -> Refusal:
        """An answer that is not what PS3.18 says."""
        return cls(200, "answers, but not as DICOMweb (PS3.18) does", "Check that `url` is the root of its DICOMweb.")

    def as_error(self, name: str) -> ServiceError:
        """For the user; `name` is the source's in project.yaml."""
        return ServiceError(f"The source {name} {self.what}.", self.do, code="service.refused", retry=False)


class Busy(NotNow):
    """A status that may pass."""

    def __init__(self, status: int, after: float | None):
        super().__init__(f"it answered HTTP {status}", after)
        self.status = status


def open_session(section: DicomWebSource, context: SourceContext) -> requests.Session:
    """A session that authenticates as `section` says. Raises SecurityError when a certificate cannot be used."""
    import requests
    from requests.utils import get_environ_proxies

    # The one writes UIDs into the log at every call, the other a stack trace at every failure.
    for name in ("dicomweb_client", "retrying"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").addFilter(_without_resources)

    session = requests.Session()
    # Else ~/.netrc would name another user and REQUESTS_CA_BUNDLE would replace `tls.ca`.
    session.trust_env = False
    session.proxies.update(get_environ_proxies(section.url))
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    session.verify = str(_readable(section.tls, "ca", context)) if section.tls.ca else (bundle or True)
    if section.tls.certificate:
        session.cert = (
            str(_readable(section.tls, "certificate", context)),
            str(_readable(section.tls, "key", context)),
        )
    session.auth = _Authentication(section, context)
    session.headers["Accept"] = "application/dicom+json"
    return session


def _without_resources(record: logging.LogRecord) -> bool:
    """Keep what urllib3 logs of DICOMweb out of the log: paths and queries hold UIDs and accession numbers."""
    message = record.getMessage()
    return not any(resource in message for resource in ("/studies", "/series", "/instances"))


class _Authentication:
    """Reads the secrets for each request: a token that is renewed in its file is used from then on."""

    def __init__(self, section: DicomWebSource, context: SourceContext):
        self._section, self._secret = section, context.secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        from requests.auth import HTTPBasicAuth

        # dicomweb-client sets a Host without the port; without it http.client writes the right one.
        request.headers.pop("Host", None)
        basic, bearer = self._section.basic, self._section.bearer
        if basic is not None:
            user, password = self._secret(basic.user), self._secret(basic.password)
            # requests would encode text as latin-1, which holds few names and passwords.
            HTTPBasicAuth(user.encode(), password.encode())(request)
        elif bearer is not None:
            request.headers["Authorization"] = f"Bearer {self._secret(bearer).strip()}"
        return request


def _readable(tls: Tls, name: str, context: SourceContext) -> Path:
    path = context.resolve(getattr(tls, name))
    try:
        content = path.read_bytes()
    except OSError:
        raise SecurityError(f"`tls.{name}` ({path}) cannot be read.", "Check the path and its permissions.") from None
    if name == "key" and b"ENCRYPTED" in content:  # OpenSSL would ask for the passphrase on the terminal and wait
        raise SecurityError(
            f"`tls.key` ({path}) has a passphrase.", "Store it without one, readable by its owner only (mode 0600)."
        )
    return path


@contextmanager
def answering() -> Iterator[None]:
    """Turn what requests raises into NotNow or Refusal, without its words: they quote URLs, and URLs hold UIDs."""
    import requests
    import urllib3

    try:
        yield
    except requests.HTTPError as error:
        assert error.response is not None
        raise _by_status(error.response) from None
    except requests.Timeout:
        raise NotNow("it did not answer in time") from None
    except (requests.exceptions.JSONDecodeError, requests.exceptions.TooManyRedirects):
        raise Refusal.unclear() from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
        raise Refusal(0, "has a `url` that cannot be used", "Correct it.") from None
    except requests.RequestException as error:
        if _distrust(error):
            raise Refusal(
                0, "and this machine do not trust each other (TLS)",
                "Check `tls.ca` against its certificate, and whether it wants a `tls.certificate` it knows.",
            ) from None  # fmt: skip
        # A server that does not accept our certificate may close before we read why (TLS 1.3 has us speak first).
        secure = error.request is not None and str(error.request.url).startswith("https:")
        why = "the connection broke or was refused"
        raise NotNow(f"{why} (with TLS also for want of a `tls.certificate` it knows)" if secure else why) from None
    except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError):  # requests lets a few through
        raise NotNow("the connection broke or was refused") from None


def check(response: requests.Response) -> None:
    """Raise NotNow or Refusal for a status that is no success."""
    if not response.ok:
        response.close()
        raise _by_status(response)


def _by_status(response: requests.Response) -> Exception:
    status = response.status_code
    return Busy(status, _retry_after(response)) if status in PASSING else Refusal.of(status)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds of Retry-After (RFC 9110 10.2.3), which may also be a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _distrust(error: BaseException) -> bool:
    """Whether certificates are behind a failed connection, which asking again does not change."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        one = todo.pop()
        if id(one) in seen or not isinstance(one, BaseException):
            continue
        seen.add(id(one))
        if isinstance(one, ssl.SSLError) and not isinstance(one, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return True
        todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return False
