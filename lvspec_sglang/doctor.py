"""``lvspec doctor``: versions, device, patches, and what is missing with its remedy."""

import importlib.util
from importlib.metadata import PackageNotFoundError, entry_points, version

from lvspec_sglang import __version__, platform
from lvspec_sglang.host import version_problem

PACKAGES = (
    "sglang",
    "torch",
    "transformers",
    "flashinfer-python",
    "sglang-kernel",
    "decord2",
    "av",
)


def run() -> int:
    """Print the state of this installation; return 0 if LVSPEC can run here, else 1."""
    print(f"lvspec_sglang {__version__}")
    for package in PACKAGES:
        print(f"  {package:18} {_version(package) or 'missing'}")
    problems = [problem for problem in (version_problem(), _entry_point_problem()) if problem]
    if not version_problem():
        _print_device()
        problems += _print_patches()
    problems += _decoder_problem()
    for problem in problems:
        print(f"PROBLEM  {problem}")
    print("LVSPEC cannot run here." if problems else "LVSPEC can run here.")
    return 1 if problems else 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _entry_point_problem() -> str | None:
    if any(point.name == "lvspec" for point in entry_points(group="sglang.srt.plugins")):
        return None
    return "SGLang cannot see the plugin; reinstall it: pip install -e . (or lvspec-sglang)"


def _print_device() -> None:
    import torch

    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else str(device)
        print(f"device: {name}")
    else:
        state = "active" if platform.applies() else "not active"
        print(f"device: CPU only; the lvspec CPU platform is {state} ({platform.FORCE_ENV}=0|1)")


def _print_patches() -> list[str]:
    from sglang.srt.plugins import load_plugins

    from lvspec_sglang import patches

    load_plugins()
    problems = []
    if not registered():
        problems.append(
            "SGLang did not load the plugin: unset SGLANG_PLUGINS, or let it name lvspec too"
        )
    print("patches of SGLang:")
    for patch in patches.ALL:
        mismatch = None if patch.target in patches.applied() else patch.mismatch()
        elsewhere = "in frontend programs" if patch in patches.FRONTEND else "with LVSPEC only"
        state = "active" if patch.target in patches.applied() else elsewhere
        print(f"  {patch.target}: {mismatch or state}")
        if mismatch:
            problems.append(mismatch)
    return problems


def registered() -> bool:
    """Whether SGLang knows the algorithm, in this process."""
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from lvspec_sglang.algorithm import NAME

    try:
        return SpeculativeAlgorithm.from_string(NAME) is not None
    except ValueError:
        return False


def _decoder_problem() -> list[str]:
    from lvspec_sglang.patches.video_decoder import torchcodec_works

    if torchcodec_works():
        print("video decoder: torchcodec (FFmpeg found)")
        return []
    if importlib.util.find_spec("decord") is not None:
        print("video decoder: decord (no FFmpeg libraries)")
        return []
    return ["no video decoder: run pip install decord2, or install FFmpeg 4 to 8"]
