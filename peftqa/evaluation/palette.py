"""One colour per variant, wherever it is drawn."""

from __future__ import annotations

import colorsys
import zlib

# Grey, and Okabe and Ito's colours, which colour-blind readers can tell apart.
KNOWN = {
    "base": "#7f7f7f",
    "fewshot": "#e69f00",
    "prompt": "#0072b2",
    "prefix": "#d55e00",
    "peft_prefix": "#cc79a7",
    "lora": "#009e73",
    "ia3": "#56b4e9",
}


def variant_color(name: str) -> str:
    """`#rrggbb`. An unknown name gets its hue from the name alone, so that no other variant changes it."""
    if name in KNOWN:
        return KNOWN[name]
    hue = zlib.crc32(name.encode()) % 360 / 360
    channels = (round(255 * channel) for channel in colorsys.hls_to_rgb(hue, 0.35, 0.6))
    return "#" + "".join(f"{channel:02x}" for channel in channels)
