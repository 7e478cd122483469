"""Credentials come from variables and files, go to the archive's own host, and nowhere else."""

import base64
import logging

import pytest

from jaisp.config.fetch import FetchConfig
from jaisp.config.survey import Credentials
from jaisp.errors import TileError, UserError
from jaisp.transfer import Wanted, download
from jaisp.transfer.credentials import authorization
from tests.transfer.server import Served, serving

SECRET = "correct-horse"


def test_from_a_variable_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", f" {SECRET}\n")
    monkeypatch.setenv("LOGIN", f"me:{SECRET}")
    (tmp_path / "token").write_text(f"{SECRET}\n")
    bearer = {"Authorization": f"Bearer {SECRET}"}
    assert authorization(Credentials(token_env="TOKEN"), "a") == bearer
    assert authorization(Credentials(token_file=tmp_path / "token"), "a") == bearer
    (value,) = authorization(Credentials(login_env="LOGIN"), "a").values()
    assert base64.b64decode(value.removeprefix("Basic ")) == f"me:{SECRET}".encode()
    assert authorization(Credentials(), "a") == {}


def test_what_lacks_is_said_by_its_key(tmp_path, monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    monkeypatch.setenv("LOGIN", SECRET)
    (tmp_path / "empty").write_text("")
    for credentials, key in (
        (Credentials(token_env="TOKEN"), "token_env"),
        (Credentials(token_file=tmp_path / "none"), "token_file"),
        (Credentials(token_file=tmp_path / "empty"), "token_file"),
        (Credentials(login_env="LOGIN"), "login_env"),
    ):
        with pytest.raises(UserError, match=rf"^surveys\.a\.archive\.{key}: ") as told:
            authorization(credentials, "surveys.a.archive")
        assert SECRET not in str(told.value)


def test_one_way_is_enough():
    with pytest.raises(ValueError, match="is enough"):
        Credentials(token_env="A", login_env="B")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    with serving() as one, serving() as other:
        yield one, other


def sent_on(target):
    return lambda h, _: (h.answer(302, Location=target), True)[1]


def get(server, path="/a.fits", **more):
    settings = FetchConfig(attempts=1, **more)
    header = {"Authorization": f"Bearer {SECRET}"}
    return download(
        Wanted("rubin", server.address(path)), settings, lambda path, digest: None, header
    )


def test_they_go_to_the_archives_own_host_alone(here, caplog):
    caplog.set_level(logging.DEBUG)
    one, other = here
    one.files["/a.fits"] = Served(b"content", faults=[sent_on(other.address("/b.fits"))])
    other.files["/b.fits"] = Served(b"content")
    get(one, private_hosts=["127.0.0.1"])
    assert one.files["/a.fits"].asked[0]["Authorization"] == f"Bearer {SECRET}"
    assert "Authorization" not in other.files["/b.fits"].asked[0]
    assert SECRET not in caplog.text


def test_within_the_host_they_are_kept(here):
    one, _ = here
    one.files["/a.fits"] = Served(b"content", faults=[sent_on("/b.fits")])
    one.files["/b.fits"] = Served(b"content")
    get(one)
    assert one.files["/b.fits"].asked[0]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "https://127.0.0.1/x", "http://10.255.255.1/x", "ftp://a/x"]
)
def test_to_another_scheme_or_a_private_host_nobody_is_sent(here, target):
    one, _ = here
    one.files["/a.fits"] = Served(b"content", faults=[sent_on(target)])
    with pytest.raises(TileError, match="refused") as told:
        get(one)
    assert SECRET not in str(told.value)


def test_sent_in_circles(here):
    one, _ = here
    one.files["/a.fits"] = Served(b"content", faults=[sent_on("/a.fits")] * 99)
    with pytest.raises(TileError, match="sends on and on"):
        get(one)


def test_a_failure_says_no_secret(here, caplog):
    one, _ = here
    caplog.set_level(logging.DEBUG)
    one.files["/a.fits"] = Served(b"", faults=[lambda h, _: (h.answer(401), True)[1]])
    with pytest.raises(TileError, match=r"answers 401 .* refuses our credential") as told:
        get(one)
    assert SECRET not in str(told.value) + caplog.text
