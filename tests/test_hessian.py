"Curvature: closed forms, dense matrices, finite differences of gradients, no trace, interrupts, and what it refuses."
import copy
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, TensorDataset

from dlpractice.errors import ArgumentError
from dlpractice.hessian import Curvature, curvature, dense_hessian, hessian_directions, hessian_product
from dlpractice.lanczos import Lanczos, SpectralDensity, mean_error, quadratures, trace_samples
from dlpractice.snapshots import seeded

QUIET = dict(progress=False)


def symmetric(values, seed=0):
    "A matrix with these eigenvalues."
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return torch.from_numpy(q*np.asarray(values, float)@q.T)


def gradient(model, batch, loss_fn=F.cross_entropy):
    ps = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss_fn(model(*batch[:-1]), batch[-1]), ps, allow_unused=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(ps, grads)])


def differences(model, batch, loss_fn=F.cross_entropy, h=1e-5):
    "The Hessian by central differences of the gradient, in float64: knows nothing of second derivatives."
    model = copy.deepcopy(model).double().eval()
    batch, columns = [o.double() if o.is_floating_point() else o for o in batch], []
    for p in (p for p in model.parameters() if p.requires_grad):
        flat = p.data.view(-1)
        for i in range(flat.numel()):
            was = flat[i].item()
            flat[i] = was + h
            up = gradient(model, batch, loss_fn)
            flat[i] = was - h
            columns.append((up - gradient(model, batch, loss_fn))/(2*h))
            flat[i] = was
    return torch.stack(columns, 1)


def world(n=40, dim=4, classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=g), torch.randint(classes, (n,), generator=g)


def net(seed=0, wide=6):
    "BatchNorm for buffers, dropout for randomness."
    with seeded(seed): return nn.Sequential(nn.Linear(4, wide), nn.BatchNorm1d(wide), nn.Tanh(), nn.Dropout(0.3), nn.Linear(wide, 3))


def flat(direction): return torch.cat([t.flatten() for t in direction.values()])


def everything(model):
    return dict(state={k: v.clone() for k, v in model.state_dict().items()}, grads=[None if p.grad is None else p.grad.clone() for p in model.parameters()],
                needs=[p.requires_grad for p in model.parameters()], modes=[m.training for m in model.modules()], dtypes=[p.dtype for p in model.parameters()],
                ids=[(id(p), p.data_ptr(), id(p.grad)) for p in model.parameters()], torch=torch.get_rng_state(), numpy=np.random.get_state()[1].copy(), python=random.getstate())


def same(a, b):
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray): return np.array_equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


# ---- Lanczos, trace and density on matrices

@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.floats(-5, 5).map(lambda v: round(v, 2)), st.sampled_from([-3., 0., 3.])), min_size=1, max_size=60), st.integers(1, 3), st.integers(0, 3), st.integers(0, 9))
def test_ends_of_any_spectrum(values, top, bottom, seed):
    "Repeated, zero and clustered eigenvalues; a basis that is cut down again and again."
    matrix, n = symmetric(values), len(values)
    z = Lanczos(matrix.__matmul__, n, room=top + bottom + 10, seed=seed)
    z.run(top, bottom, steps=600, tol=1e-8)
    found, errors, S = z.ritz()
    true, k, b = np.sort(values), min(top, n), min(bottom, n)
    near = 1e-7*max(abs(true).max(), 1e-9) + 1e-12
    assert abs(found[::-1][:k] - true[::-1][:k]).max(initial=0.) <= near and abs(found[:b] - true[:b]).max(initial=0.) <= near
    Q = z.Q[:z.size]
    assert (Q@Q.T - torch.eye(len(Q))).abs().max() < 1e-10
    assert (Q@matrix@Q.T - torch.from_numpy(z.T[:z.size, :z.size])).abs().max() < 1e-7*max(1., abs(true).max())


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('steps, tol', [(3, 0), (8, 0), (20, 0), (60, 0), (60, 0.1), (60, 0.03)])
def test_an_eigenvalue_lies_within_each_error(dtype, steps, tol):
    "Also long before convergence, after the basis was cut down, and with what a fresh direction leaves behind; and the errors are not just large."
    true = np.sort(np.random.default_rng(1).standard_normal(150)**3)
    matrix = symmetric(true)
    z = Lanczos((matrix.to(dtype)).__matmul__, 150, room=16, dtype=dtype)
    z.run(3, 3, steps, tol=tol)
    found, errors, S = z.ritz()
    miss = abs(found[:, None] - true).min(1)
    assert (miss <= errors + z.rounding).all()
    left = (matrix@z.vectors(S).double().T - z.vectors(S).double().T*torch.from_numpy(found)).norm(dim=0).numpy()
    assert (left <= 1.001*errors + 20*z.rounding).all()    # the true residuals
    if steps == 60 and not tol: assert errors[[-1, -2, 0]].max() < 1e-3


