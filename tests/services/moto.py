"""moto's S3 on this machine: buckets with ranges, ETags and who may read what."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from tests.services.local import free_port, is_open, wait_until

BUCKET = "survey-images"


class Store:
    """A running store. address: its endpoint."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}"
        self._owner = boto3.client(
            "s3",
            endpoint_url=self.address,
            aws_access_key_id="owner",
            aws_secret_access_key="owner",
            region_name="us-east-1",
        )

    def make_bucket(self, name: str) -> None:
        self._owner.create_bucket(Bucket=name)

    def put(self, key: str, content: bytes, public: bool = True, bucket: str = BUCKET) -> str:
        """Put an object for everyone, or for its owner alone; returns its address."""
        who = "public-read" if public else "private"
        self._owner.put_object(Bucket=bucket, Key=key, Body=content, ACL=who)
        return f"s3://{bucket}/{key}"

    def remove(self, key: str) -> None:
        self._owner.delete_object(Bucket=BUCKET, Key=key)

    def close(self) -> None:
        self._owner.close()


def binary() -> str | None:
    """Where the server is, if it is installed."""
    return shutil.which("moto_server", path=str(Path(sys.executable).parent))


@contextmanager
def moto() -> Iterator[Store]:
    """Serve an empty store with one bucket."""
    with started() as port:
        store = Store(port)
        try:
            store.make_bucket(BUCKET)
            yield store
        finally:
            store.close()


@contextmanager
def started(*options: str) -> Iterator[int]:
    """A server on this machine; gives its port."""
    port = free_port()
    server = subprocess.Popen(
        [str(binary()), "-H", "127.0.0.1", "-p", str(port), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_open(port), server)
        yield port
    finally:
        server.terminate()
        server.wait()
