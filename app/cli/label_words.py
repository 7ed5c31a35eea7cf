"""Why finished work was left where it is, in words for whoever takes it in."""

from __future__ import annotations

# By the rule that collecting names (docs/readers.md has the same list).
WHY = {
    # the package
    "result": "result.json is not valid, or contradicts its task",
    "foreign": "result.json belongs to another assignment or reader",
    "token": "result.json answers an earlier handing-out; the token in task.json counts",
    "unsigned": "minutes are called measured or simulated without redraft's signature",
    "task": "task.json is missing or was changed",
    "link": "a file of the package is a link or no plain file",
    "no_label": "there is no label",
    "several_labels": "there are several labels, and nothing says which counts",
    "unreadable": "the label cannot be read; it may be half copied",
    "never_dispatched": "nobody was given this work, or a series in the PACS names a work code that nobody has",
    # the label, as NRRD or DICOM
    "frame_of_reference": "the label lies in another frame of reference than its image",
    "grid": "the label is on another grid than its image",
    "unknown_segment": "a segment is none of the project's structures",
    "ambiguous_segment": "a segment could be several of the project's structures",
    "no_segment": "no segment is one of the project's structures",
    "unknown_values": "the label holds values that no structure has",
    "not_integer": "the label holds values that are no integers",
    "bad_segmentation": "the segmentation object is not valid",
    "exam_record": "the exam's record lacks what a DICOM label is compared with",
    # the PACS
    "not_stored": "its draft is not in the PACS yet; it is stored again with the next collection",
    "draft_gone": "its draft was deleted from the PACS and was stored again",
    "service_unreachable": "the PACS does not answer",
    "originals": "the exam's original images are not found",
    "ambiguous_assignment": "a segmentation in the PACS could be the work of several assignments",
    "other_series": "a segmentation in the PACS names this work, but was drawn on another series",
    "other_exam": "a segmentation that names this work lies in the study of another exam",
    "revised_later": "the segmentation in the PACS was changed after the work had been taken in; nothing was replaced",
    "deleted": "the segmentation was deleted from the PACS while it was fetched",
    "too_large": "the segmentation is larger than its image allows",
    "truncated": "the segmentation ends before its last frame",
}


def why(rule: str) -> str:
    """One rule in words, with its name; the name alone where there are none."""
    return f"{WHY[rule]} [{rule}]" if rule in WHY else rule
