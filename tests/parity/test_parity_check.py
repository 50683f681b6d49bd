"""What a parity check says of a graph whose differences are planted: where, how large, of which images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.planted_graph import COUNT, WEIGHT, Graph, Network, images

from poolzoo.common.errors import CheckFailed
from poolzoo.metrics.decisions import Decision
from poolzoo.parity import check
from poolzoo.parity.photographs import PhotoCheck
from poolzoo.parity.reference import Reference, UnstableNetworkError, max_abs
from poolzoo.parity.report import LayerDifference, Limits, ProbeResult
from poolzoo.runtime import tolerance
from poolzoo.runtime.half_arithmetic import HalfCheck

EDGES = ["black", "white", "gray", "checkerboard", "red", "one bright pixel", "noise"]


@pytest.fixture(scope="module")
def reference() -> Reference:
    pixels, labels = images()
    return Reference.compute(Network().eval(), pixels, labels)


def test_a_reference_is_the_network_in_two_precisions(reference):
    pixels, _ = images()
    assert reference.names == [*EDGES, *(f"test image {index}" for index in range(COUNT))]
    assert (reference.edge_count, reference.float64_count, reference.precision) == (7, 7 + COUNT, "float64")
    assert reference.kind == "test"
    exact = pixels[:, 0, 0].astype(np.float64) / 255 @ WEIGHT.numpy().astype(np.float64)
    np.testing.assert_allclose(reference.expected[0][reference.regular], exact, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(reference.float32[0][reference.regular], exact, atol=1e-6)
    largest = np.abs(exact).max()
    assert np.allclose(reference.scale[7:], largest)
    assert reference.scale[1] == pytest.approx(max(largest, 1.75))  # white
    floor = reference.noise_floor
    assert 0 < floor < 1e-6
    np.testing.assert_allclose(reference.allowed[7:], 4 * floor + 1e-6 * largest)
    assert (reference.allowed[:7] >= reference.allowed[7]).all()
    assert next(reference.model.parameters()).dtype == torch.float32
    assert Reference.compute(Network(), pixels[:2], None).kind == "synthetic"


def test_images_beyond_those_in_float64_are_compared_with_float32(monkeypatch):
    from poolzoo.parity import reference as module

    monkeypatch.setattr(module, "FLOAT64_IMAGES", 5)
    found = Reference.compute(Network().eval(), *images())
    assert found.float64_count == 12
    assert np.array_equal(found.expected[0][12:], found.float32[0][12:])
    assert not np.array_equal(found.expected[0][7:12], found.float32[0][7:12])
    np.testing.assert_allclose(found.allowed[12:] - found.allowed[11], found.noise_floor)


def test_a_network_that_cannot_be_compared_is_refused():
    class Random(Network):
        def forward(self, images):
            logits = super().forward(images)[0] + torch.rand(3, dtype=self.weight.dtype)
            return logits, logits.softmax(1)

    class Broken(Network):
        def forward(self, images):
            logits = super().forward(images)[0] + 1 / (images[:, 1, 1, :1] != 3)  # infinite on one image
            return logits, logits.softmax(1)

    pixels, labels = images()
    with pytest.raises(UnstableNetworkError, match="no graph can be compared"):
        Reference.compute(Random(), pixels, labels)
    with pytest.raises(CheckFailed, match="gives NaN or infinity on test image 2"):
        Reference.compute(Broken(), pixels, labels)


def test_an_edge_case_that_rounding_decides_is_checked_for_nan_alone():
    class Chaotic(Network):
        def forward(self, images):
            logits, probabilities = super().forward(images)
            white = images.flatten(1).min(1).values == 255
            return logits + 0.5 * white[:, None] * (logits.dtype == torch.float32), probabilities

    found = Reference.compute(Chaotic().eval(), *images())
    white = EDGES.index("white")
    assert found.allowed[white] == pytest.approx((2 + 1e-6) * found.scale[white])
    assert (np.delete(found.allowed, white) < 1e-3).all()


def test_a_network_of_float32_alone_is_its_own_reference():
    class Casts(Network):
        def forward(self, images):
            if self.weight.dtype != torch.float32:
                raise RuntimeError("expected float32")
            return super().forward(images)

    pixels, labels = images()
    found = Reference.compute(Casts(), pixels, labels)
    assert found.precision == "float32"
    assert np.array_equal(found.expected[0], found.float32[0])
    assert found.noise_floor == pytest.approx(1e-6 * np.abs(found.float32[0][7:]).max())


def test_chosen_images_get_a_noise_floor_of_their_own(reference):
    strict = replace(reference, expected=reference.float32, allowed=np.zeros(7 + COUNT))
    rows = np.array([3, 9, 20])
    found = strict.rechecked(rows)
    for own, exact, single in zip(found.expected, reference.expected, reference.float32, strict=True):
        assert own.dtype == np.float64
        assert np.array_equal(own[rows], exact[rows])
        others = np.delete(np.arange(7 + COUNT), rows)
        assert np.array_equal(own[others], single[others])
        assert not found.allowed[others].any()
    apart = [np.abs(a[rows] - b[rows]).max(1) for a, b in zip(reference.float32, reference.expected, strict=True)]
    least = 16 * np.maximum(*apart) + 1e-6 * reference.scale[rows]
    assert (found.allowed[rows] >= least * (1 - 1e-9)).all()
    assert (found.allowed[rows] <= least + 16 * 1e-6).all()
    assert not strict.allowed.any()
    generous = replace(reference, allowed=np.ones(7 + COUNT)).rechecked(rows)
    assert np.array_equal(generous.allowed, np.ones(7 + COUNT))


def test_other_orders_of_summation_widen_the_tolerance_of_an_image(reference):
    class Alone(Network):
        def forward(self, images):
            logits, probabilities = super().forward(images)
            return logits + 1e-4 * (len(images) == 1 and logits.dtype == torch.float32), probabilities

    strict = replace(reference, model=Alone().eval(), allowed=np.zeros(7 + COUNT))
    found = strict.rechecked(np.array([9, 20]))
    np.testing.assert_allclose(found.allowed[[9, 20]], 16e-4 + 1e-6 * reference.scale[9], rtol=0.05)

    class First(Network):
        def forward(self, images):
            logits, probabilities = super().forward(images)
            odd = images[:, 1, 1, :1] == reference.images[9, 1, 1, 0]
            return logits + 1e-4 * odd * (len(images) == 1 and logits.dtype == torch.float32), probabilities

    alone = replace(strict, model=First().eval()).rechecked(np.array([9, 20])).allowed
    assert alone[9] == pytest.approx(16e-4, rel=0.05)
    assert alone[20] < 1e-4
    chaotic = replace(strict, scale=np.full(7 + COUNT, 1e-4 / 2e-3))
    assert not chaotic.rechecked(np.array([9, 20])).allowed.any()  # rounding alone decides there
    bounded = replace(strict, scale=np.full(7 + COUNT, 1e-4 / 0.5e-3))
    assert bounded.rechecked(np.array([9, 20])).allowed[9] > 0


def test_a_graph_that_agrees_passes_with_its_figures(reference):
    report = check.check_outputs(reference, Graph({}))
    outputs = report.outputs
    assert report.passed
    assert report.gate == "noise"
    assert report.noise.worst.ratio <= 1
    assert report.noise.rechecked == ()
    assert outputs.batches == (1, 2, 7, 64)
    assert set(report.noise.worst_by_batch) == {1, 2, 7, 64}
    assert list(outputs.max_abs_by_edge) == list(report.noise.allowed_by_edge) == EDGES
    assert outputs.max_abs == max(outputs.max_abs_by_batch.values())
    assert outputs.max_abs <= reference.noise_floor * 4
    assert (outputs.top1_agreement, outputs.flips, outputs.finite) == (1.0, (), True)
    assert outputs.cosine == pytest.approx(1.0)
    assert outputs.largest_logit == pytest.approx(np.abs(reference.float32[0][7:]).max())
    assert (outputs.images, outputs.n, outputs.reference) == ("test", COUNT, "float64")
    assert outputs.provider == Graph.provider
    assert outputs.accuracy.to_json() == {"accuracy": {"torch": 1.0, "onnxruntime": 1.0}}
    assert report.noise.allowed_on_images == reference.allowed[7:].max()
    assert report.tolerance in reference.allowed
    assert {name: len(array) for name, array in report.golden.items()} == dict.fromkeys(report.golden, 7 + 16)
    assert report.golden.keys() == {"images", "logits", "probabilities", "allowed"}
    np.testing.assert_array_equal(report.golden["images"], reference.images[:23])
    np.testing.assert_array_equal(report.golden["probabilities"], reference.expected[1][:23].astype(np.float32))
    np.testing.assert_array_equal(report.golden["allowed"], reference.allowed[:23])
    np.testing.assert_array_equal(report.logits, Graph({}).run(images()[0])[0])


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_difference_in_batches_of_one_size_is_named(reference, size):
    report = check.check_outputs(reference, Graph({2: 0.25}, sizes=(size,)))
    assert not report.passed
    worst = report.noise.worst
    assert worst.input == "test image 1"
    assert worst.max_abs == pytest.approx(0.25, abs=1e-6)
    assert worst.ratio == pytest.approx(worst.max_abs / worst.allowed)
    assert report.noise.worst_by_batch[size] == worst
    assert report.tolerance == worst.allowed
    assert report.outputs.max_abs_by_batch[size] == worst.max_abs == report.outputs.max_abs
    assert max(value for other, value in report.outputs.max_abs_by_batch.items() if other != size) < 1e-5
    assert report.outputs.relative == pytest.approx(0.25 / report.outputs.largest_logit, rel=1e-3)
    assert report.noise.rechecked == ("test image 1",)
    shown = f"parity failed: {worst.max_abs:.2e} on test image 1, where {worst.allowed:.2e} is allowed"
    assert report.describe_failure() == f"{shown}; agreement {report.outputs.top1_agreement:.4f}"


def test_an_image_that_small_batches_leave_out_is_seen_among_all(reference):
    report = check.check_outputs(reference, Graph({COUNT: 0.25}))
    by_batch = report.outputs.max_abs_by_batch
    assert by_batch[64] == pytest.approx(0.25, abs=1e-6)
    assert max(by_batch[size] for size in (1, 2, 7)) < 1e-5
    assert check.batches_of(reference, 7)[-1].tolist() == [21, 22, 23, 24, 25, 26, 27]
    assert [len(rows) for rows in check.batches_of(reference, 2)] == [2, 2, 2, 1, 2, 2, 2]
    assert [len(rows) for rows in check.batches_of(reference, 64)] == [7 + COUNT]


def test_many_images_too_far_away_are_not_checked_again(reference):
    few = check.check_outputs(reference, Graph(dict.fromkeys(range(1, 17), 1e-3)))
    many = check.check_outputs(reference, Graph(dict.fromkeys(range(1, 18), 1e-3)))
    assert few.noise.rechecked == tuple(f"test image {index}" for index in range(16))
    assert many.noise.rechecked == ()
    assert not few.passed
    assert not many.passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_number(reference, value):
    report = check.check_outputs(reference, Graph({3: value}))
    assert not report.passed
    assert report.noise.worst.input == "test image 2"
    assert (report.noise.worst.max_abs, report.noise.worst.ratio) == (None, None)
    assert (report.outputs.max_abs, report.outputs.relative, report.outputs.finite) == (None, None, False)
    assert report.noise.rechecked == ()
    assert report.describe_failure() == "parity failed: the graph gives NaN or infinity, first on test image 2"


def test_flips_are_listed_with_their_gap(reference):
    sorted_logits = np.sort(reference.float32[0][7:], 1)
    gaps = sorted_logits[:, -1] - sorted_logits[:, -2]
    other = [row for row in range(COUNT) if reference.float32[0][7 + row].argmax() != 2]
    report = check.check_outputs(reference, Graph(dict.fromkeys((row + 1 for row in other), 100.0), column=2))
    assert len(other) > 20
    flips = report.outputs.flips
    assert [one.input for one in flips] == [f"test image {row}" for row in other[:20]]
    assert [one.margin for one in flips] == pytest.approx([gaps[row] for row in other[:20]])
    assert report.outputs.top1_agreement == pytest.approx(1 - len(other) / COUNT)
    assert report.outputs.accuracy.torch == 1.0
    assert report.outputs.accuracy.onnxruntime == pytest.approx(1 - len(other) / COUNT)
    assert report.outputs.accuracy.drop == pytest.approx(len(other) / COUNT)
    logits = reference.float32[0][reference.regular].astype(np.float64)
    cosines = (report.logits * logits).sum(1) / np.linalg.norm(report.logits, axis=1) / np.linalg.norm(logits, axis=1)
    assert report.outputs.cosine == pytest.approx(cosines.min())
    assert report.outputs.cosine < 0.9


def test_limits_are_exceeded_in_words(reference):
    other = [row for row in range(COUNT) if reference.float32[0][7 + row].argmax() != 0][:4]  # a tenth
    graph = Graph(dict.fromkeys((row + 1 for row in other), 100.0))
    at_limit = check.check_limits(reference, graph, Limits(agreement=0.9, accuracy_drop=0.1))
    assert at_limit.passed
    assert at_limit.gate == "limits"
    assert at_limit.violations is None
    assert at_limit.tolerance == at_limit.outputs.max_abs == pytest.approx(100)
    assert at_limit.golden["allowed"].max() == pytest.approx(100)
    np.testing.assert_array_equal(at_limit.golden["logits"], graph.run(reference.images[:23])[0])
    beyond = check.check_limits(reference, graph, Limits(agreement=0.91, accuracy_drop=0.09))
    assert not beyond.passed
    assert beyond.violations == "agreement 0.9000 is below 0.91; accuracy falls by 0.1000, more than 0.09"
    assert beyond.describe_failure() == f"parity failed: {beyond.violations}"
    broken = check.check_limits(reference, Graph({1: np.nan}), Limits(agreement=0.0, accuracy_drop=1.0))
    assert broken.limits.violations == ("it gives NaN or infinity",)
    assert broken.tolerance is None


def test_several_labels_have_margins_to_their_thresholds():
    pixels, _ = images()
    labels = np.zeros((COUNT, 3), np.uint8)
    labels[::2, 0] = 1
    decision = Decision((0.5, 0.5, 0.5))
    found = Reference.compute(Network().eval(), pixels, labels, decision)
    report = check.check_outputs(found, Graph({1: -100.0}))
    assert report.outputs.accuracy.to_json().keys() == {"map"}
    (flip,) = report.outputs.flips
    assert flip.margin == pytest.approx(np.abs(found.float32[0][7]).min(), rel=1e-4)
    without = replace(found, labels=np.zeros_like(labels))
    assert check.check_outputs(without, Graph({})).outputs.accuracy is None


def test_outputs_of_another_shape_are_refused(reference):
    class Wide(Graph):
        def run(self, images, *, last=False):
            logits, probabilities = super().run(images)
            return np.pad(logits, ((0, 0), (0, 1))), probabilities

    with pytest.raises(CheckFailed, match=r"the graph gives \(7, 4\) where the network gives \(7, 3\)"):
        check.measure(reference, Wide({}))


PROBE = ProbeResult(part="core", probe="zeros", max_abs=0.5, allowed=0.25, passed=False, note="5e-1 where 2e-1")
HALF = HalfCheck(passed=False, finite=True, images=3, max_abs=0.5, allowed=0.25, flips=1)
PHOTOS = PhotoCheck(
    passed=False, photographs=5, max_levels=4, mean_levels=0.2, differing=0.1, max_abs=None, allowed=0.5, flips=2
)


def test_every_check_of_a_report_has_its_key(reference):
    report = check.check_outputs(reference, Graph({}))
    written = report.to_json()
    assert (written["passed"], written["gate"], written["optimization"]) == (True, "noise", "all")
    assert written["batches"] == [1, 2, 7, 64]
    assert [*written["max_abs_by_batch"]] == [*written["worst_by_batch"]] == ["1", "2", "7", "64"]
    assert written["worst"] == {
        key: getattr(report.noise.worst, key) for key in ("input", "max_abs", "allowed", "ratio")
    }
    assert written["looked_at_again"] == []
    for key in ("relative", "cosine", "noise_floor", "reference", "largest_logit", "top1_agreement", "max_abs"):
        assert written[key] == getattr(report.outputs, key)
    for key in ("finite", "images", "n", "provider", "max_abs_by_edge"):
        assert written[key] == getattr(report.outputs, key)
    assert (written["tolerance"], written["flips"]) == (report.tolerance, [])
    assert written["allowed_on_images"] == report.noise.allowed_on_images
    assert written["allowed_by_edge"] == report.noise.allowed_by_edge
    assert written["accuracy"] == {"torch": 1.0, "onnxruntime": 1.0}
    optional = {"limits", "lost", "probes", "diverges", "inside", "half", "photographs", "fp32"}
    assert not optional & written.keys()
    layer = LayerDifference(layer="network.pool", max_abs=1.0, allowed=0.5, largest=2.0)
    full = replace(
        report,
        probes=(PROBE,),
        first_difference=layer,
        located=True,
        value_range={"max_abs": 3.0},
        half=HALF,
        photographs=PHOTOS,
        fp32=report,
    ).to_json()
    assert full["probes"] == [
        {"part": "core", "probe": "zeros", "max_abs": 0.5, "allowed": 0.25, "passed": False, "note": "5e-1 where 2e-1"}
    ]
    assert full["diverges"] == {"layer": "network.pool", "max_abs": 1.0, "allowed": 0.5, "largest": 2.0}
    assert full["inside"] == {"max_abs": 3.0}
    assert full["half"] == HALF.to_json()
    assert full["photographs"] == PHOTOS.to_json()
    assert full["fp32"] == written
    assert replace(report, located=True).to_json()["diverges"] is None
    limits = check.check_limits(reference, Graph({}), Limits(0.5, 0.25)).to_json()
    assert limits["limits"] == {"agreement": 0.5, "accuracy_drop": 0.25}
    assert limits["lost"] is None
    assert "worst" not in limits


def test_a_failure_says_which_check_failed(reference):
    report = check.check_outputs(reference, Graph({}))
    assert report.describe_failure().startswith("parity failed: ")
    probed = replace(report, passed=False, probes=(replace(PROBE, passed=True), PROBE))
    assert probed.describe_failure() == "parity failed: core on zeros: 5e-1 where 2e-1"
    layer = LayerDifference(layer="network.pool", max_abs=1.0, allowed=0.5, largest=2.0)
    located = replace(probed, first_difference=layer).describe_failure()
    assert located.endswith("; the first layer that differs is network.pool")
    pictures = report.with_photographs(PHOTOS, {"more": np.zeros(1)})
    assert not pictures.passed
    assert {*report.golden, "more"} == pictures.golden.keys()
    assert pictures.describe_failure() == (
        "parity failed: on 5 photographs at most 4 of 255 levels from Pillow's resize, 0.2000 in the mean; "
        "difference not finite"
    )
    assert report.with_photographs(replace(PHOTOS, passed=True), {}).passed
    assert not report.with_half_arithmetic(HALF).passed
    assert report.with_half_arithmetic(replace(HALF, passed=True)).passed
    low = check.check_limits(reference, Graph({}), Limits()).with_half_arithmetic(HALF)
    assert low.violations == HALF.describe()
    assert low.describe_failure() == f"parity failed: {HALF.describe()}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_magnitudes_are_infinite_where_a_value_is_not_finite(value):
    assert max_abs(np.array([[1.0, -3.0]])) == 3.0
    assert max_abs(np.array([[1.0, value]])) == np.inf
    right = np.array([[0.25, 0.75], [0.25, 0.75]])
    for found, expected in ((value, 0.25), (value, value), (0.25, value)):
        outputs = np.array([[found, 0.75], [0.25, 0.75]], np.float32)
        wanted = np.array([[expected, 0.75], [0.25, 0.75]])
        assert tolerance.apart((outputs, right), (wanted, right)).tolist() == [np.inf, 0.0]


def test_infinite_logits_exceed_limits_though_the_classes_agree(reference):
    graph = Graph({1: -np.inf}, column=int(reference.float32[0][7].argmin()))
    report = check.check_limits(reference, graph, Limits())
    assert report.outputs.top1_agreement == 1.0
    assert report.violations == "it gives NaN or infinity"
