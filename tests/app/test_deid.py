"""`redraft deid`: rules in words, proof, copies and the audited way back, on a project of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from redraft.deid.reveal import EVENT
from redraft.project import Project
from tests.redraft.deid.objects import ct

NAME, NUMBER = "Abendroth^Leopoldine", "KH-0098812"


@pytest.fixture
def project(copy: Callable[[str], Path]) -> Path:
    """An empty project whose vault knows one patient."""
    root = copy("empty")
    opened = Project.open(root)
    series = opened.pseudonyms.series_id("1.2.3.4.5.6")
    subject = opened.pseudonyms.subject_id(NUMBER)
    opened.vault.put_link(
        "series", series, {"PatientID": NUMBER, "PatientName": NAME, "folder": "/scans/week 3", "source": "archive"}
    )
    opened.vault.put_link("subject", subject, {"patient_id": NUMBER})
    return root


def test_the_rules_are_told_for_this_projects_options(redraft: Callable, project: Path) -> None:
    """Every attribute of the table and the list has one rule; options show."""
    answer = redraft("deid", "describe", "--project", project, "--json")
    content = json.loads(answer.out)
    rules = {rule["keyword"]: rule for rule in content["rules"]}
    assert rules["PatientName"]["words"] == "replaced by the subject's pseudonym"
    assert rules["StudyDescription"]["words"] == "removed"
    assert "moved back" in rules["StudyDate"]["words"]
    assert sum(content["counts"].values()) == len(content["rules"]) > 900
    words = redraft("deid", "describe", "--project", project, "--all").out
    assert "(0010,0010)" in words and "113100" in words and "Kept: geometry" in words


def test_a_clean_project_is_proved_clean_and_a_note_spoils_it(redraft: Callable, project: Path) -> None:
    """Against the vault: exit code 0 with what was searched; 1 with the place, and never the name."""
    clean = redraft("deid", "check", project, "--against", "vault:", "--project", project, "--json")
    assert clean.code == 0, clean.out
    assert json.loads(clean.out)["searched"]["git objects"] > 0
    (project / "notes.txt").write_text("remember Leopoldine Abendroth")
    for as_json in (["--json"], []):
        found = redraft("deid", "check", project, "--against", "vault:", "--project", project, *as_json)
        assert found.code == 1
        assert "notes.txt" in found.out
        assert "abendroth" not in (found.out + found.err).lower()


def test_a_sources_name_is_nobodys(redraft: Callable, project: Path, who: Any) -> None:
    """The vault's links name the source; receipts and reasons may, too, whether project.yaml still knows it or not."""
    (project / "notes.txt").write_text("restored from the archive")
    assert redraft("deid", "check", project, "--against", "vault:", "--project", project).code == 0
    subject = Project.open(project).pseudonyms.series_id("1.2.3.4.5.6")
    common = (*who(project, "ops"), "--project", project)
    assert redraft("deid", "reveal", subject, "--reason", "gone from the archive", *common).code == 0


def test_a_list_of_identifiers_is_a_file(redraft: Callable, project: Path, tmp_path: Path) -> None:
    """One per line; a list that is not there, and a path that is not there, are mistakes."""
    listed = tmp_path / "list.txt"
    listed.write_text(f"{NAME}\n{NUMBER}\n", encoding="utf-8")
    assert redraft("deid", "check", project, "--against", listed).code == 0
    assert redraft("deid", "check", project, "--against", tmp_path / "none.txt").code == 2
    assert redraft("deid", "check", project / "none", "--against", listed).code == 2


def test_a_json_list_is_read_as_one(redraft: Callable, project: Path, tmp_path: Path) -> None:
    """As lines, its quotation marks would be part of each identifier, and nothing would ever be found."""
    (project / "notes.txt").write_text("remember Leopoldine Abendroth")
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([NUMBER, NAME], indent=1), encoding="utf-8")
    answer = redraft("deid", "check", project, "--against", listed, "--json")
    assert answer.code == 1 and {row["identifier"] for row in json.loads(answer.out)["found"]} == {2}
    for text, code in (('{"name": "x"}', 2), ("[1, 2]", 2), ("[4711/3]\nLeopoldine", 1)):
        listed.write_text(text)
        assert redraft("deid", "check", project, "--against", listed).code == code


