"""The control: scores that know nothing of the video."""

import torch


class RandomScores:
    """Uniform scores from a generator of its own, so that sampling is left alone."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers: tuple[int, ...] = ()
        self.listening = False
        self._generator: torch.Generator | None = None

    def observe(self, layer: int, mass: torch.Tensor) -> None:
        """Nothing is observed."""

    def scores(self, batch: int, width: int, device: torch.device) -> torch.Tensor:
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(0)
        return torch.rand(batch, width, generator=self._generator, device=device)
