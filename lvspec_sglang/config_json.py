"""A server's and a request's JSON, read into ``config``'s dataclasses.

A server takes one JSON object, ``--lvspec-config`` or ``LVSPEC_CONFIG``: the text itself or a
file's path. A request takes ``custom_params={"lvspec": {...}}`` with the keys of ``RelaxConfig``.
"""

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lvspec_sglang.config import (
    PRESETS,
    DraftLengthConfig,
    LVSpecConfig,
    RelaxConfig,
    RequestConfig,
    one_of,
)

CONFIG_ENV = "LVSPEC_CONFIG"
RELAX_KEYS = (*(item.name for item in fields(RelaxConfig)), "preset")
SERVER_KEYS = tuple(item.name for item in fields(LVSpecConfig) if item.name != "relax")
REQUEST_KEYS = (*RELAX_KEYS, "trace")
PRESET = '{"preset": "strict"}'
QUOTED = 80  # characters of a text that is no JSON


def parse_request(given: Any, default: RelaxConfig) -> RequestConfig:
    """A request's configuration from its JSON object ``given``; absent keys keep ``default``.

    Raises:
        ValueError: not an object, an unknown key, a server's key, a wrong type or an out-of-range
            value.
    """
    if given is None:
        return RequestConfig(default)
    given = _object("lvspec", given, PRESET)
    for key in given:
        if key in SERVER_KEYS:
            raise ValueError(
                f"lvspec key {key!r} is a server's setting: give it in --lvspec-config, not in a "
                f"request, which takes {', '.join(REQUEST_KEYS)}"
            )
    _known("lvspec", given, REQUEST_KEYS)
    trace = given.pop("trace", False)
    return RequestConfig(_relax(given, default), trace)


def asked_of(custom_params: Any) -> Any:
    """What a request's ``custom_params`` ask of LVSPEC, for ``parse_request``; None for nothing.

    Raises:
        ValueError: they are no object, which would end the scheduler that receives them.
    """
    if custom_params is None:
        return None
    return _object("custom_params", custom_params, f'{{"lvspec": {PRESET}}}').get("lvspec")


def read_server(text: str) -> dict[str, Any]:
    """A server's JSON object, from ``text`` or the path of a JSON file.

    Raises:
        ValueError: neither JSON nor a readable file of it, or no object.
    """
    stripped = text.strip()
    quoted = repr(text if len(text) <= QUOTED else text[:QUOTED] + "...")
    if not stripped.startswith("{"):
        try:
            path = Path(stripped).expanduser()
            found = path.is_file()
            stripped = path.read_text(encoding="utf-8") if found else ""
        except (OSError, UnicodeDecodeError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(
                f"lvspec config {quoted} cannot be read as a file: {reason}"
            ) from error
        if not found:
            raise ValueError(
                f"lvspec config {quoted} is neither a JSON object nor a file; "
                """write for example '{"preset": "paper"}'"""
            )
    try:
        return _object("lvspec config", json.loads(stripped), PRESET)
    except json.JSONDecodeError as error:
        raise ValueError(f"lvspec config {quoted} is not JSON: {error}") from error


def parse_server(text: str) -> LVSpecConfig:
    """A server's configuration from JSON ``text`` or the path of a JSON file.

    Raises:
        ValueError: as ``read_server``; an unknown key, a wrong type or an out-of-range value; keys
            of ``RelaxConfig`` that relax nothing without a preset.
    """
    given = read_server(text)
    _known("lvspec", given, (*SERVER_KEYS, *RELAX_KEYS))
    relax = _server_relax({key: given.pop(key) for key in list(given) if key in RELAX_KEYS})
    for key in ("layers", "guards"):
        if key in given:
            if not isinstance(given[key], list):
                raise ValueError(f"{key} {given[key]!r}: a list")
            given[key] = tuple(given[key])
    if "draft_length" in given:
        length = _object("draft_length", given["draft_length"], '{"above": 8}')
        _known("draft_length", length, tuple(item.name for item in fields(DraftLengthConfig)))
        given["draft_length"] = DraftLengthConfig(**length)
    return LVSpecConfig(relax=relax, **given)


def server_config() -> LVSpecConfig:
    """The configuration of this process's server, from ``LVSPEC_CONFIG``."""
    text = os.environ.get(CONFIG_ENV)
    return parse_server(text) if text else LVSpecConfig()


def _server_relax(named: dict[str, Any]) -> RelaxConfig | None:
    """What a server's requests get that say nothing; None where nothing was ``named``.

    A key that is named beside nothing that relaxes would turn off what a measured target gets.
    """
    chosen = {key: value for key, value in named.items() if (key, value) != ("preset", None)}
    if not chosen:
        return None
    relax = _relax({"preset": "strict", **chosen}, RelaxConfig())
    if relax.strict and not {"preset", "loose_ratio"} & chosen.keys():
        example = json.dumps({"preset": "balanced", **chosen})
        raise ValueError(
            f"{', '.join(chosen)}: without a preset verification stays strict; name one to start "
            f"from, for example '{example}', or say '{PRESET}'"
        )
    return relax


def _relax(named: dict[str, Any], default: RelaxConfig) -> RelaxConfig:
    preset = named.pop("preset", None)
    if preset is not None:
        one_of("preset", preset, tuple(PRESETS))
        default = PRESETS[preset]
    relax = replace(default, **named)
    # Else the floor is the server's, which only the scheduler knows.
    known = preset is not None or "floor" in named
    if known and named.get("visual_floor") and not relax.floor:
        raise ValueError(f"visual_floor {relax.visual_floor}: give a floor above 0 beside it")
    return relax


def _object(name: str, given: Any, example: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"{name} {given!r}: a JSON object, for example {example}")
    return dict(given)


def _known(name: str, given: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for key in given:
        if key not in allowed:
            raise ValueError(f"unknown {name} key {key!r}; allowed are {', '.join(allowed)}")
