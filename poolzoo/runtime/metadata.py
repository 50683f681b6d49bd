"""The metadata of a bundle's graph held against their schema, so that whoever reads one of them finds what is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NotRequired, TypedDict

from poolzoo.common import conform, json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.data.resize import recorded
from poolzoo.metrics import decisions
from poolzoo.metrics.output_rules import ABSTENTION, PREDICTION_SETS, OutputRules
from poolzoo.runtime import graph_input

HINT: Final = "export the run again with poolzoo export"


class InputFacts(TypedDict):
    """`input`: what the graph takes."""

    kind: str
    height: int
    width: int
    batch: NotRequired[int | None]


class Facts(TypedDict):
    """What is read of `metadata_props`; each value is JSON in the file. The rules have readers of their own."""

    labels: list[str]
    input: InputFacts
    preprocessing: NotRequired[dict[str, object]]
    onnxruntime: NotRequired[str]
    precision: NotRequired[str | None]
    task: NotRequired[object]
    thresholds: NotRequired[object]
    calibration: NotRequired[object]
    abstention: NotRequired[object]
    prediction_sets: NotRequired[object]


def require(metadata: Mapping[str, str], file: object) -> None:
    """Makes sure that the metadata of a graph are those of a bundle.

    Args:
        metadata: Texts of JSON by key; keys of others stay unread.
        file: For messages.

    Raises:
        CheckFailed: One is missing, no JSON, of another type or out of its range.
    """
    if not {"labels", "input"} <= metadata.keys():
        raise CheckFailed(f"{file} has no `labels` or `input` in its metadata", HINT)
    found: dict[str, object] = {}
    for key in Facts.__annotations__:
        if key in metadata:
            try:
                found[key] = json_reader.parse(metadata[key])
            except ValueError:
                raise CheckFailed(f"{file} has metadata whose {key} is no JSON", HINT) from None
    if (problem := conform.problem(found, Facts)) or not found["labels"]:
        raise CheckFailed(f"{file} has metadata in which {problem or 'there is no label'}", HINT)
    try:
        graph_input.from_metadata(metadata)
        recorded(found.get("preprocessing", {}))  # type: ignore[arg-type]
        count = len(json_reader.items(found["labels"]))
        decisions.recorded(found.get("task"), found.get("thresholds"), count, found.get("calibration"))
        OutputRules.from_json({key: found.get(key) for key in (ABSTENTION, PREDICTION_SETS)})
    except ValueError as error:
        raise CheckFailed(f"the graph's metadata hold no {error}", HINT) from error
