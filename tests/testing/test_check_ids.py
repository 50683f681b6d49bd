"""The ids of checks are stable: authors name them in -k, in expected failures and in their logs."""

from __future__ import annotations

from poolzoo import testing
from poolzoo.testing import kinds
from poolzoo.testing.release import checks as release

# A published id stays: add new ones, and rename or remove none.
IDS = {
    "pooling": """shapes channel_counts options_have_defaults dtype_is_kept images_are_independent eval_is_deterministic
        training_is_declared parameters_are_declared input_is_left_alone gradients_are_right gradients_reach_everything
        extremes_are_finite gradients_are_bounded low_precision_is_close memory_format_does_not_matter
        weights_survive_a_file copies_are_equal calls_do_not_meet torch_is_left_alone nothing_stays_on_the_cpu
        exports_as_it_is""",
    "backbone": """features_are_a_map images_are_independent eval_is_deterministic gradients_reach_everything
        weights_survive_a_file nothing_stays_on_the_cpu exports_as_it_is""",
    "family of backbones": "names_and_get",
    "data set": "images_are_arrays labels_are_classes loading_is_repeatable",
    "data set of encoded images": """splits_are_indices labels_are_classes names_are_unique images_can_be_read
        indices_can_be_pickled indexing_is_repeatable""",
    "source of data": "open",
    "runtime": """absence_is_told batches_of_any_size other_images answers_are_repeatable probabilities_are_a_softmax
        input_is_left_alone settings_are_taken other_files_are_refused sessions_close""",
    "any item": "build",
    "release: build": "builds",
    "release: metadata": """name_is_valid version_is_valid description_is_there license_is_stated python_is_stated
        keywords_name_poolzoo classifiers_exist poolzoo_has_lower_bound shared_requirements_fit
        entry_points_are_declared""",
    "release: files": """wheel_holds_plugin wheel_holds_nothing_else sdist_is_complete sdist_holds_nothing_else
        sdist_gives_same_wheel readme_renders""",
    "release: installed": "installs entry_points_load own_tests_pass conformance",
}


def test_every_published_id_is_there_in_its_order():
    found = {kind: [check.id for check in checks] for kind, checks in {**kinds.CHECKS, **release.CHECKS}.items()}
    assert found == {kind: ids.split() for kind, ids in IDS.items()}


def test_an_id_means_the_same_wherever_it_is_used():
    assert not set(kinds.all_ids()) & set(release.all_ids())


def test_every_check_says_what_it_expects_and_how_to_fix_it():
    for _, check in (*kinds.all_checks(), *release.all_checks()):
        assert check.expected
        assert check.hint
        assert "\n" not in check.expected + check.hint


def test_the_public_tuples_hold_the_ids():
    assert tuple(IDS["pooling"].split()) == testing.CHECKS
    assert tuple(IDS["backbone"].split()) == testing.BACKBONE_CHECKS
    assert tuple(IDS["data set"].split()) == testing.DATASET_CHECKS
    assert tuple(IDS["data set of encoded images"].split()) == testing.INDEX_CHECKS
    assert tuple(IDS["runtime"].split()) == testing.RUNTIME_CHECKS


def test_the_command_lists_every_id(poolzoo):
    listed = poolzoo("plugin", "check", "--list", "--json").json["checks"]
    found: dict[str, list[str]] = {}
    for row in listed:
        found.setdefault(row["kind"], []).append(row["check"])
    assert found == {kind: ids.split() for kind, ids in IDS.items()}
    assert poolzoo("plugin", "check", "--list", "-k", "readme").out.splitlines()[1].split("\t")[1] == "readme_renders"
