"""The check of weights: they load, fit the network that the protocol names, and a frozen backbone is the pinned one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolzoo.common.errors import CheckFailed
from poolzoo.compare.board import pinning
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.board.submission import SubmittedRun

if TYPE_CHECKING:
    from torch import Tensor

    from poolzoo.model.assemble import Assembly


def weights_check(context: Context) -> str:
    """Every weights file fits the network that the protocol names, and a frozen backbone is the pinned one.

    Of a pooling whose plugin is not loaded here, the tensors of the backbone alone can be compared.
    """
    from poolzoo.model.accounting import differences

    protocol, unknown = context.protocol, []
    for name in context.chosen:
        known = context.is_known(name)
        own = assembled(context, name if known else protocol.baseline).network.state_dict()
        if not known:
            own = {key: value for key, value in own.items() if key.startswith("backbone.")}
            unknown.append(name)
        for seed in protocol.seed_range:
            run = context.by_trial[name, seed]
            state = state_of(run)
            compared = state if known else {key: value for key, value in state.items() if key in own}
            if found := differences(own, compared, dtypes=True):
                raise CheckFailed(f"{run.name}: model.safetensors does not fit the network: {', '.join(found)}")
            if broken := [key for key, value in state.items() if not value.float().isfinite().all()]:
                raise CheckFailed(f"{run.name}: {broken[0]} in model.safetensors is not finite")
            if protocol.base.freeze == "backbone" and protocol.backbone_sha256 is not None:
                backbone = {key.removeprefix("backbone."): state[key] for key in own if key.startswith("backbone.")}
                if pinning.backbone_sha256(backbone) != protocol.backbone_sha256:
                    raise CheckFailed(f"{run.name}: its frozen backbone has other weights than the protocol pins")
    if unknown:
        return f"all load; of {', '.join(unknown)} only the backbone was compared, without --plugin; the others fit"
    return "all load and fit the networks of the protocol"


def state_of(run: SubmittedRun) -> dict[str, Tensor]:
    """The tensors of a run. The format holds no code.

    Raises:
        CheckFailed: The file is damaged.
    """
    from poolzoo.model.state_dict import load_tensors

    return load_tensors((run.path / "model.safetensors").read_bytes(), f"{run.name}: model.safetensors", "")


def assembled(context: Context, chosen: str) -> Assembly:
    """The network of the protocol with a pooling on the free side, with fresh weights."""
    from poolzoo.model.assemble import assemble
    from poolzoo.model.config import ModelConfig

    own, data = context.protocol.settings_of(chosen, 0), context.protocol.data
    return assemble(
        ModelConfig(
            backbone=own.backbone,
            pool=own.pool,
            num_classes=len(data.classes),
            data_size=data.size,
            image_size=own.input_size,
            local_pool=own.local_pool,
            stem=own.stem,
            head=own.head,
            final_norm="head" if own.final_norm == "head" else "backbone",
        )
    )