def test_whose_a_pseudonym_is_is_shown_after_it_is_on_record(redraft: Callable, project: Path, who: Any) -> None:
    """The ledger keeps who asked and why, never the identity; nothing is recorded where nothing was shown."""
    opened = Project.open(project)
    subject = opened.pseudonyms.subject_id(NUMBER)

    auditor = who(project, "auditor")

    def ask(pseudonym: str, by: Any = auditor, reason: str = "incidental finding"):  # type: ignore[no-untyped-def]
        return redraft("deid", "reveal", pseudonym, *by, "--reason", reason, "--project", project, "--json")

    def events() -> list[dict[str, object]]:
        return [row for row in Project.open(project).ledger.rows("audit_event") if row["kind"] == EVENT]

    answer = ask(subject)
    assert json.loads(answer.out)[0]["identity"] == {"patient_id": NUMBER}
    assert [row["payload"]["pseudonym"] for row in events()] == [subject]  # type: ignore[index]
    assert NUMBER not in json.dumps(events(), default=str)
    assert ask("f" * 20).code == 1
    assert ask(subject, reason=f"about {NUMBER}").code == 2
    assert ask(subject, reason=" ").code == 2
    refused = ask(subject, by=who(project, "approver", login="alma"))
    assert refused.code == 1 and json.loads(refused.out)["error"]["code"] == "sign_in.role"
    assert len(events()) == 1
    assert redraft("audit", "verify", "--project", project).code == 0


def test_copies_are_named_by_pseudonyms_and_refusals_by_rule(redraft: Callable, project: Path, tmp_path: Path) -> None:
    """What is copied holds no identifier; what is not, is told with its rule and the exit code."""
    folder, out, listed = tmp_path / "in", tmp_path / "out", tmp_path / "list.txt"
    folder.mkdir()
    ct().save_as(folder / "Abendroth_1.dcm", enforce_file_format=True)
    ct(SOPInstanceUID="1.2.3.8", Modality="US").save_as(folder / "2.dcm", enforce_file_format=True)
    ct(SOPInstanceUID="1.2.3.10", PixelData=b"KH-0098812"[:8]).save_as(folder / "3.dcm", enforce_file_format=True)
    ct(SOPInstanceUID="1.2.3.9", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11").save_as(
        folder / "4.dcm", enforce_file_format=True
    )
    (folder / "readme.txt").write_text("no DICOM")
    answer = redraft("deid", "copy", folder, out, "--project", project, "--json")
    assert answer.code == 1
    content = json.loads(answer.out)
    rules = {Path(row["path"]).name: row["rule"] for row in content["not_copied"]}
    assert rules == {"2.dcm": "modality_with_text", "4.dcm": "class_not_reviewed", "readme.txt": "not_dicom"}
    written = sorted(out.rglob("*.dcm"))
    assert len(written) == content["copied"] == 2
    ds = pydicom.dcmread(written[0])
    assert written[0].name == f"{ds.SOPInstanceUID}.dcm" and ds.PatientIdentityRemoved == "YES"
    listed.write_text(f"{NAME}\n{NUMBER}\n1.2.3.4.5.6.7\n", encoding="utf-8")
    assert redraft("deid", "check", out, "--against", listed).code == 0
    again = redraft("deid", "copy", folder, out, "--project", project, "--json")
    assert json.loads(again.out)["copied"] == 2


def test_an_identifier_in_the_pixels_is_not_copied(redraft: Callable, project: Path, tmp_path: Path) -> None:
    """A comment inside of compressed pixels is no header, and still is read."""
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = NAME.encode().ljust(24)
    ct(Rows=3, Columns=4, PixelData=pixels).save_as(folder / "1.dcm", enforce_file_format=True)
    answer = redraft("deid", "copy", folder, tmp_path / "out", "--project", project, "--json")
    assert [row["rule"] for row in json.loads(answer.out)["not_copied"]] == ["identifier_in_pixels"]
