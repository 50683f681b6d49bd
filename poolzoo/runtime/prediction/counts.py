"""What became of many images: how often each label was given, what could not be read, and the first of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from poolzoo.common import json_reader
from poolzoo.runtime.prediction.predict import NOT_FINITE, Prediction
from poolzoo.runtime.prediction.remarks import Remarks


@dataclass(frozen=True)
class Failures:
    """Images without a label for one reason.

    Attributes:
        count: How many.
        at: The place of the first one in the list of images; -1 where there is none.
        first: The first one, in words.
    """

    count: int = 0
    at: int = -1
    first: str = ""

    def __add__(self, other: Failures) -> Failures:
        first = min((one for one in (self, other) if one.count), key=lambda one: one.at, default=self)
        return Failures(self.count + other.count, first.at, first.first)

    def to_json(self) -> dict[str, object]:
        """`{"count", "at", "first"}`."""
        return {"count": self.count, "at": self.at, "first": self.first}

    @classmethod
    def from_json(cls, value: object) -> Failures:
        """Reads what `to_json` gave."""
        given = json_reader.mapping(value)
        at = json_reader.integer(given.get("at"))
        count = json_reader.integer(given.get("count")) or 0
        return cls(count, -1 if at is None else at, json_reader.text(given.get("first")) or "")


@dataclass
class Counts:
    """Counts over a part of the images, or over all.

    Attributes:
        images: How many were tried.
        labels: How many have each label.
        unlabeled: How many have none, where an image may have several labels.
        accepted: How many the bundle accepts, where it abstains; else None.
        unreadable: Those that cannot be read.
        not_finite: Those whose outputs are not finite.
        remarks: What was noted of the files.
    """

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    unlabeled: int = 0
    accepted: int | None = None
    unreadable: Failures = Failures()
    not_finite: Failures = Failures()
    remarks: Remarks = field(default_factory=Remarks)

    def add(self, at: int, prediction: Prediction) -> None:
        """Counts the image at a place in the list."""
        self.images += 1
        if prediction.error is None:
            labels = prediction.top[:1] if prediction.labels is None else prediction.labels
            self.labels.update(one.label for one in labels)
            self.unlabeled += not labels
            self._accept(None if prediction.accepted is None else int(prediction.accepted))
        elif prediction.error == NOT_FINITE:
            self.not_finite += Failures(1, at, prediction.file)
        else:
            self.unreadable += Failures(1, at, f"{prediction.file}: {prediction.error}")

    def _accept(self, count: int | None) -> None:
        if count is not None:
            self.accepted = (self.accepted or 0) + count

    def merge(self, other: Counts) -> None:
        """Adds the counts of other images."""
        self._accept(other.accepted)
        self.images += other.images
        self.labels.update(other.labels)
        self.unlabeled += other.unlabeled
        self.unreadable += other.unreadable
        self.not_finite += other.not_finite
        self.remarks.merge(other.remarks)

    def to_json(self) -> dict[str, object]:
        """Its attributes; labels by falling number."""
        unlabeled = {"unlabeled": self.unlabeled} if self.unlabeled else {}
        accepted = {} if self.accepted is None else {"accepted": self.accepted}
        return {
            "images": self.images,
            "labels": dict(self.labels.most_common()),
            **unlabeled,
            **accepted,
            "unreadable": self.unreadable.to_json(),
            "not_finite": self.not_finite.to_json(),
            "remarks": self.remarks.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Counts:
        """Reads what `to_json` gave."""
        given = json_reader.mapping(value)
        labels = json_reader.mapping(given.get("labels"))
        return cls(
            images=json_reader.integer(given.get("images")) or 0,
            labels=Counter({label: json_reader.integer(count) or 0 for label, count in labels.items()}),
            unlabeled=json_reader.integer(given.get("unlabeled")) or 0,
            accepted=json_reader.integer(given.get("accepted")),
            unreadable=Failures.from_json(given.get("unreadable")),
            not_finite=Failures.from_json(given.get("not_finite")),
            remarks=Remarks.from_json(given.get("remarks")),
        )
