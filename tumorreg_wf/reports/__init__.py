"""The report of a subject and the citation text."""

from tumorreg_wf.reports.references import write_citation
from tumorreg_wf.reports.report import generate_report

__all__ = ['generate_report', 'write_citation']
