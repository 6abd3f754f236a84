"Loss lines and planes: closed forms, every fast way against a plain loop, no trace, interrupts, files, and what they refuse."
import copy
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.special import log_expit, logsumexp
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dlpractice.directions import as_direction, cosine, direction_between, moving, norm, normalised, random_direction
from dlpractice.errors import ArgumentError, CheckpointError
from dlpractice.landscape import descend, rescaled
from dlpractice.loss_evaluation import SHORTCUTS, LossSurface
from dlpractice.loss_planes import LossLine, LossPlane, Trajectory, barrier, loss_line, loss_plane, roughness, sharpness
from dlpractice.snapshots import seeded
from dlpractice.training import Learner

QUIET = dict(progress=False)
POINTS = [(a, b) for b in (-0.8, 0., 0.35) for a in (-0.5, 0., 0.9)]


def everything(model):
    "All that a picture could disturb, as comparable copies: values, gradients, flags, identities, random states."
    tensors = [*model.parameters(), *model.buffers()]
    return dict(state={k: v.clone() for k, v in model.state_dict().items()}, grads=[None if p.grad is None else p.grad.clone() for p in model.parameters()],
                needs=[p.requires_grad for p in model.parameters()], modes=[m.training for m in model.modules()], ids=[(id(t), t.data_ptr(), t._version) for t in tensors],
                hooks=[len(m._forward_hooks) + len(m._forward_pre_hooks) + ('forward' in vars(m)) for m in model.modules()],
                torch=torch.get_rng_state(), numpy=np.random.get_state()[1].copy(), python=random.getstate())


def same(a, b):
    "Bit for bit, through containers."
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray): return np.array_equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


@torch.no_grad()
def plain(model, loss_fn, batches, directions, points, train_norm=False):
    "The loop everybody would write: a copy, moved tensor by tensor, run batch by batch."
    out = []
    for point in points:
        twin = copy.deepcopy(model).eval()
        named = dict([*twin.named_parameters(), *twin.named_buffers()])
        for n, t in named.items():
            for c, d in reversed(list(zip(point, directions))):
                if n in d: t.add_(d[n], alpha=c)
        if train_norm:
            for m in twin.modules():
                if isinstance(m, nn.modules.batchnorm._BatchNorm): m.train()
        losses = [loss_fn(twin(*b[:-1]), b[-1]).item() for b in batches]
        out.append(np.average(losses, weights=[len(b[-1]) for b in batches]))
    return np.array(out)


# ---- architectures

class Tied(nn.Module):
    "An embedding whose weights are also those of the last layer."
    def __init__(self, norm):
        super().__init__()
        self.embed, self.norm, self.out = nn.Embedding(12, 6), norm(6), nn.Linear(6, 12, bias=False)
        self.out.weight = self.embed.weight
    def forward(self, x): return self.out(self.norm(self.embed(x).mean(1)))


class Buffered(nn.Module):
    "Buffers in and out of the state, one of them written to by each forward pass; a view that channels_last does not allow."
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4*36, 3)
        self.register_buffer('shift', torch.full((1, 2, 1, 1), 0.5))
        self.register_buffer('calls', torch.zeros(1), persistent=False)
    def forward(self, x):
        self.calls += 1
        return self.head(F.relu(self.conv(x + self.shift)).view(len(x), -1))


class Branching(nn.Module):
    "Reads a weight directly, detaches, and cannot be traced: what could fool a shortcut."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
    def forward(self, x):
        h = self.a(x)
        if h.shape[0] > 0 and h.detach().sum() > -1e9: h = self.bn(self.b(h.detach().tanh()))
        return self.c(h.relu()) + self.a.weight.mean()


class Mixing(nn.Module):
    "Rows see each other, so parts of a batch are not the batch."
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 32), nn.Linear(32, 3)
    def forward(self, x):
        h = self.a(x)
        return self.b((h - h.mean(0)).relu())


class Twice(nn.Module):
    "One layer called twice, on the input and on what it gave."
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)
    def forward(self, x): return self.b(self.a(self.a(x).relu()))


def images(n=23, c=2): return torch.randn(n, c, 6, 6)
def vectors(n=23): return torch.randn(n, 6)


ARCHITECTURES = {
    'mlp': (lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)), vectors),
    'mlp with BatchNorm': (lambda: nn.Sequential(nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 3)), vectors),
    'cnn': (lambda: nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), images),
    'strided cnn': (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding_mode='circular', padding=1, groups=2), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.ConvTranspose2d(4, 4, 2), nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), images),
    'BatchNorm without statistics': (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), images),
    'tied': (lambda: Tied(nn.LayerNorm), lambda n=23: torch.randint(12, (n, 5))),
    'tied with BatchNorm': (lambda: Tied(nn.BatchNorm1d), lambda n=23: torch.randint(12, (n, 5))),
    'buffers': (Buffered, images),
    'branching': (Branching, vectors),
    'mixing': (Mixing, vectors),
    'twice': (Twice, vectors),
    'residual': (lambda: nn.Sequential(nn.Conv2d(2, 8, 1), Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)), images),
    'recurrent': (lambda: nn.Sequential(nn.GRU(6, 5, batch_first=True), Last(), nn.Linear(5, 3)), lambda n=23: torch.randn(n, 4, 6)),
    'weight norm': (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 3)), vectors),
    'small maps': (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, (3, 5), 2, (1, 2), bias=False), nn.Conv2d(5, 4, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(4, 3)), images),
    'attention': (lambda: nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, dropout=0.1, batch_first=True), nn.Flatten(), nn.Linear(24, 3)), lambda n=23: torch.randn(n, 4, 6)),
}


