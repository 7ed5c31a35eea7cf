"""NRRD and 3D Slicer's .seg.nrrd: reading label arrays with their segments, and writing them.

Bytes are unpacked here rather than by pynrrd: never more than the header declares, and never from a file beside it.
"""

from __future__ import annotations

import bz2
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.errors import LabelError, ReadError
from redraft.files import write_bytes
from redraft.segmentation.colours import colour
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.structures import Segment

# Space to LPS, by axis (teem.sourceforge.net/nrrd/format.html#space).
SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    "float": "f4", "double": "f8",
}  # fmt: skip
_DO = "Save it as NRRD from the program that drew it."
_KEY = re.compile(r"^Segment(\d+)_(LabelValue|Layer|Name|Tags)$")
_TERMINOLOGY = re.compile(r"TerminologyEntry:([^|]*)")


@dataclass(frozen=True, eq=False)
class NrrdLabels:
    """A label array.

    Attributes
    ----------
    layers : ndarray, shape (L, I, J, K)
        Integer values as stored; one layer in plain files.
    lps : float64, shape (4, 4)
        Index to LPS mm.
    segments : dict of (layer, value) to Segment
        Empty in plain files, whose values are the project's own.
    """

    layers: NDArray[Any]
    lps: NDArray[np.float64]
    segments: dict[tuple[int, int], Segment]


def read_nrrd(path: Path, max_voxels: int) -> NrrdLabels:
    """Read a label array.

    Raises
    ------
    ReadError
        Rules unreadable, detached (the data lie in another file), too_large, dimensions, space, not_integer.
    """
    import nrrd

    try:
        with open(path, "rb") as stream:
            header = nrrd.read_header(stream)
            packed = stream.read()
    except OSError:
        raise
    except Exception:  # pynrrd's own, and what its parsers raise
        raise ReadError("A file cannot be read as NRRD.", _DO, rule="unreadable") from None
    if "datafile" in header or "data file" in header:
        raise ReadError("An NRRD file keeps its data in another file.", "Save header and data in one.", rule="detached")
    try:
        sizes = [int(n) for n in header["sizes"]]
        dtype = np.dtype(TYPES[str(header["type"]).lower()])
        if dtype.itemsize > 1:
            dtype = dtype.newbyteorder("<" if str(header.get("endian", "little")).lower() == "little" else ">")
        encoding = str(header["encoding"]).lower()
        first, directions, origin = _space(header, len(sizes))
    except (KeyError, TypeError, ValueError, AttributeError):
        what = "An NRRD file does not say type, size, or where it lies in the patient."
        raise ReadError(what, "Export it with space, directions and origin.", rule="space") from None
    if min(sizes) < 1 or int(np.prod(sizes, dtype=object)) > max_voxels:
        raise ReadError("An NRRD file is larger than its image.", _DO, rule="too_large", measured={"sizes": sizes})
    array = np.frombuffer(_unpack(packed, encoding, int(np.prod(sizes)) * dtype.itemsize), dtype)
    array = array.reshape(sizes, order="F")  # the first axis is the fastest
    array = array[None] if first == 0 else array
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise ReadError("An NRRD label holds values that are no integers.", _DO, rule="not_integer")
        array = array.astype(np.int64)
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = directions, origin
    return NrrdLabels(array, lps, _segments(header))