def test_what_was_lost_stays_in_the_error():
    "Rough pairs, cut off from the direction that would have mended them, and cut down once more."
    matrix = symmetric(np.linspace(-1, 1, 80))
    z = Lanczos(matrix.__matmul__, 80, room=40)
    for _ in range(8): z.step()
    z.shrink([0, 6, 7])
    z._fresh()
    z.shrink([0, 1, 2])
    found, errors, S = z.ritz()
    left = (matrix@z.vectors(S).T - z.vectors(S).T*torch.from_numpy(found)).norm(dim=0).numpy()
    assert left.min() > 0.01 and np.allclose(left, errors, rtol=1e-6)


def test_noise_is_about_rounding():
    true = np.linspace(-1, 3, 200)
    for dtype, low, high in ((torch.float64, 1e-18, 1e-14), (torch.float32, 1e-8, 1e-5)):
        z = Lanczos(symmetric(true).to(dtype).__matmul__, 200, room=40, dtype=dtype)
        z.run(2, 2, 100)
        assert low < z.noise < high
    rough = lambda v: symmetric(true)@v + 1e-3*torch.sin(1e6*v)
    z = Lanczos(rough, 200, room=40)
    z.run(2, 2, 60)
    assert z.noise > 1e-4       # a product that is off shows


def test_repeated_eigenvalues_need_the_fresh_directions(monkeypatch):
    values = [3., 3., 3.] + [0.5]*20 + list(np.linspace(-1, 1, 60))
    def count():
        z = Lanczos(symmetric(values).__matmul__, len(values), room=40)
        z.run(3, 1)
        return int((z.ritz()[0] > 2.9).sum())
    assert count() == 3
    original = Lanczos.run
    monkeypatch.setattr(Lanczos, 'run', lambda self, top, bottom: [self.step() for _ in range(25)])
    assert count() < 3
    monkeypatch.setattr(Lanczos, 'run', original)


def coverage(results): return np.mean([abs(value - true) < 2*error for value, error, true in results])


@pytest.mark.parametrize('basis', [0, 6])
def test_trace_keeps_its_error(basis):
    "Two standard errors hold as often as Student's t says (94.5 %), over seeds: neither boastful nor shy."
    matrix = symmetric(np.random.default_rng(2).standard_normal(50))
    Q = torch.linalg.qr(torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0].T if basis else None
    true = matrix.trace().item() - (0 if Q is None else (Q@matrix@Q.T).trace().item())
    results = [(*mean_error(list(trace_samples(matrix.__matmul__, 50, basis=Q, seed=s))), true) for s in range(400)]
    assert 0.90 < coverage(results) < 0.98