class Last(nn.Module):
    def forward(self, x): return x[0][:, -1]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
    def forward(self, x): return F.relu(x + self.bn(self.conv(x)))


def build(name, seed, n=23, dtype=torch.float32, frozen=False):
    "(model with used BatchNorm statistics and gradients, batch)."
    make, inputs = ARCHITECTURES[name]
    with seeded(seed):
        model, x = make().to(dtype), inputs(n)
        if x.is_floating_point(): x = x.to(dtype)
        out = model(x)
        y = torch.randint(out.shape[1], (n,))
        F.cross_entropy(out, y).backward()
        with torch.no_grad():
            for m in model.modules():
                if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine:
                    m.weight.uniform_(0.5, 1.5), m.bias.normal_()
        if frozen: next(model.parameters()).requires_grad_(False)
    return model, (x, y)


WAYS = ['auto', 'plain', 'vmap', *SHORTCUTS, SHORTCUTS]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(ARCHITECTURES)), st.sampled_from(WAYS), st.sampled_from(['weights', 'all']), st.integers(0, 10**6), st.booleans(), st.sampled_from(['running', 'recompute']))
def test_every_way_equals_the_plain_loop_and_leaves_no_trace(name, way, move, seed, frozen, batchnorm):
    model, batch = build(name, seed, dtype=torch.float64, frozen=frozen)
    directions = [scale(random_direction(model, seed + i, move=move), 0.5) for i in (0, 1)]
    before = everything(model)
    try: losses, done = LossSurface(model, F.cross_entropy, batch, directions, way=way, batchnorm=batchnorm).at(POINTS, **QUIET)
    except ArgumentError as e: # a way asked for by hand that this net does not allow is refused, never wrong
        assert way not in ('auto', 'plain') and 'argument way' in str(e)
        losses = None
    assert same(before, everything(model))
    if losses is not None: assert np.allclose(losses, plain(model, F.cross_entropy, [batch], directions, POINTS, batchnorm == 'recompute'), rtol=1e-9, atol=0) and done == 9


def scale(d, by): return {n: t*by for n, t in d.items()}


@pytest.mark.parametrize('name', list(ARCHITECTURES))
def test_float32_within_1e6_of_the_plain_loop(name):
    model, batch = build(name, 3, n=200)
    directions = [random_direction(model, i, move='all') for i in (1, 2)]
    oracle = plain(model, F.cross_entropy, [batch], directions, POINTS)
    losses = LossSurface(model, F.cross_entropy, batch, directions).at(POINTS, **QUIET)[0]
    assert np.allclose(losses, oracle, rtol=1e-6, atol=0), abs(losses/oracle - 1).max()


def test_the_shortcuts_are_taken_where_they_should_be():
    def way(name, n=3000, **kw):
        model, batch = build(name, 0, n)
        return {o.split(' ')[0] for o in LossSurface(model, F.cross_entropy, batch, [random_direction(model, 1)], **kw).way.split(', ')}
    assert {'fold', 'products', 'parts', 'pools', 'channels_last', 'inplace'} == way('cnn')
    assert {'products', 'inplace'} == way('mlp') and {'products', 'parts', 'inplace'} == way('mlp', 60_000) and {'fold', 'products'} == way('mlp with BatchNorm')
    assert {'vmap'} == way('mlp', 20) and {'products'} == way('mixing') and {'products'} == way('mixing', 60_000) and 'products' in way('buffers')
    assert {'plain'} == way('mlp', way='plain') and 'dense' in way('small maps') and 'dense' not in way('cnn')


def test_small_maps_become_matrices_frozen_or_moving():
    model, (x, y) = build('small maps', 0, 40)
    for frozen in ('', '3', '5', '7', '8'): # one layer that stands still, its bias too
        d = [{n: t for n, t in random_direction(model, i, move='all').items() if not frozen or not n.startswith(frozen)} for i in (1, 2)]
        surface = LossSurface(model, F.cross_entropy, (x, y), d, way='dense')
        assert surface.way == 'dense' and [m.weight.ndim for m in surface.program.model if isinstance(m, nn.Conv2d)] == [4, 4, 2, 2, 2]
        assert np.allclose(surface.at(POINTS, **QUIET)[0], plain(model, F.cross_entropy, [(x, y)], d, POINTS), rtol=1e-6)
    decay = lambda m, b: F.cross_entropy(m(b[0]), b[1]) + sum(p.square().sum() for p in m.parameters()) # reads the weights themselves: a matrix would count some twice
    d = [random_direction(model, 1)]
    surface = LossSurface(model, step_fn=decay, batch=(x, y), directions=d)
    assert 'dense' not in surface.way and np.allclose(surface.at(POINTS, **QUIET)[0], LossSurface(model, step_fn=decay, batch=(x, y), directions=d, way='plain').at(POINTS, **QUIET)[0], rtol=1e-6)


