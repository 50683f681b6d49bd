"""What `poolzoo choose` compares, as plain values: `choose.json`, from which an interrupted choice is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolzoo.common import files, json_reader
from poolzoo.common.errors import UsageError
from poolzoo.compare.config import ComparisonConfig

FILE: Final = "choose.json"
FROZEN: Final = "frozen"
SCRATCH: Final = "from scratch"


@dataclass(frozen=True)
class Request:
    """What was asked for beside data and candidates.

    Attributes:
        time_budget: Seconds for everything.
        target: A runtime that must compute the network; None for ONNX Runtime alone.
        max_latency_ms: The most that one image may take under ONNX Runtime; None for any time.
        alpha: The level at which all statements hold together.
    """

    time_budget: float
    target: str | None
    max_latency_ms: float | None
    alpha: float

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: object) -> Request:
        found = json_reader.mapping(value)
        return cls(
            time_budget=json_reader.number(found.get("time_budget")) or 0.0,
            target=json_reader.text(found.get("target")),
            max_latency_ms=json_reader.number(found.get("max_latency_ms")),
            alpha=json_reader.number(found.get("alpha")) or 0.05,
        )


@dataclass(frozen=True)
class Planned:
    """One comparison of a choice: the candidates on one backbone in one regime.

    Attributes:
        regime: `FROZEN` or `SCRATCH`.
        config: What is compared; its alpha is a part of the whole one.
    """

    regime: str
    config: ComparisonConfig

    @property
    def backbone(self) -> str:
        return self.config.backbones

    @property
    def name(self) -> str:
        """Its directory below that of the choice."""
        return files.slug(f"{self.regime}-{self.backbone}")

    @property
    def title(self) -> str:
        """For sentences."""
        return f"{self.backbone} {'frozen, with pretrained weights' if self.regime == FROZEN else self.regime}"


@dataclass(frozen=True)
class Plan:
    """All comparisons of a choice, the request, and what is left out of them, in sentences."""

    request: Request
    comparisons: Sequence[Planned]
    left_out: Sequence[str]
    command: str

    def save(self, out: Path) -> None:
        """Writes `choose.json`."""
        rows = [{"regime": one.regime, "config": one.config.to_json()} for one in self.comparisons]
        content = {"request": self.request.to_json(), "comparisons": rows, "left_out": list(self.left_out)}
        files.write_json(out / FILE, {**content, "command": self.command})

    @classmethod
    def load(cls, out: Path) -> Plan:
        """Reads what `save` wrote.

        Raises:
            UsageError: `out` is no choice.
            CheckFailed: The file is damaged.
        """
        if not files.has_file(out / FILE):
            text = f"{out} is no choice: it has no {FILE}"
            raise UsageError(text, "give the directory of an interrupted poolzoo choose")
        found: Mapping[str, object] = json_reader.mapping(files.read_json(out / FILE))
        return cls(
            request=Request.from_json(found.get("request")),
            comparisons=[
                Planned(str(row.get("regime")), ComparisonConfig.from_json(json_reader.mapping(row.get("config"))))
                for row in json_reader.objects(found.get("comparisons"))
            ],
            left_out=json_reader.texts(found.get("left_out")),
            command=str(found.get("command")),
        )
