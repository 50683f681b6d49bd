"""Repairs of a node's attributes: one at a time, and two that belong together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import NodeProto, helper

from poolzoo.parity.reduction import alternatives
from poolzoo.parity.reduction.repair import Hints, Repair, shown


def attributes(proto: onnx.ModelProto, node: NodeProto, hints: Hints) -> Iterator[Repair]:
    """Each attribute with other values, and without one; sizes of windows and paddings two at a time."""
    present = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    schema = schema_of(proto, node)
    axes = hints.ranks.get(node.input[0], 4) if node.input else 0
    names = list(dict.fromkeys([*present, *(schema.attributes if schema else ())]))
    names.sort(key=lambda name: name == "auto_pad")  # another way to say what the pads are
    options: dict[str, list[Any]] = {}
    for name in names:
        value = present.get(name, _default(schema, name))
        options[name] = [one for one in alternatives.alternatives(name, value, axes, hints) if one != value]
        for other in options[name]:
            yield with_attributes(node, {name: other}, {name: value})
        if name in present:
            yield with_attributes(node, {name: None}, {name: value})
    lists = [name for name in options if name in ("pads", "dilations", "strides", "kernel_shape")]
    for first, second in itertools.combinations(lists, 2):
        uniform = [[one for one in options[name] if len(set(one)) == 1] for name in (first, second)]
        old = {name: present.get(name, _default(schema, name)) for name in (first, second)}
        for one, other in itertools.product(*uniform):
            yield with_attributes(node, {first: one, second: other}, old)


def with_attributes(node: NodeProto, values: dict[str, Any], old: dict[str, Any]) -> Repair:
    changed = NodeProto()
    changed.CopyFrom(node)
    kept = [one for one in changed.attribute if one.name not in values]
    del changed.attribute[:]
    changed.attribute.extend(kept)
    changed.attribute.extend(
        helper.make_attribute(name, value) for name, value in values.items() if value is not None and value != []
    )
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part="attribute",
        name=", ".join(values),
        found=", ".join(shown(old[name]) for name in values),
        expected=", ".join(map(shown, values.values())),
        nodes=(changed,),
    )


def _default(schema: Any, name: str) -> Any:
    found = schema.attributes.get(name) if schema else None
    if found is None or not found.default_value.name:
        return None
    return helper.get_attribute_value(found.default_value)


def schema_of(proto: onnx.ModelProto, node: NodeProto) -> Any:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    try:
        return onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None  # of another domain
