"""A contact sheet: a clip's frames above what the models say of it, facts in colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lvspec_sglang.miniworld.lexicon import fact_of
from lvspec_sglang.miniworld.scene import FPS, SAMPLED

FRAME_WIDTH = 150
MARGIN = 14
FILLER_INK = (130, 130, 135)
FACT_INK = {
    "color": (190, 30, 45),
    "shape": (30, 70, 190),
    "size": (120, 60, 160),
    "row": (20, 120, 70),
    "column": (20, 120, 70),
    "direction": (200, 100, 0),
    "act": (200, 100, 0),
    "count": (0, 120, 140),
    "event": (160, 20, 110),
}


def contact_sheet(pixels: np.ndarray, captions: dict[str, str], path: Path) -> None:
    """Write a PNG of every second sampled frame over captions by the writer's name.

    `pixels` are the sampled frames of one clip, uint8 [frames, H, W, 3].
    """
    height = round(FRAME_WIDTH * pixels.shape[1] / pixels.shape[2])
    shown = pixels[::2]
    width = MARGIN + len(shown) * (FRAME_WIDTH + MARGIN)
    font = ImageFont.load_default(16)
    small = ImageFont.load_default(12)
    sheet = Image.new("RGB", (width, 1200), "white")
    draw = ImageDraw.Draw(sheet)
    for number, frame in enumerate(shown):
        left = MARGIN + number * (FRAME_WIDTH + MARGIN)
        sheet.paste(Image.fromarray(frame).resize((FRAME_WIDTH, height)), (left, MARGIN))
        seconds = SAMPLED[2 * number] / FPS
        draw.text((left, MARGIN + height + 2), f"{seconds:.1f} s", "black", small)
    bottom = MARGIN + height + 28
    for writer, text in captions.items():
        draw.text((MARGIN, bottom), writer, "black", small)
        bottom = _write(draw, text, bottom + 18, width, font) + 14
    sheet.crop((0, 0, width, bottom)).save(path)


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    top: int,
    width: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> int:
    """Write wrapped text with its facts coloured; return where the next line would start."""
    left, line = MARGIN, 24
    for word in text.split():
        length = draw.textlength(word + " ", font)
        if left + length > width - MARGIN:
            left, top = MARGIN, top + line
        fact = fact_of(word)
        ink = FACT_INK.get(fact[0], FILLER_INK) if fact else FILLER_INK
        draw.text((left, top), word, ink, font)
        if fact:
            draw.line((left, top + 20, left + length - 5, top + 20), ink)
        left += round(length)
    return top + line
