"""Stage report: one self-contained HTML page that a colleague can open."""

from jaisp.report.page import report

__all__ = ["report"]
