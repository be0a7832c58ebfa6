"""A batch's similarities with itself, held at once: stripes, partners across them, threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hsssl_kernels import nt_xent
from hsssl_kernels.lse import held
from hsssl_kernels.lse.held import fits_at_once, self_lse_with_grad_held


def by_definition(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what `self_lse_with_grad_held` does, from the softmax of the whole matrix, in float64."""
    x = x.double()
    half, rows = len(x) // 2, torch.arange(len(x))
    s = (x @ x.T * scale).fill_diagonal_(-torch.inf)
    partner = torch.zeros_like(s)
    partner[rows, (rows + half) % len(x)] = 1
    others = s.masked_fill(partner > 0, -torch.inf).logsumexp(1)
    share = s.softmax(1)
    return others, (share + share.T - 2 * partner) @ x


@pytest.mark.parametrize("temperature", [0.5, 0.1, 0.01])  # the last would overflow without a shift
@pytest.mark.parametrize("n", [4, 254, 256, 258, 514, 768, 1300])
def test_stripes_give_what_the_definition_does(n: int, temperature: float) -> None:
    x = torch.nn.functional.normalize(torch.randn(n, 24, generator=torch.Generator().manual_seed(n)))
    exact = by_definition(x, 1 / temperature)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-12)):
        found = self_lse_with_grad_held(x.to(dtype), 1 / temperature)
        for a, b in zip(found, exact, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    x = torch.nn.functional.normalize(torch.randn(1300, 24, generator=torch.Generator().manual_seed(0)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(self_lse_with_grad_held(x, 10.0))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_a_batch_held_has_the_loss_and_gradient_of_one_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    views = torch.randn(2, 400, 24, generator=torch.Generator().manual_seed(1))
    losses, gradients = [], []
    for most in (800**2, 800**2 - 1):
        monkeypatch.setattr(held, "_MOST", most)
        assert fits_at_once(800) == (most == 800**2)
        z = views.clone().requires_grad_()
        loss = nt_xent(z[0], z[1], temperature=0.2, backend="torch")
        loss.backward()
        losses.append(loss.detach())
        gradients.append(z.grad)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-9)