def test_batches_of_other_sizes_are_not_computed_as_the_first():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    batches = [(torch.randn(8, 2, n, n), torch.randint(3, (8,))) for n in (6, 12)]
    d = [random_direction(net, 1)]
    assert np.allclose(LossSurface(net, F.cross_entropy, batches, d).at(POINTS, **QUIET)[0], plain(net, F.cross_entropy, batches, d, POINTS), rtol=1e-6)


def test_the_compiled_copy_gives_the_same():
    model, batch = build('mlp', 0, 50)
    d = [random_direction(model, i) for i in (1, 2)]
    before = everything(model)
    surface = LossSurface(model, F.cross_entropy, batch, d, compile=True)
    assert 'compiled' in surface.way and np.allclose(surface.at(POINTS, **QUIET)[0], plain(model, F.cross_entropy, [batch], d, POINTS), rtol=2e-6)
    assert same(before, everything(model))


def test_products_are_computed_once():
    model, batch = build('mlp', 0, 500)
    calls = []
    class Counted(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, f, types, args=(), kwargs=None):
            if f is F.linear: calls.append(args[1].shape)
            return f(*args, **(kwargs or {}))
    surface = LossSurface(model, F.cross_entropy, batch, [random_direction(model, 1)], way='products')
    with Counted(): surface.at(POINTS, **QUIET)
    assert calls == [(3, 16)]*9
    assert LossSurface(model, F.cross_entropy, batch, [random_direction(model, 1)], way='products', memory=1e-9).program.products == []


# ---- closed forms

def regression():
    with seeded(0):
        x, y, model = torch.randn(200, 5).double(), torch.randn(200, 1).double(), nn.Linear(5, 1).double()
    return model, x, y


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_linear_regression_is_its_quadratic(dtype, tolerance):
    model, x, y = (o.to(dtype) for o in regression())
    plane = loss_plane(model, F.mse_loss, (x, y), n=9, span=2., move='all', **QUIET)
    d1, d2 = plane._frame[0]
    design = np.c_[x.double().numpy(), np.ones(200)]
    flat = lambda d: np.r_[d['weight'].double().numpy()[0], d['bias'].double().numpy()]
    w, u, v = flat({n: p.detach() for n, p in model.named_parameters()}), flat(d1), flat(d2)
    exact = [[np.mean((design @ (w + a*u + b*v) - y.double().numpy()[:, 0])**2) for a in plane.xs] for b in plane.ys]
    assert np.allclose(plane.loss, exact, rtol=tolerance, atol=0)
    if dtype == torch.float64: assert np.allclose(np.diff(plane.loss, 3, axis=0), 0, atol=1e-9) and roughness(plane) < 1e-9


def test_logistic_regression_against_scipy():
    with seeded(1): x, y, model = torch.randn(300, 4), (torch.rand(300) > 0.4).float(), nn.Linear(4, 1)
    loss_fn = lambda pred, t: F.binary_cross_entropy_with_logits(pred[:, 0], t)
    direction = random_direction(model, 5, move='all')
    line = loss_line(model, loss_fn, (x, y), direction=direction, n=21, span=3., **QUIET)
    for t, loss in zip(line.xs, line.loss):
        logits = x.double().numpy() @ (model.weight + t*direction['weight'])[0].detach().double().numpy() + (model.bias + t*direction['bias']).item()
        signs = 2*y.double().numpy() - 1
        assert math.isclose(loss, -log_expit(signs*logits).mean(), rel_tol=1e-5)
    with seeded(2): labels, soft = torch.randint(3, (300,)), nn.Linear(4, 3)
    center = loss_plane(soft, F.cross_entropy, (x, labels), n=3, **QUIET).loss[1, 1]
    logits = (x @ soft.weight.T + soft.bias).detach().double().numpy()
    assert math.isclose(center, np.mean(logsumexp(logits, axis=1) - logits[np.arange(300), labels.numpy()]), rel_tol=1e-6)


# ---- coordinates

