"""Where objects are asked for, and where a store may send."""

from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaisp.cache import cache_folder
from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.transfer import Wanted, download, s3
from jaisp.transfer.sizes import size_of
from tests.transfer.server import Served, serving
from tests.transfer.test_faults import answered

ADDRESS = "s3://bucket/a.fits"
CONTENT = b"an object"
REFUSAL = b"<?xml version='1.0'?><Error><Code>%b</Code><Message>no</Message></Error>"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def amazon(server, monkeypatch):
    """The server as Amazon's: each bucket, in each region, under a name of its own."""
    port = server.server_address[1]
    monkeypatch.setattr(s3, "BUCKET_S_OWN", f"http://{{bucket}}.s3{{region}}.localhost:{port}")
    monkeypatch.setattr(s3, "BY_PATH", f"http://s3{{region}}.localhost:{port}/{{bucket}}")
    return server


def get(address, server=None, headers=None, **more):
    endpoint = None if server is None else server.address("")
    settings = FetchConfig(**{"attempts": 3, "timeout_s": 2, "s3_endpoint": endpoint} | more)
    entry = download(Wanted("ps1", address), settings, lambda path, digest: None, headers)
    return (cache_folder() / entry["file"]).read_bytes()


@pytest.mark.parametrize(
    ("address", "endpoint", "region", "expected"),
    [
        ("s3://pub/q1/a b+1.fits", None, "", "https://pub.s3.amazonaws.com/q1/a%20b%2B1.fits"),
        ("s3://pub/a%20.fits", None, "eu-west-1", "https://pub.s3.eu-west-1.amazonaws.com/a%2520.fits"),
        ("s3://a.pub/x", None, "", "https://s3.amazonaws.com/a.pub/x"),
        ("s3://a.pub/x", None, "us-west-2", "https://s3.us-west-2.amazonaws.com/a.pub/x"),
        ("s3://pub/x?y#z", "http://h:9/", "", "http://h:9/pub/x%3Fy%23z"),
        ("s3://a.pub/é", "https://h/s3", "", "https://h/s3/a.pub/%C3%A9"),
    ],
)  # fmt: skip
def test_where_an_object_is_asked_for(address, endpoint, region, expected):
    assert s3.web_address(address, endpoint, region) == expected


# What a key may be: parts of printable signs, none of them empty, `.` or `..`.
PRINTABLE = st.characters(exclude_categories=["C", "Z"], exclude_characters="/") | st.just(" ")
PARTS = st.text(PRINTABLE, min_size=1, max_size=12).filter(lambda part: part not in (".", ".."))
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@given(KEYS, st.sampled_from([None, "https://store.example.org"]))
def test_any_key_is_asked_for_as_it_is_at_the_bucket_s_own_host(key, endpoint):
    place = s3.web_address(f"s3://bucket/{key}", endpoint)
    parts = urlsplit(place)
    assert parts.netloc == ("bucket.s3.amazonaws.com" if endpoint is None else "store.example.org")
    assert unquote(parts.path) == (f"/{key}" if endpoint is None else f"/bucket/{key}")
    assert (parts.query, parts.fragment) == ("", "")
    assert place.isascii()


@pytest.mark.parametrize("status", [301, 307, 400])
@pytest.mark.parametrize("bucket", ["bucket", "a.bucket"])
def test_amazon_says_which_region_a_bucket_is_in(amazon, status, bucket):
    path = "/a.fits" if bucket == "bucket" else "/a.bucket/a.fits"
    moved = answered(status, X_Amz_Bucket_Region="eu-south-2")(9)
    file = amazon.files[path] = Served(CONTENT, faults=[moved, None, moved])
    address = f"s3://{bucket}/a.fits"
    local = {"private_hosts": [f"{bucket}.s3.eu-south-2.localhost", "s3.eu-south-2.localhost"]}
    assert get(address, **local) == CONTENT
    assert size_of(address, FetchConfig(**local)) == len(CONTENT)
    own = "bucket." if bucket == "bucket" else ""
    hosts = [asked["Host"].partition(":")[0] for asked in file.asked]
    assert hosts == [f"{own}s3.localhost", f"{own}s3.eu-south-2.localhost"] * 2


