"""One series into its volumes: identical copies dropped, 4D and several echoes told apart.

A series holds several volumes where several frames lie at one place. An attribute that tells them apart splits the
series when every part then has the same places; a part with a slice less would be a volume with a hole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from redraft.dicom.frames import Frame
from redraft.dicom.geometry import places
from redraft.errors import GeometryError

# From what means another volume by definition to what only numbers acquisitions.
SPLIT_KEYS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime", "EffectiveEchoTime",
    "DiffusionBValue", "DiffusionDirectionality", "DiffusionGradientOrientation", "InversionTime", "InversionTimes",
    "FrameReferenceTime", "TemporalPositionTimeOffset", "NominalCardiacTriggerDelayTime", "FrameType", "ImageType",
    "ComplexImageComponent", "AcquisitionNumber", "FrameAcquisitionNumber",
)  # fmt: skip
# Never two in one volume, wherever its slices lie: volumes that were moved against each other share no place.
VOLUME_KEYS = ("TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "DiffusionBValue")
# Differs from place to place: only the order within one place means a volume (phases of a heartbeat).
ORDER_KEYS = ("TriggerTime",)


@dataclass
class Part:
    """The frames of one volume, unsorted; `key` is empty where a series holds only one."""

    key: str
    frames: list[Frame]


def split(frames: Sequence[Frame], digest: Callable[[Frame], str]) -> tuple[list[Part], int]:
    """The volumes of a series, in the order of their keys, and the number of identical copies that were dropped.

    Parameters
    ----------
    frames : sequence of Frame
        With positions, all of one orientation.
    digest : function
        Of a frame's values; asked only where frames lie at one place and nothing else tells them apart.

    Raises
    ------
    GeometryError
        several_volumes (what tells them apart leaves unequal parts, or no part can be kept apart from another one),
        conflicting_duplicates.
    """
    at = places([frame.geometry for frame in frames])
    label: list[tuple[tuple[str, str], ...]] = [()] * len(frames)
    kept, dropped = _without_copies(range(len(frames)), lambda n: (frames[n].uid, frames[n].number, at[n]),
                                    lambda n: digest(frames[n]))  # fmt: skip
    if len({(frames[n].uid, frames[n].number) for n in kept}) < len(kept):
        raise GeometryError(
            "One image lies at several places.", "Send the series again.", rule="conflicting_duplicates"
        )
    apart: dict[str, set[tuple[str, str]]] = {}
    ragged: dict[str, object] = {}
    for key in (*SPLIT_KEYS, *ORDER_KEYS):
        if max(Counter((label[n], at[n]) for n in kept).values()) == 1:
            break
        if key in ORDER_KEYS:
            values = _ranks(frames, at, label, kept, key)
        else:
            values = {n: frames[n].keys.get(key, "") for n in kept}

        finer = {n: (*label[n], (key, values[n])) for n in kept}
        if not _tells_apart(finer, label, at, kept):
            continue
        if sizes := _unequal(finer, at, kept):
            ragged = ragged or {"by": key, "slices": sizes}
            if key not in ORDER_KEYS:
                apart[key] = _pairs(values, label, at, kept)
            continue
        for n in kept:
            label[n] = finer[n]
    names = sorted({label[n] for n in kept}, key=_natural)
    parts = []
    for name in names:
        members, copies = _without_copies([n for n in kept if label[n] == name], lambda n: at[n],
                                          lambda n: digest(frames[n]), ragged)  # fmt: skip
        dropped += copies
        _of_one_volume([frames[n] for n in members], apart)
        key = ",".join(f"{attribute}={value}" for attribute, value in name)
        parts.append(Part(key, [frames[n] for n in members]))
    return parts, dropped


def check_turns(frames: Sequence[Frame]) -> None:
    """Refuse slices, given in order, of several volumes by turns: no resampling may mix them.

    Raises
    ------
    GeometryError
        several_volumes.
    """
    for key in SPLIT_KEYS:
        values = [frame.keys.get(key, "") for frame in frames]
        runs = 1 + sum(one != other for one, other in pairwise(values))
        if runs > len(set(values)):
            raise GeometryError(
                "Slices of several volumes lie between each other.", "Send them as series of their own.",
                rule="several_volumes", measured={"by": key, "volumes": len(set(values))},
            )  # fmt: skip


def _without_copies(
    members: Sequence[int], same: Callable[[int], object], digest: Callable[[int], str],
    ragged: dict[str, object] | None = None,
) -> tuple[list[int], int]:  # fmt: skip
    """Members without further copies of equal values; refused where what should be the same differs."""
    groups: dict[object, list[int]] = {}
    for n in members:
        groups.setdefault(same(n), []).append(n)
    for group in groups.values():
        if len(group) > 1 and len({digest(n) for n in group}) > 1:
            if ragged:
                raise GeometryError(
                    "One series holds several volumes of unequal slices.", "Send them as series of their own.",
                    rule="several_volumes", measured=ragged,
                )  # fmt: skip
            measured: dict[str, object] = {"slices": len(group)}
            raise GeometryError("Slices at one position differ.", rule="conflicting_duplicates", measured=measured)
    return sorted(group[0] for group in groups.values()), len(members) - len(groups)


def _tells_apart(
    finer: dict[int, tuple[tuple[str, str], ...]], label: Sequence[object], at: Sequence[int], kept: Sequence[int]
) -> bool:
    """Whether frames at one place come apart."""
    return len({(finer[n], at[n]) for n in kept}) > len({(label[n], at[n]) for n in kept})


def _unequal(finer: dict[int, tuple[tuple[str, str], ...]], at: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Numbers of places of the parts where they differ in them; empty where all parts have the same places."""
    parts: dict[object, set[int]] = {}
    for n in kept:
        parts.setdefault(finer[n], set()).add(at[n])
    everywhere = {at[n] for n in kept}
    return [] if all(part == everywhere for part in parts.values()) else sorted(map(len, parts.values()))[:10]


