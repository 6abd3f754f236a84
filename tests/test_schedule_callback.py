"`Schedule`: as a callback and in a bare loop, what it sets and puts back, resumed runs, refusals; snapshots at the ends of cycles."
import math

import numpy as np
import pytest
import torch
from torch import nn

from dlpractice.checkpoints import Checkpoint
from dlpractice.errors import ArgumentError, TrainingError
from dlpractice.schedules import CycleSnapshots, Schedule, constant, cosine, cycle_ends, join, linear, momentum_cycle, one_cycle, repeat, restarts, triangular
from dlpractice.snapshots import seeded
from dlpractice.training import Learner

STEPS = 6 # per epoch


def net(seed=0):
    with seeded(seed): return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1)), nn.Linear(8, 2))


def batches(n=STEPS):
    with seeded(1): return [(torch.randn(5, 3), torch.randint(2, (5,))) for _ in range(n)]


def adamw(model, **kw): return torch.optim.AdamW([dict(params=model[0].parameters(), lr=0.01), dict(params=[p for m in model[1:] for p in m.parameters()], lr=0.04)], weight_decay=0.1, **kw)
def sgd(model): return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def learner(make=adamw, callbacks=(), n=STEPS, **kw):
    model = net()
    return Learner(model, (batches(n), None), kw.pop('loss', nn.CrossEntropyLoss()), make(model), callbacks=callbacks, **kw)


class Watch:
    "What is in force when a batch is seen."
    def __init__(self, read): self.read,self.seen = read,[]
    def before_batch(self, learner): self.seen.append(self.read(learner))


def fit(o, epochs=2, **kw): return o.fit(epochs, progress=False, **kw)


# ---- what it sets

f = cosine(0.5, 0.1)

@pytest.mark.parametrize('target, read', [
    ('lr', lambda o: o.optimizer.param_groups[-1]['lr']), ('momentum', lambda o: o.optimizer.param_groups[0]['betas'][0]), ('betas', lambda o: o.optimizer.param_groups[1]['betas'][0]),
    ('beta2', lambda o: o.optimizer.param_groups[1]['betas'][1]), ('weight_decay', lambda o: o.optimizer.param_groups[0]['weight_decay']), ('eps', lambda o: o.optimizer.param_groups[0]['eps']),
    ('dropout', lambda o: o.model[2].p), ('dropout', lambda o: o.model[3][1].p), ('dropout:3', lambda o: o.model[3][1].p), ('3.1.p', lambda o: o.model[3][1].p), ('model.2.p', lambda o: o.model[2].p),
    ('label_smoothing', lambda o: o.loss.label_smoothing), ('loss.label_smoothing', lambda o: o.loss.label_smoothing)])
def test_each_target_is_set_recorded_and_put_back(target, read):
    o, watch = learner(), Watch(read)
    before = read(o)
    fit(o, callbacks=[Schedule(target, f), watch])
    np.testing.assert_allclose(watch.seen, f.values(2*STEPS), rtol=1e-12)
    np.testing.assert_allclose(o.history.scheduled[target], f.values(2*STEPS), rtol=1e-12)
    assert read(o) == before and len(o.history.steps) == 2*STEPS


def test_dropout_below_a_path_leaves_the_others():
    o = learner()
    watch = Watch(lambda o: (o.model[2].p, o.model[3][1].p))
    fit(o, callbacks=[Schedule('dropout:3', f), watch])
    assert {a for a, _ in watch.seen} == {0.3} and watch.seen[0][1] == 0.5 and o.model[3][1].p == 0.1


