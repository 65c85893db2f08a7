"""One change of the host: what it replaces, why, and until when."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Patch:
    """A change of one host function, applied through SGLang's own hook registry.

    Attributes:
        target: dotted path of the host function or method.
        parameters: the parameter names ``target`` must have for ``hook`` to fit it; None for a
            builtin, which has no signature to read.
        hook: the function handed to ``HookRegistry.register``.
        kind: name of the ``HookType`` member: ``REPLACE``, ``AROUND`` or ``AFTER``.
        reason: what goes wrong without it.
        until: the host change that makes it unnecessary.
    """

    target: str
    parameters: tuple[str, ...] | None
    hook: Callable[..., Any]
    kind: str
    reason: str
    until: str

    def mismatch(self) -> str | None:
        """Say how the host's ``target`` differs from what the patch was written for, or None."""
        try:
            function = resolve_name(self.target)
        except (ImportError, AttributeError) as error:
            return f"{self.target} is not in this SGLang ({broken_import(self.target) or error})"
        if self.parameters is None:
            return None
        found = tuple(inspect.signature(function).parameters)
        if found != self.parameters:
            return f"{self.target}{found} was expected to take {self.parameters}"
        return None

    def install(self) -> None:
        """Register the hook; SGLang applies it once all plugins have been loaded."""
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        HookRegistry.register(self.target, self.hook, HookType[self.kind])


def broken_import(target: str) -> ImportError | None:
    """Why a module on the way to ``target`` that is there cannot be imported."""
    names = target.split(".")
    for end in range(1, len(names)):
        path = ".".join(names[:end])
        try:
            import_module(path)
        except ModuleNotFoundError as error:
            return None if error.name == path else error
        except ImportError as error:
            return error
    return None
