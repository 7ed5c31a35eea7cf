"""What `project.yaml` may say. One frozen model per section; unknown keys are refused.

Lengths are mm, volumes ml, times minutes, money in `money.currency`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from redraft.config.base import SecretRef, Section
from redraft.config.sources import AnySource


class Modality(StrEnum):
    CT = "CT"
    MR = "MR"
    PT = "PT"


class StructureKind(StrEnum):
    ORGAN = "organ"
    TUMOR = "tumor"
    LESION = "lesion"
    VESSEL = "vessel"


class Code(Section):
    """A coded concept; SCT is SNOMED CT as DICOM uses it (PS3.16)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)] = "SCT"
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class StructureCode(Section):
    """Segmented property of a structure (PS3.3 C.8.20.2, PS3.16 CID 7150 and following)."""

    category: Code
    type: Code
    region: Code | None = None
    # Part of the type, such as anterior or posterior (PS3.16 CID 2); a side has its own key.
    modifier: Code | None = None
    laterality: Code | None = None


class Structure(Section):
    """One structure to segment and the plausibility rules of its labels."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    value: Annotated[int, Field(ge=1, le=255)]
    kind: StructureKind
    tolerance_mm: Annotated[float, Field(gt=0)] = 2.0
    required: bool = False
    max_components: Annotated[int, Field(ge=1)] | None = None
    volume_ml: tuple[float, float] | None = None
    # ROI names of this structure in RTSTRUCT / SEG truth (case-insensitive); the structure's own name always counts.
    aliases: tuple[str, ...] = ()
    # What it is in coded words; needed to write DICOM SEG.
    code: StructureCode | None = None
    # How to draw it, shown to readers beside the image: what belongs to it, what does not, where it ends.
    protocol: str = ""

    @field_validator("volume_ml")
    @classmethod
    def _smallest_first(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError("give the smallest and the largest plausible volume, in this order")
        return value


class Limits(Section):
    """What one file or series may ask for before it is refused: files are not to be trusted before they are read."""

    # Time for one series (or one header), and memory of the process that reads it.
    seconds: Annotated[float, Field(gt=0)] = 120.0
    memory_mb: Annotated[int, Field(ge=512)] = 6144
    # Depth of sequences inside sequences, and elements of one file.
    nesting: Annotated[int, Field(ge=1, le=200)] = 24
    elements: Annotated[int, Field(ge=1000)] = 500_000
    # Bytes that an archive may unpack to.
    archive_mb: Annotated[int, Field(ge=1)] = 20_480


class Ingest(Section):
    # Places that every round looks into; further folders can be named to `redraft ingest`.
    sources: tuple[AnySource, ...] = ()
    modalities: tuple[Modality, ...]
    # Series marked DERIVED\\SECONDARY (crops, converted units) are set aside unless the project wants them.
    accept_secondary: bool = False
    # Files that name no series (badly anonymised ones) may be of any number of patients. Where every folder holds one
    # series at most, `by_folder` takes those of one folder and frame of reference for one, of a subject of its own.
    nameless_series: Literal["refuse", "by_folder"] = "refuse"
    # What to do with volumes that no single affine describes; resampling is linear and recorded in exam.json.
    gantry_tilt: Literal["refuse", "resample"] = "refuse"
    uneven_spacing: Literal["refuse", "resample"] = "refuse"
    max_spacing_mm: Annotated[float, Field(gt=0)] = 20.0
    max_voxels: Annotated[int, Field(gt=0)] = 600_000_000
    # Processes that read series side by side; one per core when omitted.
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _source_names_differ(self) -> Ingest:
        names = [source.name for source in self.sources if source.kind != "folder"]
        if len(set(names)) != len(names):
            raise ValueError(f"two sources share one name: {names}")
        return self


class Deid(Section):
    """De-identification: PS3.15 Annex E basic profile, and the options (E.3) that this project chooses."""

    # Options by their names in PS3.15 E.3; `modified_dates` shifts every date of a subject by one number of days.
    retain: tuple[Literal["device", "patient_characteristics", "longitudinal_modified_dates"], ...] = (
        "device",
        "patient_characteristics",
        "longitudinal_modified_dates",
    )
    # Dates move back by up to this many days, the same for all exams of a subject.
    max_shift_days: Annotated[int, Field(ge=1, le=36_500)] = 3650
    # Modalities whose pixels can carry burned-in text: set aside into the vault unseen.
    quarantine_modalities: tuple[str, ...] = ("US", "XA", "RF", "SC", "OT", "ES", "GM", "XC", "DX", "CR", "MG")


class Splits(Section):
    """Share of subjects per split; the rest is the pool. Drawn once per subject, never again."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    min_validation: Annotated[int, Field(ge=1)] = 2
    min_test: Annotated[int, Field(ge=1)] = 4
    # Named external sets by source folder name below the ingest path; their subjects never enter the pool.
    external: tuple[str, ...] = ()


