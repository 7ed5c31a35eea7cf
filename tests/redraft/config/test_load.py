"""Mistakes in project.yaml and rates.yaml are named with file, line and what is allowed; secrets never stand there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.config.load import load_config, load_rates
from redraft.config.schema import Config
from redraft.create import TEMPLATES
from redraft.errors import ConfigError

MINIMAL = """\
name: kidneys
structures:
  - {name: kidney, value: 1, kind: organ}
  - name: tumor
    value: 2
    kind: tumor
ingest:
  modalities: [CT]
select:
  budget: {exams: 5}
dispatch:
  readers:
    - {id: reader-1}
"""
RATES = (files("redraft.config.templates") / "rates.yaml").read_text(encoding="utf-8")


def template(name: str) -> str:
    return (files("redraft.config.templates") / f"{name}.yaml").read_text(encoding="utf-8").replace("{name}", name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "project.yaml"


def refusal(path: Path, text: str) -> str:
    """Write and load a configuration that must be refused; returns the message."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return caught.value.what


def line_of(text: str, part: str) -> int:
    """Number of the only line that holds `part`."""
    (number,) = [n for n, line in enumerate(text.splitlines(), 1) if part in line]
    return number


# -- what is accepted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_loads(path: Path, name: str) -> None:
    """What `redraft init` writes is accepted as it stands."""
    path.write_text(template(name), encoding="utf-8")
    config = load_config(path)
    assert config.name == config.template == name
    assert config.structures and set(config.gate.floor) <= set(config.labels)


def test_no_template_is_left_out() -> None:
    """Every template file beside the rate card is offered, and the rate card loads."""
    found = {item.name.removesuffix(".yaml") for item in files("redraft.config.templates").iterdir()}
    assert {name for name in found if not name.startswith("_")} == {*TEMPLATES, "rates"}


def test_money_is_read_without_losing_a_digit(tmp_path: Path) -> None:
    """A price written as text is that decimal number."""
    (tmp_path / "rates.yaml").write_text(RATES.replace('"218.50"', '"218.1000000000000000001"'), encoding="utf-8")
    assert str(load_rates(tmp_path / "rates.yaml").rates[0].per_hour) == "218.1000000000000000001"


def test_the_smallest_configuration_has_every_default(path: Path) -> None:
    """What is left out takes the default of its section."""
    path.write_text(MINIMAL, encoding="utf-8")
    config = load_config(path)
    assert config.labels == {"kidney": 1, "tumor": 2}
    assert config == Config.model_validate_json(config.model_dump_json(by_alias=True))


# -- unknown keys and typing mistakes ----------------------------------------------------------------------------------

SECTIONS = [
    "splits",
    "validate",
    "train",
    "infer",
    "gate",
    "bootstrap",
    "simulation",
    "money",
    "remote",
    "services",
    "security",
]


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_is_refused_in_every_section(path: Path, section: str) -> None:
    """Line, full name and the names that are allowed there."""
    text = f"{MINIMAL}{section}:\n  # a comment\n  no_such_key: 1\n"
    message = refusal(path, text)
    field = next(f for n, f in Config.model_fields.items() if section in (n, f.alias))
    assert message.startswith(f"project.yaml:{line_of(text, 'no_such_key')}: unknown key `{section}.no_such_key`.")
    allowed = message.split("Allowed here: ")[1].rstrip(".").split(", ")
    assert allowed == sorted(f.alias or n for n, f in field.annotation.model_fields.items())


@pytest.mark.parametrize(
    ("right", "wrong", "dotted"),
    [
        ("structures:", "structure:", "structure"),
        ("  modalities:", "  modalites:", "ingest.modalites"),
        ("  budget:", "  bugdet:", "select.bugdet"),
        ("    value: 2", "    valeu: 2", "structures.1.valeu"),
        ("{id: reader-1}", "{id: reader-1, sped: 2}", "dispatch.readers.0.sped"),
    ],
)
def test_a_typing_mistake_is_answered_with_the_right_word(path: Path, right: str, wrong: str, dotted: str) -> None:
    """The message points at the line and offers the key that was meant."""
    text = MINIMAL.replace(right, wrong)
    meant = {"sped": "speed"}.get(dotted.split(".")[-1]) or right.strip().split(":")[0]
    lines = refusal(path, text).splitlines()
    assert any(
        line.startswith(f"project.yaml:{line_of(text, wrong.strip())}: unknown key `{dotted}`. Did you mean `{meant}`?")
        for line in lines
    ), lines


