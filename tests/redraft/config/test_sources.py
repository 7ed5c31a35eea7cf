"""Sources in project.yaml: every kind is read, every mistake has its line, and no secret is taken or echoed."""

from __future__ import annotations

import traceback
from pathlib import Path
from textwrap import indent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.config.load import load_config
from redraft.config.sources import SOURCE_KINDS, SourceSection
from redraft.errors import ConfigError

HEAD = """\
name: kidneys
structures:
  - {name: kidney, value: 1, kind: organ}
select:
  budget: {exams: 5}
dispatch:
  readers:
    - {id: reader-1}
ingest:
  modalities: [CT]
  sources:
"""
SECRET = "hunter2-f00ba9"

# The least that each kind needs, and everything that it knows.
LEAST = {
    "folder": "kind: folder\npath: ../exams",
    "dicomweb": "kind: dicomweb\nname: pacs\nurl: https://pacs.example/dicom-web",
    "dimse": "kind: dimse\nname: pacs\nhost: pacs.example\npacs_title: PACS",
    "receive": "kind: receive\nname: inbox\nallow: [{ae_title: CT2}]",
    "s3": "kind: s3\nname: archive\nbucket: exams",
}
WANTED = """
take_in: false
wanted:
  modalities: [CT]
  study_description: "*abdomen*"
  series_description: "?.0 mm"
  body_part: [ABDOMEN]
  dates: [2024-01-01, null]
  accessions: ../accessions.txt"""
RETRY = "\nretry: {attempts: 2, wait_seconds: 0.5, timeout_seconds: 5}"
TLS = "\ntls: {ca: /etc/ca.pem, certificate: /etc/me.pem, key: /etc/me.key}"
MOST = {
    "folder": LEAST["folder"] + "\nname: share" + WANTED,
    "dicomweb": LEAST["dicomweb"] + "\nbasic: {user: {env: USER_NAME}, password: {file: ../pw}}\npage: 100"
    + WANTED + RETRY + TLS,
    "dimse": LEAST["dimse"] + "\npacs_port: 4242\nae_title: ME\nport: 0" + WANTED + RETRY + TLS,
    "receive": LEAST["receive"] + "\nae_title: ME\nport: 0\nbind: 127.0.0.1\nquiet_seconds: 0\nfolder: ../inbox"
    + WANTED + TLS,
    "s3": LEAST["s3"] + "\nprefix: in/\nendpoint: http://127.0.0.1:9000\nregion: eu-central-1\n"
    "access_key: {env: S3_KEY}\nsecret_key: {file: ../s3}\nca: /etc/ca.pem" + WANTED + RETRY,
}  # fmt: skip


def text_of(*sources: str) -> str:
    return HEAD + "".join("    - " + indent(source, "      ").lstrip() + "\n" for source in sources)


def load(folder: Path, *sources: str) -> tuple[SourceSection, ...]:
    path = folder / "project.yaml"
    path.write_text(text_of(*sources), encoding="utf-8")
    return load_config(path).ingest.sources


def refusal(folder: Path, *sources: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, *sources)
    assert SECRET not in str(caught.value) and SECRET not in str(caught.value.to_dict())
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value.what


def line_of(part: str, *sources: str) -> int:
    (number,) = [n for n, line in enumerate(text_of(*sources).splitlines(), 1) if part in line]
    return number


# -- what is accepted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SOURCE_KINDS))
@pytest.mark.parametrize("form", [LEAST, MOST])
def test_every_kind_is_read(tmp_path: Path, kind: str, form: dict[str, str]) -> None:
    """The least and the most that each kind takes; every value that is given arrives."""
    (source,) = load(tmp_path, form[kind])
    assert type(source) is SOURCE_KINDS[kind] and getattr(source, "kind") == kind  # noqa: B009
    given_keys = {line.split(":")[0] for line in form[kind].splitlines() if line[0] not in " -" and ":" in line}
    assert source.model_fields_set == given_keys
    if form is MOST:
        assert set(type(source).model_fields) - given_keys <= {"bearer", "retry", "tls", "allow_plain_http"}
        assert source.wanted.model_fields_set == set(type(source.wanted).model_fields)


def test_a_path_alone_is_a_folder_and_kinds_go_together(tmp_path: Path) -> None:
    """Sources of all kinds stand beside one another in their order; several folders need no names."""
    sources = load(tmp_path, "../a", "path: ../b", *(LEAST[kind].replace("pacs\n", f"{kind}\n") for kind in LEAST))
    assert [source.kind for source in sources] == ["folder", "folder", *LEAST]  # type: ignore[attr-defined]
    assert [str(source.path) for source in sources[:2]] == ["../a", "../b"]  # type: ignore[attr-defined]


