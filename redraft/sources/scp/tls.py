"""TLS of both sides of a DIMSE connection (PS3.15 B): 1.2 or later, certificates from files in PEM."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from redraft.config.sources import Tls
from redraft.errors import ConfigError


def server_tls(tls: Tls | None, resolve: Callable[[Path], Path]) -> ssl.SSLContext | None:
    """TLS for the side that listens; peers must show a certificate of `ca` where one is set. Raises ConfigError."""
    if tls is None:
        return None
    if tls.certificate is None or tls.key is None:
        what = "TLS needs a certificate of our own here, because others connect to us."
        raise ConfigError(what, "Set `certificate` and `key` in the source's `tls`.")
    with _certificates():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(resolve(tls.certificate), resolve(tls.key))
        if tls.ca is not None:
            context.load_verify_locations(resolve(tls.ca))
            context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(tls: Tls | None, resolve: Callable[[Path], Path]) -> ssl.SSLContext | None:
    """TLS for the side that connects; the peer's certificate and name are checked. Raises ConfigError."""
    if tls is None:
        return None
    with _certificates():
        context = ssl.create_default_context(cafile=str(resolve(tls.ca)) if tls.ca is not None else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None and tls.key is not None:
            context.load_cert_chain(resolve(tls.certificate), resolve(tls.key))
    return context


@contextmanager
def _certificates() -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "not PEM"
        raise ConfigError(f"A file of the source's `tls` cannot be used ({reason}).", "Check its paths.") from None
