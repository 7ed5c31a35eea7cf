"""Work that was finished after its round had stopped taking work in: it answers to the next handing out as well.

Carried-over work gets a new token, so that an answer to an earlier handing-out is known as one. What lies finished in
the package at that moment is no such answer: its reader was told that it was handed in.
"""

from __future__ import annotations

import json
from pathlib import Path

from redraft.digest import sha256_file
from redraft.files import write_text
from redraft.security.keys import KeyRing
from redraft.signing import same_token, sign_result, token, verify_result
from tasks.dispatch.backends import LABELS
from tasks.dispatch.contract import Result
from tasks.dispatch.packages import RESULT

SIGNED = ("measured", "simulated")


def renew_result(package: Path, keys: KeyRing, *, before: int, after: int) -> bool:
    """Give a finished result the token of attempt `after`, where it carries that of attempt `before`.

    A result that redraft signed is signed anew, and only where its signature held. Returns whether it was renewed;
    anything else is left for `collect` to judge. Again after a crash it changes nothing.
    """
    try:
        result = Result.model_validate(json.loads((package / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return False
    who = (result.assignment_id, result.reader_id)
    if result.assignment_id != package.name or not same_token(result.token, token(keys, *who, before)):
        return False
    labels = [package / name for name in LABELS if (package / name).is_file()]
    sha256 = sha256_file(labels[0]) if labels and not result.no_label else None
    if result.origin in SIGNED and not verify_result(keys, result.model_dump(mode="json"), sha256):
        return False
    result = result.model_copy(update={"token": token(keys, *who, after)})
    if result.origin in SIGNED:
        result = result.model_copy(update={"signature": sign_result(keys, result.model_dump(mode="json"), sha256)})
    write_text(package / RESULT, json.dumps(result.model_dump(mode="json"), indent=1) + "\n")
    return True
