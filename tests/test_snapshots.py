"""Whatever happens inside `unchanged`, everything is back bit for bit: random models, optimizers and messes."""
import copy, gc, random, weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from dlpractice import snapshots
from dlpractice.data import Batches, Loaders
from dlpractice.errors import ArgumentError
from dlpractice.snapshots import RandomStates, Snapshot, loader_generators, seeded, unchanged


class Stop(Exception): pass

# ---- everything that must not change, with the identity of every tensor and container

def picture_tensor(t):
    "Values, flags, memory and gradient of a tensor."
    values = None if t.is_meta else t.detach().clone()
    where = None if t.layout is not torch.strided else (t.data_ptr(), t.stride(), t.storage_offset())
    return id(t), t.dtype, t.shape, where, t.requires_grad, t.is_leaf, values, picture_tensor(t.grad) if t.is_leaf and t.grad is not None else None

def picture(o):
    "A nest of everything: containers by identity and content."
    if isinstance(o, torch.Tensor): return picture_tensor(o)
    if isinstance(o, dict): return id(o), type(o), [(picture(k), picture(v)) for k, v in o.items()]
    if isinstance(o, (list, tuple)): return id(o) if isinstance(o, list) else None, [picture(v) for v in o]
    if isinstance(o, nn.Module):
        return [(n, id(m), type(m), m.training, picture(m._parameters), picture(m._buffers), sorted(m._non_persistent_buffers_set)) for n, m in o.named_modules()]
    if isinstance(o, (torch.optim.Optimizer, torch.amp.GradScaler)): return [(k, picture(v)) for k, v in vars(o).items() if 'hook' not in k and k != 'step']
    if isinstance(o, torch.optim.lr_scheduler.LRScheduler): return [(k, picture(v)) for k, v in vars(o).items() if k != 'optimizer']
    if isinstance(o, torch.Generator): return o.get_state()
    return o

def same(a, b):
    "Equal bit for bit (NaN too)."
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.dtype != b.dtype or a.shape != b.shape: return False
        a, b = (t.coalesce() if t.is_sparse else t for t in (a, b))
        if a.is_sparse: return same(a.indices(), b.indices()) and same(a.values(), b.values())
        return torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))
    if isinstance(a, np.ndarray): return np.array_equal(a, b)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b or a != a and b != b

def randoms(): return random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()


# ---- random nets

class Net(nn.Module):
    "Convolution, norms, embedding; optionally tied, frozen, with odd buffers."
    def __init__(self, norm, tied, frozen, lazy_grad, half_buffer):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = dict(batch=nn.BatchNorm2d(4), layer=nn.GroupNorm(1, 4), none=nn.Identity())[norm]
        self.emb = nn.Embedding(6, 4, sparse=False)
        self.drop = nn.Dropout(0.3)
        self.mix = nn.Linear(8, 4)
        self.out = nn.Linear(4, 6, bias=False)
        if tied: self.out.weight = self.emb.weight
        if frozen: self.conv.requires_grad_(False)
        self.unused = nn.Parameter(torch.randn(3)) if lazy_grad else None
        self.register_buffer('hidden', torch.randn(5), persistent=False)
        self.register_buffer('wide', torch.ones(1).expand(7))
        self.register_buffer('none', None)
        if half_buffer: self.register_buffer('small', torch.randn(4).half())

    def forward(self, x, ids):
        self.hidden.mul_(0.9)
        h = F.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.out(self.drop(self.mix(torch.cat([h, self.emb(ids)], 1))))

def data(): return torch.randn(8, 1, 6, 6), torch.randint(6, (8,)), torch.randint(6, (8,))

def step(net, opt):
    x, ids, y = data()
    opt.zero_grad()
    F.cross_entropy(net(x, ids), y).backward()
    opt.step()

OPTIMIZERS = {
    'sgd': lambda p: torch.optim.SGD(p, lr=0.1),
    'momentum': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    'nesterov': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=True),
    'sgd fused': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    'adam': lambda p: torch.optim.Adam(p, lr=0.01),
    'adamw amsgrad': lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    'adamw foreach': lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    'adamw fused': lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    'adam tensor lr': lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    'rmsprop': lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    'adagrad': lambda p: torch.optim.Adagrad(p, lr=0.01),
}

# ---- what may happen inside