@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.01, 3.), st.integers(0, 1000))
def test_losses_belong_to_their_coordinates(nx, ny, span, seed):
    model, batch = build('mlp', seed, dtype=torch.float64)
    plane = loss_plane(model, F.cross_entropy, batch, n=(nx, ny), span=span, seed=seed, **QUIET)
    assert plane.loss.shape == (ny, nx) and plane.xs[0] == -span and plane.xs[-1] == span and np.allclose(plane.xs, -plane.xs[::-1], rtol=0, atol=1e-15*span)
    j, i = seed % ny, seed % nx
    assert np.allclose(plane.loss[j, i], plain(model, F.cross_entropy, [batch], plane._frame[0], [(plane.xs[i], plane.ys[j])]), rtol=1e-9)
    own = F.cross_entropy(model.eval()(batch[0]), batch[1]).item()
    assert math.isclose(plane.center, own, rel_tol=1e-9)
    if nx % 2 and ny % 2: assert plane.xs[nx//2] == plane.ys[ny//2] == 0 and math.isclose(plane.loss[ny//2, nx//2], own, rel_tol=1e-9)
    assert math.isclose(plane.cosine, cosine(*plane._frame[0])) and np.allclose(plane.lengths, [norm(d) for d in plane._frame[0]])


@pytest.mark.parametrize('name', ['cnn', 'tied', 'mlp with BatchNorm', 'recurrent'])
def test_lines_start_and_end_at_the_models(name):
    (a, batch), (b, _) = build(name, 0, 64), build(name, 1, 64)
    line = loss_line(a, F.cross_entropy, batch, to=b, n=11, **QUIET)
    own = [F.cross_entropy(m.eval()(batch[0]), batch[1]).item() for m in (a, b)]
    assert line.xs[0] == 0 and line.xs[-1] == 1 and np.allclose(line.loss[[0, -1]], own, rtol=1e-6, atol=0) and math.isclose(line.center, own[0], rel_tol=1e-6)
    middle = copy.deepcopy(a).eval()
    with torch.no_grad():
        for t, u in zip([*middle.parameters(), *middle.buffers()], [*b.parameters(), *b.buffers()]):
            if t.is_floating_point(): t.lerp_(u, 0.5)
    assert math.isclose(line.loss[5], F.cross_entropy(middle(batch[0]), batch[1]).item(), rel_tol=2e-6)


def test_spans_that_are_larger_reach_farther():
    model, x, y = regression()
    near, far = (loss_line(model, F.mse_loss, (x, y), span=s, n=5, **QUIET) for s in (0.5, 1.))
    assert far.xs[1] == near.xs[0] and math.isclose(far.loss[1], near.loss[0])


# ---- directions

@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(ARCHITECTURES)), st.integers(0, 10**6), st.sampled_from(['weights', 'all']))
def test_filters_get_the_models_lengths(name, seed, move):
    model, _ = build(name, seed % 100)
    d = random_direction(model, seed, move=move)
    named, transposed = dict(model.named_parameters()), {f'{n}.weight': m.groups for n, m in model.named_modules() if isinstance(m, nn.ConvTranspose2d)}
    assert d.keys() == {n for n, p in named.items() if move == 'all' or p.ndim > 1} == moving(model, move).keys()
    for n, t in d.items():
        rows = (lambda o: o.transpose(0, 1)) if n in transposed else (lambda o: o) if t.ndim > 1 else (lambda o: o[None])
        assert torch.allclose(rows(t).flatten(1).norm(dim=1), rows(named[n].detach()).flatten(1).norm(dim=1), rtol=1e-4, atol=1e-7)


def test_fresh_batchnorm_and_zero_filters_do_not_divide_by_zero():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    with torch.no_grad(): model[0].weight[1].zero_()
    d = random_direction(model, 0, move='all')
    assert all(torch.isfinite(t).all() for t in d.values()) and not d['0.weight'][1].any() and not d['1.bias'].any() and d['1.weight'].any()


def test_gaussian_both_signs_seeded_and_nearly_orthogonal():
    model = nn.Linear(300, 300)
    a, b = random_direction(model, 1)['weight'], random_direction(model, 2)['weight']
    assert abs((a > 0).float().mean() - 0.5) < 0.01 and abs(cosine({'w': a}, {'w': b})) < 0.02
    assert torch.equal(a, random_direction(model, 1)['weight'])
    z = (a/a.std()).flatten()
    assert abs(z.pow(4).mean() - 3) < 0.1 # a Gaussian's kurtosis


def test_lists_of_tensors_are_directions_in_the_order_of_parameters():
    model, (x, y) = build('mlp', 0)
    gradient = torch.autograd.grad(F.cross_entropy(model.eval()(x), y), list(model.parameters()))
    line = loss_line(model, F.cross_entropy, (x, y), direction=list(gradient), span=1e-3, n=3, **QUIET)
    slope = (line.loss[2] - line.loss[0])/(line.xs[2] - line.xs[0])
    assert math.isclose(slope, sum(float(g.square().sum()) for g in gradient), rel_tol=1e-2)


def test_scaling_two_layers_changes_the_picture_only_without_normalisation():
    with seeded(0): a, x, y = nn.Sequential(nn.Linear(4, 16, bias=False), nn.ReLU(), nn.Linear(16, 3)), torch.randn(50, 4), torch.randint(3, (50,))
    b = copy.deepcopy(a)
    with torch.no_grad(): b[0].weight.mul_(10), b[2].weight.div_(10)
    draw = lambda m, how: loss_plane(m, F.cross_entropy, (x, y), n=5, normalise=how, **QUIET).loss
    assert np.allclose(draw(a, 'filter'), draw(b, 'filter'), rtol=1e-4) and not np.allclose(draw(a, None), draw(b, None), rtol=0.1)


# ---- batches, modes, noise

