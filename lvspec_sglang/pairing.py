"""Whether a draft checkpoint can draft for a target: family, vision layout, tokenizer."""

from typing import Any

from lvspec_sglang.draft.vision import FAMILIES

VISION_FIELDS = ("patch_size", "spatial_merge_size", "temporal_patch_size")
LAYOUT_FIELDS = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "image_token_index",
    "mm_patch_merge_type",
    "image_aspect_ratio",
    "image_grid_pinpoints",
)


def check_pair(target: Any, draft: Any, target_path: str, draft_path: str) -> None:
    """Raise if the checkpoint ``draft`` cannot draft for ``target``.

    Args:
        target, draft: their transformers configurations.
        target_path, draft_path: where they came from, for the message.

    Raises:
        ValueError: an unsupported family, a text-only draft, another vision layout or another
            placeholder token; says what was found and what to choose.
    """
    supported = ", ".join(FAMILIES)
    for role, config, path in (("target", target, target_path), ("draft", draft, draft_path)):
        family = _architecture(config)
        if family in FAMILIES:
            _check_attention(role, config, path)
        elif role == "draft" and getattr(config, "vision_config", None) is None:
            raise ValueError(
                f"The draft {path} is text-only ({family}); LVSPEC drafts with a video LLM of the "
                f"target's family ({_architecture(target)})."
            )
        else:
            raise ValueError(
                f"The {role} {path} is a {family}; LVSPEC supports the families {supported}."
            )
    if _architecture(draft) != _architecture(target):
        raise ValueError(
            f"The draft {draft_path} is a {_architecture(draft)}, the target {target_path} a "
            f"{_architecture(target)}: choose a smaller checkpoint of the target's family."
        )
    for where, fields in (("vision_config", VISION_FIELDS), (None, LAYOUT_FIELDS)):
        for field in fields:
            have, want = (
                getattr(getattr(config, where) if where else config, field, None)
                for config in (draft, target)
            )
            if have != want:
                raise ValueError(
                    f"The draft {draft_path} has {field} {have}, the target {target_path} {want}: "
                    "they would see different video tokens; choose a draft of the same release."
                )


def check_tokenizers(target: Any, draft: Any, target_path: str, draft_path: str) -> None:
    """Raise if two tokenizers map text to different ids.

    A vocabulary that is merely padded differently is the model's affair and fine.

    Raises:
        ValueError: naming a token that differs.
    """
    ours, theirs = target.get_vocab(), draft.get_vocab()
    if ours == theirs:
        return
    token = next(iter(sorted(set(ours.items()) ^ set(theirs.items()))))[0]
    raise ValueError(
        f"The draft {draft_path} has another tokenizer than the target {target_path}: {token!r} is "
        f"{theirs.get(token)} there and {ours.get(token)} here. Choose a draft of the same release."
    )


def _architecture(config: Any) -> str:
    names = getattr(config, "architectures", None) or ["no architecture"]
    return str(names[0])


def _check_attention(role: str, config: Any, path: str) -> None:
    text = getattr(config, "text_config", None) or config
    if getattr(text, "use_sliding_window", False):
        raise ValueError(
            f"The {role} {path} uses sliding-window attention, which LVSPEC does not support."
        )
