"""Replies that are JSON: the GBNF grammar of a `response_format`.

llama-cpp-python's converter lets line ends into strings, breaks names with a backslash and writes
out a large `maxItems` until memory ends; so this is its own, small, and refuses what it cannot hold
the model to. Knows no HTTP. JSON Schema: draft 2020-12.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_RULES = 1000
MAX_REPEATS = 1000  # llama.cpp writes repetitions out, and refuses 2000
MAX_DEPTH = 64

# Between tokens at most one space: a small model would fill a line with them.
_SHARED = {
    "space": '" "?',
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "pair": 'string space ":" space value',
    "object": '"{" space (pair space ("," space pair space)*)? "}"',
    "array": '"[" space (value space ("," space value space)*)? "]"',
    "value": "object | array | string | number | boolean | null",
}
_TYPES = ("string", "integer", "number", "boolean", "null", "object", "array")
# What says something about a value without limiting it.
_NOTES = frozenset(
    "$schema $id $comment $defs definitions title description default examples format"
    " deprecated readOnly writeOnly strict".split()
)
_LIMITS = {
    "string": {"minLength", "maxLength"},
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
}


def any_object() -> str:
    """The grammar of one JSON object."""
    return _text({"root": "object"})


def of_schema(schema: Mapping[str, Any], *, before: str = "", behind: str = "") -> str:
    """The grammar of what a JSON Schema allows, between two texts; an object's properties come in
    their order.

    Raises ValueError for a keyword that would limit a value and cannot be kept to, for references
    out of the schema, and for what is too large.
    """
    return _Grammar(schema).text(before, behind)


def _text(rules: Mapping[str, str]) -> str:
    return "\n".join(f"{name} ::= {rule}" for name, rule in {**rules, **_SHARED}.items())


def _literal(value: Any) -> str:
    """A JSON value as it is written, as a GBNF string."""
    return _quoted(json.dumps(value, ensure_ascii=False))


def _quoted(text: str) -> str:
    """A text as a GBNF string, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)


