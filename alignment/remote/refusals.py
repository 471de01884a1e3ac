"""What a cloud's storage, or the way to it, says of a request that failed, as one StoreError with the way out."""

import re
from contextlib import AbstractContextManager
from threading import Event
from types import TracebackType

from alignment.errors import PlumblineError, StoreError

CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN with temporary ones), or a profile of "
    "~/.aws (AWS_PROFILE; needs the package boto3)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (the file of a service account's key), or run `gcloud auth "
    "application-default login`",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
"""Where each cloud's are looked for, as far as people set them; the machine's own identity comes last."""

NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified bucket does not exist")
NONE_FOUND = re.compile(  # where there are no others, the cloud's metadata service is asked who this machine is
    r"latest/api/token|latest/meta-data|computeMetadata|metadata/identity|169\.254\.170\.2"
    r"|NoCredentialsError|PartialCredentialsError|ProfileNotFound|CredentialRetrievalError|DefaultCredentialsError"
)
EXPIRED = re.compile(r"ExpiredToken|RequestExpired|TokenRefreshRequired|TokenRetrievalError|SSOTokenLoadError|SSOToken")
UNKNOWN = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|UnrecognizedClient|AuthenticationFailed|invalid_grant"
)
CLOCK = re.compile(r"RequestTimeTooSkewed")
REGION = re.compile(
    r"PermanentRedirect|TemporaryRedirect|redirect without LOCATION|AuthorizationHeaderMalformed|IllegalLocationConst"
)
NAMED_REGION = re.compile(r"expecting '([\w-]+)'")
REFUSED = re.compile(r"status code: 40[13]\b|AccessDenied")
RIGHTS = "refused; the credentials of the environment need the rights to list, read, write and delete there"


class Guard(AbstractContextManager[None]):
    """Turns what object_store raises into one StoreError of one line, which says whether it may pass."""

    def __init__(self, head: str, scheme: str, answered: Event | None = None) -> None:
        """`head` begins each message, and `scheme` is that of the address.

        `answered` is set once a request has had its answer. From then on there are credentials: where none are found,
        the service that renews a machine's own every hour is away for a moment.
        """
        self.head, self.scheme, self.answered = head, scheme, answered or Event()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise StoreError in place of `error`."""
        if error is None:
            self.answered.set()
        if error is None or isinstance(error, PlumblineError | GeneratorExit) or not isinstance(error, Exception):
            return
        from obstore.exceptions import BaseError

        if isinstance(error, NoBucket | BaseError) or NO_BUCKET.search(str(error)):
            raise self.told(error) from error

    def told(self, error: Exception) -> StoreError:
        """What is told of it."""
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        text = str(error.__cause__ if isinstance(error, NoBucket) else error).partition("\n\nDebug source")[0]
        what = meaning(text, self.scheme, "PLUMBLINE_STORE")
        if not what and isinstance(error, PermissionDeniedError | UnauthenticatedError):
            what = RIGHTS
        are_known = self.answered.is_set() and bool(NONE_FOUND.search(text)) and not EXPIRED.search(text)
        may_pass = not what or are_known
        if may_pass:
            why = "the credentials could not be renewed" if are_known else line(error)
            what = f"{why}; what is finished is kept on this machine: run again once the store answers"
        found = StoreError(f"{self.head}: {what}")
        found.transient = may_pass
        return found


def meaning(text: str, scheme: str, variable: str) -> str:
    """What a library's words about a request mean, with the way out; empty where they say nothing that stays so.

    `variable` is the one that names the bucket.
    """
    credentials = CREDENTIALS[scheme]
    if NO_BUCKET.search(text):
        return f"there is no such bucket; create it, or correct {variable}"
    if EXPIRED.search(text):
        return f"the credentials are expired; renew them: {credentials}"
    if NONE_FOUND.search(text):
        return f"no credentials were found; set {credentials}"
    if UNKNOWN.search(text):
        return f"the store does not know the credentials; correct {credentials}"
    if CLOCK.search(text):
        return "the clock of this machine is too far off for a signed request; set it"
    if scheme == "s3" and REGION.search(text):
        named = NAMED_REGION.search(text)
        return f"the bucket is in another region; set AWS_REGION to {named[1] if named else 'its own'}"
    return RIGHTS if REFUSED.search(text) else ""


class NoBucket(Exception):
    """The bucket itself is missing."""


def require_bucket(error: FileNotFoundError) -> None:
    """Raise where not the object but its bucket is missing; both are a 404."""
    if NO_BUCKET.search(str(error)):
        raise NoBucket from error


def line(error: BaseException) -> str:
    """The first line of what the library says, without the dump of its types."""
    first = str(error).partition("\n\nDebug source")[0].partition("<?xml")[0]
    return " ".join(first.split())[:300].rstrip(": ") or type(error).__name__