def test_quadrature_integrates_polynomials_exactly():
    matrix = symmetric(np.linspace(-1, 2, 80))
    (nodes, weights), = quadratures(matrix.__matmul__, 80, starts=1, steps=6, seed=5)
    v = Lanczos(matrix.__matmul__, 80, 6, seed=5).Q[0]
    for p in range(12): assert math.isclose(weights@nodes**p, v@torch.linalg.matrix_power(matrix, p)@v, rel_tol=1e-9, abs_tol=1e-12)
    assert not math.isclose(weights@nodes**12, v@torch.linalg.matrix_power(matrix, 12)@v, rel_tol=1e-9)


def test_density_shares_and_integral():
    values = np.r_[np.linspace(-1, -0.5, 60), np.zeros(80), np.linspace(1, 3, 60)]
    density = SpectralDensity(*map(np.stack, zip(*quadratures(symmetric(values).__matmul__, 200, starts=40, steps=40))))
    share, error = density.negative()
    assert abs(share - 0.3) < 4*error and 0 < error < 0.02
    grid = np.linspace(-3, 5, 4000)
    assert math.isclose(np.trapezoid(density.at(grid), grid) if hasattr(np, 'trapezoid') else np.trapz(density.at(grid), grid), 1, rel_tol=1e-6)
    assert 'negative 30' in repr(density) or 'negative 29' in repr(density) or 'negative 31' in repr(density)


# ---- closed forms

def regression(n=200, d=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g)@torch.diag(torch.linspace(0.3, 3, d)), torch.randn(n, 1, generator=g)


@pytest.mark.parametrize('batches', [1, 3])
def test_linear_regression(batches):
    "2/n XᵀX, whatever the weights, and however the examples are split into batches of different sizes."
    x, y = regression()
    true = np.linalg.eigvalsh(2/len(x)*(x.T@x).double().numpy())
    data = (x, y) if batches == 1 else [(x[:10], y[:10]), (x[10:150], y[10:150]), (x[150:], y[150:])]
    c = curvature(nn.Linear(12, 1, bias=False), F.mse_loss, data, k=5, **QUIET)
    assert np.allclose(c.top, true[::-1][:5], rtol=1e-4) and np.allclose(c.bottom, true[:5], rtol=1e-4)
    assert (abs(c.top - true[::-1][:5]) <= c.top_error).all() and (abs(c.bottom - true[:5]) <= c.bottom_error).all() and c.top_error.max() < 1e-4
    assert abs(c.trace - true.sum()) < 1e-4*true.sum() and c.parameters == 12 and math.isclose(c.max_stable_lr, 2/c.top[0])


def test_linear_regression_with_several_outputs_repeats_each_eigenvalue():
    x, _ = regression(d=6)
    y = torch.randn(200, 3, generator=torch.Generator().manual_seed(3))
    true = np.sort(np.repeat(np.linalg.eigvalsh(2/len(x)/3*(x.T@x).double().numpy()), 3))
    c = curvature(nn.Linear(6, 3, bias=False), F.mse_loss, (x, y), k=5, **QUIET)
    assert np.allclose(c.top, true[::-1][:5], rtol=1e-4) and np.allclose(c.bottom, true[:5], rtol=1e-4)


def test_trace_of_a_regression_keeps_its_error():
    x, y = regression(d=40)
    true = 2/len(x)*x.double().square().sum().item()
    found = [curvature(nn.Linear(40, 1, bias=False), F.mse_loss, (x, y), k=1, steps=4, probes=20, seed=s, **QUIET) for s in range(150)]
    assert 0.87 < coverage([(c.trace, c.trace_error, true) for c in found]) < 0.99


