"""The fast encoding is that of the quantizer."""

import pytest
import torch

from bbqrec_core import ResidualQuantizer
from bbqrec_lab.speed.encoding import BLOCK, encode


@pytest.mark.parametrize("shape", [(0,), (), (7,), (BLOCK,), (2, BLOCK + 3)])
def test_encoding_in_blocks_gives_the_codes_of_the_whole(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(3, 5, 7).double()
    signal = torch.randn(*shape, 7, dtype=torch.float64)
    before = signal.clone()
    assert torch.equal(encode(quantizer, signal), quantizer(signal).codes)
    assert torch.equal(signal, before)
