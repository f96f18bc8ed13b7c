"""A store in a bucket, of AWS or whoever speaks S3 (https://docs.aws.amazon.com/AmazonS3/latest/API/).

Messages are our own words and the server's error code, never its text: so no credential can be in them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3  # type: ignore[import-untyped]
from botocore import exceptions  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from dbops.backup.keys import checked, is_key, missing
from dbops.backup.store import Item
from dbops.errors import ConfigError, ObjectMissing, StoreError

_ENDPOINTS = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ABSENT = {"NoSuchKey", "NotFound", "404"}
_PRECONDITION = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
# what botocore does not try again by itself: bytes that were lost on their way
_LOST = {"BadDigest", "IncompleteBody", "InvalidDigest", "XAmzContentSHA256Mismatch", "RequestTimeout"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "507", "XMinioStorageFull", "ServiceQuotaExceededException"}
_CREDENTIALS = (
    "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE) and what they may do there"
)
_HINTS = {
    "NoSuchBucket": "create the bucket, or mend the store's name or endpoint",
    "RequestTimeTooSkewed": "set this machine's clock",
    "EntityTooLarge": "take fewer pages per chunk",
}


def _quiet(_: str) -> None: ...


def s3_store(url: str, tell: Callable[[str], None] = _quiet) -> S3Store:
    """The store of `s3://bucket/prefix?endpoint=https://…&region=…`; credentials come the standard way of AWS.

    Without `endpoint`: S3_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else AWS itself.
    Raises ConfigError for another form, a credential in the URL too.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    endpoint = options.pop("endpoint", "") or next((os.environ[n] for n in _ENDPOINTS if os.environ.get(n)), "")
    region = options.pop("region", "")
    # a secret may hold a slash: the whole text is looked at
    if "@" in parts.netloc + parts.path + endpoint or ":" in parts.netloc:
        hint = "take it out; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or the machine's role"
        raise ConfigError("the store's URL or endpoint holds a credential", hint=hint)
    if not parts.netloc or options or parts.fragment:
        raise ConfigError("the store's URL is not of the form s3://bucket/prefix?endpoint=…&region=…", hint="mend it")
    prefix = parts.path.strip("/")
    return S3Store(parts.netloc, f"{checked(prefix)}/" if prefix else "", endpoint, region, tell=tell)


