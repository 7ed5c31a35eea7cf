"""The `dicomweb` backend: drafts stand in the PACS beside their images, corrected segmentations are picked up there.

A segmentation belongs to the assignment whose draft it refers to (the draft's object, or the tracking UIDs of its
segments), else to the one whose work code its description names. Where both speak and differ, or several are named, it
is nobody's: named and left. A PACS knows no minutes: the results say `imported` and hold none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.digest import sha256_file
from redraft.errors import IntegrityError, LabelError, ReadError, RedraftError
from redraft.files import write_text
from redraft.pacs_returns import Found
from redraft.segmentation.exam import ExamGeometry
from redraft.volumes import read_volume, write_volume
from tasks.dispatch.backends import FolderBackend, Returned
from tasks.dispatch.contract import Result, Task
from tasks.dispatch.packages import DRAFT, LABEL, RESULT, TASK

# Which object of the PACS the package's label is, by pseudonym; moves to returned-N with it.
PICKED_UP = "picked_up.json"


@dataclass(frozen=True)
class Draft:
    """One assignment as the PACS sees it; all UIDs are pseudonyms.

    Attributes
    ----------
    code : str
        What descriptions call the assignment.
    instance : str or None
        Of the draft's object; None where nothing is stored (from scratch).
    marks : frozenset of str
        Of the draft's object and its segments' tracking UIDs: what refers to any of them was made from this draft.
    """

    assignment_id: str
    code: str
    instance: str | None = None
    marks: frozenset[str] = frozenset()


class Pacs(Protocol):
    """What this backend needs of a PACS; see tasks.dispatch.open_backend."""

    def draft(self, assignment_id: str, task: Task) -> Draft:
        """How an assignment is known there; asks nothing of the server."""
        ...

    def stored(self) -> tuple[set[str], set[str]]:
        """Assignments whose draft is there, and pseudonyms of every object that redraft ever stored."""
        ...

    def store(self, tasks: Sequence[Task]) -> Iterator[tuple[str, str | None, str]]:
        """Store drafts: assignment, the rule by which it is not there (None when it is), and why."""
        ...

    def look(self, exam: ExamGeometry) -> list[Found]:
        """Segmentations in the exam's study."""
        ...

    def elsewhere(self, exams: Iterable[ExamGeometry]) -> frozenset[str]:
        """Work codes that segmentations outside of these exams' studies name."""
        ...

    def labels(self, found: Found, exam: ExamGeometry) -> NDArray[np.uint8]:
        """Label values of one of them."""
        ...

    def took(self, task: Task, found: Found, label_sha256: str) -> None:
        """Record what was picked up."""
        ...


def owner(found: Found, drafts: Iterable[Draft]) -> str | None:
    """The assignment that a segmentation is the work of; None where it names none of these.

    Raises LabelError (rule ambiguous_assignment; `measured` lists them) where it could be the work of several.
    """
    drafts = list(drafts)
    made_from = {d.assignment_id for d in drafts if d.marks & found.refers_to}
    called = {d.assignment_id for d in drafts if d.code in found.codes}
    if not (named := made_from | called):
        return None
    if len(named) == 1:
        return named.pop()
    raise LabelError(
        "A segmentation in the PACS could be the work of several assignments.",
        "Store it again, made from one draft and with one work code in its series description.",
        rule="ambiguous_assignment", measured={"assignments": sorted(named)},
    )  # fmt: skip


