"""`redraft deid`: what de-identification does, proof that it did, copies for sharing, and the way back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table
from app.cli.identity import PasswordFileOption, prove

if TYPE_CHECKING:
    from redraft.deid.check import Identifiers, Report

app = typer.Typer(help="De-identification: rules, proof, copies, the way back.", no_args_is_help=True)


@app.command("describe")
def describe(
    every: Annotated[bool, typer.Option("--all", help="Name every attribute, removed ones too.")] = False,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Say in words what is done with which attribute, made from the rules that are applied."""
    from redraft.deid.apply import Deidentifier
    from redraft.deid.describe import describe as describe_rules

    project = open_project(project_dir)
    content = describe_rules(project.config, Deidentifier.of(project.config, project.pseudonyms))
    if as_json:
        print_json(content)
        return
    _print_description(content, every=every)


def _print_description(content: dict[str, Any], *, every: bool) -> None:
    print(f"{content['profile']}, edition {content['edition']}")
    print(f"Options: {', '.join(content['options']) or 'none'}")
    print(f"Codes written (CID 7050): {', '.join(content['statement']['codes'])}\n")
    for line in content["general"]:
        print(f"- {line}")
    print(f"- Set aside unseen: modalities {', '.join(content['quarantine_modalities'])}; secondary captures; screen")
    print("  captures; encapsulated documents; whatever does not say NO to burned-in text where it says anything.")
    print_table(["attributes", "what is done"], [[n, words] for words, n in content["counts"].items()], "In numbers")
    groups = {row["group"]: row["why"] for row in content["kept_groups"]}
    for group, why in groups.items():
        rows = [rule for rule in content["rules"] if rule["group"] == group]
        print(f"\nKept: {group} ({len(rows)}): {why}.")
        print("  " + ", ".join(rule["name"] for rule in rows))
    for option in content["options"]:
        rows = [rule for rule in content["rules"] if rule["group"] == f"option {option}"]
        print_table(["tag", "attribute", "what is done"], [[r["tag"], r["name"], r["words"]] for r in rows], option)
    if every:
        rows = [rule for rule in content["rules"] if rule["group"] == "table E.1-1"]
        cells = [[r["tag"], r["name"], r["action"], r["words"]] for r in rows]
        print_table(["tag", "attribute", "action", "what is done"], cells, "Table E.1-1")


@app.command("check")
def check(
    paths: Annotated[list[Path], typer.Argument(help="Folders and files to search.")],
    against: Annotated[str, typer.Option("--against", help="List of identifiers (one per line), or `vault:`.")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Prove that no identifier of a list is left: in files, databases, archives, git, names of files."""
    from redraft.deid.check import check as check_paths
    from redraft.errors import UsageError

    if missing := [path for path in paths if not path.exists() and not path.is_symlink()]:
        raise UsageError(f"{missing[0]} is not there.", "Give folders or files that exist.")
    report = check_paths(paths, _identifiers(against, project_dir))
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(1)


def _identifiers(against: str, project_dir: Path) -> Identifiers:
    from redraft.deid.check import Identifiers

    if against != "vault:":
        return Identifiers.read(Path(against))
    project = open_project(project_dir)
    known = (project.root / "project.yaml").read_text(encoding="utf-8")
    return Identifiers.from_vault(project.vault, [known])


def _print_report(report: Report) -> None:
    searched = ", ".join(f"{count} {what}" for what, count in report.searched.items())
    print(f"{report.identifiers} identifiers, searched in {searched}.")
    rows = [[item.identifier, item.place, item.offset, item.form, item.times] for item in report.found]
    if rows:
        print_table(["identifier", "where", "offset", "written as", "times"], rows, "FOUND")
    if report.not_read:
        print_table(["where", "why"], [list(item) for item in report.not_read], "NOT READ: nothing is proved of these")
    if report.not_checkable:
        numbers = ", ".join(map(str, report.not_checkable))
        print(f"\nToo short to be looked for (fewer than 4 characters): {numbers}. Nothing is proved of these.")
    print("\nNothing was found." if report.ok else f"\nNot clean: {len(rows)} findings.")


@app.command("reveal")
def reveal(
    pseudonym: Annotated[str, typer.Argument(help="Pseudonym of an exam, a series or a subject.")],
    by: Annotated[
        str, typer.Option("--by", metavar="LOGIN", help="Who asks: an account with the role ops or auditor.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept, so never quote the identity.")],
    password_file: PasswordFileOption = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Show whose a pseudonym is: with the project's keys only, and recorded before anything is shown."""
    from redraft.deid.reveal import ROLES
    from redraft.deid.reveal import reveal as reveal_links

    project = open_project(project_dir)
    who = prove(project, by, password_file, roles=ROLES, act="identity.reveal")
    links = reveal_links(project, pseudonym, by=who, reason=reason, now=datetime.now(UTC))
    if as_json:
        print_json(links)
        return
    for link in links:
        print(f"{link['kind']} {link['pseudonym']}")
        for name, value in link["identity"].items():
            print(f"  {name}: {value}")


@app.command("copy")
def copy(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files and folders, then the folder to write to.")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Write de-identified copies, named by pseudonymous UIDs; name each file that is not copied, with its rule."""
    from redraft.deid.apply import Deidentifier
    from redraft.deid.copy import copy as copy_files
    from redraft.errors import UsageError

    *sources, out = paths
    if not sources:
        raise UsageError("Give what to copy and where to.", "redraft deid copy PATH… OUT")
    if missing := [path for path in sources if not path.exists()]:
        raise UsageError(f"{missing[0]} is not there.", "Give folders or files that exist.")
    if out.exists() and (not out.is_dir() or any(out.resolve().is_relative_to(path.resolve()) for path in sources)):
        raise UsageError(f"{out} is no folder, or lies in what is copied.", "Give another folder to write to.")
    project = open_project(project_dir)
    rows = list(copy_files(sources, out, Deidentifier.of(project.config, project.pseudonyms)))
    refused = [row for row in rows if row.written is None]
    if as_json:
        print_json(
            {
                "copied": len(rows) - len(refused),
                "not_copied": [{"path": str(row.source), "rule": row.rule} for row in refused],
            }
        )
    else:
        for row in refused:
            print(f"{row.source}: {row.rule}")
        print(f"{len(rows) - len(refused)} files are in {out}, {len(refused)} were not copied.")
    if refused:
        raise typer.Exit(1)