def test_callback_attribute_data_attribute_and_setter():
    class MixUp:
        alpha, size = 0.4, 32
        def before_batch(self, learner): ...
    mix, got = MixUp(), []
    o, watch = learner(), Watch(lambda o: (mix.alpha, mix.size))
    sizes = Schedule('size', linear(32, 64), on=mix)
    fit(o, callbacks=[mix, Schedule('alpha', f), sizes, Schedule(got.append, linear(0, 1), name='mine', get=lambda: -1.), watch])
    np.testing.assert_allclose([a for a, _ in watch.seen], f.values(2*STEPS))
    assert [s for _, s in watch.seen] == [round(v) for v in linear(32, 64).values(2*STEPS)] and (mix.alpha, mix.size) == (0.4, 32)
    np.testing.assert_allclose(got, [*linear(0, 1).values(2*STEPS), -1.])
    assert set(o.history.scheduled) == {'alpha', 'size', 'mine'} and len(o.history.plot_scheduled()) == 3


def groups(key='lr'): return Watch(lambda o: tuple(g[key] for g in o.optimizer.param_groups))


def test_groups_keep_their_ratios():
    o, watch = learner(), groups()
    fit(o, callbacks=[Schedule('lr', cosine(0.2, 0.1)), watch])
    np.testing.assert_allclose(watch.seen, [(v/4, v) for v in cosine(0.2, 0.1).values(2*STEPS)])
    assert o.history.lrs == pytest.approx(list(cosine(0.2, 0.1).values(2*STEPS))) and [g['lr'] for g in o.optimizer.param_groups] == [0.01, 0.04]


def test_each_group_times_its_own_and_a_list():
    o, watch = learner(), groups()
    fit(o, callbacks=[Schedule('lr', linear(1, 0.5), each=True), watch])
    np.testing.assert_allclose(watch.seen, [(0.01*v, 0.04*v) for v in linear(1, 0.5).values(2*STEPS)])
    o, watch = learner(), groups()
    fit(o, callbacks=[Schedule('lr', [constant(0.3), linear(1, 0.5)]), watch])
    np.testing.assert_allclose(watch.seen, [(0.3, v) for v in linear(1, 0.5).values(2*STEPS)])
    np.testing.assert_allclose(o.history.scheduled['lr[0]'], 0.3)


def test_a_group_at_zero_stays_there_and_all_at_zero_move():
    def make(model): return torch.optim.AdamW([dict(params=model[0].parameters(), weight_decay=0.1), dict(params=model[4].parameters(), weight_decay=0.)])
    o, watch = learner(make), groups('weight_decay')
    fit(o, callbacks=[Schedule('weight_decay', f), watch])
    np.testing.assert_allclose(watch.seen, [(v, 0.) for v in f.values(2*STEPS)])
    np.testing.assert_allclose(o.history.scheduled['weight_decay'], f.values(2*STEPS))
    o, watch = learner(lambda m: torch.optim.SGD(m.parameters(), lr=0.1)), groups('weight_decay')
    fit(o, callbacks=[Schedule('weight_decay', f), watch])
    np.testing.assert_allclose(watch.seen, [(v,) for v in f.values(2*STEPS)])


def test_a_rate_that_is_a_tensor():
    o = learner(lambda m: torch.optim.AdamW(m.parameters(), lr=torch.tensor(0.01), capturable=False, foreach=False))
    rate = o.optimizer.param_groups[0]['lr']
    watch = Watch(lambda o: float(o.optimizer.param_groups[0]['lr']))
    fit(o, callbacks=[Schedule('lr', f), watch])
    np.testing.assert_allclose(watch.seen, f.values(2*STEPS), rtol=1e-6)
    assert o.optimizer.param_groups[0]['lr'] is rate and float(rate) == pytest.approx(0.01)


@pytest.mark.parametrize('accumulate', [1, 2, 4])
def test_equal_to_the_schedule_of_fit(accumulate):
    "To the last bit, and one value for all batches of a step."
    a, b, watch = learner(sgd, accumulate=accumulate), learner(sgd, accumulate=accumulate), groups()
    with seeded(3): fit(a, schedule=one_cycle())
    with seeded(3): fit(b, callbacks=[Schedule('lr', one_cycle(), each=True), watch])
    assert all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters())) and a.history.lrs == b.history.lrs
    assert len(watch.seen) == 2*STEPS and len(b.history.scheduled['lr']) == 2*math.ceil(STEPS/accumulate)
    assert [w for w, in watch.seen[:STEPS]] == [v for v in b.history.scheduled['lr'][:math.ceil(STEPS/accumulate)] for _ in range(accumulate)][:STEPS]


