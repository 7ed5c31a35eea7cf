"""A project directory: where its files lie, and the handles (ledger, keys, vault) that steps and faces open on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from redraft.config.load import load_config, load_rates
from redraft.config.schema import Config, RateCard
from redraft.digest import sha256_json
from redraft.errors import ConfigError

if TYPE_CHECKING:
    from redraft.desk.store import Desk
    from redraft.ledger import Ledger
    from redraft.security.keys import KeyRing
    from redraft.security.pseudonyms import Pseudonyms
    from redraft.security.vault import Vault


@dataclass(frozen=True)
class Project:
    """An opened project. Opening reads and checks project.yaml and nothing else."""

    root: Path
    config: Config
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False, compare=False)

    @classmethod
    def open(cls, root: str | Path, env: Mapping[str, str] | None = None) -> Project:
        """Open the project at `root`. Raises ConfigError where project.yaml is absent or wrong."""
        root = Path(root).resolve()
        return cls(root, load_config(root / "project.yaml"), dict(os.environ if env is None else env))

    # -- where things lie -------------------------------------------------------------------------------------------
    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def state(self) -> Path:
        return self.root / ".redraft"

    @property
    def work(self) -> Path:
        """Work packages of the folder and simulated backends."""
        return self.resolve(self.config.dispatch.folder)

    @property
    def cache(self) -> Path:
        """Preprocessed arrays and checkpoints; may be deleted at any time at the cost of time."""
        return self.state / "cache"

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.state / 'ledger.db'}"

    @property
    def tracking_uri(self) -> str:
        return self.config.services.mlflow or f"sqlite:///{self.state / 'mlflow.db'}"

    def round_dir(self, number: int) -> Path:
        return self.root / "rounds" / f"{number:04d}"

    def image(self, exam_id: str) -> Path:
        return self.data / "exams" / exam_id[:2] / exam_id / "image.nii.gz"

    def resolve(self, path: str | Path) -> Path:
        """A path of project.yaml: `~` expanded, relative to the project directory."""
        return (self.root / Path(path).expanduser()).resolve()

    # -- handles ------------------------------------------------------------------------------------------------------
    @cached_property
    def rates(self) -> RateCard:
        card = load_rates(self.resolve(self.config.money.rates))
        if card.currency != self.config.money.currency:
            raise ConfigError(
                f"{self.config.money.rates} is in {card.currency}, project.yaml says {self.config.money.currency}.",
                "Use one currency; redraft never converts.",
            )
        return card

    @cached_property
    def ledger(self) -> Ledger:
        from redraft.ledger import Ledger

        return Ledger.open(self.ledger_url)

    @cached_property
    def desk(self) -> Desk:
        """Passwords, sessions and unfinished work of the pages."""
        from redraft.desk.store import Desk

        return Desk.open(self.state / "desk.db")

    @cached_property
    def keys(self) -> KeyRing:
        from redraft.security.keys import KeyRing, resolve_keys

        if self.config.security.published_demo_keys:
            return KeyRing.published_demo()
        return resolve_keys(self.config.security.keys, self.env, project_dir=self.root)

    @cached_property
    def checked_keys(self) -> KeyRing:
        """The keys, after comparing their fingerprint with the ledger's. Raises SecurityError when they differ."""
        from redraft.security.keys import check_fingerprint

        check_fingerprint(self.ledger.rows("project")[0], self.keys)
        return self.keys

    @cached_property
    def pseudonyms(self) -> Pseudonyms:
        from redraft.security.pseudonyms import Pseudonyms

        return Pseudonyms(self.checked_keys)

    @cached_property
    def vault(self) -> Vault:
        from redraft.security.vault import Vault

        return Vault(self.vault_dir, self.checked_keys)

    @property
    def vault_dir(self) -> Path:
        """The encrypted vault; always outside the project directory."""
        chosen = self.config.security.vault
        if chosen is not None:
            path = self.resolve(chosen)
        else:
            import platformdirs

            tag = sha256_json(str(self.root))[:8]
            path = Path(platformdirs.user_data_dir("redraft")) / "vaults" / f"{self.config.name}-{tag}"
        if path.is_relative_to(self.root):
            raise ConfigError(f"security.vault lies inside the project ({path}).", "Choose a folder outside of it.")
        return path

    @property
    def config_digest(self) -> str:
        """SHA-256 of the configuration that decides results (places and services left out)."""
        places = {"services", "remote", "security", "simulation"}
        content = self.config.model_dump(mode="json", by_alias=True, exclude=places)
        for place in ("sources", "workers", "limits"):
            content["ingest"].pop(place)
        return sha256_json(content)
