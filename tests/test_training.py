"""The training loop: weights, history, files, errors; and a run that is killed and continues bit for bit."""
import copy, math, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import resume_run
from dlpractice.data import Batches, Loaders
from dlpractice.errors import ArgumentError, CheckpointError, DataError, ShapeError, TrainingError
from dlpractice.metrics import accuracy
from dlpractice.snapshots import seeded
from dlpractice.training import EVENTS, Checkpoint, History, Learner, resolve

here = Path(__file__).resolve().parent


def world(n=100, size=16):
    with seeded(0): x, y = torch.randn(n, 4), torch.randint(3, (n,))
    return Loaders(Batches(x, y, size=size, shuffle=False), Batches(x[:30], y[:30], size=20, shuffle=False))

def net(seed=0, drop=0.):
    with seeded(seed): return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(drop), nn.Linear(8, 3))

def sgd(p): return torch.optim.SGD(p, lr=0.1, momentum=0.9)

def learner(**kw): return Learner(**{**dict(model=net(), data=world(), loss=F.cross_entropy, optimizer=sgd), **kw})

def weights(l): return [p.detach().clone() for p in l.model.parameters()]

def equal(a, b): return len(a) == len(b) and all(map(torch.equal, a, b))


# ---- the loop does what the ten lines do

def test_equals_the_bare_loop():
    model, data = net(), world()
    opt, losses, total = sgd(model.parameters()), [], 3*7
    for _ in range(3):
        for x, y in data.train:
            opt.param_groups[0]['lr'] = 0.1*(1 - 0.5*len(losses)/(total - 1))
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            losses.append(loss.item())
    l = learner()
    seen = l.fit(3, lambda p: 1 - 0.5*p, progress=False)
    assert seen is l.history and seen.losses == losses
    assert equal(weights(l), [p.detach() for p in model.parameters()])
    assert l.history.lrs[0] == 0.1 and l.history.lrs[-1] == 0.05 and l.optimizer.param_groups[0]['lr'] == 0.1
    row = l.history[0]
    assert row['train_loss'] == pytest.approx(sum(a*n for a, n in zip(losses[:7], [16]*6 + [4]))/100, rel=1e-6)

def test_evaluate_weights_short_batches():
    l = learner(metrics=[accuracy])
    x, y = l.data.valid.tensors
    with torch.no_grad(): pred = l.model(x)
    got = l.evaluate()
    assert got['loss'] == pytest.approx(F.cross_entropy(pred, y).item(), rel=1e-6) and got['accuracy'] == pytest.approx(accuracy(pred, y).item())
    assert torch.allclose(l.predict(x, size=7), pred) and torch.allclose(l.predict(l.data.valid), pred)
    l.fit(2, progress=False)
    assert l.history[-1]['valid_loss'] == l.evaluate()['loss'] and l.history[-1]['accuracy'] == l.evaluate()['accuracy']

def test_validation_changes_nothing():
    "With or without validation and looks in between, the weights end the same."
    class Look:
        def after_step(self, learner): learner.evaluate(), learner.predict(torch.ones(3, 4))
    ends = []
    for valid, callbacks in ((None, []), (world().valid, []), (DataLoader(TensorDataset(*world().valid.tensors), 5, shuffle=True), [Look()])):
        data = Loaders(Batches(*world().train.tensors, size=16), valid)
        l = learner(model=net(drop=0.5), data=data)
        with seeded(4): l.fit(2, callbacks=callbacks, progress=False)
        ends.append(weights(l))
    assert equal(*ends[:2]) and equal(ends[0], ends[2])

def test_modes_come_back():
    l = learner()
    l.model[1].eval()
    l.evaluate()
    assert [m.training for m in l.model.modules()] == [True, True, False, True, True]

