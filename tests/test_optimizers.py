"Optimizers: equal to torch.optim over random settings, and to closed forms; at work with Learner, checkpoints, snapshots; what they refuse."
import copy, io, math, pickle

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from dlpractice import optimizers
from dlpractice.data import Batches, Loaders
from dlpractice.errors import ArgumentError
from dlpractice.lr_finder import lr_range_test
from dlpractice.optimizers import (Adam, AdamW, Optimizer, RMSprop, SGD, adam_scale, decoupled_decay, descend, effective_rate, l2_penalty,
                                   momentum_step, rms_scale)
from dlpractice.snapshots import seeded, unchanged
from dlpractice.training import Learner

STEPS = 200
often = settings(deadline=None, max_examples=8)


# ---- equal to torch.optim

unit = st.sampled_from([0., 0.3, 0.5, 0.9, 0.99]) | st.floats(0., 0.99)
rate = st.floats(-5, -1).map(lambda v: 10**v)
decay = st.sampled_from([0., 1e-4, 0.01, 0.1, 0.5])
eps = st.sampled_from([1e-10, 1e-8, 1e-6, 1e-3])
betas = st.tuples(st.sampled_from([0., 0.5, 0.9, 0.95]), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
HOW = {
    'SGD': st.fixed_dictionaries(dict(lr=rate, momentum=unit, dampening=st.sampled_from([0., 0.1, 0.9]), weight_decay=decay)),
    'Nesterov': st.fixed_dictionaries(dict(lr=rate, momentum=st.floats(0.05, 0.99), nesterov=st.just(True), weight_decay=decay)),
    'RMSprop': st.fixed_dictionaries(dict(lr=rate, alpha=st.sampled_from([0., 0.5, 0.9, 0.99]), eps=eps, momentum=unit, weight_decay=decay)),
    'centered': st.fixed_dictionaries(dict(lr=rate, alpha=st.sampled_from([0.5, 0.9, 0.99]), eps=st.sampled_from([1e-6, 1e-3]), momentum=unit, weight_decay=decay, centered=st.just(True))),
    'Adam': st.fixed_dictionaries(dict(lr=rate, betas=betas, eps=eps, weight_decay=decay, amsgrad=st.booleans())),
    'AdamW': st.fixed_dictionaries(dict(lr=rate, betas=betas, eps=eps, weight_decay=decay, amsgrad=st.booleans()))}
CLASS = dict(Nesterov='SGD', centered='RMSprop')
every = pytest.mark.parametrize('name', HOW)


def pair(name): return [getattr(o, CLASS.get(name, name)) for o in (optimizers, torch.optim)]


def walk(make, groups, dtype, seed, n=STEPS, none=()):
    "Parameters after `n` steps along given gradients, whose sizes differ by weight; those in `none` never get one."
    gen = torch.Generator().manual_seed(seed)
    shapes = [(3, 2), (5,), (1,), (2, 2, 2)]
    params = [nn.Parameter(torch.randn(s, generator=gen, dtype=torch.float64).to(dtype)) for s in shapes]
    sizes = [10**(4*torch.rand(s, generator=gen, dtype=torch.float64) - 3) for s in shapes]
    cut = len(groups)
    opt = make([dict(params=params[i::cut], **g) for i, g in enumerate(groups)])
    for t in range(n):
        for i, (p, s) in enumerate(zip(params, sizes)):
            g = s*(torch.randn(s.shape, generator=gen, dtype=torch.float64) + 0.3)
            late = i == 2 and t < n//2 # this one gets its first gradient half-way
            p.grad = None if i in none or late else g.to(dtype)
        opt.step()
    return [p.detach() for p in params], opt


def near(ours, theirs):
    "Relative to the largest entry of each tensor."
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype and torch.isfinite(b).all()
        assert float((a - b).abs().max()) <= 1e-6*float(b.abs().max()), float((a - b).abs().max()/b.abs().max())


@every
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@often
@given(data=st.data())
def test_equal_to_torch(name, dtype, data):
    groups = data.draw(st.lists(HOW[name], min_size=1, max_size=3))
    seed, none = data.draw(st.integers(0, 999)), data.draw(st.sampled_from([(), (1,), (0, 3)]))
    ours, theirs = (walk(make, groups, dtype, seed, none=none)[0] for make in pair(name))
    near(ours, theirs)
    begin = walk(SGD, groups[:1] and [dict(lr=0.)], dtype, seed)[0]
    for i in none: assert torch.equal(ours[i], begin[i]) # without a gradient nothing moves, not even by decay


@every
@settings(deadline=None, max_examples=6)
@given(data=st.data())
def test_equal_on_a_network(name, data):
    """The gradients come from where each of the two has gone. Settings under which PyTorch's own walk hangs on the fourteenth
    digit of the start (large rates over small roots) cannot tell rounding from a mistake, and are left out."""
    how, seed = data.draw(HOW[name]), data.draw(st.integers(0, 99))
    def trained(make, nudge=0.):
        with seeded(seed): net, x, y = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double(), torch.randn(20, 4).double(), torch.randint(3, (20,))
        with torch.no_grad():
            for p in net.parameters(): p.mul_(1 + nudge)
        opt = make(net.parameters(), **how)
        for _ in range(STEPS):
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()
        return [p.detach() for p in net.parameters()]
    ours, theirs = (trained(make) for make in pair(name))
    assume(all(float((a - b).abs().max()) <= 1e-7*float(b.abs().max()) for a, b in zip(trained(pair(name)[1], 1e-14), theirs)))
    near(ours, theirs)


def test_the_comparison_sees_a_small_difference():
    a, b = (walk(lambda ps, e=e: Adam(ps, eps=e), [dict(lr=0.01)], torch.float64, 0)[0] for e in (1e-8, 1e-5))
    with pytest.raises(AssertionError): near(a, b)


@pytest.mark.parametrize('name', HOW)
def test_state_is_exchanged_with_torch(name):
    "Half of the steps by one, half by the other: the state has PyTorch's names."
    how = dict(SGD=dict(momentum=0.9), Nesterov=dict(momentum=0.9, nesterov=True), RMSprop=dict(momentum=0.5), centered=dict(centered=True), Adam=dict(amsgrad=True), AdamW={})[name] | dict(lr=0.01)
    ours, theirs = pair(name)
    whole = run_whole(theirs, how)
    for first, second in ((ours, theirs), (theirs, ours), (ours, ours)): near(run_halves(first, second, how), whole)


def small():
    with seeded(0): return nn.Linear(3, 2).double(), torch.randn(10, 3).double()


def go_on(opt, net, x, n):
    for _ in range(n):
        opt.zero_grad()
        (net(x)**2).mean().backward()
        opt.step()


def run_whole(make, how):
    net, x = small()
    go_on(make(net.parameters(), **how), net, x, 40)
    return [p.detach() for p in net.parameters()]


def run_halves(first, second, how):
    net, x = small()
    opt = first(net.parameters(), **how)
    go_on(opt, net, x, 20)
    then = second(net.parameters(), **how)
    then.load_state_dict(copy.deepcopy(opt.state_dict()))
    go_on(then, net, x, 20)
    return [p.detach() for p in net.parameters()]


# ---- closed forms

def on_quadratic(make, bends, start, n):
    p, h = nn.Parameter(torch.tensor(start, dtype=torch.float64)), torch.tensor(bends, dtype=torch.float64)
    opt, path = make([p]), [p.detach().clone()]
    for _ in range(n):
        p.grad = h*p.detach()
        opt.step()
        path.append(p.detach().clone())
    return torch.stack(path).numpy()


@often
@given(st.lists(st.floats(0.1, 20), min_size=1, max_size=4), st.floats(0.001, 0.09))
def test_sgd_is_a_power(bends, lr):
    path = on_quadratic(lambda ps: SGD(ps, lr=lr), bends, [1.]*len(bends), 50)
    assert np.allclose(path, (1 - lr*np.array(bends))**np.arange(51)[:, None], rtol=1e-10, atol=0)


@often
@given(st.floats(0.1, 20), st.floats(0.001, 0.05), st.floats(0.1, 0.95))
def test_momentum_is_a_matrix_power(h, lr, m):
    path = on_quadratic(lambda ps: SGD(ps, lr=lr, momentum=m), [h], [1.], 50)[:, 0]
    M = np.array([[1 - lr*h, -lr*m], [h, m]])
    want = [(np.linalg.matrix_power(M, k) @ [1., 0.])[0] for k in range(51)]
    assert np.allclose(path, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('condition', [4., 50., 400.])
def test_the_best_rates(condition):
    "No other rate shrinks the slowest weight more; momentum at its best goes by the root of the condition."
    L, mu = condition, 1.
    def shrink(lr, momentum=0., n=400):
        "Per step, over the second half of the walk."
        path = np.abs(on_quadratic(lambda ps: SGD(ps, lr=lr, momentum=momentum), [mu, L], [1., 1.], n)).max(1)
        return (path[-1]/path[n//2])**(2/n)
    best = shrink(2/(L + mu), n=40 if condition < 10 else 400)
    assert best == pytest.approx((L - mu)/(L + mu), rel=1e-6)
    for factor in (0.9, 0.99): assert shrink(factor*2/(L + mu), n=40 if condition < 10 else 400) > best
    a, b = L**0.5, mu**0.5
    fast = shrink((2/(a + b))**2, ((a - b)/(a + b))**2, n=60 if condition < 10 else 300)
    assert (a - b)/(a + b) - 0.02 < fast < (a - b)/(a + b) + 0.06 # it nears its limit like n times a power


@often
@given(st.floats(-6, 6).map(lambda v: 10**v), st.floats(0.001, 1))
def test_adams_first_step_is_the_rate(size, lr):
    p = nn.Parameter(torch.tensor([1., 1.], dtype=torch.float64))
    p.grad = torch.tensor([size, -size], dtype=torch.float64)
    Adam([p], lr=lr, eps=0.).step()
    assert p.tolist() == pytest.approx([1 - lr, 1 + lr], rel=1e-9)


@pytest.mark.parametrize('steps, same', [([descend], True), ([adam_scale, descend], False), ([rms_scale, descend], False)])
def test_l2_and_decoupled_decay(steps, same):
    def end(f):
        with seeded(3): p, grads = nn.Parameter(torch.randn(4).double()), [torch.randn(4).double() for _ in range(50)]
        opt = Optimizer([p], [f, *steps], lr=0.01, weight_decay=0.1, betas=(0.9, 0.99), alpha=0.9, eps=1e-8)
        for g in grads:
            p.grad = g
            opt.step()
        return p.detach()
    assert torch.allclose(end(l2_penalty), end(decoupled_decay), rtol=1e-12) == same


def test_the_gradient_stays_as_it_was():
    for make in (lambda ps: SGD(ps, momentum=0.9, nesterov=True, weight_decay=0.1), lambda ps: RMSprop(ps, centered=True, momentum=0.9, weight_decay=0.1), lambda ps: Adam(ps, weight_decay=0.1, amsgrad=True), AdamW):
        p = nn.Parameter(torch.ones(3))
        opt = make([p])
        for _ in range(3):
            p.grad = torch.tensor([1., 2., 3.])
            opt.step()
            assert p.grad.tolist() == [1., 2., 3.]


# ---- at work

KINDS = [lambda ps: SGD(ps, lr=0.1, momentum=0.9), lambda ps: RMSprop(ps, lr=1e-3), lambda ps: Adam(ps, lr=0.01), lambda ps: AdamW(ps, lr=0.01)]
kinds = pytest.mark.parametrize('make', KINDS, ids=['SGD', 'RMSprop', 'Adam', 'AdamW'])


def learner(make, seed=0):
    with seeded(seed): net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with seeded(99): x, y = torch.randn(60, 4), torch.randint(3, (60,))
    return Learner(net, Loaders(Batches(x, y, size=10, generator=torch.Generator().manual_seed(0)), None), F.cross_entropy, make)


def values(o): return [p.detach().clone() for p in o.model.parameters()]


def same(a, b): return all(torch.equal(x, y) for x, y in zip(a, b))


@kinds
def test_unchanged_puts_everything_back(make):
    o = learner(make)
    o.fit(1, progress=False)
    state, before = copy.deepcopy(o.optimizer.state_dict()), values(o)
    with unchanged(o.model, o.optimizer): o.fit(1, progress=False)
    after = o.optimizer.state_dict()
    assert same(before, values(o)) and str(after) == str(state)
    fresh = learner(make)
    with unchanged(fresh.model, fresh.optimizer): fresh.fit(1, progress=False)
    assert not fresh.optimizer.state


@kinds
def test_a_run_resumes_bit_for_bit(make, tmp_path):
    whole, first = learner(make), learner(make)
    whole.fit(4, schedule=lambda t: 1 - t/2, progress=False)
    class Stop:
        def after_epoch(self, o):
            if o.epoch == 1: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): first.fit(4, schedule=lambda t: 1 - t/2, checkpoint=tmp_path/'run.pt', callbacks=[Stop()], progress=False)
    again = learner(make, seed=1)
    again.fit(4, schedule=lambda t: 1 - t/2, resume=tmp_path/'run.pt', progress=False)
    assert same(values(whole), values(again))


@kinds
def test_saved_and_loaded(make, tmp_path):
    a, b = learner(make), learner(make, seed=5)
    a.fit(1, progress=False)
    a.save(tmp_path/'a.pt')
    b.load(tmp_path/'a.pt')
    for o in (a, b):
        o.data.train.generator.manual_seed(7)
        o.fit(1, progress=False)
    assert same(values(a), values(b))


@kinds
def test_a_schedule_moves_each_groups_rate(make):
    o, seen = learner(lambda ps: make([dict(params=[p], lr=0.01*(i + 1)) for i, p in enumerate(ps)])), []
    class Watch:
        def after_step(self, o): seen.append([g['lr'] for g in o.optimizer.param_groups])
    o.fit(1, schedule=lambda t: 1 - t/2, callbacks=[Watch()], progress=False)
    assert np.allclose(seen[0], 0.01*np.arange(1, 5)) and np.allclose(seen[-1], 0.005*np.arange(1, 5))


@kinds
def test_torchs_schedulers_take_them(make):
    o = learner(make)
    base = o.optimizer.param_groups[0]['lr']
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(o.optimizer, 10)
    for x, y in [*o.data.train][:3]:
        F.cross_entropy(o.model(x), y).backward()
        o.optimizer.step()
        plan.step()
    assert o.optimizer.param_groups[0]['lr'] == pytest.approx(base*(1 + math.cos(0.3*math.pi))/2)


@pytest.mark.parametrize('ours, theirs', [(SGD, torch.optim.SGD), (AdamW, torch.optim.AdamW)])
def test_the_range_test_sees_the_same(ours, theirs):
    def curves(make):
        o = learner(lambda ps: make(ps, lr=1.))
        before = values(o)
        with seeded(0): r = lr_range_test(o.model, F.cross_entropy, o.data.train, o.optimizer, steps=40, repeats=2, most=2, progress=False)
        assert same(before, values(o)) and not o.optimizer.state
        return r
    a, b = curves(ours), curves(theirs)
    n = min(len(a.lrs), len(b.lrs))
    if ours is SGD: a.adaptive = False # the test takes what is no torch.optim.SGD for adaptive
    assert a.adaptive == b.adaptive
    tame = b.curves[0, :n] < 3
    assert n > 20 and np.allclose(a.curves[0, :n][tame], b.curves[0, :n][tame], rtol=1e-3)


def test_copies_keep_the_steps():
    net = nn.Linear(2, 1)
    opt = Optimizer(net.parameters(), [momentum_step, descend], lr=0.1, momentum=0.9)
    both = copy.deepcopy((net, opt))
    file = io.BytesIO()
    pickle.dump((net, opt), file)
    file.seek(0)
    for n, o in ((net, opt), both, pickle.load(file)):
        for _ in range(2):
            o.zero_grad()
            n(torch.ones(1, 2)).sum().backward()
            o.step()
    assert torch.equal(both[0].weight, net.weight)


def test_closure_and_a_rate_in_a_tensor():
    p = nn.Parameter(torch.tensor([2.]))
    opt = SGD([p], lr=torch.tensor(0.5))
    def closure():
        opt.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss
    assert opt.step(closure).item() == 4. and p.item() == 0.


def test_effective_rates_of_torchs_optimizers():
    for make in (torch.optim.RMSprop, torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        p = nn.Parameter(torch.ones(3))
        opt = make([p], lr=0.1)
        for _ in range(2000):
            p.grad = torch.tensor([0.5, 1., 2.])
            opt.step()
        rate = effective_rate(opt, p)
        assert torch.allclose(rate, torch.full((3,), 0.1) if make is torch.optim.SGD else 0.1/torch.tensor([0.5, 1., 2.]), rtol=1e-3) and not rate.requires_grad
    amsgrad = Adam([p], lr=0.1, amsgrad=True, betas=(0.9, 0.5))
    for g in (4., 0.01):
        p.grad = torch.full((3,), g)
        amsgrad.step()
    assert torch.allclose(effective_rate(amsgrad, p), 0.1/torch.tensor(8/0.75).sqrt(), rtol=1e-4)


# ---- what they refuse

def p(): return nn.Parameter(torch.ones(2))


REFUSED = [(SGD, {'lr': -1.}, 'SGD, argument lr: expected a number from 0 up, got -1.0.'), (SGD, {'lr': math.nan}, 'got nan'), (SGD, {'lr': '0.1'}, "got '0.1'"),
           (SGD, {'momentum': 1.}, 'momentum: expected a number in [0, 1), got 1.0'), (SGD, {'nesterov': True}, 'momentum above 0'), (SGD, {'nesterov': True, 'momentum': 0.9, 'dampening': 0.1}, 'no dampening'),
           (RMSprop, {'alpha': -0.1}, 'alpha'), (RMSprop, {'eps': -1e-8}, 'eps'), (RMSprop, {'weight_decay': -1.}, 'weight_decay'), (Adam, {'betas': (0.9, 1.)}, 'a pair of numbers in [0, 1)'),
           (Adam, {'betas': 0.9}, 'a pair'), (Adam, {'betas': (0.9, 0.99, 0.999)}, 'a pair'), (AdamW, {'lr': None}, 'got None')]


@pytest.mark.parametrize('make, how, words', REFUSED, ids=str)
def test_hyperparameters_out_of_range(make, how, words):
    with pytest.raises(ArgumentError) as e: make([p()], **how)
    assert words in str(e.value)
    with pytest.raises(ArgumentError, match='group 1'): make([dict(params=[p()]), dict(params=[p()], **how)])


def test_a_refused_group_is_not_added():
    opt = SGD([p()])
    with pytest.raises(ArgumentError): opt.add_param_group(dict(params=[p()], lr=-1.))
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize('params, words', [([], 'at least one parameter, got none'), (iter([]), 'used before'), (torch.ones(2), 'one tensor')])
def test_parameters(params, words):
    with pytest.raises(ArgumentError, match=words): AdamW(params)


def test_steps():
    with pytest.raises(ArgumentError, match='the hyperparameter lr, got none'): Optimizer([p()], [descend])
    with pytest.raises(ArgumentError, match='a function'): Optimizer([p()], [lambda p, g: g], lr=0.1)
    assert Optimizer([dict(params=[p()], lr=0.1)], [descend]).param_groups[0]['lr'] == 0.1 # the group brings it


def test_gradients_that_are_not_dense():
    table, other = nn.Embedding(5, 2, sparse=True), p()
    opt = Adam([other, table.weight])
    (table(torch.tensor([1])).sum() + other.sum()).backward()
    with pytest.raises(ArgumentError, match='dense gradients.*SparseAdam'): opt.step()
    assert other.tolist() == [1., 1.]
    z = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    z.grad = torch.ones_like(z)
    with pytest.raises(ArgumentError, match='real numbers'): SGD([z]).step()
