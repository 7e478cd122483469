"""Addresses that came from elsewhere lead to public hosts over HTTP, and nowhere else."""

import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaisp.errors import TileError
from jaisp.transfer.address import (
    bucket_and_key,
    check_address,
    check_redirect,
    host_of,
    is_address,
    is_s3,
)

PUBLIC = "93.184.216.34"


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Names are looked up here: `inside.…` are in a private network, `nowhere.…` are unknown."""

    def look_up(host, port, **_):
        if host[0].isdigit() or ":" in host:
            return [(0, 0, 0, "", (host, port))]
        if host.startswith("nowhere"):
            raise socket.gaierror("no such name")
        number = "10.0.0.7" if host.startswith("inside") else PUBLIC
        return [(0, 0, 0, "", (number, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_what_is_an_address():
    assert is_address("https://host/a.fits")
    assert is_address("http://host")
    assert is_address("s3://bucket/a.fits")
    assert not is_address("a/b.fits")
    assert not is_address("s3.fits")
    assert not is_address("file:///etc/passwd")
    assert not is_address(None)


@pytest.mark.parametrize("address", ["https://a.org/x.fits?y=1", "http://a.org:8080/"])
def test_public_ones_are_good(address):
    check_address(address)
    assert host_of(address) in ("a.org", "a.org:8080")


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://a.org/x",
        "gopher://a.org/x",
        "//a.org/x",
        "a.org/x",
        "https:///x",
        "https://user@a.org/x",
        "https://user:word@a.org/x",
        "https://a.org:99999/x",
        "https://a.org:port/x",
        "https://[::1/x",
        "https://inside.org/x",
        "http://127.0.0.1/x",
        "http://10.1.2.3/x",
        "http://169.254.169.254/latest/meta-data",
        "http://192.168.0.1/x",
        "http://[::1]/x",
        "http://[fe80::1%eth0]/x",
        "http://0.0.0.0/x",
        "https://a.org/\x00x",
        "https://a.org/a b",
        "https://a.org/\nx",
        "https://a.org/" + "x" * 100_000,
        "s3://bucket/" + "x" * 100_000,
        "s3://bucket/a\x00b",
        "s3://bucket/a\nb",
        "s3://bucket/a/../b",
        "s3://bucket/..",
        "s3://bucket/./a",
        "s3://bucket//a",
        "s3://bucket/a/",
        "s3://bucket/",
        "s3://bucket",
        "s3:///a",
        "s3://",
        "s3:bucket/a",
        "s3://b/a",
        "s3://../a",
        "s3://a..b/a",
        "s3://a.b.c@host/a",
        "s3://user:word@bucket/a",
        "s3://bucket:80/a",
        "s3://bucket?x/a",
        "s3://bucket#x/a",
        "s3://BUCKET/a",
        "s3://bücket/a",
        "s3://" + "b" * 100_000 + "/a",
    ],
)
def test_others_are_refused_in_one_line(address):
    with pytest.raises(TileError) as told:
        check_address(address)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


@given(st.text(max_size=200))
def test_any_text_is_an_address_or_refused(text):
    with suppress(TileError):
        check_address(text)
        assert is_address(text)


def test_an_object_s_bucket_and_key():
    assert bucket_and_key("s3://nasa-irsa/q1/a b+%20.fits") == ("nasa-irsa", "q1/a b+%20.fits")
    assert host_of("S3://a.bucket/x?y") == "a.bucket"
    assert is_s3("S3://a.bucket/x")
    assert not is_s3("https://a.org/s3://b/c")
    # Whatever a service names, it is looked for at the config's own store.
    check_address("s3://169.254.169.254/latest/meta-data")
    with pytest.raises(TileError, match="no object in a bucket"):
        bucket_and_key("https://a.org/x")


@given(st.text(max_size=200))
def test_any_text_after_s3_is_an_object_or_refused(text):
    with suppress(TileError):
        bucket, key = bucket_and_key(f"s3://{text}")
        assert f"{bucket}/{key}" == text
        assert not {"", ".", ".."} & {bucket, *key.split("/")}


def test_a_private_host_that_is_meant():
    check_address("https://inside.org/x", {"inside.org"})
    with pytest.raises(TileError, match=r"fetch\.private_hosts"):
        check_address("https://inside.org/x", {"other.org"})
    # Nobody is there to be asked.
    check_address("https://nowhere.org/x")


def test_redirects():
    check_redirect("https://a.org/x", "https://b.org/y")
    check_redirect("https://inside.org/x", "https://inside.org/y")
    for target in (
        "s3://bucket/x",
        "http://a.org/x",
        "file:///etc/passwd",
        "https://inside.org/y",
        "x",
    ):
        with pytest.raises(TileError):
            check_redirect("https://a.org/x", target)