@pytest.mark.parametrize('k', [2, 3, 7, 20])
def test_accumulation_is_a_larger_batch(k):
    "Also in the last group, which is short, and whose last batch is short."
    x, y = world().train.tensors
    a = learner(accumulate=k)
    a.fit(2, progress=False)
    b = learner(data=(Batches(x, y, size=16*k, shuffle=False), None))
    b.fit(2, progress=False)
    assert all(torch.allclose(p, q, atol=1e-6) for p, q in zip(weights(a), weights(b)))
    assert a.history.losses == pytest.approx(b.history.losses, rel=1e-5)
    assert [s[2] for s in a.history.steps] == [s[2] for s in b.history.steps] and a.total_steps == b.total_steps

def test_groups_keep_their_ratios():
    model = net()
    opt = torch.optim.SGD([dict(params=model[0].parameters(), lr=0.01), dict(params=model[3].parameters(), lr=0.1)])
    seen = []
    class See:
        def after_step(self, learner): seen.append([g['lr'] for g in learner.optimizer.param_groups])
    l = learner(model=model, optimizer=opt)
    l.fit(1, lambda p: 1 - p, [See()], progress=False)
    assert all(b == pytest.approx(10*a) for a, b in seen) and seen[0] == [0.01, 0.1] and seen[-1] == [0, 0]
    assert [g['lr'] for g in opt.param_groups] == [0.01, 0.1]

def test_tensor_rate():
    l = learner(optimizer=lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), foreach=False))
    rate = l.optimizer.param_groups[0]['lr']
    l.fit(1, lambda p: 1 - p, progress=False)
    assert l.optimizer.param_groups[0]['lr'] is rate and rate == 0.1 and l.history.lrs[-1] == 0

def test_clip_and_bf16():
    norms = []
    class Norm:
        def after_step(self, learner): norms.append(torch.stack([p.grad.norm() for p in learner.model.parameters()]).norm().item())
    l = learner(clip=0.01, amp='bf16', callbacks=[Norm()], metrics=[accuracy])
    l.fit(1, progress=False)
    assert max(norms) <= 0.0101 and weights(l)[0].dtype == torch.float32
    assert l.predict(torch.ones(2, 4)).dtype == torch.bfloat16

def test_other_batches():
    data = world()
    dicts = [dict(x=x, y=y, name='a') for x, y in data.train]
    l = learner(data=(dicts, dicts[:2]), loss=None, step_fn=lambda m, b: F.cross_entropy(m(b['x']), b['y']))
    plain = learner()
    l.fit(2, progress=False), plain.fit(2, progress=False)
    assert equal(weights(l), weights(plain)) and [s[2] for s in l.history.steps] == [s[2] for s in plain.history.steps]
    class Two(nn.Module):
        def __init__(self): super().__init__(); self.a = nn.Linear(2, 3)
        def forward(self, x, z): return self.a(x) + self.a(z)
    x, y = data.train.tensors
    two = learner(model=Two(), data=(Batches(x[:, :2], x[:, 2:], y, size=16), None))
    two.fit(1, progress=False)
    assert two.predict((x[:, :2], x[:, 2:])).shape == (100, 3) and torch.equal(two.predict(Batches(x[:, :2], x[:, 2:], y, size=9, shuffle=False)), two.predict((x[:, :2], x[:, 2:]), size=9))

def test_loader_without_length():
    class Stream(IterableDataset):
        def __iter__(self): return iter([(torch.ones(4), 1)]*10)
    l = learner(data=(DataLoader(Stream(), 4), None))
    l.fit(2, progress=False)
    assert len(l.history.steps) == 6 and l.total_steps is None
    with pytest.raises(ArgumentError, match='with a length'): l.fit(1, lambda p: 1, progress=False)


# ---- callbacks

def test_events_in_order():
    log = []
    class All: pass
    for e in EVENTS: setattr(All, e, lambda self, learner, e=e: log.append(e))
    l = learner(data=Loaders(Batches(*world().train.tensors, size=50), None), callbacks=[All()], accumulate=2)
    l.fit(1, progress=False)
    batch = ['before_batch', 'after_loss', 'after_backward']
    assert log == ['before_fit', 'before_epoch', *batch, *batch, 'after_step', 'after_epoch', 'after_fit']

