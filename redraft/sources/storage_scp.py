"""A storage SCP (PS3.4 B) that streams what it is sent to disk: of one instance no more than one PDU is in memory.

pynetdicom speaks the protocol. What is added here: instances go into files piece by piece as they arrive, connections
and PDUs are bounded, a TLS handshake or a silent peer never blocks others, and the end of each association is reported
as released or not, whatever ended it.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import secrets
import socket
import socketserver
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any, BinaryIO, Protocol

import pynetdicom
from pydicom import uid as uids
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import get_decoder
from pynetdicom import _config, evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import Verification
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from redraft.config.sources import Tls
from redraft.errors import ConfigError, ConflictError

log = logging.getLogger(__name__)

# Statuses of C-STORE (PS3.4 B.2.3). Each but success makes the sender keep its copy.
SUCCESS, OUT_OF_RESOURCES, DOES_NOT_MATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000

MAX_ASSOCIATIONS = 16
MAX_PDU = 131_072  # what we ask senders to keep to
_PDU_LIMIT = 1 << 20  # what ends an association; requests for one with all storage classes reach 200 KiB
_COMMAND_LIMIT = 1 << 16
_HEAD = 1 << 20  # of a deflated data set: identifiers lie in front
_QUICKACK = getattr(socket, "TCP_QUICKACK", socket.TCP_NODELAY)  # Linux only
_UID = re.compile(r"[0-9.]{1,64}")
_IDENTITY = (0x00080016, 0x00080018, 0x0020000E)  # SOP class, SOP instance, series


class Incoming:
    """One instance on its way into a file of DICOM's format (PS3.10). Its UIDs are clear: never shown or logged."""

    def __init__(self, path: Path, sop_class: str, uid: str, syntax: str):
        self.path, self.sop_class, self.uid, self.syntax = path, sop_class, uid, syntax
        self.failure: OSError | None = None
        self._stream: BinaryIO | None = None
        self.start = 0
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
        meta.TransferSyntaxUID = syntax
        meta.ImplementationClassUID = uids.PYDICOM_IMPLEMENTATION_UID
        meta.FileMetaInformationVersion = b"\x00\x01"
        head = BytesIO(b"")
        head.write(b"\x00" * 128 + b"DICM")
        write_file_meta_info(head, meta, enforce_standard=True)
        self.start = head.tell()
        self.write(head.getvalue())

    def write(self, data: bytes) -> None:
        """Append; what the disk refuses is kept in `failure`, and the answer to the sender says so."""
        if self.failure is not None:
            return
        try:
            if self._stream is None:
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._stream = os.fdopen(handle, "wb")
            self._stream.write(data)
        except OSError as error:
            self._fail(error)

    def finish(self) -> None:
        """Flush to disk and close."""
        if self._stream is None or self.failure is not None:
            return
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        if self._stream is not None:
            with suppress(OSError):  # closing flushes again
                self._stream.close()

    def drop(self) -> None:
        """Close and remove the file."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
        self.path.unlink(missing_ok=True)

    def identity(self) -> tuple[str, str, str] | None:
        """SOP class, SOP instance and series UID as the data set itself says; None where it does not."""
        if self._stream is not None and not self._stream.closed:
            with suppress(OSError):
                self._stream.flush()
        return _identity(self.path, self.start, self.syntax)


def identity_of(path: Path) -> tuple[str, str, str] | None:
    """SOP class, instance and series UID of a file that `Incoming` left behind, whole or not; None where unreadable."""
    from pydicom.filereader import read_file_meta_info

    try:
        meta = read_file_meta_info(path)
        start = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
        syntax = str(meta.TransferSyntaxUID)
    except Exception:  # pydicom raises a dozen unrelated types for half a file
        return None
    return _identity(path, start, syntax)


def _identity(path: Path, start: int, syntax: str) -> tuple[str, str, str] | None:
    try:
        with open(path, "rb") as stream:
            stream.seek(start)
            source: Any = stream
            if syntax == uids.DeflatedExplicitVRLittleEndian:
                source = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(_HEAD), _HEAD))
            dataset = read_dataset(
                source, syntax == uids.ImplicitVRLittleEndian, syntax != uids.ExplicitVRBigEndian,
                stop_when=lambda tag, vr, length: tag > _IDENTITY[-1], specific_tags=list(_IDENTITY),
            )  # fmt: skip
        # Raw bytes: converting them would raise and warn, quoting values.
        values = [bytes(dataset.get_item(tag).value).decode("ascii").strip(" \x00") for tag in _IDENTITY]
    except Exception:  # pydicom raises a dozen unrelated types for what is no data set
        return None
    return (values[0], values[1], values[2]) if all(map(_UID.fullmatch, values)) else None


class Keeper(Protocol):
    """Who keeps what arrives. Called from the associations' threads; `token` names one association, at random."""

    def begin(self, token: str, uid: str) -> Path:
        """Where to write an instance that begins to arrive: a new path, in a folder that exists."""
        ...

    def keep(self, token: str, incoming: Incoming) -> int:
        """Keep one instance whose last byte has arrived; the status of the answer. Its file is gone afterwards."""
        ...

    def ended(self, token: str, released: bool, cut: Incoming | None) -> None:
        """The association ended, by release or in any other way; `cut` is the instance that had not arrived whole."""
        ...


