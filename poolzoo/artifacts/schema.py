"""The JSON files of runs and bundles as types. A key that not every version or network writes is `NotRequired`.

The file is long because it lists every field of every file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from poolzoo.model.accounting import AccountingJson
    from poolzoo.model.published import PublishedHeadJson


class PluginSource(TypedDict):
    """Who provides a part of a network: `sha256` is that of a plugin file, None for an installed distribution."""

    dist: str
    version: str | None
    tier: str
    sha256: str | None


class InputConfig(TypedDict):
    """What a network expects, with timm's keys, and how image files are brought to it."""

    input_size: list[int]
    mean: list[float]
    std: list[float]
    interpolation: str
    crop_pct: float
    reader: NotRequired[int]
    num_classes: int
    license: str | None


class TeacherSource(TypedDict):
    """The network whose logits joined the loss: its name, the sha256 of its weights, and how it joined."""

    name: str
    sha256: str
    temperature: float
    weight: float


class HeldOutConfig(TypedDict):
    """Which of the training images are test images: a share of them, chosen by a seed."""

    fraction: float
    seed: int


class NetworkConfig(TypedDict):
    """What is needed to build a network again. `pool` is None for a published network with a pooling of its own."""

    backbone: str
    pool: str | None
    options: dict[str, object]
    local_pool: str | None
    stem: NotRequired[str]
    head: NotRequired[str]
    final_norm: NotRequired[Literal["head", "backbone"]]
    published_head: NotRequired[PublishedHeadJson]
    weights: NotRequired[AccountingJson]
    teacher: NotRequired[TeacherSource]
    data: NotRequired[str]
    test_part: NotRequired[HeldOutConfig]
    data_size: list[int]
    image_size: list[int]
    map: NotRequired[list[int]]
    plugin: NotRequired[PluginSource]
    plugins: dict[str, PluginSource]


class Origin(TypedDict, total=False):
    """What a bundle was made from: the name of a run's directory, or the backbone of a published network."""

    run: str
    pretrained: str


class TargetConfig(TypedDict):
    """A form of the graph for another runtime, `targets/NAME/`: its version, what was changed, and the size.

    `checked` is False where the runtime cannot run on the machine of the export.
    """

    version: str
    changes: list[str]
    bytes: int
    checked: bool


class Rules(TypedDict, total=False):
    """What makes outputs beside logits and probabilities, and its test: see `metrics/output_rules.py`."""

    abstention: dict[str, object]
    prediction_sets: dict[str, object]


class ExportConfig(Origin, Rules):
    """What `export` adds to a bundle's `config.json`.

    `map` is the feature map's name in the graph, `runtime` what `predict` uses.
    """

    opset: int
    onnxruntime: NotRequired[str]
    input: str
    precision: str
    compared_on: dict[str, object]
    map: NotRequired[str | None]
    runtime: NotRequired[str]
    targets: NotRequired[dict[str, TargetConfig]]


class Config(TypedDict):
    """`config.json` of a run or bundle. Without `task` an image has one label; `thresholds` belong to "multilabel".

    `calibration` is the JSON of a `Calibration`: `method` and `temperature`, with `smoothing` or with `scale` and
    `bias` where one of these was chosen.
    """

    schema: int
    architecture: str
    num_classes: int
    num_features: NotRequired[int]
    global_pool: NotRequired[str]
    label_names: list[str]
    task: NotRequired[str]
    thresholds: NotRequired[list[float]]
    calibration: NotRequired[dict[str, object]]
    pretrained_cfg: InputConfig
    poolzoo: NetworkConfig
    export: NotRequired[ExportConfig]


class ManifestEntry(TypedDict):
    """The checksum and size of a file."""

    sha256: str
    bytes: int


class Manifest(TypedDict):
    """`manifest.json`. `seal` is the sha256 of the manifest's own text without it, from schema 2 on."""

    schema: int
    kind: str
    files: dict[str, ManifestEntry]
    seal: NotRequired[str]