def test_callbacks_may_change_batch_and_loss_and_stop():
    class Change:
        def before_batch(self, learner): learner.batch = learner.batch[0]*0, learner.batch[1]
        def after_loss(self, learner): learner.batch_loss = learner.batch_loss*0 + 5
        def after_step(self, learner):
            if learner.step == 10: learner.stop()
    l = learner()
    l.fit(5, callbacks=[Change()], progress=False)
    assert set(l.history.losses) == {5.} and len(l.history.steps) == 10 and len(l.history) == 2

def test_tidying_up_reaches_every_callback():
    tidied = []
    class Tidy:
        def __init__(self, name, fail=False): self.name, self.fail = name, fail
        def after_step(self, learner):
            if self.fail: raise KeyError('a bug')
        def after_fit(self, learner):
            tidied.append((self.name, type(learner.error)))
            if self.fail: raise OSError('another')
    l = learner()
    with pytest.raises((KeyError, OSError)): l.fit(1, callbacks=[Tidy('a'), Tidy('b', True), Tidy('c')], progress=False)
    assert tidied == [('c', KeyError), ('b', KeyError), ('a', KeyError)]

def test_misspelt_event():
    class Bad:
        def after_bach(self, learner): pass
    with pytest.raises(ArgumentError, match="callback Bad: .* got after_bach. Did you mean 'after_"): resolve([Bad()])
    with pytest.raises(ArgumentError): learner(callbacks=[Bad()])


# ---- errors

@pytest.mark.parametrize('accumulate', [1, 3])
def test_not_finite(accumulate):
    "The weights of the last good step stand, optimizer state included."
    class Poison:
        def after_loss(self, learner):
            if learner.step == 4: learner.batch_loss = learner.batch_loss*float('nan')
    seen = []
    class Keep:
        def after_step(self, learner): seen[:] = [weights(learner), copy.deepcopy(learner.optimizer.state_dict()['state'])]
    l = learner(accumulate=accumulate)
    with pytest.raises(TrainingError) as e: l.fit(3, callbacks=[Poison(), Keep()], progress=False)
    assert 'step 5' in str(e.value) and 'got nan' in str(e.value) and 'rate was 0.1' in str(e.value) and f'{l.history.losses[-1]:.4g}' in str(e.value)
    assert equal(weights(l), seen[0]) and len(l.history.steps) == 4 and isinstance(l.error, TrainingError)
    assert all(torch.equal(s['momentum_buffer'], t['momentum_buffer']) for s, t in zip(l.optimizer.state_dict()['state'].values(), seen[1].values()))
    l.fit(1, progress=False)
    assert all(map(math.isfinite, l.history.losses))

def test_not_finite_in_a_window(monkeypatch):
    "As on a GPU: read late, and said so."
    class Poison:
        def after_loss(self, learner):
            if learner.step == 4: learner.batch_loss = learner.batch_loss*float('nan')
    l = learner()
    l._on_cpu = False
    with pytest.raises(TrainingError, match='step 5, .*up to 25 steps later'): l.fit(9, callbacks=[Poison()], progress=False)
    assert len(l.history.steps) == 4
    l = learner()
    l._on_cpu = False
    l.fit(2, progress=False)
    plain = learner()
    plain.fit(2, progress=False)
    assert l.history.losses == plain.history.losses and equal(weights(l), weights(plain))

def test_interrupt_leaves_a_usable_learner():
    class Interrupt:
        def after_backward(self, learner):
            if learner.step == 9: raise KeyboardInterrupt
    l = learner()
    with pytest.raises(KeyboardInterrupt): l.fit(3, lambda p: 0.5, [Interrupt()], progress=False)
    assert len(l.history) == 1 and len(l.history.steps) == 9 and l.optimizer.param_groups[0]['lr'] == 0.1
    repr(l.history), l.history._repr_html_(), l.history.plot()
    l.fit(1, progress=False)
    assert [r['step'] for r in l.history] == [7, 16] and [r['epoch'] for r in l.history] == [1, 2]

