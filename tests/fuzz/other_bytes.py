"""Alterations of NIfTI, NRRD, archives and the answers of DICOMweb servers."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import nibabel as nib

from tests.fuzz.dicom_bytes import dicom
from tests.fuzz.noise import noise
from tests.fuzz.words import LENGTHS, TEXTS


def within_gzip(data: bytes, rng: Random, change: Callable[[bytes, Random], bytes]) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return change(data, rng)
    if rng.random() < 0.2:
        return noise(data, rng)
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        inner = stream.read(4_000_000)
    return gzip.compress(change(inner, rng), 1, mtime=0)


def nifti_bytes(data: bytes, rng: Random) -> bytes:
    """A field of the header; now and then bytes."""
    if rng.random() < 0.15:
        return noise(data, rng)
    dtype = (nib.Nifti2Header if data[:4] == b"\x1c\x02\0\0" else nib.Nifti1Header).template_dtype
    name = rng.choice(["dim", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d",
        "qoffset_x",
                       "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "sform_code", "qform_code",
                       "magic",
                       *(dtype.names or ())])  # fmt: skip
    field, offset = (dtype.fields or {})[name][:2]
    base, count = (field.subdtype[0], field.shape[0]) if field.subdtype else (field, 1)
    at = offset + base.itemsize * rng.randrange(count)
    raw = bytearray(data)
    if base.kind == "S":
        raw[at : at + base.itemsize] = rng.randbytes(base.itemsize)
    elif base.kind == "f":
        code = "<f" if base.itemsize == 4 else "<d"
        struct.pack_into(
            code, raw, at, rng.choice((0.0, -1.0, 1.0, 1e-30, 1e30, float("nan"), float("inf"), 0.3, 352.0))
        )
    else:
        values = [0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 128, 256, 512, 1024, 1536, 1792, 2048, 2304, 32767, -1, -32768]
        values += [2**40, 2**62, -(2**62)] if base.itemsize == 8 else []
        value = rng.choice(values) % (1 << (8 * base.itemsize))
        raw[at : at + base.itemsize] = value.to_bytes(base.itemsize, "little")
    return bytes(raw)


def nrrd_bytes(data: bytes, rng: Random) -> bytes:
    head, _, body = data.partition(b"\n\n")
    if rng.random() < 0.15:
        return head + b"\n\n" + noise(body, rng)
    lines = head.split(b"\n")
    n = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[n]
    elif kind == 1:
        lines.insert(n, lines[n])
    elif kind == 2:
        lines[n] = lines[n].split(b":")[0] + b": " + rng.choice(TEXTS)
    elif kind == 3:
        lines[n] = rng.choice((b"encoding: raw", b"encoding: bzip2", b"encoding: hex", b"encoding: ascii",
            b"type: double",
                               b"type: int64", b"type: block", b"endian: big", b"data file: /etc/passwd",
                               b"sizes: 0 0 0",
                               b"data file: LIST", b"line skip: 5", b"byte skip: -1", b"sizes: 70000 70000 70000",
                               b"dimension: 16", b"space directions: none none none",
                               b"space: 3D-left-handed"))  # fmt: skip
    else:
        numbers = list(re.finditer(rb"-?\d+(\.\d+)?", lines[n]))
        if numbers:
            one = rng.choice(numbers)
            lines[n] = lines[n][: one.start()] + rng.choice(TEXTS[:14]) + lines[n][one.end() :]
    return b"\n".join(lines) + b"\n\n" + body


def zip_bytes(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.4:
        at = rng.choice([m.start() for m in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]) + rng.randrange(46)
        new = struct.pack("<I", rng.choice(LENGTHS))
        return data[:at] + new + data[at + 4 :] if rng.random() < 0.6 else noise(data, rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new_zip:
        infos = old.infolist()
        chosen = rng.randrange(len(infos))
        for n, info in enumerate(infos):
            content = old.read(info)
            name = info.filename
            if n == chosen and rng.random() < 0.7:
                content = dicom(content, rng)
            elif n == chosen:
                name = rng.choice(("../x.dcm", "/x.dcm", "C:\\x.dcm", "exam/\0x", "exam/" + "a" * 300,
                    infos[0].filename,
                                   "exam/", "..", "inner.zip", "exam/пациент.dcm", "a/../../b"))  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two members of one name are meant
                new_zip.writestr(zipfile.ZipInfo(name), content, rng.choice((0, 8, 8, 12, 14)))
    return buffer.getvalue()


def tar_bytes(data: bytes, rng: Random) -> bytes:
    heads = [m.start() - 257 for m in re.finditer(rb"ustar", data)]
    head = rng.choice(heads)
    if rng.random() < 0.3:
        return noise(data, rng)
    field, size = rng.choice(
        ((0, 100), (100, 8), (124, 12), (124, 12), (148, 8), (156, 1), (156, 1), (157, 100), (345, 155))
    )
    values = {
        0: (b"../x", b"/x", b"exam/\xff\xfe", b"", b"x" * 100), 124: (b"77777777777", b"00000000000", b"-1",
            b"\x80" + b"\xff" * 11,
        b"00000040000"), 156: (b"1", b"2", b"3", b"5", b"S", b"x", b"g", b"L", b"K", b"\0", b"Z"),
        157: (b"/etc/passwd",),
    }.get(field, (rng.randbytes(size),))  # fmt: skip
    raw = bytearray(data)
    raw[head + field : head + field + size] = rng.choice(values).ljust(size, b"\0")[:size]
    if rng.random() < 0.8:  # with its checksum
        raw[head + 148 : head + 156] = b" " * 8
        raw[head + 148 : head + 156] = b"%06o\0 " % sum(raw[head : head + 512])
    return bytes(raw)


def json_bytes(data: bytes, rng: Random) -> bytes:
    tree: Any = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        for key in keys:
            places.append((node, key))
            visit(node[key])

    visit(tree)
    node, key = rng.choice(places)
    deep: Any = 1
    for _ in range(rng.choice((10, 400))):
        deep = [deep]
    values: list[Any] = [None, True, 0, -1, 1e308, 10**30, "", "x" * 10_000, [], {}, [None], {"Value": None},
        {"Value": [None]},
                         {"vr": "UI", "Value": ["../../.."]}, {"vr": "UI", "Value": ["1.2?x=1"]}, {"vr": "IS",
                         "Value": ["3"]},
                         {"vr": "IS", "Value": [3.5]}, {"vr": "IS", "Value": [10**12]}, {"vr": "PN", "Value": [{}]},
                         deep,
                         "2.25.1", {"vr": "UI", "Value": ["2.25.1"]}, {"InlineBinary": "!"}]  # fmt: skip
    kind = rng.randrange(4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, list):
        node.extend([node[key]] * rng.choice((1, 1, 600)))
    else:
        node[key] = rng.choice(values)
    return json.dumps(tree).encode()


def multipart_bytes(data: bytes, rng: Random) -> bytes:
    parts = data.split(b"--edge")
    n = rng.randrange(1, max(2, len(parts) - 1))
    kind = rng.randrange(6)
    if kind == 0:
        del parts[n]
    elif kind == 1:
        parts.insert(n, parts[n])
    elif kind == 2:
        head, _, body = parts[n].partition(b"\r\n\r\n")
        parts[n] = head + b"\r\n\r\n" + dicom(body[:-2], rng) + b"\r\n"
    elif kind == 3:
        head, _, body = parts[n].partition(b"\r\n\r\n")
        extra = rng.choice((b"\r\nContent-Length: 10", b"\r\nContent-Length: -1", b"\r\nX: " + b"y" * 100_000,
            b"\r\n: ",
                            b"\r\nContent-Type: text/html", b"\r\nContent-Encoding: gzip", b"\r\n" * 3))  # fmt: skip
        parts[n] = head + extra + b"\r\n\r\n" + body
    elif kind == 4:
        return data[: rng.randrange(len(data))]
    else:
        return data.replace(b"\r\n", b"\n", rng.choice((1, 2, 1000)))
    return b"--edge".join(parts)
