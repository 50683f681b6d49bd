"""Metrics of several labels: against scikit-learn, loops over images, and odd numbers."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from poolzoo.metrics import bootstrap, decisions, intervals, multilabel, ranking, results, thresholds
from poolzoo.metrics.activations import sigmoid
from poolzoo.metrics.decisions import Decision

NAMES = ("ant", "bee", "cat", "dog")


def case(seed: int = 0, images: int = 200, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Logits that know something of the labels, `float32[N, 4]`, and labels; tied logits take a few values only."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((images, 4)) < (0.5, 0.2, 0.05, 0.7)).astype(np.uint8)
    labels[0] = 1
    logits = (2 * labels - 1 + generator.normal(0, 1.5, labels.shape)).astype(np.float32)
    return np.round(logits) if tied else logits, labels


@pytest.mark.parametrize("tied", [False, True])
def test_average_precision_is_scikit_learns(tied: bool) -> None:
    logits, labels = case(tied=tied)
    expected = [sk.average_precision_score(labels[:, k], logits[:, k]) for k in range(4)]
    np.testing.assert_allclose(ranking.average_precision(logits, labels), expected, rtol=1e-12)
    assert multilabel.mean_average_precision(logits, labels) == pytest.approx(
        sk.average_precision_score(labels, logits, average="macro")
    )


def test_labels_without_images_have_no_average_precision() -> None:
    logits, labels = case()
    labels[:, 2] = 0
    found = ranking.average_precision(logits, labels)
    assert np.isnan(found).tolist() == [False, False, True, False]
    assert ranking.mean_average_precision(logits, labels) == pytest.approx(np.nanmean(found))
    assert np.isnan(ranking.mean_average_precision(logits, np.zeros_like(labels)))


def test_metrics_are_scikit_learns() -> None:
    logits, labels = case(1)
    decision = Decision((0.3, 0.5, 0.6, 0.9))
    found = multilabel.compute(logits, labels, NAMES, decision)
    predicted = 1 / (1 + np.exp(-logits.astype(np.float64))) >= np.array(decision.thresholds)
    for average, prefix in (("macro", ""), ("micro", "micro_")):
        expected = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)[:3]
        assert [getattr(found, prefix + name) for name in ("precision", "recall", "f1")] == pytest.approx(expected)
    each = sk.precision_recall_fscore_support(labels, predicted, average=None, zero_division=0)
    for index, row in enumerate(found.per_class):
        assert (row.precision, row.recall, row.f1, row.n) == pytest.approx(tuple(part[index] for part in each))
        assert row.predicted == predicted[:, index].sum()
    assert found.exact == sk.accuracy_score(labels, predicted)
    assert found.map == pytest.approx(sk.average_precision_score(labels, logits))


def test_unseen_labels_count_in_micro_means_alone() -> None:
    logits, labels = case(2)
    labels[:, 1] = 0
    found = multilabel.compute(logits, labels, NAMES, Decision((0.5,) * 4))
    predicted = logits >= 0
    row = found.per_class[1]
    assert (row.ap, row.precision, row.recall, row.f1, row.n) == (None, None, None, None, 0)
    assert row.predicted == predicted[:, 1].sum() > 0
    kept = [0, 2, 3]
    macro = sk.precision_recall_fscore_support(labels[:, kept], predicted[:, kept], average="macro", zero_division=0)
    assert found.f1 == pytest.approx(macro[2])
    assert found.micro_precision == pytest.approx(sk.precision_score(labels, predicted, average="micro"))
    assert "No test image of bee" in multilabel.sentences(found)[0]


def test_images_without_finite_logits_get_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    logits, labels = case(3)
    bad = logits.copy()
    bad[0, 1], bad[1] = np.nan, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = multilabel.compute(bad, labels, NAMES, Decision((0.5,) * 4))
    assert found.ece is None
    assert "2 of 200 images" in capsys.readouterr().err
    replaced = logits.copy()
    replaced[:2] = -100.0
    expected = multilabel.compute(replaced, labels, NAMES, Decision((0.5,) * 4))
    assert (found.map, found.f1, found.exact) == pytest.approx((expected.map, expected.f1, expected.exact))


def brute_force_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """The largest F1 of one label at any threshold."""
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    tried = np.concatenate([[0.0], np.sort(probabilities), [1.0]])
    return max(sk.f1_score(labels, probabilities >= one, zero_division=0) for one in tried)


@pytest.mark.parametrize("tied", [False, True])
def test_thresholds_have_the_largest_f1(tied: bool) -> None:
    logits, labels = case(4, images=30, tied=tied)
    chosen = thresholds.choose_thresholds(logits, labels)
    predicted = Decision(chosen).decide(logits)
    for k in range(4):
        assert sk.f1_score(labels[:, k], predicted[:, k]) == pytest.approx(brute_force_f1(logits[:, k], labels[:, k]))


def test_thresholds_lie_between_separated_images() -> None:
    logits = np.array([[3.0, -8.0], [2.0, -9.0], [-2.0, -4.0], [-3.0, -3.0]], np.float32)
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.uint8)
    first, second = thresholds.choose_thresholds(logits, labels)
    assert first == pytest.approx((sigmoid(np.array(2.0)) + sigmoid(np.array(-2.0))) / 2)
    assert sigmoid(np.array(-8.0)) < second < sigmoid(np.array(-4.0))


def test_equal_scores_take_the_threshold_nearest_one_half() -> None:
    # Predicting {0} and {0, 1, 2, 3} have F1 2/3 both, at probabilities above and far below 0.5.
    logits = np.array([[4.0], [-4.0], [-4.5], [-5.0]], np.float32)
    labels = np.array([[1], [0], [0], [1]], np.uint8)
    (chosen,) = thresholds.choose_thresholds(logits, labels)
    assert 0.3 < chosen < 0.6


def test_labels_that_no_validation_image_has_get_one_half() -> None:
    logits, labels = case(5)
    labels[:, 3] = 0
    assert thresholds.choose_thresholds(logits, labels)[3] == 0.5


def test_saturated_probabilities_do_not_split() -> None:
    """Logits of 90 and 120 are both a probability of 1 in float32, so that no threshold lies between them."""
    logits = np.array([[120.0], [90.0], [-1.0]], np.float32)
    labels = np.array([[1], [0], [0]], np.uint8)
    (chosen,) = thresholds.choose_thresholds(logits, labels)
    assert Decision((chosen,)).decide(logits)[:, 0].tolist() == [True, True, False]


def test_bootstrap_repeats_the_metric_on_drawn_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each resample's mAP is that of the images that it draws; intervals hold the metric and are reproducible."""
    logits, labels = case(6, images=40, tied=True)
    predicted = logits > 0
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1)
    drawn = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=1)[0]
    rows = np.repeat(np.arange(40), drawn)
    low, high = bootstrap.intervals(logits, labels, predicted)["map"]
    assert low == high
    assert low == pytest.approx(ranking.mean_average_precision(logits[rows], labels[rows]))
    micro = bootstrap.intervals(logits, labels, predicted)["micro_f1"]
    assert micro[0] == pytest.approx(sk.f1_score(labels[rows], predicted[rows], average="micro"), rel=1e-6)
    monkeypatch.undo()
    low, high = bootstrap.intervals(logits, labels, predicted)["map"]
    assert low < ranking.mean_average_precision(logits, labels) < high
    assert bootstrap.intervals(logits, labels, predicted)["map"] == (low, high)


