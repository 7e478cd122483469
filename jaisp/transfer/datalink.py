"""DataLink documents, which say where the files are that an image consists of.

Services whose stores need a signature answer with one (the Rubin Science Platform): what it says
holds for minutes, so that it is asked for when the file is.
"""

import io
import warnings
from collections.abc import Collection

from jaisp.errors import TileError
from jaisp.transfer.address import check_address, host_of


def link_target(answer: bytes, address: str, private_hosts: Collection[str] = ()) -> str:
    """The address of the image itself, of a document that `address` answered with.

    Raises TileError where it tells none, or one that may not be asked.
    """
    from astropy.io.votable import parse
    from astropy.io.votable.exceptions import VOWarning
    from pyvo.dal.adhoc import DatalinkResults
    from pyvo.dal.exceptions import DALAccessError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VOWarning)
            links = DatalinkResults(parse(io.BytesIO(answer)), url=address)
            # Narrower terms would be looked up in a vocabulary elsewhere.
            found = [
                link["access_url"] for link in links.bysemantics("#this", include_narrower=False)
            ]
    except (DALAccessError, VOWarning, ValueError, IndexError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TileError(
            f"{host_of(address)} answers with no DataLink document ({reason})"
        ) from None
    targets = [str(target).strip() for target in found if target]
    if not targets:
        raise TileError(f"{host_of(address)}: the DataLink document tells of no image (#this)")
    check_address(targets[0], private_hosts)
    return targets[0]