MESSES = {
    'steps': lambda net, opt: [step(net, opt) for _ in range(2)],
    'drop gradients': lambda net, opt: opt.zero_grad(set_to_none=True),
    'zero gradients': lambda net, opt: opt.zero_grad(set_to_none=False),
    'rate': lambda net, opt: [g.__setitem__('lr', 7.) for g in opt.param_groups],
    'rate in place': lambda net, opt: [g['lr'].fill_(3.) for g in opt.param_groups if isinstance(g['lr'], torch.Tensor)],
    'new and lost keys': lambda net, opt: [(g.pop('weight_decay', None), g.__setitem__('mark', 1)) for g in opt.param_groups],
    'new group': lambda net, opt: opt.add_param_group(dict(params=[nn.Parameter(torch.ones(2))])),
    'read state': lambda net, opt: [opt.state[p] for p in net.parameters()],
    'clear state': lambda net, opt: opt.state.clear(),
    'reload optimizer': lambda net, opt: opt.load_state_dict(copy.deepcopy(opt.state_dict())),
    'eval': lambda net, opt: net.eval(),
    'train a part': lambda net, opt: net.norm.train(not net.norm.training),
    'freeze': lambda net, opt: net.requires_grad_(False),
    'thaw': lambda net, opt: net.requires_grad_(True),
    'new weight': lambda net, opt: setattr(net.mix, 'weight', nn.Parameter(torch.zeros(4, 8))),
    'new data': lambda net, opt: setattr(net.mix.weight, 'data', torch.zeros(4, 8)),
    'transposed data': lambda net, opt: setattr(net.mix.weight, 'data', net.mix.weight.data.t().contiguous().t()),
    'double': lambda net, opt: net.double(),
    'half': lambda net, opt: net.half(),
    'assign': lambda net, opt: net.load_state_dict(copy.deepcopy(net.state_dict()), assign=True),
    'untie': lambda net, opt: setattr(net.out, 'weight', nn.Parameter(torch.zeros(6, 4))),
    'new buffer': lambda net, opt: net.register_buffer('extra', torch.ones(2), persistent=False),
    'lost layer': lambda net, opt: delattr(net, 'drop'),
    'other layer': lambda net, opt: setattr(net, 'mix', nn.Linear(2, 2)),
    'parametrize': lambda net, opt: nn.utils.parametrizations.weight_norm(net.mix),
    'infinite': lambda net, opt: [p.data.fill_(float('nan')) for p in net.parameters()],
    'buffer in a graph': lambda net, opt: net.hidden.mul_(net.mix.weight.sum()),
    'draws': lambda net, opt: (random.random(), np.random.rand(), torch.rand(3)),
    'seed': lambda net, opt: (random.seed(1), np.random.seed(1), torch.manual_seed(1)),
    'scheduler': lambda net, opt: CosineAnnealingLR(opt, 5).step(),
    'inference': lambda net, opt: torch.inference_mode()(lambda: net.double()(*[t.double() if t.is_floating_point() else t for t in data()[:2]]))(),
}

ENDS = dict(normal=None, exception=Stop, interrupt=KeyboardInterrupt)


@pytest.mark.filterwarnings('ignore:Detected call of')
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(norm=st.sampled_from(['batch', 'layer', 'none']), tied=st.booleans(), frozen=st.booleans(), lazy_grad=st.booleans(), half_buffer=st.booleans(),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)), warm=st.integers(0, 2), gradients=st.booleans(), mess=st.lists(st.sampled_from(sorted(MESSES)), max_size=5),
    end=st.sampled_from(sorted(ENDS)), on=st.sampled_from(['cpu', 'same']), seed=st.integers(0, 1000))
def test_all_back(norm, tied, frozen, lazy_grad, half_buffer, optimizer, warm, gradients, mess, end, on, seed):
    with seeded(seed):
        net = Net(norm, tied, frozen, lazy_grad, half_buffer)
        opt = OPTIMIZERS[optimizer](net.parameters())
        for _ in range(warm): step(net, opt)
        if not gradients: opt.zero_grad()
        for _ in range(2): # the second time, with buffers in use again
            before, rng = picture([net, opt]), randoms()
            try:
                with unchanged(net, opt, on=on):
                    for m in mess:
                        try: MESSES[m](net, opt)
                        except (RuntimeError, KeyError, AttributeError, ValueError, TypeError): pass # one mess may forbid the next; half a mess is one too
                    if ENDS[end]: raise ENDS[end]
            except (Stop, KeyboardInterrupt): pass
            assert same(picture([net, opt])[1], before[1])
            assert same(randoms(), rng)
        step(net, opt) # and it still trains


