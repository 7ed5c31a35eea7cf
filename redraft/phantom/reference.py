"""The reference dataset `data/`: six phantom exams, rebuilt byte for byte and checked against `data.dvc`.

python -m redraft.phantom.reference data          write and check
python -m redraft.phantom.reference data --new    write without checking; then `dvc add data` pins it
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from redraft.dataset.dvc import pointer
from redraft.errors import IntegrityError, RedraftError, UsageError
from redraft.phantom.write import write_phantom

EXAMS, SEED = 6, 20261121
REPOSITORY = Path(__file__).resolve().parents[2]


def build_reference(out: Path, root: Path = REPOSITORY) -> str:
    """Write the reference dataset to `out`; `out` appears whole and right, or not at all.

    Parameters
    ----------
    root : Path
        The folder that holds data.dvc.

    Returns
    -------
    str
        DVC's `<md5>.dir` of the folder, the same as in data.dvc.

    Raises
    ------
    UsageError
        `out` holds something else.
    IntegrityError
        What was written is not what data.dvc names.
    VersioningError
        data.dvc is missing or broken.
    """
    expected = pointer(root)
    if out.exists() and any(out.iterdir()):
        if snapshot_id(out) == expected:
            return expected
        raise UsageError(f"{out} holds something else than the reference dataset.", "Move it away and run this again.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out.parent))
    try:
        write_phantom(partial, EXAMS, SEED)
        found = snapshot_id(partial)
        if found != expected:
            raise IntegrityError(
                f"The rebuilt reference dataset is {found}, data.dvc names {expected}.",
                "Install the versions of constraints.txt: another NumPy or SciPy may draw other numbers.",
            )
        partial.chmod(0o755)
        partial.replace(out)  # an empty folder may be there and is replaced
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return found


def snapshot_id(folder: Path) -> str:
    """What DVC calls a folder: the MD5 of its sorted list of files and their MD5, with `.dir` appended."""
    entries = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            entries.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return f"{hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest()}.dir"


def main(arguments: list[str]) -> int:
    """Command line of `make data`."""
    places = [Path(argument) for argument in arguments if not argument.startswith("-")]
    unknown = [argument for argument in arguments if argument.startswith("-") and argument != "--new"]
    if len(places) != 1 or unknown:
        sys.stderr.write("usage: python -m redraft.phantom.reference OUT [--new]\n")
        return UsageError.exit_code
    try:
        if "--new" in arguments:
            write_phantom(places[0], EXAMS, SEED)
            sys.stdout.write(f"{places[0]}: {snapshot_id(places[0])}, not compared with data.dvc\n")
        else:
            sys.stdout.write(f"{places[0]}: {build_reference(places[0])}, as data.dvc names it\n")
    except RedraftError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
