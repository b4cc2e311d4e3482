"""The report of a subject, what is kept for it, and the citation text."""

from tumorreg_wf.reports.record import Record, read_record, write_record
from tumorreg_wf.reports.references import write_citation
from tumorreg_wf.reports.report import generate_report

__all__ = ['Record', 'generate_report', 'read_record', 'write_citation', 'write_record']
