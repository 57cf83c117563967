"""All that is wrong with one config, said at once."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UsageError
from ..findings import Finding


class ConfigErrors(UsageError):
    """One or more mistakes in a config; each is a finding with its place and remedy."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        first = self.findings[0]
        words = [finding.fix.words for finding in self.findings if finding.fix]
        if len(self.findings) == 1:
            super().__init__(first.message, place=first.place, fix="".join(words))
            return
        lines = [f"The config has {len(self.findings)} mistakes:"]
        for finding in self.findings:
            where = f"{finding.place}: " if finding.place.file else ""
            lines.append(f"  {where}{finding.message}")
            if finding.fix:
                lines.append(f"    {finding.fix.words}")
        super().__init__("\n".join(lines))