class Budget(Section):
    """What one round may spend on training annotations: exams or expected expert minutes."""

    exams: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        if (self.exams is None) == (self.minutes is None):
            raise ValueError("give exactly one of `exams` and `minutes`")
        return self


class Select(Section):
    strategy: Literal["random", "fg_random", "entropy"] = "entropy"
    budget: Budget
    # Share of the budget drawn at random beside the strategy, so that its gain can be measured.
    control_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    # Probability that a chosen exam is worked from scratch although a draft exists (baseline for savings).
    from_scratch_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    # Expected minutes per exam before any exam was measured, for budgets in minutes.
    prior_minutes: Annotated[float, Field(gt=0)] = 20.0


class Reader(Section):
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    role: str = "radiologist"
    # Simulated readers only (effort model): speed 1 is the model's own pace, sloppiness in mm of border error.
    speed: Annotated[float, Field(gt=0)] = 1.0
    sloppiness_mm: Annotated[float, Field(ge=0)] = 0.0
    # Structures and modalities that this reader may work on; everything when empty.
    structures: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = ()
    # Expected expert minutes that this reader can give to one round; unlimited when omitted.
    minutes_per_round: Annotated[float, Field(gt=0)] | None = None
    # Exams that this reader reported are not given to them. Names as exams hold them, as pseudonyms
    # (`redraft user pseudonym NAME`); clear names do not belong here.
    reader_of_record: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")], ...] = ()


class WorkLease(Section):
    """How long work is kept for its reader. Expired work goes to another reader; what was drawn is kept."""

    hours: Annotated[float, Field(gt=0)] = 72.0
    extension_hours: Annotated[float, Field(gt=0)] = 24.0
    extensions: Annotated[int, Field(ge=0)] = 2
    # Given away this often, an exam waits for a person to decide: `redraft status` names it.
    escalate_after: Annotated[int, Field(ge=1)] = 2


class Completion(Section):
    """When a round may close by itself: n of m readings of an exam are in, for a share of its exams."""

    # Readings per exam that must be accepted; all that were planned when omitted.
    readings: Annotated[int, Field(ge=1)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class SeededErrors(Section):
    """Drafts that are wrong on purpose. Readers know that there are some; their annotations never train a model."""

    # Share of a round's assisted training exams that is dispatched beside them with a wrong draft.
    share: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    # Corrected share of the wrong voxels from which the error counts as noticed.
    noticed_from: Annotated[float, Field(gt=0, le=1)] = 0.5


class Consensus(Section):
    """What becomes of several readings of one exam."""

    method: Literal["staple", "majority"] = "staple"
    # Dice between two readers of any structure below which a person decides.
    adjudicate_below: Annotated[float, Field(ge=0, le=1)] = 0.7


class Dispatch(Section):
    backend: Literal["folder", "review", "dicomweb", "simulated"] = "folder"
    readers: Annotated[tuple[Reader, ...], Field(min_length=1)]
    deadline_days: Annotated[float, Field(gt=0)] = 14.0
    # Whose hourly rate (rates.yaml) pays for second looks of accounts that are no reader of this list.
    reviewer_role: str = "radiologist"
    # Share of reference exams that a second reader segments too.
    double_read_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    # Share of training exams that a second reader works on too, in the same mode.
    training_double_read_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    # Reference (validation and test) exams dispatched per round until all are done; all at once when omitted.
    reference_per_round: Annotated[int, Field(ge=1)] | None = None
    folder: str = "work"
    # How the folder backend hands drafts out: NIfTI with colour tables, or DICOM SEG with the image as DICOM series.
    package: Literal["nifti", "seg"] = "nifti"
    # DICOMweb source by its name in ingest.sources, for the `dicomweb` backend.
    pacs: str | None = None
    lease: WorkLease = WorkLease()
    completion: Completion = Completion()
    seeded_errors: SeededErrors = SeededErrors()

    @model_validator(mode="after")
    def _readers_differ(self) -> Dispatch:
        names = [reader.id for reader in self.readers]
        if len(set(names)) != len(names):
            raise ValueError(f"two readers share one id: {names}")
        if self.backend == "dicomweb" and self.pacs is None:
            raise ValueError("the dicomweb backend needs `pacs`: the name of a source of kind dicomweb")
        return self


class Validate(Section):
    max_minutes: Annotated[float, Field(gt=0)] = 240.0
    min_seconds: Annotated[float, Field(ge=0)] = 5.0
    # Accepted as it is in less than this is flagged: nobody looks through an exam so fast.
    fast_accept_seconds: Annotated[float, Field(ge=0)] = 10.0
    # Flagged annotations wait for a reviewer; otherwise flags are only recorded.
    review_flagged: bool = False
    # Share of the other annotations that a reviewer looks at too, drawn by chance.
    review_share: Annotated[float, Field(ge=0, le=1)] = 0.0


class WorkTime(Section):
    """How readers' minutes are told apart (docs/time.md). Raw events are kept: other thresholds can be tried later."""

    # Longer without any input is idle, not active.
    idle_after_seconds: Annotated[float, Field(gt=0)] = 60.0
    # Longer without a sign of life from the page is away: a closed laptop, a lost connection, another window.
    away_after_seconds: Annotated[float, Field(gt=0)] = 45.0
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 15.0
    # Thresholds of idleness in the report's sensitivity table.
    sensitivity_seconds: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        15.0, 30.0, 60.0, 100.0, 180.0,
    )  # fmt: skip

    @model_validator(mode="after")
    def _heartbeats_come_in_time(self) -> WorkTime:
        if self.away_after_seconds <= self.heartbeat_seconds:
            raise ValueError("away_after_seconds must be longer than heartbeat_seconds, or nobody is ever there")
        return self