@pytest.mark.parametrize('optimizer', sorted(OPTIMIZERS))
def test_next_steps_are_the_same(optimizer):
    "The proof that counts: with or without a look in between, training ends at the same weights."
    ends = []
    for look in (False, True):
        with seeded(3):
            net = Net('batch', True, False, True, False)
            opt = OPTIMIZERS[optimizer](net.parameters())
            step(net, opt)
            if look:
                with unchanged(net, opt):
                    for m in ('steps', 'rate', 'freeze', 'draws', 'steps'):
                        try: MESSES[m](net, opt)
                        except RuntimeError: pass
            for _ in range(3): step(net, opt)
            ends.append([p.detach().clone() for p in net.parameters()])
    assert same(*ends)


def test_half_model_with_single_state():
    "`load_state_dict` would round the state to half precision."
    p = nn.Parameter(torch.ones(4).half())
    opt = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    opt.state[p]['momentum_buffer'] = torch.full((4,), 1/3)
    before = picture(opt)
    with unchanged(opt):
        opt.state[p]['momentum_buffer'].mul_(2)
        p.data.add_(1)
    assert same(picture(opt), before) and opt.state[p]['momentum_buffer'].dtype == torch.float32


def test_lbfgs_and_sparse_gradients():
    w = nn.Parameter(torch.randn(5))
    opt = torch.optim.LBFGS([w], max_iter=3)
    def closure():
        opt.zero_grad()
        loss = (w**4).sum()
        loss.backward()
        return loss
    opt.step(closure)
    before = picture(opt)
    with unchanged(opt): opt.step(closure)
    assert same(picture(opt), before)

    emb = nn.Embedding(6, 3, sparse=True)
    opt = torch.optim.SparseAdam(emb.parameters())
    emb(torch.tensor([1, 2])).sum().backward()
    before, grad = picture([emb, opt]), emb.weight.grad
    with unchanged(emb, opt):
        opt.step()
        emb(torch.tensor([1, 4, 5])).sum().backward()
    assert emb.weight.grad is grad and same(picture([emb, opt])[1], before[1])


def test_recurrent_and_lazy():
    lstm = nn.LSTM(3, 4)
    x = torch.randn(2, 1, 3)
    out = lstm(x)[0]
    with unchanged(lstm): lstm.weight_ih_l0 = nn.Parameter(torch.zeros_like(lstm.weight_ih_l0))
    assert torch.equal(lstm(x)[0], out)
    with pytest.raises(ArgumentError, match='seen no input'):
        with unchanged(nn.LazyLinear(3)): pass


def test_graph_made_before_survives():
    "A backward pass that was pending still works after a look in evaluation mode."
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    x = torch.randn(4, 3)
    loss = net(x).sum()
    with unchanged(net): net.eval()(x)
    loss.backward()


def test_meta_tensors_channels_last_and_views():
    net = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    view = net.weight.detach()[0]
    kept = view.clone()
    with unchanged(net): net.weight.data.zero_()
    assert torch.equal(view, kept) and net.weight.is_contiguous(memory_format=torch.channels_last)
    with unchanged(nn.Linear(2, 2, device='meta')): pass


@pytest.mark.parametrize('make', [lambda o: CosineAnnealingLR(o, 5), lambda o: OneCycleLR(o, 1., total_steps=20), lambda o: ReduceLROnPlateau(o, patience=0),
    lambda o: SequentialLR(o, [LinearLR(o), CosineAnnealingLR(o, 5)], milestones=[2])])
