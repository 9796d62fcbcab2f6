"""Reports: one HTML page that needs nothing else, and the same as Markdown and JSON."""

from ffnet_deploy.report.builder import ReportBuilder
from ffnet_deploy.report.data import ReportData
from ffnet_deploy.report.write import write_report

__all__ = ["ReportBuilder", "ReportData", "write_report"]
