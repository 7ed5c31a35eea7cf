"""What a package says to the person who opens it: README.txt and result.template.json."""

from __future__ import annotations

import json
from collections.abc import Sequence

from redraft.config.schema import Structure
from redraft.reasons import reasons_for
from tasks.dispatch.colour_tables import ITK_SNAP, MITK_DRAFT, MITK_PRESET, SLICER
from tasks.dispatch.contract import Task
from tasks.dispatch.seg_package import DRAFT_SEG, SERIES

README, TEMPLATE = "README.txt", "result.template.json"
DRAFT_NRRD = "draft.seg.nrrd"


def template(task: Task) -> str:
    """result.json with everything filled in that is known.

    What only the reader knows is left as a question or empty, so that it is no valid result before it is answered.
    """
    verdict = "scratch" if task.mode == "from_scratch" else "accept | correct | reject"
    content = {
        "schema_version": 1, "assignment_id": task.assignment_id, "reader_id": task.reader_id, "token": task.token,
        "verdict": verdict, "reason_code": None, "remark": None, "no_label": False,
        "minutes": {name: {"active": None} for name in (*(s.name for s in task.structures), "exam")},
        "origin": "typed",
    }  # fmt: skip
    return json.dumps(content, indent=1) + "\n"


def readme(
    task: Task, structures: Sequence[Structure], *, dicom: bool = False, no_dicom: str | None = None,
    work_code: str | None = None, notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """The package in plain words.

    Parameters
    ----------
    dicom : bool
        Whether the package holds a DICOM series (and, with a draft, a SEG).
    no_dicom : str, optional
        Why it holds none although the project wants one.
    work_code : str, optional
        The code by which work in a PACS is told; see tasks.dispatch.dicomweb.
    notes : sequence of str
        Said of drafts, and so where there is one.
    """
    draft = task.mode == "assisted"
    parts = [_head(task, structures), _start(draft, dicom, no_dicom, notes), _tools(draft)]
    parts.append(_pacs(draft, work_code) if work_code else _finish(task))
    return "\n".join(parts)


def _head(task: Task, structures: Sequence[Structure]) -> str:
    lines = [f"Assignment {task.assignment_id}, for {task.reader_id}", ""]
    lines += [f"  value {s.value}: {s.name}" for s in structures]
    lines += [text for s in structures if s.protocol for text in ("", f"{s.name}: {s.protocol}")]
    return "\n".join(lines) + "\n"


def _start(draft: bool, dicom: bool, no_dicom: str | None, notes: Sequence[str]) -> str:
    lines = ["WHAT TO DO", ""]
    if draft:
        lines += ["Look at the draft on the image and correct it. A draft may be wrong anywhere.", *notes]
    else:
        lines += [
            "Draw the structures from scratch. There is no draft in this package; please do not look for one",
            "elsewhere: the time that drawing takes is what drafts are measured against.",
        ]
    if dicom:
        seg = f" with the draft {DRAFT_SEG} (DICOM SEG)" if draft else ""
        lines += ["", f"Tools that read DICOM only: the folder {SERIES}/ is the same image as a series{seg}."]
    elif no_dicom:
        lines += ["", f"There is no DICOM series in this package. {no_dicom}"]
    return "\n".join(lines) + "\n"


def _tools(draft: bool) -> str:
    slicer = (
        f"3D Slicer: open image.nii.gz, then {DRAFT_NRRD} (names and colours are in it). Correct in Segment Editor."
        if draft
        else f"3D Slicer: open image.nii.gz and the colour table {SLICER}. In Segment Editor add a segment for each\n"
        "  structure and give it the structure's name as listed above."
    )
    snap = f"Main image: image.nii.gz. {'Segmentation: draft.nii.gz. ' if draft else ''}Labels: {ITK_SNAP}"
    mitk = f"open image.nii.gz, then {MITK_DRAFT}" if draft else "open image.nii.gz; new segmentation"
    return (
        "TOOLS\n\n"
        f"{slicer}\n"
        "  Save the segmentation as label.seg.nrrd, or export it as label.nii.gz with image.nii.gz as reference.\n"
        f"ITK-SNAP: {snap} (Segmentation > Import label descriptions).\n"
        "  Save the segmentation image as label.nii.gz.\n"
        f"MITK: {mitk}; {MITK_PRESET} is the label preset (Segmentation view > Load label set preset).\n"
        "  Save as label.nrrd or label.nii.gz.\n\n"
        "Save into this folder, one file only: label.nii.gz, label.nrrd, label.seg.nrrd or label.dcm (DICOM SEG).\n"
        "Do not resample, crop or turn the image.\n"
    )


def _finish(task: Task) -> str:
    verdicts = (
        "  verdict      leave `scratch`"
        if task.mode == "from_scratch"
        else "  verdict      accept (the draft as it is: save it as the label), correct, or reject (of no use, drawn\n"
        "               anew; then give a reason_code such as draft_unusable)"
    )
    return (
        "WHEN IT IS FINISHED\n\n"
        f"Copy {TEMPLATE} to result.json and fill it in. Writing result.json says that the work is finished, so do it\n"
        "last. The token in it belongs to this package; leave it as it is.\n\n"
        f"{verdicts}\n"
        "  minutes      of work per structure, `exam` for what belongs to no single one; delete the lines of those\n"
        "               that you did not time\n"
        "  origin       typed (by hand), or imported (by a tool that timed it)\n"
        "  no_label     true, with verdict reject and one of these as reason_code, when the exam cannot be segmented;\n"
        f"               then put no label here: {_reasons(task)}\n"
        "  remark       anything else; please no names\n"
    )


def _reasons(task: Task) -> str:
    return ", ".join(item.code for item in reasons_for(task.mode) if item.no_label)


def _pacs(draft: bool, work_code: str) -> str:
    found = (
        f'Look in the PACS for the series "redraft draft {work_code}": it is the draft, beside its image. Correct it'
        if draft
        else "The project's data manager tells which study of the PACS it is. Draw there"
    )
    return (
        "IN THE PACS\n\n"
        f"{found} and store the result as a DICOM SEG series in the same study.\n"
        f'{"Where the tool lets you name the series, call it" if draft else "Call the series"} "redraft {work_code}".\n'
        "Storing it says that the work is finished. Nothing needs to be written into this folder; minutes can be told\n"
        "later (`redraft time import`).\n"
    )
