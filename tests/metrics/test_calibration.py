"""Calibration on planted networks, whose true probabilities are known, against scipy, scikit-learn and plain loops."""

import itertools
import json
import re

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from poolzoo.metrics import calibration_fit, evaluation, reliability, unsmoothing, vector_scaling
from poolzoo.metrics.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, Calibration
from poolzoo.metrics.decisions import Decision, recorded
from poolzoo.metrics.intervals import calibration_error


def planted(seed, count, classes=6, spread=2.0):
    """Logits whose softmax is true of the labels."""
    generator = np.random.default_rng(seed)
    logits = spread * generator.normal(size=(count, classes))
    edges = scipy.special.softmax(logits, axis=1).cumsum(1)
    return logits, (generator.random((count, 1)) > edges[:, :-1]).sum(1)


def planted_labels(seed, count, labels=4):
    """Logits whose sigmoids are true of several labels."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(count, labels)) - 1
    return logits, (generator.random(logits.shape) < scipy.special.expit(logits)).astype(np.uint8)


@pytest.mark.parametrize("temperature", [0.3, 1.7, 5.0])
def test_a_planted_temperature_is_found(temperature):
    logits, labels = planted(1, 6000)
    given = (temperature * logits).astype(np.float32)
    found = calibration_fit.fit(given, labels)

    def nll(t):
        return log_loss(labels, scipy.special.softmax(given.astype(float) / t, axis=1), labels=range(6))

    best = scipy.optimize.minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8}).x
    assert found.temperature == pytest.approx(best, rel=2e-3)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.interval[0] < temperature < found.interval[1]
    assert (found.nll, found.nll_after) == pytest.approx((nll(1), nll(best)), rel=1e-5)
    assert found.calibration == Calibration(found.temperature)


def planted_smoothing(seed, count, temperature=1.3, smoothing=0.2, classes=6, spread=4.0):
    """Logits that are true of the labels once label smoothing is taken back."""
    logits = spread * np.random.default_rng(seed).normal(size=(count, classes))
    chances = unsmoothed(logits, temperature, smoothing)
    return logits, (np.random.default_rng(seed + 1).random((count, 1)) > chances.cumsum(1)[:, :-1]).sum(1)


def unsmoothed(logits, temperature, smoothing):
    """Probabilities without what smoothing gives each class, where a hyperbola keeps them positive, by scipy."""
    level = smoothing / logits.shape[1]
    less = scipy.special.softmax(logits.astype(float) / temperature, axis=1) - level
    heights = less + np.hypot(less, level / 5)
    return heights / heights.sum(1, keepdims=True)


def test_planted_smoothing_is_found():
    logits, labels = planted_smoothing(20, 9000)
    given = (0.4 * logits).astype(np.float32)
    found = calibration_fit.fit(given[:6000], labels[:6000])

    def nll(parameters):
        chances = unsmoothed(given[:6000], *np.exp(parameters))
        return -np.log(chances[np.arange(6000), labels[:6000]]).mean()

    best = scipy.optimize.minimize(nll, [0.0, -2.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    chosen = found.calibration
    assert chosen.method == "unsmoothing"
    assert (chosen.temperature, chosen.smoothing) == pytest.approx(np.exp(best.x), rel=0.04)  # the priors move them
    assert (chosen.temperature, chosen.smoothing) == pytest.approx((0.4 * 1.3, 0.2), rel=0.25)
    assert found.nll_after == pytest.approx(best.fun, rel=1e-5)
    taken = f"temperature {chosen.temperature:.3g}, and label smoothing of {chosen.smoothing:.3g} is taken back"
    assert f"{taken}, better than temperature {found.temperature:.3g} (95 %" in found.describe()
    assert calibration_fit.CalibrationFit.from_json(json.loads(json.dumps(found.to_json()))) == found
    temperature = calibration_fit.fit(given[:6000], labels[:6000], smoothing=False, vector=False).calibration
    fresh, alone, taken_back = given[6000:], Decision(calibration=temperature), Decision(calibration=chosen)
    losses = [log_loss(labels[6000:], decision.probabilities(fresh)) for decision in (alone, taken_back)]
    assert losses[1] < losses[0]
    assert (taken_back.decide(fresh) == Decision().decide(fresh)).all()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_pure_temperature_gets_no_smoothing(temperature):
    for seed in range(12):
        logits, labels = planted(100 + seed, 500)
        chosen = calibration_fit.fit(temperature * logits, labels, vector=False).calibration
        assert chosen is None or chosen.smoothing is None


@pytest.mark.parametrize(
    ("seed", "count", "smoothing", "evidence"),
    [(73, 1500, 0.2, 2.1), (68, 1500, 0.2, 2.5), (128, 400, 0.25, 2.8), (131, 400, 0.25, 3.3)],
)
def test_weak_evidence_gives_no_smoothing(seed, count, smoothing, evidence):
    """Smoothing that images show at so many standard errors, where a chance of 0.001 is at 3.1."""
    logits, labels = planted_smoothing(seed, count, smoothing=smoothing)
    common = calibration_fit.fit(logits, labels, smoothing=False, vector=False).calibration
    gains = unsmoothing.gains(logits, labels, common)
    found = gains.mean() / scipy.stats.sem(gains)
    assert found == pytest.approx(evidence, abs=0.1)
    chosen = calibration_fit.fit(logits, labels, vector=False).calibration
    assert (chosen is not None and chosen.smoothing is not None) == (evidence > 3.1)


@pytest.mark.parametrize(
    ("seed", "count", "classes", "planted", "noise", "ratio"),
    [
        (15, 200, 3, 1e-4, 3, 2.0),
        (2, 60, 100, 0.1, 3, 0.5),
        (15, 200, 2, 1e-4, 0, 1.0),
        (0, 60, 10, 0.1, 0, 0.4),
    ],
)
def test_the_lower_of_two_minima_is_found(seed, count, classes, planted, noise, ratio):
    """Of the NLL and the priors a − log a of 1 / T and of s / 0.1, by a search without derivatives."""
    logits, labels = planted_smoothing(seed, count, 1.0, planted, classes, 8.0)
    logits = ratio * (logits + noise * np.random.default_rng(900 + seed).normal(size=logits.shape))

    def objective(parameters):
        slope, smoothing = np.exp(np.clip(parameters, np.log([0.05, 1e-4]), np.log([20, 0.5])))
        chances = unsmoothed(logits, 1 / slope, smoothing)[np.arange(count), labels]
        return -np.log(chances).sum() + slope - np.log(slope) + smoothing / 0.1 - np.log(smoothing / 0.1)

    starts = [np.log(start) for start in itertools.product((0.2, 1.0), (0.005, 0.05, 0.4))]
    least = min(scipy.optimize.minimize(objective, start, method="Nelder-Mead").fun for start in starts)
    found = unsmoothing.fitted(logits, labels, None)
    assert objective(np.log([1 / found.temperature, found.smoothing])) == pytest.approx(least, abs=2e-3)
    assert found.to_json() == {**found.to_json(), "smoothing": float(f"{found.smoothing:.6g}")}


def in_doubt(count, wrong):
    """Logits with label smoothing: images are certain, but for 30 with two classes alike, of which some are wrong."""
    chances = np.zeros((count, 10))
    chances[:, 0] = 1
    chances[:30, :2] = 0.5 + 1e-6, 0.5 - 1e-6
    labels = np.zeros(count, int)
    labels[:wrong] = 1
    return np.log(0.7 * chances + 0.03), labels


@pytest.mark.parametrize(
    ("count", "wrong", "enough"), [(49, 15, False), (50, 15, True), (60, 9, False), (60, 10, True)]
)
def test_few_images_or_errors_get_no_smoothing(count, wrong, enough):
    logits, labels = in_doubt(count, wrong)
    common = calibration_fit.fit(logits, labels, smoothing=False, vector=False).calibration
    gains = unsmoothing.gains(logits, labels, common)
    assert gains.mean() > 5 * scipy.stats.sem(gains)
    chosen = calibration_fit.fit(logits, labels, vector=False).calibration
    assert (chosen is not None and chosen.smoothing is not None) == enough


@pytest.mark.parametrize("several", [False, True])
def test_where_every_image_is_right_a_temperature_is_enough(several):
    """All of them gain from more certainty, and the next wrong one would pay for it."""
    labels = np.random.default_rng(3).integers(0, 2, 500)
    right = np.abs(np.random.default_rng(4).normal(4, 2, 500)) * np.where(labels, 1, -1)
    logits = np.stack([0.1 * right, right], 1) if several else np.stack([-0.1 * right, right], 1)
    labels = np.stack([labels, labels], 1).astype(np.uint8) if several else labels
    assert calibration_fit.fit(logits, labels).calibration.method == "temperature"


@pytest.mark.parametrize(("bias", "method"), [(1.0, "unsmoothing"), (3.0, "vector")])
def test_scales_have_to_beat_smoothing_taken_back(bias, method):
    logits, labels = planted_smoothing(36, 1500, 1.0, 0.3, 4, 6.0)
    logits[:, 1] += bias
    common = calibration_fit.fit(logits, labels, smoothing=False, vector=False).calibration
    assert unsmoothing.improved(logits, labels, common) is not None
    assert vector_scaling.improved(logits, labels, common) is not None
    assert calibration_fit.fit(logits, labels).calibration.method == method


def test_rounding_grows_with_logits_before_and_after_calibration():
    logits = np.array([[0.1, -0.2], [3.0, -500.0], [0.3, 80.0]])
    assert Decision().magnitudes(logits).tolist() == [1, 500, 80]
    assert Decision(calibration=Calibration(2.0)).magnitudes(logits).tolist() == [1, 250, 40]
    large = Decision(calibration=Calibration(0.5, smoothing=0.2)).magnitudes(logits)
    assert large[1:].tolist() == [1000, 160]
    assert 1 <= large[0] < 2


def test_intervals_hold_the_planted_temperature_as_often_as_they_say():
    held = 0
    for seed in range(200):
        logits, labels = planted(seed, 150)
        low, high = calibration_fit.fit(2 * logits, labels, vector=False).interval
        held += low <= 2 <= high
    assert held >= scipy.stats.binom.ppf(1e-3, 200, 0.93)


def test_several_labels_share_a_temperature():
    logits, labels = planted_labels(2, 3000)
    found = calibration_fit.fit(3 * logits, labels)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    slope = model.fit(3 * logits.reshape(-1, 1), labels.ravel()).coef_[0, 0]
    assert found.temperature == pytest.approx(1 / slope, rel=2e-3)
    assert found.temperature == pytest.approx(3, rel=0.05)
    assert found.calibration == Calibration(found.temperature)


def test_a_label_with_a_bias_alone_gets_one_of_its_own():
    logits, labels = planted_labels(3, 3000)
    given = 3 * logits
    given[:, 2] += 4
    chosen = calibration_fit.fit(given, labels).calibration
    assert [bias != 0 for bias in chosen.bias] == [False, False, True, False]
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(given[:, 2:3], labels[:, 2])
    assert chosen.factors[2] == pytest.approx(model.coef_[0, 0], rel=0.01)
    assert chosen.bias[2] == pytest.approx(model.intercept_[0], rel=0.01)


def test_vector_scaling_undoes_what_a_temperature_cannot():
    logits, labels = planted(4, 8000, classes=4)
    scales, biases = np.array([0.6, 1.0, 1.5, 2.0]), np.array([1.5, 0.0, -1.0, 0.5])
    found = calibration_fit.fit((logits[:4000] - biases) / scales, labels[:4000])
    assert found.calibration.method == "vector"
    fresh = Decision(calibration=found.calibration).probabilities((logits[4000:] - biases) / scales)
    truth = log_loss(labels[4000:], scipy.special.softmax(logits[4000:], axis=1))
    assert log_loss(labels[4000:], fresh) == pytest.approx(truth, rel=0.01)


def test_calibrated_networks_stay_as_they_are_but_for_chance():
    changed = {"temperature": 0, "unsmoothing": 0, "vector": 0}
    for seed in range(100):
        logits, labels = planted(seed, 120, classes=3)
        chosen = calibration_fit.fit(logits, labels).calibration
        if chosen is not None:
            changed[chosen.method] += 1
    assert sum(changed.values()) <= scipy.stats.binom.ppf(0.9999, 100, 0.17)
    assert changed["unsmoothing"] <= scipy.stats.binom.ppf(0.9999, 100, 0.001)
    assert changed["vector"] <= scipy.stats.binom.ppf(0.9999, 100, 0.01)


def test_a_temperature_stays_where_akaikes_criterion_prefers_it():
    seen = set()
    for seed in range(40):
        logits, labels = planted(seed, 400)
        found = calibration_fit.fit(1.05 * logits, labels, smoothing=False, vector=False)
        before, after = (
            log_loss(labels, scipy.special.softmax(1.05 * logits / temperature, 1), normalize=False)
            for temperature in (1, found.temperature)
        )
        gain = 2 * (before - after)
        near = gain == pytest.approx(2, abs=0.3)  # where the spread between images decides
        assert near or (found.calibration is not None) == (gain > 2)
        seen.add(1 < gain < 4 and found.calibration is not None)
    assert seen == {False, True}


@pytest.mark.parametrize(("classes", "spread"), [(2, 6.0), (10, 4.0)])
def test_few_errors_show_a_network_that_is_far_too_certain(classes, spread):
    kept = 0
    for seed in range(60):
        logits, labels = planted(seed, 50, classes, spread)
        kept += calibration_fit.fit(5 * logits, labels, vector=False).calibration is not None
    assert kept >= 40


@pytest.mark.parametrize(("classes", "spread"), [(2, 6.0), (10, 4.0)])
def test_few_images_without_an_error_are_no_evidence(classes, spread):
    changed = 0
    for seed in range(100):
        logits, labels = planted(seed, 20, classes, spread)
        changed += calibration_fit.fit(logits, labels, vector=False).calibration is not None
    assert changed <= scipy.stats.binom.ppf(0.999, 100, 0.17)


def test_labels_that_depend_on_each_other_count_as_fewer():
    changed = 0
    for seed in range(100):
        logits, labels = planted_labels(seed, 100, labels=1)
        fit = calibration_fit.fit(np.tile(logits, 20), np.tile(labels, 20), vector=False)
        changed += fit.calibration is not None
    assert changed <= scipy.stats.binom.ppf(0.999, 100, 0.17)


@pytest.mark.parametrize("count", [15, 60, 1000])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_fresh_images_are_never_worse_beyond_chance(count, temperature):
    logits, labels = planted(5, count + 4000)
    given = temperature * logits
    decision = Decision(calibration=calibration_fit.fit(given[:count], labels[:count]).calibration)
    change = reliability.measure(given[count:], labels[count:], decision).change
    for name in ("ece", "nll", "brier"):
        assert not change or change[name].interval[0] <= 0


def by_bins(confidences, came_true, edges):
    """A calibration error as a loop over bins, each `(low, high]`."""
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = [i for i, p in enumerate(confidences) if low < p <= high]
        if inside:
            total += abs(sum(came_true[i] for i in inside) - sum(confidences[i] for i in inside))
    return total / len(confidences)


def test_scores_are_those_of_plain_loops():
    logits, labels = planted(6, 900)
    given = 2.5 * logits
    decision = Decision(calibration=Calibration(2.0))
    found = reliability.measure(given, labels, decision)
    for side, scaled in ((found.before, given), (found.after, given / 2)):
        p = scipy.special.softmax(scaled, axis=1)
        confidence, right = p.max(1), p.argmax(1) == labels
        assert side.ece.value == pytest.approx(by_bins(confidence, right, np.linspace(0, 1, 16)))
        ranked = np.sort(confidence)
        edges = [0.0, *(ranked[60 * index - 1] for index in range(1, 16))]  # of 60 images each
        assert side.adaptive_ece.value == pytest.approx(by_bins(confidence, right, edges))
        assert side.nll.value == pytest.approx(log_loss(labels, p, labels=range(6)))
        assert side.brier.value == pytest.approx(((p - np.eye(6)[labels]) ** 2).sum(1).mean())
        assert sum(one.count for one in side.bins) == side.n == 900
        assert sum(one.count * one.accuracy for one in side.bins) == pytest.approx(right.sum())
    assert found.change["ece"].value == pytest.approx(found.after.ece.value - found.before.ece.value)
    metrics = evaluation.compute(given, labels, list("abcdef"), decision)
    assert metrics.ece == pytest.approx(found.after.ece.value)
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert reliability.ReliabilityChange.from_json(found.to_json()) == found


def test_scores_of_several_labels_are_means_over_labels():
    logits, labels = planted_labels(7, 450)
    found = reliability.measure(logits, labels, Decision((0.5,) * 4)).before
    p = scipy.special.expit(logits)
    each = [by_bins(p[:, k], labels[:, k], np.linspace(0, 1, 16)) for k in range(4)]
    assert found.ece.value == pytest.approx(np.mean(each))
    assert found.brier.value == pytest.approx(((p - labels) ** 2).mean())
    assert found.nll.value == pytest.approx(np.mean([log_loss(labels[:, k], p[:, k]) for k in range(4)]))


def test_the_floor_is_what_perfect_probabilities_show():
    """Labels are drawn again from the probabilities of the predictions, many times."""
    logits, _ = planted(0, 1000)
    confidence = scipy.special.softmax(logits, axis=1).max(1)
    generator = np.random.default_rng(1)
    shown = [calibration_error(logits, generator.random(1000) < confidence) for _ in range(300)]
    found = reliability.measure(logits, logits.argmax(1), Decision()).before
    assert found.ece_floor == pytest.approx(np.mean(shown), rel=0.05)


def test_intervals_of_scores_cover_as_they_say():
    truth = reliability.measure(*planted(0, 100_000), Decision()).before.nll.value
    held = 0
    for seed in range(60):
        low, high = reliability.measure(*planted(seed + 1, 200), Decision()).before.nll.interval
        held += low <= truth <= high
    assert held >= scipy.stats.binom.ppf(1e-3, 60, 0.93)


def test_perfect_validation_images_leave_a_finite_temperature():
    logits, _ = planted(8, 200)
    found = calibration_fit.fit(logits, logits.argmax(1))
    assert MIN_TEMPERATURE < found.temperature < 1
    more = calibration_fit.fit(np.tile(logits, (20, 1)), np.tile(logits.argmax(1), 20))
    assert MIN_TEMPERATURE <= more.temperature < found.temperature


def test_predictions_without_worth_become_as_uncertain_as_the_bound():
    logits, _ = planted(9, 300)
    labels = logits.argmin(1)
    assert calibration_fit.fit(10 * logits, labels, vector=False).temperature == pytest.approx(
        MAX_TEMPERATURE, rel=1e-3
    )


@pytest.mark.parametrize(
    ("logits", "labels", "reason"),
    [
        (np.zeros((0, 3)), np.zeros(0, np.int64), "0 validation images are too few"),
        (np.eye(3)[[0, 1, 2]], np.arange(3), "3 validation images are too few"),
        (np.full((40, 3), np.nan), np.zeros(40, np.int64), "0 validation images are too few"),
        (np.zeros((40, 1)), np.zeros(40, np.int64), "one class only"),
        (np.zeros((40, 3)), np.arange(40) % 3, "no better than 1"),
    ],
)
def test_without_evidence_probabilities_stay(logits, labels, reason):
    found = calibration_fit.fit(logits, labels)
    assert found.calibration is None
    assert reason in found.reason
    assert reason in found.describe()
    assert calibration_fit.CalibrationFit.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_images_without_finite_logits_and_missing_classes_do_no_harm():
    logits, labels = planted(10, 600)
    kept = labels != 2
    logits, labels = 2 * logits[kept], labels[kept]
    expected = calibration_fit.fit(logits, labels)
    broken = np.concatenate([logits, np.full((5, 6), np.nan), np.full((5, 6), np.inf)])
    found = calibration_fit.fit(broken, np.concatenate([labels, np.zeros(10, np.int64)]))
    assert found == expected
    assert found.calibration.scale is None
    assert reliability.measure(broken[-10:], np.zeros(10, np.int64), Decision()) is None


def test_few_images_are_said_to_leave_it_uncertain():
    logits, labels = planted(11, 30)
    assert "so few images leave it uncertain" in calibration_fit.fit(5 * logits, labels).describe()
    logits, labels = planted(11, 300)
    assert "uncertain" not in calibration_fit.fit(5 * logits, labels).describe()


def test_enormous_logits_overflow_nothing():
    logits, labels = planted(12, 200)
    found = calibration_fit.fit(1e5 * logits, labels)
    assert found.temperature == pytest.approx(MAX_TEMPERATURE, rel=1e-3)
    assert np.isfinite(reliability.measure(1e5 * logits, labels, Decision()).before.nll.value)


@pytest.mark.parametrize("several", [False, True])
def test_decisions_change_where_calibrated_logits_meet(several):
    """The margin is the least change of plain logits that leads to another decision."""
    logits, _ = planted(13, 50, classes=3)
    calibration = Calibration(1.5, scale=(0.5, 1.0, 2.0), bias=(0.3, -0.2, 0.0))
    decision = Decision((0.3, 0.5, 0.8) if several else None, calibration)
    margins = decision.margins(logits)
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    for share, flips in ((0.99, False), (1.01, True)):
        moved = [decision.agreement(logits, logits + share * margins[:, None] * sign) < 1 for sign in signs]
        assert (np.any(moved, axis=0) == flips).all()


def test_unsmoothing_takes_extreme_logits_and_keeps_every_decision():
    logits = np.concatenate(
        [
            np.random.default_rng(15).normal(size=(50, 3)) * np.logspace(-6, 30, 50)[:, None],
            [[0, 0, 0], [2, 2, 1], [-1e38, 1e38, 0], [5, -np.inf, 4], [np.nan, 0, 1], [np.inf, 0, 1], [0, 1, np.nan]],
        ]
    ).astype(np.float32)
    for temperature, smoothing in ((0.05, 1e-4), (1.3, 0.1), (20.0, 0.5)):
        decision = Decision(calibration=Calibration(temperature, smoothing=smoothing))
        for shown in (logits, logits[:, :2]):
            assert (decision.decide(shown) == Decision().decide(shown)).all()
            finite = shown[np.isfinite(shown).all(1)]
            np.testing.assert_array_equal(decision.margins(finite), Decision().margins(finite))
            np.testing.assert_allclose(
                decision.probabilities(finite), unsmoothed(finite, temperature, smoothing), atol=1e-6
            )


def test_thresholds_of_calibrated_probabilities_decide_alike():
    logits, labels = planted_labels(14, 500)
    plain = evaluation.choose_decision(logits, labels)
    calibration = Calibration(2.0, scale=(1.0, 2.0, 0.5, 1.0), bias=(0.0, 1.0, -1.0, 0.0))
    chosen = evaluation.choose_decision(logits, labels, calibration)
    moved = Decision(calibration.plain_probabilities(chosen.thresholds))
    f1 = [evaluation.compute(logits, labels, list("abcd"), one).f1 for one in (plain, chosen, moved)]
    assert f1 == pytest.approx([f1[0]] * 3)
    assert (moved.decide(logits) == chosen.decide(logits)).all()


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(0.7),
        *(Calibration(0.7, smoothing=smoothing) for smoothing in (1e-4, 0.123456, 0.5)),
        Calibration(2.5, scale=(1.0, 2.0, 0.5), bias=(0.0, -1.0, 1.5)),
    ],
)
def test_a_file_holds_a_calibration(calibration):
    assert recorded(None, None, 3, json.loads(json.dumps(calibration.to_json()))) == Decision(calibration=calibration)


@pytest.mark.parametrize(
    "found",
    [
        "2",
        {},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": True},
        {"temperature": float("inf")},
        {"temperature": 1.0, "method": "unsmoothing"},
        {"temperature": 1.0, "method": "of a later version", "numbers": [1.0]},
        {"temperature": 1.0, "scale": [1.0, 1.0, 1.0]},
        {"temperature": 1.0, "smoothing": 9e-5},
        {"temperature": 1.0, "smoothing": 0.501},
        {"temperature": 1.0, "smoothing": True},
        {"temperature": 1.0, "smoothing": "0.1"},
        {"temperature": 1.0, "smoothing": 0.1, "bias": [0.0, 0.0, 0.0]},
        {"temperature": 1.0, "smoothing": float("nan")},
        {"temperature": 1.0, "smoothing": 0.1, "scale": [1.0, 1.0, 1.0], "bias": [0.0, 0.0, 0.0]},
        {"temperature": 1.0, "scale": [1.0, 1.0], "bias": [0.0, 0.0]},
        {"temperature": 1.0, "scale": [1.0, 0.0, 1.0], "bias": [0.0, 0.0, 0.0]},
        {"temperature": 1.0, "scale": [1.0, 1.0, 1.0], "bias": [0.0, None, 0.0]},
    ],
)
def test_what_is_no_calibration_is_refused(found):
    with pytest.raises(ValueError, match="calibration"):
        recorded(None, None, 3, found)


@pytest.mark.parametrize("method", ["power", 5, ["unsmoothing"], None])
def test_an_unknown_method_is_named(method):
    with pytest.raises(
        ValueError, match=f"by temperature or unsmoothing or vector, but one by {re.escape(repr(method))}"
    ):
        recorded(None, None, 3, {"method": method, "temperature": 1.0, "power": 1.4})


def test_several_labels_have_no_smoothing():
    with pytest.raises(ValueError, match="calibration without smoothing"):
        recorded("multilabel", [0.5, 0.5, 0.5], 3, {"temperature": 1.0, "smoothing": 0.1})
