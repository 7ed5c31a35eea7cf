"""Associations inside pynetdicom: data sets go to disk fragment by fragment, and each association's end is told.

Connections and PDUs are bounded, and neither a TLS handshake nor a silent peer keeps others waiting.
"""

from __future__ import annotations

import logging
import secrets
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from pynetdicom import evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from redraft.sources.scp.addresses import plain_address
from redraft.sources.scp.incoming import UID, Incoming
from redraft.sources.scp.roles import NOT_UNDERSTOOD, Gate, Keeper

log = logging.getLogger(__name__)

MAX_ASSOCIATIONS = 16
_PDU_LIMIT = 1 << 20  # what ends an association; requests for one with all storage classes reach 200 KiB
_COMMAND_LIMIT = 1 << 16
_QUICKACK = getattr(socket, "TCP_QUICKACK", socket.TCP_NODELAY)  # Linux only


class Provider(DIMSEServiceProvider):
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
        if not UID.fullmatch(uid) or not UID.fullmatch(sop_class):
            raise ValueError("no UID")
        context = next(cx for cx in self.assoc.accepted_contexts if cx.context_id == context_id)
        path = self.keeper.begin(self.token, uid)
        self.incoming = Incoming(path, sop_class, uid, str(context.transfer_syntax[0]))


class Handler(RequestHandler):
    """Runs one association to its end and says how it ended."""

    server: Server

    def handle(self) -> None:
        server = self.server
        assoc = self._create_association()
        assoc.network_timeout_response = "A-RELEASE"
        assoc.dul.daemon = True  # a peer that hangs must not keep the process
        token = secrets.token_hex(8)
        provider = assoc.dimse = Provider(assoc, server.keeper, token)
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


class Server(ThreadedAssociationServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, *args: Any, keeper: Keeper, gate: Gate, tls: ssl.SSLContext | None, timeout_seconds: float, **kwargs: Any
    ):
        self.keeper, self.gate, self.tls, self.timeout_seconds = keeper, gate, tls, timeout_seconds
        self.activity = 0.0
        self._open: dict[Any, Provider] = {}
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
    def opened(self, assoc: Any, provider: Provider) -> None:
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