class _Grammar:
    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._referred: dict[str, str] = {}  # reference → rule
        self._root = self._rule(schema, 0)

    def text(self, before: str, behind: str) -> str:
        around = [f'{_quoted(before)} "\\n"?'] if before else []
        rest = [f'"\\n"? {_quoted(behind)}'] if behind else []
        return _text({"root": " ".join([*around, self._root, *rest]), **self._rules})

    def _named(self, rule: str) -> str:
        if len(self._rules) >= MAX_RULES:
            raise ValueError("the schema is too large")
        name = f"r{len(self._rules)}"
        self._rules[name] = rule
        return name

    def _rule(self, schema: Any, depth: int) -> str:
        """The name of the rule for a schema."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, Mapping):
            raise ValueError(f"a schema is an object, not {schema!r:.40}")
        if depth > MAX_DEPTH:
            raise ValueError("the schema is nested too deeply")
        keywords = set(schema) - _NOTES
        if "$ref" in keywords:
            return self._reference(schema["$ref"], keywords, depth)
        for union in ("anyOf", "oneOf"):
            if union in keywords:
                _only(keywords, {union, "type"}, union)
                return self._either([self._rule(s, depth + 1) for s in _list(schema, union)])
        if "allOf" in keywords:
            parts = _list(schema, "allOf")
            if len(parts) != 1 or len(keywords) != 1:
                raise ValueError("allOf is understood with one schema in it only")
            return self._rule(parts[0], depth + 1)
        if "const" in keywords or "enum" in keywords:
            _only(keywords, {"const", "enum", "type"}, "enum")
            values = [schema["const"]] if "const" in keywords else _list(schema, "enum")
            return self._either([_literal(value) for value in values])
        return self._typed(schema, keywords, depth)

    def _reference(self, reference: Any, keywords: set[str], depth: int) -> str:
        _only(keywords, {"$ref"}, "$ref")
        if not isinstance(reference, str) or not re.match(r"#(/|$)", reference):
            raise ValueError(f"$ref leads out of the schema: {reference!r:.80}")
        if reference not in self._referred:
            target: Any = self._schema
            for part in filter(None, reference[1:].split("/")):
                key = part.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, Mapping) or key not in target:
                    raise ValueError(f"$ref leads nowhere: {reference:.80}")
                target = target[key]
            # The name first: what is referred to may refer to itself.
            name = self._referred[reference] = self._named("")
            inner = self._rule(target, depth + 1)
            if inner == name:
                raise ValueError(f"$ref leads to itself: {reference:.80}")
            self._rules[name] = inner
        return self._referred[reference]

    def _typed(self, schema: Mapping[str, Any], keywords: set[str], depth: int) -> str:
        kinds = schema.get("type")
        if kinds is None:
            kinds = [k for k, limits in _LIMITS.items() if keywords & limits] or ["value"]
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        allowed = {"type"}.union(*(_LIMITS.get(kind, set()) for kind in kinds))
        _only(keywords, allowed, " or ".join(map(str, kinds)))
        rules = []
        for kind in kinds:
            limited = keywords & _LIMITS.get(kind, set())
            if kind != "value" and kind not in _TYPES:
                raise ValueError(f"no such type: {kind!r:.40}")
            if not limited:
                rules.append(kind)
            elif kind == "object":
                rules.append(self._object(schema, depth))
            elif kind == "array":
                rules.append(self._array(schema, depth))
            else:
                bounds = _bounds(schema, "minLength", "maxLength")
                rules.append(self._named(rf'"\"" char{bounds} "\""'))
        return self._either(rules)

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        """Required properties, then any of the others, each list in its order."""
        properties = schema.get("properties", {})
        if not isinstance(properties, Mapping):
            raise ValueError("properties is an object")
        required = _list(schema, "required") if schema.get("required") else []
        pairs = {
            name: self._named(f'{_literal(name)} space ":" space {self._rule(inner, depth + 1)}')
            for name, inner in properties.items()
        }
        for name in required:
            if name not in pairs:
                pairs[name] = self._named(f'{_literal(name)} space ":" space value')
        first = [pairs[name] for name in pairs if name in required]
        others = [pair for name, pair in pairs.items() if name not in required]
        more = schema.get("additionalProperties", True)
        if more is not False and not pairs:  # where there are properties, others may be left out
            others.append(self._repeated(f'string space ":" space {self._rule(more, depth + 1)}'))
        rest = self._tail(others)
        inside = ' space "," space '.join(first)
        if first and rest:
            inside += f' (space "," space {rest})?'
        elif rest:
            inside = f"{rest}?"
        return self._named(f'"{{" space {inside} space "}}"')

    def _tail(self, pairs: Sequence[str]) -> str:
        """A rule for one or more of these, in their order, with commas between; "" for none."""
        rule = ""
        for pair in reversed(pairs):
            one = f'{pair} (space "," space {rule})?' if rule else pair
            rule = self._named(f"{one} | {rule}" if rule else one)
        return rule

    def _repeated(self, item: str, bounds: str = "*") -> str:
        return self._named(f'{item} (space "," space {item}){bounds}')

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        if "prefixItems" in schema:
            if schema.get("items", False) is not False or {"minItems", "maxItems"} & set(schema):
                raise ValueError("after prefixItems nothing more can be given")
            items = [self._rule(s, depth + 1) for s in _list(schema, "prefixItems")]
            return self._named('"[" space ' + ' space "," space '.join(items) + ' space "]"')
        item = self._rule(schema.get("items", True), depth + 1)
        least, most = _numbers(schema, "minItems", "maxItems")
        if most == 0:
            return self._named('"[" space "]"')
        bounds = f"{{{max(0, least - 1)},{'' if most is None else most - 1}}}"
        listed = self._repeated(item, bounds)
        return self._named(f'"[" space {listed}{"" if least else "?"} space "]"')

    def _either(self, rules: Sequence[str]) -> str:
        if not rules:
            raise ValueError("nothing is allowed")
        plain = rules[0].isidentifier() and len(rules) == 1
        return rules[0] if plain else self._named(" | ".join(rules))


def _only(keywords: set[str], allowed: set[str], what: str) -> None:
    if unknown := sorted(map(str, keywords - allowed)):
        raise ValueError(f"{unknown[0]:.40} beside {what:.80} cannot be kept to")


def _list(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    found = schema[keyword]
    if not isinstance(found, list) or not found:
        raise ValueError(f"{keyword} is a list of one or more")
    return found


def _numbers(schema: Mapping[str, Any], low: str, high: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    for name, number in ((low, least), (high, 0 if most is None else most)):
        if type(number) is not int or not 0 <= number <= MAX_REPEATS:
            raise ValueError(f"{name} is a number up to {MAX_REPEATS}")
    if most is not None and most < least:
        raise ValueError(f"{high} is less than {low}")
    return least, most


def _bounds(schema: Mapping[str, Any], low: str, high: str) -> str:
    least, most = _numbers(schema, low, high)
    return f"{{{least},{'' if most is None else most}}}"
