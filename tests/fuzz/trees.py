"""Trees of JSON and TOML with one thing changed, and the texts that no writer of JSON would write."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

from fuzz import odd

DEEP = 100_000  # nested brackets


def changed(rng: Random, tree: Any) -> Any:
    """The tree with one to three changes: values swapped, keys dropped, renamed or added, parts moved and repeated."""
    holder = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(rng, holder)
    return holder[0]


def _places(tree: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every container in a tree with each of its keys."""
    if depth > 12 or not isinstance(tree, dict | list):
        return []
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    found = [(tree, key) for key in keys]
    for key in keys:
        found += _places(tree[key], depth + 1)
    return found


def _change(rng: Random, holder: list[Any]) -> None:
    places = _places(holder)
    container, key = rng.choice(places)
    kind = rng.randrange(9)
    if kind <= 2:
        container[key] = odd.value(rng)
    elif kind == 3:
        del container[key]
        holder[:] = holder or [None]
    elif kind == 4 and isinstance(container, dict):
        container[rng.choice((*odd.TEXTS, str(key).upper(), f"{key}_"))] = container.pop(key)
    elif kind == 5:
        other, place = rng.choice(places)
        container[key] = copy.deepcopy(other[place])
    elif kind == 6:
        container[key] = _retyped(rng, container[key])
    elif kind == 7 and isinstance(container, list):
        container[key:key] = copy.deepcopy(container[key : key + rng.choice((1, 2, 50))])
    elif kind == 8 and isinstance(container, dict):
        container[rng.choice(odd.TEXTS)] = odd.value(rng)


def _retyped(rng: Random, value: Any) -> Any:
    """The same value as another type."""
    ways = [str(value), [value], {"value": value}, bool(value)]
    if isinstance(value, int | float):
        ways += [-value, value * 10**6, value // 2 if isinstance(value, int) else value + 0.5]
    if isinstance(value, list):
        ways += [value[::-1], value[:1], dict(enumerate(map(str, value)))]
    if isinstance(value, str):
        ways += [odd.text(rng, value), len(value), value.encode("utf-8", "replace").hex()]
    return rng.choice(ways)


def json_text(rng: Random, tree: Any) -> bytes:
    """A changed tree as JSON: sometimes with a key twice, endlessly deep, in UTF-16, or damaged."""
    content = json.dumps(changed(rng, tree), ensure_ascii=rng.random() < 0.7)
    kind = rng.random()
    if kind < 0.04 and (at := content.find("{")) >= 0:
        name = json.dumps(rng.choice((*odd.TEXTS, "schema")))
        content = f"{content[: at + 1]}{name}: 1, {name}: {json.dumps(odd.value(rng))}, {content[at + 1 :]}"
    elif kind < 0.05:
        content = rng.choice(("[" * DEEP, '{"a":' * DEEP, "[" * 900 + "]" * 900))
    elif kind < 0.07:
        return content.encode("utf-16", "surrogatepass")
    encoded = content.encode("utf-8", "surrogatepass")
    return odd.damaged(rng, encoded) if kind > 0.9 else encoded


def toml_text(rng: Random, tree: Any) -> bytes:
    """A changed tree as TOML: sometimes with a key twice, endlessly deep, or damaged."""
    content = toml(changed(rng, tree))
    kind = rng.random()
    if kind < 0.03:
        content += content[: content.find("\n") + 1]
    elif kind < 0.05:
        content += f"\ndeep = {rng.choice(('[' * 3000, '[' * 500 + ']' * 500, '{a=' * 2000))}\n"
    elif kind < 0.08:
        content = content.replace("\n", rng.choice(("\r", "\r\n", "\n\n", " ")))
    encoded = content.encode("utf-8", "surrogatepass")
    return odd.damaged(rng, encoded) if kind > 0.85 else encoded


def toml(tree: Any) -> str:
    """A tree as TOML; tables within tables are inline."""
    if not isinstance(tree, dict):
        return f"value = {_toml_value(tree)}\n"
    plain = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    tables = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows = [f"{_toml_key(name)} = {_toml_value(one)}" for name, one in value.items()]
            tables += [f"[{_toml_key(key)}]", *rows]
    return "\n".join([*plain, *tables]) + "\n"


def _toml_key(key: object) -> str:
    text = str(key)
    return text if text.isascii() and text.replace("_", "a").replace("-", "a").isalnum() else json.dumps(text)


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {_toml_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(one) for one in value) + "]"
    if value is None:
        return '"None"'
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)
