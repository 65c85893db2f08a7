"""LVSPEC: loosely speculative decoding for video LLMs, as a plugin of an unmodified SGLang."""

__version__ = "0.1.0"
