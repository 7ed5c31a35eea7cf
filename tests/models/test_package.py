"""Model packages: the same bytes for the same content, and nothing loaded that was not verified."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models import package as packages
from models.networks import build_network, network_arguments
from models.package import load_package, verify_package, write_package
from models.plan import Plan
from redraft.digest import canonical, sha256_file
from redraft.errors import ModelPackageError
from redraft.security.keys import KeyRing

KEYS = KeyRing.published_demo()
FILES = ["manifest.json", "model.json", "signature.json", "weights.safetensors"]


@pytest.fixture
def members(plan: Plan) -> list[dict[str, torch.Tensor]]:
    """Two members' weights."""
    result = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        result.append(build_network(plan.architecture, network_arguments(plan)).state_dict())
    return result


@pytest.fixture
def folder(plan: Plan, members: list[dict[str, torch.Tensor]], tmp_path: Path) -> Path:
    """A written package."""
    write(tmp_path / "package", plan, members)
    return tmp_path / "package"


def write(folder: Path, plan: Plan, members: list[dict[str, torch.Tensor]]) -> str:
    return write_package(folder, plan, members, training_digest="t" * 64, sign=KEYS.sign, public_key=KEYS.public_key)


def sign_again(folder: Path) -> None:
    """What an attacker with the key, or another version of redraft, would leave: a consistent, signed package."""
    content = canonical({name: sha256_file(folder / name) for name in ("weights.safetensors", "model.json")})
    (folder / "manifest.json").write_bytes(content)
    (folder / "signature.json").write_text(json.dumps({"public_key": KEYS.public_key, "signature": KEYS.sign(content)}))


def test_a_package_comes_back(plan: Plan, members: list[dict[str, torch.Tensor]], folder: Path) -> None:
    """Plan, digest and every weight of every member return as they were written."""
    ensemble = load_package(folder, [KEYS.public_key])
    assert ensemble.plan == plan and len(ensemble.members) == 2
    assert ensemble.digest == verify_package(folder, [KEYS.public_key]) == sha256_file(folder / "manifest.json")
    for network, weights in zip(ensemble.members, members, strict=True):
        assert not network.training
        for key, value in network.state_dict().items():
            assert torch.equal(value, weights[key])


def test_the_same_content_has_the_same_bytes(
    plan: Plan, members: list[dict[str, torch.Tensor]], folder: Path, tmp_path: Path
) -> None:
    """Writing again, with weights in another order, gives the same four files; other weights another digest."""
    shuffled = [dict(reversed(weights.items())) for weights in members]
    assert write(tmp_path / "again", plan, shuffled) == sha256_file(folder / "manifest.json")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert write(tmp_path / "other", plan, members[::-1]) != sha256_file(folder / "manifest.json")


def test_no_pickle(folder: Path) -> None:
    """No file of a package is a pickle or a zip that could hold one."""
    for path in folder.iterdir():
        assert path.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_named(folder: Path, name: str) -> None:
    """A file that is gone is named."""
    (folder / name).unlink()
    with pytest.raises(ModelPackageError, match=f"{name} is missing"):
        load_package(folder, [KEYS.public_key])


@pytest.mark.parametrize("name", ["weights.bin", "model.pkl", ".hidden", "sub"])
def test_additional_files_are_named(folder: Path, name: str) -> None:
    """A file or folder too many is named."""
    (folder / name).mkdir() if name == "sub" else (folder / name).write_bytes(b"x")
    with pytest.raises(ModelPackageError, match=f"{name} does not belong there"):
        verify_package(folder, [KEYS.public_key])


@pytest.mark.parametrize("name", FILES)
def test_any_altered_byte_is_found(folder: Path, name: str) -> None:
    """One bit flipped anywhere in any file refuses the package, and the message names that file or the signature."""
    rng = np.random.default_rng(0)
    whole = (folder / name).read_bytes()
    for at in rng.integers(0, len(whole), 12):
        altered = bytearray(whole)
        altered[at] ^= 1
        if name == "signature.json" and b'"public_key"' in whole[: at + 70] and at < whole.index(b'"signature"'):
            continue  # the key named beside the signature is a hint; the trusted keys decide
        (folder / name).write_bytes(bytes(altered))
        with pytest.raises(ModelPackageError) as caught:
            verify_package(folder, [KEYS.public_key])
        assert name in str(caught.value) or "manifest.json" in str(caught.value)
    (folder / name).write_bytes(whole)
    verify_package(folder, [KEYS.public_key])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{}"])
def test_garbage_is_refused_in_words(folder: Path, name: str, content: bytes) -> None:
    """Files of garbage are errors of ours, whatever is in them."""
    (folder / name).write_bytes(content)
    with pytest.raises(ModelPackageError):
        load_package(folder, [KEYS.public_key])


def test_only_trusted_signatures_count(folder: Path, tmp_path: Path) -> None:
    """A package signed by a key that nobody trusts is refused, though its own signature names that key."""
    other = KeyRing.create(tmp_path / "other.json")
    for trusted in ([], [other.public_key], ["00" * 32], ["no key"]):
        with pytest.raises(ModelPackageError, match="no trusted key"):
            verify_package(folder, trusted)
    assert verify_package(folder, [other.public_key, KEYS.public_key])


def test_a_swap_after_the_check_loads_what_was_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file exchanged between verification and loading is not loaded: the verified bytes are."""
    wanted = load_package(folder, [KEYS.public_key]).members[0].state_dict()
    verified = packages._verified

    def then_swap(path: Path, trusted: list[str]) -> tuple[str, dict[str, bytes]]:
        result = verified(path, trusted)
        (path / "weights.safetensors").write_bytes(b"evil")
        return result

    monkeypatch.setattr(packages, "_verified", then_swap)
    found = load_package(folder, [KEYS.public_key]).members[0].state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"architecture": "transformer"},
        {"arguments": {"classes": 3, "channels": [8, 16], "strides": [[2, 2, 2]]}},
        {"arguments": {"unknown": 1}},
        {"plan": {"modality": "CT"}},
        {"members": 3},
        {"members": "two"},
    ],
)
def test_packages_of_another_version_are_refused_in_words(folder: Path, change: dict[str, object]) -> None:
    """A rightly signed package that this version cannot build is an error of ours, not a stack trace."""
    description = json.loads((folder / "model.json").read_bytes()) | change
    (folder / "model.json").write_text(json.dumps(description))
    sign_again(folder)
    with pytest.raises(ModelPackageError):
        load_package(folder, [KEYS.public_key])


def test_a_manifest_covers_exactly_its_files(folder: Path) -> None:
    """A signed manifest that lists other files than the package has is refused."""
    content = canonical({"weights.safetensors": sha256_file(folder / "weights.safetensors")})
    (folder / "manifest.json").write_bytes(content)
    (folder / "signature.json").write_text(json.dumps({"signature": KEYS.sign(content)}))
    with pytest.raises(ModelPackageError, match=r"manifest.json lists"):
        verify_package(folder, [KEYS.public_key])