def test_equal_to_torchs_one_cycle_with_momentum():
    n = 2*STEPS
    warm = (0.3*n - 1)/(n - 1)
    o = learner(sgd)
    with seeded(3): fit(o, callbacks=[Schedule('lr', one_cycle(0.5, warm=warm)), Schedule('momentum', momentum_cycle(warm=warm))])
    model = net()
    opt = sgd(model)
    theirs = torch.optim.lr_scheduler.OneCycleLR(opt, 0.5, total_steps=n)
    with seeded(3):
        for i, (x, y) in enumerate(batches()*2):
            opt.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
            if i + 1 < n: theirs.step()
    assert all(torch.allclose(p, q, rtol=1e-5, atol=1e-7) for p, q in zip(o.model.parameters(), model.parameters()))


def test_steps_without_it_are_nan():
    o = learner()
    fit(o, 1)
    fit(o, 1, callbacks=[Schedule('lr', f)])
    fit(o, 1)
    fit(o, 1, callbacks=[Schedule('lr', f)])
    assert np.isnan(o.history.scheduled['lr']).tolist() == ([True]*STEPS + [False]*STEPS)*2
    o.history.plot_scheduled()


# ---- put back after errors, resumed

def test_values_are_put_back_after_an_error():
    class Boom:
        def after_step(self, learner):
            if learner.step == 3: raise KeyboardInterrupt
    o = learner()
    with pytest.raises(KeyboardInterrupt): fit(o, callbacks=[Schedule('lr', f), Schedule('momentum', f), Schedule('dropout', f), Schedule('label_smoothing', f), Boom()])
    assert [(g['lr'], g['betas']) for g in o.optimizer.param_groups] == [(0.01, (0.9, 0.999)), (0.04, (0.9, 0.999))]
    assert (o.model[2].p, o.model[3][1].p, o.loss.label_smoothing) == (0.3, 0.1, 0.)
    assert len(o.history.scheduled['lr']) == 3
    fit(o, callbacks=[Schedule('lr', f)]) # and nothing is left in use


@pytest.mark.parametrize('at', [2, 4, STEPS + 1, STEPS + 3])
def test_resumed_bit_for_bit(tmp_path, at):
    class Stop:
        def after_step(self, learner):
            if learner.step == at: raise KeyboardInterrupt
    def made(): return [Schedule('lr', restarts(cycles=2, top=0.05, low=1e-4)), Schedule('momentum', momentum_cycle()), Schedule('dropout', linear(0.5, 0.)), Schedule('label_smoothing', f), CycleSnapshots()]
    whole, parts = learner(n=STEPS), made()
    with seeded(5): fit(whole, callbacks=parts)
    first = learner()
    with seeded(5), pytest.raises(KeyboardInterrupt): fit(first, callbacks=[*made(), Stop()], checkpoint=Checkpoint(tmp_path/'run', every=1))
    # the step is written after the callbacks have seen it, so the file holds the step before
    second, again = learner(), made()
    with seeded(99): fit(second, callbacks=again, checkpoint=tmp_path/'run', resume=True)
    assert all(torch.equal(p, q) for p, q in zip(whole.model.parameters(), second.model.parameters()))
    assert whole.history.scheduled == second.history.scheduled and whole.history.losses == second.history.losses
    assert [k for k, _ in parts[-1].snapshots] == [k for k, _ in again[-1].snapshots] == cycle_ends(restarts(cycles=2), 2*STEPS)
    assert all(torch.equal(a[k], b[k]) for (_, a), (_, b) in zip(parts[-1].snapshots, again[-1].snapshots) for k in a)
    assert [g['lr'] for g in second.optimizer.param_groups] == [0.01, 0.04] and second.model[2].p == 0.3


