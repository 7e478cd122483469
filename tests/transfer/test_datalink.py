"""What a DataLink document says becomes one address, or one line."""

import io

import pytest
from astropy.io.votable import from_table
from astropy.table import Table

from jaisp.errors import TileError
from jaisp.transfer.datalink import link_target

LINKS = "https://data.example.org/links?ID=1"


def document(*rows):
    table = Table(
        rows=[("ivo://image", *row) for row in rows], names=["ID", "access_url", "semantics"]
    )
    handle = io.BytesIO()
    from_table(table).to_xml(handle)
    info = b'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/>'
    return handle.getvalue().replace(b'<RESOURCE type="results">', info)


def test_the_image_itself_is_meant():
    answer = document(
        ("https://192.0.2.1/preview.png", "#preview"),
        ("https://store.example.org/a.fits?signature=x", "#this"),
    )
    target = link_target(answer, LINKS)
    assert target == "https://store.example.org/a.fits?signature=x"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (document(("https://store.example.org/a.png", "#preview")), r"of no image \(#this\)"),
        (document(("file:///etc/passwd", "#this")), "only http, https, s3 are read"),
        (document(("http://127.0.0.1/a.fits", "#this")), "private network"),
        (b'{"detail": "no such image"}', "answers with no DataLink document"),
        (b"", "answers with no DataLink document"),
    ],
)
def test_anything_else_is_one_line(answer, line):
    with pytest.raises(TileError, match=line) as caught:
        link_target(answer, LINKS)
    assert "\n" not in str(caught.value)
