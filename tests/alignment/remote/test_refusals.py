"""What a store's refusal says: which credentials, which region, which bucket; and never the library's own words."""

import time
from pathlib import Path
from threading import Event

import pytest
from obstore.exceptions import GenericError, UnauthenticatedError

from alignment.errors import ConfigError, GoneError, StoreError
from alignment.remote.objects import Bucket
from alignment.remote.refusals import Guard
from tests.alignment.remote.identity import telling
from tests.alignment.remote.refusing import refusing
from tests.s3 import CREDENTIALS

AWS = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN with temporary ones), or a profile of ~/.aws "
    "(AWS_PROFILE; needs the package boto3)"
)
RIGHTS = "refused; the credentials of the environment need the rights to list, read, write and delete there"
UNKNOWN = f"the store does not know the credentials; correct {AWS}"
EXPIRED = f"the credentials are expired; renew them: {AWS}"
REGION = "the bucket is in another region; set AWS_REGION to "
REFUSALS = [
    (403, "AccessDenied", "", RIGHTS),
    (401, "Unauthorized", "", RIGHTS),
    (403, "InvalidAccessKeyId", "", UNKNOWN),
    (403, "SignatureDoesNotMatch", "", UNKNOWN),
    (400, "InvalidToken", "", UNKNOWN),
    (400, "ExpiredToken", "", EXPIRED),
    (403, "RequestTimeTooSkewed", "", "the clock of this machine is too far off for a signed request; set it"),
    (301, "PermanentRedirect", "", f"{REGION}its own"),
    (
        400,
        "AuthorizationHeaderMalformed",
        "the region 'us-east-1' is wrong; expecting 'eu-west-1'",
        f"{REGION}eu-west-1",
    ),
    (404, "NoSuchBucket", "", "there is no such bucket; create it, or correct PLUMBLINE_STORE"),
]


@pytest.mark.parametrize(("status", "code", "message", "told"), REFUSALS, ids=[each[1] for each in REFUSALS])
def test_a_refusal_is_one_line_with_the_way_out_whatever_was_asked(
    status: int, code: str, message: str, told: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing(status, code, message) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        bucket = Bucket(address)
        for what, ask in {
            "read": lambda: bucket.get("a"),
            "list": lambda: list(bucket.listing("a")),
            "write": lambda: bucket.create("a", b""),
            "delete": lambda: bucket.delete(["a"]),
        }.items():
            with pytest.raises(StoreError) as raised:
                ask()
            assert str(raised.value) == f"stage store: cannot {what} {address}/a: {told}"
            assert not raised.value.transient


@pytest.fixture
def nothing_set(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials in the environment, none in the home, and a machine that is of no cloud."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # for boto3


@pytest.mark.usefixtures("nothing_set")
def test_without_credentials_those_that_are_looked_for_are_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing() as url:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", url)
        with pytest.raises(StoreError) as raised:
            Bucket(address).get("a")
    assert str(raised.value) == f"stage store: cannot read {address}/a: no credentials were found; set {AWS}"
    assert not raised.value.transient


@pytest.mark.usefixtures("nothing_set")
def test_a_machines_own_credentials_that_are_not_renewed_for_a_moment_may_be_once_the_bucket_has_answered(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Event()
    with telling(CREDENTIALS, away) as url:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", url)
        bucket, other = Bucket(address), Bucket(address)
        assert bucket.get("a") is None
        away.set()
        time.sleep(0.2)  # for a tenth of a second the last keys are taken again
        for each, told, passes in (
            (bucket, "the credentials could not be renewed; what is finished is kept on this machine: run again", True),
            (other, f"no credentials were found; set {AWS}", False),
        ):
            with pytest.raises(StoreError) as raised:
                each.get("a")
            assert str(raised.value).startswith(f"stage store: cannot read {address}/a: {told}")
            assert raised.value.transient is passes
        away.clear()
        assert bucket.get("a") is None


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("AWS_PROFILE", "missing", "The config profile (missing) could not be found"),
        ("AWS_ACCESS_KEY_ID", "a", "Generic S3 error: Missing SecretAccessKey"),
    ],
)
def test_half_of_the_credentials_is_refused_before_anything_is_asked(
    name: str, value: str, told: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        Bucket(address)
    assert str(raised.value) == (
        f"PLUMBLINE_STORE {address}: cannot be used ({told}); correct the address, or the credentials: {AWS}"
    )


@pytest.mark.parametrize(
    ("scheme", "error", "told"),
    [
        (
            "gs",
            GenericError("token request: GET http://169.254.169.254/computeMetadata/v1/instance/service-accounts"),
            "no credentials were found; set GOOGLE_APPLICATION_CREDENTIALS",
        ),
        ("gs", GenericError("NoSuchBucket: The specified bucket does not exist."), "there is no such bucket"),
        (
            "az",
            GenericError("token request: GET http://169.254.169.254/metadata/identity/oauth2/token"),
            "no credentials were found; set AZURE_STORAGE_ACCOUNT_NAME with",
        ),
        ("az", GenericError("404 Not Found: <Code>ContainerNotFound</Code>"), "there is no such bucket"),
        ("az", GenericError("403 Forbidden: <Code>AuthenticationFailed</Code>"), "the store does not know the"),
        ("s3", UnauthenticatedError("NoCredentialsError: Unable to locate credentials"), "no credentials were found"),
        (
            "s3",
            UnauthenticatedError("UnauthorizedSSOTokenError: The SSO session has expired"),
            "the credentials are exp",
        ),
    ],
)
def test_the_other_clouds_and_providers_are_told_alike(scheme: str, error: Exception, told: str) -> None:
    """By what their library says, since no server of theirs is at hand."""
    with pytest.raises(StoreError) as raised, Guard("head", scheme):
        raise error
    assert str(raised.value).startswith(f"head: {told}")
    assert not raised.value.transient


def test_what_may_not_be_read_is_not_taken_for_gone(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `store verify --delete` would delete it."""
    bucket = Bucket(address)
    assert bucket.fault("a", "digest") == f"{address}/a is gone"
    with pytest.raises(GoneError):
        list(bucket.pieces("a"))
    with refusing() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StoreError, match="refused; the credentials"):
            Bucket(address).fault("a", "digest")
