"""How a DICOMweb server is spoken to: one session, asked again while that may help, failures in our own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from redraft.config.sources import DicomWebSource as Section
from redraft.sources.dicomweb.session import Refusal, answering, open_session
from redraft.sources.protocol import SourceContext
from redraft.sources.retry import NotNow, gave_up, persist

if TYPE_CHECKING:
    import requests
    from dicomweb_client.web import DICOMwebClient

T = TypeVar("T")


class Connection:
    """A server of project.yaml; nothing is asked of it before the first call."""

    def __init__(self, section: Section, context: SourceContext, wait: Callable[[float], None]):
        self.section, self._context, self.wait = section, context, wait
        self.url = section.url.rstrip("/")
        self.timeout = section.retry.timeout_seconds

    @cached_property
    def session(self) -> requests.Session:
        return open_session(self.section, self._context)

    @cached_property
    def client(self) -> DICOMwebClient:
        from dicomweb_client.web import DICOMwebClient

        client = DICOMwebClient(self.url, self.session, permissive_uid=True, timeout=self.timeout)
        client.set_http_retry_params(retry=False)  # its waits cannot be bounded, and broken connections are not retried
        return client

    def persist(self, call: Callable[[], T]) -> T:
        """The result of `call`, which is asked again as `retry` says. Raises NotNow or Refusal."""

        def once() -> T:
            with answering():
                return call()

        return persist(once, self.section.retry, wait=self.wait)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Turn what the source does not do into a ServiceError that names it."""
        try:
            yield
        except Refusal as refusal:
            raise refusal.as_error(self.section.name) from None
        except NotNow as failure:
            raise gave_up(self.section.name, failure, self.section.retry) from None
