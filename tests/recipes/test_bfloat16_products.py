"""The exact shapes' products of bfloat16: a GPU's, on a CPU that has none."""

import pytest
import torch

from benchmarks.bfloat16_products import InFloat32


def _random(*shape: int) -> torch.Tensor:
    seeded = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=seeded).bfloat16()


@pytest.mark.parametrize(
    ("product", "shapes"),
    [
        (torch.mm, [(5, 64), (64, 7)]),
        (torch.addmm, [(7,), (5, 64), (64, 7)]),
        (torch.bmm, [(2, 5, 64), (2, 64, 7)]),
        (torch.baddbmm, [(2, 5, 7), (2, 5, 64), (2, 64, 7)]),
    ],
)
def test_a_product_is_that_of_float64_rounded_once(product, shapes) -> None:
    numbers = [_random(*shape) for shape in shapes]
    exact = product(*(number.double() for number in numbers))
    with InFloat32():
        found = product(*numbers)
    assert found.dtype == torch.bfloat16
    # Half a unit in the last of 8 bits, and float32's own rounding where that decides.
    torch.testing.assert_close(found.double(), exact, rtol=2**-8 * 1.001, atol=1e-5)


def test_a_layers_gradients_are_computed_so_too() -> None:
    layer = torch.nn.Linear(64, 7, dtype=torch.bfloat16)
    x = _random(5, 64).requires_grad_()
    with InFloat32():
        layer(x).float().square().sum().backward()
    grad = 2 * torch.nn.functional.linear(x, layer.weight, layer.bias).detach().double()
    exact = grad @ layer.weight.detach().double()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), exact, rtol=0.02, atol=0.02)


def test_other_types_are_left_alone() -> None:
    third = torch.full((2, 2), 1 / 3, dtype=torch.float64)
    exact = third @ third
    with InFloat32():
        found = third @ third
    assert found.dtype == torch.float64
    assert torch.equal(found, exact)
