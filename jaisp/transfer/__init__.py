"""Files from elsewhere: from an address to a whole, verified file, once, whatever fails."""

from jaisp.transfer.address import is_address
from jaisp.transfer.download import Wanted, download

__all__ = ["Wanted", "download", "is_address"]
