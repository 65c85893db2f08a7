"""The one SGLang release this package is built for, and what is wrong when another is there."""

from importlib.metadata import PackageNotFoundError, version

HOST_VERSION = "0.5.23"


def version_problem() -> str | None:
    """Say what to do about the installed SGLang, or None if it is the right one."""
    try:
        found = version("sglang")
    except PackageNotFoundError:
        return f"SGLang is not installed; install it with: pip install sglang=={HOST_VERSION}"
    if found != HOST_VERSION:
        return (
            f"lvspec_sglang is built for SGLang {HOST_VERSION}, found {found}; its plugin "
            f"interfaces change with every release. Run: pip install sglang=={HOST_VERSION}"
        )
    return None