# -- what is refused, and where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SOURCE_KINDS))
def test_an_unknown_key_is_named_with_its_line_and_what_is_allowed(tmp_path: Path, kind: str) -> None:
    """Of each kind: the key, its line, the keys of this kind and the one that was meant."""
    source = LEAST[kind] + "\nwantd: {}"
    said = refusal(tmp_path, source)
    assert f"project.yaml:{line_of('wantd', source)}: unknown key `ingest.sources.0.wantd`." in said
    assert "Did you mean `wanted`?" in said
    for name in SOURCE_KINDS[kind].model_fields:
        assert f"{name}" in said.split("Allowed here: ")[1]
    deeper = LEAST[kind] + "\nwanted:\n  modality: CT"
    assert f"project.yaml:{line_of('modality:', deeper)}: unknown key `ingest.sources.0.wanted.modality`" in refusal(
        tmp_path, deeper
    )


@pytest.mark.parametrize("kind", ["pacs", "S3", "", "7"])
def test_an_unknown_kind_names_the_kinds(tmp_path: Path, kind: str) -> None:
    """Kinds are written as they are; the second source is meant, not the first."""
    said = refusal(tmp_path, LEAST["s3"], f"kind: {kind or repr('')}\nname: x")
    assert "ingest.sources.1" in said and "unknown kind" in said
    assert all(name in said for name in SOURCE_KINDS)


@pytest.mark.parametrize("kind", sorted(set(SOURCE_KINDS) - {"folder"}))
def test_what_a_kind_needs_is_asked_for(tmp_path: Path, kind: str) -> None:
    """Each line of the least is needed."""
    lines = LEAST[kind].splitlines()
    for line in lines[1:]:
        said = refusal(tmp_path, "\n".join(one for one in lines if one != line))
        assert f"`ingest.sources.0.{line.split(':')[0]}` is missing" in said


MISTAKES = [
    ("s3", "access_key: {env: A}", "give `access_key` and `secret_key` together"),
    ("s3", "access_key: {env: A, file: b}\nsecret_key: {env: B}", "a literal secret is refused"),
    ("s3", "retry: {attempts: 0}", "attempts"),
    ("s3", "retry: {timeout_seconds: .inf}", "timeout_seconds"),
    ("dicomweb", "basic: {user: {env: A}, password: {env: B}}\nbearer: {env: C}", "give `basic` or `bearer`"),
    ("dicomweb", "url: ftp://pacs", "url"),
    ("dicomweb", "tls: {certificate: a.pem}", "give `certificate` and `key` together"),
    ("dicomweb", "page: 0", "page"),
    ("dimse", "pacs_port: 70000", "pacs_port"),
    ("dimse", "pacs_title: A-TITLE-OF-17-LET", "pacs_title"),
    ("dimse", 'ae_title: "A\\\\B"', "ae_title"),
    ("receive", "allow: []", "allow"),
    ("receive", "quiet_seconds: -1", "quiet_seconds"),
    ("folder", "wanted: {dates: [2024-02-01, 2024-01-01]}", "the first and the last date, in this order"),
    ("folder", "wanted: {dates: [yesterday, null]}", "dates"),
    ("folder", "name: Share 1", "name"),
]


@pytest.mark.parametrize(("kind", "lines", "words"), MISTAKES)
def test_wrong_values_are_named_with_the_source(tmp_path: Path, kind: str, lines: str, words: str) -> None:
    """Which source, on which line, and what is wrong; a value given twice counts once."""
    keys = {line.split(":")[0] for line in lines.splitlines()}
    least = [line for line in LEAST[kind].splitlines() if line.split(":")[0] not in keys]
    source = "\n".join([*least, lines])
    said = refusal(tmp_path, LEAST["receive"].replace("inbox", "other"), source)
    assert "`ingest.sources.1" in said and words in said
    number = int(said.split("project.yaml:")[1].split(":")[0])
    first = len(text_of(LEAST["receive"]).splitlines()) + 1
    assert first <= number <= first + len(source.splitlines())


def test_a_date_that_does_not_exist_is_refused_in_words(tmp_path: Path) -> None:
    """YAML itself makes dates of what looks like one."""
    assert "a date or number does not exist" in refusal(tmp_path, LEAST["s3"] + "\nwanted: {dates: [2024-02-31, null]}")


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    """A name tells where a series came from; folders are one source, whatever they are called."""
    assert "share one name" in refusal(tmp_path, LEAST["dimse"], LEAST["dicomweb"])
    assert len(load(tmp_path, "../a", "../b", "name: folder\npath: ../c")) == 3


# -- secrets -----------------------------------------------------------------------------------------------------------

PLACES = [
    ("s3", "access_key: LITERAL\nsecret_key: {env: B}"),
    ("s3", "access_key: {env: A}\nsecret_key: LITERAL"),
    ("dicomweb", "bearer: LITERAL"),
    ("dicomweb", "basic: {user: LITERAL, password: {env: B}}"),
    ("dicomweb", "basic: {user: {env: A}, password: LITERAL}"),
]
LITERALS = [
    SECRET, f"'{SECRET}'", f"[{SECRET}]", f"{{{SECRET}}}", f"{{value: {SECRET}}}", f"{{env: [{SECRET}]}}",
    f"{{{SECRET}: x}}", f"{{file: {{a: {SECRET}}}}}", f"{{env: A, file: {SECRET}}}", f"{{env: A, {SECRET}: B}}",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "place"), PLACES)
