"""The `redraft` command. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys

import typer

from app.cli import (
    audit,
    campaign,
    cost,
    deid,
    intake,
    key,
    label,
    model,
    quality,
    receive,
    rounds,
    serve,
    setup,
    status,
    sweep,
    user,
    worktime,
)
from redraft import __version__
from redraft.errors import RedraftError, UsageError

app = typer.Typer(
    name="redraft",
    help="Active-learning rounds for medical image segmentation: an AI drafts, an expert corrects, the model learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        print(f"redraft {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


setup.register(app)
status.register(app)
serve.register(app)
rounds.register(app)
sweep.register(app)
label.register(app)
intake.register(app)
receive.register(app)
campaign.register(app)
app.add_typer(cost.app, name="cost")
app.add_typer(quality.app, name="quality")
app.add_typer(worktime.app, name="time")
app.add_typer(audit.app, name="audit")
app.add_typer(key.app, name="key")
app.add_typer(deid.app, name="deid")
app.add_typer(model.app, name="model")
app.add_typer(user.app, name="user")


def main() -> None:
    """Run the command line: exit code 0 done, 1 failed, 2 wrong usage; a user's mistake never shows a stack trace."""
    try:
        app()
    except RedraftError as error:
        _as_json(error)
        print(f"error [{error.code}]: {error.what}", file=sys.stderr)
        if error.do:
            print(f"  → {error.do}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        # Typer itself says what was wrong with a command, and turns Ctrl-C into this exit code.
        if end.code == UsageError.exit_code:
            _as_json(UsageError("The command was called wrongly; standard error says how.", "See its --help."))
        if end.code == 130:
            print("Interrupted. Run the same command again: it resumes.", file=sys.stderr)
        raise


def _as_json(error: RedraftError) -> None:
    if "--json" in sys.argv:
        import json

        print(json.dumps({"error": error.to_dict()}, ensure_ascii=False))


if __name__ == "__main__":
    main()
