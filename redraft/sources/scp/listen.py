"""Listening: a storage SCP (PS3.4 B) that runs for the length of a `with` block."""

from __future__ import annotations

import errno
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache

import pynetdicom
from pydicom import uid as uids
from pydicom.pixels import get_decoder
from pynetdicom import _config
from pynetdicom.sop_class import Verification

from redraft.errors import ConfigError, ConflictError
from redraft.sources.scp.associations import MAX_ASSOCIATIONS, Handler, Server
from redraft.sources.scp.roles import Gate, Keeper

MAX_PDU = 131_072  # what we ask senders to keep to


@dataclass
class StorageScp:
    """A running storage SCP.

    Attributes
    ----------
    address : (str, int)
        Where it listens.
    """

    address: tuple[str, int]
    _server: Server = field(repr=False)
    _thread: threading.Thread = field(repr=False)

    def last_byte(self) -> float:
        """When any association last received something (time.monotonic)."""
        return self._server.activity

    def close(self, grace: float = 10.0) -> None:
        """Listen no more, let instances that are arriving end for up to `grace` seconds, abort what is left."""
        self._server.end(grace)
        self._thread.join()


@contextmanager
def storage_scp(
    bind: str,
    port: int,
    ae_title: str,
    keeper: Keeper,
    gate: Gate,
    tls: ssl.SSLContext | None,
    timeout: float = 60.0,
    idle: float = 600.0,
) -> Iterator[StorageScp]:
    """Listen on `bind`:`port` (0: any free port) until the block is left.

    Parameters
    ----------
    timeout : float
        Seconds of silence in the middle of a PDU or a handshake after which the connection is closed.
    idle : float
        Seconds without a PDU after which we ask for the release of an association. Scanners keep one open while they
        scan, some senders for ever; one that is alive agrees, and it has ended by release.

    Raises
    ------
    ConflictError
        The port is taken.
    ConfigError
        The address is not one of this machine.
    """
    quiet_pynetdicom()
    ae = pynetdicom.AE(ae_title)
    ae.maximum_associations = MAX_ASSOCIATIONS
    ae.maximum_pdu_size = MAX_PDU
    ae.acse_timeout = min(timeout, 30.0)  # who connects and asks for nothing
    ae.dimse_timeout, ae.network_timeout = timeout, idle
    syntaxes = list(decodable_syntaxes())
    for context in pynetdicom.AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, syntaxes)
    ae.add_supported_context(Verification)
    try:
        server: Server = ae.make_server(
            (bind, port), server_class=Server, request_handler=Handler, keeper=keeper, gate=gate, tls=tls,
            timeout_seconds=timeout,
        )  # fmt: skip
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"Port {port} is taken by another program.", "End it (another `redraft receive`?) or set another port."
            ) from None
        raise ConfigError(f"Cannot listen on {bind}:{port} ({error.strerror}).", "Check `bind` and `port`.") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="storage-scp", daemon=True)
    thread.start()
    scp = StorageScp(server.server_address[:2], server, thread)  # type: ignore[arg-type]
    try:
        yield scp
    finally:
        scp.close()


def quiet_pynetdicom() -> None:
    """Its log quotes UIDs, AE titles and whole queries, so it is turned off in this process."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


@cache
def decodable_syntaxes() -> tuple[str, ...]:
    """Transfer syntaxes that the readers decode, plain ones first: the first of a sender's that is listed is taken."""
    plain = [
        uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian,
        uids.DeflatedExplicitVRLittleEndian, uids.ExplicitVRBigEndian,
    ]  # fmt: skip
    compressed = []
    for syntax in uids.AllTransferSyntaxes:
        if syntax not in plain:
            with suppress(NotImplementedError):
                if get_decoder(syntax).is_available:
                    compressed.append(syntax)
    return tuple(map(str, plain[:2] + compressed + plain[2:]))
