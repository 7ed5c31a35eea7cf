"""`redraft label`: take in work that readers have finished; write segmentations to files or into a PACS."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json
from app.cli.identity import PasswordFileOption, prove
from app.cli.label_words import why

if TYPE_CHECKING:
    from redraft.project import Project
    from redraft.segmentation.export import Item

label_app = typer.Typer(help="Exchange work with annotation tools.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(label_app, name="label")


@label_app.command("import")
def import_(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Judge what readers have put into their work packages; refused work goes back with its reasons."""
    from flows.runtime import prefect_for
    from redraft import rounds

    project = open_project(project_dir)
    number = int(rounds.get(project, None)["number"])
    with prefect_for(project):
        from flows.close_round import receive_labels

        out = receive_labels(str(project.root), number)
    if as_json:
        print_json(out.model_dump(mode="json"))
        return
    print(f"{out.valid} annotations taken in, {len(out.refused)} sent back.")
    for count, words in ((out.in_review, "wait for a reviewer"), (out.rejected, "came back without a segmentation")):
        if count:
            print(f"  {count} {words}")
    if timeless := _without_times(project, number):
        print(f"  {timeless} of this round came without minutes; `redraft time import` adds them")
    for assignment, rules in sorted(out.refused.items()):
        print(f"  {assignment}: {', '.join(rules)} (see RETURNED.txt in its package)")
    for name, rule in sorted(out.unreadable.items()):
        print(f"  {name}: {why(rule)}; left where it is")


def _without_times(project: Project, number: int) -> int:
    """Valid annotations of a round that hold no minutes: from tools that take none (a PACS)."""
    ledger = project.ledger
    own = {row["assignment_id"] for row in ledger.rows("assignment", round=number)}
    found = ledger.rows("annotation", origin="imported", state="valid")
    return sum(
        row["assignment_id"] in own and not ledger.rows("time_entry", annotation_id=row["annotation_id"])
        for row in found
    )


class _Format(StrEnum):
    seg = "seg"
    rtstruct = "rtstruct"
    nifti = "nifti"
    nrrd = "nrrd"


class _What(StrEnum):
    annotations = "annotations"
    drafts = "drafts"


@label_app.command()
def export(
    kind: Annotated[_Format, typer.Option("--format", help="What to write.")],
    project_dir: ProjectOption = Path("."),
    number: Annotated[int | None, typer.Option("--round", help="Of this round only.", show_default="all")] = None,
    exam: Annotated[list[str] | None, typer.Option(help="Of this exam only; may be given several times.")] = None,
    what: Annotated[_What, typer.Option(help="Readers' annotations, or the model's drafts.")] = _What.annotations,
    out: Annotated[Path | None, typer.Option(help="Folder to write into.")] = None,
    to: Annotated[str | None, typer.Option(metavar="SOURCE", help="Store on this DICOMweb source instead.")] = None,
    by: Annotated[str, typer.Option(metavar="LOGIN", help="With --to: who sends; the role ops.")] = "",
    reason: Annotated[str, typer.Option(help="With --to: why.")] = "",
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write segmentations to files under pseudonyms, or store them in a PACS under the original images' names.

    With --to each segmentation refers to the original images, found through the vault and compared one by one; who
    sent what where and why is recorded in the ledger before anything leaves.
    """
    from redraft.errors import UsageError
    from redraft.segmentation.export import collect

    if (out is None) == (to is None):
        raise UsageError("Say where to: a folder or a DICOMweb source.", "Give either --out DIR or --to SOURCE.")
    if to is not None and kind is not _Format.seg:
        raise UsageError(f"A PACS is sent DICOM SEG, not {kind}.", "Use --format seg with --to.")
    if to is None and (by or reason):
        raise UsageError("--by and --reason belong to --to.", "Leave them out, or give --to SOURCE.")
    if to is not None and not (by.strip() and reason.strip()):
        raise UsageError("An export to a PACS needs who sends it and why.", "Give --by and --reason.")
    project = open_project(project_dir)
    items = collect(project, what.value, number=number, exams=exam or ())
    if out is not None:
        _to_files(project, items, kind, out, as_json)
    elif to is not None:
        _to_pacs(project, items, to, by, reason, password_file, as_json)


def _to_files(project: Project, items: list[Item], kind: _Format, out: Path, as_json: bool) -> None:
    from redraft.segmentation.export import write

    outcome = write(project, items, kind.value, out)
    if as_json:
        print_json({"out": str(out), "exported": outcome.exported, "left_out": outcome.left_out})
    else:
        print(f"{len(outcome.exported)} segmentations written to {out}; {outcome.manifest.name} lists them.")
        for row in outcome.left_out:
            print(f"  {row['exam_id']}: not written [{row['rule']}]: {row['why']}")
    if outcome.left_out:
        raise typer.Exit(1)


def _to_pacs(
    project: Project, items: list[Item], to: str, by: str, reason: str, password_file: str | None, as_json: bool
) -> None:
    from datetime import UTC, datetime

    from redraft.gateway import ROLES, send

    who = prove(project, by, password_file, roles=ROLES, act="export")
    done = []
    for sent in send(project, items, to, by=who, reason=reason, clock=lambda: datetime.now(UTC)):
        done.append(sent)
        if not as_json:
            print(f"{sent.exam_id}: " + ("stored" if sent.ok else f"not stored [{sent.rule}]: {sent.why}"))
    failed = sum(not sent.ok for sent in done)
    if as_json:
        print_json({"to": to, "sent": [vars(sent) for sent in done]})
    else:
        print(f"{len(done) - failed} of {len(done)} segmentations stored on {to}.")
    if failed:
        raise typer.Exit(1)
