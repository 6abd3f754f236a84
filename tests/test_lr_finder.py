"The range test: closed forms, no trace, early stops, and what it refuses."
import copy
import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dlpractice.data import Batches
from dlpractice.errors import ArgumentError
from dlpractice.lr_finder import RULES, RangeTest, dip, judge, landmarks, lr_range_test, pool, rates, slide, smooth, valley
from dlpractice.snapshots import seeded
from dlpractice.training import Learner

QUICK = dict(repeats=1, most=1, progress=False)


def world(n=256, seed=0, dim=8, classes=4):
    "Points around class centres."
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    return torch.randn(classes, dim, generator=g)[y]*2 + torch.randn(n, dim, generator=g), y


def net(seed=0):
    "BatchNorm for buffers, dropout for randomness."
    with seeded(seed): return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))


def loader(shuffle=True, size=32): return DataLoader(TensorDataset(*world()), size, shuffle=shuffle, generator=torch.Generator().manual_seed(3))


def everything(model, opt=None, dl=None, sched=None):
    "All that a test could disturb, as comparable copies."
    out = dict(state={k: v.clone() for k, v in model.state_dict().items()}, grads=[None if p.grad is None else p.grad.clone() for p in model.parameters()],
               needs=[p.requires_grad for p in model.parameters()], modes=[m.training for m in model.modules()], ids=[id(p) for p in model.parameters()],
               torch=torch.get_rng_state(), numpy=np.random.get_state()[1].copy(), python=random.getstate())
    if opt is not None: out['opt'] = copy.deepcopy(opt.state_dict())
    if dl is not None: out['dl'] = dl.generator.get_state()
    if sched is not None: out['sched'] = copy.deepcopy({k: v for k, v in sched.__dict__.items() if isinstance(v, (int, float, list))})
    return out


def same(a, b):
    "Bit for bit, through containers."
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray): return np.array_equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


# ---- numbers against oracles

@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.floats(0, 0.99))
def test_smooth_is_pandas_adjusted_ewm(values, beta):
    assert np.allclose(smooth(values, beta), pd.Series(values).ewm(alpha=1 - beta, adjust=True).mean(), rtol=1e-9, atol=1e-9)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=12))