def test_logistic_regression():
    "Xᵀ p (1 - p) X / n."
    x, _ = regression(d=7)
    y = (x.sum(1, keepdim=True) > 0).float()
    model = nn.Linear(7, 1, bias=False)
    with seeded(4): nn.init.normal_(model.weight, 0, 0.3)
    a, w = x.double().numpy(), model.weight.detach().double().numpy()[0]
    p = 1/(1 + np.exp(-a@w))
    true = (a*(p*(1 - p))[:, None]).T@a/len(a)
    c = curvature(model, F.binary_cross_entropy_with_logits, (x, y), k=3, dtype=torch.float64, **QUIET)
    values = np.linalg.eigvalsh(true)
    assert np.allclose(c.top, values[::-1][:3], rtol=1e-9) and np.allclose(c.bottom, values[:3], rtol=1e-9) and math.isclose(c.trace, true.trace(), rel_tol=1e-9)
    assert np.allclose(dense_hessian(model, F.binary_cross_entropy_with_logits, (x, y), dtype=torch.float64).numpy(), true, rtol=1e-9, atol=1e-12)
    g = a.T@(p - y.numpy()[:, 0])/len(a)
    loss = -np.mean(np.where(y.numpy()[:, 0] > 0, np.log(p), np.log(1 - p)))
    assert math.isclose(c.gradient_norm, np.linalg.norm(g), rel_tol=1e-9) and math.isclose(c.loss, loss, rel_tol=1e-9)


@pytest.mark.parametrize('dtype', [None, torch.float64])
def test_small_net_with_both_signs(dtype):
    model, batch = net(), world()
    full = dense_hessian(model, F.cross_entropy, batch, dtype=torch.float64)
    assert (full - differences(model, batch)).abs().max() < 1e-7
    true = np.linalg.eigvalsh(full.numpy())
    assert true[4] < -1e-3 < 1e-3 < true[-5]    # else the test shows nothing
    c = curvature(model, F.cross_entropy, batch, k=5, dtype=dtype, density=30, probes=60, **QUIET)
    assert (abs(c.top - true[::-1][:5]) <= c.top_error).all() and (abs(c.bottom - true[:5]) <= c.bottom_error).all()
    assert abs(c.trace - true.sum()) < 4*c.trace_error + 1e-6
    share, error = c.density.negative(1e-3)
    assert abs(share - (true < -1e-3*abs(true).max()).mean()) < 4*error + 0.02


# ---- any architecture, against differences of gradients

class Tied(nn.Module):
    "An embedding whose weights are also the head; attention between."
    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Embedding(5, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
    def forward(self, i):
        e = self.embed(i)
        return self.head((e + self.attend(e, e, e, need_weights=False)[0]).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head, self.unused = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 3), nn.Parameter(torch.ones(2))
    def forward(self, x): return self.head(self.rnn(x.view(len(x), 2, 2))[0][:, -1])


def conv(norm):
    layers = dict(batch=nn.BatchNorm2d(2), layer=nn.LayerNorm([2, 3, 3]), group=nn.GroupNorm(1, 2), none=nn.Identity())
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2, padding=1), layers[norm], nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))


kinds = dict(tied=Tied, lstm=Recurrent, **{k: (lambda k=k: conv(k)) for k in ('batch', 'layer', 'group', 'none')},
             parametrized=lambda: nn.Sequential(positive(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 3)))


def positive(layer):
    parametrize.register_parametrization(layer, 'weight', nn.Softplus())
    return layer


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(kinds)), st.integers(0, 99), st.integers(0, 3), st.booleans())
def test_any_architecture(kind, seed, freeze, training):
    with seeded(seed):
        model = kinds[kind]().train(training)
        for b in model.buffers():
            if b.is_floating_point(): b.uniform_(0.5, 2)
        batch = (torch.randint(5, (9, 3)), torch.randint(5, (9,))) if kind == 'tied' else world(9, seed=seed)
    names = [k for k, _ in model.named_parameters()]
    for k, p in list(model.named_parameters())[:min(freeze, len(names) - 1)]: p.requires_grad_(False)
    before, oracle = everything(model), differences(model, batch)
    full = dense_hessian(model, F.cross_entropy, batch, dtype=torch.float64)
    scale = oracle.abs().max().item()
    assert full.shape == oracle.shape and (full - oracle).abs().max() < 1e-6*max(scale, 1e-3)
    c = curvature(model, F.cross_entropy, batch, k=2, seed=seed, vectors=True, probes=10, dtype=torch.float64, **QUIET)
    true = torch.linalg.eigvalsh(full).numpy()
    near = 1e-4*abs(true).max() + 1e-9
    assert np.allclose(c.top, true[::-1][:2], atol=near) and np.allclose(c.bottom, true[:2], atol=near)
    assert c.parameters == len(full) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    for d, value in zip(c.top_vectors + c.bottom_vectors, [*c.top, *c.bottom]):
        assert list(d) == [k for k, p in model.named_parameters() if p.requires_grad] and math.isclose(flat(d).norm(), 1, rel_tol=1e-9)
        assert (full@flat(d) - value*flat(d)).norm() < 3*near
    assert same(before, everything(model))


