"""Why engines are compiled, for tests that count how often they are."""

from cascade_rt_export.trt_build import OnBuild, go_on
from cascade_rt_export.trt_progress import OnProgress


def noted(reasons: list[str]) -> OnBuild:
    """Note each reason."""

    def note(reason: str) -> OnProgress:
        reasons.append(reason)
        return go_on

    return note
