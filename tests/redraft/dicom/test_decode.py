"""One image is one volume in every transfer syntax; what a stream declares is checked before it is decoded."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2K, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless, JPEGLSLossless, RLELossless

from redraft.dicom.decode import encoded_size
from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.errors import ExamError


def read(paths: list[Path]) -> SeriesVolume:
    (volume,) = open_series(paths, ReadRules()).volumes()
    if isinstance(volume, ExamError):
        raise volume
    return volume


def refused(paths: list[Path]) -> tuple[str, dict[str, object]]:
    with pytest.raises(ExamError) as caught:
        read(paths)
    return caught.value.rule, caught.value.measured


def dcmtk(*command: str) -> Callable[[Path], None]:
    def convert(path: Path) -> None:
        subprocess.run([*command, str(path), str(path) + ".out"], check=True, capture_output=True)
        Path(f"{path}.out").replace(path)

    return convert


def jpeg_2000(lossless: bool, syntax: str | None = None) -> Callable[[Path], None]:
    def convert(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        ratios = None if lossless else [70.0]
        code = encode_array(dataset.pixel_array, bits_stored=dataset.BitsStored, signal_noise_ratios=ratios)
        dataset.PixelData = encapsulate([code])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = syntax or (JPEG2000Lossless if lossless else JPEG2000)
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)

    return convert


def by_pydicom(syntax: str) -> Callable[[Path], None]:
    def convert(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)

    return convert


def without_meta(path: Path) -> None:
    """No transfer syntax is named: written by what ignores PS3.10."""
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)


LOSSLESS: dict[str, Callable[[Path], None]] = {
    "explicit little endian": dcmtk("dcmconv", "+te"),
    "implicit little endian": dcmtk("dcmconv", "+ti"),
    "explicit big endian": dcmtk("dcmconv", "+tb"),
    "deflated": dcmtk("dcmconv", "+td"),
    "undefined lengths": dcmtk("dcmconv", "-e"),
    "no syntax named": without_meta,
    "RLE": dcmtk("dcmcrle"),
    "RLE by pydicom": by_pydicom(RLELossless),
    "JPEG lossless": dcmtk("dcmcjpeg", "+el"),
    "JPEG lossless SV1": dcmtk("dcmcjpeg", "+e1"),
    "JPEG-LS": dcmtk("dcmcjpls"),
    "JPEG-LS in fragments": dcmtk("dcmcjpls", "+fs", "1"),
    "JPEG-LS by CharLS": by_pydicom(JPEGLSLossless),
    "JPEG 2000 lossless": jpeg_2000(lossless=True),
}
LOSSY: dict[str, tuple[Callable[[Path], None], float]] = {
    "JPEG-LS near-lossless": (dcmtk("dcmcjpls", "+en", "+md", "3"), 3),
    "JPEG 2000": (jpeg_2000(lossless=False), 12),
}


def smooth(dataset: Dataset, k: int) -> None:
    """A field that lossy coding can follow, 12 bits, below zero outside of the patient."""
    rows, columns = dataset.Rows, dataset.Columns
    y, x = np.mgrid[:rows, :columns]
    values = 1000 + 900 * np.sin(x / 7 + k) * np.cos(y / 9)
    dataset.PixelData = values.astype("<u2").tobytes()


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="Debian's dcmtk is not installed")
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_one_image_is_one_volume_in_every_lossless_syntax(series: Callable, syntax: str) -> None:
    """Transcoded by others, the volume stays the same, voxel for voxel; so does its place."""
    files = series((40, 36, 3))
    expected = read(files.paths).volume
    for path in files.paths[1:]:  # one series may mix syntaxes
        LOSSLESS[syntax](path)
    volume = read(files.paths).volume
    np.testing.assert_array_equal(volume.array, files.hu)
    np.testing.assert_array_equal(volume.affine, expected.affine)


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="Debian's dcmtk is not installed")
@pytest.mark.parametrize("syntax", LOSSY)
def test_lossy_syntaxes_stay_within_their_bound(series: Callable, syntax: str) -> None:
    """Near: what near-lossless promises; else close, and the loss is in the receipt."""
    files = series((40, 32, 3))
    files.edit(smooth)
    expected = read(files.paths).volume.array.astype(float)
    convert, bound = LOSSY[syntax]
    for path in files.paths:
        convert(path)
    result = read(files.paths)
    assert np.abs(result.volume.array - expected).max() <= bound
    if syntax != "JPEG 2000":  # pydicom does not write the attribute
        assert result.measured["lossy_compression"]


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL])
def test_htj2k_goes_to_a_decoder_or_is_refused_by_name(series: Callable, syntax: str) -> None:
    """OpenJPEG reads JPEG 2000 and HTJ2K alike; the syntax is only what the header says."""
    files = series((40, 36, 3))
    for path in files.paths:
        jpeg_2000(lossless=True, syntax=syntax)(path)
    np.testing.assert_array_equal(read(files.paths).volume.array, files.hu)


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="Debian's dcmtk is not installed")
def test_twelve_bit_lossy_jpeg_is_refused_by_name(series: Callable) -> None:
    """None of the decoders that may be shipped reads it: the receipt names the syntax."""
    files = series((40, 36, 3))
    for path in files.paths:
        dcmtk("dcmcjpeg", "+ee", "+q", "100")(path)
    with pytest.raises(ExamError) as caught:
        read(files.paths)
    assert caught.value.rule == "undecodable"
    assert caught.value.measured["transfer_syntax"] == "JPEG Extended (Process 2 and 4)"


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="Debian's dcmtk is not installed")
def test_eight_bit_lossy_jpeg_is_read(series: Callable) -> None:
    """JPEG baseline, within its loss."""
    files = series((40, 32, 3))

    def eight(dataset: Dataset, k: int) -> None:
        smooth(dataset, k)
        dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") // 16).astype(np.uint8).tobytes()
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 8, 8, 7, "0"
        dataset["PixelData"].VR = "OW"

    files.edit(eight)
    expected = read(files.paths).volume.array.astype(float)
    for path in files.paths:
        dcmtk("dcmcjpeg", "+eb", "+q", "100")(path)
    assert 0 < np.abs(read(files.paths).volume.array - expected).max() <= 3


def test_signed_values_keep_their_sign_in_jpeg_2000_and_jpeg_ls(series: Callable) -> None:
    """The codes' own notion of sign differs from DICOM's, and writers differ; all must come out as the header says."""
    rng = np.random.default_rng(5)
    converters = [jpeg_2000(lossless=True), by_pydicom(JPEGLSLossless), by_pydicom(RLELossless)]
    if shutil.which("dcmcjpls"):  # it codes the bits that are not stored too: here none of them repeats the sign
        converters += [dcmtk("dcmcjpls"), dcmtk("dcmcjpeg", "+e1"), dcmtk("dcmcrle")]
    for convert in converters:
        files = series((40, 36, 3))
        values = rng.integers(-2048, 2048, (3, 36, 40)).astype("<i2")

        def signed(dataset: Dataset, k: int, values: np.ndarray = values) -> None:
            dataset.PixelRepresentation, dataset.RescaleIntercept = 1, "0"
            dataset.PixelData = (values[k] & 0x0FFF).tobytes()

        files.edit(signed)
        for path in files.paths:
            convert(path)
        np.testing.assert_array_equal(read(files.paths).volume.array, values.transpose(2, 1, 0))


# -- streams that lie --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [jpeg_2000(lossless=True), by_pydicom(JPEGLSLossless)], ids=["j2k", "jpeg-ls"])
def test_a_stream_of_another_size_is_refused_before_it_is_decoded(series: Callable, convert: Callable) -> None:
    """A decoder allocates what the stream says: rows and columns of 65535 in the stream never reach it."""
    files = series((40, 36, 3))
    convert(files.paths[1])
    dataset = pydicom.dcmread(files.paths[1])
    data = bytearray(dataset.PixelData)
    at = data.index(b"\xff\x51") + 8 if b"\xff\x51" in data[:64] else data.index(b"\xff\xf7") + 5
    data[at : at + 2] = b"\x7f\xff"
    dataset.PixelData = bytes(data)
    dataset.save_as(files.paths[1])
    rule, measured = refused(files.paths)
    assert rule == "size" and measured["declared"] == [36, 40]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (36, 40), (40000, 3)])
def test_sizes_are_read_from_streams(rows: int, columns: int) -> None:
    """JPEG 2000 streams as OpenJPEG writes them."""
    if min(rows, columns) >= 32:
        assert encoded_size(bytes(encode_array(np.zeros((rows, columns), np.uint16)))) == (rows, columns)
    assert encoded_size(
        b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc3\x00\x0b\x10" + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    ) == (rows, columns)
    assert encoded_size(b"\xff\xd8") is None and encoded_size(b"\xff\xd8" + b"\xff\xfe\x00\x00" * 9) is None


def test_absurd_sizes_behind_compression_are_refused(series: Callable) -> None:
    """3 GB declared in a file of 2 kB: against the project's limit, and against what its bytes can stand for."""
    files = series()

    def grow(dataset: Dataset, k: int) -> None:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.Rows = dataset.Columns = 39000

    files.edit(grow, 0)
    assert refused(files.paths)[0] == "too_large"
    files.edit(lambda dataset, k: setattr(dataset, "Rows", 300), 0)
    rule, measured = refused(files.paths)
    assert rule == "truncated" and measured["declared_bytes"] == 300 * 39000 * 2


