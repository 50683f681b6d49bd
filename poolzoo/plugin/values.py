"""Takes over what plugins hand in as plain values, so that what was checked once cannot turn into something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from itertools import islice
from typing import Any, Final, TypeVar

from poolzoo.plugin import spec

Item = spec.Pooling | spec.Backbone | spec.BackboneFamily | spec.Dataset | spec.DatasetSource | spec.Runtime
ItemT = TypeVar("ItemT", bound=Item)
KINDS: Final = (spec.Pooling, spec.Backbone, spec.BackboneFamily, spec.Dataset, spec.DatasetSource, spec.Runtime)


def text(value: str) -> str:
    """The characters of a string, whatever a subclass of `str` does when it is printed or compared."""
    return str.__str__(value)


def item(given: ItemT) -> ItemT:
    """The same item as an instance of the contract's own class, with plain strings and tuples.

    Raises:
        BaseException: Whatever a subclass raises when it is read, and what the contract's class finds wrong with it.
    """
    kind: Any = next(kind for kind in KINDS if isinstance(given, kind))
    return kind(**{field.name: _value(getattr(given, field.name)) for field in fields(kind)})  # type: ignore[no-any-return]


def texts(read: Callable[[], Iterable[object]], most: int) -> list[str]:
    """The strings among the first `most` things that a plugin's function gives.

    Raises:
        BaseException: Whatever the function raises.
    """
    return [text(one) for one in islice(read(), most) if isinstance(one, str)]


def array(value: Any) -> Any:
    """An array as one of numpy's own class that torch can take over, without a copy where it has one; else what it is.

    Subclasses overrule indexing, arithmetic and even `dtype`; torch takes no negative strides.
    """
    import numpy as np

    if not isinstance(value, np.ndarray):
        return value
    own: np.ndarray = np.asarray(value)
    return own if all(step >= 0 for step in own.strides) else np.ascontiguousarray(own)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, spec.GraphForm):
        return spec.GraphForm(**{field.name: _value(getattr(value, field.name)) for field in fields(spec.GraphForm)})
    return tuple(map(_value, value)) if isinstance(value, tuple | list) else value