@pytest.mark.parametrize("region", ["evil.org/", "eu-south-2.evil.org#-1", "..", "", "127-1"])
def test_what_is_no_region_leads_nowhere(amazon, region):
    moved = answered(301, X_Amz_Bucket_Region=region)(9)
    file = amazon.files["/a.fits"] = Served(CONTENT, faults=[moved])
    with pytest.raises(TileError, match=r"answers 301 .* is in another region; name it with"):
        get(ADDRESS)
    assert len(file.asked) == 1


def test_a_store_of_one_s_own_leads_to_no_region_of_amazon_s(server):
    moved = answered(301, X_Amz_Bucket_Region="us-west-2")(9)
    file = server.files["/bucket/a.fits"] = Served(CONTENT, faults=[moved] * 2)
    with pytest.raises(TileError, match=r"is in another region; name it with fetch\.s3_endpoint"):
        get(ADDRESS, server)
    assert size_of(ADDRESS, FetchConfig(s3_endpoint=server.address(""))) is None
    assert len(file.asked) == 2


def test_a_store_may_send_to_its_own_other_address(server):
    elsewhere = answered(307, Location=server.address("/there/a.fits"))(0)
    server.files["/bucket/a.fits"] = Served(b"", faults=[elsewhere])
    server.files["/there/a.fits"] = Served(CONTENT)
    assert get(ADDRESS, server) == CONTENT


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://bucket.example.org/a.fits", "another scheme"),
        ("file:///etc/passwd", "another scheme"),
        ("http://10.0.0.1/a.fits", "private network"),
        ("http://169.254.169.254/latest/meta-data", "private network"),
        ("http://[::1]/a.fits", "private network"),
        ("http://user:word@example.org/a.fits", "no user in it"),
    ],
)
def test_nor_to_another_scheme_or_into_a_private_network(server, target, said):
    elsewhere = answered(307, Location=target)(0)
    file = server.files["/bucket/a.fits"] = Served(CONTENT, faults=[elsewhere] * 2)
    with pytest.raises(TileError, match=said) as told:
        get(ADDRESS, server)
    assert "\n" not in str(told.value)
    assert size_of(ADDRESS, FetchConfig(s3_endpoint=server.address(""))) is None
    assert len(file.asked) == 2


def test_a_store_s_own_wait_is_waited(server, monkeypatch):
    waited = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waited.append))
    slow = answered(503, Retry_After="17")(9)
    server.files["/bucket/a.fits"] = Served(CONTENT, faults=[slow, slow])
    assert get(ADDRESS, server) == CONTENT
    assert waited == [17, 17]


def test_no_credential_of_an_archive_goes_to_a_bucket(server):
    file = server.files["/bucket/a.fits"] = Served(CONTENT)
    get(ADDRESS, server, {"Authorization": "Bearer swordfish"})
    assert "Authorization" not in file.asked[0]
    assert size_of(
        ADDRESS,
        FetchConfig(s3_endpoint=server.address("")),
        {"Authorization": "Bearer swordfish"},
    ) == len(CONTENT)
    assert "Authorization" not in file.asked[1]


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, b"NoSuchKey", f"answers 404 NoSuchKey: {ADDRESS} is not there"),
        (403, b"AccessDenied", f"answers 403 AccessDenied: {ADDRESS} is not there, or not public"),
        (404, b"x\ny", f"answers 404 Not Found: {ADDRESS} is not there"),
        (404, b"a" * 100, f"answers 404 Not Found: {ADDRESS} is not there"),
    ],
)
def test_a_refusal_is_one_line_that_says_the_store_s_own_word(server, status, code, said):
    refused = lambda h, _: (h.answer(status, REFUSAL % code), True)[1]  # noqa: E731
    file = server.files["/bucket/a.fits"] = Served(CONTENT, faults=[refused] * 9)
    with pytest.raises(TileError) as told:
        get(ADDRESS, server)
    assert str(told.value) == f"bucket {said}"
    assert len(file.asked) == 1


@pytest.mark.parametrize("address", [ADDRESS, None])
def test_a_refusal_without_an_end_is_not_heard_out(server, address):
    def endless(handler, _):
        handler.send_response(404)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(b"no" * 10_000)

    server.files["/bucket/a.fits"] = Served(CONTENT, faults=[endless])
    with pytest.raises(TileError, match="answers 404 Not Found"):
        get(address or server.address("/bucket/a.fits"), server)