class TrustedProxy(Section):
    """A proxy that has authenticated the user (OIDC in front of redraft) and says so in a header."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")] = "X-Forwarded-User"
    # Addresses whose header is believed; anybody else's is ignored.
    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    # Shared with the proxy, in the header X-Redraft-Proxy: an address alone can be anybody's on the same machine.
    secret: SecretRef


class Web(Section):
    """The pages: `redraft serve`."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    # What browsers see, where a proxy stands in front; cookies are sent over https only unless it is loopback.
    url: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    proxy: TrustedProxy | None = None
    session_hours: Annotated[float, Field(gt=0)] = 10.0
    session_idle_minutes: Annotated[float, Field(gt=0)] = 60.0
    # Wrong passwords of one login within 15 minutes; then it waits. One address, which many share, has five times that.
    sign_in_attempts: Annotated[int, Field(ge=1)] = 8
    max_upload_mb: Annotated[int, Field(ge=1)] = 64
    # Sweep by itself (take in what is finished, close what is complete) every so often; never when 0.
    sweep_minutes: Annotated[float, Field(ge=0)] = 5.0
    # Autosaves of work that is over are kept this long after its round was closed (redraft/desk/retention.py).
    keep_days: Annotated[float, Field(ge=1)] = 30.0


class Train(Section):
    """Training budget and network of one member; the spread of `members` networks is the uncertainty."""

    members: Annotated[int, Field(ge=1, le=16)] = 2
    steps: Annotated[int, Field(ge=1)] = 400
    batch_size: Annotated[int, Field(ge=1)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    channels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=8)] = (16, 32, 64, 128)
    patch: tuple[int, int, int] | None = None  # planned from the fingerprint when omitted
    spacing_mm: tuple[float, float, float] | None = None  # median spacing when omitted
    max_patch_voxels: Annotated[int, Field(ge=4096)] = 150_000
    foreground_share: Annotated[float, Field(ge=0, le=1)] = 0.66
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    validate_every: Annotated[int, Field(ge=1)] = 200
    precision: Literal["auto", "32", "bf16"] = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    devices: Annotated[int, Field(ge=1)] = 1


class Infer(Section):
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    batch_size: Annotated[int, Field(ge=1)] = 4