class S3Store:
    """Objects below `prefix` in a bucket. One client per process, shared by its threads; it can be pickled."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        endpoint: str = "",
        region: str = "",
        *,
        tell: Callable[[str], None] = _quiet,
        attempts: int = 5,
        timeout: float = 60.0,
        lease_seconds: float = 60.0,
    ) -> None:
        self.bucket, self.prefix, self.endpoint, self.region = bucket, prefix, endpoint, region
        self.attempts, self.timeout, self.lease_seconds = attempts, timeout, lease_seconds
        self.tell = tell
        self.place = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client: tuple[int, Any] = (0, None)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": (0, None), "tell": _quiet}

    @property
    def client(self) -> Any:
        # a forked child must not share its parent's connections
        if self._client[0] != os.getpid():
            self._client = (os.getpid(), self._connect())
            weakref.finalize(self, self._client[1].close)
        return self._client[1]

    def _connect(self) -> Any:
        config = Config(
            retries={"mode": "standard", "max_attempts": self.attempts},
            connect_timeout=min(10.0, self.timeout),
            read_timeout=self.timeout,
            max_pool_connections=32,
            # we send Content-MD5, which every server knows; the newer checksums are refused by many
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if self.endpoint else "auto"},
        )
        try:
            session = boto3.session.Session()
            region = self.region or session.region_name or "us-east-1"
            return session.client("s3", endpoint_url=self.endpoint or None, region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            raise StoreError(f"{self.place}: {type(error).__name__}", hint=_CREDENTIALS) from None

    def request(self, operation: str, key: str, **arguments: Any) -> Any:
        """One request for the object at `key`. Raises StoreError, ObjectMissing where there is none."""
        try:
            answer = getattr(self.client, operation)(Bucket=self.bucket, Key=self.prefix + key, **arguments)
            if operation == "get_object":  # the body comes after botocore's own tries
                answer["Body"] = answer["Body"].read()
            return answer
        except (BotoCoreError, ClientError) as error:
            raise self._failure(operation, key, error) from None

    def _again(self, operation: str, key: str, **arguments: Any) -> Any:
        """`request`, tried again where bytes were lost on their way."""
        for attempt in range(self.attempts):
            try:
                return self.request(operation, key, **arguments)
            except _LostBytes:
                if attempt + 1 == self.attempts:
                    raise
                time.sleep(random.uniform(0, min(0.25 * 2**attempt, 8)))
        raise AssertionError

    def put(self, key: str, data: bytes) -> None:
        digest = hashlib.md5(data, usedforsecurity=False)
        arguments = {"Body": data, "ContentMD5": base64.b64encode(digest.digest()).decode()}
        for _ in range(self.attempts):
            answer = self._again("put_object", checked(key), **arguments)
            # an ETag is the MD5 of what arrived, but for some ways of encryption: then the size must do
            if answer.get("ETag", "").strip('"') == digest.hexdigest():
                return
            if answer.get("ServerSideEncryption", "AES256") != "AES256" and self.size(key) == len(data):
                return
        raise StoreError(
            f"{key} in {self.place}: what arrived is not what was sent",
            hint="what the store has there now is not to be trusted; check the way to the server, then run it again",
        )

    def get(self, key: str) -> bytes:
        body: bytes = self._again("get_object", checked(key))["Body"]
        return body

    def size(self, key: str) -> int | None:
        try:
            return int(self.request("head_object", checked(key))["ContentLength"])
        except ObjectMissing:
            return None

    def list(self, prefix: str = "") -> Iterator[Item]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
        try:
            for page in pages:
                for each in page.get("Contents", ()):
                    key = each["Key"].removeprefix(self.prefix)
                    if is_key(key):
                        yield Item(key, each["Size"], each["LastModified"].astimezone(UTC))
        except (BotoCoreError, ClientError) as error:
            raise self._failure("list_objects", prefix or "the bucket", error) from None

    def touch(self, key: str) -> bool:
        source = {"Bucket": self.bucket, "Key": self.prefix + checked(key)}
        try:
            # a copy onto itself is allowed only where something changes: the metadata, with nothing
            self.request("copy_object", key, CopySource=source, MetadataDirective="REPLACE")
        except ObjectMissing:
            return False
        return True

    def delete(self, keys: Iterable[str]) -> None:
        # one by one: servers disagree on the checksum of the request that deletes many
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(self._delete, [checked(key) for key in keys]):
                pass

    def _delete(self, key: str) -> None:
        try:
            self.request("delete_object", key)
        except ObjectMissing:  # AWS does not say so, others do
            return

    def lease(self, name: str, wait: float) -> AbstractContextManager[None]:
        from dbops.backup.s3_lease import lease

        return lease(self, checked(name), wait)

    def _failure(self, operation: str, key: str, error: Any) -> StoreError:
        """Our error for botocore's."""
        answer = getattr(error, "response", None) or {}
        code = str(answer.get("Error", {}).get("Code", ""))
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _ABSENT:
            return missing(key, self.place)
        what = f"{operation.removesuffix('_object')} {key} in {self.place}"
        untouched = "what was there before is untouched"
        if not code:
            if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
                return StoreError(f"{what}: there are no credentials", hint=f"{untouched}; {_CREDENTIALS}")
            hint = f"{untouched}; check the endpoint and the network, then run it again"
            return _LostBytes.or_not(error)(f"{what}: no answer ({type(error).__name__})", hint=hint)
        if code in _PRECONDITION:
            return Refused(f"{what}: it has changed", hint=untouched)
        if code in _LOST:
            return _LostBytes(f"{what}: bytes were lost on their way ({code})", hint=f"{untouched}; run it again")
        if code in _FULL:
            return StoreError(
                f"{what}: the store is full ({code})",
                hint=f"{untouched}; raise the quota or run `dbops backup prune`",
            )
        hint = _HINTS.get(code) or (
            _CREDENTIALS if status in (400, 401, 403) else "the server is in trouble; run it again"
        )
        return StoreError(f"{what}: refused with {code}", hint=f"{untouched}; {hint}")


class Refused(StoreError):
    """A condition (If-None-Match, If-Match) did not hold."""


class _LostBytes(StoreError):
    """A body that was cut off."""

    @classmethod
    def or_not(cls, error: Exception) -> type[StoreError]:
        """This class for errors of reading a body; botocore has tried the others again by itself."""
        kinds = (exceptions.IncompleteReadError, exceptions.ResponseStreamingError)
        return cls if isinstance(error, kinds) else StoreError
