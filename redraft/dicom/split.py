"""One series into its volumes: identical copies dropped, 4D and several echoes told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from redraft.dicom.frames import SPLIT_KEYS, Frame
from redraft.dicom.geometry import duplicates
from redraft.errors import GeometryError


def drop_copies(frames: Sequence[Frame], digest: Callable[[Frame], str]) -> tuple[list[Frame], int]:
    """Drop identical copies of a slice, by their pixels; refuse conflicting copies and several volumes."""
    geometry = [frame.geometry for frame in frames]
    if any(len(item.position) != 3 or len(item.orientation) != 6 for item in geometry):
        return list(frames), 0  # series_geometry says what is missing
    drop: set[int] = set()
    for group in duplicates(geometry):
        for key in SPLIT_KEYS:
            if len({frames[n].keys.get(key, "") for n in group}) == len(group):
                raise GeometryError("One series holds several volumes.", rule="several_volumes", measured={"by": key})
        if len({digest(frames[n]) for n in group}) > 1:
            measured: dict[str, object] = {"slices": len(group)}
            raise GeometryError("Slices at one position differ.", rule="conflicting_duplicates", measured=measured)
        drop.update(sorted(group, key=lambda n: frames[n].uid)[1:])
    return [frame for n, frame in enumerate(frames) if n not in drop], len(drop)


def values_digest(frame: Frame) -> str:
    """SHA-256 of a frame's real-world values: two copies of one slice agree in it."""
    from redraft.dicom.stack import real_values

    return hashlib.sha256(real_values(frame).tobytes()).hexdigest()
