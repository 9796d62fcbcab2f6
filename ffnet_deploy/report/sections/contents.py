"""All sections of a report in the order they are read, the last of them what it rests on."""

from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.document import Block, Facts, Section
from ffnet_deploy.report.sections.accuracy import accuracy, confusion, pictures
from ffnet_deploy.report.sections.precision import precision, sensitivity, verification
from ffnet_deploy.report.sections.summary import summary
from ffnet_deploy.report.sections.timing import latency, profile, trade_off
from ffnet_deploy.report.sections.training import training


def provenance(data: ReportData) -> Section:
    """The last section; there always is one."""
    blocks: list[Block] = [Facts(one.name, facts, code=True) for one in data.candidates if (facts := _origins(one))]
    blocks += [Facts(heading, facts) for heading, facts in data.environment.items() if facts]
    blocks.append(Facts("This report", {"created": data.created}))
    return Section("provenance", "Environment and provenance", tuple(blocks))


def _origins(one: CandidateResults) -> dict[str, str]:
    manifest = one.manifest or {}
    facts = {
        "network": one.network,
        "engine": one.engine,
        "artefact": one.artifact or "",
        "SHA-256": one.sha256 or "",
        **{f"SHA-256 of {name}": value for name, value in one.sources.items()},
        "made": str(manifest.get("created") or ""),
        "made with": ", ".join(f"{name} {version}" for name, version in (manifest.get("tools") or {}).items()),
    }
    return {name: value for name, value in facts.items() if value}


_PARTS = (
    summary,
    pictures,
    accuracy,
    confusion,
    training,
    trade_off,
    latency,
    profile,
    precision,
    sensitivity,
    verification,
    provenance,
)


def sections(data: ReportData) -> tuple[Section, ...]:
    """The sections that `data` fills."""
    return tuple(section for part in _PARTS if (section := part(data)) is not None)
