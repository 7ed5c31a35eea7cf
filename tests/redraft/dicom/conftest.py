"""Small CT series on disk whose headers the tests alter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from redraft.dicom.geometry import SliceGeometry
from redraft.dicom.scan import Header, read_header
from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.phantom.identities import draw_identity
from redraft.phantom.series import Uids, exam_header, write_series
from redraft.volumes import Volume


def decimal(values: Sequence[float] | np.ndarray) -> list[str]:
    """Numbers as DS of at most 16 characters."""
    return [f"{value:.12g}"[:16] for value in np.asarray(values, float)]


@dataclass
class SeriesFiles:
    """One series: its files from foot to head, and what was drawn (columns, rows, slices)."""

    paths: list[Path]
    hu: np.ndarray

    def edit(self, change: Callable[[Dataset, int], None], *only: int) -> None:
        """Alter the headers of the given slices, or of all."""
        for k, path in enumerate(self.paths):
            if not only or k in only:
                dataset = pydicom.dcmread(path)
                change(dataset, k)
                dataset.save_as(path)

    def place(
        self, row: Sequence[float], column: Sequence[float], spacing: tuple[float, float], steps: Sequence[float],
        origin: Sequence[float] = (0, 0, 0),
    ) -> None:  # fmt: skip
        """Put slices at the given distances along the normal; spacing is that of PixelSpacing (between rows first)."""
        normal = np.cross(row, column)

        def move(dataset: Dataset, k: int) -> None:
            dataset.ImageOrientationPatient = decimal([*row, *column])
            dataset.ImagePositionPatient = decimal(np.asarray(origin) + steps[k] * normal)
            dataset.PixelSpacing = decimal(spacing)

        self.edit(move)

    def headers(self) -> list[Header]:
        found = [read_header(path) for path in sorted(self.paths)]
        assert all(isinstance(header, Header) for header in found)
        return found  # type: ignore[return-value]

    def slices(self) -> list[SliceGeometry]:
        return [
            SliceGeometry(
                h.numbers("ImagePositionPatient"), h.numbers("ImageOrientationPatient"), h.numbers("PixelSpacing"),
                (h.integer("Rows") or 0, h.integer("Columns") or 0),
            )
            for h in self.headers()
        ]  # fmt: skip

    def volume(self) -> Volume:
        """The series as intake reads it."""
        (found,) = open_series(self.paths, ReadRules()).volumes()
        if not isinstance(found, SeriesVolume):
            raise found
        return found.volume


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., SeriesFiles]:
    """Make a series of random values; each call another patient and series."""
    made = 0

    def make(shape: tuple[int, int, int] = (7, 5, 4), folder: Path | None = None) -> SeriesFiles:
        nonlocal made
        rng = np.random.default_rng(made)
        hu = rng.integers(-1024, 3072, shape).astype(np.int16)
        identity = draw_identity(rng, made, f"ACC{made}")
        uids = Uids.of(0, made, shape[2])
        folder = folder or tmp_path / f"series{made}"
        write_series(folder, exam_header(identity, uids, made, 0), identity, uids, hu, np.diag([2.0, 1.5, 3.0, 1.0]))
        made += 1
        found = sorted(folder.glob("IM*.dcm"), reverse=True)  # the phantom counts its files from the head down
        return SeriesFiles(found, hu)

    return make