FROZEN = net().requires_grad_(False)

@pytest.mark.parametrize('kw, message', [
    (dict(model=print), 'argument model'), (dict(loss=None), 'argument loss'), (dict(loss='mse'), 'argument loss'), (dict(data=world().train), r'Pass|pass \(train, None\)'),
    (dict(data=(None, None)), 'data, train'), (dict(data=(iter([1]), None)), 'iterator'), (dict(data=([], None)), 'at least one batch'), (dict(data=(3, None)), 'iterable'),
    (dict(optimizer=sgd(net().parameters())), 'holds none of them'), (dict(optimizer='sgd'), 'argument optimizer'), (dict(optimizer=lambda p: 3), 'argument optimizer'),
    (dict(metrics=['accuracy']), 'argument metrics'), (dict(metrics={'loss': accuracy}), 'a name that is free'), (dict(metrics=[accuracy], step_fn=print), 'none with a step_fn'),
    (dict(amp='int8'), 'argument amp'), (dict(amp='fp16'), 'needs CUDA'), (dict(accumulate=0), 'accumulate'), (dict(accumulate=True), 'accumulate'), (dict(clip=0), 'clip')])
def test_bad_arguments(kw, message):
    with pytest.raises((ArgumentError, DataError), match=message): learner(**kw)

@pytest.mark.parametrize('kw, message', [(dict(epochs=0), 'epochs'), (dict(epochs=1.5), 'epochs'), (dict(epochs=1, schedule=3), 'schedule'), (dict(epochs=1, schedule=lambda p: None), 'schedule'),
    (dict(epochs=1, schedule=lambda p: 1/(p - 1) if p < 1 else float('inf')), 'finite multipliers'), (dict(epochs=1, resume=True), 'without a checkpoint'), (dict(epochs=1, callbacks=[3]), 'methods named after')])
def test_bad_fit(kw, message):
    l = learner()
    with pytest.raises(ArgumentError, match=message): l.fit(**kw, progress=False)
    assert not l.history.steps

def test_bad_losses_and_models():
    with pytest.raises(ArgumentError, match='all frozen'): learner(model=FROZEN).fit(1, progress=False)
    with pytest.raises(ShapeError, match=r'scalar tensor, got shape \(16,\)'): learner(loss=lambda p, y: F.cross_entropy(p, y, reduction='none')).fit(1, progress=False)
    with pytest.raises(ShapeError, match='got float'): learner(loss=lambda p, y: 1.).fit(1, progress=False)
    with pytest.raises(ArgumentError, match='no validation loader'): learner(data=(world().train, None)).evaluate()
    with pytest.raises(ArgumentError, match="Did you mean 'valid_loss'"): History([dict(valid_loss=1.)]).column('val_loss')


# ---- files

def test_save_and_load(tmp_path):
    l = learner()
    l.fit(2, progress=False)
    l.save(tmp_path/'a.pt')
    other = learner(model=net(1))
    other.load(tmp_path/'a.pt')
    assert equal(weights(l), weights(other))
    l.fit(1, progress=False), other.fit(1, progress=False)
    assert equal(weights(l), weights(other)) # momentum came along
    assert [p.name for p in tmp_path.iterdir()] == ['a.pt']

def test_numpy_rate(tmp_path):
    "A rate that NumPy computed must not make a file that cannot be read."
    l = learner(optimizer=lambda p: torch.optim.SGD(p, lr=np.float64(0.1), momentum=np.float32(0.5)))
    l.fit(2, lambda p: np.float32(1 - p), checkpoint=tmp_path/'c.pt', progress=False)
    again = learner(optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5), model=net(2))
    again.load(tmp_path/'c.pt')
    assert equal(weights(l), weights(again))