def test_valley_finds_a_longest_falling_run(losses):
    lrs, n = np.geomspace(1e-6, 1, len(losses)), len(losses)
    runs = [[i for i in range(n) if mask >> i & 1] for mask in range(1, 2**n)]
    falling = [r for r in runs if all(losses[a] > losses[b] for a, b in zip(r, r[1:]))]
    longest = max(map(len, falling))
    middles = {r[0] + (r[-1] - r[0])//2 for r in falling if len(r) == longest}
    assert valley(lrs, losses) in lrs[sorted(middles)]


def test_slide_stays_where_slopes_agree_from_the_start():
    lrs = np.geomspace(1e-6, 1, 50)
    assert slide(lrs, np.linspace(3, 1, 50)) == lrs[49 - 15]


@pytest.mark.parametrize('growth', ['exp', 'linear'])
def test_quadratic_follows_its_closed_form(growth):
    "w' = w (1 - lr a) for the loss a w²/2: the recorded losses are those of the weights before each step."
    model, a = nn.Linear(1, 1, bias=False).double(), 3.
    nn.init.constant_(model.weight, 2.)
    batch = [(torch.ones(4, 1).double(), torch.zeros(4, 1).double())]
    r = lr_range_test(model, lambda p, y: a*((p - y)**2).mean()/2, batch, lambda ps: torch.optim.SGD(ps, lr=1.), start=1e-3, end=0.5, steps=40, growth=growth, **QUICK)
    lrs = rates(1e-3, 0.5, 40, growth)
    w = 2*np.cumprod(np.r_[1, 1 - lrs[:-1]*a])
    assert len(r.lrs) == 40 and np.allclose(r.losses, a*w**2/2, rtol=1e-10)


def test_dip_is_the_centre_for_a_symmetric_dip():
    lrs, x = np.geomspace(1e-6, 1e2, 161), np.arange(161)
    losses = 2 - np.exp(-((x - 100)/9.)**2)
    assert math.isclose(6*dip(lrs, losses), lrs[100], rel_tol=1e-3)
    assert math.isclose(2*dip(lrs, losses, adaptive=False), lrs[100], rel_tol=1e-3)
    assert landmarks(losses)[1] == 100


def test_interval_is_a_jackknife():
    rng, x = np.random.default_rng(0), np.arange(100)
    curves = np.array([2.3 - np.exp(-((x - c)/8.)**2) + 0.02*rng.standard_normal(100) for c in (65, 70, 75, 80)])
    r = RangeTest(rates(1e-7, 10, 100), curves, ['end']*4, 'x')
    read = lambda c: math.log(dip(r.lrs, smooth(pool(c))))
    left = np.array([read(np.delete(curves, i, 0)) for i in range(4)])
    error = math.sqrt(3/4*((left - left.mean())**2).sum())
    assert np.allclose(np.log(r.interval), [read(curves) - 2*error, read(curves) + 2*error])


def test_pool_keeps_a_wild_test_from_drowning_the_others():
    tame = np.full((2, 50), 2.)
    tame[:, 30:40] = 1.
    wild = np.r_[tame[0, :35], [1e6]*15]
    pooled = pool(np.stack([*tame, wild]))
    assert np.isfinite(pooled).all() and pooled[:35].tolist() == tame[0, :35].tolist() and pooled.max() < 4
    ended = np.r_[tame[0, :35], [np.nan]*15]
    assert len(pool(np.stack([ended, ended, tame[0]]))) == 35       # most had ended: so does the mean
    assert len(pool(np.stack([ended, *tame]))) == 50


# ---- no trace

@pytest.mark.parametrize('optimizer', ['sgd', 'adamw', 'none'])
@pytest.mark.parametrize('how', ['whole', 'error', 'interrupt', 'nan'])
def test_leaves_no_trace(optimizer, how):
    model, dl = net(), loader()
    model.eval()
    model[1].weight.requires_grad_(False)
    opt = dict(sgd=lambda: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True), adamw=lambda: torch.optim.AdamW(model.parameters(), 1e-3), none=lambda: None)[optimizer]()
    sched = None
    if opt is not None:
        sched = torch.optim.lr_scheduler.StepLR(opt, 2)
        for x, y in dl: opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step(); sched.step()
    before, calls = everything(model, opt, dl, sched), []

    def loss_fn(pred, y):
        calls.append(model.training)
        if len(calls) == 15:
            if how == 'error': raise RuntimeError('of the user')
            if how == 'interrupt': raise KeyboardInterrupt
            if how == 'nan': return F.cross_entropy(pred, y)*float('nan')
        return F.cross_entropy(pred, y)

    if how == 'error':
        with pytest.raises(RuntimeError, match='of the user'): lr_range_test(model, loss_fn, dl, opt, progress=False)
    else:
        r = lr_range_test(model, loss_fn, dl, opt, steps=40, progress=False)
        if how == 'interrupt': assert r.interrupted and r.stops == ['interrupted'] and len(r.lrs) == 14
        if how == 'nan': assert r.stops[0] == 'not finite' and np.isfinite(r.curves[0]).sum() == 14
    assert all(calls), 'a model in eval mode is tested in train mode'
    assert same(before, everything(model, opt, dl, sched))
    if opt is None: assert all(p.grad is None for p in model.parameters())


def test_global_shuffles_are_put_back_and_each_test_has_its_own():
    x, y = world()
    first = []
    def step(model, batch):
        first.append(batch[0][0, 0].item())
        return F.cross_entropy(model(batch[0]), batch[1])
    with seeded(5):
        state = torch.get_rng_state()
        lr_range_test(net(), train_dl=Batches(x, y, size=64), step_fn=step, steps=10, repeats=3, most=3, progress=False)
        assert torch.equal(state, torch.get_rng_state())
    assert len({first[i] for i in (0, 10, 20)}) == 3


# ---- stopping

def test_stops_at_four_times_the_best():
    values = iter([1.]*20 + [100.]*80)
    w = nn.Linear(1, 1)
    r = lr_range_test(w, train_dl=[torch.ones(1)], step_fn=lambda m, b: m.weight.sum()*0 + next(values), **QUICK)
    assert r.stops == ['diverged'] and len(r.lrs) == 21 and smooth(r.losses)[-1] > 4


def test_non_finite_loss_ends_it_at_once_and_is_not_recorded():
    values = iter([1.]*7 + [float('inf')]*93)
    r = lr_range_test(nn.Linear(1, 1), train_dl=[torch.ones(1)], step_fn=lambda m, b: m.weight.sum()*0 + next(values), **QUICK)
    assert r.stops == ['not finite'] and r.losses.tolist() == [1.]*7 and next(values) == float('inf') and len(list(values)) == 91


