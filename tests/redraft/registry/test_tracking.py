from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redraft.errors import ServiceError, StorageError
from redraft.registry.tracking import CONSTANT_TAGS, DatasetRef, Logged, Registry

DIGEST = "0" * 32 + ".dir"


def dataset(role: str) -> DatasetRef:
    return DatasetRef(role, DIGEST, "a" * 64, "b" * 40, 1, 20)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables (making them takes seconds), copied by each test."""
    state = tmp_path_factory.mktemp("store")
    Registry(f"sqlite:///{state / 'mlflow.db'}", state).check()
    return state


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path) -> Registry:
    state = tmp_path / "state"
    shutil.copytree(empty_store, state)
    return Registry(f"sqlite:///{state / 'mlflow.db'}", state)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "member-0").mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"architecture": "unet"}))
    (folder / "member-0" / "weights.safetensors").write_bytes(os.urandom(5000))
    return folder


def training(package: Path, **changes: Any) -> dict[str, Any]:
    return {
        "project": "kidneys",
        "step_digest": "d" * 64,
        "run_name": "round 1",
        "params": {"members": "2"},
        "tags": {"redraft.round": "1"},
        "curves": [("loss/member 1", step, 1 / (step + 1)) for step in range(2000)],
        "datasets": [dataset("training"), dataset("validation")],
        "package": package,
        "model_tags": {"redraft.model_digest": "m" * 64},
        **changes,
    }


def runs(registry: Registry, status: str | None = None) -> list[Any]:
    found = registry.client.search_runs([registry.client.get_experiment_by_name("kidneys").experiment_id])
    return [run for run in found if status in (None, run.info.status)]


def versions(registry: Registry) -> list[str]:
    return sorted(str(v.version) for v in registry.client.search_model_versions("name = 'kidneys'"))


def same_tree(one: Path, two: Path) -> bool:
    def content(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    return content(one) == content(two)


def test_a_training_is_a_finished_run_with_a_ready_model_a_version_and_its_datasets(
    registry: Registry, package: Path, tmp_path: Path
) -> None:
    """Everything that DESIGN §7 asks of a training is found again through MLflow's own API."""
    logged = registry.log_training(**training(package))
    run = registry.client.get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"members": "2"}
    contexts = {
        tag.value: entry.dataset
        for entry in run.inputs.dataset_inputs
        for tag in entry.tags
        if tag.key == "mlflow.data.context"
    }
    assert {role: (d.name, d.digest) for role, d in contexts.items()} == {
        "training": ("redraft-training", DIGEST),
        "validation": ("redraft-validation", DIGEST),
    }
    assert len(registry.client.get_metric_history(logged.run_id, "loss/member 1")) == 2000
    model = registry.client.get_logged_model(logged.model_id)
    assert (str(model.status), model.source_run_id) == ("READY", logged.run_id)
    version = registry.client.get_model_version("kidneys", logged.version)
    assert (version.status, version.run_id) == ("READY", logged.run_id)
    assert same_tree(registry.download_package("kidneys", logged.version, tmp_path / "out"), package)


def test_the_same_training_again_is_the_same_entry(registry: Registry, package: Path) -> None:
    """The step's digest finds the finished run; another model under the same digest is a run of its own."""
    first = registry.log_training(**training(package))
    assert registry.log_training(**training(package)) == first
    assert len(runs(registry)) == 1
    other = registry.log_training(**training(package, model_tags={"redraft.model_digest": "other"}))
    assert other.version == "2"


STOPS = [
    "create_run", "log_batch", "log_inputs", "create_logged_model", "log_model_artifacts", "finalize_logged_model",
    "create_registered_model", "create_model_version", "set_terminated",
]  # fmt: skip