def test_load_refuses_and_changes_nothing(tmp_path):
    l = learner()
    l.fit(1, progress=False)
    l.save(tmp_path/'a.pt')
    whole = (tmp_path/'a.pt').read_bytes()
    tries = {'missing': None, 'empty': b'', 'cut': whole[:len(whole)//2], 'text': b'hello'*1000}
    for i in range(200, len(whole), 97): tries[f'flipped {i}'] = whole[:i] + bytes([whole[i] ^ 16]) + whole[i+1:]
    refused = 0
    for name, content in tries.items():
        path = tmp_path/'b.pt'
        path.unlink(missing_ok=True)
        if content is not None: path.write_bytes(content)
        other = learner(model=net(1))
        before = weights(other)
        try: other.load(path)
        except CheckpointError as e:
            refused += 1
            assert 'b.pt' in str(e) and equal(weights(other), before), name
        else: assert equal(weights(other), weights(l)), name # a flip in the padding between members harms nothing
    assert refused > 10

@pytest.mark.parametrize('model, kw, message', [
    (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0), nn.Linear(8, 5)), {}, r'3.weight is \(3, 8\) and \(5, 8\) in the model; 3.bias'),
    (nn.Sequential(nn.Linear(4, 8), nn.ReLU()), {}, '3.weight is not in the model'),
    (nn.Sequential(*net(), nn.Linear(3, 3)), {}, '4.weight is missing'),
    (net(), dict(optimizer=torch.optim.Adam), 'state of Adam'),
    (net(), dict(optimizer=lambda p: torch.optim.SGD([dict(params=[q]) for q in p])), 'groups of')])
def test_mismatch_is_named(tmp_path, model, kw, message):
    learner().save(tmp_path/'a.pt')
    l = learner(model=model, **kw)
    before = weights(l)
    with pytest.raises(CheckpointError, match=message): l.load(tmp_path/'a.pt')
    assert equal(weights(l), before)

def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    l = learner()
    l.save(tmp_path/'a.pt')
    old = (tmp_path/'a.pt').read_bytes()
    def broken(state, f):
        f.write(b'half')
        raise OSError('disk full')
    monkeypatch.setattr(torch, 'save', broken)
    with pytest.raises(OSError): l.save(tmp_path/'a.pt')
    assert (tmp_path/'a.pt').read_bytes() == old and len(list(tmp_path.iterdir())) == 1


# ---- a run that is killed