def test_verdicts():
    rng = np.random.default_rng(1)
    flat = 2 + 0.05*rng.standard_normal(100)
    make = lambda c, stops=('end',): RangeTest(rates(1e-7, 10, c.shape[-1]), np.atleast_2d(c), list(stops), 'x')
    assert make(flat).verdict == 'flat: nothing learns between these rates' and make(flat).suggestion is None and make(flat).min_lr is None
    assert 'Raise end' in repr(make(flat))
    good = flat - 0.8*np.exp(-((np.arange(100) - 70)/8)**2)
    r = make(good)
    assert r.verdict == 'clear' and r.suggestion == r.max_lr and math.isclose(r.min_lr, r.max_lr/10)
    assert make(np.linspace(2, 9, 12), ['diverged']).verdict == 'diverges from the start'
    apart = np.array([flat - 0.8*np.exp(-((np.arange(100) - c)/6)**2) for c in (40, 70)])
    assert make(apart).verdict == 'noisy: repeat' and 'more tests' in repr(make(apart))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6))
def test_any_partial_result_can_be_read(n, seed):
    "An interrupt after any number of steps gives a result that prints, judges and draws itself."
    c = np.random.default_rng(seed).normal(2, 0.1, (1, n))
    r = RangeTest(rates(1e-7, 10, 100)[:n], c, ['interrupted'], 'x')
    assert r.verdict and repr(r) and r.plot() is not None
    import matplotlib.pyplot as plt
    plt.close('all')


# ---- what it works with

def test_ratios_between_groups_are_kept_and_a_warm_up_at_zero_is_read_through():
    model = net()
    opt = torch.optim.AdamW([dict(params=model[0].parameters(), lr=1e-4), dict(params=model[4].parameters(), lr=1e-3)])
    torch.optim.lr_scheduler.LambdaLR(opt, lambda step: min(1, step/10))
    assert [g['lr'] for g in opt.param_groups] == [0, 0]
    seen = []
    def step(m, b):
        seen.append([g['lr'] for g in opt.param_groups])
        return F.cross_entropy(m(b[0]), b[1])
    r = lr_range_test(model, train_dl=loader(), optimizer=opt, step_fn=step, **QUICK)
    assert np.allclose([b/a for a, b in seen], 10) and np.allclose([b for _, b in seen], r.lrs[:len(seen)])
    assert [g['lr'] for g in opt.param_groups] == [0, 0] and 'AdamW' in r.optimizer


def test_accumulating_two_halves_equals_one_whole_batch():
    x, y = world()
    x, model = x.double(), nn.Linear(8, 4).double()   # in float32 the two sums round apart, and large rates let that grow
    whole = lr_range_test(model, F.cross_entropy, [(x[:64], y[:64])], steps=30, **QUICK)
    halves = lr_range_test(model, F.cross_entropy, [(x[:32], y[:32]), (x[32:64], y[32:64])], steps=30, accumulate=2, **QUICK)
    assert np.allclose(whole.losses, halves.losses, rtol=1e-9, atol=1e-12)


def test_dict_batches_short_loaders_and_bf16():
    x, y = world()
    step = lambda m, b: F.cross_entropy(m(b['x']), b['y'])
    r = lr_range_test(net(), train_dl=[dict(x=x, y=y)], step_fn=step, steps=20, amp='bf16', **QUICK)
    assert len(r.lrs) == 20 and np.isfinite(r.losses).all()


def test_validation_loss_is_recorded_in_eval_mode_weighted_by_size():
    x, y = world()
    model = net()
    parts = [(x[:100], y[:100]), (x[100:130], y[100:130])]
    r = lr_range_test(model, F.cross_entropy, loader(), valid_dl=parts, steps=10, **QUICK)
    model.eval()
    with torch.no_grad(): assert math.isclose(r.losses[0], F.cross_entropy(model(x[:130]), y[:130]).item(), rel_tol=1e-5)