def _space(header: Any, dimension: int) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Number of leading axes that are no directions of space (0 or 1), directions (columns) and origin in LPS."""
    signs = np.array(SPACES[str(header["space"]).lower()], dtype=float)
    if any(str(unit).strip('"') not in ("mm", "") for unit in header.get("space units", ())):
        raise ValueError
    directions = [np.array(item, dtype=float) for item in header["space directions"]]
    lead = dimension - 3
    if lead not in (0, 1) or len(directions) != dimension or (lead and np.isfinite(directions[0]).any()):
        raise ValueError
    columns = np.array(directions[lead:]).T
    origin = np.array(header["space origin"], dtype=float)
    if not np.isfinite(columns).all() or not np.isfinite(origin).all() or abs(np.linalg.det(columns)) < 1e-9:
        raise ValueError
    return lead, signs[:, None] * columns, signs * origin


def _unpack(packed: bytes, encoding: str, expected: int) -> bytes:
    try:
        if encoding == "raw":
            data, ended = packed, True
        elif encoding in ("gzip", "gz"):
            gz = zlib.decompressobj(zlib.MAX_WBITS | 32)
            data, ended = gz.decompress(packed, expected + 1), gz.eof  # only at its end the checksum was compared
        elif encoding in ("bzip2", "bz2"):
            bz = bz2.BZ2Decompressor()
            data, ended = bz.decompress(packed, expected + 1), bz.eof
        else:
            raise ReadError("An NRRD file's encoding is not raw, gzip or bzip2.", _DO, rule="unreadable")
    except (zlib.error, OSError, EOFError):
        raise ReadError("An NRRD file is damaged.", _DO, rule="unreadable") from None
    if len(data) != expected or not ended:
        measured: dict[str, object] = {"bytes": min(len(data), expected + 1), "expected": expected}
        raise ReadError("An NRRD file holds less or more than it declares.", _DO, rule="unreadable", measured=measured)
    return data


def _segments(header: Any) -> dict[tuple[int, int], Segment]:
    """Segments of 3D Slicer (Segment0_Name, Segment0_LabelValue, Segment0_Layer, Segment0_Tags)."""
    fields: dict[int, dict[str, str]] = {}
    for key, value in header.items():
        if found := _KEY.match(str(key)):
            fields.setdefault(int(found[1]), {})[found[2]] = str(value)
    segments: dict[tuple[int, int], Segment] = {}
    for number, item in sorted(fields.items()):
        try:
            key = (int(item.get("Layer", 0)), int(item.get("LabelValue", 1)))
        except ValueError:
            raise ReadError("A segment's value or layer is no number.", _DO, rule="unreadable") from None
        if key in segments:
            raise ReadError("Two segments share one value of one layer.", _DO, rule="unreadable")
        segments[key] = _segment(number, item.get("Name", ""), item.get("Tags", ""))
    return segments


def _segment(number: int, name: str, tags: str) -> Segment:
    """Category, type, type modifier, anatomic context, region and region modifier, each `scheme^value^meaning`."""
    from pydicom.sr.coding import Code

    def code(text: str) -> tuple[Code, ...]:
        scheme, _, rest = text.partition("^")
        value, _, meaning = rest.partition("^")
        return (Code(value, scheme, meaning),) if scheme and value else ()

    found = _TERMINOLOGY.search(tags)
    parts = [*(found[1].split("~") if found else ()), *[""] * 7][:7]
    kinds = code(parts[2])
    return Segment(number, name, kinds[0] if kinds else None, code(parts[5]), (*code(parts[3]), *code(parts[6])))


def write_nrrd(path: Path, labels: NDArray[np.uint8], exam: ExamGeometry, structures: Sequence[Structure]) -> None:
    """Write a .seg.nrrd that 3D Slicer opens as a segmentation with names, colours and codes; same labels, same bytes.

    Parameters
    ----------
    labels : uint8, shape (I, J, K)
    """
    import nrrd

    if labels.shape != exam.shape:
        raise LabelError("The labels are not on the exam's grid.", rule="grid", measured={"shape": list(labels.shape)})
    header: dict[str, Any] = {
        "type": "uint8", "dimension": 3, "space": "left-posterior-superior", "encoding": "gzip",
        "kinds": ["domain"] * 3, "space directions": exam.lps[:3, :3].T, "space origin": exam.lps[:3, 3],
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }  # fmt: skip
    extent = " ".join(f"0 {n - 1}" for n in exam.shape)
    for n, structure in enumerate(structures):
        header |= {
            f"Segment{n}_ID": structure.name, f"Segment{n}_Name": structure.name, f"Segment{n}_Layer": "0",
            f"Segment{n}_LabelValue": str(structure.value), f"Segment{n}_Extent": extent,
            f"Segment{n}_Tags": _tags(structure),
            f"Segment{n}_Color": " ".join(f"{part / 255:.6f}" for part in colour(n)),
            # Else Slicer takes name and colour for its own invention, and replaces them where a code is set.
            f"Segment{n}_NameAutoGenerated": "0", f"Segment{n}_ColorAutoGenerated": "0",
        }  # fmt: skip
    buffer = io.BytesIO()
    nrrd.write(buffer, labels, header, compression_level=1)
    # Comments hold the hour of writing; all else depends on the labels alone.
    head, _, body = buffer.getvalue().partition(b"\n\n")
    lines = [line for line in head.split(b"\n") if not line.startswith(b"#")]
    write_bytes(path, b"\n".join(lines) + b"\n\n" + body)


def _tags(structure: Structure) -> str:
    code = structure.code
    if code is None:
        return ""

    def text(item: Any) -> str:
        return f"{item.scheme}^{item.value}^{item.meaning}" if item is not None else "^^"

    side = text(code.laterality)
    own, region = (code.modifier or code.laterality, "^^") if code.region is None else (code.modifier, side)
    parts = ["Segmentation category and type - 3D Slicer General Anatomy list", text(code.category), text(code.type),
             text(own), "Anatomic codes - DICOM master list", text(code.region), region]  # fmt: skip
    return f"TerminologyEntry:{'~'.join(parts)}|"
