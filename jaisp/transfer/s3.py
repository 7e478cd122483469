"""Objects in public buckets of S3: where on the web they are, and what their stores' answers say.

Whoever reads a public bucket asks for its objects as for any other file, and signs nothing: so
buckets are read over the one way that all files come (`jaisp.transfer.http`), with its checks of
where answers lead, its waits and its tries.
"""

import re
from urllib.parse import quote

from jaisp.transfer.address import bucket_and_key

# Amazon finds a bucket's region by its name, but its certificate holds for names without dots.
BUCKET_S_OWN = "https://{bucket}.s3{region}.amazonaws.com"
BY_PATH = "https://s3{region}.amazonaws.com/{bucket}"
REGION = re.compile(r"[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]")
CODE = re.compile(rb"<Code>(\w{1,60})</Code>")


def web_address(address: str, endpoint: str | None = None, region: str = "") -> str:
    """Where an object is asked for. Raises TileError for what no bucket has.

    endpoint: the store's address, whose folders are buckets; None for Amazon's. region: of Amazon's
    the one that the bucket lies in; "" where that is not known.
    """
    bucket, key = bucket_and_key(address)
    if endpoint is None:
        place = BY_PATH if "." in bucket else BUCKET_S_OWN
        base = place.format(bucket=bucket, region=f".{region}" if region else "")
    else:
        base = f"{endpoint.rstrip('/')}/{bucket}"
    return f"{base}/{quote(key, safe='/')}"


def in_region(address: str, here: str, region: str | None) -> str | None:
    """Where an object is that Amazon was asked for `here`, and says to be in another region (in
    `x-amz-bucket-region`); None where it says no such thing, and for other stores."""
    if region is None or REGION.fullmatch(region) is None or here != web_address(address):
        return None
    return web_address(address, region=region)


def condition(validator: str) -> dict[str, str]:
    """What makes a store answer 412 where an object is no longer the one that was begun with.

    S3 is not said to know If-Range.
    """
    return {"If-Match" if validator.startswith('"') else "If-Unmodified-Since": validator}


def error_code(answer: bytes) -> str:
    """What a store calls its refusal (NoSuchKey); "" where it doesn't say."""
    found = CODE.search(answer)
    return "" if found is None else found[1].decode()
