"""Pack what a Hopper GPU host without a network lacks to run the benches: ``pack.py SITE OUT``.

SITE is what ``packages.txt`` names, installed with ``--target``. OUT receives ``core.tar.xz`` and
``video.tar.xz``, in parts where a way to the host is narrow. What cannot run there is left behind:
kernels for other GPUs, FA3's for other heads and dtypes, sources of kernels for other models.
"""

import argparse
import mmap
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

VIDEO = {"av", "av.libs", "decord", "decord2.libs"}
LEFT = re.compile(
    r"__pycache__|\.dist-info/licenses|_cu12\.abi3\.so|^bin/|^share/"
    r"|^sgl_kernel/(sm100|infllm_ops|flashmla_ops)"
    r"|^sglang/(test/|srt/(mem_cache/rust_tree_core/.*\.so|hardware_backend/npu/kernels/))"
    r"|^sglang/srt/rust_extensions/_(server|bench|grpc)|^zstandard/_cffi"
    r"|^flashinfer/(fused_moe/backends/cudnn_frost/artifacts|moe_ep/kernel_src|experimental/.*/csrc)"
    r"|^flashinfer/data/csrc/(cake_|kda/|gdn/|fused_moe/|blackwell|experimental/|alphamoe)"
    r"|^flashinfer/data/cutlass/(python|examples|test|tools/(library|profiler))/"
)
FLASH = re.compile(
    rb"flash_(fwd_hdim(64|96|128)_bf16(_paged)?(_split|_packgqa)?_sm90_cu|fwd_combine|prepare)"
)
LIBRARY = re.compile(r"\.so[.\d]*$")
CUBIN, HOPPER, FATBIN = 2, 90, 0xBA55ED50
XZ = ["xz", "--lzma2=preset=9,dict=192MiB", "-c"]  # the video libraries hold the same code twice

# SGLang imports its Blackwell GEMM, and with it CUTLASS's compiler, on every CUDA GPU.
DUAL_GEMM = "sglang/kernels/ops/gemm/cutedsl_dual_gemm.py"
NO_DUAL_GEMM = """from enum import Enum

MAX_DUAL_GEMM_DECODE_TOKENS = 16
DualGemmQuantMode = Enum("DualGemmQuantMode", "UNQUANT DYNAMIC_PER_TOKEN STATIC_PER_TENSOR")


def can_use_dual_gemm(*_args):
    return False
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kernels", type=Path, help="FlashInfer kernels that kernels.py compiled")
    parser.add_argument("--part-mib", type=int, help="size of a part (no parts)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tops = sorted(path.name for path in arguments.site.iterdir())
    for name, chosen in {
        "core": [top for top in tops if top not in VIDEO],
        "video": [top for top in tops if top in VIDEO],
    }.items():
        packed = arguments.out / f"{name}.tar.xz"
        with tempfile.TemporaryDirectory() as folder, tarfile.open(f"{folder}/tar", "w") as tar:
            for top in chosen:
                add(tar, arguments.site, top, Path(folder))
            if arguments.kernels and name == "core":
                tar.add(arguments.kernels, "flashinfer/data/aot")
            tar.close()
            with packed.open("wb") as file:
                subprocess.run([*XZ, f"{folder}/tar"], stdout=file, check=True)
        print(f"{packed}: {packed.stat().st_size / 2**20:.1f} MiB")
        if arguments.part_mib:
            part = ["split", "-d", "-b", f"{arguments.part_mib}M", str(packed), f"{packed}."]
            subprocess.run(part, check=True)
            packed.unlink()


def add(tar: tarfile.TarFile, site: Path, top: str, folder: Path) -> None:
    """Add what of ``site / top`` the host can run."""

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = site / entry.name
        if LEFT.search(entry.name + "/" * entry.isdir()) or entry.name == DUAL_GEMM:
            return None
        if entry.isfile() and LIBRARY.search(path.name):
            tar.add(hopper_only(path, folder), entry.name)
            return None
        return entry

    tar.add(site / top, top, filter=wanted)
    if top == "sglang":
        replaced = folder / "dual_gemm.py"
        replaced.write_text(NO_DUAL_GEMM)
        tar.add(replaced, DUAL_GEMM)


def hopper_only(library: Path, folder: Path) -> Path:
    """A copy with zeros, which pack to nothing, for other GPUs' code, symbols and debug data."""
    copy = Path(shutil.copy(library, folder))
    keep: Callable[[bytes], object] = FLASH.search if "flash_ops" in library.name else bool
    with copy.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for name, start, size in sections(data):
            if name in (".symtab", ".strtab") or name.startswith(".debug"):
                data[start : start + size] = bytes(size)
            elif name in (".nv_fatbin", "__nv_relfatbin"):
                for at, first, end in containers(data, start, start + size):
                    kept = b"".join(
                        entry for kind, arch, entry in entries(data, first, end)
                        if (kind, arch) == (CUBIN, HOPPER) and keep(entry)
                    )  # fmt: skip
                    data[first:end] = kept + bytes(end - first - len(kept))
                    struct.pack_into("<Q", data, at + 8, len(kept))
    return copy


def sections(elf: mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of each section of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    for name, _, _, _, start, length in headers:
        at = headers[names][4] + name
        yield elf[at : elf.find(b"\0", at)].decode(), start, length


def containers(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Header, first byte and end of each container of GPU code."""
    while at < stop - 16:
        magic, _, header, size = struct.unpack_from("<IHHQ", data, at)
        end = at + header + size if magic == FATBIN else at + 8
        if magic == FATBIN:
            yield at, at + header, end
        at = (end + 7) // 8 * 8


def entries(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Kind, architecture and bytes of each entry of a container."""
    while at < end - 32:
        kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
        (arch,) = struct.unpack_from("<I", data, at + 28)
        yield kind, arch, data[at : at + header + size]
        at += header + size


if __name__ == "__main__":
    main()
