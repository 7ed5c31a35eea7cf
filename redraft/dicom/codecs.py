"""Decoders that pydicom's own plugins only find through another package: OpenJPEG's for HTJ2K, and a fast one for RLE.

The functions follow pydicom's plugin protocol (pydicom.pixels.decoders.base.Decoder.add_plugin).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL, RLELossless

DECODER_DEPENDENCIES = {
    HTJ2KLossless: ("pylibjpeg-openjpeg>=2.0",),
    HTJ2KLosslessRPCL: ("pylibjpeg-openjpeg>=2.0",),
    HTJ2K: ("pylibjpeg-openjpeg>=2.0",),
    RLELossless: ("pylibjpeg-rle>=2.0",),
}


def is_available(uid: str) -> bool:
    """Whether the package that decodes a transfer syntax is installed."""
    return find_spec("rle" if uid == RLELossless else "openjpeg") is not None


def decode_htj2k(source: bytes, runner: DecodeRunner) -> Any:
    """Decode one frame of high-throughput JPEG 2000 (PS3.5 8.2.14)."""
    from openjpeg import decode_pixel_data

    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    return decode_pixel_data(source, version=2, **runner.options)


def decode_rle(source: bytes, runner: DecodeRunner) -> Any:
    """Decode one frame of RLE (PS3.5 annex G)."""
    from rle.utils import decode_pixel_data

    runner.set_option("planar_configuration", 1)
    return decode_pixel_data(source, version=2, **runner.options)


def register() -> None:
    """Tell pydicom of these decoders; further calls change nothing."""
    for uid in DECODER_DEPENDENCIES:
        decoder = get_decoder(uid)
        if "redraft" not in decoder.available_plugins and is_available(uid):
            decoder.add_plugin("redraft", (__name__, "decode_rle" if uid == RLELossless else "decode_htj2k"))
