"""Making a project directory: configuration, keys, ledger, git and DVC, in an order that can be repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from redraft.digest import sha256_json
from redraft.errors import ConfigError, StateError, UsageError
from redraft.files import write_text
from redraft.project import Project

if TYPE_CHECKING:
    from redraft.config.schema import RateCard
    from redraft.ledger import Tx

TEMPLATES = ("hippocampus-mr", "kidney-ct", "sarcoma-mr")
IGNORED = "/.redraft/\n/work/\n/data/\n"


def create_project(
    root: Path, template: str, now: datetime, *, demo_keys: bool = False, settings: Mapping[str, str] | None = None
) -> Project:
    """Make a project at `root` from a template; running it again on a finished project changes nothing.

    Parameters
    ----------
    demo_keys : bool
        Use the published key, so that results reproduce. Never for patients' data.
    settings : mapping of template text to its replacement, optional
        Exact lines of the template to replace (for demos and campaigns).

    Raises
    ------
    UsageError
        Unknown template, or a directory that holds something else.
    """
    from redraft.dataset import dvc, git
    from redraft.ledger import Ledger

    if template not in TEMPLATES:
        raise UsageError(f"There is no template `{template}`.", f"Take one of: {', '.join(TEMPLATES)}.")
    root = root.resolve()
    config_path = root / "project.yaml"
    if root.exists() and not config_path.exists() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty and holds no project.yaml.", "Choose an empty or a new directory.")
    name = re.sub(r"[^a-z0-9-]+", "-", root.name.lower()).strip("-") or "project"
    if not config_path.exists():
        text = (files("redraft.config.templates") / f"{template}.yaml").read_text(encoding="utf-8")
        text = text.replace("{name}", name)
        for old, new in (settings or {}).items():
            if old not in text:
                raise ConfigError(f"The template {template} has no line `{old}`.")
            text = text.replace(old, new)
        text += _security(name, demo_keys)
        rates = (files("redraft.config.templates") / "rates.yaml").read_text(encoding="utf-8")
        write_text(root / "rates.yaml", rates)
        write_text(root / ".gitignore", IGNORED)
        write_text(config_path, text)
    project = Project.open(root)
    if not demo_keys and not project.config.security.published_demo_keys:
        ensure_keys(project)
    for folder in (project.state, project.data, project.root / "rounds"):
        folder.mkdir(parents=True, exist_ok=True)
    # Made, completed after an interruption, or brought up to date.
    ledger = Ledger.create(project.ledger_url)
    keys = project.keys
    card = project.rates
    with ledger.tx("init", now) as tx:
        if not tx.rows("project"):
            tx.insert(
                "project",
                {
                    "project_id": sha256_json([project.config.name, keys.fingerprint])[:16],
                    "name": project.config.name,
                    "created_at": now,
                    "currency": project.config.money.currency,
                    "key_fingerprint": keys.fingerprint,
                    "key_version": keys.version,
                },
            )
            record_rates(tx, card, now)
            for reader in project.config.dispatch.readers:
                simulated = project.config.dispatch.backend == "simulated"
                tx.insert(
                    "reader",
                    {"reader_id": reader.id, "role": reader.role, "simulated": simulated, "added_at": now},
                )
    git.init(root)
    dvc.init(root)
    if project.config.remote.dvc:
        dvc.set_remote(root, project.config.remote.dvc)
    git.commit(
        root,
        ["project.yaml", "rates.yaml", ".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvcignore"],
        f"Project {project.config.name} from template {template}",
    )
    return project


def record_rates(tx: Tx, card: RateCard, now: datetime) -> None:
    """Record a rate card's version once.

    Raises StateError when rates.yaml was changed under the same version: recorded costs name it.
    """
    content = card.model_dump(mode="json")
    digest = sha256_json(content)
    known = tx.one("rate_card", version=card.version)
    if known is None:
        row = {"version": card.version, "sha256": digest, "currency": card.currency, "content": content}
        tx.insert("rate_card", {**row, "recorded_at": now})
    elif known["sha256"] != digest:
        raise StateError(
            f"rates.yaml was changed, and still calls itself version {card.version}.",
            "Give the changed rate card a new `version`: recorded costs name the one they were made with.",
            code="state.rates_changed",
        )


def ensure_keys(project: Project) -> None:
    """Create the project's key file where project.yaml names one that does not exist yet."""
    from redraft.security.keys import KeyRing

    reference = project.config.security.keys
    if reference.file is not None:
        path = project.resolve(reference.file)
        if not path.exists():
            KeyRing.create(path)


def _security(name: str, demo_keys: bool) -> str:
    if demo_keys:
        return (
            "\n# The published key: reproduces demos and tests, protects nobody. Never use it with patients' data.\n"
            f"security: {{published_demo_keys: true, vault: ../{name}-vault}}\n"
        )
    return (
        "\n# Keys and vault lie outside the project. Back the key file up: without it no pseudonym can be made again.\n"
        f"security: {{keys: {{file: ~/.config/redraft/{name}.key.json}}}}\n"
    )