def test_frozen_can_be_counted():
    model, batch = net(), world()
    model[0].requires_grad_(False)
    some, every = curvature(model, F.cross_entropy, batch, k=1, **QUIET), curvature(model, F.cross_entropy, batch, k=1, frozen=True, **QUIET)
    assert some.parameters == 33 and every.parameters == 63 and every.top[0] >= some.top[0] - 1e-6
    assert not model[0].weight.requires_grad


def test_training_mode_is_a_fixed_function():
    "Batch statistics, and one dropout mask for all products, drawn from the seed."
    model, batch = net(), world()
    half = [(batch[0][:20], batch[1][:20]), (batch[0][20:], batch[1][20:])]
    for data in (batch, half):
        full = dense_hessian(model, F.cross_entropy, data, train=True, dtype=torch.float64)
        with hessian_product(model, F.cross_entropy, data, train=True, dtype=torch.float64) as H:
            rows = torch.stack([H(e) for e in torch.eye(H.n, dtype=H.dtype)])
        assert (rows - rows.T).abs().max() < 1e-12 and torch.equal((rows + rows.T)/2, full)
    assert not torch.allclose(full, dense_hessian(model, F.cross_entropy, half, train=True, dtype=torch.float64, seed=1), atol=1e-4)
    assert not torch.allclose(full, dense_hessian(model, F.cross_entropy, half, dtype=torch.float64), atol=1e-4)


class Drifting(nn.Module):
    "A buffer that each pass in training mode changes, and that the loss depends on."
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer('scale', torch.ones(()))
    def forward(self, x):
        if self.training: self.scale.mul_(1.1)
        return self.layer(x)*self.scale


def test_buffers_do_not_drift_between_products():
    x, y = world()
    with hessian_product(Drifting(), F.cross_entropy, [(x[:20], y[:20]), (x[20:], y[20:])], train=True) as H:
        v = torch.randn(H.n)
        assert torch.equal(H(v), H(v))


@pytest.mark.parametrize('parts, calls', [(1, 1), (2, 2*6)])
def test_one_batch_is_passed_forward_once(parts, calls):
    count, (x, y) = [], world()
    with hessian_product(net(), lambda p, t: (count.append(1), F.cross_entropy(p, t))[1], [(x[i::parts], y[i::parts]) for i in range(parts)]) as H:
        for _ in range(5): H(torch.randn(H.n))
    assert len(count) == calls and H.products == 5 and H.kept is None


def test_half_precision_and_mixed_weights_are_measured_in_float32():
    model, batch = net(), world()
    c = curvature(copy.deepcopy(model).bfloat16().float(), F.cross_entropy, batch, k=1, **QUIET)
    low = model.bfloat16()
    assert math.isclose(curvature(low, F.cross_entropy, batch, k=1, **QUIET).top[0], c.top[0], rel_tol=1e-5) and low[0].weight.dtype is torch.bfloat16


def test_losses_without_curvature():
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    c = curvature(nn.Linear(3, 1), lambda p, y: p.mean(), (x, y), k=2, density=1, **QUIET)
    assert c.top.tolist() == c.bottom.tolist() == [0., 0.] and c.trace == 0 and c.max_stable_lr == math.inf and c.gradient_norm > 0
    c.plot()
    one = curvature(nn.Linear(1, 1, bias=False), F.mse_loss, (torch.full((4, 1), 3.), torch.zeros(4, 1)), **QUIET)
    assert np.allclose([one.top, one.bottom, [one.trace]], 18.)


