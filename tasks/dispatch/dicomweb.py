"""The `dicomweb` backend: drafts stand in the PACS beside their images, corrected segmentations are picked up there.

A segmentation belongs to the assignment whose draft it refers to (the draft's object, or the tracking UIDs of its
segments), else to the one whose work code its description names. Where both speak and differ, or several are named, it
is nobody's: named and left. A PACS knows no minutes: the results say `imported` and hold none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.digest import sha256_file
from redraft.errors import IntegrityError, LabelError, ReadError, RedraftError
from redraft.files import write_text
from redraft.pacs_returns import Found
from redraft.security.keys import KeyRing
from redraft.segmentation.exam import ExamGeometry
from redraft.signing import sign_result
from redraft.volumes import read_volume, write_volume
from tasks.dispatch.backends import FolderBackend, Returned
from tasks.dispatch.contract import Result, Task
from tasks.dispatch.packages import DRAFT, LABEL, RESULT, TASK
from tasks.dispatch.pacs_work import Draft, Pacs, owner

Failed = Callable[[str, LabelError], None]
# Which object of the PACS the package's label is, by pseudonym; moves to returned-N with it.
PICKED_UP = "picked_up.json"


class DicomWebBackend(FolderBackend):
    """Packages as ever, and the PACS beside them.

    What stands in a package finished by hand (a result.json, for a rejected draft, say) is taken as the folder backend
    takes it, and the PACS is not asked.

    Parameters
    ----------
    done : function
        Assignments of the round whose work is in already: a later change in the PACS is named.
    """

    def __init__(
        self, work: Path, structures: Sequence[Structure], exams: Callable[[str], ExamGeometry], *, pacs: Pacs,
        done: Callable[[], Iterable[str]], keys: KeyRing, attempts: Callable[[str], int],
    ) -> None:  # fmt: skip
        super().__init__(work, structures, exams, keys=keys, attempts=attempts)
        self._pacs, self._done, self._geometry, self._key_ring = pacs, done, exams, keys
        self._unknown: set[str] = set()

    # -- out ----------------------------------------------------------------------------------------------------------
    def hand_out(self, assignments: Iterable[str], failed: Failed) -> None:
        """Store the drafts of assisted work; what is stored already is not stored again."""
        there, _ = self._pacs.stored()
        tasks = [task for name in sorted(set(assignments) - there) if (task := self._task(name)) is not None]
        self._store([task for task in tasks if task.mode == "assisted"], failed)

    def _store(self, tasks: Sequence[Task], failed: Failed) -> None:
        if not tasks:
            return
        for assignment, rule, why in self._pacs.store(tasks):
            if rule is not None:
                what = f"Assignment {assignment}: its draft is not in the PACS ({rule}). {why}"
                failed(assignment, LabelError(what, "It is stored when work is collected again.", rule="not_stored"))

    # -- back ---------------------------------------------------------------------------------------------------------
    def collect(self, outstanding: Sequence[str], failed: Failed) -> Iterator[Returned]:
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

    def _pick_up(self, waiting: Mapping[str, Task], failed: Failed) -> None:
        tasks = dict(waiting)
        for name in sorted(set(self._done()) - set(waiting)):
            if (finished := self._task(name)) is not None:
                tasks[name] = finished
        there, own = self._pacs.stored()
        drafts = {name: self._pacs.draft(name, task) for name, task in tasks.items()}
        exams: dict[str, ExamGeometry] = {}
        for exam_id in sorted({task.exam_id for task in tasks.values()}):
            here = {name: task for name, task in tasks.items() if task.exam_id == exam_id}
            try:
                exam = exams[exam_id] = self._geometry(exam_id)
                found = self._pacs.look(exam)
            except RedraftError as error:
                for name in sorted(set(here) & set(waiting)):
                    failed(name, _left(name, error))
                if error.code == "service.unreachable":
                    return  # each of the others would wait as long
                continue
            theirs = [one for one in found if one.sop_instance not in own]
            mine = self._sorted(theirs, here, drafts, set(waiting), failed)
            for name in sorted(here):
                fresh = [one for one in mine.get(name, ()) if one.sop_instance not in self._seen(name)]
                if fresh:
                    self._take(here[name], exam, fresh, failed, late=name not in waiting)
                elif name in waiting and name in there and drafts[name].instance not in {f.sop_instance for f in found}:
                    what = "Its draft was deleted from the PACS and is stored again."
                    failed(name, _left(name, LabelError(what, "Nothing needs to be done.", rule="draft_gone")))
                    self._store([here[name]], failed)
        self._astray(waiting, exams, drafts, failed)

    def _sorted(
        self, found: Sequence[Found], here: Mapping[str, Task], drafts: Mapping[str, Draft], waiting: set[str],
        failed: Failed,
    ) -> dict[str, list[Found]]:  # fmt: skip
        """The segmentations in one exam's study, by the assignment whose work each is; the others are named."""
        mine: dict[str, list[Found]] = {}
        torn: set[str] = set()
        for one in found:
            try:
                name = owner(one, drafts.values())
            except LabelError as error:
                named = error.measured["assignments"]
                assert isinstance(named, list)
                torn |= set(named)
                for other in sorted(waiting & set(named)):
                    failed(other, _left(other, error))
                continue
            if name in here:
                mine.setdefault(str(name), []).append(one)
            elif name is not None and name in waiting:
                failed(name, _left(name, _elsewhere()))
            elif name is None and one.codes:
                self._unknown |= {f"pacs-{one.sop_instance}"}
        return {name: listed for name, listed in mine.items() if name not in torn}

    def _take(self, task: Task, exam: ExamGeometry, found: Sequence[Found], failed: Failed, *, late: bool) -> None:
        name = task.assignment_id
        try:
            if late:
                what = "Its segmentation in the PACS was changed after the work had been taken in."
                do = "Ask a reviewer to open the work again if the change matters; it is left where it is."
                raise LabelError(what, do, rule="revised_later")
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
        result = result.model_copy(
            update={"signature": sign_result(self._key_ring, result.model_dump(mode="json"), digest)}
        )
        # Last: what a crash leaves before is picked up again.
        write_text(folder / RESULT, json.dumps(result.model_dump(mode="json"), indent=1) + "\n")

    def _astray(
        self, waiting: Mapping[str, Task], exams: Mapping[str, ExamGeometry], drafts: Mapping[str, Draft],
        failed: Failed,
    ) -> None:  # fmt: skip
        """Name work that was stored in a study which no exam of this work is of."""
        open_now = {drafts[name].code: name for name in waiting if self._waits(name)}
        if not open_now:
            return
        try:
            codes = self._pacs.elsewhere(exams.values())
        except RedraftError:
            return  # only a hint: the studies themselves were looked at
        for name in sorted(open_now[code] for code in codes & set(open_now)):
            failed(name, _left(name, _elsewhere()))

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


def _elsewhere() -> LabelError:
    what = "A segmentation that names this work lies in the study of another exam."
    return LabelError(what, "Store it in the study of its image.", rule="other_exam")


def _left(assignment: str, error: RedraftError) -> LabelError:
    """An error as what happened to one assignment; other work goes on."""
    rule = error.rule if isinstance(error, LabelError | ReadError) else error.code.replace(".", "_")
    if isinstance(error, IntegrityError):
        rule = "originals"
    measured = error.measured if isinstance(error, LabelError | ReadError) else None
    what = error.what[:1].lower() + error.what[1:] if error.what[:2] != error.what[:2].upper() else error.what
    return LabelError(f"Assignment {assignment}: {what}", error.do, rule=rule, measured=measured)
