"""Where the files of pictures are kept: a folder, or a bucket that speaks S3. A file that was put is safe.

Knows keys and bytes; knows no pictures. Called from worker threads.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from darkroom.errors import DarkroomError

_BUCKET_OPTIONS = frozenset({"endpoint_url", "region_name"})
"""Credentials are none of them: addresses are shown, and boto3 has better places for them."""

_KEY = re.compile(r"[\w-]+(/[\w-]+)*\.\w+")


class FilesUnavailable(DarkroomError):
    """A file cannot be written or read: the disk is full, the folder may not be written to, the bucket is not there."""

    http_status = 503
    code = "files_unavailable"


class Files(Protocol):
    """A place for files."""

    def put(self, key: str, data: bytes, media_type: str) -> None:
        """Keep a file; returns when it would survive a crash. Raises FilesUnavailable."""

    def find(self, key: str) -> bytes | None:
        """The file's content; None where there is none. Raises FilesUnavailable."""

    def remove(self, key: str) -> None:
        """Let a file go; nothing happens where there is none. Raises FilesUnavailable."""


class Folder:
    """Files below a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, key: str, data: bytes, media_type: str) -> None:
        """Written beside its place, flushed to the disk, and put in place in one step."""
        del media_type  # a file's name says it
        target = self._target(key)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        with _refusing(f"{key} cannot be kept"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(target)
                _flush_folder(target.parent)
            finally:
                part.unlink(missing_ok=True)

    def find(self, key: str) -> bytes | None:
        """The file's content."""
        with _refusing(f"{key} cannot be read"):
            try:
                return self._target(key).read_bytes()
            except FileNotFoundError:
                return None

    def remove(self, key: str) -> None:
        """Let a file go."""
        with _refusing(f"{key} cannot be removed"):
            self._target(key).unlink(missing_ok=True)

    def _target(self, key: str) -> Path:
        return self._path / _checked(key)


class Bucket:
    """Files in a bucket, `s3://bucket/prefix?endpoint_url=...`; credentials as boto3 finds them."""

    def __init__(self, url: str) -> None:
        import boto3  # an optional dependency: darkroom[s3]

        parts = urlsplit(url)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        options = dict(parse_qsl(parts.query))
        unknown = options.keys() - _BUCKET_OPTIONS
        if unknown:
            raise FilesUnavailable(
                f"{', '.join(sorted(unknown))}: only {', '.join(sorted(_BUCKET_OPTIONS))} can be given"
            )
        self._client: Any = boto3.client("s3", **options)

    def put(self, key: str, data: bytes, media_type: str) -> None:
        """An object is there whole or not at all."""
        with _refusing_s3(f"{key} cannot be kept"):
            self._client.put_object(Bucket=self._bucket, Key=self._name(key), Body=data, ContentType=media_type)

    def find(self, key: str) -> bytes | None:
        """The object's content."""
        with _refusing_s3(f"{key} cannot be read"):
            try:
                content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._name(key))["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
            return content

    def remove(self, key: str) -> None:
        """Let an object go."""
        with _refusing_s3(f"{key} cannot be removed"):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{_checked(key)}".lstrip("/")


def open_files(url: str, folder: Path) -> Files:
    """The bucket that an `s3://` address names; without one the folder. Raises FilesUnavailable."""
    if not url:
        return Folder(folder)
    if not url.startswith("s3://"):
        raise FilesUnavailable("pictures are kept in a folder or under an address that begins with s3://")
    try:
        return Bucket(url)
    except ImportError as error:
        raise FilesUnavailable("S3 needs boto3: pip install 'darkroom[s3]'") from error


def _checked(key: str) -> str:
    """Keys are made here and never by a client; still none may leave the place."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
    return key


def _flush_folder(path: Path) -> None:
    """A new name is on the disk only when its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FilesUnavailable(f"{what}: {error.strerror or error}") from error


@contextmanager
def _refusing_s3(what: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise FilesUnavailable(f"{what}: {error}") from error
