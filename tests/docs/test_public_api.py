"""The public Python API changes only where somebody means it to: its names and signatures are in a file."""

from __future__ import annotations

from support import public_api

import poolzoo
import poolzoo.testing


def test_public_names_and_signatures_are_those_of_the_file():
    assert public_api.lines() == public_api.KEPT.read_text(encoding="utf-8").splitlines()


def test_every_other_name_begins_with_an_underscore_or_is_a_module():
    for module in (poolzoo, poolzoo.testing):
        shown = {name for name in dir(module) if not name.startswith("_")} - {*module.__all__}
        for name in shown - {"annotations", "TYPE_CHECKING", "testing"}:
            assert getattr(module, name).__name__ == f"{module.__name__}.{name}"