def run(kind, folder, name, *kill):
    done = subprocess.run([sys.executable, here/'resume_run.py', kind, folder/f'{name}.pt', folder/f'{name}.result', *map(str, kill)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr

def same_results(a, b):
    a, b = (torch.load(f, weights_only=True) for f in (a, b))
    assert a['losses'] == b['losses'] and a['lrs'] == b['lrs'] and a['rows'] == b['rows']
    assert all(torch.equal(v, b['model'][k]) for k, v in a['model'].items()) and torch.equal(a['seen'], b['seen']) and torch.equal(a['random'], b['random'])

@pytest.mark.skipif(sys.platform == 'win32', reason='no SIGKILL')
@pytest.mark.parametrize('kind', ['loader', 'batches'])
def test_killed_and_continued(kind, tmp_path):
    "kill -9 in the middle of an epoch, in a process of its own; twice; then to the end."
    assert run(kind, tmp_path, 'whole')[0] == 0
    for step in (17, 29): # of 12 per epoch, written every second step
        code, err = run(kind, tmp_path, 'killed', 'kill', step)
        assert code == -9, err
        assert not (tmp_path/'killed.result').exists()
    code, err = run(kind, tmp_path, 'killed')
    assert code == 0, err
    same_results(tmp_path/'whole.result', tmp_path/'killed.result')

class Break(Exception): pass

@pytest.mark.parametrize('kind, at', [(k, at) for k in ('loader', 'generator', 'batches', 'batches generator', 'accumulate', 'bf16') for at in (1, 6, 12, 13, 36)] + [('workers', 6)])
def test_broken_off_and_continued(kind, at, tmp_path):
    "The same within a process, at the start, in the middle and at the end of epochs."
    if kind == 'accumulate': at = -(-at//3)
    class Breaker:
        def after_step(self, learner):
            if learner.step == at + 1: raise Break
    def fit(seed, *more, **kw):
        torch.manual_seed(seed + 5)
        l = resume_run.learner(kind, seed)
        l.fit(3, resume_run.plan, [resume_run.Noise(), *more], progress=False, **kw)
        return l
    with seeded(0):
        whole = fit(0)
        end = torch.get_rng_state()
        try: fit(0, Breaker(), checkpoint=Checkpoint(tmp_path/'c.pt', every=1))
        except Break: pass
        again = fit(9, resume=tmp_path/'c.pt')
        assert torch.equal(torch.get_rng_state(), end)
    assert again.history.losses == whole.history.losses and again.history.lrs == whole.history.lrs
    assert all(torch.equal(a, b) for a, b in zip(again.model.state_dict().values(), whole.model.state_dict().values()))
    assert [{**r, 'seconds': 0} for r in again.history] == [{**r, 'seconds': 0} for r in whole.history]
    assert again.optimizer.param_groups[0]['lr'] == whole.optimizer.param_groups[0]['lr']

def test_checkpoint_does_not_change_the_run(tmp_path):
    a, b = (resume_run.learner('batches') for _ in range(2))
    with seeded(3): a.fit(2, progress=False)
    with seeded(3): b.fit(2, callbacks=[Checkpoint(tmp_path/'c.pt', every=3)], progress=False)
    assert equal(weights(a), weights(b)) and a.history.losses == b.history.losses

def test_resume_refuses_another_plan(tmp_path):
    l = learner()
    l.fit(2, checkpoint=tmp_path/'c.pt', progress=False)
    l.save(tmp_path/'saved.pt')
    tries = [(dict(epochs=3), {}, 'epochs: 3'), (dict(epochs=2, schedule=lambda p: 1), {}, 'schedule'), (dict(epochs=2), dict(accumulate=2), 'batches per step: 2'),
        (dict(epochs=2), dict(data=world(40)), 'batches per epoch: 3'), (dict(epochs=2), dict(model=nn.Linear(4, 3)), 'weights of this model')]
    for fit, kw, message in tries:
        with pytest.raises(CheckpointError, match=message): learner(**kw).fit(**fit, resume=tmp_path/'c.pt', progress=False)
    with pytest.raises(CheckpointError, match='got a saved model'): learner().fit(2, resume=tmp_path/'saved.pt', progress=False)
    with pytest.raises(CheckpointError, match='no file'): learner().fit(2, resume=tmp_path/'none.pt', progress=False)
    done = learner(model=net(3))
    done.fit(2, resume=tmp_path/'c.pt', progress=False) # finished already: nothing is left to do, all is loaded
    assert equal(weights(done), weights(l)) and done.history.losses == l.history.losses
    fresh = learner()
    fresh.fit(2, checkpoint=tmp_path/'new.pt', resume=True, progress=False) # no file yet: a new run
    assert len(fresh.history) == 2 and (tmp_path/'new.pt').exists()


# ---- elsewhere

def test_accelerator():
    accelerate = pytest.importorskip('accelerate')
    plain = learner()
    l = learner(accelerator=accelerate.Accelerator(cpu=True), accumulate=2, clip=1., data=(DataLoader(TensorDataset(*world().train.tensors), 16), world().valid))
    l.fit(2, progress=False)
    other = learner(accumulate=2, clip=1.)
    other.fit(2, progress=False)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weights(l), weights(other))) and plain.evaluate()['loss'] > l.evaluate()['loss']

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('amp', [None, 'bf16', 'fp16'])
def test_cuda(amp, tmp_path):
    l = learner(device='cuda', amp=amp)
    l.fit(5, checkpoint=Checkpoint(tmp_path/'c.pt', every=4), progress=False)
    assert l.history.losses[-1] < l.history.losses[0] and next(l.model.parameters()).is_cuda and not l.predict(torch.ones(2, 4)).is_cuda

def test_views_outside_a_notebook(capsys):
    learner().fit(1)
    assert 'step' not in capsys.readouterr().out
