"""The conformance kit of runtimes: a good one passes, and each promise fails where it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runtimes import HOSTILE, fake_runtime

from poolzoo.plugin import loader, spec
from poolzoo.testing import RUNTIME_CHECKS
from poolzoo.testing.plugin_check import check_plugin
from poolzoo.testing.runtimes import run_check

EXAMPLE = Path(__file__).parents[2] / "plugins" / "single_file" / "reference_runtime.py"

TAKES_TWO_AT_MOST = "open_session = changed(lambda x, a, b: 1 / 0 if len(x) > 2 else (a, b))\n"
IGNORES_CALIBRATION = """
def of_raw_logits(x, a, b):
    powers = np.exp(a - a.max(1, keepdims=True))
    return a, powers / powers.sum(1, keepdims=True)
open_session = changed(of_raw_logits)
"""
IGNORES_PRECISION = "def open_session(bundle, *, threads, device):\n    return honest(bundle, threads=threads)\n"
OPENS_ANYTHING = """
def open_session(bundle, **settings):
    try:
        return honest(bundle, **settings)
    except Exception:
        return lambda images: (np.zeros((len(images), 5)), np.full((len(images), 5), 0.2))
"""
CANNOT_CLOSE = """
class Session:
    def __init__(self, run):
        self.run = run
    def __call__(self, images):
        return self.run(images)
    def close(self):
        raise RuntimeError("closed twice")
def open_session(bundle, **settings):
    return Session(honest(bundle, **settings))
"""


@pytest.mark.slow
def test_the_example_in_one_file_passes():
    (item,) = check_plugin(str(EXAMPLE)).items
    assert [outcome.check for outcome in item.outcomes] == list(RUNTIME_CHECKS)
    assert [outcome.failure for outcome in item.outcomes if outcome.failure] == []


@pytest.mark.parametrize(
    ("body", "more", "check", "words"),
    [
        ("open_session = honest", "modules=('no_such_module',)", "absence_is_told", "install is empty"),
        (TAKES_TWO_AT_MOST, "", "batches_of_any_size", "ZeroDivisionError"),
        (HOSTILE["another answer the second time"], "", "answers_are_repeatable", "the same batch twice"),
        (HOSTILE["changes the images"], "", "input_is_left_alone", "changes the images"),
        (HOSTILE["logits for probabilities"], "", "probabilities_are_a_softmax", "off the softmax"),
        (IGNORES_CALIBRATION, "", "probabilities_are_a_softmax", "off the softmax"),
        (IGNORES_PRECISION, "", "settings_are_taken", "unexpected keyword argument 'precision'"),
        (OPENS_ANYTHING, "", "other_files_are_refused", "it opens a file that is no ONNX file"),
        (CANNOT_CLOSE, "", "sessions_close", "closed twice"),
    ],
)
def test_each_promise_of_a_runtime_fails_where_it_is_broken(tmp_path, body, more, check, words):
    loader.load_plugins(fake_runtime(tmp_path / "bad.py", body, more), installed=False)
    with pytest.raises(AssertionError, match=words):
        run_check(check, "fake")


def test_a_runtime_that_no_plugin_provides_is_checked_by_its_import_name():
    given = spec.Runtime(name="ours", summary="", open="poolzoo.runtime.builtin.ort:open_session")
    run_check("batches_of_any_size", given)


def test_fields_of_a_runtime_are_checked_when_it_is_made():
    good = {"name": "x", "summary": "", "open": "a.b:c"}
    for bad in (
        {"name": "X Y"},
        {"open": "nowhere"},
        {"convert": 3},
        {"modules": "onnx"},
        {"devices": ()},
        {"distributions": ("", "b")},
        {"install": None},
        {"form": {"batch": 1}},
    ):
        with pytest.raises((TypeError, ValueError), match=r"runtime|match|must be"):
            spec.Runtime(**{**good, **bad})
    for bad in ({"batch": 0}, {"batch": True}, {"opset": 1.5}, {"input": "int8"}):
        with pytest.raises(ValueError, match="of a graph's form"):
            spec.GraphForm(**bad)


def test_a_form_of_another_class_becomes_a_plain_one(tmp_path):
    body = "class Form(GraphForm):\n    pass\nopen_session = honest"
    catalog = loader.load_plugins(fake_runtime(tmp_path / "sub.py", body, "form=Form(batch=3)"), installed=False)
    form = catalog.runtime("fake").item.form
    assert (type(form), form.batch) == (spec.GraphForm, 3)


def test_a_function_that_is_nowhere_is_a_problem_of_the_plugin(tmp_path):
    path = fake_runtime(tmp_path / "nowhere.py", "open_session = 'no_such_module:open'")
    (problem,) = loader.load_plugins(path, installed=False).problems
    assert "open of 'fake': 'no_such_module:open' points to nothing" in str(problem)