class Lopsided(torch.autograd.Function):
    "a b, whose gradient by a forgets that it depends on b."
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a*b
    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g*b.detach(), g*a


class Product(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.a, self.b, self.wrong = nn.Parameter(torch.randn(4, generator=torch.Generator().manual_seed(0))), nn.Parameter(torch.ones(4)), wrong
    def forward(self, x): return x*(Lopsided.apply(self.a, self.b) if self.wrong else self.a*self.b)


@pytest.mark.parametrize('f', [curvature, hessian_directions, dense_hessian])
def test_wrong_second_derivatives_are_found(f):
    args = lambda o, y: F.cross_entropy(o, y) + o.square().mean(), world()
    f(Product(False), *args)
    with pytest.raises(ArgumentError, match='do not depend on their order, got a difference of .*weight_norm'): f(Product(True), *args)


# ---- batches, step_fn, seeds

def test_forms_of_batches_agree():
    model, (x, y) = net(), world()
    dl = DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=torch.Generator().manual_seed(3))
    state = dl.generator.get_state()
    step = lambda m, b: F.cross_entropy(m(b['x']), b['y'])
    kw = dict(dtype=torch.float64)
    forms = [dense_hessian(model, F.cross_entropy, b, **kw) for b in ((x, y), [x, y], [(x, y)], dl, iter([(x[:3], y[:3]), (x[3:], y[3:])]))]
    forms += [dense_hessian(model, step_fn=step, batch=b, **kw) for b in (dict(x=x, y=y), [dict(x=x[:7], y=y[:7]), dict(x=x[7:], y=y[7:])])]
    assert all(torch.allclose(f, forms[0], rtol=1e-10, atol=1e-12) for f in forms) and torch.equal(dl.generator.get_state(), state)
    assert not torch.allclose(forms[0], dense_hessian(model, F.cross_entropy, (x[:20], y[:20]), **kw), atol=1e-3)


def test_a_shuffling_loader_is_drawn_once():
    "Random augmentation would else give each product another matrix."
    class Noisy(torch.utils.data.Dataset):
        def __len__(self): return 20
        def __getitem__(self, i): return torch.randn(4), i%3
    with hessian_product(net(), F.cross_entropy, DataLoader(Noisy(), 5, shuffle=True)) as H:
        v = torch.randn(H.n)
        assert torch.equal(H(v), H(v))


def test_seeds_decide():
    model, batch = net(), world()
    def found(seed):
        c = curvature(model, F.cross_entropy, batch, k=2, steps=8, density=1, seed=seed, **QUIET)
        return c.top.tolist(), c.trace, c.density.nodes.tolist()
    assert found(0) == found(0) and found(0)[1] != found(1)[1]
    torch.manual_seed(123)
    assert found(0) == found(0)


def test_compiled_and_parallel_models_are_looked_through():
    model, batch = net(), world()
    plain = hessian_directions(model, F.cross_entropy, batch)[0]
    for wrapped in (torch.compile(model), nn.DataParallel(model)):
        d = hessian_directions(wrapped, F.cross_entropy, batch)[0]
        assert list(d) == list(plain) and torch.allclose(flat(d), flat(plain), atol=1e-5)


def test_no_grad_around_does_not_matter():
    model, batch = net(), world()
    with torch.no_grad(): a = curvature(model, F.cross_entropy, batch, k=1, **QUIET)
    with torch.inference_mode(): b = curvature(model, F.cross_entropy, batch, k=1, **QUIET)
    assert a.top == b.top == curvature(model, F.cross_entropy, batch, k=1, **QUIET).top


# ---- directions

