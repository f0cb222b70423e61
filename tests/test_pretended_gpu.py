"""The pretended card refuses what a card refuses, and notes each kind of wait."""

from collections.abc import Callable
from typing import Any

import pretended_gpu
import pytest
import torch
from pretended_gpu import CARD, MixedDevicesError
from torch import Tensor
from torch.nn.functional import embedding, linear

HERE = torch.arange(3.0)


def there(values: Any = (0.0, 1.0, 2.0)) -> Tensor:
    """A tensor on the card."""
    return torch.tensor(values).to("cuda")


MIXES: list[Callable[[], object]] = [
    lambda: there() + HERE,
    lambda: HERE + there(),
    lambda: HERE.add_(there()),
    lambda: torch.zeros(()).add_(there(1.0)),
    lambda: torch.cat([there(), HERE]),
    lambda: torch.stack([there(), HERE]),
    lambda: torch.where(there() > 0, there(), HERE),
    lambda: there().index_select(0, torch.tensor([0])),
    lambda: there().gather(0, torch.tensor([0])),
    lambda: HERE[there([0, 1])],
    lambda: there().index_put_((there([0, 1]),), HERE[:2]),
    lambda: embedding(torch.tensor([1]), torch.eye(3).cuda()),
    lambda: linear(there(), torch.eye(3)),
    lambda: torch.eye(3) @ there(),
    lambda: torch.eye(3, device="cuda").addmv(HERE, HERE),
    lambda: torch.searchsorted(there(), HERE),
    lambda: there().repeat_interleave(torch.tensor([1, 2, 3])),
    lambda: torch.mm(torch.eye(3).cuda(), torch.eye(3).cuda(), out=torch.eye(3)),
    lambda: torch.nn.Linear(3, 3).to("cuda")(HERE),
    lambda: (HERE.clone().requires_grad_() * 2 + there()).sum().backward(),
]


@pytest.mark.parametrize("infers", [False, True])
@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_is_refused(mix: Callable[[], object], infers: bool) -> None:
    with (
        pretended_gpu.at_hand(),
        torch.inference_mode(infers),
        pytest.raises(MixedDevicesError, match="on the card"),
    ):
        mix()


@pytest.mark.parametrize("ask", [Tensor.numpy, lambda t: t.__array__(), lambda t: t.cpu() + t])
def test_what_is_on_the_card_is_not_read_as_if_it_were_here(
    ask: Callable[[Tensor], object],
) -> None:
    with pretended_gpu.at_hand(), pytest.raises((TypeError, MixedDevicesError)):
        ask(there())


ALLOWED: list[Callable[[], Tensor]] = [
    lambda: there() + torch.tensor(1.0),
    lambda: torch.tensor(2.0) * there(),
    lambda: torch.where(there() > 0, there(), torch.tensor(0.0)),
    lambda: there().masked_fill(there() > 1, torch.tensor(0.0)),
    lambda: there().sub_(1).clamp(min=0).cumsum(0),
    lambda: torch.zeros_like(there()) + torch.arange(3, device=CARD) + there().new_zeros(3),
    lambda: torch.nn.Linear(3, 3).cuda()(there()),
]


@pytest.mark.parametrize("work", ALLOWED)
def test_work_on_the_card_stays_there_and_waits_for_nothing(work: Callable[[], Tensor]) -> None:
    with pretended_gpu.at_hand() as gpu:
        there()
        one = len(gpu.waits)  # of a call of `there`
        gpu.waits.clear()
        found = work()
        assert (found.device, found.is_cuda, found.is_cpu) == (CARD, True, False)
        assert {wait.kind for wait in gpu.waits} <= {"copy to the card"}
        assert one == 1
        assert gpu.operators > 0


def filled(mask: Tensor) -> Tensor:
    """Three numbers on the card, 0 at a mask."""
    found = torch.arange(3, device="cuda")
    found[mask] = 0
    return found


