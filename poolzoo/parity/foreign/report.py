"""What was found of a file and a module from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from poolzoo.parity.foreign.causes import Cause
from poolzoo.parity.foreign.last_agreement import LastAgreement
from poolzoo.parity.report import ParityReport
from poolzoo.runtime.half_arithmetic import HalfCheck
from poolzoo.runtime.runtimes import RuntimesReport
from poolzoo.runtime.verify import Check


@dataclass(frozen=True, kw_only=True)
class AgainstReport:
    """Whether a file computes what a module computes.

    Attributes:
        file: The file's path.
        module: What the module was called.
        takes: What both take, in words: of the file, and of the module.
        opset: The file's opset.
        precision: "fp32", "fp16" or "int8": of its weights. The latter two are judged by the agreement of classes.
        parity: The comparison of all outputs, and of extreme inputs.
        natural: How many of the images are natural.
        cause: The known mistake that explains a difference; None where there is none.
        last_agreement: Up to which layer both agree; None where all do, or it is not known.
        runtimes: What was found of the file in runtimes; None where none was asked for.
        rounded: What it gives in arithmetic of 16 bits, where that was asked for.
        other_size: Whether a file of any image size agrees at another one; None where that was not checked.
        remarks: What else there is to say.
        reduction: The directory with the smallest graph and input that show a difference; None where none was written.
    """

    file: str
    module: str
    takes: tuple[str, str]
    opset: int
    precision: str
    parity: ParityReport
    natural: int
    cause: Cause | None = None
    last_agreement: LastAgreement | None = None
    runtimes: RuntimesReport | None = None
    rounded: tuple[HalfCheck, ...] = ()
    other_size: Check | None = None
    remarks: tuple[str, ...] = ()
    reduction: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it does, also in runtimes and arithmetic that were asked for."""
        wrong = self.runtimes.failures if self.runtimes is not None else []
        return self.parity.passed and not wrong and all(check.passed for check in self.checks)

    @property
    def checks(self) -> list[Check]:
        """The checks that were made, in order."""
        parity, outputs = self.parity, self.parity.outputs
        file, module = self.takes
        found = [
            Check("file", True, f"opset {self.opset}, {file}"),
            Check("module", True, f"takes {module}"),
        ]
        batches = ", ".join(map(str, outputs.batches))
        if parity.noise is not None:
            worst = parity.noise.worst
            apart = "not finite" if worst.max_abs is None else f"difference {worst.max_abs:.2e}"
            far = worst.max_abs is None or worst.max_abs > worst.allowed
            text = f"{apart} of {worst.allowed:.2e} allowed on {worst.input}"
            text += "" if far else f", closest to its limit; batches {batches}"
            found.append(Check("outputs", not far and outputs.finite, text))
        else:
            violated = "; ".join(parity.limits.violations) if parity.limits is not None else ""
            text = violated or f"{self.precision} within its limits; batches {batches}"
            found.append(Check("outputs", not violated, text))
        images = f"{self.natural} natural and {outputs.n - self.natural} synthetic images"
        text = f"same class on {outputs.top1_agreement:.2%} of {images}"
        found.append(Check("classes", found[-1].passed or outputs.top1_agreement == 1, text))
        if parity.probes is not None:
            failed = [one for one in parity.probes if not one.passed]
            text = f"{len(parity.probes)} extreme inputs, such as NaN and ±1000"
            if failed:
                text = f"{failed[0].probe}: {failed[0].note}"
            found.append(Check("extremes", not failed, text))
        if parity.half is not None:
            found.append(Check("half", parity.half.passed, parity.half.describe()))
        if self.other_size is not None:
            found.append(self.other_size)
        return [*found, *(Check(f"arithmetic-{one.arithmetic}", one.passed, one.describe()) for one in self.rounded)]

    def describe_failure(self) -> str:
        """How and why the file differs, in one line."""
        failed = next((check for check in self.checks if not check.passed), None)
        text = f"{self.file} does not compute what {self.module} computes"
        if failed is not None:
            text += f": {failed.detail}"
        for one in (self.cause, self.last_agreement):
            if one is not None:
                text += f"; {one.describe()}"
        return text

    @property
    def hint(self) -> str:
        """What to do about a difference."""
        if self.reduction is not None:
            return f"see {self.reduction}/report.md"
        if self.other_size is not None and not self.other_size.passed:
            return "export it with the size of its images fixed, or with dynamic operators"
        if self.parity.passed:
            return "a device that computes so gives something else: have it compute in float32"
        if self.cause is not None:
            return "give both the same images; --input-range, --mean and --std say what floats they take"
        return "was it exported with these weights, in eval mode? --debug DIR writes the smallest graph that differs"

    def to_json(self) -> dict[str, object]:
        """What `verify --against --json` prints."""
        file, module = self.takes
        found: dict[str, object] = {
            "passed": self.passed,
            "file": self.file,
            "against": self.module,
            "file_takes": file,
            "module_takes": module,
            "opset": self.opset,
            "precision": self.precision,
            "checks": [check.to_json() for check in self.checks],
            "natural_images": self.natural,
            "parity": self.parity.to_json(),
            "cause": None if self.cause is None else self.cause.to_json(),
            "last_agreement": None if self.last_agreement is None else self.last_agreement.to_json(),
            "arithmetics": {one.arithmetic: one.to_json() for one in self.rounded},
            "remarks": list(self.remarks),
            "reduction": self.reduction,
        }
        if self.runtimes is not None:
            found["runtimes"] = self.runtimes.to_json()
        return found
