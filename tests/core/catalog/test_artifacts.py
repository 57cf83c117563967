from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunedeck.core.catalog.artifacts import ArtifactGraph, ArtifactType, read_types
from tunedeck.core.toml.source import parse_toml

NAMES = "abcdef"
edges = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=10)


def graph(is_a: set[tuple[str, str]], convert: set[tuple[str, str]]) -> ArtifactGraph:
    return ArtifactGraph(
        {
            name: ArtifactType(
                is_a=tuple(b for a, b in sorted(is_a) if a == name),
                convert_to={b: f"{a}-{b}" for a, b in sorted(convert) if a == name},
            )
            for name in NAMES
        }
    )


def closure(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    reach = pairs | {(name, name) for name in NAMES}
    for middle in NAMES:
        reach |= {(a, b) for a in NAMES for b in NAMES if {(a, middle), (middle, b)} <= reach}
    return reach


@given(edges)
def test_what_fits_is_the_transitive_closure_of_is_a(is_a: set[tuple[str, str]]) -> None:
    built, reach = graph(is_a, set()), closure(is_a)
    for a in NAMES:
        for b in NAMES:
            assert built.fits(a, b) == ((a, b) in reach)


@given(edges, edges)
def test_conversions_are_the_shortest_chain_that_leads_there(
    is_a: set[tuple[str, str]], convert: set[tuple[str, str]]
) -> None:
    built, fits = graph(is_a, convert), closure(is_a)
    for start in NAMES:
        reached = {b for b in NAMES if (start, b) in fits}
        distance = dict.fromkeys(reached, 0)
        for step in range(1, len(NAMES) + 1):
            made = {c for b in reached for a, c in convert if a == b}
            reached |= {b for c in made for b in NAMES if (c, b) in fits}
            for name in reached:
                distance.setdefault(name, step)
        for end in NAMES:
            chain = built.conversions(start, end)
            if end not in distance:
                assert chain is None
                continue
            assert chain is not None
            assert len(chain) == distance[end]
            here = start
            for conversion in chain:
                assert conversion.source == here
                assert any(
                    (here, a) in fits and conversion.step == f"{a}-{conversion.target}"
                    for a in NAMES
                )
                here = conversion.target
            assert (here, end) in fits


def test_an_unknown_type_fits_only_itself() -> None:
    built = graph(set(), set())
    assert built.fits("new", "new")
    assert not built.fits("new", "a")
    assert built.conversions("new", "a") is None


def test_a_circle_of_is_a_is_an_error_once_and_changes_nothing_else() -> None:
    source = parse_toml(
        "[a]\nis_a = ['b']\n[b]\nis_a = ['a']\n[c]\nis_a = ['c']\n[d]\nis_a = ['a']\n", "types.toml"
    )
    types, findings = read_types(source, tolerant=False)
    assert [(f.severity, f.key, f.place.line) for f in findings] == [
        ("error", "a.is_a", 2),
        ("error", "c.is_a", 6),
    ]
    built = ArtifactGraph(types)
    assert built.fits("d", "b")
    assert not built.fits("b", "d")


def test_a_relation_to_a_type_that_is_nowhere_is_pointed_out() -> None:
    source = parse_toml("[a]\nconvert_to = { modle = 'x/y' }\n", "types.toml")
    _, (finding,) = read_types(source, tolerant=False, known=["model"])
    assert finding.fix is not None
    assert "'model'" in finding.fix.words


def test_a_bad_table_hides_no_other() -> None:
    source = parse_toml("x = 1\n[a]\nisa = ['b']\n[b]\n", "types.toml")
    types, findings = read_types(source, tolerant=False)
    assert set(types) == {"b"}
    assert [(f.key, f.place.line) for f in findings] == [("x", 1), ("a.isa", 3)]
