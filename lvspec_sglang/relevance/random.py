"""The control: scores that know nothing of the video."""

import torch


class RandomScores:
    """Uniform scores from a generator of its own, so that sampling is left alone."""

    reads = "nothing"

    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers: tuple[int, ...] = ()
        self.listening = False
        self._generator: torch.Generator | None = None

    def observe(self, mass: torch.Tensor, focus: torch.Tensor) -> None:
        """Nothing is observed."""

    def scores(self, rows: torch.Tensor, width: int, reach: int) -> torch.Tensor:
        if self._generator is None:
            self._generator = torch.Generator(rows.device).manual_seed(0)
        return torch.rand(len(rows), width, generator=self._generator, device=rows.device)
