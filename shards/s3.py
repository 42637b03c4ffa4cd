"""The S3 protocol, on AWS and on servers that are not.

Credentials, region, endpoint and CA bundle come from boto3's own chain (`AWS_*`, `~/.aws`, roles)
and appear in no message. Integrity: every upload carries Content-MD5, which AWS and the other
servers check; boto3's newer default checksums, which those others refuse, are sent only when the
protocol requires them; what is read is checked by its reader (crc32c per member, sha256 per shard).
Patience: botocore's adaptive retries (exponential, full jitter) before the first byte, the same
here for a body that breaks or stalls, and a second request on a fresh connection for a slow one
(see `shards.hedge`).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3.exceptions import HTTPError

from shards.hedge import Hedge
from shards.storage import UnreachableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART = 16 << 20  # bytes of a part of a multipart upload
_MOST_PARTS = 9_000  # S3 allows 10,000
_UPLOADS = 4  # parts on their way at once
_BODY_ATTEMPTS = 6
_LONGEST_PAUSE_S = 8.0
ATTEMPTS = 6  # of a request whose answer never began; a broken body has its own count
READ_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
_CONFLICTS = 5
_ABSENT = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}
_UNREACHED = (
    exceptions.ConnectionError,
    exceptions.ConnectionClosedError,
    exceptions.ReadTimeoutError,
)
_OVERLOADED = {502, 503, 504}  # what a gateway says of the servers behind it, or S3 of its load


class S3Store:
    """The names below `s3://bucket/prefix`. Nothing is contacted until it is used.

    Missing names raise FileNotFoundError, refused access PermissionError, an endpoint that does
    not answer UnreachableError, and everything else OSError; each names the URL and says what to
    check.
    """

    def __init__(self, location: str) -> None:
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        if not bucket:
            raise ValueError(f"{location!r}: want s3://BUCKET or s3://BUCKET/PREFIX")
        self.bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.location = f"s3://{bucket}/{prefix.strip('/')}".rstrip("/")
        self._clients = _Clients()

    def read(self, name: str) -> bytes:
        with self._errors(name):
            return _body(self._clients.main, self._where(name))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        if size == 0:
            return b""
        where = self._where(name) | {"Range": f"bytes={offset}-{offset + size - 1}"}
        with self._errors(name):
            try:
                return self._clients.hedge.run(
                    size,
                    lambda: _body(self._clients.main, where),
                    lambda: _body(self._clients.fresh, where),
                )
            except ClientError as error:
                if _code(error) in {"InvalidRange", "416"}:
                    return b""  # the range begins where the content ends, or beyond
                raise

    def write(self, name: str, data: bytes) -> None:
        with self._errors(name):
            self._clients.main.put_object(**self._where(name), Body=data, ContentMD5=_md5(data))

    def write_new(self, name: str, data: bytes) -> bool:
        with self._errors(name):
            for attempt in range(_CONFLICTS):
                try:
                    return self._put_new(name, data)
                except ClientError as error:
                    # Two conditional writes met; S3 asks both to come again.
                    if _code(error) != "ConditionalRequestConflict":
                        raise
                    _pause(attempt)
            return self._put_new(name, data)

    def _put_new(self, name: str, data: bytes) -> bool:
        mine = uuid.uuid4().hex
        try:
            self._clients.main.put_object(
                **self._where(name),
                Body=data,
                ContentMD5=_md5(data),
                IfNoneMatch="*",
                Metadata={"writer": mine},
            )
        except ClientError as error:
            if _status(error) != 412:
                raise
            # A retry may have met what its own first attempt wrote before the answer was lost.
            found = self._clients.main.head_object(**self._where(name))
            return found["Metadata"].get("writer") == mine
        return True

    def upload(self, name: str, path: Path) -> None:
        size = path.stat().st_size
        if size <= PART:
            self.write(name, path.read_bytes())
            return
        part = max(PART, -(-size // _MOST_PARTS))
        client, where = self._clients.main, self._where(name)
        with self._errors(name):
            upload = client.create_multipart_upload(**where)["UploadId"]
            try:
                with ThreadPoolExecutor(_UPLOADS) as pool:
                    parts = list(
                        pool.map(
                            lambda offset: self._upload_part(name, path, upload, offset, part),
                            range(0, size, part),
                        )
                    )
                client.complete_multipart_upload(
                    **where, UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                client.abort_multipart_upload(**where, UploadId=upload)
                raise

    def _upload_part(
        self, name: str, path: Path, upload: str, offset: int, size: int
    ) -> CompletedPartTypeDef:
        with path.open("rb") as file:
            data = os.pread(file.fileno(), size, offset)
        number = offset // size + 1
        reply = self._clients.main.upload_part(
            **self._where(name),
            UploadId=upload,
            PartNumber=number,
            Body=data,
            ContentMD5=_md5(data),
        )
        return {"PartNumber": number, "ETag": reply["ETag"]}

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        pages = self._clients.main.get_paginator("list_objects_v2")
        with self._errors(prefix):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self._prefix), item["Size"]

    def delete(self, name: str) -> None:
        with self._errors(name):
            self._clients.main.delete_object(**self._where(name))

    def hedge_counts(self) -> dict[str, int]:
        """Ranged reads so far, those sent twice, and those whose second answer came first."""
        hedge = self._clients.hedge
        return {"sent": hedge.sent, "hedged": hedge.hedged, "won": hedge.won}

    def _where(self, name: str) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self._prefix + name}

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        url = f"s3://{self.bucket}/{self._prefix}{name}"
        try:
            yield
        except NoCredentialsError:
            raise PermissionError(
                f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "AWS_PROFILE, or give the machine a role"
            ) from None
        except ClientError as error:
            if _status(error) in _OVERLOADED:
                why = f"it answers {_status(error)} ({_code(error)})"
                raise self._unreachable(why, url) from None
            raise _explain(error, url) from None
        except _UNREACHED as error:
            raise self._unreachable(type(error).__name__, url) from None
        except (BotoCoreError, HTTPError) as error:
            # The class alone: some of botocore's texts quote the signed request.
            raise OSError(f"{url}: {type(error).__name__}") from None

    def _unreachable(self, why: str, url: str) -> UnreachableError:
        endpoint = self._clients.main.meta.endpoint_url
        return UnreachableError(
            f"S3 at {endpoint} cannot be reached: {why}, asked {ATTEMPTS} times for {url}; "
            "is the endpoint right (AWS_ENDPOINT_URL_S3), up, and open to this machine?"
        )


class _Clients:
    """boto3's clients, made on first use and made again after a fork, which they do not survive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[int, S3Client, S3Client, Hedge] | None = None

    @property
    def main(self) -> S3Client:
        return self._get()[1]

    @property
    def fresh(self) -> S3Client:
        """Closes each connection after one request, so that the next gets a new one."""
        return self._get()[2]

    @property
    def hedge(self) -> Hedge:
        return self._get()[3]

    def _get(self) -> tuple[int, S3Client, S3Client, Hedge]:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                session = boto3.session.Session()
                main, fresh = (session.client("s3", config=_config()) for _ in range(2))
                fresh.meta.events.register("before-send.s3.GetObject", _close_after)
                self._made = (os.getpid(), main, fresh, Hedge())
            return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


