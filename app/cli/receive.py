"""`redraft receive`: the storage receiver (DICOM storage SCP) of a project, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table

if TYPE_CHECKING:
    from redraft.config.sources import ReceiveSource
    from redraft.project import Project
    from redraft.sources.protocol import SourceContext


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(receive)


def receive(
    project_dir: ProjectOption = Path("."),
    source: Annotated[str | None, typer.Option(help="Which `receive` source, where there are several.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Print what the inbox holds and end.")] = False,
    accept: Annotated[
        str | None,
        typer.Option(metavar="SERIES", help="Take an unfinished series (pseudonym) as whole, because you know it is."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Receive exams that scanners and PACS store here, until Ctrl-C; an intake takes them in."""
    from redraft.sources.protocol import SourceContext
    from redraft.sources.receive.inbox import InboxSource, inbox_folder
    from redraft.sources.receive.transfers import release

    project = open_project(project_dir)
    section = _section(project, source)
    context = SourceContext.of(project)
    inbox = inbox_folder(section, context)
    if accept is not None:
        from redraft.errors import UsageError

        if not inbox.is_dir() or not release(inbox, accept):
            raise UsageError(f"No series {accept} is unfinished here.", "`redraft receive --list` shows which are.")
    if show or accept is not None:
        waiting = InboxSource(section, inbox).waiting()
        if as_json:
            print_json([vars(series) for series in waiting])
        else:
            print_table(["series", "instances", "state"], [[w.series_id, w.files, w.state] for w in waiting])
        return
    _run(project, context, section, inbox, as_json)


def _run(project: Project, context: SourceContext, section: ReceiveSource, inbox: Path, as_json: bool) -> None:
    import logging
    import signal
    import threading

    from redraft.sources.receive.receiver import receiving

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with receiving(section, inbox, project.root, project.pseudonyms, context.resolve) as running:
        host, port = running.address
        if as_json:
            print_json({"source": section.name, "ae_title": section.ae_title, "host": host, "port": port})
        else:
            tls = "none" if section.tls is None else "each side shows a certificate" if section.tls.ca else "yes"
            print(f"Source {section.name}: {section.ae_title} listens on {host}:{port} (TLS: {tls}).")
            for peer in section.allow:
                print(f"  takes from {peer.ae_title} at {peer.host or 'any address'}")
            print(f"Inbox: {inbox}. Ctrl-C ends.")
        _flush()
        while not stop.wait(3600):
            pass
        if not as_json:
            print("Ending: what is arriving may end, then associations are aborted.")
            _flush()


def _section(project: Project, name: str | None) -> ReceiveSource:
    from redraft.config.sources import ReceiveSource
    from redraft.errors import UsageError

    found = [section for section in project.config.ingest.sources if isinstance(section, ReceiveSource)]
    if not found:
        raise UsageError("project.yaml names no source of kind `receive`.", "Add one to `ingest.sources`.")
    chosen = [section for section in found if section.name == name] if name is not None else found
    if len(chosen) != 1:
        names = ", ".join(section.name for section in found)
        raise UsageError(f"Give --source: one of {names}.", "It names a `receive` source of project.yaml.")
    return chosen[0]


def _flush() -> None:
    import sys

    sys.stdout.flush()
