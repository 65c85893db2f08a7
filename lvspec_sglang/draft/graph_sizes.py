"""The batch sizes of the draft's decode graphs: the server's, and twice each.

The first step of a chain runs two rows a request, the others one, and the host captures a graph
for each size it expects of a batch of requests.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sglang.srt.runtime_context import get_exec


@contextmanager
def chain_sizes() -> Iterator[None]:
    """Have decode graphs captured meanwhile for one and for two rows a request.

    The list is the process's, and the target's graphs have been captured when the draft's are.
    """
    config = get_exec().graph.cuda_graph_config
    if config is None or not config.decode.bs:
        yield
        return
    sizes, most = config.decode.bs, config.decode.max_bs
    config.decode.bs = sorted({*sizes, *(2 * size for size in sizes)})
    config.decode.max_bs = config.decode.bs[-1]
    try:
        yield
    finally:
        config.decode.bs, config.decode.max_bs = sizes, most
