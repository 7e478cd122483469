"""Attention in blocks against the plain form: all tokens at once, and a mask."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from jaisp.model.attention import LocalAttention

WIDTH, HEADS = 16, 2
SIDES = st.integers(1, 21)


def all_at_once(layer: LocalAttention, x: Tensor) -> Tensor:
    """What the layer adds to `x`, by products of every token with every other."""
    samples, _, height, length = x.shape
    place = torch.cartesian_prod(torch.arange(height), torch.arange(length))
    y = layer.norm(x.permute(0, 2, 3, 1)).flatten(1, 2)
    query, (key, value) = layer.query(y), layer.key_value(y).chunk(2, dim=-1)
    angle = (place[:, :, None] * layer.turns.double()).flatten(1)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]

    def heads(vectors: Tensor, turned: bool) -> Tensor:
        vectors = vectors.unflatten(-1, (HEADS, -1)).double()
        if turned:
            first, second = vectors.chunk(2, dim=-1)
            pairs = torch.complex(first, second) * turn
            vectors = torch.cat([pairs.real, pairs.imag], dim=-1)
        return vectors.transpose(1, 2)

    score = heads(query, True) @ heads(key, True).transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
    apart = (place[:, None] - place).abs().amax(dim=-1)
    share = score.masked_fill(apart > layer.reach, -torch.inf).softmax(dim=-1)
    found = (share @ heads(value, False)).transpose(1, 2).flatten(2).float()
    added = functional.linear(found, layer.out.weight, layer.out.bias) * layer.scale
    return added.view(samples, height, length, WIDTH).permute(0, 3, 1, 2)


@settings(deadline=None, max_examples=30)
@given(height=SIDES, length=SIDES, reach=st.sampled_from([1, 2, 4, 5, 8, 9]))
def test_blocks_give_what_all_tokens_at_once_do(height: int, length: int, reach: int):
    torch.manual_seed(1)
    layer = LocalAttention(WIDTH, HEADS, reach, token_arcsec=0.8)
    x = torch.randn(2, WIDTH, height, length, requires_grad=True)
    wanted, found = all_at_once(layer, x), layer(x) - x
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    weight = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_far_down_an_image_vectors_are_turned_as_at_its_top():
    torch.manual_seed(1)
    layer = LocalAttention(WIDTH, HEADS, 4, token_arcsec=0.8)
    query, key = torch.randn(2, WIDTH)
    turned = [layer._turned(each.expand(1, 4096, 1, WIDTH))[0, :, 0] for each in (query, key)]
    score = (turned[0][:-4] * turned[1][4:]).unflatten(-1, (HEADS, -1)).sum(dim=-1)
    # Angles of thousands of tokens in float32 miss this a hundredfold.
    torch.testing.assert_close(score, score[:1].expand_as(score), rtol=0, atol=1e-5)