def test_calibration_error_is_that_of_a_loop() -> None:
    logits, labels = case(7)
    probabilities = sigmoid(logits)
    expected = 0.0
    for k in range(4):
        for index in range(15):
            inside = (probabilities[:, k] > index / 15) & (probabilities[:, k] <= (index + 1) / 15)
            if inside.any():
                gap = abs(labels[inside, k].mean() - probabilities[inside, k].mean())
                expected += inside.mean() * gap / 4
    assert intervals.classwise_calibration_error(probabilities, labels > 0) == pytest.approx(expected)


def test_averaged_views_are_mean_probabilities() -> None:
    a, b = case(8)[0], case(9)[0]
    mean = sigmoid(multilabel.flip_averaged_logits(a, b))
    np.testing.assert_allclose(mean, (sigmoid(a) + sigmoid(b)) / 2, atol=1e-6)
    assert np.isfinite(multilabel.flip_averaged_logits(np.full((1, 1), 500.0), np.full((1, 1), 400.0))).all()


def test_agreement_is_the_jaccard_index_of_label_sets() -> None:
    decision = Decision((0.5, 0.5, 0.5))
    first = np.array([[1, 1, -1], [-1, -1, -1], [1, -1, -1], [1, -1, -1]], np.float32)
    second = np.array([[1, -1, 1], [-1, -1, -1], [-1, 1, -1], [1, -1, -1]], np.float32)
    assert decision.agreement(first, second).tolist() == pytest.approx([1 / 3, 1, 0, 1])
    assert Decision().agreement(first, second).tolist() == [1, 1, 0, 1]


