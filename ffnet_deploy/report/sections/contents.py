"""The whole report as sections, in the order they are read."""

from ffnet_deploy.report.data import ReportData
from ffnet_deploy.report.document import Section
from ffnet_deploy.report.sections.accuracy import accuracy
from ffnet_deploy.report.sections.latency import latency, trade_off
from ffnet_deploy.report.sections.pictures import pictures
from ffnet_deploy.report.sections.precision import precision
from ffnet_deploy.report.sections.profile import profile
from ffnet_deploy.report.sections.provenance import provenance
from ffnet_deploy.report.sections.sensitivity import sensitivity
from ffnet_deploy.report.sections.summary import summary
from ffnet_deploy.report.sections.verification import verification

_PARTS = (summary, accuracy, trade_off, latency, profile, precision, sensitivity, verification, pictures, provenance)


def sections(data: ReportData) -> tuple[Section, ...]:
    """The sections that `data` fills."""
    return tuple(section for part in _PARTS if (section := part(data)) is not None)
