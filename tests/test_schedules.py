"Schedules against torch.optim.lr_scheduler, over their arguments; and what they refuse."
import math, pickle

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch.optim import lr_scheduler

from dlpractice.errors import ArgumentError
from dlpractice.schedules import (ScheduleFn, constant, cosine, exponential, flat_then_cosine, join, linear, momentum_cycle, one_cycle, polynomial, repeat, restarts,
                                  scale, step, triangular, warmup)

quick = settings(max_examples=25, deadline=None)
rate = st.floats(1e-5, 10.)


def torchs(make, steps, lr=1., key='lr'):
    "What a scheduler of torch's sets at each step of a run."
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    scheduler, values = make(optimizer), []
    for k in range(steps):
        values.append(float(optimizer.param_groups[0][key]))
        optimizer.step()
        if k + 1 < steps: scheduler.step()
    return np.array(values)


def same(ours, theirs, top): np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=max(1e-12*abs(top), 1e-300)) # below that, numbers are no longer exact


# ---- equal to torch's

@quick
@given(steps=st.integers(8, 300), top=rate, div=st.floats(1.5, 100), final_div=st.floats(1.5, 1e5), share=st.floats(0.2, 0.45), shape=st.sampled_from(['cos', 'linear']), three=st.booleans())
def test_one_cycle(steps, top, div, final_div, share, shape, three):
    make = lambda o: lr_scheduler.OneCycleLR(o, top, total_steps=steps, pct_start=share, anneal_strategy=shape, div_factor=div, final_div_factor=final_div, three_phase=three)
    warm = (share*steps - 1)/(steps - 1)
    assume(warm > 0.02)
    same(one_cycle(top, div, final_div, warm, shape, three).values(steps), torchs(make, steps), top)
    same(momentum_cycle(0.95, 0.85, warm, shape, three).values(steps), torchs(make, steps, key='momentum'), 1)


@quick
@given(steps=st.integers(3, 300), up=st.integers(1, 60), down=st.integers(1, 60), low=st.floats(1e-5, 1e-2), high=st.floats(2e-2, 10), mode=st.sampled_from(['triangular', 'triangular2', 'exp_range']), gamma=st.floats(0.95, 1.))
def test_triangular(steps, up, down, low, high, mode, gamma):
    theirs = torchs(lambda o: lr_scheduler.CyclicLR(o, low, high, up, down, mode, gamma, cycle_momentum=False), steps)
    cycles = (steps - 1)/(up + down)
    same(triangular(low, high, cycles, up/(up + down), mode, gamma**(steps - 1)).values(steps), theirs, high)


@quick
@given(steps=st.integers(3, 300), first=st.integers(1, 60), mult=st.sampled_from([1, 2]), top=rate, low=st.floats(0, 1e-3))
def test_restarts(steps, first, mult, top, low):
    assume(first <= steps - 1)
    f = restarts(first, mult, of=steps - 1, top=top, low=low)
    theirs = torchs(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, first, mult, low), steps, lr=top)
    complete = abs(f.ends[-1] - 1) < 1e-9 # then ours ends with the cycle's end, where torch's would begin another
    same(f.values(steps)[:-1 if complete else None], theirs[:-1 if complete else None], top)
    if complete: assert f(1.) == pytest.approx(low, abs=1e-12)


@quick
@given(steps=st.integers(3, 300), size=st.integers(1, 100), gamma=st.floats(0.05, 1.), top=rate)
def test_step(steps, size, gamma, top):
    if size < steps: same(step(top, gamma, every=size/(steps - 1)).values(steps), torchs(lambda o: lr_scheduler.StepLR(o, size, gamma), steps, lr=top), 0)
    at = sorted({size, 2*size} & set(range(1, steps)))
    if at: same(step(top, gamma, at=[a/(steps - 1) for a in at]).values(steps), torchs(lambda o: lr_scheduler.MultiStepLR(o, at, gamma), steps, lr=top), 0)


@quick
@given(steps=st.integers(3, 300), top=rate, gamma=st.floats(0.97, 0.9999), power=st.floats(0.5, 4))
def test_decays(steps, top, gamma, power):
    n = steps - 1
    same(exponential(top, top*gamma**n).values(steps), torchs(lambda o: lr_scheduler.ExponentialLR(o, gamma), steps, lr=top), 0)
    same(polynomial(top, 0., power).values(steps), torchs(lambda o: lr_scheduler.PolynomialLR(o, n, power), steps, lr=top), top)
    same(cosine(top, 0.).values(steps), torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, n), steps, lr=top), top)
    same(linear(top, top/10).values(steps), torchs(lambda o: lr_scheduler.LinearLR(o, 1., 0.1, n), steps, lr=top), 0)