class Extreme(TypedDict):
    """The input closest to its limit, with its difference and limit; None stands for NaN or infinity."""

    input: str
    max_abs: float | None
    allowed: float
    ratio: NotRequired[float | None]


class Flip(TypedDict):
    """An image on which graph and network decide differently; `margin` is the distance to another decision."""

    input: str
    margin: float


class Probe(TypedDict):
    """A part of the graph against its module on one extreme input."""

    part: str
    probe: str
    max_abs: float | None
    allowed: float | None
    passed: bool
    note: str


class LayerDifference(TypedDict):
    """The first layer whose output differs; None stands for NaN or infinity."""

    layer: str
    max_abs: float | None
    allowed: float
    largest: float


class HalfArithmetic(TypedDict):
    """A graph in fp16, computed in float16 arithmetic."""

    passed: bool
    finite: bool
    images: int
    max_abs: float | None
    allowed: float
    flips: int


class Photographs(TypedDict):
    """A graph that takes photographs, against Pillow's resize: levels of 255, and outputs."""

    passed: bool
    photographs: int
    max_levels: int
    mean_levels: float
    differing: float
    max_abs: float | None
    allowed: float
    flips: int


class ValueRange(TypedDict):
    """The largest magnitude inside a graph, its value's name, the number of images; nodes kept in float32 and why."""

    largest: float
    value: str
    images: int
    float32: NotRequired[dict[str, str]]


class FloatLayer(TypedDict):
    """A layer that stays in float32, its nodes, and its harm: RMS difference of the logits over their deviation.

    `kernels` is None where ONNX Runtime computes it together with another layer.
    """

    layer: str
    nodes: list[str]
    harm: float | None
    kernels: NotRequired[LayerKernels | None]


class LayerKernels(TypedDict):
    """Milliseconds of the kernels of a layer, without and with layers in float32."""

    before: float
    after: float


class KernelTimes(TypedDict):
    """Milliseconds of all kernels of a graph at one batch size, without and with layers in float32."""

    batch: int
    before: float
    after: float


class PrecisionSearch(TypedDict):
    """What a search for corrected biases and for layers that have to stay in float32 found.

    `before` is the graph without both; `ort_ms` in it is by batch size. `layers` are those in float32, of `of` layers
    that lower precision rounds. `tried` counts the graphs that were made. `kernels` is there on a CPU.
    """

    before: CandidateBefore
    corrected_biases: bool
    layers: list[FloatLayer]
    of: int
    tried: int
    seconds: float
    kernels: NotRequired[KernelTimes]


class CandidateBefore(TypedDict):
    """A candidate before layers returned to float32; `accuracy` is that of several labels' mAP where there are."""

    agreement: float
    accuracy: float | None
    ort_ms: dict[str, float]
    bytes: int


class CandidateRow(TypedDict):
    """One precision that was tried: `ort_ms` and `speedup` are by batch size, `lost` says why it was not chosen.

    With several labels, `map` and `map_drop` stand in place of `accuracy` and `accuracy_drop`.
    """

    precision: str
    chosen: bool
    passed: bool
    agreement: float
    accuracy: NotRequired[float | None]
    accuracy_drop: NotRequired[float | None]
    map: NotRequired[float | None]
    map_drop: NotRequired[float | None]
    max_abs: float | None
    cosine: float | None
    ort_ms: dict[str, float]
    speedup: dict[str, float]
    bytes: int
    lost: str | None
    search: NotRequired[PrecisionSearch]


