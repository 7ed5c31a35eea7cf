"""`redraft key`: the keys behind pseudonyms, vault and signatures."""

from __future__ import annotations

from pathlib import Path

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json

app = typer.Typer(help="Keys and their fingerprints.", no_args_is_help=True)


@app.command("init")
def init(path: Path, as_json: JsonOption = False) -> None:
    """Create a key file (mode 0600). Keep it outside every project and back it up."""
    from redraft.security.keys import KeyRing

    keys = KeyRing.create(path)
    if as_json:
        print_json({"path": str(path), "fingerprint": keys.fingerprint, "version": keys.version})
        return
    print(f"Key {keys.fingerprint} (version {keys.version}) is in {path}.")


@app.command("show")
def show(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Fingerprint, version and public key of the project's keys; never the key."""
    keys = open_project(project_dir).checked_keys
    content = {
        "fingerprint": keys.fingerprint,
        "version": keys.version,
        "published": keys.published,
        "public_key": keys.public_key,
    }
    if as_json:
        print_json(content)
        return
    for name, value in content.items():
        print(f"{name}: {value}")
    if keys.published:
        print("This is the published demo key: it protects nobody.")