def test_directions_are_the_sharpest():
    model, batch = net(), world()
    full = differences(model, batch)
    values, vectors = torch.linalg.eigh(full)
    for i, d in enumerate(hessian_directions(model, F.cross_entropy, batch, k=3)):
        v = flat(d).double()
        assert math.isclose(v.norm(), 1, rel_tol=1e-5) and abs(v@vectors[:, -1 - i]) > 0.999 and v[v.abs().argmax()] > 0
        assert {k: t.shape for k, t in d.items()} == {k: p.shape for k, p in model.named_parameters()}


# ---- no trace, interrupts

@pytest.mark.parametrize('what', ['curvature', 'directions', 'dense'])
@pytest.mark.parametrize('how', ['whole', 'error', 'interrupt', 'float64', 'frozen', 'train'])
def test_leaves_no_trace(what, how):
    model, (x, y) = net(), world()
    F.cross_entropy(model(x), y).backward()
    model[1].eval()
    model[4].bias.requires_grad_(False)
    before, calls = everything(model), []
    def loss_fn(p, y):
        calls.append(1)
        torch.rand(1), np.random.rand(), random.random()
        if len(calls) == 9 and how in ('error', 'interrupt'): raise KeyboardInterrupt if how == 'interrupt' else RuntimeError('of the user')
        return F.cross_entropy(p, y)
    kw = dict(dtype=torch.float64) if how == 'float64' else dict(frozen=True) if how == 'frozen' else dict(train=True) if how == 'train' else {}
    run = dict(curvature=lambda *a: curvature(*a, k=2, probes=5, **kw, **QUIET), directions=lambda *a: hessian_directions(*a, **kw), dense=lambda *a: dense_hessian(*a, **kw))[what]
    args = model, loss_fn, [(x[:30], y[:30]), (x[30:], y[30:])]
    if how == 'error' or how == 'interrupt' and what != 'curvature':
        with pytest.raises((RuntimeError, KeyboardInterrupt)): run(*args)
    else: run(*args)
    assert same(before, everything(model))
    with torch.no_grad(): model[0].weight[0, 0] += 1
    assert not same(before, everything(model))


@pytest.mark.parametrize('at', [0, 1, 12, 30, 45, 75])
def test_interrupt_returns_what_there_is(at):
    "During Lanczos, the trace, and the density."
    model, (x, y) = net(), world()
    calls = []
    def loss_fn(p, t):
        calls.append(1)
        if len(calls) == 2*at + 3: raise KeyboardInterrupt
        return F.cross_entropy(p, t)
    kw = dict(k=2, steps=30, tol=0., probes=20, density=3, **QUIET)
    data = [(x[:20], y[:20]), (x[20:], y[20:])]
    c, whole = curvature(model, loss_fn, data, **kw), curvature(model, F.cross_entropy, data, **kw)
    assert c.interrupted and not whole.interrupted and 'interrupted' in repr(c) and 'interrupted' not in repr(whole) and c.products == at
    assert len(c.top) == min(at, 2) and np.isfinite(c.top).all()
    if at >= 30: assert c.top.tolist() == whole.top.tolist()
    assert math.isnan(c.trace) == (at <= 30)
    if at == 45: assert abs(c.trace - whole.trace) < 4*c.trace_error + 4*whole.trace_error and c.trace != whole.trace
    assert c.density is None if at <= 50 else True
    c.plot()


# ---- results

def test_repr_and_plot():
    import matplotlib.pyplot as plt
    c = Curvature(np.array([12.345, 3.]), np.array([0.001, 0.2]), np.array([-1.5, -1.]), np.array([0.01, 0.02]), 20.5, 0.7, 1234567, 0.25, 0.031)
    assert repr(c) == ('Hessian of 1,234,567 parameters at loss 0.25, gradient norm 0.031\nlargest   12.35 ± 0.001  3 ± 0.2\n'
                       'smallest  -1.5 ± 0.01  -1 ± 0.02\ntrace     20.5 ± 0.7')
    ax = c.plot()
    assert ax.get_xlabel() and ax.get_ylabel() and [t.get_text() for t in ax.get_legend().get_texts()] == ['largest 2', 'smallest 2']
    drawn = sorted(round(v, 3) for l in ax.lines if l.get_marker() == 'o' for v in l.get_ydata())
    assert drawn == [-1.5, -1., 3., 12.345]
    _, own = plt.subplots()
    assert curvature(net(), F.cross_entropy, world(), k=1, density=2, probes=0, **QUIET).plot(own) is own and own.get_yscale() == 'log'
    plt.close('all')


