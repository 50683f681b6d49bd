"""The check of what `config.json` says beside the settings: image size, normalization, and how logits become classes.

A network is built again from that file, so that a rerun would follow whatever it says.
"""

from __future__ import annotations

from poolzoo.common import json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.board.checks.weights import assembled
from poolzoo.compare.board.submission import listed


def network_check(context: Context) -> str:
    """Every `config.json` has the image size, the normalization and the decision of the protocol.

    A network from scratch is normalized by statistics of its training images. Without these, only that all runs agree
    is known; `--rerun` computes them.
    """
    baseline = assembled(context, context.protocol.baseline)
    published = baseline.backbone.resolved.item
    statistics: dict[str, object] = {"mean": list(published.mean), "std": list(published.std)}
    if not context.protocol.base.pretrained:
        first = json_reader.mapping(context.runs[0].config.get("pretrained_cfg"))
        statistics = {key: first.get(key) for key in statistics}
    sizes, problems = _Sizes(context, baseline.image_size), []
    for run in context.runs:
        inputs = json_reader.mapping(run.config.get("pretrained_cfg"))
        stated = run.network.get("image_size")
        calibration = json_reader.mapping(run.config.get("calibration"))
        size = sizes.of(context.chosen_of(run)) or stated
        pairs: list[tuple[str, object, object]] = [
            ("image_size", size, stated),
            ("input_size", [3, *json_reader.items(size)], inputs.get("input_size")),
            ("final_norm", baseline.config.final_norm, run.network.get("final_norm")),
            *((key, value, inputs.get(key)) for key, value in statistics.items()),
            *((key, None, run.config.get(key)) for key in ("task", "thresholds")),
            # Temperature and smoothing change no prediction; scales and biases could be fitted to test images.
            *((f"{key} of the calibration", None, calibration.get(key)) for key in ("scale", "bias")),
        ]
        found = [f"{name} is {now} in config.json instead of {value}" for name, value, now in pairs if now != value]
        problems += [f"{run.name}: {text}" for text in found]
    if problems:
        raise CheckFailed(listed(problems))
    alike = "image size and normalization are those of the protocol"
    return (
        f"{alike}, but for the image size of {', '.join(sizes.unknown)}, without --plugin" if sizes.unknown else alike
    )


class _Sizes:
    """The image size of each pooling on the free side; a local pooling may ask for a larger one."""

    def __init__(self, context: Context, of_baseline: tuple[int, int]) -> None:
        self._context = context
        self._known: dict[str, list[int] | None] = {context.protocol.baseline: list(of_baseline)}

    def of(self, chosen: str) -> list[int] | None:
        """Height and width; None where the pooling cannot be built here."""
        if chosen not in self._known:
            self._known[chosen] = self._found(chosen)
        return self._known[chosen]

    @property
    def unknown(self) -> list[str]:
        """The poolings that cannot be built here."""
        return [name for name, size in self._known.items() if size is None]

    def _found(self, chosen: str) -> list[int] | None:
        if self._context.protocol.free == "pool":
            return self._known[self._context.protocol.baseline]
        return list(assembled(self._context, chosen).image_size) if self._context.is_known(chosen) else None
