# SPDX-License-Identifier: MIT
"""
A vault in object storage that speaks S3 and honours conditional writes.

Region, endpoint and credentials are found by boto3 itself, in its own environment
variables and files; they never pass through here. boto3 repeats nothing, so that a lost
answer is seen as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from hsm_core._internal.stores.remote.objects import MAX_OBJECT_BYTES
from hsm_core.errors import (
    ConfigurationError,
    StorageFullError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.protocols import ABSENT, RemoteKeyVault, VaultObject

_LOCATION: Final = re.compile(
    r"//([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9_-][A-Za-z0-9._/-]{0,511})?)?"
)
_USER_INFO: Final = re.compile("//.*@")
"""What stands before the host in an address, such as a password."""
_CONNECT_SECONDS: Final = 2
_READ_SECONDS: Final = 5
_CONNECTIONS: Final = 16
_PAGE: Final = 1000
_DELETED: Final = 204
_NO_ROOM: Final = 507
_CONFLICTS: Final = frozenset({409, 412})
_CODE: Final = re.compile("[A-Za-z0-9.]{1,64}")


class S3Vault(RemoteKeyVault):
    """
    Objects of a bucket whose keys begin with a prefix.

    Args:
        client: Of boto3, for S3; closed with the vault. It must not repeat requests.

        bucket: Name of a bucket that is there.

        prefix: Empty, or ending with a slash.
    """

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def __repr__(self) -> str:
        return f"<S3Vault s3://{self._bucket}/{self._prefix}>"

    def get(self, name: str, /) -> VaultObject | None:
        """See `RemoteKeyVault.get`; of a longer object only so much is read."""
        with self._translated("get"):
            try:
                found = self._client.get_object(**self._place(name))
            except self._client.exceptions.NoSuchKey:
                return None
            with closing(found["Body"]) as body:
                data: bytes = body.read(MAX_OBJECT_BYTES + 1)
                if len(data) <= MAX_OBJECT_BYTES:
                    # At its end, length and checksum are checked.
                    data += body.read()
            tag: str = found["ETag"]
            return VaultObject(data, tag)

    def put(self, name: str, data: bytes, /, *, expected: str | None = None) -> str:
        """See `RemoteKeyVault.put`."""
        condition: dict[str, str] = {}
        if expected is not None:
            condition = {"IfMatch": expected}
            if expected == ABSENT:
                condition = {"IfNoneMatch": "*"}
        with self._translated("put"):
            try:
                done = self._client.put_object(
                    **self._place(name), Body=data, **condition
                )
            except self._client.exceptions.NoSuchKey as error:
                raise VaultConflictError from error
            tag: str = done["ETag"]
            return tag

    def list(self, prefix: str, /, *, after: str = "", limit: int = 1000) -> list[str]:
        """See `RemoteKeyVault.list`."""
        names: list[str] = []
        is_more = True
        with self._translated("list"):
            while is_more and len(names) < limit:
                page = self._client.list_objects_v2(
                    Bucket=self._bucket,
                    Prefix=self._prefix + prefix,
                    StartAfter=self._prefix + after if after else "",
                    MaxKeys=min(_PAGE, limit - len(names)),
                )
                found = [item["Key"] for item in page.get("Contents", ())]
                is_more = bool(page["IsTruncated"]) and bool(found)
                names += [key.removeprefix(self._prefix) for key in found]
                after = names[-1] if names else after
        return names

    def delete(self, name: str, /) -> None:
        """See `RemoteKeyVault.delete`."""
        with self._translated("delete"):
            done = self._client.delete_object(**self._place(name))
            status = done["ResponseMetadata"]["HTTPStatusCode"]
        if status != _DELETED:
            raise StoreUnavailableError(
                f"The bucket {self._bucket} answered delete with {status}. "
                "Check that its address is that of S3-compatible storage."
            )

    def close(self) -> None:
        """See `RemoteKeyVault.close`."""
        self._client.close()

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    @contextmanager
    def _translated(self, call: str) -> Iterator[None]:
        try:
            yield
        except VaultConflictError:
            raise
        except KeyError as error:
            raise StoreUnavailableError(
                f"The bucket {self._bucket} answered {call} without {error.args[0]}. "
                "Check that its address is that of S3-compatible storage."
            ) from error
        except self._client.exceptions.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            code = str(error.response.get("Error", {}).get("Code", ""))
            told = f"{status} {code}" if _CODE.fullmatch(code) else status
            if call == "put" and status in _CONFLICTS:
                raise VaultConflictError from error
            kind = StorageFullError if status == _NO_ROOM else StoreUnavailableError
            raise kind(
                f"The bucket {self._bucket} answered {call} with {told}."
            ) from error
        except Exception as error:
            raise StoreUnavailableError(
                f"The bucket {self._bucket} did not answer {call} "
                f"({type(error).__name__})."
            ) from error


def open_s3(location: str, /) -> S3Vault:
    """
    Open the vault at ``//BUCKET/PREFIX``; a `VaultOpener`.

    Raises:
        ConfigurationError: The place has no such form, boto3 is not installed, or
            finds no use for its own settings.
    """
    place = _LOCATION.fullmatch(location)
    if place is None:
        raise ConfigurationError(
            "key_store must be s3://BUCKET or s3://BUCKET/PREFIX, with a prefix of "
            "letters, digits and ._-/ only.",
            field="key_store",
        )
    bucket, prefix = place[1], (place[2] or "").strip("/")
    return S3Vault(make_client(), bucket, f"{prefix}/" if prefix else "")


def make_client() -> Any:
    """
    Return a client of boto3 for S3, with settings that boto3 finds.

    Raises:
        ConfigurationError: boto3 is not installed, or finds no use for its settings.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ConfigurationError(
            "key_store needs boto3, which is not installed. Install hsm-core[s3].",
            field="key_store",
        ) from error
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": 1},
        max_pool_connections=_CONNECTIONS,
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        reason = _USER_INFO.sub("//", str(error))
        raise ConfigurationError(
            f"key_store: boto3 can't use its settings: {reason}", field="key_store"
        ) from None
