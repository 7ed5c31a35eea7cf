"""Annotation backends. One contract: packages go out, signed-off results come in, bad ones go back with the reason."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from redraft.config.schema import Reader, Structure, StructureKind
from redraft.digest import sha256_bytes, sha256_file
from redraft.errors import LabelError, ReadError
from redraft.files import write_text
from redraft.reader_model import EffortParameters, VolumeParameters, simulate_reader
from redraft.reasons import BY_CODE
from redraft.security.keys import KeyRing
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.read import read_segmentation
from redraft.signing import same_token, sign_result, token, verify_result
from redraft.volumes import Volume, read_volume, write_volume
from tasks.dispatch.contract import Minutes, Result, Task
from tasks.dispatch.packages import DRAFT, IMAGE, LABEL, REJECTION, RESULT, TASK

# What a reader may hand in; NIfTI is what is kept.
LABELS = (LABEL, "label.nrrd", "label.seg.nrrd", "label.dcm")
CONVERTED = ".converted.nii.gz"
Bad = Callable[[str, str, str], LabelError]  # rule, what, do


@dataclass(frozen=True)
class Returned:
    """A finished piece of work as it lies in its package; without a label where the reader sent the exam back."""

    assignment_id: str
    label: Path | None
    label_sha256: str | None
    result: Result


class Backend(Protocol):
    """How work reaches readers and comes back."""

    def collect(self, outstanding: Sequence[str], failed: Callable[[str, LabelError], None]) -> Iterator[Returned]:
        """Finished work among the outstanding assignments; unreadable work goes to `failed` and is left in place."""
        ...

    def hand_out(self, assignments: Iterable[str], failed: Callable[[str, LabelError], None]) -> None:
        """Bring packages that are made to where readers work; again does no harm. What could not be goes to `failed`
        and is tried again by `collect`."""
        ...

    def send_back(self, assignment_id: str, reasons: Iterable[str]) -> None:
        """Move a bad return aside and tell the reader why; nothing is deleted."""
        ...


class FolderBackend:
    """Packages in a shared folder; a result.json beside the label says that the work is finished.

    A label handed in as NRRD, DICOM SEG or RTSTRUCT is converted to NIfTI beside it; the file itself stays as it is.

    Parameters
    ----------
    structures : sequence of Structure
        With codes and aliases, by which segments are told.
    exams : function, optional
        Exam id to its geometry; without it no DICOM label is taken, for its frame of reference could not be compared.
    keys : KeyRing, optional
        Verifies signatures; without keys nothing that calls itself measured or simulated is taken.
    attempts : function, optional
        Assignment id to its attempt now; without it a token is compared with the package's own.
    """

    simulated = False

    def __init__(
        self,
        work: Path,
        structures: Sequence[Structure] = (),
        exams: Callable[[str], ExamGeometry] | None = None,
        *,
        keys: KeyRing | None = None,
        attempts: Callable[[str], int] | None = None,
    ):
        self.work = work
        self.structures, self._exams = structures, exams
        self.keys, self._attempts = keys, attempts

    def collect(self, outstanding: Sequence[str], failed: Callable[[str, LabelError], None]) -> Iterator[Returned]:
        """See Backend. A label without result.json is work in progress."""
        for assignment in sorted(outstanding):
            folder = self.work / assignment
            if not (folder / RESULT).exists():
                continue
            try:
                yield self._read(assignment, folder)
            except LabelError as error:
                failed(assignment, error)

    def strangers(self, known: set[str]) -> list[str]:
        """Folders with results that belong to no assignment of this project."""
        if not self.work.is_dir():
            return []
        found = [p.name for p in self.work.iterdir() if p.is_dir() and not p.name.startswith(".partial-")]
        return sorted(name for name in found if name not in known and (self.work / name / RESULT).exists())

    def hand_out(self, assignments: Iterable[str], failed: Callable[[str, LabelError], None]) -> None:
        """See Backend. The package is all there is."""

    def send_back(self, assignment_id: str, reasons: Iterable[str]) -> None:
        """See Backend."""
        folder = self.work / assignment_id
        number = 1 + len(list(folder.glob("returned-*")))
        aside = folder / f"returned-{number}"
        aside.mkdir(exist_ok=True)
        text = "This segmentation could not be accepted:\n" + "".join(f"- {reason}\n" for reason in reasons)
        write_text(folder / REJECTION, text + "Mend it, save the label again and write a new result.json.\n")
        for name in (RESULT, *LABELS, CONVERTED):  # result.json first: without it the work counts as unfinished
            if (folder / name).exists():
                (folder / name).replace(aside / name)

    def label_of(self, assignment_id: str) -> Path | None:
        """The label of a package as NIfTI; None where there is none (or none was converted yet)."""
        paths = [self.work / assignment_id / name for name in (LABEL, CONVERTED)]
        return next((path for path in paths if path.is_file()), None)

    def _read(self, assignment: str, folder: Path) -> Returned:
        def bad(rule: str, what: str, do: str) -> LabelError:
            return LabelError(f"Assignment {assignment}: {what}", do, rule=rule)

        home = self.work.resolve() / assignment
        for name in (
            RESULT,
            TASK,
            *LABELS,
            CONVERTED,
        ):  # a link could pass off any file of this machine as a reader's work
            path = folder / name
            if (
                path.is_symlink()
                or os.path.realpath(path) != str(home / name)
                or (path.exists() and not path.is_file())
            ):
                raise bad("link", f"{name} is a link or no plain file.", "Put the file itself into the package.")
        try:
            result = Result.model_validate(json.loads((folder / RESULT).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            fields = ""
            if isinstance(error, ValidationError):
                fields = f" ({', '.join('.'.join(map(str, e['loc'])) for e in error.errors()[:4])})"
            raise bad("result", f"result.json is not valid{fields}.", "See docs/readers.md for its form.") from error
        try:
            task = Task.model_validate(json.loads((folder / TASK).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise bad("task", "task.json is missing or was changed.", "Put it back as it was handed out.") from error
        if (result.assignment_id, result.reader_id) != (assignment, task.reader_id):
            raise bad("foreign", "result.json belongs to another assignment or reader.", "Put it where it belongs.")
        if not set(result.minutes) <= {"exam", *(s.name for s in task.structures)}:
            raise bad("result", "minutes name structures that task.json does not list.", "Use its names, or `exam`.")
        self._check_words(result, task, bad)
        self._check_token(result, task, bad)
        labels = [folder / name for name in LABELS if (folder / name).is_file()]
        if result.no_label:
            if labels:
                raise bad(
                    "result", "it says no_label, and a label is there.", "Take the label out, or say no_label: false."
                )
            self._check_signature(result, None, bad)
            return Returned(assignment, None, None, result)
        if not labels:
            raise bad("no_label", "label.nii.gz is missing.", "Save the segmentation, then write result.json.")
        if len(labels) > 1:
            names = ", ".join(path.name for path in labels)
            raise bad("several_labels", f"it holds several labels ({names}).", "Leave the one that counts.")
        (label,) = labels
        self._check_signature(result, label, bad)
        if label.name != LABEL:
            label = self._converted(label, task, bad)
        try:
            with gzip.open(label) as stream:  # to its end: only there its checksum tells a damaged copy
                while stream.read(1 << 22):
                    pass
            read_volume(label)
        except (ReadError, OSError, EOFError, zlib.error) as error:
            # Colours instead of labels are no damage: judged on arrival, they go back to their reader with the reason.
            if not (isinstance(error, ReadError) and error.rule == "not_scalar"):
                do = "Save it again; it may be half copied."
                raise bad("unreadable", "label.nii.gz cannot be read.", do) from error
        return Returned(assignment, label, sha256_file(label), result)

    def _check_words(self, result: Result, task: Task, bad: Bad) -> None:
        """Verdict, reason and origin fit the task and one another."""
        if result.no_label:
            reason = BY_CODE.get(result.reason_code or "")
            if result.verdict != "reject" or reason is None or not reason.no_label:
                known = ", ".join(code for code, item in BY_CODE.items() if item.no_label)
                raise bad("result", "no_label needs verdict `reject` and a reason for it.", f"Reasons: {known}.")
            if reason.assisted_only and task.mode == "from_scratch":
                raise bad("result", "the reason speaks of a draft, and there is none.", "Give another reason.")
        elif (task.mode == "from_scratch") != (result.verdict == "scratch"):
            known = "scratch" if task.mode == "from_scratch" else "accept, correct or reject"
            raise bad("result", f"verdict `{result.verdict}` does not fit an exam worked {task.mode}.", f"Say {known}.")
        if result.verdict == "reject" and not result.reason_code:
            raise bad("result", "a rejected draft needs a reason_code.", "Say why the draft was of no use.")
        if (result.simulated or result.origin == "simulated") != self.simulated:
            raise bad("result", "simulated minutes come from the simulated backend only.", "Say how they were taken.")

    def _check_token(self, result: Result, task: Task, bad: Bad) -> None:
        """The answer is to this package in this attempt. Packages of older versions hold no token and need none."""
        if not task.token:
            return
        wanted = task.token
        if self.keys is not None and self._attempts is not None:
            wanted = token(self.keys, task.assignment_id, task.reader_id, self._attempts(task.assignment_id))
        if not same_token(result.token, wanted):
            raise bad(
                "token", "result.json does not carry the token of this package as it was handed out last.",
                "Take `token` from task.json as it is now: an answer to an earlier handing-out does not count.",
            )  # fmt: skip

    def _check_signature(self, result: Result, label: Path | None, bad: Bad) -> None:
        """Who says that minutes were measured or simulated must have measured or simulated them."""
        if result.origin not in ("measured", "simulated"):
            return
        sha256 = None if label is None else sha256_file(label)
        if self.keys is None or not verify_result(self.keys, result.model_dump(mode="json"), sha256):
            raise bad(
                "unsigned", f"minutes are called {result.origin} without a valid signature for them and this label.",
                "Only redraft's own backends sign. Say `typed` or `imported`, whichever is true.",
            )  # fmt: skip

    def _converted(self, label: Path, task: Task, bad: Bad) -> Path:
        """The label as NIfTI: written anew each time, so that nobody can slip another file in its place."""
        told = [Structure(name=s.name, value=s.value, kind=StructureKind(s.kind)) for s in task.structures]
        if self._exams is None and label.suffix != ".nrrd":
            raise bad("exam_record", "a DICOM label needs the exam's record.", "Save it as NIfTI or NRRD.")
        try:
            if self._exams is not None:
                exam = self._exams(task.exam_id)
            else:
                exam = ExamGeometry.of_image(task.exam_id, read_volume(label.with_name(IMAGE)))
            labels = read_segmentation(label, exam, self.structures or told)
        except (LabelError, ReadError) as error:
            raise bad(error.rule, error.what[:1].lower() + error.what[1:], error.do) from error
        target = label.with_name(CONVERTED)
        write_volume(target, exam.grid.like(labels))
        return target


class ReviewBackend(FolderBackend):
    """Work done in the browser: the server (tasks.dispatch.review) writes label and signed result into the packages.

    Only what it measured itself counts: a result that somebody typed into a package belongs to the folder backend.
    """

    def _check_words(self, result: Result, task: Task, bad: Bad) -> None:
        super()._check_words(result, task, bad)
        if result.origin != "measured":
            raise bad(
                "unsigned", f"this project's work is done in the browser, and the minutes are {result.origin}.",
                "Open the exam in the work list; a label made elsewhere can be uploaded there.",
            )  # fmt: skip


class SimulatedBackend(FolderBackend):
    """Simulated readers that work on the same packages and hand in the same files as people would."""

    simulated = True

    def __init__(
        self, work: Path, truth: Callable[[str, Volume], NDArray[np.uint8]], structures: Sequence[Structure],
        readers: Sequence[Reader], parameters: EffortParameters | VolumeParameters, seed: int, *, keys: KeyRing,
        attempts: Callable[[str], int] | None = None,
    ) -> None:  # fmt: skip
        """`truth` takes an exam id and its image and returns label values on its grid."""
        super().__init__(work, structures, keys=keys, attempts=attempts)
        self._signing = keys
        self.truth, self.seed, self.parameters = truth, seed, parameters
        self.readers = {reader.id: reader for reader in readers}

    def collect(self, outstanding: Sequence[str], failed: Callable[[str, LabelError], None]) -> Iterator[Returned]:
        """Let the simulated readers do what is outstanding, then collect it."""
        for assignment in sorted(outstanding):
            folder = self.work / assignment
            if (folder / TASK).exists() and not (folder / RESULT).exists():
                self._read_exam(folder)
        yield from super().collect(outstanding, failed)

    def _read_exam(self, folder: Path) -> None:
        task = Task.model_validate(json.loads((folder / TASK).read_text(encoding="utf-8")))
        image = read_volume(folder / IMAGE)
        draft = read_volume(folder / DRAFT).array if task.mode == "assisted" else None
        reader = self.readers[task.reader_id]
        # By assignment, so that a result does not depend on who worked before.
        key = int(sha256_bytes(f"{self.seed}/{task.assignment_id}".encode())[:16], 16)
        back = simulate_reader(
            self.truth(task.exam_id, image), draft, image.spacing, self.structures, reader, self.parameters,
            np.random.default_rng(key),
        )  # fmt: skip
        write_volume(folder / LABEL, image.like(back.labels))
        result = Result(
            assignment_id=task.assignment_id, reader_id=task.reader_id, verdict=back.verdict,
            reason_code=back.reason_code, voxels_changed=back.voxels_changed, origin="simulated", simulated=True,
            minutes={name: Minutes(active=round(value, 4)) for name, value in back.minutes_per_structure.items()},
            token=task.token,
        )  # fmt: skip
        signature = sign_result(self._signing, result.model_dump(mode="json"), sha256_file(folder / LABEL))
        result = result.model_copy(update={"signature": signature})
        write_text(folder / RESULT, json.dumps(result.model_dump(mode="json"), indent=1) + "\n")
