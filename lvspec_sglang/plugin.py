"""The door: what SGLang calls when it loads its plugins, in every process it starts.

SGLang only logs a plugin that fails, so nothing here fails by itself: what is wrong is said when
LVSPEC is asked for. Without that, an installed lvspec_sglang adds one flag to the command line and
changes nothing else on a machine with an accelerator.
"""

from lvspec_sglang import platform


def register() -> None:
    """Make LVSPEC known to SGLang; on the CPU platform, patch what SGLang needs there."""
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from lvspec_sglang import algorithm, patches

    SpeculativeAlgorithm.register(
        algorithm.NAME,
        supports_overlap=True,
        validate_server_args=algorithm.validate_server_args,
        spec_class=algorithm.LVSpecAlgorithm,
    )(algorithm.create_worker)
    patches.register(patches.ALWAYS)
    if platform.applies():
        patches.register(patches.CPU_PLATFORM)