def test_batches_count_by_their_samples():
    model, (x, y) = build('cnn', 0, 100)
    d = [random_direction(model, 1)]
    whole = LossSurface(model, F.cross_entropy, (x, y), d).at(POINTS, **QUIET)[0]
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True, generator=torch.Generator().manual_seed(0))
    state = loader.generator.get_state()
    for batches in ([(x[:70], y[:70]), (x[70:], y[70:])], loader, [[x[:10], y[:10]], [x[10:], y[10:]]]):
        for way in ('auto', 'plain', 'vmap'):
            assert np.allclose(LossSurface(model, F.cross_entropy, batches, d, way=way).at(POINTS, **QUIET)[0], whole, rtol=1e-6)
    assert torch.equal(state, loader.generator.get_state())


def test_dropout_is_off_and_the_mode_stays():
    model, (x, y) = build('mlp', 0)
    model.train()
    a, b = (loss_plane(model, F.cross_entropy, (x, y), n=3, **QUIET) for _ in range(2))
    assert np.array_equal(a.loss, b.loss) and model.training and model[2].training


def test_recomputed_statistics_are_those_of_each_point():
    model, batch = build('cnn', 0, 64)
    d = [random_direction(model, i) for i in (1, 2)]
    losses = LossSurface(model, F.cross_entropy, batch, d, batchnorm='recompute').at(POINTS, **QUIET)[0]
    assert np.allclose(losses, plain(model, F.cross_entropy, [batch], d, POINTS, train_norm=True), rtol=1e-6)
    assert not np.allclose(losses, LossSurface(model, F.cross_entropy, batch, d).at(POINTS, **QUIET)[0], rtol=1e-3)


def test_random_losses_draw_the_same_at_each_point():
    model, batch = build('mlp', 0)
    noisy = lambda m, b: F.cross_entropy(m(b[0] + torch.randn(b[0].shape)), b[1])
    before = everything(model)
    line = loss_line(model, step_fn=noisy, batch=batch, direction={'0.bias': torch.ones(16)}, span=1e-7, n=7, **QUIET)
    assert np.ptp(line.loss) < 1e-5 and same(before, everything(model))


def test_step_fn_gets_any_batch():
    model, (x, y) = build('mlp', 0)
    step = lambda m, b: F.cross_entropy(m(b['x']), b['y'])
    a = loss_plane(model, step_fn=step, batch=dict(x=x, y=y), n=3, **QUIET)
    assert np.allclose(a.loss, loss_plane(model, F.cross_entropy, (x, y), n=3, **QUIET).loss, rtol=1e-6)


def test_low_precision_weights_and_bf16(monkeypatch):
    model, (x, y) = build('cnn', 0, 100)
    d = [random_direction(model, i) for i in (1, 2)]
    exact = LossSurface(model, F.cross_entropy, (x, y), d).at(POINTS, **QUIET)[0]
    monkeypatch.setattr('dlpractice.loss_evaluation._has_bf16', lambda device: False)
    surface = LossSurface(model, F.cross_entropy, (x, y), d, bf16=True)
    assert 'no bf16' in surface.way and np.array_equal(exact, surface.at(POINTS, **QUIET)[0])
    monkeypatch.setattr('dlpractice.loss_evaluation._has_bf16', lambda device: True)
    coarse = LossSurface(model, F.cross_entropy, (x, y), d, bf16=True).at(POINTS, **QUIET)[0]
    assert not np.array_equal(exact, coarse) and np.allclose(exact, coarse, rtol=2e-2)
    half = copy.deepcopy(model).bfloat16()
    assert np.allclose(exact, LossSurface(half, lambda p, t: F.cross_entropy(p.float(), t), (x.bfloat16(), y), d, way='plain').at(POINTS, **QUIET)[0], rtol=5e-2)


def test_compiled_models_and_wrappers_are_looked_through():
    model, batch = build('mlp', 0)
    a = loss_plane(model, F.cross_entropy, batch, n=3, **QUIET)
    for wrapped in (torch.compile(model), nn.DataParallel(model)): assert np.allclose(a.loss, loss_plane(wrapped, F.cross_entropy, batch, n=3, **QUIET).loss, rtol=1e-6)


# ---- non-finite points, interrupts, files

def test_points_that_are_not_finite_stay_and_are_drawn_as_missing():
    model, x, y = regression()
    def loss(pred, t):
        l = F.mse_loss(pred, t)
        return l*float('inf') if l > 20 else l if l < 10 else l*float('nan')
    plane = loss_plane(model, loss, (x, y), n=11, span=20., **QUIET)
    assert np.isinf(plane.loss).any() and np.isnan(plane.loss).any() and np.isfinite(plane.loss).any() and not plane.interrupted
    assert 'not finite' in repr(plane)
    import matplotlib.pyplot as plt
    for kind in ('contour', 'heat', 'surface'): assert plane.plot(kind) is not None
    cells = plane.plot('heat').collections[0].get_array()
    assert np.array_equal(np.ma.getmaskarray(cells).reshape(11, 11), ~np.isfinite(plane.loss))
    plt.close('all')
    with pytest.raises(ArgumentError, match='at least one finite loss'): LossPlane(plane.xs, plane.ys, plane.loss*np.nan, math.nan).plot()