def test_learner_twin_and_default_optimizer():
    x, y = world()
    learner = Learner(net(), (Batches(x, y, size=32), None), F.cross_entropy, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    with seeded(1): a = learner.lr_range_test(**QUICK)
    with seeded(1): b = lr_range_test(learner.model, F.cross_entropy, learner.data.train, learner.optimizer, **QUICK)
    assert np.array_equal(a.losses, b.losses) and not a.adaptive
    assert lr_range_test(net(), F.cross_entropy, loader(), **QUICK).optimizer.startswith('AdamW')


def test_more_tests_only_while_they_pay():
    r = lr_range_test(net(), F.cross_entropy, loader(), progress=False)
    assert 3 <= len(r.curves) <= 9 and r.interval[0] <= r.suggest() <= r.interval[1]
    assert len(lr_range_test(net(), F.cross_entropy, loader(), repeats=2, most=1, progress=False).curves) == 2


# ---- bad input, each refused before anything runs

@pytest.mark.parametrize('change, words', [
    (dict(start=0.), 'argument start: expected a positive learning rate, got 0.0'), (dict(start=1., end=0.1), 'argument end: expected a rate above start=1, got 0.1. Swap them?'),
    (dict(steps=9), 'argument steps: expected at least 10 (100 is usual), got 9'), (dict(growth='log'), "argument growth: expected 'exp' or 'linear', got 'log'"),
    (dict(repeats=0), 'argument repeats'), (dict(accumulate=0), 'argument accumulate'), (dict(stop=1.), 'argument stop'), (dict(beta=1.), 'argument beta'),
    (dict(amp='int8'), 'argument amp'), (dict(rule='deepest'), 'argument rule'), (dict(start=float('nan')), 'argument start'), (dict(end=float('inf')), 'argument end'),
    (dict(loss_fn=None), 'either loss_fn(pred, target) or step_fn(model, batch), got neither'), (dict(step_fn=lambda m, b: 0), 'got both'),
    (dict(train_dl=[]), 'expected at least one batch, got an empty loader'), (dict(train_dl=iter([1])), 'Pass the loader itself, not iter(loader)'),
    (dict(train_dl=(b for b in [])), 'Pass the loader itself'), (dict(model=lambda x: x), 'argument model: expected an nn.Module, got function'),
    (dict(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)), 'one of another model'),
    (dict(loss_fn=lambda p, y: F.cross_entropy(p, y, reduction='none')), 'expected one number, as a tensor, got a tensor of shape (32,)'),
    (dict(loss_fn=lambda p, y: 0.5), 'got float'), (dict(loss_fn=lambda p, y: F.cross_entropy(p, y).detach()), 'one without a gradient'),
    (dict(model=nn.Linear(8, 4).requires_grad_(False)), 'a frozen model'),
])
def test_refusals(change, words):
    args = dict(model=net(), loss_fn=F.cross_entropy, train_dl=loader(), progress=False) | change
    before = everything(args['model']) if isinstance(args['model'], nn.Module) else None
    with pytest.raises(ArgumentError) as e: lr_range_test(**args)
    assert words in str(e.value), str(e.value)
    if before: assert same(before, everything(args['model']))


def test_loader_that_turns_out_empty():
    class Empty:
        def __iter__(self): return iter(())
    with pytest.raises(ArgumentError, match='an empty loader'): lr_range_test(net(), F.cross_entropy, Empty(), progress=False)


def test_unknown_rule_names_the_nearest():
    with pytest.raises(ArgumentError, match="Did you mean 'valley'"): RangeTest(np.geomspace(1e-3, 1, 20), np.ones((1, 20)), ['end'], 'x').suggest('valey')
    assert set(RULES) == {'dip', 'steepest', 'minimum', 'valley', 'slide'} and judge(np.ones(20), np.ones(20)).startswith('flat')


@pytest.mark.parametrize('seedable', [False, True])
def test_what_accelerate_prepared(seedable):
    accelerate = pytest.importorskip('accelerate')
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    def prepared():
        with seeded(0): model = nn.Linear(4, 2)
        config = accelerate.DataLoaderConfiguration(use_seedable_sampler=seedable)
        loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 4, shuffle=True)
        return accelerate.Accelerator(cpu=True, dataloader_config=config).prepare(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), loader)
    def orders(loader, passes=2): return torch.stack([torch.cat([b for b, _ in loader]) for _ in range(passes)])
    with seeded(1):
        model, optimizer, loader = prepared()
        first = orders(loader)
        test = lr_range_test(model, nn.functional.cross_entropy, loader, optimizer, steps=40, repeats=2, most=2)
        after = orders(loader)
    with seeded(1):
        *_, other = prepared()
        assert torch.equal(orders(other), first) and torch.equal(orders(other), after), 'the shuffles that follow are those without a test'
    assert not torch.equal(first, after) and test.optimizer == 'SGD(momentum=0.9)' and not test.adaptive
    with seeded(0): bare = nn.Linear(4, 2)
    assert all(map(torch.equal, model.parameters(), bare.parameters())) and not optimizer.optimizer.state