@pytest.mark.parametrize("frames", [2, 10_000, 2**31 - 1])
def test_a_frame_count_that_lies_is_refused(series: Callable, frames: int) -> None:
    """Whatever a single-frame object says of its frames, it is no volume."""
    files = series()
    files.edit(lambda dataset, k: setattr(dataset, "NumberOfFrames", frames), 0)
    assert refused(files.paths)[0] in ("truncated", "too_large", "not_single_frame")


@pytest.mark.parametrize("runs", [1, 3, 200])
@pytest.mark.parametrize("last", [1, 3, 200])
def test_runs_that_overflow_their_segment_are_refused(series: Callable, runs: int, last: int) -> None:
    """RLE that unpacks to more or less than the frame: the decoder's own panic becomes a refusal."""
    files = series()

    def overflow(dataset: Dataset, k: int) -> None:
        segments = [b"\x81\x07" * runs, b"\x81\x07" * last]
        offsets = [64, 64 + len(segments[0])]
        code = struct.pack("<16I", 2, *offsets, *[0] * 13) + b"".join(segments)
        dataset.PixelData = encapsulate([code])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = RLELossless

    files.edit(overflow, 1)
    try:
        values = read(files.paths).volume.array  # what overflows may be cut off, as other readers do
        assert values.shape == (7, 5, 4)
    except ExamError as error:
        assert error.rule == "undecodable"


def test_compressed_pixels_that_stand_twice_are_refused(series: Callable) -> None:
    """Readers disagree on which of them count; padding behind them is allowed."""
    files = series()
    by_pydicom(RLELossless)(files.paths[1])
    raw = files.paths[1].read_bytes()
    files.paths[1].write_bytes(raw + b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0\0\0")
    np.testing.assert_array_equal(read(files.paths).volume.array, files.hu)
    files.paths[1].write_bytes(raw + raw[raw.index(b"\xe0\x7f\x10\x00") :])
    assert refused(files.paths)[0] == "undecodable"
