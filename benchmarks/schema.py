"""`schema.json`, enforced on every row that is read: the published form is the one that counts.

Only the words of JSON Schema that the file uses are understood here, so that reading needs no
library; a test holds this reader against one, on valid and on broken rows.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from benchmarks.rows import SCHEMA_FILE, Row

TYPES: dict[str, Any] = {
    "object": dict,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
Rule = dict[str, Any]


@functools.cache
def schema() -> Rule:
    with open(SCHEMA_FILE, encoding="utf-8") as file:
        return dict(json.load(file))


def benches() -> dict[str, str]:
    """Every experiment that a row can belong to, with what it measures."""
    return {one["const"]: one["description"] for one in schema()["properties"]["bench"]["oneOf"]}


def problem(row: Row) -> str:
    """What the schema has against this row ("value: 'x' is not number or null"); '' if nothing."""
    return next(_broken(row, schema(), ""), "")


def _broken(value: Any, rule: Rule, where: str) -> Iterator[str]:
    """Each broken rule, with the field it is about."""
    said = f"{where}: {value!r}" if where else "the row"
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{said} is not {' or '.join(kinds)}"
        return
    if "const" in rule and not _same(value, rule["const"]):
        yield f"{said} is not {rule['const']!r}"
    if "enum" in rule and not any(_same(value, one) for one in rule["enum"]):
        yield f"{said} is none of {', '.join(map(repr, rule['enum']))}"
    if "oneOf" in rule and sum(_fits(value, one) for one in rule["oneOf"]) != 1:
        yield f"{said} is none of {', '.join(str(one.get('const')) for one in rule['oneOf'])}"
    if isinstance(value, str):
        if len(value) < rule.get("minLength", 0):
            yield f"{said} is too short"
        if "pattern" in rule and not re.search(rule["pattern"], value):
            yield f"{said} does not match {rule['pattern']}"
    if _is(value, "number") and value < rule.get("minimum", value):
        yield f"{said} is below {rule['minimum']}"
    if isinstance(value, dict):
        yield from _broken_fields(value, rule, where)
    for part in rule.get("allOf", []):
        yield from _broken(value, part, where)
    if "if" in rule:
        yield from _broken(
            value, rule.get("then" if _fits(value, rule["if"]) else "else", {}), where
        )


def _broken_fields(value: dict[str, Any], rule: Rule, where: str) -> Iterator[str]:
    known = rule.get("properties", {})
    missing = [name for name in rule.get("required", []) if name not in value]
    if missing:
        yield f"{where or 'not a row'}: no {', '.join(missing)}"
    if rule.get("additionalProperties") is False and value.keys() - known.keys():
        yield f"{where or 'not a row'}: unknown {', '.join(sorted(value.keys() - known.keys()))}"
    for name, inner in known.items():
        if name in value:
            yield from _broken(value[name], inner, f"{where}.{name}" if where else name)


def _fits(value: Any, rule: Rule) -> bool:
    return next(_broken(value, rule, ""), None) is None


def _is(value: Any, kind: str) -> bool:
    """JSON's types: True is no number, 1.0 is an integer."""
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[kind])


def _same(value: Any, other: Any) -> bool:
    """JSON's equality: 1 and True differ."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other
