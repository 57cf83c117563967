"""The graph of artifact types: what may stand in for what, and which step turns one into another.

Two relations, as in the Nemotron steps: `is_a` (a translated JSONL is a training JSONL and can be
used as one) and `convert_to` (a LoRA checkpoint becomes a Hugging Face checkpoint by a step).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pydantic import Field

from ..findings import Finding, Fix
from ..text import did_you_mean
from ..toml.source import TomlSource
from .tables import CatalogTable, validate


class ArtifactType(CatalogTable):
    """One table of `types.toml`.

    Attributes:
        description: what it is.
        is_a: the types it can be used as.
        convert_to: type → the id of the step that makes that type of it.
    """

    description: str = ""
    is_a: tuple[str, ...] = ()
    convert_to: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A step that turns one type into another."""

    source: str
    target: str
    step: str


class ArtifactGraph:
    """Answers what fits where. A type that it does not know fits only itself."""

    def __init__(self, types: Mapping[str, ArtifactType]) -> None:
        self.types = types

    def fits(self, produced: str, wanted: str) -> bool:
        """Whether an artifact of type `produced` can be used where `wanted` is asked for."""
        return wanted in self._stands_for(produced)

    def conversions(self, produced: str, wanted: str) -> tuple[Conversion, ...] | None:
        """The shortest chain of steps that makes `wanted` of `produced`.

        Returns:
            The conversions in order, none where it fits as it is; None if no chain leads there.
        """
        waiting: deque[tuple[str, tuple[Conversion, ...]]] = deque([(produced, ())])
        seen = {produced}
        while waiting:
            name, chain = waiting.popleft()
            if self.fits(name, wanted):
                return chain
            for usable_as in self._stands_for(name):
                for target, step in self._get(usable_as).convert_to.items():
                    if target not in seen:
                        seen.add(target)
                        waiting.append((target, (*chain, Conversion(name, target, step))))
        return None

    def _stands_for(self, name: str) -> list[str]:
        """The type and all it is, nearest first; each once, also where `is_a` is a circle."""
        found = [name]
        for known in found:
            found += [parent for parent in self._get(known).is_a if parent not in found]
        return found

    def _get(self, name: str) -> ArtifactType:
        return self.types.get(name) or _UNKNOWN


_UNKNOWN = ArtifactType()


def read_types(
    source: TomlSource, *, tolerant: bool, known: Collection[str] = ()
) -> tuple[dict[str, ArtifactType], list[Finding]]:
    """The types of one `types.toml`; a bad table hides none of the others.

    Args:
        source: the document.
        tolerant: note unknown keys instead of refusing them.
        known: types that other documents define.
    """
    types: dict[str, ArtifactType] = {}
    findings: list[Finding] = []
    for name in source.data:
        found, problems = validate(ArtifactType, source, tolerant=tolerant, table=name)
        findings += problems
        if found:
            types[name] = found
    return types, [*findings, *_circles(types, source), *_strangers(types, source, known)]


def _circles(types: Mapping[str, ArtifactType], source: TomlSource) -> Iterable[Finding]:
    """A finding for each circle of `is_a`: the types in it could not be told apart."""
    graph = ArtifactGraph(types)
    named: set[str] = set()
    for name, artifact in types.items():
        circle = sorted(t for t in types if graph.fits(name, t) and graph.fits(t, name))
        if name in named or (len(circle) == 1 and name not in artifact.is_a):
            continue
        named.update(circle)
        yield Finding(
            "error",
            f"'is_a' goes in a circle: {' → '.join((*circle, circle[0]))}.",
            source.locate((name, "is_a")),
            key=f"{name}.is_a",
            fix=Fix("Take one of them out of the 'is_a' of another."),
        )


def _strangers(
    types: Mapping[str, ArtifactType], source: TomlSource, known: Collection[str]
) -> Iterable[Finding]:
    """A finding for each type that is referred to and defined nowhere."""
    everything = {*types, *known}
    for name, artifact in types.items():
        for relation in ("is_a", "convert_to"):
            for other in getattr(artifact, relation):
                if other not in everything:
                    yield Finding(
                        "warning",
                        f"'{name}.{relation}' names '{other}', which is no artifact type.",
                        source.locate((name, relation)),
                        key=f"{name}.{relation}",
                        fix=Fix(did_you_mean(other, everything) or f"Add a table [{other}]."),
                    )


def merge_types(layers: Iterable[Mapping[str, ArtifactType]]) -> dict[str, ArtifactType]:
    """One graph of several: a later layer adds types and relations, and its words win."""
    merged: dict[str, ArtifactType] = {}
    for layer in layers:
        for name, new in layer.items():
            old = merged.get(name, _UNKNOWN)
            merged[name] = ArtifactType(
                description=new.description or old.description,
                is_a=tuple(dict.fromkeys((*old.is_a, *new.is_a))),
                convert_to={**old.convert_to, **new.convert_to},
            )
    return merged