def _pairs(
    values: dict[int, str], label: Sequence[object], at: Sequence[int], kept: Sequence[int]
) -> set[tuple[str, str]]:
    """Values of a key that tell frames of one place apart, and so mean two volumes."""
    together: dict[object, set[str]] = {}
    for n in kept:
        together.setdefault((label[n], at[n]), set()).add(values[n])
    return {pair for group in together.values() for pair in combinations(sorted(group), 2)}


def _of_one_volume(frames: Sequence[Frame], apart: Mapping[str, set[tuple[str, str]]]) -> None:
    """Refuse a part that holds slices of two volumes: a slice of one phase in the place of another's."""
    by = ""
    for key, pairs in apart.items():
        found = {frame.keys.get(key, "") for frame in frames}
        if any(a in found and b in found for a, b in pairs):
            by = by or key
    for key in VOLUME_KEYS:
        counts = Counter(frame.keys.get(key, "") for frame in frames)
        # A number of its own for every slice counts slices, whatever it is called.
        if 1 < len(counts) < len(frames):
            by = by or key
    if by:
        raise GeometryError(
            "Slices of several volumes cannot be told apart.", "Send each volume as a series of its own.",
            rule="several_volumes", measured={"by": by},
        )  # fmt: skip


def _ranks(
    frames: Sequence[Frame], at: Sequence[int], label: Sequence[object], kept: Sequence[int], key: str
) -> dict[int, str]:
    """The place of each frame in the order of an attribute among those at its place; empty where it is not in all."""
    ranks = dict.fromkeys(kept, "")
    groups: dict[object, list[int]] = {}
    for n in kept:
        groups.setdefault((label[n], at[n]), []).append(n)
    for group in groups.values():
        try:
            times = {n: float(frames[n].keys.get(key, "")) for n in group}
        except ValueError:
            return dict.fromkeys(kept, "")
        if len(set(times.values())) < len(group):
            return dict.fromkeys(kept, "")
        ranks.update({n: f"#{rank}" for rank, n in enumerate(sorted(group, key=times.__getitem__), 1)})
    return ranks


def _natural(name: tuple[tuple[str, str], ...]) -> list[tuple[int, float, str]]:
    """Sorts numbers by their value and before text."""
    found = []
    for _, value in name:
        try:
            found.append((0, float(value.lstrip("#")), ""))
        except ValueError:
            found.append((1, 0.0, value))
    return found