def test_memory_bounds_the_basis():
    held = []
    original = Lanczos.step
    try:
        Lanczos.step = lambda self: (held.append(len(self.Q)), original(self))[1]
        c = curvature(net(wide=60), F.cross_entropy, world(200), k=2, memory=1e-9, probes=0, steps=200, **QUIET)
    finally: Lanczos.step = original
    free = curvature(net(wide=60), F.cross_entropy, world(200), k=2, probes=0, steps=200, **QUIET)
    assert max(held) == 29 and np.allclose(c.top, free.top, atol=1e-3*free.top[0])


# ---- what is refused

class Root(nn.Module):
    "Finite loss and gradient, no finite second derivative at 0."
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
    def forward(self, x): return x*self.w.abs().pow(1.5).sum()


x, y = world()
refused = [
    (dict(model=print), 'model.*nn.Module'), (dict(model=nn.ReLU()), 'requires_grad'), (dict(loss_fn=None), 'either loss_fn.*neither'),
    (dict(step_fn=lambda m, b: 0), 'both'), (dict(batch=None), 'batch.*None'), (dict(batch=[]), 'at least one example'), (dict(batch=3), 'batch.*int'),
    (dict(batch=(x[:0], y[:0])), 'at least one example'), (dict(batch=iter([])), 'at least one example'), (dict(batch=()), 'at least one example'),
    (dict(loss_fn=nn.CrossEntropyLoss(reduction='none')), 'one number.*shape \\(40,\\)'), (dict(loss_fn=lambda p, y: 1.), 'one number.*float'),
    (dict(loss_fn=lambda p, y: F.cross_entropy(p.detach(), y)), 'depends on the weights'), (dict(loss_fn=lambda p, y: p.mean()*math.nan), 'finite loss'),
    (dict(batch=(x*math.inf, y)), 'finite loss'), (dict(model=Root(), loss_fn=lambda p, y: p.mean()), 'second derivatives'),
    (dict(k=0), 'argument k'), (dict(k=2.5), 'argument k'), (dict(probes=-1), 'argument probes'), (dict(density=-1), 'argument density'), (dict(steps=0), 'argument steps'),
]


@pytest.mark.parametrize('wrong, message', refused, ids=[m for _, m in refused])
def test_refuses(wrong, message):
    args = dict(model=net(), loss_fn=F.cross_entropy, batch=(x, y), progress=False)
    curvature(**args | dict(k=1, probes=2))     # right without the fault
    with pytest.raises(ArgumentError, match=message): curvature(**args | wrong)


def test_dense_and_directions_refuse():
    with pytest.raises(ArgumentError, match='at most 10 parameters, got 63'): dense_hessian(net(), F.cross_entropy, (x, y), most=10)
    for k in (0, 64, 1.5):
        with pytest.raises(ArgumentError, match='argument k'): hessian_directions(net(), F.cross_entropy, (x, y), k=k)
    with pytest.raises(ArgumentError, match='room'): Lanczos(torch.eye(50).__matmul__, 50, room=4).run(3, 3)


def test_top_level_name_is_the_function():
    "Also when the modules were imported first."
    import subprocess, sys
    for first in ('import dlpractice.hessian', 'pass'):
        code = f'{first}\nfrom dlpractice import curvature, Curvature, hessian_directions\nassert callable(curvature) and curvature.__name__ == "curvature"'
        subprocess.run([sys.executable, '-c', code], check=True)
