"""Decoders that pydicom's own plugins only find through another package: OpenJPEG's, and a fast one for RLE.

They are preferred to GDCM's, which ends the process on some wrong bytes; JPEG lossless has no other decoder.

The functions follow pydicom's plugin protocol (pydicom.pixels.decoders.base.Decoder.add_plugin).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

DECODER_DEPENDENCIES = {
    HTJ2KLossless: ("pylibjpeg-openjpeg>=2.0",),
    HTJ2KLosslessRPCL: ("pylibjpeg-openjpeg>=2.0",),
    HTJ2K: ("pylibjpeg-openjpeg>=2.0",),
    JPEG2000Lossless: ("pylibjpeg-openjpeg>=2.0",),
    JPEG2000: ("pylibjpeg-openjpeg>=2.0",),
    RLELossless: ("pylibjpeg-rle>=2.0",),
}


def is_available(uid: str) -> bool:
    """Whether the package that decodes a transfer syntax is installed."""
    return find_spec("rle" if uid == RLELossless else "openjpeg") is not None


def decode_jpeg_2000(source: bytes, runner: DecodeRunner) -> Any:
    """Decode one frame of JPEG 2000 or high-throughput JPEG 2000 (PS3.5 8.2.4, 8.2.14)."""
    from openjpeg import decode_pixel_data

    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    return decode_pixel_data(source, version=2, **runner.options)


def decode_rle(source: bytes, runner: DecodeRunner) -> Any:
    """Decode one frame of RLE (PS3.5 annex G)."""
    from rle.utils import decode_pixel_data

    runner.set_option("planar_configuration", 1)
    try:
        return decode_pixel_data(source, version=2, **runner.options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the Rust code panics on some wrong bytes, and a panic is no Exception
        raise ValueError(type(error).__name__) from None


def preferred(uid: str) -> str:
    """The plugin to decode a transfer syntax with; empty for any that pydicom finds."""
    available = get_decoder(UID(uid)).available_plugins
    choice = "pyjpegls" if uid in (JPEGLSLossless, JPEGLSNearLossless) else "redraft"
    return choice if choice in available else ""


def register() -> None:
    """Tell pydicom of these decoders; further calls change nothing."""
    for uid in DECODER_DEPENDENCIES:
        decoder = get_decoder(uid)
        if "redraft" not in decoder.available_plugins and is_available(uid):
            decoder.add_plugin("redraft", (__name__, "decode_rle" if uid == RLELossless else "decode_jpeg_2000"))
