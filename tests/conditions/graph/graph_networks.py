"""Small networks of every common kind, written with torch alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


def resnet_like() -> nn.Module:
    blocks = [Residual(8) for _ in range(3)]
    stem = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(
        *stem, nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


class InvertedResidual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU6(inplace=True),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.Hardswish(inplace=True),
            nn.Conv2d(4 * width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def mobilenet_like() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        InvertedResidual(8),
        InvertedResidual(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, 10),
    )


class DenseLayer(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x), inplace=True))], 1)


def densenet_like() -> nn.Module:
    layers = [DenseLayer(8 + 4 * i, 4) for i in range(4)]
    transition = [nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 12, 1), nn.AvgPool2d(2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers, *transition, *head)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(scale))))


def efficientnet_like() -> nn.Module:
    def stage() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            SqueezeExcite(8),
            nn.Conv2d(8, 8, 1),
        )

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), stage(), stage(), *head)


class GoogLeNetLike(nn.Module):
    """Branches side by side, and an auxiliary head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.one, self.three, self.five = (nn.Conv2d(8, 4, k, padding=k // 2) for k in (1, 3, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 4, 1))
        self.head, self.auxiliary = nn.Linear(16, 10), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.stem(x))
        branches = [self.one(x), self.three(x), self.five(x), self.pool(x)]
        out = self.head(F.relu(torch.cat(branches, 1)).mean((2, 3)))
        return (out, self.auxiliary(x.mean((2, 3)))) if self.training else out


def vgg_like() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in ((3, 8), (8, 16)):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 8 * 8, 32), nn.Linear(32, 10))


class AlexNetLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 16, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(64, 32), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class MixerLayer(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 8), nn.GELU(), nn.Linear(8, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class MixerLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.layers = nn.ModuleList(MixerLayer(64, 8) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


class UNet(nn.Module):
    """With group norm, a learned upsampling, an interpolating one, and skip connections."""

    def __init__(self) -> None:
        super().__init__()

        def stage(i: int, o: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(2, o), nn.SiLU())

        self.down1, self.down2, self.middle = stage(3, 8), stage(8, 16), stage(16, 16)
        self.up2 = nn.ConvTranspose2d(16, 16, 2, 2)
        self.join2, self.join1 = stage(32, 8), stage(16, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.up2(self.middle(F.max_pool2d(second, 2)))
        x = self.join2(torch.cat([x, second], 1))
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.out(self.join1(torch.cat([x, first], 1)))


class DetrLike(nn.Module):
    """A convolutional stem, an encoder and decoder of torch, queries and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 8, 8)
        self.transformer = nn.Transformer(8, 2, 2, 2, 16, batch_first=True)
        self.queries = nn.Parameter(torch.zeros(5, 8))
        self.rows, self.columns = (nn.Parameter(torch.zeros(50, 4)) for _ in range(2))
        self.classes, self.boxes = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        height, width = h.shape[-2:]
        columns = self.columns[:width].unsqueeze(0).repeat(height, 1, 1)
        rows = self.rows[:height].unsqueeze(1).repeat(1, width, 1)
        place = torch.cat([columns, rows], -1).flatten(0, 1)
        queries = self.queries.unsqueeze(0).expand(len(x), -1, -1)
        out = self.transformer(place + h.flatten(2).transpose(1, 2), queries)
        return {"logits": self.classes(out), "boxes": self.boxes(out).sigmoid()}


class Recurrent(nn.Module):
    def __init__(self, kind: str, **options: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnn = getattr(nn, kind)(6, 8, batch_first=True, **options)
        width = options.get("proj_size", 8) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0])


class Cells(nn.Module):
    """Recurrences step by step, with cells."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(4, 6), nn.GRUCell(6, 6), nn.RNNCell(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.lstm(x)
        return self.rnn(self.gru(h, c))


class Bare(nn.Module):
    """Parameters that belong to no layer, of several numbers of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(6, 4))
        self.shift, self.scale = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(()))
        self.mixing = nn.Parameter(torch.zeros(2, 3, 4, 4))
        self.several = nn.ParameterList(nn.Parameter(torch.zeros(4)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = (x @ self.matrix + self.shift) * self.scale
        x = torch.einsum("bi,hkij->bj", x, self.mixing)
        for parameter in self.several:
            x = x + parameter.exp()
        return x


class Tied(nn.Module):
    """One matrix as embedding and head, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.again = self.layer
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.again(torch.tanh(self.layer(self.embedding(tokens)))))


class AutoEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 16), nn.ELU(), nn.Linear(16, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.PReLU(), nn.Linear(16, 64), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Norms(nn.Module):
    """Every norm of torch, and one that a module spells out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm1d(8),
                nn.InstanceNorm1d(8, affine=True),
                nn.GroupNorm(4, 8),
                nn.LayerNorm(64),
                nn.RMSNorm(64),
                SpeltOut(64),
            ]
        )
        self.plain = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for norm in self.norms:
            x = norm(x)
        return self.plain(x)


class SpeltOut(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.AvgPool3d(2),
        nn.ConvTranspose3d(4, 2, 2, 2), nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(2, 2),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 3))


def gcn() -> nn.Module:
    from torch_geometric.nn import GCNConv

    return GraphNetwork(GCNConv(5, 8), GCNConv(8, 3))


def gat() -> nn.Module:
    from torch_geometric.nn import GATConv, SAGEConv

    return GraphNetwork(GATConv(5, 4, heads=2), SAGEConv(8, 3))


class GraphNetwork(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x, edge_index)), edge_index)


def weight_tied_lstm() -> nn.Module:
    model = Recurrent("LSTM", proj_size=6)
    model.head.weight = model.embedding.weight
    return model


NETWORKS = {
    "mlp": mlp,
    "resnet": resnet_like,
    "mobilenet": mobilenet_like,
    "densenet": densenet_like,
    "efficientnet": efficientnet_like,
    "googlenet": GoogLeNetLike,
    "vgg": vgg_like,
    "alexnet": AlexNetLike,
    "mixer": MixerLike,
    "unet": UNet,
    "detr": DetrLike,
    "lstm": lambda: Recurrent("LSTM", num_layers=2, bidirectional=True),
    "gru": lambda: Recurrent("GRU"),
    "rnn": lambda: Recurrent("RNN", nonlinearity="relu", bias=False),
    "lstm-tied": weight_tied_lstm,
    "cells": Cells,
    "bare": Bare,
    "tied": Tied,
    "autoencoder": AutoEncoder,
    "norms": Norms,
    "volumes": volumes,
    "gcn": gcn,
    "gat": gat,
}
# Shapes that cannot be guessed from the first layer.
EXAMPLES: dict[str, object] = {"vgg": (2, 3, 32, 32), "norms": (2, 3, 64), "bare": (2, 6)}