@pytest.mark.parametrize('after', [1, 5, 17, 27])
def test_interrupt_keeps_what_is_done_and_resume_finishes_it(after):
    model, batch = build('mlp with BatchNorm', 0, 64)
    full = loss_plane(model, F.cross_entropy, batch, n=5, way='plain', **QUIET)
    calls, before = [], everything(model)
    def step(m, b):
        calls.append(1)
        if len(calls) == after + 2: raise KeyboardInterrupt # two calls settle the way and the centre
        return F.cross_entropy(m(b[0]), b[1])
    part = loss_plane(model, step_fn=step, batch=batch, n=5, way='plain', **QUIET)
    assert same(before, everything(model))
    if after < 26:
        assert part.interrupted and part.done == after - 1 and np.isnan(part.loss).sum() == 25 - part.done and 'resume' in repr(part)
        assert np.array_equal(part.loss.ravel()[:part.done], full.loss.ravel()[:part.done])
    with torch.no_grad(): model[0].weight.add_(1) # the model trains on: the picture is of then
    assert part.resume(**QUIET) is part and not part.interrupted and np.allclose(part.loss, full.loss, rtol=1e-6)
    assert np.array_equal(part.resume().loss, part.loss)


def test_an_error_of_the_loss_is_raised_and_leaves_no_trace():
    model, batch = build('mlp', 0)
    before, calls = everything(model), []
    def step(m, b):
        calls.append(1)
        if len(calls) == 9: raise RuntimeError('of the user')
        return F.cross_entropy(m(b[0]), b[1])
    with pytest.raises(RuntimeError, match='of the user'): loss_plane(model, step_fn=step, batch=batch, n=5, way='plain', **QUIET)
    assert same(before, everything(model))


def test_files_bring_everything_back_and_hold_no_pickles(tmp_path):
    model, batch = build('mlp', 0)
    path = Trajectory()
    for m in (0.9, 0.5, 0.2):
        with torch.no_grad():
            for i, p in enumerate(model.parameters()): p.mul_(m + 0.01*i)
        path.record(model)
    plane = loss_plane(model, F.cross_entropy, batch, n=3, directions='pca', trajectory=path, **QUIET)
    line = loss_line(model, F.cross_entropy, batch, n=3, **QUIET)
    for o in (plane, line):
        o.save(tmp_path/'a.npz')
        with np.load(tmp_path/'a.npz', allow_pickle=False) as z: assert all(z[k].dtype != object for k in z.files)
        back = type(o).load(tmp_path/'a.npz')
        assert all(np.array_equal(getattr(o, k), getattr(back, k)) for k in o._saved) and repr(back) == repr(o) and back.plot() is not None
    assert [p.name for p in tmp_path.iterdir()] == ['a.npz']
    with pytest.raises(CheckpointError, match='a LossPlane'): LossPlane.load(tmp_path/'a.npz')
    (tmp_path/'b.npz').write_bytes(b'not a file of ours')
    with pytest.raises(CheckpointError): LossPlane.load(tmp_path/'b.npz')
    np.savez(tmp_path/'c.npz', x=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError): LossPlane.load(tmp_path/'c.npz')
    with pytest.raises(FileNotFoundError): LossPlane.load(tmp_path/'d.npz')
    line.done = 1
    line.save(tmp_path/'a.npz')
    with pytest.raises(ArgumentError, match='one read from a file'): LossLine.load(tmp_path/'a.npz').resume()


# ---- trajectories

def test_trajectory_in_a_learner_and_in_a_bare_loop():
    with seeded(0): x, y = torch.randn(96, 6), torch.randint(3, (96,))
    def make(): return build('mlp', 0)[0]
    path, bare = Trajectory(every=2), Trajectory(every=2)
    learner = Learner(make(), ([(x[i:i + 32], y[i:i + 32]) for i in (0, 32, 64)], None), F.cross_entropy, lambda p: torch.optim.SGD(p, 0.1), callbacks=[path])
    with seeded(1): learner.fit(3, **QUIET)
    model = make()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    bare.record(model, step=False)
    with seeded(1):
        for _ in range(3):
            for i in (0, 32, 64):
                opt.zero_grad()
                F.cross_entropy(model(x[i:i + 32]), y[i:i + 32]).backward()
                opt.step()
                bare.record(model)
    assert bare.steps == [0, 2, 4, 6, 8] and path.steps == [0, 2, 4, 6, 8, 9]
    assert torch.allclose(path.points[:5], bare.points, atol=1e-6)
    plane = loss_plane(learner.model, F.cross_entropy, (x, y), directions='pca', trajectory=path, n=3, **QUIET)
    assert np.allclose(plane.path[-1], 0, atol=1e-6) and math.isclose(np.abs(plane.path).max(), 0.9, rel_tol=1e-5) and abs(plane.cosine) < 1e-4
    assert plane.explained[0] >= plane.explained[1] > 0 and plane.explained.sum() <= 1 + 1e-9
    foot = {n: p.detach() + sum(c*d[n] for c, d in zip(plane.path[0], plane._frame[0])) for n, p in learner.model.named_parameters()}
    rest = torch.cat([t.reshape(-1) for t in foot.values()]) - path.points[0]
    for d in plane._frame[0]: assert abs(float(rest @ torch.cat([t.reshape(-1) for t in d.values()]))) < 1e-3*norm(d)*float(rest.norm()) + 1e-6


