"""The last step to a distribution: scale, soft cap and temperature of the logits, as one curve with a slope."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Curve:
    """`z = x / divisor`, or `z = height * tanh(x / divisor)`, for x the output of the head's linear map."""

    divisor: float = 1.0
    height: float | None = None
    """`None` where there is no soft cap."""

    @classmethod
    def of(cls, temperature: float, scale: float = 1.0, soft_cap: float | None = None) -> Curve:
        """`cap(scale * x) / temperature` with `cap(y) = soft_cap * tanh(y / soft_cap)`.

        Raises:
            ValueError: a scale or soft cap that is not above 0.
        """
        if not scale > 0 or (soft_cap is not None and not soft_cap > 0):
            raise ValueError(f"scale and soft cap of logits must be above 0, got {scale} and {soft_cap}")
        if soft_cap is None:
            return cls(temperature / scale)
        return cls(soft_cap / scale, soft_cap / temperature)

    def on(self, x: Tensor) -> Tensor:
        """`z`, of `x` as the head gives it."""
        divided = x / self.divisor
        return divided if self.height is None else divided.tanh() * self.height

    def apply_(self, x: Tensor) -> Tensor:
        """`z` in place, of `x` that is already divided."""
        return x if self.height is None else x.tanh_().mul_(self.height)

    def slope(self, z: Tensor) -> Tensor | None:
        """d z / d (x / divisor), of the shape of `z`; `None` where it is 1."""
        if self.height is None:
            return None
        return (z / self.height).square_().neg_().add_(1).mul_(self.height)


PLAIN = Curve()
"""Temperature 1 and nothing else."""
