"""LeNet-5 (LeCun et al. 1998, section II.B), the smallest of the networks."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """All but the last layer: ``(B, 1 or 3, H, W)`` pixels to ``(B, 84)``.

    Rectified linear units take the place of the squashing functions, the average that of the trainable subsampling,
    and C3 sees all maps of S2. The second average yields 5 x 5 cells for images of any size; for the paper's 32 x 32
    pixels it is the paper's. Images have at least 14 x 14 pixels.

    Args:
        channels: of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.linear1 = nn.Linear(16 * 5 * 5, 120)
        self.linear2 = nn.Linear(120, 84)
        self.out_channels = 84
        self.relu = nn.ReLU(inplace=True)
        self.halve = nn.AvgPool2d(2)
        self.shrink = nn.AdaptiveAvgPool2d(5)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels to vectors."""
        features = self.halve(self.relu(self.conv1(pixels)))
        features = self.shrink(self.relu(self.conv2(features)))
        return self.relu(self.linear2(self.relu(self.linear1(features.flatten(1)))))  # type: ignore[no-any-return]
