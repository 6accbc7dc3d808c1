"""What a check found, in one line: ok, a warning, or a problem that would stop a training or make it worthless."""

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

OK, WARNING, PROBLEM = "ok", "warning", "problem"
_COLORS = {OK: "32", WARNING: "33", PROBLEM: "31"}  # green, yellow, red (ECMA-48)
_WIDTH = max(map(len, _COLORS))


@dataclass(frozen=True)
class Finding:
    """One check's result: what was found and, where it is not ok, what to do; `items` are the single files."""

    check: str
    text: str
    level: str = OK
    items: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)  # the same as numbers, for doctor.json


def warning(check: str, text: str, items: Iterable[str] = (), figures: dict[str, Any] | None = None) -> Finding:
    """Report what a person should look at; a training runs all the same."""
    return Finding(check, text, WARNING, tuple(items), figures or {})


def problem(check: str, text: str, items: Iterable[str] = (), figures: dict[str, Any] | None = None) -> Finding:
    """Report what stops a training, or makes its score worthless."""
    return Finding(check, text, PROBLEM, tuple(items), figures or {})


class Report:
    """Findings by part, each printed as it comes; in color on a terminal only (NO_COLOR: never)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.color = self.stream.isatty() and "NO_COLOR" not in os.environ
        self.findings: list[tuple[str, Finding]] = []

    def take(self, part: str, findings: Iterable[Finding]) -> None:
        """Print the findings of a part as its checks end."""
        for finding in findings:
            if not any(known == part for known, _ in self.findings):
                print(part, file=self.stream)
            self.findings.append((part, finding))
            self._print(finding)

    def _print(self, finding: Finding) -> None:
        level = finding.level.ljust(_WIDTH)
        shown = f"\x1b[{_COLORS[finding.level]}m{level}\x1b[0m" if self.color else level
        lines = finding.text.replace("\n", "\n" + " " * (_WIDTH + 4))
        print(f"  {shown}  {finding.check}: {lines}", file=self.stream)
        for item in finding.items:
            print(f"  {' ' * _WIDTH}    {item}", file=self.stream)
        self.stream.flush()

    def count(self, level: str) -> int:
        return sum(finding.level == level for _, finding in self.findings)

    def as_json(self) -> list[dict[str, Any]]:
        """Return one dict a finding, in their order."""
        return [{"part": part, **asdict(finding)} for part, finding in self.findings]