def _config() -> Config:
    return Config(
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=64,
        tcp_keepalive=True,
    )


def _close_after(request: Any, **_: Any) -> None:
    request.headers["Connection"] = "close"


def _body(client: S3Client, where: dict[str, Any]) -> bytes:
    """A GET, whole: botocore retries until the headers are there, this until the body is."""
    for attempt in itertools.count(1):
        body = client.get_object(**where)["Body"]
        try:
            with body:
                return body.read()
        except (BotoCoreError, HTTPError):
            if attempt == _BODY_ATTEMPTS:
                raise
        _pause(attempt)
    raise AssertionError("unreachable")


def _pause(attempt: int) -> None:
    """Exponential, with full jitter."""
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.1 * 2**attempt)))


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")


def _code(error: ClientError) -> str:
    return error.response["Error"].get("Code", "unknown")


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _explain(error: ClientError, url: str) -> OSError:
    code, status = _code(error), _status(error)
    if code in _ABSENT or status == 404:
        missing = "no such bucket" if code == "NoSuchBucket" else "no such object"
        return FileNotFoundError(f"{url}: {missing}")
    if status in (401, 403):
        return PermissionError(
            f"{url}: access denied ({code}); check the credentials, their policy and the bucket"
        )
    if status == 501:
        return OSError(
            f"{url}: the server does not implement what this needs ({code}); conditional writes "
            "(If-None-Match) must be supported"
        )
    return OSError(f"{url}: the server answered {status} ({code})")
