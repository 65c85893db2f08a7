"""Connects a relevance scorer to the target: through its attention or a layer's output."""

from typing import Any

import torch

from lvspec_sglang.attention.torch_native import ChainTorchBackend
from lvspec_sglang.draft.vision.family import VisionFamily
from lvspec_sglang.relaxation import Relaxation
from lvspec_sglang.relevance.cosine import CosineTop


def connect(relaxation: Relaxation, runner: Any, family: VisionFamily, queries: int) -> bool:
    """Have the target report what the scorer reads; return whether it can.

    Args:
        runner: the target's ``ModelRunner``, its pools allocated and its backend built.
        family: knows the target's inner decoder.
        queries: the most tokens a verify forward takes.
    """
    scorer = relaxation.scorer
    if isinstance(scorer, CosineTop):
        decoder = family.language_model(runner.model)
        scorer.attach(
            runner.token_to_kv_pool.get_key_buffer(runner.token_to_kv_pool.start_layer).shape[0],
            runner.model_config.hidden_size,
            queries,
            runner.model_config.dtype,
            runner.req_to_token_pool.req_to_token,
            relaxation.visual,
        )
        _tap(decoder.layers[scorer.layers[0]], scorer)
        return True
    if scorer.reads == "nothing":
        return True
    if isinstance(runner.attn_backend, ChainTorchBackend):
        runner.attn_backend.attach_scorer(scorer, relaxation.visual)
        return True
    return False


def _tap(layer: torch.nn.Module, scorer: CosineTop) -> None:
    """Hand the output of a decoder layer, residual stream included, to ``scorer``."""

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = [*args, *kwargs.values()]
        batch = next(value for value in given if hasattr(value, "forward_mode"))
        if batch.forward_mode.is_target_verify():
            if scorer.listening:
                scorer.hear(_stream(output))
        elif batch.forward_mode.is_extend():
            scorer.remember(batch.out_cache_loc, _stream(output))

    layer.register_forward_hook(hook, with_kwargs=True)


def _stream(output: Any) -> torch.Tensor:
    """The residual stream: the host's layers return the last branch and the rest apart."""
    branch, rest = output
    return branch if rest is None else branch + rest
