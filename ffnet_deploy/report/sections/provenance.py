"""What it all rests on: hashes of what took part, versions, machine."""

from ffnet_deploy.report.data import Contender, ReportData
from ffnet_deploy.report.document import Block, Facts, Section


def provenance(data: ReportData) -> Section:
    """The last section; there always is one."""
    blocks: list[Block] = [Facts(one.name, facts, code=True) for one in data.contenders if (facts := _origins(one))]
    blocks += [Facts(heading, facts) for heading, facts in data.environment.items() if facts]
    blocks.append(Facts("This report", {"created": data.created}))
    return Section("provenance", "Environment and provenance", tuple(blocks))


def _origins(one: Contender) -> dict[str, str]:
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
