"""One HTML file that tells what was screened, how good the model is, and where it comes from; and its plots alone."""

from edgecxr.report.page import write_report

__all__ = ["write_report"]