def test_validate_is_named_as_in_the_file(path: Path) -> None:
    """The section `validate` is never called by the name it has in the code."""
    message = refusal(path, MINIMAL + "validate_: {max_minutes: 3}\n")
    assert "Did you mean `validate`?" in message and "validate_," not in message


# -- bad values --------------------------------------------------------------------------------------------------------

BAD = [
    ("name: kidneys", "name: My Kidneys", "name"),
    ("value: 1", "value: 0", "structures.0.value"),
    ("value: 1", "value: 256", "structures.0.value"),
    ("value: 1", "value: one", "structures.0.value"),
    ("kind: organ", "kind: organs", "structures.0.kind"),
    ("name: kidney,", "name: Kidney 1,", "structures.0.name"),
    ("    kind: tumor", "    kind: tumor\n    tolerance_mm: 0", "structures.1.tolerance_mm"),
    ("    kind: tumor", "    kind: tumor\n    tolerance_mm: .inf", "structures.1.tolerance_mm"),
    ("    kind: tumor", "    kind: tumor\n    volume_ml: 20", "structures.1.volume_ml"),
    ("    kind: tumor", "    kind: tumor\n    volume_ml: [900, 20]", "structures.1.volume_ml"),
    ("modalities: [CT]", "modalities: [CT, XR]", "ingest.modalities.1"),
    ("modalities: [CT]", "modalities: [CT]\n  max_spacing_mm: .nan", "ingest.max_spacing_mm"),
    ("budget: {exams: 5}", "budget: {exams: 0}", "select.budget.exams"),
    ("budget: {exams: 5}", "budget: {exams: 5, minutes: 60}", "select.budget"),
    ("budget: {exams: 5}", "budget: {}", "select.budget"),
    ("budget: {exams: 5}", "budget: {exams: 5}\n  control_share: 1.5", "select.control_share"),
    ("budget: {exams: 5}", "budget: {exams: 5}\n  strategy: guess", "select.strategy"),
    ("    - {id: reader-1}", "    - {id: Dr. House}", "dispatch.readers.0.id"),
    ("    - {id: reader-1}", "    - {id: reader-1}\n  deadline_days: -1", "dispatch.deadline_days"),
]


@pytest.mark.parametrize(("right", "wrong", "dotted"), BAD)
def test_a_bad_value_is_named_with_its_line(path: Path, right: str, wrong: str, dotted: str) -> None:
    """One mistake, one line, at the place where the value stands."""
    text = MINIMAL.replace(right, wrong)
    assert text != MINIMAL
    (message,) = refusal(path, text).splitlines()
    assert message.startswith(f"project.yaml:{line_of(text, wrong.splitlines()[-1].strip())}: `{dotted}`: ")


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        (MINIMAL.replace("kind: organ", "kind: organs"), ["organ", "tumor", "lesion", "vessel"]),
        (MINIMAL.replace("[CT]", "[XR]"), ["CT", "MR", "PT"]),
        (MINIMAL + "gate: {approval: maybe}\n", ["manual", "automatic"]),
        (MINIMAL + "bootstrap: {resamples: 10}\n", ["200"]),
        (MINIMAL + "train: {members: 99}\n", ["16"]),
    ],
)
def test_what_is_allowed_is_said(path: Path, wrong: str, allowed: list[str]) -> None:
    """Choices and limits are in the message."""
    message = refusal(path, wrong)
    assert all(word in message for word in allowed), message


@pytest.mark.parametrize("key", ["name", "structures", "ingest", "select", "dispatch"])
def test_missing_sections_are_all_named(path: Path, key: str) -> None:
    """What has no default must be given; one message per missing key, each with its name."""
    blocks = MINIMAL.replace("\n  ", "\n§").splitlines()
    kept, keep = [], True
    for line in blocks:
        if not line.startswith("§"):
            keep = not line.startswith(f"{key}:")
        if keep:
            kept.append(line.replace("§", "  ", 1))
    assert f"`{key}` is missing" in refusal(path, "\n".join(kept) + "\n")


def test_every_mistake_is_listed_at_once(path: Path) -> None:
    """Three mistakes are three lines: nobody has to run the command three times."""
    text = MINIMAL.replace("kind: organ", "kind: organs").replace("exams: 5", "exams: 0").replace("[CT]", "[XR]")
    lines = refusal(path, text).splitlines()
    assert [int(line.split(":")[1]) for line in lines] == [line_of(text, p) for p in ("organs", "[XR]", "exams: 0")]


