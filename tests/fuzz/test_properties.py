"""Properties of readers for all inputs: what is written is read as it was, and what is read is nothing else."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fuzz.targets import graphs
from poolzoo.artifacts.schema import Config, Manifest, Parity
from poolzoo.common import archive, conform, json_reader
from poolzoo.common.errors import UsageError
from poolzoo.data import sizes
from poolzoo.datasets import table_rows
from poolzoo.plugin import grammar
from poolzoo.runtime import onnx_file
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings
from poolzoo.train.step_plan import StepPlan

quick = settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.text("abcxyz09_-", min_size=1, max_size=8)
TYPES = arrays.boolean_dtypes() | arrays.integer_dtypes() | arrays.unsigned_integer_dtypes() | arrays.floating_dtypes()


@quick
@given(st.text(max_size=40) | st.from_regex(r"[\w.]{1,5}(:[\w.]{1,5})?(:\w=\S{0,3}(,\w=\S{0,3})*)?", fullmatch=True))
def test_a_typed_pooling_is_refused_or_read_as_it_is_written(text):
    try:
        found = grammar.parse_spec(text)
    except UsageError:
        return
    pairs = ",".join(f"{key}={value}" for key, value in found.options.items())
    assert grammar.parse_spec(":".join(filter(None, [found.dist, found.name, pairs])))[1:] == found[1:]


@quick
@given(st.integers(1, sizes.MAX_SIDE), st.integers(1, sizes.MAX_SIDE))
def test_sizes_are_read_as_they_are_written(height, width):
    assert sizes.parse(sizes.plain((height, width))) == (height, width)


@quick
@given(st.integers(1, 10**6), st.lists(st.tuples(st.integers(1, 100), st.integers(1, 10**6)), max_size=4))
def test_plans_of_steps_are_read_as_they_are_written(total, more):
    plan, step = StepPlan.of(total), 0
    for gap, rest in more:
        step += gap
        plan = plan.refitted(step, step + rest)
    assert StepPlan.parse(str(plan)) == plan


@quick
@given(
    data=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20),
    numbers=st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 10**6),
            "lr": st.floats(1e-12, 1e4),
            "seed": st.integers(0, 2**31 - 1),
            "warmup": st.floats(0, 0.99),
            "mixup": st.floats(0, 100),
            "ema": st.floats(0, 0.99),
            "pretrained": st.booleans(),
        },
    ),
)
def test_settings_are_read_as_they_are_written(tmp_path, data, numbers):
    wanted = Settings(data=data, **numbers)
    (tmp_path / "run.toml").write_text(wanted.to_toml(), encoding="utf-8")
    assert read_run_settings(tmp_path) == Settings(**{**vars(wanted), **_unwritten(wanted)})


def _unwritten(wanted: Settings) -> dict[str, Any]:
    """What settings without a value mean in a file, which may be of an earlier version."""
    from poolzoo.train.settings_file import LEGACY_DEFAULTS

    return {name: value for name, value in LEGACY_DEFAULTS.items() if getattr(wanted, name) is None}


@quick
@given(
    st.dictionaries(NAMES, arrays.arrays(TYPES, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)), min_size=1)
)
def test_arrays_are_read_as_numpy_writes_them(tmp_path, found):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **{name: np.asfortranarray(array) for name, array in found.items()})
        read = archive.read(tmp_path / "a.npz")
        assert read.keys() == found.keys()
        for name, array in found.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


@quick
@given(JSON, st.sampled_from([Config, Manifest, Parity]))
def test_any_json_is_held_against_a_schema_in_one_line(value, schema):
    text = conform.problem(value, schema)
    assert text
    assert text.isprintable()
    assert len(text) < 500


@quick
@given(JSON)
def test_json_is_parsed_as_the_json_module_parses_it(value):
    text = json.dumps(value)
    assert json.dumps(json_reader.parse(text)) == text


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12).filter(
    lambda text: not text.startswith("'")  # an apostrophe before a formula is the writer's, and not part of the text
)


@quick
@given(st.lists(st.tuples(CELLS, CELLS.filter(str.strip)), min_size=1, max_size=5))
def test_tables_are_read_as_the_csv_module_writes_them(tmp_path, rows):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("path", "label"), *rows])
    (tmp_path / "t.csv").write_text(buffer.getvalue(), encoding="utf-8", newline="")
    found = [(row.path, row.labels) for row in table_rows.rows(tmp_path / "t.csv", multilabel=False)]
    assert found == [(path, (label.strip(),)) for path, label in rows]


@quick
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), st.text(st.characters(codec="utf-8"))))
def test_metadata_of_a_graph_are_read_as_onnx_writes_them(metadata):
    proto = graphs.linear()
    onnx.helper.set_model_props(proto, metadata)
    found = onnx_file.Graph(proto.SerializeToString())
    assert found.metadata == metadata
    assert [node.type for node in found.nodes] == [node.op_type for node in proto.graph.node]
    for tensor in proto.graph.initializer:
        weight = found.weight(tensor.name)
        assert weight is not None
        np.testing.assert_array_equal(weight, onnx.numpy_helper.to_array(tensor))


@pytest.mark.parametrize("count", [11, 1_000_000])
def test_a_number_without_an_end_is_refused_at_once(count):
    with pytest.raises(ValueError, match="does not end"):
        onnx_file.Graph(b"\x80" * count + b"\x01")
