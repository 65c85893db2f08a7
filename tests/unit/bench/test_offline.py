import mmap
from importlib.util import find_spec
from pathlib import Path

from lvspec_sglang.bench.offline import pack, sglang_kernels

HOPPER = pack.CUBIN, pack.HOPPER


def gpu_code(library: Path) -> list[tuple[int, int, bytes]]:
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return [
            entry
            for name, start, size in pack.sections(data)
            if name == ".nv_fatbin"
            for _, first, end in pack.containers(data, start, start + size)
            for entry in pack.entries(data, first, end)
        ]


def test_a_library_keeps_its_hopper_code_and_its_size(tmp_path: Path) -> None:
    package = find_spec("sgl_kernel")
    assert package is not None and package.origin is not None
    library = Path(package.origin).parent / "spatial_ops.abi3.so"
    cut = pack.hopper_only(library, tmp_path)
    before = gpu_code(library)
    kept = [entry for entry in before if entry[:2] == HOPPER]
    assert gpu_code(cut) == kept and 0 < len(kept) < len(before)
    assert cut.stat().st_size == library.stat().st_size


def test_what_is_left_behind() -> None:
    left = "sgl_kernel/sm100/", "flashinfer/data/csrc/cake_fmha/", "sglang/test/test_utils.py"
    assert all(map(pack.LEFT.search, left))
    # xgrammar finds its library through RECORD, SGLang imports its NPU modules everywhere.
    kept = (
        "xgrammar-0.2.7.dist-info/RECORD",
        "sglang/srt/hardware_backend/npu/dsv4/dsv4_common_hooks.py",
        "sgl_kernel/sm90/common_ops.abi3.so",
        "flashinfer/data/csrc/norm.cu",
    )
    assert not any(map(pack.LEFT.search, kept))


def test_each_kernel_that_a_server_compiles_is_named_once() -> None:
    made = [(build.func.__name__, build.args) for build in sglang_kernels.builds()]
    assert len(made) == len(set(made))
    assert {row for name, (row, *_) in made if "kvcache" in name} >= {512, 1024, 2048}