def test_another_schedule_cannot_go_on(tmp_path):
    o = learner()
    fit(o, callbacks=[Schedule('lr', f)], checkpoint=Checkpoint(tmp_path/'run', every=1))
    with pytest.raises(ArgumentError, match='state of a schedule with f'): fit(learner(), callbacks=[Schedule('lr', linear())], checkpoint=tmp_path/'run', resume=True)


# ---- in a loop of one's own

def test_bare_loop_equals_the_learner():
    o = learner(sgd)
    with seeded(3): fit(o, callbacks=[Schedule('lr', one_cycle(0.5)), Schedule('dropout', linear(0.5, 0))])
    model, loss = net(), nn.CrossEntropyLoss()
    opt = sgd(model)
    n = 2*STEPS
    with seeded(3), Schedule('lr', one_cycle(0.5)).attach(n, optimizer=opt) as rate, Schedule('dropout', linear(0.5, 0)).attach(n, model=model) as drop:
        for x, y in batches()*2:
            opt.zero_grad()
            loss(model(x), y).backward()
            opt.step()
            rate.step(); drop.step()
    assert all(torch.equal(p, q) for p, q in zip(o.model.parameters(), model.parameters()))
    assert rate.values['lr'] == o.history.scheduled['lr'] and opt.param_groups[0]['lr'] == 0.1 and model[2].p == 0.3
    np.testing.assert_array_equal(rate.plot().lines[0].get_ydata(), rate.values['lr'])


def test_bare_loop_state_is_exact():
    model = net()
    opt, seen = adamw(model), []
    whole = Schedule('lr', one_cycle(0.5)).attach(9, optimizer=opt)
    for k in range(9):
        if k == 4: state = whole.state_dict()
        seen.append([g['lr'] for g in opt.param_groups])
        whole.step()
    whole.detach()
    other = adamw(net())
    for g in other.param_groups: g['lr'] = 3. # as a loaded optimizer would have it: in the middle of its schedule
    again = Schedule('lr', one_cycle(0.5)).attach(9, optimizer=other)
    again.load_state_dict(state)
    for k in range(4, 9):
        assert [g['lr'] for g in other.param_groups] == seen[k]
        again.step()
    assert again.values == whole.values
    again.detach()
    assert [g['lr'] for g in other.param_groups] == [0.01, 0.04]


# ---- refused

class Mix:
    alpha = 0.4
    def before_batch(self, learner): ...


@pytest.mark.parametrize('callbacks, kw, says', [
    ([Schedule('momentun', f)], {}, "'momentum'"), ([Schedule('dropout:4', f)], {}, 'dropout:3.1'), ([Schedule('alfa', f), Mix()], {}, 'path of an attribute'), ([Schedule('2.q', f)], {}, '2.p'),
    ([Schedule('lr', [f, f, f])], {}, '2 parameter groups'), ([Schedule('dropout', [f, f])], {}, 'one function'), ([Schedule('lr', f)], dict(schedule=linear()), 'none beside'),
    ([Schedule('lr', f), Schedule('lr', f, name='rate')], {}, 'one schedule for one thing'), ([Schedule('momentum', f), Schedule('betas', f)], {}, 'one schedule for one thing'),
    ([Schedule('dropout', f), Schedule('dropout:3', f)], {}, 'one schedule for one thing'), ([Schedule('lr', f), Schedule('weight_decay', f, name='lr')], {}, 'a name of its own'),
    ([Schedule('lr', linear(1, -1))], {}, 'from 0 up'), ([Schedule('momentum', linear(0.9, 1.))], {}, 'below 1'), ([Schedule('dropout', constant(1.5))], {}, 'from 0 to 1'), ([CycleSnapshots()], {}, 'a schedule of the learning rate')])
def test_refused_before_anything_is_trained(callbacks, kw, says):
    o = learner()
    before = [p.clone() for p in o.model.parameters()]
    with pytest.raises(ArgumentError, match=says): fit(o, callbacks=callbacks, **kw)
    assert all(torch.equal(p, q) for p, q in zip(before, o.model.parameters())) and not o.history.steps
    assert [(g['lr'], g['betas']) for g in o.optimizer.param_groups] == [(0.01, (0.9, 0.999)), (0.04, (0.9, 0.999))] and o.model[2].p == 0.3
    fit(o, 1, callbacks=[Schedule('lr', f), Schedule('momentum', f), Schedule('dropout', f)]) # nothing is left in use


