"""The catalog: all steps there are, how to find one, and how to choose among them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import UsageError
from ..findings import Finding
from ..text import nearest
from .artifacts import ArtifactGraph
from .step import Step


@dataclass(frozen=True)
class Catalog:
    """Steps in the order of their ids, and what was found wrong on the way.

    Attributes:
        steps: the steps that can be used.
        artifacts: what fits where.
        findings: steps that cannot be used, doubtful types, and which step replaces which.
        broken: id → why the step of that id cannot be used.
    """

    steps: tuple[Step, ...]
    artifacts: ArtifactGraph
    findings: tuple[Finding, ...] = ()
    broken: dict[str, Finding] = field(default_factory=dict)

    def find(self, query: str) -> Step:
        """The step of an id, or of an unambiguous tail of one.

        Raises:
            UsageError: if there is none, if the tail fits several, or if the step is broken.
        """
        by_id = {step.id: step for step in self.steps}
        if query in by_id:
            return by_id[query]
        tail = query.strip("/")
        everything = [*by_id, *self.broken]
        matches = [name for name in everything if tail and f"/{name}".endswith(f"/{tail}")]
        if len(matches) > 1:
            raise UsageError(
                f"'{query}' fits several steps: {', '.join(sorted(matches))}.",
                fix="Give the whole id of the one you mean.",
            )
        if not matches:
            raise UsageError(
                f"There is no step '{query}'.{_suggestion(tail, everything)}",
                fix="See all steps: tunedeck steps list",
            )
        if matches[0] in self.broken:
            problem = self.broken[matches[0]]
            raise UsageError(
                f"The step {matches[0]} cannot be used: {problem.message}",
                place=problem.place,
                fix=problem.fix.words if problem.fix else "",
            )
        return by_id[matches[0]]

    def select(
        self,
        *,
        category: str | None = None,
        consumes: str | None = None,
        produces: str | None = None,
        tag: str | None = None,
    ) -> list[Step]:
        """The steps to which all of the given conditions apply.

        Args:
            category: the step's category.
            consumes: a type that the step can take, also by `is_a`.
            produces: a type that something the step makes can be used as, also by `is_a`.
            tag: one of the step's tags.

        Raises:
            UsageError: if no step has the category or tag, or there is no such artifact type.
        """
        _known("category", category, {step.manifest.step.category for step in self.steps})
        _known("artifact type", consumes, self._types())
        _known("artifact type", produces, self._types())
        _known("tag", tag, {tag for step in self.steps for tag in step.manifest.step.tags})
        fits = self.artifacts.fits
        return [
            step
            for step in self.steps
            if category in (None, step.manifest.step.category)
            and (tag is None or tag in step.manifest.step.tags)
            and (not consumes or any(fits(consumes, a.type) for a in step.manifest.consumes))
            and (not produces or any(fits(a.type, produces) for a in step.manifest.produces))
        ]

    def _types(self) -> set[str]:
        used = {a.type for s in self.steps for a in (*s.manifest.consumes, *s.manifest.produces)}
        return used | set(self.artifacts.types)


def _known(what: str, value: str | None, known: Iterable[str]) -> None:
    if value is None or value in (words := sorted(known)):
        return
    match = nearest(value, words)
    raise UsageError(
        f"There is no {what} '{value}'." + (f" Did you mean '{match}'?" if match else ""),
        fix=f"Use one of: {', '.join(words)}.",
    )


def _suggestion(query: str, ids: Sequence[str]) -> str:
    """The ids that hold `query`, or that it comes close to as a whole or in one of their parts."""
    query = query.casefold()

    def likeness(name: str) -> float:
        if len(query) > 2 and query in name:
            return 1.0
        words = (name, *name.split("/"))
        return max(difflib.SequenceMatcher(None, query, word).ratio() for word in words)

    close = sorted((name for name in ids if likeness(name) >= 0.6), key=likeness, reverse=True)[:3]
    if not close:
        return ""
    return " Did you mean " + " or ".join(f"'{name}'" for name in close) + "?"