class DicomWebBackend(FolderBackend):
    """Packages as ever, and the PACS beside them.

    What stands in a package finished by hand (a result.json, for a rejected draft, say) is taken as the folder backend
    takes it, and the PACS is not asked.

    Parameters
    ----------
    done : function
        Assignments of the round whose work is in already, with their exams: a later change in the PACS is named.
    sign : function
        Result and label's SHA-256 to a signature.
    """

    def __init__(
        self, work: Path, structures: Sequence[Structure], exams: Callable[[str], ExamGeometry], *, pacs: Pacs,
        done: Callable[[], Mapping[str, str]], sign: Callable[[Result, str], str],
    ) -> None:  # fmt: skip
        super().__init__(work, structures, exams)
        self._pacs, self._done, self._sign, self._geometry = pacs, done, sign, exams
        self._unknown: set[str] = set()

    # -- out ----------------------------------------------------------------------------------------------------------
    def hand_out(self, assignments: Iterable[str], failed: Callable[[str, LabelError], None]) -> None:
        """Store the drafts of assisted work; what is stored already is not stored again."""
        there, _ = self._pacs.stored()
        tasks = [task for name in sorted(set(assignments) - there) if (task := self._task(name)) is not None]
        self._store([task for task in tasks if task.mode == "assisted"], failed)

    def _store(self, tasks: Sequence[Task], failed: Callable[[str, LabelError], None]) -> None:
        if not tasks:
            return
        for assignment, rule, why in self._pacs.store(tasks):
            if rule is not None:
                what = f"Assignment {assignment}: its draft is not in the PACS ({rule}). {why}"
                failed(assignment, LabelError(what, "It is stored when work is collected again.", rule="not_stored"))

    # -- back ---------------------------------------------------------------------------------------------------------
    def collect(self, outstanding: Sequence[str], failed: Callable[[str, LabelError], None]) -> Iterator[Returned]:
        """See Backend: what is stored in the PACS is put into its package, and collected from there."""
        self.hand_out(outstanding, failed)
        self._unknown = set()
        waiting = {name: task for name in sorted(outstanding) if (task := self._task(name)) and self._waits(name)}
        self._pick_up(waiting, failed)
        yield from super().collect(outstanding, failed)

    def strangers(self, known: set[str]) -> list[str]:
        """See FolderBackend; and segmentations that name a work code which no assignment has."""
        return sorted([*super().strangers(known), *self._unknown])

    def send_back(self, assignment_id: str, reasons: Iterable[str]) -> None:
        """See Backend. What was refused is not picked up again; a new segmentation is."""
        folder = self.work / assignment_id
        before = set(folder.glob("returned-*"))
        super().send_back(assignment_id, reasons)
        for aside in set(folder.glob("returned-*")) - before:
            if (folder / PICKED_UP).is_file():
                (folder / PICKED_UP).replace(aside / PICKED_UP)

    def _pick_up(self, waiting: Mapping[str, Task], failed: Callable[[str, LabelError], None]) -> None:
        by_exam: dict[str, list[Task]] = {}
        for task in waiting.values():
            by_exam.setdefault(task.exam_id, []).append(task)
        done = {name: exam for name, exam in self._done().items() if name not in waiting}
        for name, exam in done.items():
            if (task := self._task(name)) is not None:
                by_exam.setdefault(exam, []).append(task)
        _, own = self._pacs.stored()
        exams: dict[str, ExamGeometry] = {}
        for exam_id, tasks in sorted(by_exam.items()):
            names = [task.assignment_id for task in tasks if task.assignment_id in waiting]
            try:
                exam = exams[exam_id] = self._geometry(exam_id)
                found = self._pacs.look(exam)
            except RedraftError as error:
                for name in names:
                    failed(name, _left(name, error))
                if error.code == "service.unreachable":
                    return  # each of the others would wait as long
                continue
            self._of_exam(exam, tasks, set(names), found, own, failed)
        self._astray(waiting, exams, failed)

    def _of_exam(
        self, exam: ExamGeometry, tasks: Sequence[Task], waiting: set[str], found: Sequence[Found], own: set[str],
        failed: Callable[[str, LabelError], None],
    ) -> None:  # fmt: skip
        drafts = {task.assignment_id: self._pacs.draft(task.assignment_id, task) for task in tasks}
        mine: dict[str, list[Found]] = {name: [] for name in drafts}
        torn: set[str] = set()
        for one in found:
            if one.sop_instance in own:
                continue
            try:
                name = owner(one, drafts.values())
            except LabelError as error:
                named = error.measured["assignments"]
                assert isinstance(named, list)
                torn |= set(named)
                for name in waiting & set(named):
                    failed(name, _left(name, error))
                continue
            if name is not None:
                mine[name].append(one)
            elif one.codes:
                self._unknown |= {f"pacs-{one.sop_instance}"}
        present = {one.sop_instance for one in found}
        for task in tasks:
            name = task.assignment_id
            fresh = [one for one in mine[name] if one.sop_instance not in self._seen(name)]
            if name not in waiting:
                if fresh:
                    what = "Its segmentation in the PACS was changed after the work had been taken in."
                    do = "Ask a reviewer to open the work again if the change matters; it is left where it is."
                    failed(name, _left(name, LabelError(what, do, rule="revised_later")))
            elif fresh and name not in torn:
                self._take(task, exam, fresh, failed)
            elif not fresh and (instance := drafts[name].instance) is not None and instance not in present:
                what = "Its draft was deleted from the PACS and is stored again."
                failed(name, _left(name, LabelError(what, "Nothing needs to be done.", rule="draft_gone")))
                self._store([task], failed)

    def _take(
        self, task: Task, exam: ExamGeometry, found: Sequence[Found], failed: Callable[[str, LabelError], None]
    ) -> None:
        name = task.assignment_id
        try:
            one, labels = self._latest(found, exam)
            self._finish(task, exam, one, labels, len(found) - 1)
        except RedraftError as error:
            failed(name, _left(name, error))

    def _latest(self, found: Sequence[Found], exam: ExamGeometry) -> tuple[Found, NDArray[np.uint8]]:
        """The segmentation that counts: the one made last. Several made at one time must hold the same voxels."""
        if unreferenced := [one for one in found if one.series and exam.series not in one.series]:
            what = "A segmentation in the PACS names this work but was drawn on another series."
            measured: dict[str, object] = {"objects": len(unreferenced)}
            raise LabelError(what, "Draw on the series of the draft.", rule="other_series", measured=measured)
        last = max(one.at for one in found)
        latest = sorted((one for one in found if one.at == last), key=lambda one: one.sop_instance)
        first, *others = ((one, self._pacs.labels(one, exam)) for one in latest)
        if any(not np.array_equal(first[1], labels) for _, labels in others):
            what = "The PACS holds several segmentations of this work, and nothing says which came last."
            raise LabelError(what, "Delete those that do not count.", rule="several_labels")
        return first

    def _finish(self, task: Task, exam: ExamGeometry, found: Found, labels: NDArray[np.uint8], superseded: int) -> None:
        folder = self.work / task.assignment_id
        for name in (LABEL, PICKED_UP, RESULT):
            if (folder / name).is_symlink():
                raise LabelError(f"{name} is a link.", "Take it out of the package.", rule="link")
        verdict: Literal["accept", "correct", "scratch"] = "scratch"
        if task.mode == "assisted":
            draft = np.rint(read_volume(folder / DRAFT).array).astype(np.uint8)
            verdict = "accept" if np.array_equal(draft, labels) else "correct"
        write_volume(folder / LABEL, exam.grid.like(labels))
        digest = sha256_file(folder / LABEL)
        self._pacs.took(task, found, digest)
        picked = {"schema_version": 1, "sop_instance": found.sop_instance, "superseded": superseded}
        write_text(folder / PICKED_UP, json.dumps(picked) + "\n")
        result = Result(
            assignment_id=task.assignment_id, reader_id=task.reader_id, token=task.token, verdict=verdict, minutes={},
            origin="imported",
        )  # fmt: skip
        result = result.model_copy(update={"signature": self._sign(result, digest)})
        # Last: what a crash leaves before is picked up again.
        write_text(folder / RESULT, json.dumps(result.model_dump(mode="json"), indent=1) + "\n")

    def _astray(
        self, waiting: Mapping[str, Task], exams: Mapping[str, ExamGeometry],
        failed: Callable[[str, LabelError], None],
    ) -> None:  # fmt: skip
        """Name work that was stored in a study which no exam of this work is of."""
        open_now = {
            self._pacs.draft(name, task).code: name for name, task in waiting.items()
            if not (self.work / name / RESULT).exists()
        }  # fmt: skip
        if not open_now:
            return
        try:
            codes = self._pacs.elsewhere(exams.values())
        except RedraftError:
            return  # only a hint: the studies themselves were looked at
        for name in sorted(open_now[code] for code in codes & set(open_now)):
            what = "A segmentation that names this work lies in another study."
            failed(name, _left(name, LabelError(what, "Store it in the study of its image.", rule="other_exam")))

    # -- what is known of a package -----------------------------------------------------------------------------------
    def _task(self, name: str) -> Task | None:
        try:
            return Task.model_validate(json.loads((self.work / name / TASK).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return None  # collecting says so where there is a result; else there is nothing to do yet

    def _waits(self, name: str) -> bool:
        return not (self.work / name / RESULT).exists()

    def _seen(self, name: str) -> set[str]:
        """Objects of the PACS that were picked up for an assignment, refused ones among them."""
        folder = self.work / name
        paths = list(folder.glob(f"returned-*/{PICKED_UP}"))
        if (folder / RESULT).exists():  # without it a crash came in between, and it is picked up again
            paths.append(folder / PICKED_UP)
        return {instance for path in paths if (instance := _instance(path))}


def _instance(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["sop_instance"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _left(assignment: str, error: RedraftError) -> LabelError:
    """An error as what happened to one assignment; other work goes on."""
    rule = error.rule if isinstance(error, LabelError | ReadError) else error.code.replace(".", "_")
    if isinstance(error, IntegrityError):
        rule = "originals"
    measured = error.measured if isinstance(error, LabelError | ReadError) else None
    what = error.what[:1].lower() + error.what[1:] if error.what[:2] != error.what[:2].upper() else error.what
    return LabelError(f"Assignment {assignment}: {what}", error.do, rule=rule, measured=measured)
