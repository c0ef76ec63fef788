"""What the server counts, in the text form that Prometheus reads."""

from collections import Counter
from collections.abc import Mapping

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds, of the histogram


class Requests:
    """Counts of answers by route and status, and their times by route."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, int]] = Counter()
        self._slots: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._answers[route, status] += 1
        self._slots[route, sum(seconds > bound for bound in BOUNDS)] += 1
        self._seconds[route] += seconds

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All counts as lines. Args: gauges: by name, what a value means and the value."""
        lines = ["# HELP bbqrec_answers_total Answers by route and status.", "# TYPE bbqrec_answers_total counter"]
        for (route, status), count in sorted(self._answers.items()):
            lines.append(f'bbqrec_answers_total{{route="{route}",status="{status}"}} {count}')
        lines += ["# HELP bbqrec_seconds Time of an answer.", "# TYPE bbqrec_seconds histogram"]
        for route in sorted(self._seconds):
            below = 0
            for slot, bound in enumerate((*map(str, BOUNDS), "+Inf")):
                below += self._slots[route, slot]
                lines.append(f'bbqrec_seconds_bucket{{route="{route}",le="{bound}"}} {below}')
            lines.append(f'bbqrec_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}')
            lines.append(f'bbqrec_seconds_count{{route="{route}"}} {below}')
        for name, (about, value) in gauges.items():
            lines += [f"# HELP bbqrec_{name} {about}", f"# TYPE bbqrec_{name} gauge", f"bbqrec_{name} {value:g}"]
        return "\n".join(lines) + "\n"