def test_margins_are_distances_to_another_decision() -> None:
    logits = np.array([[1.0, 5.0, 3.0], [2.0, 2.0, 0.0]])
    np.testing.assert_allclose(Decision().margins(logits), [1.0, 0.0])
    shares = tuple((1 / (1 + np.exp([-2.0, -1.0, 0.5]))).tolist())
    np.testing.assert_allclose(Decision(shares).margins(logits), [1.0, 0.0], atol=1e-12)


def test_files_without_a_task_have_one_label() -> None:
    assert decisions.recorded(None, None, 3) == Decision()
    assert decisions.recorded("multilabel", [0.5, 0.25], 2) == Decision((0.5, 0.25))


@pytest.mark.parametrize(
    ("task", "values"),
    [
        ("other", None),
        ("multilabel", None),
        ("multilabel", [0.5]),
        ("multilabel", [0.5, 1.5]),
        ("multilabel", ["a", 0]),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(task: str, values: list[float] | None) -> None:
    with pytest.raises(ValueError, match=r"task|thresholds"):
        decisions.recorded(task, values, 2)


def test_metrics_survive_json() -> None:
    logits, labels = case(10)
    found = multilabel.compute(logits, labels, NAMES, Decision((0.5,) * 4))
    assert results.metrics_from_json(json.loads(json.dumps(found.to_json()))) == found


def test_table_shows_every_label(capsys: pytest.CaptureFixture[str]) -> None:
    logits, labels = case(11)
    multilabel.show(multilabel.compute(logits, labels, NAMES, Decision((0.5,) * 4)))
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*NAMES, "macro mean", "mAP", "micro F1"))
    assert "accuracy" not in printed


def test_images_without_any_label_have_finite_metrics() -> None:
    logits, labels = case(12, images=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = multilabel.compute(logits, np.zeros_like(labels), NAMES, Decision((0.5,) * 4))
    assert (found.map, found.interval, found.f1) == (0.0, (0.0, 0.0), 0.0)
    assert all(row.ap is None for row in found.per_class)


def test_images_without_finite_logits_are_missed_at_any_threshold() -> None:
    # Of two finite images with the label one ranks first, the other below three without it. Alone, the first threshold
    # has the larger F1, 2/3 against 4/7; with four more images that cannot get the label the second one has.
    logits = np.array([[3.0], [1.2], [1.1], [1.0], [-1.0], *([[np.nan]] * 4)], np.float32)
    labels = np.array([[1], [0], [0], [0], [1], *([[1]] * 4)], np.uint8)
    alone = Decision(thresholds.choose_thresholds(logits[:5], labels[:5]))
    together = Decision(thresholds.choose_thresholds(logits, labels))
    assert alone.decide(logits)[:, 0].sum() == 1
    assert together.decide(logits)[:, 0].sum() == 5