@pytest.mark.parametrize("literal", LITERALS)
def test_a_literal_secret_is_refused_and_never_echoed(tmp_path: Path, kind: str, place: str, literal: str) -> None:
    """Wherever it stands and however it is wrapped: the line and the way to do it, not the secret."""
    source = LEAST[kind] + "\n" + place.replace("LITERAL", literal)
    said = refusal(tmp_path, source)
    assert f"project.yaml:{line_of(SECRET, source)}:" in said
    assert "{file: PATH} or {env: NAME}" in said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(categories=["L", "N"]), min_size=8, max_size=30), st.sampled_from(PLACES))
def test_no_text_passes_for_a_reference(tmp_path: Path, secret: str, at: tuple[str, str]) -> None:
    """No string at all is a secret's reference, and none of them is repeated."""
    kind, place = at
    source = LEAST[kind] + "\n" + place.replace("LITERAL", f'"{secret}"')
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, source)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(("kind", "key"), [("dicomweb", "url"), ("s3", "endpoint")])
@pytest.mark.parametrize(
    "url", ["https://me:{}@pacs.example/x", "htps://me:{}@pacs.example", "https://{}@pacs.example"]
)
def test_a_url_with_a_password_is_a_literal_secret(tmp_path: Path, kind: str, key: str, url: str) -> None:
    """What stands before an @ is refused and not echoed, whatever else is wrong with the URL."""
    least = "\n".join(line for line in LEAST[kind].splitlines() if not line.startswith(key))
    source = f"{least}\n{key}: {url.format(SECRET)}"
    said = refusal(tmp_path, source)
    assert f"project.yaml:{line_of(SECRET, source)}: `ingest.sources.0.{key}`" in said


LOGINS = ["bearer: {env: A}", "basic: {user: {env: A}, password: {env: B}}"]


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize(
    "host", ["pacs.example", "10.1.4.17:8042", "127.0.0.1.example", "[2001:db8::1]", "localhost.x"]
)
def test_a_login_is_not_sent_in_clear_to_another_machine(tmp_path: Path, login: str, host: str) -> None:
    """Over http:// only where the project says so; https, no login and this very machine need no word."""
    rest = "kind: dicomweb\nname: pacs\nurl: http://" + host
    said = refusal(tmp_path, f"{rest}\n{login}")
    assert "`ingest.sources.0`" in said and "`allow_plain_http: true`" in said
    assert load(tmp_path, f"{rest}\n{login}\nallow_plain_http: true")[0].url.endswith(host)  # type: ignore[attr-defined]
    load(tmp_path, rest)
    load(tmp_path, f"{rest.replace('http:', 'https:')}\n{login}")
    for here in ("localhost", "127.0.0.1:8042/dicom-web", "127.9.9.9", "[::1]:80"):
        load(tmp_path, f"{rest.replace(host, here)}\n{login}")


@pytest.mark.parametrize(("section", "key"), [("remote", "git"), ("remote", "dvc"), ("services", "mlflow"),
                                              ("services", "prefect")])  # fmt: skip
@pytest.mark.parametrize("url", ["https://me:{}@git.example/x", "https://{}@git.example/x", "ssh://me:{}@git.example/x",
                                 "postgresql://me:{}@db.example/x", "me:{}@git.example:x"])  # fmt: skip
def test_a_password_in_a_place_to_publish_to_is_refused(tmp_path: Path, section: str, key: str, url: str) -> None:
    """Every URL of project.yaml, which is published itself: named with its line, and not echoed."""
    path = tmp_path / "project.yaml"
    text = text_of("../a") + f"{section}:\n  {key}: {url.format(SECRET)}\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    said = caught.value.what
    assert f"project.yaml:{len(text.splitlines())}: `{section}.{key}`: a literal secret is refused" in said
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["git@git.example:group/x.git", "ssh://git@git.example:22/a@b", "s3://bucket/a@b", "/srv/a:b@c", "../remote",
            "https://git.example:8443/x", "sqlite:////srv/mlflow.db"],
)  # fmt: skip
def test_a_user_alone_and_paths_are_no_secrets(tmp_path: Path, url: str) -> None:
    """What git, DVC and MLflow take without a password stays as it is written."""
    path = tmp_path / "project.yaml"
    path.write_text(text_of("../a") + f"remote: {{git: '{url}', dvc: '{url}'}}\nservices: {{mlflow: '{url}'}}\n")
    config = load_config(path)
    assert (config.remote.git, config.remote.dvc, config.services.mlflow) == (url, url, url)