# ---- put together

every = st.sampled_from([constant(0.5), linear(), cosine(2., 0.1), exponential(), polynomial(1., 0.1, 3), triangular(cycles=3), triangular(mode='exp_range', cycles=2.5), one_cycle(),
    one_cycle(three_phase=True, shape='linear'), momentum_cycle(), restarts(cycles=3), restarts(1, 2, of=7), step(every=0.3), step(at=[0.5, 0.75]), flat_then_cosine(), warmup(0.1, cosine())])


@quick
@given(f=every, g=every, at=st.floats(0.05, 0.95), p=st.floats(0, 1), by=st.floats(-10, 10), n=st.integers(1, 5))
def test_join_scale_repeat(f, g, at, p, by, n):
    assert scale(f, by)(p) == by*f(p)
    both = join([f, g], at=[at])
    if p < at - 1e-6: assert both(p) == pytest.approx(f(p/at), rel=1e-9, abs=1e-12)
    if p > at + 1e-6: assert both(p) == pytest.approx(g((p - at)/(1 - at)), rel=1e-9, abs=1e-12)
    assert both(0.) == f(0.) and both(1.) == g(1.) and both(at) == g(0.)
    again = repeat(f, n)
    assert again(1.) == f(1.) and all(again(i/n) == f(0.) for i in range(n))


@quick
@given(f=every, steps=st.integers(1, 200))
def test_every_function(f, steps):
    again = eval(repr(f)) # a repr makes the same function
    np.testing.assert_array_equal(again.values(steps), f.values(steps))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(f)).values(steps), f.values(steps))
    one_by_one = [f(k/max(1, steps - 1)) for k in range(steps)]
    assert np.array_equal(f.values(steps), one_by_one) and all(type(v) is float for v in one_by_one)
    assert all(b > a for a, b in zip(f.ends, f.ends[1:])) and f.ends[-1] >= 1 - 1e-9


@pytest.mark.parametrize('p', [-1e-9, 1.0000001, math.nan, math.inf, 'half', None, 7])
def test_progress_outside_is_refused(p):
    for f in constant(), one_cycle(), join([linear(), cosine()], at=[0.5]):
        with pytest.raises(ArgumentError, match=r'progress in \[0, 1\]'): f(p)
        with pytest.raises(ArgumentError): f([0.5, 7.])


@pytest.mark.parametrize('make, says', [
    (lambda: join([linear(), cosine(), constant()], at=[0.6, 0.4]), 'growing'), (lambda: join([linear(), cosine(), constant()], at=[0.6, 0.6]), 'growing'),
    (lambda: join([linear(), cosine()], at=[0.3, 0.6]), '1 joints between 2'), (lambda: join([linear(), cosine()], at=[30]), 'between 0 and 1'),
    (lambda: join([linear(), cosine()], at=0.3), 'list of numbers'), (lambda: join([linear(), 0.1], at=[0.3]), 'functions of progress'),
    (lambda: exponential(1., 0.), 'same sign'), (lambda: step(), 'neither'), (lambda: step(every=0.1, at=[0.5]), 'both'), (lambda: step(every=30), 'at most 1'),
    (lambda: restarts(), 'neither'), (lambda: restarts(1, cycles=2), 'both'), (lambda: restarts(8, of=7), 'at most 7'), (lambda: restarts(0.2, 0.5), 'fill the run'), (lambda: restarts(cycles=2.5), 'whole number'),
    (lambda: one_cycle(warm=0.6, three_phase=True), 'at most 0.5'), (lambda: one_cycle(div=0), 'above 0'), (lambda: one_cycle(shape='cosine'), "'cos'"), (lambda: one_cycle(top=math.nan), 'finite'),
    (lambda: triangular(mode='saw'), 'triangular2'), (lambda: triangular(up=1.), 'at most 1'), (lambda: warmup(0), 'above 0'), (lambda: warmup(5), 'at most 1'), (lambda: repeat(cosine(), 0), 'whole number'), (lambda: constant('fast'), 'finite number')])
def test_bad_arguments(make, says):
    with pytest.raises(ArgumentError, match=says): make()


def test_restarts_of_the_issue():
    f = restarts(1, 2, of=7)
    assert f.ends == pytest.approx((1/7, 3/7, 1)) and f(1/7) == f(3/7) == 1. and f(1.) == 0.
    assert restarts(cycles=3, cycle_mult=2).ends == pytest.approx(f.ends)


def test_they_draw_themselves():
    for f in one_cycle(), restarts(cycles=3), repeat(linear(), 2):
        ax = f.plot(label='f')
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), f.values(1001))
        assert isinstance(f, ScheduleFn) and f.plot(ax=ax) is ax
        ax.figure.clear()
