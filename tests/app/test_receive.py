from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from redraft.project import Project
from tests.servers.dimse import NAMES, send, send_part, sender, series, wait_until

Call = Callable[..., Any]


@pytest.fixture
def project(copy: Callable[[str], Path], tmp_path: Path) -> Path:
    """A project with one source that receives."""
    root = copy("empty")
    return with_sources(root, tmp_path / "inbox", "modality")


def with_sources(root: Path, inbox: Path, *names: str) -> Path:
    """Let project.yaml name sources that receive."""
    path = root / "project.yaml"
    sources = [
        {
            "kind": "receive", "name": name, "ae_title": "REDRAFT", "port": 0, "bind": "127.0.0.1",
            "quiet_seconds": 0, "folder": str(inbox), "allow": [{"ae_title": "MODALITY", "host": "127.0.0.1"}],
        }
        for name in names
    ]  # fmt: skip
    text = re.sub(r"(?m)^  sources:.*\n", "", path.read_text())
    path.write_text(re.sub(r"(?m)^ingest:\n", f"ingest:\n  sources: {json.dumps(sources)}\n", text))
    assert len(Project.open(root).config.ingest.sources) == len(names)
    return root


@contextmanager
def receiving(project: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """The command in a process of its own: its port and what it said."""
    command = [sys.executable, "-m", "app.cli.main", "receive", "--project", str(project)]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    running = subprocess.Popen(
        command, env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert running.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = running.stdout.readline()
            assert line, running.stderr.read() if running.stderr else ""
            said += line
        found = re.search(r"listens on 127\.0\.0\.1:(\d+)", said)
        assert found
        yield running, int(found[1]), said
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_receives_until_it_is_ended(project: Path, tmp_path: Path, number: signal.Signals, redraft: Call) -> None:
    """It says who may send and where to; at the end nothing is lost, it exits with 0, and --list shows the series."""
    (first, second) = series(1), series(2, side=512, name="b")
    with receiving(project) as (running, port, said):
        assert "MODALITY at 127.0.0.1" in said and "REDRAFT listens" in said and str(tmp_path / "inbox") in said
        with sender(port) as association:
            assert send(association, first) == [0x0000]
        with sender(port) as association:
            assert send(association, second[:1]) == [0x0000]
            rest = send_part(association, second[1], 0.5)
            wait_until(lambda: list((tmp_path / "inbox" / ".incoming").iterdir()), "the second's first bytes")
            running.send_signal(number)
            for fragment in rest:
                association.dul.send_pdu(fragment)
            assert running.wait(30) == 0
            wait_until(lambda: not association.dul.is_alive() or association.acse.is_aborted(), "the abort")
    listed = json.loads(redraft("receive", "--list", "--json", "--project", project).out)
    found = {entry["series_id"]: (entry["files"], entry["state"]) for entry in listed}
    assert found == {
        NAMES.series_id(first[0].SeriesInstanceUID): (1, "ready"),
        NAMES.series_id(second[0].SeriesInstanceUID): (2, "unfinished"),
    }


def test_a_person_can_vouch_for_an_unfinished_series(project: Path, redraft: Call) -> None:
    """--accept lets an intake take it; for a series that is not unfinished it is an error."""
    (sent,) = series(1)
    key = NAMES.series_id(sent.SeriesInstanceUID)
    with receiving(project) as (running, port, _), sender(port) as association:
        assert send(association, [sent]) == [0x0000]
        running.kill()
        running.wait()
    with receiving(project):  # what the killed one left is unfinished from now on
        pass
    assert "unfinished" in redraft("receive", "--list", "--project", project).out
    answer = redraft("receive", "--accept", key, "--project", project)
    assert answer.code == 0 and re.search(rf"{key} +1 +ready", answer.out)
    answer = redraft("receive", "--accept", key, "--project", project)
    assert answer.code == 2 and "--list" in answer.err


def test_which_source(project: Path, copy: Callable[[str], Path], tmp_path: Path, redraft: Call) -> None:
    """Without a source that receives, or with several and no --source, the error says what to give."""
    assert "unknown" not in redraft("receive", "--list", "--project", project).err
    with_sources(project, tmp_path / "inbox", "one", "two")
    answer = redraft("receive", "--list", "--project", project)
    assert answer.code == 2 and "one, two" in answer.err
    assert redraft("receive", "--list", "--source", "two", "--project", project).code == 0
    assert redraft("receive", "--list", "--source", "three", "--project", project).code == 2
    with_sources(project, tmp_path / "inbox")
    answer = redraft("receive", "--project", project)
    assert answer.code == 2 and "ingest.sources" in answer.err


def test_an_inbox_inside_the_project_is_refused(project: Path, redraft: Call) -> None:
    """It would be published with the project."""
    with_sources(project, project / "data" / "inbox", "modality")
    answer = redraft("receive", "--project", project)
    assert answer.code == 1 and "inside the project" in answer.err and not (project / "data" / "inbox").exists()
