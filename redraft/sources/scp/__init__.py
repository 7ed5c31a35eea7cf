"""A storage SCP (PS3.4 B) that streams what it is sent to disk: of one instance no more than one PDU is in memory.

pynetdicom speaks the protocol. The receiver and C-MOVE listen with it; they differ in who may connect (Gate) and in who
keeps what arrives (Keeper).
"""

from redraft.sources.scp.addresses import addresses_of, plain_address
from redraft.sources.scp.incoming import UID, Incoming, identity_of
from redraft.sources.scp.listen import MAX_PDU, StorageScp, decodable_syntaxes, quiet_pynetdicom, storage_scp
from redraft.sources.scp.roles import DOES_NOT_MATCH, NOT_UNDERSTOOD, OUT_OF_RESOURCES, SUCCESS, Gate, Keeper
from redraft.sources.scp.tls import client_tls, server_tls

__all__ = [
    "DOES_NOT_MATCH",
    "MAX_PDU",
    "NOT_UNDERSTOOD",
    "OUT_OF_RESOURCES",
    "SUCCESS",
    "UID",
    "Gate",
    "Incoming",
    "Keeper",
    "StorageScp",
    "addresses_of",
    "client_tls",
    "decodable_syntaxes",
    "identity_of",
    "plain_address",
    "quiet_pynetdicom",
    "server_tls",
    "storage_scp",
]