@pytest.mark.parametrize(
    ("old", "new", "what"), [("value: 2", "value: 1", "value"), ("name: tumor", "name: kidney", "name")]
)
def test_duplicate_structures_are_refused(path: Path, old: str, new: str, what: str) -> None:
    """Two structures with one name or one label value cannot be told apart."""
    assert f"two structures share one {what}" in refusal(path, MINIMAL.replace(old, new))


def test_a_floor_for_an_unknown_structure_is_refused(path: Path) -> None:
    """A misspelt structure in the gate would never be judged."""
    assert "kidny" in refusal(path, MINIMAL + "gate: {floor: {kidny: 0.9}}\n")


# -- files that are no configuration -----------------------------------------------------------------------------------


def test_a_key_given_twice_is_refused(path: Path) -> None:
    """The second one would silently win."""
    text = MINIMAL + "seed: 1\nseed: 2\n"
    assert refusal(path, text).startswith(f"project.yaml:{line_of(text, 'seed: 2')}: a key is given twice")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n", "# only a comment\n"])
def test_a_file_without_settings_is_refused(path: Path, text: str) -> None:
    """An empty file, a list or a text is not a configuration."""
    assert "no settings" in refusal(path, text)


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1, 2\nb: 3\n", 2), ("a: 1\n  b: 2\n", 2), ("a: 1\nb: 'x\n", 3), ("\tb: 2\n", 1)]
)
def test_broken_yaml_is_named_with_its_line(path: Path, text: str, line: int) -> None:
    """A bracket, indentation or quote that is wrong."""
    assert refusal(path, text).startswith(f"project.yaml:{line}: not valid YAML")


def test_what_cannot_be_read_is_a_config_error(path: Path) -> None:
    """Absent files, other encodings and control characters end in an error of ours."""
    with pytest.raises(ConfigError):
        load_config(path)
    path.write_bytes(MINIMAL.encode().replace(b"kidneys", b"ni\xe8re"))
    with pytest.raises(ConfigError):
        load_config(path)
    refusal(path, MINIMAL + "description: a\x00b\n")


@given(st.text(max_size=60), st.integers(0, len(MINIMAL)))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_ends_in_another_error(path: Path, text: str, place: int) -> None:
    """Whatever is typed into the file, it loads or is refused by name."""
    path.write_bytes((MINIMAL[:place] + text + MINIMAL[place:]).encode("utf-8", "replace"))
    try:
        load_config(path)
    except ConfigError as error:
        assert "project.yaml" in error.what


# -- secrets -----------------------------------------------------------------------------------------------------------

SECRET = "hunter2-very-secret"


@pytest.mark.parametrize(
    "value",
    [SECRET, f"[{SECRET}]", f"{{file: key.json, env: {SECRET}}}", f"{{value: {SECRET}}}", f"{{env: [{SECRET}]}}", "{}"],
)
def test_a_literal_secret_is_refused_and_not_repeated(path: Path, value: str) -> None:
    """`security.keys` takes a place; what stands there instead is never echoed to a terminal or a log."""
    text = f"{MINIMAL}security:\n  keys: {value}\n"
    message = refusal(path, text)
    assert message.startswith(f"project.yaml:{line_of(text, 'keys:')}: ")
    assert SECRET not in message


def test_the_places_of_a_secret_are_offered(path: Path) -> None:
    """The message says how a key is named instead."""
    message = refusal(path, f"{MINIMAL}security: {{keys: {SECRET}}}\n")
    assert "{file: PATH}" in message and "{env: NAME}" in message


@pytest.mark.parametrize("value", ["{file: ~/keys/a.json}", "{env: KEYS}"])
def test_a_place_of_a_secret_is_taken(path: Path, value: str) -> None:
    """A file or a variable."""
    path.write_text(f"{MINIMAL}security: {{keys: {value}}}\n", encoding="utf-8")
    keys = load_config(path).security.keys
    assert (keys.file is None) != (keys.env is None)


# -- rates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "dotted"),
    [
        ("currency: USD", "currency: dollars", "currency"),
        ('"218.50"', "a lot", "rates.0.per_hour"),
        ("valid_from: 2026-01-01\n    per_hour: \"48", "valid_from: soon\n    per_hour: \"48", "rates.1.valid_from"),
    ],
)  # fmt: skip
def test_mistakes_in_rates_are_named_too(tmp_path: Path, right: str, wrong: str, dotted: str) -> None:
    """The rate card has the same checks, under its own file name."""
    text = RATES.replace(right, wrong)
    (tmp_path / "rates.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_rates(tmp_path / "rates.yaml")
    place = line_of(text, wrong.splitlines()[0].strip())
    assert caught.value.what.startswith(f"rates.yaml:{place}: `{dotted}`: ")
