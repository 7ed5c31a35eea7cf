"""A label made in another program, brought into the workstation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.servers.web import WebServer
from tests.web.conftest import wait_until
from tests.web.made import exam_name
from tests.web.test_workstation import open_exam, saved, shown, stored, work_on

pytestmark = pytest.mark.usefixtures("with_ui")


def test_an_uploaded_label_is_shown_saved_and_can_be_undone(
    site: WebServer, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    """A file on another grid changes nothing and is refused in words; one on this grid becomes the drawing."""
    work, login = work_on(site.project, "oblique")
    image = nib.load(site.project.work / work / "image.nii.gz")
    row = site.project.ledger.one("exam", exam_id=exam_name("oblique"))
    assert row is not None
    record = {
        "exam_id": row["exam_id"], "subject_id": row["subject_id"], "modality": "CT", "shape": row["shape"],
        "affine_ras": row["affine"],
    }  # fmt: skip
    site.project.image(row["exam_id"]).with_name("exam.json").write_text(json.dumps(record))
    drawn = np.zeros(image.shape, np.uint8)
    drawn[5:15, 6:12, 3:9] = 1
    nib.save(nib.Nifti1Image(drawn, image.affine), tmp_path / "label.nii.gz")
    moved = image.affine.copy()
    moved[:3, 3] += 20
    nib.save(nib.Nifti1Image(drawn, moved), tmp_path / "other.nii.gz")
    page = open_page(site, login)
    open_exam(page, work)
    before = shown(page, image.shape)
    page.get_by_text("Drawn in another program").click()
    page.locator("#upload").set_input_files(tmp_path / "other.nii.gz")
    wait_until(page, "document.getElementById('say').textContent.toLowerCase().includes('grid')")
    assert np.array_equal(shown(page, image.shape), before)
    page.locator("#upload").set_input_files(tmp_path / "label.nii.gz")
    wait_until(page, "document.getElementById('say').textContent.includes('taken over')")
    assert np.array_equal(shown(page, image.shape), drawn)
    assert np.array_equal(stored(page, work, image.shape), drawn)
    page.locator("#title").click()
    page.keyboard.press("Control+z")
    saved(page)
    assert np.array_equal(stored(page, work, image.shape), before)
