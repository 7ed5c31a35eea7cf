"""DIMSE peers for tests: senders that stop where they are told, certificates, and small series to send."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from redraft.config.base import SecretRef
from redraft.config.sources import DimseSource as Section
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.dimse import DimseSource
from redraft.sources.protocol import SourceContext
from tests.servers.certificates import Authority

PATIENT = "LEAKY^JANE"
NAMES = Pseudonyms(KeyRing.published_demo())


def series(count: int, *, side: int = 16, name: str = "a", syntax: str = ExplicitVRLittleEndian) -> list[Dataset]:
    """A CT series of `count` slices; the same name is the same series."""
    random = np.random.default_rng(count)
    return [_slice(name, number, random.integers(0, 4096, (side, side)), syntax) for number in range(count)]


def _slice(name: str, number: int, pixels: Any, syntax: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[name, str(number)])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study", name[:1]])
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[name]), generate_uid(entropy_srcs=["f"])
    ds.PatientName, ds.PatientID, ds.AccessionNumber, ds.StudyID = PATIENT, "MRN-4711", "ACC-1", "1"
    ds.PatientBirthDate, ds.PatientSex, ds.ReferringPhysicianName = "19600101", "F", "HOUSE^G"
    ds.StudyDate, ds.StudyTime, ds.Modality, ds.SeriesNumber = "20250301", "120000", "CT", 1
    ds.StudyDescription, ds.SeriesDescription, ds.BodyPartExamined = "Abdomen", f"series {name}", "KIDNEY"
    ds.InstanceNumber, ds.ImageType = number + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 2.5 * number], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [0.8, 0.8], 2.5
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


def wait_until(holds: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """What `holds` returns once it is true; fails the test when it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.01)
    return pytest.fail(f"never happened: {what}")


@contextmanager
def sender(
    port: int,
    *,
    title: str = "MODALITY",
    called: str = "REDRAFT",
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian,),
    tls: Any = None,
) -> Iterator[Any]:
    """An association that stores; it is released at the end unless it ended before."""
    ae = AE(title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for syntax in syntaxes:
        ae.add_requested_context(CTImageStorage, syntax)
    ae.add_requested_context(Verification)
    more = {"tls_args": (tls, "localhost")} if tls else {}
    for _ in range(3):  # a sender tries again when its connection breaks while the machine is busy
        association = ae.associate("127.0.0.1", port, ae_title=called, **more)
        if association.is_established or association.is_rejected:
            break
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(association: Any, datasets: Sequence[Dataset]) -> list[int | None]:
    """Store; the statuses of the answers, None for none."""
    return [getattr(association.send_c_store(ds), "Status", None) for ds in datasets]


def send_part(association: Any, ds: Dataset, share: float, uid: str | None = None) -> list[Any]:
    """Send a share of one C-STORE request's fragments and nothing more; those that are left.

    `uid` is the SOP Instance UID that the request names, where it is not the data set's.
    """
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == ds.SOPClassUID)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, uid or ds.SOPInstanceUID
    encoded = encode(ds, ds.file_meta.TransferSyntaxUID.is_implicit_VR, True)
    assert encoded is not None
    request.DataSet = BytesIO(encoded)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    fragments = list(message.encode_msg(context.context_id, association.acceptor.maximum_length))
    # As pynetdicom's own senders do: its reactor would take the answer.
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused, "the reactor's pause")
    count = max(2, int(len(fragments) * share))
    send_fragments(association, fragments[:count])
    return fragments[count:]


def send_fragments(association: Any, fragments: Sequence[Any]) -> None:
    """Send fragments of a request."""
    for fragment in fragments:
        association.dul.send_pdu(fragment)


def answer(association: Any) -> int | None:
    """The status of the answer to a request that was sent by fragments; None when there is none."""
    _, message = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return getattr(message, "Status", None)


def certificates(folder: Path) -> Path:
    """A certificate authority and two certificates signed by it: `server` (for localhost) and `client`, as PEM."""
    authority = Authority(folder)
    for name in ("server", "client"):
        authority.issue(name)
    return folder


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def pacs(host_port: int, title: str = "PACS", wanted: dict[str, Any] | None = None, **more: Any) -> DimseSource:
    """Our source for a PACS on loopback, impatient enough for a test."""
    values = {
        "kind": "dimse", "name": "pacs", "host": "127.0.0.1", "pacs_port": host_port, "pacs_title": title,
        "port": free_port(), "wanted": wanted or {},
        "retry": {"attempts": 3, "wait_seconds": 0.01, "timeout_seconds": 1.0}, **more,
    }  # fmt: skip

    def secret(reference: SecretRef) -> str:
        raise AssertionError(reference)

    return DimseSource(Section.model_validate(values), SourceContext(NAMES, secret, Path("/project"), Path("/nowhere")))


def port_of(source: DimseSource) -> int:
    """Where it wants its instances sent to."""
    return source._section.port


def by_uid(paths: Sequence[Path]) -> dict[str, Dataset]:
    """Files by their SOP Instance UIDs."""
    return {ds.SOPInstanceUID: ds for path in paths for ds in [pydicom.dcmread(path)]}
