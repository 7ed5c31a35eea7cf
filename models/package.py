"""A model package: weights.safetensors, model.json, manifest.json, signature.json. Verified before it is loaded.

The model's digest is SHA-256 over its manifest, so the same weights and description have the same digest; the
signature lies beside and has no part in it. No pickle anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redraft.digest import canonical, sha256_bytes, sha256_file
from redraft.errors import ModelPackageError
from redraft.files import atomic_path, write_bytes
from redraft.security.keys import verify_signature

if TYPE_CHECKING:
    import torch

    from models.plan import Plan

WEIGHTS, MODEL, MANIFEST, SIGNATURE = "weights.safetensors", "model.json", "manifest.json", "signature.json"
SCHEMA = 1
_DO = "Do not use it. Fetch the package again from the registry, and find out who changed it."


@dataclass(frozen=True)
class Ensemble:
    """A loaded package."""

    digest: str
    plan: Plan
    members: list[torch.nn.Module]


def write_package(
    folder: Path, plan: Plan, members: Sequence[Mapping[str, torch.Tensor]], *, training_digest: str,
    sign: Callable[[bytes], str], public_key: str,
) -> str:  # fmt: skip
    """Write a package and return the model's digest. The same content gives the same bytes."""
    from safetensors.torch import save_file

    from models.networks import network_arguments

    tensors = {f"m{n}.{key}": value for n, weights in enumerate(members) for key, value in sorted(weights.items())}
    with atomic_path(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
    description = {
        "schema_version": SCHEMA,
        "architecture": plan.architecture,
        "arguments": network_arguments(plan),
        "plan": plan.model_dump(mode="json"),
        "members": len(members),
        "training_digest": training_digest,
    }
    write_bytes(folder / MODEL, json.dumps(description, indent=1, sort_keys=True).encode() + b"\n")
    manifest = {name: sha256_file(folder / name) for name in (WEIGHTS, MODEL)}
    content = canonical(manifest)
    write_bytes(folder / MANIFEST, content)
    signature = {"public_key": public_key, "signature": sign(content)}
    write_bytes(folder / SIGNATURE, json.dumps(signature, indent=1, sort_keys=True).encode() + b"\n")
    return sha256_bytes(content)


def verify_package(folder: Path, trusted: Sequence[str]) -> str:
    """Check a package's files and signature and return the model's digest.

    Raises ModelPackageError naming the file that is missing, altered or too many, or a signature nobody trusted made.
    """
    return _verified(folder, trusted)[0]


def _verified(folder: Path, trusted: Sequence[str]) -> tuple[str, dict[str, bytes]]:
    """Digest, and the very bytes that were verified: a file exchanged after the check is not what gets loaded."""
    if not folder.is_dir():
        raise ModelPackageError("The model package is missing.", _DO)
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".partial-")}
    expected = {WEIGHTS, MODEL, MANIFEST, SIGNATURE}
    for name in sorted(expected ^ found):
        state = "is missing" if name in expected else "does not belong there"
        raise ModelPackageError(f"Model package: {name} {state}.", _DO)
    files = {name: _bytes(folder / name) for name in sorted(expected)}
    signature = _json(SIGNATURE, files[SIGNATURE])
    if not any(verify_signature(key, files[MANIFEST], str(signature.get("signature", ""))) for key in trusted):
        raise ModelPackageError("Model package: no trusted key signed manifest.json.", _DO)
    manifest = _json(MANIFEST, files[MANIFEST])
    if set(manifest) != {WEIGHTS, MODEL}:
        raise ModelPackageError(f"Model package: manifest.json lists {sorted(manifest)}.", _DO)
    for name in (WEIGHTS, MODEL):
        if manifest[name] != sha256_bytes(files[name]):
            raise ModelPackageError(f"Model package: {name} is not what the manifest says.", _DO)
    return sha256_bytes(files[MANIFEST]), files


def load_package(folder: Path, trusted: Sequence[str]) -> Ensemble:
    """Verify a package, then load its networks in evaluation mode.

    Raises ModelPackageError as `verify_package` does, and for a package that another version of redraft wrote and this
    one cannot build.
    """
    from safetensors.torch import load

    from models.networks import build_network
    from models.plan import Plan

    digest, files = _verified(folder, trusted)
    description = _json(MODEL, files[MODEL])
    if description.get("schema_version") != SCHEMA:
        raise ModelPackageError(
            f"Model package: schema {description.get('schema_version')} is not known here.",
            "Use the redraft it is from.",
        )
    try:
        plan = Plan.model_validate(description["plan"])
        tensors = load(files[WEIGHTS])
        members = []
        for n in range(description["members"]):
            network = build_network(description["architecture"], description["arguments"])
            prefix = f"m{n}."
            network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            members.append(network.eval())
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # The signature holds, so nobody tampered: the package and this code differ in what they mean.
        raise ModelPackageError(
            f"Model package: its description and weights do not fit this version ({type(error).__name__}).",
            "Use the version of redraft that wrote it.",
        ) from error
    return Ensemble(digest, plan, members)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelPackageError(f"Model package: {path.name} cannot be read ({error.strerror}).", _DO) from error


def _json(name: str, data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ModelPackageError(f"Model package: {name} is not JSON.", _DO) from error
    if not isinstance(content, dict):
        raise ModelPackageError(f"Model package: {name} is not a JSON object.", _DO)
    return content
