"""Names, values and colours of the structures, as desktop tools read them.

3D Slicer: colour table (.ctbl; developer guide, "Color table file format"). ITK-SNAP: label description. MITK: label
preset and multi-label stack (.mitklabel.json; "MITK Stacked Segmentation Format", read from MITK 2024.12 on).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from redraft.config.schema import Structure
from redraft.segmentation.colours import colours

SLICER, ITK_SNAP, MITK_PRESET = "labels.ctbl", "labels.label.txt", "labels.mitklabel.json"
MITK_DRAFT = "draft.mitklabel.json"
_SNAP_HEAD = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def tables(structures: Sequence[Structure], draft: str | None = None) -> dict[str, str]:
    """Texts by file name; `draft` is the label file that MITK's stack shows, None where there is none."""
    found = {
        SLICER: slicer(structures),
        ITK_SNAP: itk_snap(structures),
        MITK_PRESET: mitk(structures, "preset"),
    }
    return found if draft is None else found | {MITK_DRAFT: mitk(structures, "stack", draft)}


def slicer(structures: Sequence[Structure]) -> str:
    """A discrete colour table: value, name, red, green, blue, opacity."""
    listed = colours([s.name for s in structures])
    lines = [f"{s.value} {s.name} {' '.join(map(str, listed[s.name]))} 255" for s in _by_value(structures)]
    head = f"# Color table file {SLICER}\n# {len(lines) + 1} values\n0 Background 0 0 0 0\n"
    return head + "\n".join(lines) + "\n"


def itk_snap(structures: Sequence[Structure]) -> str:
    """A label description: value, colour, opacity, visible in slices and in 3D, name."""
    listed = colours([s.name for s in structures])
    lines = []
    for s in _by_value(structures):
        red, green, blue = listed[s.name]
        lines.append(f'{s.value:5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{s.name}"')
    return _SNAP_HEAD + "\n".join(lines) + "\n"


def mitk(structures: Sequence[Structure], kind: str, file: str | None = None) -> str:
    """Labels of one group; with a file beside it they are a segmentation, without one a preset for a new one."""
    listed = colours([s.name for s in structures])
    labels: list[Mapping[str, object]] = [
        {
            "name": s.name, "value": s.value, "color": [round(part / 255, 6) for part in listed[s.name]],
            "opacity": 0.6, "locked": False, "visible": True, "tracking_id": s.name,
        }
        for s in _by_value(structures)
    ]  # fmt: skip
    group: dict[str, object] = {"name": "structures", "labels": labels}
    if file is not None:
        group["_file"] = f"./{file}"
    content = {"version": 3, "type": f"org.mitk.multilabel.segmentation.{kind}", "groups": [group]}
    return json.dumps(content, indent=1) + "\n"


def _by_value(structures: Sequence[Structure]) -> list[Structure]:
    return sorted(structures, key=lambda s: s.value)