class Gate(Protocol):
    """Who may connect."""

    def address(self, address: str) -> bool:
        """Whether anybody at this address may connect at all."""
        ...

    def association(self, calling: str, called: str, address: str) -> str | None:
        """Why an association is refused: `calling_ae_title`, `called_ae_title` or `host`; None when it is not."""
        ...


@dataclass
class StorageScp:
    """A running storage SCP.

    Attributes
    ----------
    address : (str, int)
        Where it listens.
    """

    address: tuple[str, int]
    _server: _Server = field(repr=False)
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
        server: _Server = ae.make_server(
            (bind, port), server_class=_Server, request_handler=_Handler, keeper=keeper, gate=gate, tls=tls,
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


def plain_address(address: str) -> str:
    """An address as text that compares: IPv4 inside IPv6 becomes IPv4."""
    try:
        parsed = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def addresses_of(host: str) -> frozenset[str]:
    """Addresses of a host name or address; empty where it does not resolve."""
    try:
        return frozenset(plain_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None))
    except OSError:
        return frozenset()


# -- inside pynetdicom -------------------------------------------------------------------------------------------------
class _Provider(DIMSEServiceProvider):
    """Hands data sets of C-STORE requests to a file, fragment by fragment; anything else but C-ECHO ends it."""

    def __init__(self, assoc: Any, keeper: Keeper, token: str):
        super().__init__(assoc)
        self.keeper, self.token = keeper, token
        self.incoming: Incoming | None = None
        self.waiting = 0  # instances that arrived and are not answered yet
        self._command = 0

    @property
    def busy(self) -> bool:
        return self.incoming is not None or self.waiting > 0

    def unanswered(self) -> list[Incoming]:
        """Instances whose last byte arrived when the association was about to end."""
        found = []
        while not self.msg_queue.empty():
            _, request = self.msg_queue.get_nowait()
            incoming = getattr(request, "_dataset_path", None)
            if isinstance(incoming, Incoming):
                found.append(incoming)
        return found

    def receive_primitive(self, primitive: P_DATA) -> None:
        try:
            for context_id, data in primitive.presentation_data_value_list:
                self._fragment(context_id, data)
        except Exception:
            # Whatever a peer sent that is no message of ours ends its association, not the thread that serves it.
            log.info("An association sent what is no C-STORE or C-ECHO and is aborted.")
            self.dul.event_queue.put("Evt19")

    def _fragment(self, context_id: int, data: bytes) -> None:
        control = data[0]  # PS3.8 E.2: bit 0 command, bit 1 last fragment
        if control & 1:
            self._command += len(data)
            if self.incoming is not None or self._command > _COMMAND_LIMIT:
                raise ValueError("command inside a data set, or too long")
            self._pass_on(context_id, data)
            if control & 2:
                self._command = 0
                if self.message is not None:  # a data set follows
                    self._open(context_id)
            return
        if self.incoming is None or self.message is None:
            raise ValueError("data set without a command")
        self.incoming.write(data[1:])
        if control & 2:
            self.incoming.finish()
            # The message takes the file along: requests that wait in the queue keep their own.
            self.message._data_set_path = self.incoming  # type: ignore[assignment]
            self.waiting += 1
            self.incoming = None
            self._pass_on(context_id, b"\x02")

    def _pass_on(self, context_id: int, data: bytes) -> None:
        single = P_DATA()
        single.presentation_data_value_list.append((context_id, data))
        super().receive_primitive(single)

    def _open(self, context_id: int) -> None:
        if not isinstance(self.message, C_STORE_RQ):
            raise ValueError("a data set for something else than C-STORE")
        command = self.message.command_set
        uid = str(command.AffectedSOPInstanceUID).strip(" \x00")
        sop_class = str(command.AffectedSOPClassUID).strip(" \x00")
        if not _UID.fullmatch(uid) or not _UID.fullmatch(sop_class):
            raise ValueError("no UID")
        context = next(cx for cx in self.assoc.accepted_contexts if cx.context_id == context_id)
        path = self.keeper.begin(self.token, uid)
        self.incoming = Incoming(path, sop_class, uid, str(context.transfer_syntax[0]))