class Parity(TypedDict):
    """`parity.json`, and `parity` in the report of `export`."""

    passed: bool
    gate: str
    tolerance: float | None
    allowed_on_images: NotRequired[float]
    looked_at_again: NotRequired[list[str]]
    worst: NotRequired[Extreme]
    worst_by_batch: NotRequired[dict[str, Extreme]]
    allowed_by_edge: NotRequired[dict[str, float]]
    limits: NotRequired[dict[str, float]]
    lost: NotRequired[str | None]
    max_abs: float | None
    relative: float | None
    cosine: float | None
    noise_floor: float
    reference: str
    largest_logit: float
    top1_agreement: float
    flips: list[Flip]
    batches: list[int]
    max_abs_by_batch: dict[str, float | None]
    max_abs_by_edge: dict[str, float | None]
    finite: bool
    images: str
    n: int
    provider: str
    optimization: NotRequired[str]
    accuracy: NotRequired[dict[str, float]]
    map: NotRequired[dict[str, float]]
    probes: NotRequired[list[Probe]]
    diverges: NotRequired[LayerDifference | None]
    inside: NotRequired[ValueRange]
    half: NotRequired[HalfArithmetic]
    photographs: NotRequired[Photographs]
    fp32: NotRequired[Parity]
    candidates: NotRequired[list[CandidateRow]]


class Spread(TypedDict):
    """A ratio over the rounds: median, 10th and 90th percentile."""

    median: float
    p10: float
    p90: float


class Timing(TypedDict):
    """Milliseconds of one call."""

    median_ms: float
    min_ms: float
    p90_ms: float
    p99_ms: float
    rounds: int


class Measurement(Timing):
    """A runtime at one batch size and thread count; `speedup` is over the reference at the same count."""

    runtime: str
    threads: int
    speedup: NotRequired[Spread]


class BatchSpeed(TypedDict):
    """The speed at one batch size; figures of torch where the network was measured too."""

    torch_ms: NotRequired[float]
    ort_ms: float
    speedup: NotRequired[float]
    rounds: int
    threads: int
    torch_threads: NotRequired[int]
    measurements: list[Measurement]


class Preprocessing(Timing):
    """The time from a file's bytes to pixels; `what` says from which to which."""

    what: str


class Environment(TypedDict):
    """The machine, its load, versions and settings that a speed was measured with."""

    machine: str
    processor: str
    cpu_flags: list[str]
    governor: str | None
    load: float | None
    threads: int | None
    provider: str | None
    optimization: NotRequired[str]
    spinning: bool
    omp_wait_policy: str | None
    python: str
    numpy: str
    onnxruntime: str
    torch: str | None
    openvino: NotRequired[str]


class Speed(TypedDict):
    """`speed.json`."""

    speed: dict[str, BatchSpeed]
    provider: NotRequired[str]
    preprocessing: NotRequired[Preprocessing]
    environment: Environment


class RuntimeTime(TypedDict):
    """The time of a batch in a runtime; `speedup` is over ONNX Runtime in the same rounds."""

    batch: int
    median_ms: float
    speedup: NotRequired[Spread]


class RuntimeRow(TypedDict):
    """What was found of a bundle in one runtime, a row of `runtimes` in `verify --json`: the part that is shown."""

    runtime: str
    version: str
    status: str
    detail: str
    max_abs: float | None
    allowed: float | None
    startup_ms: float | None
    bytes: int | None
    changes: list[str]
    speed: list[RuntimeTime]


class KeptRuntime(RuntimeRow):
    """A row of `runtimes.json`: also the arithmetic, the day, the processor and the threads that it was measured on."""

    precision: str
    date: str
    processor: str
    threads: int | None


class KeptRuntimes(TypedDict):
    """`runtimes.json`, which `verify --runtime` writes: the rows are of the graph with this checksum."""

    schema: int
    model_sha256: str
    runtimes: list[KeptRuntime]


class Export(Rules):
    """What `export --json` prints. `bundle` is None where parity failed: nothing was written."""

    bundle: str | None
    parity: Parity
    speed: dict[str, BatchSpeed]
    input: str
    provider: str
    opset: int
    precision: str
    onnxruntime: NotRequired[str]
    candidates: NotRequired[list[CandidateRow]]
    files: NotRequired[dict[str, int]]
    targets: NotRequired[dict[str, TargetConfig]]
    skipped_targets: NotRequired[dict[str, str]]
    runtime: NotRequired[str]
    runtimes: NotRequired[list[RuntimeRow]]
