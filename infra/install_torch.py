"""Install torch without ever pulling gigabytes of CUDA packages by accident.

Usage: python infra/install_torch.py CONSTRAINTS [cpu|gpu]

`cpu` (the default): ask pip in a dry run what it would install. Where that lists CUDA packages, the CPU build is taken
through uv's torch backend; where that cannot be reached either, stop and say so. `gpu` takes pip's choice.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

CUDA = re.compile(r"^(nvidia[-_]|triton$|cuda[-_])", re.IGNORECASE)


def main(constraints: str, flavour: str) -> int:
    found = re.search(r"(?m)^torch==(\S+)$", Path(constraints).read_text(encoding="utf-8"))
    if found is None:
        return fail(f"{constraints} pins no torch.")
    wanted = found[1]
    try:
        installed = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        installed = ""
    if installed.split("+")[0] == wanted:
        print(f"torch {installed} is here.")
        return 0
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    requirement = f"torch=={wanted}"
    if flavour == "gpu":
        return subprocess.run([*pip, requirement]).returncode
    dry = subprocess.run(
        [*pip, "--dry-run", "--report", "-", "--constraint", constraints, requirement], capture_output=True, text=True
    )
    if dry.returncode == 0:
        names = [item["metadata"]["name"] for item in json.loads(dry.stdout)["install"]]
        if not any(CUDA.match(name) for name in names):
            return subprocess.run([*pip, "--constraint", constraints, requirement]).returncode
        print("pip would take CUDA packages; asking uv for the CPU build.")
    subprocess.run([*pip, "uv"], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--torch-backend=cpu", requirement]
    if subprocess.run(uv).returncode == 0:
        return 0
    return fail(
        "The CPU build of torch cannot be reached from here, and the default index offers only the CUDA build.\n"
        f"Put a CPU wheel of torch {wanted} where pip finds it (PIP_FIND_LINKS), or run `make install TORCH=gpu`."
    )


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or (len(sys.argv) == 3 and sys.argv[2] not in ("cpu", "gpu")):
        sys.exit(fail(__doc__ or ""))
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else "cpu"))