def test_a_long_path_is_thinned():
    path, model = Trajectory(most=10), nn.Linear(2, 2)
    path.record(model, step=False)
    for _ in range(100): path.record(model)
    assert path.steps[0] == 0 and len(path.steps) <= 10 and len(set(np.diff(path.steps[:-1]))) == 1 and path.every > 1


# ---- readings

def test_barrier_roughness_and_sharpness():
    xs = np.linspace(0, 1, 5)
    make = lambda loss: LossLine(xs, np.array(loss, float), loss[0], 'to another model', 5)
    assert barrier(make([1, 1.5, 2, 2.5, 3])) == 0 and barrier(make([1, 0, 0, 0, 1])) == 0 and barrier(make([0, 0, 4, 0, 2])) == 3
    assert barrier(make([0, math.nan, 1, 0, 0])) == math.inf
    assert roughness(make([0, 1, 0, 1, 0])) == pytest.approx(2/3) and math.isnan(roughness(make([0, 1, 2, 3, 4])))
    model, x, y = regression()
    plane = loss_plane(model, F.mse_loss, (x, y), n=41, **QUIET)
    d1, d2 = (d['weight'].numpy()[0] for d in plane._frame[0])
    hessian = 2*x.numpy().T @ x.numpy()/len(x)
    assert math.isclose(sharpness(plane, radius=0.5), 0.25*(d1 @ hessian @ d1 + d2 @ hessian @ d2)/4, rel_tol=0.05) # the mean over a circle
    some = [random_direction(model, i)['weight'].numpy()[0] for i in range(4)]
    assert math.isclose(sharpness(model, F.mse_loss, (x, y), radius=0.2, samples=4), np.mean([0.04*d @ hessian @ d/2 for d in some]), rel_tol=1e-6)


def test_hessian_directions_are_the_sharpest():
    model, x, y = regression()
    plane = loss_plane(model, F.mse_loss, (x, y), directions='hessian', n=3, **QUIET)
    design = np.c_[x.numpy(), np.ones(len(x))]
    values, vectors = np.linalg.eigh(2*design.T @ design/len(x))
    for d, v in zip(plane._frame[0], vectors.T[::-1]):
        flat = np.r_[d['weight'].numpy()[0], d['bias'].numpy()]
        assert abs(flat @ v)/np.linalg.norm(flat) > 0.999 and math.isclose(np.linalg.norm(flat), norm({n: p.detach() for n, p in model.named_parameters()}), rel_tol=1e-5)


# ---- bad input

@pytest.mark.parametrize('change, words', [
    (dict(batch=None), 'argument batch: expected a batch (inputs…, target), a list of batches or a loader, got none'), (dict(batch=[]), 'at least one sample'),
    (dict(batch=3), 'got int'), (dict(loss_fn=None), 'got neither'), (dict(step_fn=lambda m, b: 0), 'got both'),
    (dict(model=lambda x: x), 'argument model: expected an nn.Module, got function'), (dict(model=nn.ReLU()), 'at least one floating-point parameter'),
    (dict(model=nn.LazyLinear(3)), 'a lazy module'), (dict(model=nn.Linear(6, 3, device='meta')), 'some on the meta device'),
    (dict(directions=(random_direction(nn.Linear(6, 3), 1),)*2), "got 'weight'. Is it a direction of another model?"),
    (dict(directions=({'0.weight': torch.ones(3, 3)}, {'0.weight': torch.ones(16, 6)})), '0.weight: expected shape (16, 6), got (3, 3)'),
    (dict(directions=({'0.weight': torch.zeros(16, 6)}, {'0.weight': torch.ones(16, 6)})), 'zeros only'),
    (dict(directions=({'0.weight': torch.ones(16, 6)},)*2), 'parallel'), (dict(directions=([torch.ones(2)],)*2), 'one per parameter'),
    (dict(directions=({'0.weight': torch.full((16, 6), math.nan)},)*2), 'NaN'), (dict(directions=({},)*2), 'zeros only'),
    (dict(directions='pcs'), "Did you mean 'pca'?"), (dict(directions='pca'), 'argument trajectory'), (dict(directions=None), 'got NoneType'),
    (dict(directions='pca', trajectory=Trajectory()), 'expected points, got none'),
    (dict(n=1), 'argument n: expected a whole number from 2 up, got 1'), (dict(n=2.5), 'argument n'), (dict(span=0), 'argument span'), (dict(span=math.nan), 'argument span'),
    (dict(normalise='row'), "argument normalise: expected 'filter', 'layer', 'model' or None, got 'row'"), (dict(move='bias'), 'argument move'),
    (dict(batchnorm='train'), 'argument batchnorm'), (dict(way='fastest'), 'argument way'), (dict(way=('fold', 'spin')), 'argument way'), (dict(memory=0), 'argument memory'),
    (dict(loss_fn=lambda p, y: F.cross_entropy(p, y, reduction='none')), 'one number, as a tensor, got a tensor of shape (23,)'), (dict(loss_fn=lambda p, y: 0.5), 'got float'),
    (dict(seed=1.5), 'argument seed'),
])
def test_refusals(change, words):
    model, batch = build('mlp', 0)
    args = dict(model=model, loss_fn=F.cross_entropy, batch=batch, n=3, progress=False) | change
    before = everything(model)
    with pytest.raises(ArgumentError) as e: loss_plane(**args)
    assert words in str(e.value), str(e.value)
    assert same(before, everything(model))