def test_refused_by_the_kind_of_argument():
    with pytest.raises(ArgumentError, match='functions of progress'): Schedule('lr', 0.1)
    with pytest.raises(ArgumentError, match='setter'): Schedule(3, f)
    with pytest.raises(ArgumentError, match='nn.CrossEntropyLoss'): fit(learner(loss=nn.functional.cross_entropy), callbacks=[Schedule('label_smoothing', f)])
    with pytest.raises(ArgumentError, match='MixA.alpha'):
        class MixA(Mix): ...
        class MixB(Mix): ...
        fit(learner(), callbacks=[MixA(), MixB(), Schedule('alpha', f)])
    class NoLength:
        def __iter__(self): return iter(batches())
    o = learner()
    with pytest.raises(ArgumentError, match='length'): Learner(o.model, (NoLength(), None), nn.CrossEntropyLoss(), o.optimizer).fit(1, callbacks=[Schedule('lr', f)], progress=False)


def test_refused_in_a_loop():
    opt = adamw(net())
    s = Schedule('lr', f)
    with pytest.raises(ArgumentError, match='attach'): s.step()
    s.attach(2, optimizer=opt)
    with pytest.raises(ArgumentError, match='in use'): s.attach(2, optimizer=opt)
    with pytest.raises(ArgumentError, match='sets the same'): Schedule('lr', f).attach(2, optimizer=opt)
    s.step(); s.step()
    with pytest.raises(ArgumentError, match='one more'): s.step()
    s.detach()
    t = Schedule('lr', f).attach(2, optimizer=opt)
    opt.add_param_group(dict(params=[torch.zeros(1, requires_grad=True)]))
    with pytest.raises(ArgumentError, match='2 parameter groups'): t.step()


# ---- ends of cycles

@pytest.mark.parametrize('schedule, steps, ends', [
    (restarts(cycles=3), 30, [9, 19, 29]), (restarts(1, 2, of=7), 70, [9, 29, 69]), (triangular(cycles=2), 21, [10, 20]), (one_cycle(), 50, [49]), (repeat(one_cycle(), 2), 20, [9, 19]),
    (restarts(0.4), 101, [39, 79]), (join([constant(), restarts(cycles=2)], at=[0.5]), 41, [29, 40]), (constant(), 1, [0])])
def test_cycle_ends(schedule, steps, ends):
    assert cycle_ends(schedule, steps) == ends


def test_snapshots_are_the_weights_at_the_ends():
    kept = []
    o, snaps = learner(sgd), CycleSnapshots(keep=lambda k, w: kept.append(k))
    class All:
        def __init__(self): self.weights = []
        def after_step(self, learner): self.weights.append({n: t.clone() for n, t in learner.model.state_dict().items()})
    every = All()
    fit(o, callbacks=[every, snaps], schedule=restarts(cycles=3))
    assert kept == [k for k, _ in snaps.snapshots] == [3, 7, 11]
    assert all(torch.equal(w[n], every.weights[k][n]) for k, w in snaps.snapshots for n in w)
    with pytest.raises(ArgumentError, match='function from this module'): cycle_ends(math.cos, 10)


def test_a_step_that_was_not_finished_is_not_in_the_history():
    class Bad(nn.Module):
        n = 0
        def forward(self, pred, y):
            self.n += 1
            return nn.functional.cross_entropy(pred, y)*(math.nan if self.n == 5 else 1.)
    o = learner(loss=Bad())
    with pytest.raises(TrainingError): fit(o, callbacks=[Schedule('lr', f), Schedule('weight_decay', [f, f])])
    assert len(o.history.steps) == 4 and {n: len(v) for n, v in o.history.scheduled.items()} == {'lr': 4, 'weight_decay[0]': 4, 'weight_decay[1]': 4}