class _Handler(RequestHandler):
    """Runs one association to its end and says how it ended."""

    server: _Server

    def handle(self) -> None:
        server = self.server
        assoc = self._create_association()
        assoc.network_timeout_response = "A-RELEASE"
        assoc.dul.daemon = True  # a peer that hangs must not keep the process
        token = secrets.token_hex(8)
        provider = assoc.dimse = _Provider(assoc, server.keeper, token)
        sock = assoc.dul.socket
        assert sock is not None
        sock.recv = server.bounded(sock)  # type: ignore[method-assign]
        server.opened(assoc, provider)
        try:
            assoc.start()
            assoc.join()
        finally:
            server.ended(assoc)
            cut, unanswered = provider.incoming, provider.unanswered()
            try:
                server.keeper.ended(token, bool(assoc.is_released) and cut is None and not unanswered, cut)
            finally:
                for incoming in [*unanswered, *([cut] if cut is not None else [])]:
                    incoming.drop()


class _Server(ThreadedAssociationServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, *args: Any, keeper: Keeper, gate: Gate, tls: ssl.SSLContext | None, timeout_seconds: float, **kwargs: Any
    ):
        self.keeper, self.gate, self.tls, self.timeout_seconds = keeper, gate, tls, timeout_seconds
        self.activity = 0.0
        self._open: dict[Any, _Provider] = {}
        self._connections = threading.Semaphore(4 * MAX_ASSOCIATIONS)
        self._lock = threading.Lock()
        self._closed = False
        super().__init__(*args, **kwargs)
        self.bind(evt.EVT_REQUESTED, self._requested)
        self.bind(evt.EVT_C_STORE, self._store)

    # -- connections
    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(self.timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        if not self.gate.address(plain_address(client_address[0])):
            log.warning("A connection was refused: its address is not allowed.")
            return False
        if not self._connections.acquire(blocking=False):
            log.warning("A connection was refused: too many are open.")
            return False
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if self.tls is not None:
                # Here and not where connections are accepted: a peer that stays silent would block all others.
                try:
                    request = self.tls.wrap_socket(request, server_side=True)
                except (OSError, ValueError):
                    log.warning("A connection was refused: TLS failed (certificate, version or no TLS at all).")
                    self.shutdown_request(request)
                    return
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The default prints a stack trace with the peer's words.
        log.error("An association ended by an error of our own.")

    def bounded(self, sock: Any) -> Callable[[int], bytearray]:
        """A `recv` that refuses absurd lengths and notes when something arrived."""

        def recv(length: int) -> bytearray:
            if length > _PDU_LIMIT:
                raise OSError("PDU too long")
            buffer, got = bytearray(length), 0
            with memoryview(buffer) as view:
                while got < length:
                    count = sock.socket.recv_into(view[got:])
                    if not count:
                        break
                    got += count
            self.activity = monotonic()
            with suppress(OSError):
                # Senders write command and data set apart; without this each instance waits 40 ms for an ACK.
                sock.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            return buffer[:got]

        return recv

    # -- associations
    def opened(self, assoc: Any, provider: _Provider) -> None:
        with self._lock:
            self._open[assoc] = provider

    def ended(self, assoc: Any) -> None:
        with self._lock:
            self._open.pop(assoc, None)

    def _requested(self, event: Any) -> None:
        request = event.assoc.requestor.primitive
        calling, called = str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()
        refused = self.gate.association(calling, called, plain_address(event.assoc.requestor.address))
        if refused is None:
            return
        log.warning("An association was refused: %s is not allowed.", refused)
        # PS3.8 9.3.4: permanent, by the service user.
        event.assoc.acse.send_reject(0x01, 0x01, 0x07 if refused == "called_ae_title" else 0x03)
        event.assoc.is_rejected = True
        event.assoc.kill()

    def _store(self, event: Any) -> int:
        incoming, provider = event.request._dataset_path, event.assoc.dimse
        try:
            if not isinstance(incoming, Incoming):
                return NOT_UNDERSTOOD  # a request without a data set
            if event.context.abstract_syntax != incoming.sop_class:
                # Kept nowhere: the keeper learns of it as of anything else that it cannot use.
                incoming.sop_class = ""
            return self.keeper.keep(provider.token, incoming)
        except Exception:
            log.error("An instance could not be kept because of an error of our own.")
            return NOT_UNDERSTOOD
        finally:
            if isinstance(incoming, Incoming):
                incoming.drop()
            provider.waiting -= 1

    # -- end
    def end(self, grace: float) -> None:
        if self._closed:
            return
        self._closed = True
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        deadline = monotonic() + grace
        while monotonic() < deadline:
            with self._lock:
                busy = any(provider.busy for provider in self._open.values())
            if not busy:
                break
            sleep(0.02)
        with self._lock:
            left = list(self._open)
        established = [assoc for assoc in left if assoc.is_established]
        for assoc in left:
            if assoc in established:
                assoc.abort()
            elif assoc.dul.socket is not None and assoc.dul.socket.socket is not None:
                self.shutdown_request(assoc.dul.socket.socket)  # connected, and silent since
        deadline = monotonic() + 5
        while monotonic() < deadline and any(assoc in self._open for assoc in established):
            sleep(0.01)  # until the keeper knows how they ended
