"""Grammars of JSON Schemas: what is held to, and what is refused."""

from typing import Any

import pytest

from acclimate.daemon import jsonform

NESTED: dict[str, Any] = {"type": "string"}
for _ in range(100):
    NESTED = {"type": "array", "items": NESTED}


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        ({}, "root ::= value"),
        ({"type": "integer", "description": "how many"}, "root ::= integer"),
        ({"type": ["string", "null"], "maxLength": 3}, r'r0 ::= "\"" char{0,3} "\""'),
        ({"enum": ["a", 1, None]}, r'r0 ::= "\"a\"" | "1" | "null"'),
        ({"const": 'say "a\\b"\n'}, r'r0 ::= "\"say \\\"a\\\\b\\\"\\n\""'),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}, "{1,2}"),
        ({"type": "array", "maxItems": 0}, '"[" space "]"'),
        ({"type": "object", "additionalProperties": {"type": "number"}}, 'space ":" space number'),
        ({"$defs": {"a": {"type": "boolean"}}, "anyOf": [{"$ref": "#/$defs/a"}]}, "::= boolean"),
        ({"allOf": [{"type": "boolean"}]}, "root ::= boolean"),
    ],
)
def test_what_a_schema_allows(schema: dict[str, Any], rule: str) -> None:
    assert rule in jsonform.of_schema(schema)


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"type": "object", "properties": {"sub": {"$ref": "#"}}, "required": []}
    rules = jsonform.of_schema(tree).splitlines()
    assert len(rules) == len({rule.partition(" ::= ")[0] for rule in rules})
    assert all(rule.partition(" ::= ")[2] for rule in rules)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "weird"},
        {"type": "string", "pattern": "^a$"},
        {"type": "integer", "minimum": 3},
        {"type": "array", "maxItems": 10**9},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "array", "minItems": True},
        {"type": "string", "maxLength": "3"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"$ref": 5},
        {"enum": []},
        {"enum": 5},
        {"anyOf": {}},
        {"properties": {"a": None}},
        {"properties": [1]},
        {"allOf": [{}, {}]},
        {"not": {}},
        {"prefixItems": [{}], "items": {}},
        NESTED,
        {"properties": {str(n): {"type": "string", "maxLength": 1} for n in range(2000)}},
    ],
)
def test_what_cannot_be_kept_to_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        jsonform.of_schema(schema)