@pytest.mark.parametrize('change, words', [
    (dict(to=nn.Linear(6, 3)), 'differs in'), (dict(to=build('mlp', 0)[0]), 'the same weights'), (dict(to=build('mlp', 1)[0], direction={}), 'either to or direction'),
    (dict(direction=3), 'got int'), (dict(n=1), 'argument n'), (dict(span=(1, 1)), 'argument span'), (dict(to=nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))), '0.weight: expected shape (16, 6), got (8, 6)'),
])
def test_refusals_of_lines(change, words):
    model, batch = build('mlp', 0)
    with pytest.raises(ArgumentError) as e: loss_line(**dict(model=model, loss_fn=F.cross_entropy, batch=batch, progress=False) | change)
    assert words in str(e.value), str(e.value)


def test_a_wrong_shortcut_is_refused_by_hand_and_passed_over_by_itself():
    model, batch = build('branching', 0, dtype=torch.float64) # a layer reads, detached, what another one wrote: autograd says that it stands still
    d = [random_direction(model, 1)]
    with pytest.raises(ArgumentError, match="the plain loop's losses"): LossSurface(model, F.cross_entropy, batch, d, way='products')
    assert np.allclose(LossSurface(model, F.cross_entropy, batch, d).at(POINTS, **QUIET)[0], plain(model, F.cross_entropy, [batch], d, [(a, 0) for a, _ in POINTS]), rtol=1e-9)


def test_no_parts_where_rows_see_each_other():
    model, batch = build('mixing', 0, 60_000)
    d = [random_direction(model, 1)]
    assert 'parts' not in LossSurface(model, F.cross_entropy, batch, d, way='parts').way
    assert np.allclose(LossSurface(model, F.cross_entropy, batch, d).at(POINTS, **QUIET)[0], plain(model, F.cross_entropy, [batch], d, [(a, 0) for a, _ in POINTS]), rtol=1e-6)


def test_normalised_keeps_the_angle_of_a_model_and_none_changes_nothing():
    model, _ = build('mlp', 0)
    d = {n: torch.randn(p.shape) for n, p in moving(model, 'all').items()}
    assert same(normalised(model, d, None), as_direction(model, d)) and math.isclose(cosine(d, normalised(model, d, 'model')), 1., abs_tol=1e-6)
    assert direction_between(model, build('mlp', 1)[0]).keys() == d.keys()


# ---- the lesson's own tools

def valley(): return nn.Linear(2, 1, bias=False), (torch.tensor([[1., 0.], [0., 3.]]), torch.tensor([[1.], [3.]]))


def test_descend_is_what_the_optimizer_does():
    model, batch = valley()
    before, twin = everything(model), copy.deepcopy(model)
    path, opt = descend(model, F.mse_loss, batch, lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.5), steps=6), torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.5)
    points = [twin.weight.detach().flatten().clone()]
    for _ in range(6):
        opt.zero_grad()
        F.mse_loss(twin(batch[0]), batch[1]).backward()
        opt.step()
        points.append(twin.weight.detach().flatten().clone())
    assert path.steps == list(range(7)) and torch.equal(path.points, torch.stack(points)) and same(before, everything(model))


def test_descend_takes_batches_in_turn_and_ends_where_the_loss_does():
    model, (x, y) = valley()
    sgd = lambda ps: torch.optim.SGD(ps, lr=0.05)
    rows = [(x[:1], y[:1]), (x[1:], y[1:])]
    path = descend(model, F.mse_loss, rows, sgd, steps=4)
    moved = path.points.diff(dim=0) != 0
    assert moved.tolist() == [[True, False], [False, True]]*2 # each row of x moves one weight
    wild = descend(model, F.mse_loss, (x, y), lambda ps: torch.optim.SGD(ps, lr=1e20), steps=50)
    assert len(wild.steps) < 51
    for wrong in (dict(steps=0), dict(optimizer=sgd(model.parameters())), dict(batch=None), dict(batch=iter([])), dict(batch=[])):
        with pytest.raises(ArgumentError): descend(**{**dict(model=model, loss_fn=F.mse_loss, batch=(x, y), optimizer=sgd, steps=3), **wrong})


@given(factor=st.floats(0.01, 100), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_rescaled_is_the_same_function(factor, seed):
    with seeded(seed): net, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)), torch.randn(5, 1, 6, 6)
    before, other = everything(net), rescaled(net, '0', '4', factor)
    assert torch.allclose(net(x), other(x), rtol=1e-4, atol=1e-5) and same(before, everything(net))
    assert torch.allclose(other[0].weight, net[0].weight*factor) and torch.allclose(other[0].bias, net[0].bias*factor)
    for wrong in (dict(factor=0), dict(factor=math.inf), dict(first='1'), dict(second='5')):
        with pytest.raises(ArgumentError): rescaled(**{**dict(model=net, first='0', second='4'), **wrong})
