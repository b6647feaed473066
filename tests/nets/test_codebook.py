"""The codebook: the nearest code, what it learns as the batches pass, and how much memory that takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

from voxray.nets import codebook
from voxray.nets.codebook import Codebook, nearest


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed))


def started(codes: torch.Tensor, **settings: float) -> Codebook:
    """Return a codebook that already has these codes, each used as often as the others."""
    with torch.random.fork_rng():
        found = Codebook(*codes.shape, **settings)
    found.codes.copy_(codes)
    found.shares.fill_(1 / len(codes))
    found.sums.copy_(codes / len(codes))
    found.started.fill_(True)
    return found


def test_the_nearest_code_is_that_of_all_distances() -> None:
    latents, codes = numbers(500, 8), numbers(70, 8, seed=1)
    assert torch.equal(nearest(latents, codes), torch.cdist(latents.double(), codes.double()).argmin(1))


def test_the_nearest_code_does_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, codes = numbers(501, 8), numbers(70, 8, seed=1)
    whole = nearest(latents, codes)
    for chunk in (1, 70 * 100, 70 * 501):
        monkeypatch.setattr(codebook, "_CHUNK", chunk)
        assert torch.equal(nearest(latents, codes), whole)


def test_I10_no_tensor_is_larger_than_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """All distances at once would be 2.1 GB at 128^3 voxels."""
    latents, codes = numbers(4000, 8), numbers(256, 8, seed=1)
    monkeypatch.setattr(codebook, "_CHUNK", 256 * 300)
    sizes: list[int] = []

    class Sizes(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            sizes.extend([result.untyped_storage().size() // 4] if isinstance(result, torch.Tensor) else [])
            return result

    with Sizes():
        nearest(latents, codes)
    assert 256 * 200 < max(sizes) <= 256 * 300
    assert codebook._CHUNK * 4 <= 64 * 2**20


def test_the_nearest_code_is_searched_in_single_precision_under_autocast() -> None:
    latents, codes = numbers(500, 8), numbers(70, 8, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest(latents, codes)
    assert torch.equal(found, nearest(latents, codes))


def test_latents_become_codes_where_they_stand() -> None:
    book, latents = started(numbers(70, 8, seed=1)), numbers(2, 8, 3, 4, 5)
    quantised = book(latents)
    assert quantised.indices.shape == (2, 3, 4, 5)
    for place in ((0, 0, 0, 0), (1, 2, 3, 4), (1, 0, 2, 1)):
        b, z, y, x = place
        code = book.codes[quantised.indices[place]]
        assert torch.allclose(quantised.latents[b, :, z, y, x], code, atol=1e-6)
        assert quantised.indices[place] == (book.codes - latents[b, :, z, y, x]).norm(dim=1).argmin()
    assert float(quantised.commitment) == pytest.approx(float((quantised.latents - latents).square().mean()), rel=1e-5)


def test_gradients_pass_straight_through_and_commitment_pulls() -> None:
    book, latents = started(numbers(70, 8, seed=1)), numbers(1, 8, 2, 2, 2).requires_grad_()
    weights = numbers(1, 8, 2, 2, 2, seed=2)
    quantised = book(latents)
    (through,) = torch.autograd.grad((quantised.latents * weights).sum(), latents, retain_graph=True)
    assert torch.equal(through, weights)
    (pull,) = torch.autograd.grad(quantised.commitment, latents)
    assert torch.allclose(pull, 2 * (latents - quantised.latents).detach() / latents.numel(), atol=1e-7)


def test_codes_follow_the_latents_as_the_formula_says() -> None:
    """N <- d N + (1 - d) n, m <- d m + (1 - d) sum z, e = m / N (arXiv 1711.00937, appendix A.1)."""
    codes = numbers(5, 3)
    book = started(codes, decay=0.9, dead_below=0.0)
    n = 2 * 4**3  # latents a batch
    shares, sums = torch.full((5,), 1 / n), codes / n
    book.shares.copy_(shares)
    book.sums.copy_(sums)
    for batch in range(4):
        latents = numbers(2, 3, 4, 4, 4, seed=10 + batch)
        flat = latents.movedim(1, -1).reshape(-1, 3)
        chosen = torch.cdist(flat, sums / shares[:, None]).argmin(1)
        quantised = book.learn(latents, rng())
        assert torch.equal(quantised.indices.flatten(), chosen), "codes are those from before the step"
        hot = torch.nn.functional.one_hot(chosen, 5).float()
        shares = 0.9 * shares + 0.1 * hot.sum(0) / n
        sums = 0.9 * sums + 0.1 * hot.T @ flat / n
        assert torch.allclose(book.shares, shares, rtol=1e-5)
        assert torch.allclose(book.codes, sums / shares[:, None], rtol=1e-4, atol=1e-5)


def test_looking_up_changes_nothing() -> None:
    book = started(numbers(70, 8, seed=1))
    before = {key: tensor.clone() for key, tensor in book.state_dict().items()}
    book(numbers(2, 8, 3, 4, 5))
    assert all(torch.equal(tensor, before[key]) for key, tensor in book.state_dict().items())


def test_codes_begin_as_latents_of_the_first_batch() -> None:
    with torch.random.fork_rng():
        book = Codebook(16, 8)
    latents = 100 + numbers(1, 8, 4, 4, 4)
    assert not bool(book.started)
    quantised = book.learn(latents, rng())
    assert bool(book.started)
    used = quantised.latents.movedim(1, -1).reshape(-1, 8)
    flat = latents.movedim(1, -1).reshape(-1, 8)
    assert torch.cdist(used.double(), flat.double()).min(1).values.max() < 1e-3


def test_more_codes_than_latents_are_told_apart() -> None:
    with torch.random.fork_rng():
        book = Codebook(64, 8, dead_below=0.0)
    book.learn(numbers(1, 8, 2, 2, 2), rng())
    assert len(book.codes.unique(dim=0)) == 64


def test_dead_codes_are_put_onto_latents_of_the_batch() -> None:
    codes = torch.cat([numbers(8, 4), 1e3 + numbers(8, 4)])  # the last eight are of no use to anyone
    book = started(codes, decay=0.5, dead_below=1.0)
    book.shares.fill_(1 / 6**3)  # each was used once a batch
    book.sums.copy_(codes / 6**3)
    latents = numbers(1, 4, 6, 6, 6, seed=3)
    flat = latents.movedim(1, -1).reshape(-1, 4)
    quantised = book.learn(latents, rng())
    assert int(quantised.indices.max()) < 8
    assert torch.cdist(book.codes[8:].double(), flat.double()).min(1).values.max() < 1e-5
    assert torch.allclose(book.sums[8:], book.codes[8:] / 6**3)
    assert torch.allclose(book.shares[8:], torch.full((8,), 1 / 6**3))
    assert float(quantised.usage(16)["codes_used"]) <= 0.5
    assert float(book.learn(latents, rng()).usage(16)["codes_used"]) > 0.5


def test_usage_is_the_share_and_the_perplexity() -> None:
    book = started(torch.eye(4))
    latents = torch.eye(4)[torch.tensor([0, 0, 1, 1])].T.reshape(1, 4, 4)
    usage = book(latents).usage(4)
    assert float(usage["codes_used"]) == 0.5
    assert float(usage["perplexity"]) == pytest.approx(2.0, rel=1e-4)


_PROCESS = """
import sys, torch
import torch.distributed as dist
from voxray.nets.codebook import Codebook

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
book = Codebook(24, 4, decay=0.9)
for step in range(5):
    rng = torch.Generator().manual_seed(1000 * rank + step)
    book.learn(torch.randn(1, 4, 4, 4, 4, generator=rng), rng)
torch.save(book.state_dict(), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_D8_two_processes_end_with_the_same_codes(tmp_path: Path) -> None:
    """Each has other first codes, other latents, and would put dead codes elsewhere."""
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", _PROCESS, str(tmp_path), str(rank)], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert int((one["shares"] > 1 / 128).sum()) > 4