def test_schedulers(make):
    net = nn.Linear(2, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sched = make(opt)
    def go():
        net(torch.randn(3, 2)).sum().backward()
        opt.step()
        sched.step(*([1.] if isinstance(sched, ReduceLROnPlateau) else []))
    go()
    before, state = picture([opt, sched]), copy.deepcopy(sched.state_dict())
    for objects in ((sched,), (net, opt, sched)): # a scheduler brings its optimizer along
        with unchanged(*objects):
            for _ in range(3): go()
        assert same(picture([opt, sched])[1], before[1]) and repr(sched.state_dict()) == repr(state)


def test_scheduler_made_inside_leaves_nothing():
    opt = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with unchanged(opt): CosineAnnealingLR(opt, 3)
    assert 'initial_lr' not in opt.param_groups[0] and 'step' not in vars(opt) and not hasattr(opt, '_opt_called')


def test_hooks_stay():
    net, calls = nn.Linear(2, 2), []
    net.register_forward_hook(lambda *a: calls.append(1))
    with unchanged(net): net(torch.ones(1, 2))
    net(torch.ones(1, 2))
    assert len(calls) == 2


def test_scaler():
    "On the CPU a GradScaler does its bookkeeping too."
    w = nn.Parameter(torch.ones(2))
    opt, scaler = torch.optim.SGD([w], lr=0.1), torch.amp.GradScaler('cpu', growth_interval=1)
    def go():
        opt.zero_grad()
        scaler.scale((w**2).sum()).backward()
        scaler.step(opt)
        scaler.update()
    with unchanged(opt, scaler): go()
    assert scaler._scale is None
    go()
    scale = scaler.get_scale()
    with unchanged(opt, scaler): go()
    assert scaler.get_scale() == scale and not [k for k in scaler._per_optimizer_states if k != id(opt)]


def test_generators_and_loaders():
    g = torch.Generator().manual_seed(3)
    ds = TensorDataset(torch.arange(10))
    loaders = [DataLoader(ds, shuffle=True, generator=g), DataLoader(ds, sampler=RandomSampler(ds, generator=g)), Batches(torch.arange(10), generator=g, size=4),
        Loaders(Batches(torch.arange(10), generator=g, size=4), None)]
    for dl in loaders:
        it = dl.train if isinstance(dl, Loaders) else dl
        assert loader_generators(it) == [g]
        with unchanged(dl): inside = [b[0].tolist() for b in it]
        assert [b[0].tolist() for b in it] == inside
    for o, draw in ((np.random.default_rng(1), lambda o: o.random()), (random.Random(1), lambda o: o.random()), (np.random.RandomState(1), lambda o: o.rand()), (g, lambda o: torch.rand(1, generator=o).item())):
        with unchanged(o): inside = draw(o)
        assert draw(o) == inside


def test_last_resort_and_refusals():
    class Counter:
        def __init__(self): self.n, self.t = 0, torch.zeros(2)
        def state_dict(self): return dict(n=self.n, t=self.t) # shares its tensor, as many do
        def load_state_dict(self, s): self.n, self.t = s['n'], s['t']
    c = Counter()
    with unchanged(c):
        c.n = 5
        c.t.add_(1)
    assert c.n == 0 and c.t.sum() == 0
    for bad in (3, 'model', object(), print, np.ones(3)):
        with pytest.raises(ArgumentError, match='modules, optimizers'):
            with unchanged(bad): pytest.fail('ran')
    with pytest.raises(ArgumentError, match="'cpu' or 'same'"):
        with unchanged(on='gpu'): pass


def test_nested_and_buffers():
    net = nn.Linear(3, 3)
    first = net.weight.detach().clone()
    with unchanged(net):
        net.weight.data.add_(1)
        with unchanged(net): net.weight.data.add_(1)
        assert torch.equal(net.weight, first + 1)
    assert torch.equal(net.weight, first)
    held = {b.data_ptr() for l in snapshots._pools[net].values() for b in l}
    with unchanged(net) as s: assert {t.data_ptr() for t in s.saved} == held # used again
    with torch.inference_mode():
        with unchanged(net): pass
    with unchanged(net): net.weight.data.add_(1)
    assert torch.equal(net.weight, first)
    gone = weakref.ref(net)
    del net, s
    gc.collect()
    assert gone() is None # the pool holds no model


def test_second_interrupt_while_restoring(monkeypatch):
    net = nn.Linear(2, 2)
    first, calls, restore = net.weight.detach().clone(), [], Snapshot.restore
    def interrupted(self):
        calls.append(1)
        if len(calls) == 1: raise KeyboardInterrupt
        restore(self)
    monkeypatch.setattr(Snapshot, 'restore', interrupted)
    with pytest.raises(KeyboardInterrupt):
        with unchanged(net): net.weight.data.zero_()
    assert torch.equal(net.weight, first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_cuda():
    net = Net('batch', True, False, True, False).cuda()
    before, rng = picture(net), torch.cuda.get_rng_state()
    for on in ('cpu', 'same'):
        with unchanged(net, on=on):
            net.double().cpu()
            torch.rand(3, device='cuda')
        assert same(picture(net), before) and torch.equal(torch.cuda.get_rng_state(), rng)


# ---- seeds

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_seeded(seed):
    rng = randoms()
    def draw(): return random.random(), np.random.rand(), torch.rand(2).tolist(), torch.randperm(5).tolist()
    with seeded(seed): a = draw()
    assert same(randoms(), rng)
    assert seeded(seed)(draw)() == a
    with pytest.raises(Stop):
        with seeded(seed): raise Stop
    assert same(randoms(), rng)


def test_random_states_roundtrip(tmp_path):
    np.random.randn() # leaves half a pair behind
    states = RandomStates.take()
    def draw(): return random.gauss(0, 1), np.random.randn(), torch.randn(3).tolist()
    first = draw()
    torch.save(states.state_dict(), tmp_path/'s')
    RandomStates.from_state_dict(torch.load(tmp_path/'s', weights_only=True)).restore()
    assert draw() == first
    assert not torch.cuda.is_initialized() or torch.cuda.is_available()