WAITS: list[tuple[str | None, Callable[[Tensor], object]]] = [
    ("item", lambda t: t[0].item()),
    ("item", lambda t: float(t[0])),
    ("item", lambda t: int(t[0])),
    ("item", lambda t: bool((t > 1).all())),
    ("item", lambda t: [1, 2, 3][t[1].long()]),
    ("item", lambda t: f"{t[0]:.1f}"),
    ("tolist", Tensor.tolist),
    ("nonzero", lambda t: t.nonzero()),
    ("nonzero", lambda t: t[t > 1]),
    ("nonzero", lambda t: torch.where(t > 1)),
    ("nonzero", lambda t: t.index_put_((t > 0,), t[:2].clone())),
    ("masked_select", lambda t: t.masked_select(t > 1)),
    ("repeat_interleave", lambda t: t.repeat_interleave(t.long())),
    ("bincount", lambda t: t.long().bincount()),
    ("_unique2", lambda t: t.unique()),
    ("equal", lambda t: torch.equal(t, t)),
    ("copy to the CPU", Tensor.cpu),
    ("copy to the CPU", lambda t: t.to("cpu", non_blocking=True)),
    ("copy to the CPU", lambda t: t.to(HERE)),
    ("copy to the CPU", lambda t: torch.zeros(3).copy_(t)),
    ("copy to the card", lambda t: HERE.to("cuda")),
    ("copy to the card", lambda t: HERE.to(t.device, non_blocking=True)),
    ("copy to the card", lambda t: HERE.pin_memory().to(t.device)),
    ("copy to the card", lambda t: torch.tensor([1.0], device=t.device)),
    ("copy to the card", lambda t: t.new_tensor([1.0])),
    ("copy to the card", lambda t: t[[0, 2]]),
    ("copy to the card", lambda t: t[torch.tensor([0, 2])]),
    ("copy to the card", lambda t: t.__setitem__(slice(0, 3), HERE)),
    (None, lambda t: HERE.pin_memory().to(t.device, non_blocking=True)),
    (None, lambda t: t.repeat_interleave(t.long(), output_size=3)),
    (None, lambda t: filled(t > 1)),
    (None, lambda t: t[1:].view(2, 1) + t[None, :2]),
    (None, lambda t: t.to("cuda").to(torch.float64)),
    (None, lambda t: torch.zeros(3, device=t.device)),
]


@pytest.mark.parametrize("infers", [False, True])
@pytest.mark.parametrize(("kind", "ask"), WAITS)
def test_each_wait_is_noted_once(
    kind: str | None, ask: Callable[[Tensor], object], infers: bool
) -> None:
    """In inference mode torch takes fewer operators apart before the devices see them."""
    with pretended_gpu.at_hand() as gpu, torch.inference_mode(infers):
        tensor = there()
        gpu.waits.clear()
        ask(tensor)
        assert [wait.kind for wait in gpu.waits] == ([] if kind is None else [kind])
        assert all("test_pretended_gpu.py" in wait.line for wait in gpu.waits)


def test_parameters_gradients_and_copies_are_where_their_storage_is() -> None:
    """The numbers are those of the CPU; at the end all is as before."""
    module = torch.nn.Linear(3, 2)
    expected = torch.autograd.grad(module(HERE).sum(), module.weight)[0]
    with pretended_gpu.at_hand() as gpu:
        module.to("cuda")
        module(there()).sum().backward()
        assert module.weight.grad is not None
        assert {module.weight.device, module.bias.device, module.weight.grad.device} == {CARD}
        assert module.weight.data.view(-1)[1:].is_cuda
        found = module.weight.grad.cpu()
        assert found.device.type == "cpu"
        assert torch.equal(found, expected)
        assert [wait.kind for wait in gpu.waits[-1:]] == ["copy to the CPU"]
    assert module.weight.device.type == "cpu"


def test_other_devices_are_left_alone() -> None:
    with pretended_gpu.at_hand():
        meta = torch.zeros(3, device="meta")
        assert {meta.device.type, HERE.to("meta").device.type, meta.new_zeros(2).device.type} == {
            "meta"
        }
        assert (meta.is_cpu, meta.is_cuda, HERE.is_cpu, HERE.is_cuda) == (False, False, True, False)
        assert torch.zeros_like(meta, device="cpu").device.type == "cpu"