class Killed(BaseException):
    """Stands for kill -9: nothing of ours handles it."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stop", STOPS)
def test_killed_at_any_call_the_second_try_leaves_one_finished_run_and_one_version(
    registry: Registry, package: Path, monkeypatch: pytest.MonkeyPatch, stop: str, when: str
) -> None:
    """What died is marked FAILED (or finished, when only the mark was missing); nothing is registered twice."""
    real = getattr(registry.client, stop)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(registry.client, stop, dying)
        with pytest.raises(Killed):
            registry.log_training(**training(package))
    again = Registry(registry.uri, registry.state)
    logged = again.log_training(**training(package))
    assert [run.info.run_id for run in runs(again, "FINISHED")] == [logged.run_id]
    assert runs(again, "RUNNING") == []
    assert versions(again) == ["1"]
    experiment = again.client.get_experiment_by_name("kidneys").experiment_id
    ready = [m for m in again.client.search_logged_models([experiment]) if str(m.status) == "READY"]
    assert logged.model_id in {model.model_id for model in ready}
    assert all(str(m.status) != "PENDING" for m in again.client.search_logged_models([experiment]))


def test_a_metric_knows_its_model_and_its_test_set(registry: Registry, package: Path) -> None:
    """Dice per structure and test set carries model_id and dataset, and is logged once however often it is sent."""
    logged = registry.log_training(**training(package))
    values = {"dice/kidney/test": 0.9, "dice/tumour/test": 0.4, "hd95/tumour/test": float("inf")}
    for _ in range(2):
        registry.log_metrics(logged, dataset("test"), values)
    registry.log_metrics(logged, dataset("ext: Süd #2"), {"dice/kidney/ext: Süd #2": 0.8})
    metrics = registry.client.get_logged_model(logged.model_id).metrics
    assert sorted((m.key, m.value, m.dataset_name, m.dataset_digest) for m in metrics) == [
        ("dice/kidney/ext: Süd _2", 0.8, "redraft-ext: Süd #2", DIGEST),
        ("dice/kidney/test", 0.9, "redraft-test", DIGEST),
        ("dice/tumour/test", 0.4, "redraft-test", DIGEST),
    ]
    assert len(registry.client.get_metric_history(logged.run_id, "dice/kidney/test")) == 1


def test_aliases_follow_the_ledger(registry: Registry, package: Path) -> None:
    """An alias is moved to what the ledger says, taken away where it says none, and left alone where it agrees."""
    registry.log_training(**training(package))
    registry.log_training(**training(package, step_digest="e", model_tags={"redraft.model_digest": "n"}))
    assert registry.alias("kidneys", "champion") is None
    assert registry.alias("nothing", "champion") is None
    for _ in range(2):
        registry.set_alias("kidneys", "champion", "1")
    assert registry.alias("kidneys", "champion") == "1"
    assert registry.reconcile("kidneys", "champion", "2")
    assert not registry.reconcile("kidneys", "champion", "2")
    assert registry.alias("kidneys", "champion") == "2"
    assert registry.reconcile("kidneys", "champion", None)
    assert registry.alias("kidneys", "champion") is None


def test_no_user_machine_or_path_is_recorded(registry: Registry, package: Path) -> None:
    """MLflow's user and source are constants; the store holds neither account, host, nor working directory."""
    logged = registry.log_training(**training(package))
    run = registry.client.get_run(logged.run_id)
    assert {key: run.data.tags[key] for key in CONSTANT_TAGS} == CONSTANT_TAGS
    assert run.info.user_id in ("redraft", "")
    tagged = {**run.data.tags, **registry.client.get_logged_model(logged.model_id).tags}
    assert not any(key.startswith("mlflow.source.git") for key in tagged)
    for word in (platform.node(), os.getcwd(), getpass.getuser()):
        assert word not in tagged.values()


def test_no_pickle_and_no_telemetry(registry: Registry) -> None:
    """The switches hold whatever the environment said before."""
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    registry.check()
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_server_that_is_down_is_said_within_seconds() -> None:
    """Nobody listens: a ServiceError that tells what to do, credentials blanked, before any training."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    registry = Registry(f"http://doctor:secret@127.0.0.1:{port}", Path("nowhere"))
    start = time.monotonic()
    with pytest.raises(ServiceError, match="MLflow at") as caught:
        registry.check()
    assert time.monotonic() - start < 10
    assert "redraft up" in caught.value.do
    assert caught.value.retry
    assert "secret" not in str(caught.value)


def test_a_server_that_refuses_is_an_error_of_ours() -> None:
    """Something else answers on that port: a ServiceError, not a stack trace."""
    program = (
        "import http.server as h, socketserver\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        " def do_GET(self): self.send_error(403)\n"
        " do_POST = do_GET\n"
        " def log_message(self, *a): pass\n"
        "s = socketserver.TCPServer(('127.0.0.1', 0), H); print(s.server_address[1], flush=True); s.serve_forever()"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        registry = Registry(f"http://127.0.0.1:{server.stdout.readline().strip()}", Path("nowhere"))
        with pytest.raises(ServiceError, match="403"):
            registry.check()
    finally:
        server.kill()
        server.communicate()


def test_a_damaged_store_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file that is no database is named as such."""
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(ServiceError, match="the project's own store"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path).check()


def test_a_package_that_cannot_be_copied_is_a_storage_error(registry: Registry, package: Path) -> None:
    """A full or closed disk while the package is copied: StorageError, and the next try registers it once."""
    (registry.state / "mlartifacts").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        registry.log_training(**training(package))
    (registry.state / "mlartifacts").unlink()
    registry.log_training(**training(package))
    assert versions(registry) == ["1"]


def test_an_older_store_gives_way_to_nothing_silently(registry: Registry) -> None:
    """A store of another schema version is refused with MLflow's own words."""
    with sqlite3.connect(registry.state / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()
    copy = registry.state.parent / "copy"
    shutil.copytree(registry.state, copy)
    with pytest.raises(ServiceError, match="schema"):
        Registry(f"sqlite:///{copy / 'mlflow.db'}", copy).check()


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on loopback that keeps artifacts itself."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(empty_store, folder / "state")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'state' / 'mlflow.db'}",
        "--artifacts-destination", (folder / "artifacts").as_uri(),
    ]  # fmt: skip
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import urllib.request

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no MLflow server: {log.read_text()[-500:]}")


def test_the_same_over_a_real_server(server: str, package: Path, tmp_path: Path) -> None:
    """Training, metrics, aliases and the package's bytes go through HTTP as they go through the store."""
    registry = Registry(server, tmp_path)
    registry.check()
    logged: Logged = registry.log_training(**training(package))
    assert registry.log_training(**training(package)) == logged
    registry.log_metrics(logged, dataset("test"), {"dice/kidney/test": 0.9})
    assert registry.reconcile("kidneys", "champion", logged.version)
    assert registry.alias("kidneys", "champion") == logged.version
    assert same_tree(registry.download_package("kidneys", logged.version, tmp_path / "out"), package)
    metrics = registry.client.get_logged_model(logged.model_id).metrics
    assert [(m.key, m.dataset_name) for m in metrics] == [("dice/kidney/test", "redraft-test")]
    assert list(tmp_path.iterdir()) and not (tmp_path / "mlartifacts").exists()
