"""Rules of the house that no linter checks: names that must not shadow packages, layers that exist, quick commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "monai", "mlflow", "great_expectations", "prefect")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def run(code: str, *args: str, cwd: Path = REPOSITORY) -> str:
    """Standard output of code run in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_folder_mlflow_holds_no_python() -> None:
    """Configuration only: a module in it, or an `__init__.py`, would hide the installed package."""
    folder = REPOSITORY / "mlflow"
    assert folder.is_dir() and not list(folder.rglob("*.py"))


def test_server_settings_are_those_that_up_uses() -> None:
    """mlflow/server.env, for a server of the hospital's own, and `redraft up` start MLflow alike."""
    from redraft.services.local import MLFLOW_ENV

    lines = (REPOSITORY / "mlflow" / "server.env").read_text(encoding="utf-8").splitlines()
    assert dict(line.split("=", 1) for line in lines if line and not line.startswith("#")) == MLFLOW_ENV


def test_import_mlflow_is_the_installed_package() -> None:
    """Also where the repository's root is the first place Python looks."""
    code = "import importlib.util as u, json; s = u.find_spec('mlflow'); print(json.dumps([s.origin, s.has_location]))"
    origin, located = json.loads(run(code))
    assert located and not Path(origin).is_relative_to(REPOSITORY / "mlflow")
    assert "site-packages" in Path(origin).parts


def test_ruff_knows_mlflow_as_a_third_party(settings: dict[str, Any]) -> None:
    """Else ruff takes the folder for a package of ours and sorts imports wrongly."""
    assert "mlflow" in settings["tool"]["ruff"]["lint"]["isort"]["known-third-party"]


def test_every_package_of_the_contracts_exists(settings: dict[str, Any]) -> None:
    """A layer or step that was renamed would silently be checked no more; packages outside of the layers would not."""
    contracts = settings["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    steps = next(c["modules"] for c in contracts["contracts"] if c["type"] == "independence")
    assert layers == ["app", "flows", "tasks", "models", "redraft"] and set(contracts["root_packages"]) == set(layers)
    for name in (*layers, *steps):
        assert (REPOSITORY.joinpath(*name.split(".")) / "__init__.py").is_file(), name
    found = {f"tasks.{path.parent.name}" for path in (REPOSITORY / "tasks").glob("*/__init__.py")}
    assert found == set(steps)
    packages = set(settings["tool"]["setuptools"]["packages"]["find"]["include"])
    assert packages == {f"{name}*" for name in layers} and set(settings["tool"]["mypy"]["packages"]) == set(layers)
    assert set(settings["tool"]["ruff"]["lint"]["isort"]["known-first-party"]) == set(layers)


def test_everything_that_is_installed_can_be_imported_as_a_package() -> None:
    """Every folder with modules below the layers is a package: a forgotten `__init__.py` would not be installed."""
    for layer in ("app", "flows", "tasks", "models", "redraft"):
        for path in (REPOSITORY / layer).rglob("*.py"):
            if "migrations" in path.parts:  # Alembic's own scripts, shipped as data
                continue
            assert (path.parent / "__init__.py").is_file(), path.relative_to(REPOSITORY)


CALL = """
import sys
sys.argv = ["redraft", *sys.argv[1:]]
from app.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("\\nLOADED", *sorted(name for name in {name.split(".")[0] for name in sys.modules}))
"""


def loaded(*args: str) -> set[str]:
    """Top-level packages that a command has imported by its end."""
    return set(run(CALL, *args).split("LOADED")[1].split())


@pytest.mark.parametrize("args", [("--help",), ("round", "--help"), ("campaign", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(args: tuple[str, ...]) -> None:
    """Help answers at once: none of the packages that take seconds to import, and no database either."""
    found = loaded(*args)
    assert "typer" in found and not found & {*HEAVY, "sqlalchemy", "pandas", "numpy", "matplotlib", "dvc"}


def test_status_imports_nothing_heavy(tmp_path: Path) -> None:
    """`redraft status` reads the ledger and nothing else."""
    from redraft.create import create_project

    create_project(tmp_path / "p", "kidney-ct", datetime.now(UTC), demo_keys=True)
    for more in ((), ("--json",)):
        found = loaded("status", "--project", str(tmp_path / "p"), *more)
        assert "sqlalchemy" in found and not found & {*HEAVY, "lightning", "pandas", "matplotlib", "dvc", "alembic"}


def test_the_guard_on_imports_would_notice() -> None:
    """The list of loaded packages is the real one: a process that imports a heavy package shows it."""
    assert "mlflow" in run("import sys, mlflow.version\nprint(*{name.split('.')[0] for name in sys.modules})").split()
