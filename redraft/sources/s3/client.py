"""Opening an S3 endpoint, and what its errors mean: in our words, since botocore's quote object keys and answers."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from redraft.config.sources import S3Source as Section
from redraft.errors import ConfigError, RedraftError, ServiceError
from redraft.sources.protocol import SourceContext
from redraft.sources.retry import NotNow


class Gone(Exception):
    """An object that is no longer there, or no longer the one that was listed."""


class Cold(Exception):
    """An object that its owner must restore from an archive class first."""


def open_client(section: Section, context: SourceContext) -> Any:
    """A botocore client for one source; its methods may be called from several threads."""
    # Their debug logs quote keys; they lie below whatever level the caller chose.
    for name in ("boto3", "botocore", "urllib3"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))
    ca = None
    if section.ca is not None:
        ca = context.resolve(section.ca)
        if not ca.is_file():
            raise ConfigError(
                f"The certificates of {what(section)} are not there: {ca}.", "Correct `ca` in project.yaml."
            )
    keys = {}
    if section.access_key is not None and section.secret_key is not None:
        keys = {
            "aws_access_key_id": context.secret(section.access_key),
            "aws_secret_access_key": context.secret(section.secret_key),
        }
    import boto3
    import botocore.session
    from botocore.config import Config

    # Times stay text: to parse them would take two thirds of the time of a listing of a million objects.
    core = botocore.session.get_session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    config = Config(
        connect_timeout=section.retry.timeout_seconds,
        read_timeout=section.retry.timeout_seconds,
        retries={"total_max_attempts": 1},  # asked again by redraft.sources.retry, as every remote source
        max_pool_connections=32,
        # Host names of the form bucket.host exist at AWS only.
        s3={"addressing_style": "path" if section.endpoint else "auto"},
        # Checksums are compared once the file lies on disk, also where it came in parts.
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session(botocore_session=core).client(
            "s3",
            endpoint_url=section.endpoint,
            region_name=section.region or ("us-east-1" if section.endpoint else None),
            verify=str(ca) if ca else None,
            config=config,
            **keys,
        )
    except Exception as error:  # e.g. ValueError for an endpoint that is no URL
        raise explained(error, section) from None


def what(section: Section) -> str:
    """The source in words: its name in project.yaml, the bucket, the endpoint's host."""
    host = urlsplit(section.endpoint or "").hostname
    where = f" at {host}" if host else ""
    return f"the source `{section.name}` (bucket {section.bucket}{where})"


_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"}
_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure", "401"}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}
_GONE = {"NoSuchKey", "404", "NotFound", "PreconditionFailed", "412", "NoSuchVersion", "InvalidRange", "416"}
_BUSY = {
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout",
    "InternalError", "OperationAborted", "429", "TooManyRequests",
}  # fmt: skip


def explained(error: Exception, section: Section) -> Exception:
    """What to raise for an error of a request: NotNow, an error in our words, or Gone or Cold for one object's."""
    from botocore import exceptions as boto

    if isinstance(error, (RedraftError, Gone, Cold, NotNow)):
        return error
    name = what(section)
    if isinstance(error, boto.ClientError):
        return _refused(error, name)
    if isinstance(error, boto.SSLError):
        return ServiceError(
            f"The certificate of {name} is not trusted.", "Set `ca` to its certificate authority's file.", retry=False
        )
    if isinstance(error, (boto.ReadTimeoutError, boto.ConnectTimeoutError)):
        return NotNow(f"no answer came within {section.retry.timeout_seconds:g} s")
    if isinstance(error, (boto.EndpointConnectionError, boto.ProxyConnectionError)):
        return NotNow("no connection could be made")
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        return NotNow("the connection broke")
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return ServiceError(
            f"There are no access keys for {name}.",
            "Give `access_key` and `secret_key` in project.yaml, or set boto3 up (environment, profile, role).",
            retry=False,
        )
    if isinstance(error, (boto.BotoCoreError, ValueError)):
        return ServiceError(
            f"From the settings of {name} no valid request can be made ({type(error).__name__}).",
            "Check `endpoint`, `bucket` and `region` in project.yaml.",
            retry=False,
        )
    return error


def _refused(error: Any, name: str) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _GONE:
        return Gone()
    if code in ("InvalidObjectState", "RestoreAlreadyInProgress"):
        return Cold()
    if code == "NoSuchBucket":
        return ServiceError(
            f"There is no such bucket: {name}.", "Check `bucket` and `endpoint` in project.yaml.", retry=False
        )
    if code in _KEYS:
        return ServiceError(
            f"The access keys are not accepted by {name} ({code}).",
            "Check what `access_key` and `secret_key` refer to.",
            retry=False,
        )
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return ServiceError(f"The clock of this machine is wrong, says {name}.", "Set the clock (NTP).", retry=False)
    if code in _DENIED:
        return ServiceError(
            f"Access is denied by {name}.",
            "Its keys need s3:ListBucket on the bucket and s3:GetObject on the objects below the prefix.",
            retry=False,
        )
    if code in _REGION:
        return ServiceError(
            f"Another region than `region` says holds {name}.", "Set `region` in project.yaml to it.", retry=False
        )
    # A code is a word of the protocol; anything else could quote a key.
    said = code if code.isalnum() and len(code) < 40 else "no code that is known"
    if code in _BUSY or status >= 500:
        return NotNow(f"it is busy ({said})")
    return ServiceError(f"The request was refused by {name} ({said}).", "Ask whoever runs it what this means.")