class Gate(Section):
    """Promotion criteria, recorded when the round opens.

    Cold start: mean Dice of every structure must reach `floor` (per structure, else `default_floor`).
    Later: one-sided lower bound of (challenger - champion) Dice, paired by exam and clustered by subject, must exceed
    -`margin` for every structure (non-inferiority, Bonferroni over structures).
    """

    test_set: str = "test"
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    default_floor: Annotated[float, Field(ge=0, le=1)] = 0.3
    floor: dict[str, float] = Field(default_factory=dict)
    approval: Literal["manual", "automatic"] = "manual"


class Bootstrap(Section):
    resamples: Annotated[int, Field(ge=200)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Simulation(Section):
    """The simulated backend's truth; its times are marked `simulated` in every record."""

    oracle: Path | None = None
    form: Literal["contour", "volume"] = "contour"
    scale: Annotated[float, Field(gt=0)] = 1.0


class Money(Section):
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    rates: str = "rates.yaml"
    site: str = "default"


class Rate(Section):
    role: str
    site: str = "default"
    valid_from: date
    per_hour: Decimal
    source: str


class RateCard(Section):
    """Versioned price list of one project (`rates.yaml`)."""

    version: str
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    rates: Annotated[tuple[Rate, ...], Field(min_length=1)]
    compute_per_hour: Decimal
    storage_per_gb_month: Decimal
    storage_months: Decimal = Decimal(12)
    source: str


def _without_password(value: str) -> str:
    scheme, is_url, rest = value.partition("://")
    login, at, _ = (rest if is_url else value).partition("@")
    # A user alone (git@host) is no secret; over HTTP it may be a token. A path may hold any character.
    if at and (":" in login or scheme.lower() in ("http", "https")) and (is_url or "/" not in login):
        raise ValueError(
            "a literal secret is refused, and this may hold one before its @; leave the login to the program that asks "
            "(git's credential helper, `dvc remote modify --local`, MLFLOW_TRACKING_PASSWORD, ~/.pgpass)"
        )
    return value


# A URL or path that is written into project.yaml, and so published.
Location = Annotated[str, AfterValidator(_without_password)]


class Remote(Section):
    """Where data (DVC) and history (git) are published; nothing is pushed where neither is set."""

    dvc: Location | None = None
    git: Location | None = None


class Services(Section):
    mlflow: Location | None = None  # tracking URI; `.redraft/mlflow.db` when omitted
    prefect: Location | None = None  # API URL; the one `redraft up` started when omitted


class Security(Section):
    """Keys and vault lie outside the project directory."""

    keys: SecretRef = SecretRef(env="REDRAFT_KEYS")
    # The published key reproduces demos and tests and protects nobody: never with patients' data.
    published_demo_keys: bool = False
    vault: Path | None = None  # ~/.local/share/redraft/vaults/<project id> when omitted
    vault_retention_days: Annotated[int, Field(ge=1)] = 3650
    # Trust anchors (public keys) for verification; the key file's own when omitted.
    trusted_keys: Path | None = None


class Config(Section):
    """The whole of project.yaml."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    template: str | None = None
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 20261121
    structures: Annotated[tuple[Structure, ...], Field(min_length=1)]
    ingest: Ingest
    deid: Deid = Deid()
    splits: Splits = Splits()
    select: Select
    dispatch: Dispatch
    validate_: Annotated[Validate, Field(alias="validate")] = Validate()
    consensus: Consensus = Consensus()
    time: WorkTime = WorkTime()
    web: Web = Web()
    train: Train = Train()
    infer: Infer = Infer()
    gate: Gate = Gate()
    bootstrap: Bootstrap = Bootstrap()
    simulation: Simulation = Simulation()
    money: Money = Money()
    remote: Remote = Remote()
    services: Services = Services()
    security: Security = Security()

    @model_validator(mode="after")
    def _structures_are_distinct(self) -> Config:
        for what in ("name", "value"):
            seen = [getattr(s, what) for s in self.structures]
            if len(set(seen)) != len(seen):
                raise ValueError(f"two structures share one {what}: {seen}")
        unknown = set(self.gate.floor) - {s.name for s in self.structures}
        if unknown:
            raise ValueError(f"gate.floor names unknown structures {sorted(unknown)}")
        for reader in self.dispatch.readers:
            unknown = set(reader.structures) - {s.name for s in self.structures}
            if unknown:
                raise ValueError(f"reader {reader.id} names unknown structures {sorted(unknown)}")
        return self

    @property
    def labels(self) -> dict[str, int]:
        """Structure name to label value; background is 0."""
        return {s.name: s.value for s in self.structures}
