"""FlashInfer's plans in captured graphs and the mass kernel on the device, against torch."""

import pytest
import torch

from lvspec_sglang.bench.captured import CapturedAttention
from lvspec_sglang.bench.kernels import WIDTH, Case, captured
from lvspec_sglang.bench.shapes import SHAPES
from lvspec_sglang.bench.verify_rows import accept_row, compare_row


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "shared"), [(1, False), (4, False), (4, True), (16, True)])
def test_verify_attention(shape: str, batch: int, shared: bool) -> None:
    case = Case(SHAPES[shape], 1500, batch, shared, "cuda")
    for together in (False, True) if shared else (False,):
        graph = captured(case, together)
        assert_attends(graph, case, [case.length] * batch)
        # The next round of the same graph: other lengths, and half of the readers gone.
        lens = [case.length - 7 * i for i in range(batch)]
        contexts = [c if i < batch // 2 else c._replace(prefix=None)
                    for i, c in enumerate(case.contexts)]  # fmt: skip
        graph.plan(contexts, lens)
        assert_attends(graph, case, lens)


def assert_attends(graph: CapturedAttention, case: Case, lens: list[int]) -> None:
    output = graph.replay()
    for request, length in enumerate(lens):
        found = output[request * WIDTH : (request + 1) * WIDTH].float()
        expected = case.reference(request, length)[0]
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 16])
def test_mass_and_focus(shape: str, batch: int) -> None:
    from lvspec_sglang.attention.mass_kernel import paged_visual_attention

    case = Case(SHAPES[shape], 3000, batch, False, "cuda")
    out = torch.full((2, len(case.q), case.shape.heads), torch.nan, device="cuda")
    paged_visual_attention(
        case.q, case.keys, case.table, case.rows, case.seq_lens, case.visual, case.scale, *out
    )
    for request in (0, batch - 1):
        mine = out[:, request * WIDTH : (request + 1) * WIDTH]
        for found, expected in zip(mine, case.reference(request)[1:], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_the_verdict_is_the_references(batch: int) -> None:
    assert compare_row(batch, "cuda")["kernel_equal"]
    assert accept_row(batch, "cuda")["kernel_equal"]
