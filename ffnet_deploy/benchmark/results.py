"""From the samples of a contender to its line in the record."""

from dataclasses import dataclass, replace

from ffnet_deploy.benchmark.method import Track
from ffnet_deploy.benchmark.record import Measurement, Method, OutputCheck, Profile, Ratio, Setting, Verdict
from ffnet_deploy.benchmark.statistics import ratio, summarize


@dataclass(frozen=True)
class Findings:
    """What is known of a contender beside its times; None where there is nothing."""

    check: OutputCheck | None = None
    profile: Profile | None = None


def failed(name: str, setting: Setting, reason: str) -> Measurement:
    """The line of a contender that gave no output at all."""
    return Measurement(name, setting, rounds_ms=(), error=reason)


def measurement(track: Track, baseline: Track, findings: Findings, setting: Setting, method: Method) -> Measurement:
    """The line of the contender with the samples `track`, compared with `baseline` unless it is that itself."""
    host, device = track.milliseconds, track.device_milliseconds
    wall = track.wall_ns / 1e9
    return Measurement(
        contender=track.name,
        setting=setting,
        rounds_ms=host,
        device_ms=device,
        wall_s=round(wall, 6),
        summary=summarize(host, method.seed),
        device_summary=summarize(device, method.seed),
        throughput=round(track.count * method.queue * setting.batch / wall, 3) if wall and track.count else None,
        ratio=None if track is baseline else _ratio(track, baseline, findings.check, method.seed),
        check=findings.check,
        profile=findings.profile,
        error=track.error,
    )


def _ratio(track: Track, baseline: Track, check: OutputCheck | None, seed: int) -> Ratio | None:
    """Of the devices' own times where both have them, else of the host's."""
    if track.device_milliseconds and baseline.device_milliseconds:
        found = ratio(track.device_milliseconds, baseline.device_milliseconds, baseline.name, seed)
    else:
        found = ratio(track.milliseconds, baseline.milliseconds, baseline.name, seed)
    if found is not None and check is not None and not check.passed:
        return replace(found, verdict=Verdict.WRONG)
    return found
