"""Connects a relevance scorer to the target: through its attention or its hidden states."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from sglang.srt.layers.attention.base_attn_backend import SharedReadEnds
from sglang.srt.runtime_context import get_memory, get_parallel

from lvspec_sglang.attention.masses import Masses
from lvspec_sglang.attention.torch_native import ChainTorchBackend
from lvspec_sglang.attention.variants import GraphVariants, is_scored
from lvspec_sglang.config import PRESETS, LVSpecConfig, RelaxConfig
from lvspec_sglang.draft.vision.family import VisionFamily
from lvspec_sglang.relaxation import Relaxation
from lvspec_sglang.relevance import make_scorer
from lvspec_sglang.relevance.cosine import CosineTop
from lvspec_sglang.relevance.measured import measured_for

logger = logging.getLogger(__name__)


def make_relaxation(
    config: LVSpecConfig, runner: Any, table: torch.Tensor, guarded: torch.Tensor
) -> Relaxation:
    """What relaxes the requests of a target, with the scorer that ``config`` names.

    Args:
        runner: the target's ``ModelRunner``.
        table: its request table, ``[rows, width]``.
        guarded: token ids never relaxed, ``[vocab]`` bool, on the device.

    Raises:
        ValueError: a layer the target does not have, or a broken measurement of it.
    """
    target = runner.model_config
    measured = measured_for(config, target.hf_config)
    layers = measured.layers if measured else config.layers
    scorer = make_scorer(config.relevance, layers, int(target.num_hidden_layers))
    reference = measured.scores if measured else ()
    rows, width = table.shape
    return Relaxation(config.query, scorer, rows, width, guarded, reference)


def default_relax(config: LVSpecConfig, measured: bool, words: bool = True) -> RelaxConfig:
    """What requests get that say nothing, told in one line.

    Args:
        measured: whether the target's relevance was.
        words: whether there is a tokenizer, which tells the words that are never relaxed.
    """
    if not words:
        logger.info(
            "LVSPEC answers as the target alone (strict), whatever a request asks: without a "
            "tokenizer no token is known to be harmless. Leave --skip-tokenizer-init out."
        )
        return RelaxConfig()
    relax = config.relax or PRESETS["balanced" if measured else "strict"]
    name = next((name for name, preset in PRESETS.items() if preset == relax), str(relax))
    if not relax.strict:
        logger.info(
            "LVSPEC relaxes verification (%s): answers may differ from the target's own%s. For "
            "identical answers use the preset strict, for the server or for a request.",
            name,
            "" if measured else ", in facts too, as this target's relevance was not measured",
        )
    elif config.relax is None:
        logger.info(
            "LVSPEC answers as the target alone (strict): how this target's attention tells facts "
            "from wording was not measured. To relax all the same, name a preset."
        )
    return relax


def connect(
    relaxation: Relaxation, runner: Any, family: VisionFamily, queries: int, share_from: int
) -> Callable[[int], None]:
    """Have the target report what the scorer reads, and its backend share videos if it can.

    On the CPU the attention backend computes what is read; on a GPU a kernel does, beside any
    backend. Call this before graphs are captured.

    Args:
        runner: the target's ``ModelRunner``, its pools allocated and its backend built.
        family: knows the target's inner decoder.
        queries: the most tokens a verify forward takes.
        share_from: tokens of KV that reading videos together has to save.

    Returns:
        What to call with a verify forward's number of tokens before its scores are read.
    """
    scorer, backend = relaxation.scorer, runner.attn_backend
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
    if isinstance(backend, ChainTorchBackend):
        if scorer.reads == "attention":
            backend.attach_scorer(scorer, relaxation.visual)
        return _nothing
    if runner.kv_cache_dtype != runner.dtype:
        raise ValueError(
            f"LVSPEC does not work with KV in {runner.kv_cache_dtype} beside a model in "
            f"{runner.dtype}: give --kv-cache-dtype and --dtype that agree, or another checkpoint "
            "where its configuration asks for quantised KV."
        )
    shares = None if get_memory().disable_radix_cache else getattr(backend, "shares", None)
    backend.verify_variants = GraphVariants(scorer, shares)
    if shares is not None:
        backend.share_from = share_from
    if scorer.reads == "nothing":
        return _nothing
    from lvspec_sglang.attention.mass_hook import read_table_until, watch

    if scorer.reads == "hidden":
        read_table_until(backend, SharedReadEnds.UNKNOWN)  # until its scores, after the graph
        return _nothing
    heads = runner.model_config.num_attention_heads // get_parallel().attn_tp_size
    masses = Masses(scorer, queries, heads, relaxation.visual.device)
    watch(runner, masses, relaxation.visual)
    return masses.report


def _nothing(queries: int) -> None:
    """The scorer was told during the forward."""


def _tap(layer: Any, scorer: CosineTop) -> None:
    """Hand the hidden states that enter a layer's attention to ``scorer``."""

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batch, hidden = kwargs["forward_batch"], kwargs["hidden_states"]
        if batch.forward_mode.is_target_verify():
            if is_scored(scorer):
                scorer.hear(hidden)
        elif batch.forward_mode.is_extend():
            scorer.remember(batch.out_cache_loc, hidden)

    layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True)
