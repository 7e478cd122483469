"""Files from elsewhere: from an address to a whole, verified file, once, whatever fails."""

from jaisp.transfer.address import is_address
from jaisp.transfer.download import Wanted, ask, download

__all__ = ["Wanted", "ask", "download", "is_address"]
