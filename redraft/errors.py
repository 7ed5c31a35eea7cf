"""Every error a redraft user can meet, in one tree.

RedraftError                     carries code, what happened, what to do, whether trying again can help
├── UsageError                   the command was called wrongly (exit code 2)
├── ConfigError                  project.yaml or rates.yaml breaks a rule; names file, line and what is allowed
├── ExamError                    one exam or file is bad; the rest of the batch goes on
│   ├── SetAside                 a series that is not what the project takes, or that only the vault may hold
│   ├── GeometryError            positions, orientation or spacing that would place voxels wrongly
│   ├── ReadError                a file that is truncated, corrupt, foreign or not decodable
│   ├── TransferError            a series that did not arrive whole, or not as its source announced it
│   └── LabelError               a returned label that is not on its image's grid or breaks a rule
├── StateError                   a transition that the round's table does not allow
├── ConflictError                another process holds what this one needs (lease, open round)
├── TrainingError                a training that diverged or stopped before its last step
├── StorageError                 disk full, a file that vanished, a write that did not complete
├── VersioningError              git or DVC refused (remote down, push rejected)
├── ServiceError                 a service (MLflow, Prefect, remote) does not answer
├── SignInError                  who it is was not shown, or what they ask is not theirs to do
├── SecurityError                key missing or different, vault unreadable, permissions too open
└── IntegrityError               bytes that are not what a record says they are
    └── ModelPackageError        a model package that fails verification is never loaded
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class RedraftError(Exception):
    """Base of all errors shown to a user.

    Parameters
    ----------
    what : str
        What happened, naming the exam, file or record. Never a patient's identity.
    do : str
        What the user can do about it.
    code : str, optional
        Stable machine-readable code; the class's own when omitted.
    retry : bool, optional
        Whether trying again, unchanged, can help.
    """

    code = "error"
    retry = False
    exit_code = 1

    def __init__(self, what: str, do: str = "", *, code: str | None = None, retry: bool | None = None):
        super().__init__(what)
        self.what = what
        self.do = do
        if code is not None:
            self.code = code
        if retry is not None:
            self.retry = retry

    def __str__(self) -> str:
        return f"{self.what} {self.do}".rstrip() if self.do else self.what

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross processes; the default would call the class with `what` alone.
        return _restored, (type(self), self.args, self.__dict__)

    def to_dict(self) -> dict[str, str | bool]:
        """The error as JSON for `--json` output."""
        return {"code": self.code, "what": self.what, "do": self.do, "retry": self.retry}


def _restored(kind: type[RedraftError], args: tuple[Any, ...], state: dict[str, Any]) -> RedraftError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(RedraftError):
    code = "usage"
    exit_code = 2


class ConfigError(RedraftError):
    code = "config"


class ExamError(RedraftError):
    """One exam is bad.

    `rule` names the rule that decided (e.g. ``uneven_spacing``), `measured` the values it saw; both go into the
    receipt, so neither may hold an identifier.
    """

    code = "exam"

    def __init__(self, what: str, do: str = "", *, rule: str, measured: Mapping[str, object] | None = None):
        super().__init__(what, do, code=f"{self.code}.{rule}")
        self.rule = rule
        # What is no number in JSON is told as text: a record that cannot be written would end the batch.
        self.measured = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in (measured or {}).items()
        }


class SetAside(ExamError):
    """A series that is not read; `verdict` is ``refused``, or ``quarantined`` where its files go to the vault."""

    code = "aside"

    def __init__(
        self, what: str, do: str = "", *, rule: str, measured: Mapping[str, object] | None = None,
        verdict: str = "refused",
    ):  # fmt: skip
        super().__init__(what, do, rule=rule, measured=measured)
        self.verdict = verdict


class GeometryError(ExamError):
    code = "geometry"


class ReadError(ExamError):
    code = "read"


class TransferError(ExamError):
    """One series did not arrive whole, or not as announced; the next intake asks for it again."""

    code = "transfer"
    retry = True


class LabelError(ExamError):
    code = "label"


class StateError(RedraftError):
    code = "state"


class ConflictError(RedraftError):
    code = "conflict"
    retry = True


class TrainingError(RedraftError):
    code = "training"


class StorageError(RedraftError):
    code = "storage"
    retry = True


class VersioningError(RedraftError):
    code = "versioning"


class ServiceError(RedraftError):
    code = "service"
    retry = True


class SignInError(RedraftError):
    code = "sign_in"


class TooManyAttempts(SignInError):
    """Too many sign-ins were refused; `wait_seconds` until the next may be tried."""

    code = "sign_in.too_many"
    retry = True

    def __init__(
        self, what: str, do: str = "", wait_seconds: int = 0, *, code: str | None = None, retry: bool | None = None
    ):  # fmt: skip
        super().__init__(what, do, code=code, retry=retry)
        self.wait_seconds = wait_seconds


class SecurityError(RedraftError):
    code = "security"


class IntegrityError(RedraftError):
    code = "integrity"


class ModelPackageError(IntegrityError):
    code = "model_package"
