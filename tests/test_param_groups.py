"Layer groups of any model: a partition in order of execution; rates; freezing; and no trace left of looking."
import copy, pickle
from time import process_time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dlpractice.data import Batches
from dlpractice.errors import ArgumentError
from dlpractice.lr_finder import lr_range_test
from dlpractice.param_groups import add_groups, discriminative, distance_moved, freeze, freeze_batchnorm, group_rates, layer_groups, show_groups, unfreeze
from dlpractice.snapshots import seeded
from dlpractice.training import Learner


def cnn(seed=0):
    with seeded(seed): return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def batch(n=16, seed=1):
    with seeded(seed): return torch.randn(n, 1, 16, 16), torch.arange(n) % 3


def is_partition(groups, model):
    ids = [id(p) for g in groups for p in g.parameters]
    assert len(ids) == len(set(ids)) and set(ids) == set(map(id, model.parameters())) and all(len(g) for g in groups)
    known = dict(model.named_parameters())
    assert all(known[n] is p for g in groups for n, p in zip(g.names, g.parameters))
    return True


# ---- freezing

def test_freeze_and_unfreeze_leave_no_trace():
    model, (x, y) = cnn(), batch()
    keys = [set(vars(m)) for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    groups = freeze(model, example=x)
    assert [g.frozen for g in groups] == [True]*(len(groups) - 1) + [False] and list(model.state_dict()) == list(state)
    model.train()
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        opt.step()
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, state[n])}
    assert changed == set(groups[-1].names)
    unfreeze(model)
    assert all(p.requires_grad for p in model.parameters()) and [type(m) for m in model.modules()] == [type(m) for m in cnn().modules()]
    assert [set(vars(m)) for m in model.modules()] == keys and all(m.training for m in model.modules())


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: torch.compile(m, backend='eager', fullgraph=True)], ids=['deepcopy', 'pickle', 'compile'])
def test_frozen_batchnorm_stays_frozen(copied):
    model, (x, _) = cnn(), batch()
    model(x) # statistics of its own
    assert freeze_batchnorm(model) == ['1', '4']
    right = model.eval()(x)
    other = copied(model).train()
    before = [b.clone() for b in other.buffers()]
    assert torch.equal(other(x), right) and all(map(torch.equal, before, other.buffers()))
    assert not any(p.requires_grad for m in model if isinstance(m, nn.BatchNorm2d) for p in m.parameters()) and model[0].weight.requires_grad
    unfreeze(other)
    other(x)
    assert not all(map(torch.equal, before, other.buffers())) and all(p.requires_grad for p in other.parameters())


# ---- a partition, in order of execution, the head last

class Nested(nn.Module):
    "Parts run in a random order, which is not that of their definition; some own a bare parameter, share a weight, or do nothing for the output."
    def __init__(self, draw, width, depth=0):
        super().__init__()
        self.order, self.log = [], None
        for k in range(draw(st.integers(1, 4))):
            kind = draw(st.sampled_from(['linear', 'norm', 'bare', 'nested', 'idle', 'dropped'] if depth < 2 else ['linear', 'norm', 'bare']))
            part = dict(linear=lambda: nn.Linear(width, width), norm=lambda: nn.BatchNorm1d(width), bare=lambda: nn.Parameter(torch.ones(width)), nested=lambda: Nested(draw, width, depth + 1),
                        idle=lambda: nn.Linear(width, 3), dropped=lambda: nn.Linear(width, 2))[kind]()
            name = f'{kind}{k}'
            setattr(self, name, part)
            self.order.append(name)
        self.order = draw(st.permutations(self.order))

    def run(self, x, used):
        "The pass, and the names of what it used on the way to the output, in order."
        for name in self.order:
            part, kind = getattr(self, name), name.rstrip('0123456789')
            if kind == 'idle': continue
            if kind == 'dropped': part(x)
            elif kind == 'bare': x = used(part, x*part)
            elif kind == 'nested': x = part.run(x, used)
            else: x = used(part, part(x))
        return x

    def forward(self, x): return self.run(x, lambda part, x: x)


@st.composite
def nested(draw):
    model = Nested(draw, 4)
    model.last = nn.Linear(4, 4)
    model.order.insert(draw(st.integers(0, len(model.order))), 'last') # one layer at least, somewhere
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.weight.shape == (4, 4)]
    if len(linear) > 1 and draw(st.booleans()): linear[1].weight = linear[0].weight
    for p in model.parameters():
        if draw(st.integers(0, 4)) == 0: p.requires_grad_(False)
    return model


@settings(max_examples=60, deadline=None)
@given(nested(), st.data())
def test_random_models(model, data):
    flags = [p.requires_grad for p in model.parameters()]
    used = []
    with torch.no_grad(): model.eval().run(torch.ones(2, 4), lambda part, x: used.append(part) or x)
    model.train()
    groups = layer_groups(model, example=torch.ones(2, 4))
    where = {id(p): k for k, g in enumerate(groups) for p in g.parameters}
    own = lambda part: [part] if isinstance(part, nn.Parameter) else list(part.parameters(recurse=False))
    first, spots = {}, []
    for part in used:
        fresh = [p for p in own(part) if id(p) not in first]
        for p in fresh: first[id(p)] = len(spots)
        if fresh: spots.append(min(where[id(p)] for p in fresh))
    assert is_partition(groups, model)
    assert spots == sorted(spots) and spots[-1] == len(groups) - 1                     # in order of execution, the last one in the head
    assert all(where[id(p)] == len(groups) - 1 for n, p in model.named_parameters() if 'idle' in n) # what does not run
    assert [p.requires_grad for p in model.parameters()] == flags
    n = data.draw(st.integers(1, len(groups)))
    fewer = layer_groups(model, n, example=torch.ones(2, 4))
    assert len(fewer) == n and is_partition(fewer, model)
    rates = {id(p): g['lr'] for g in discriminative(fewer, 1., 2.) for p in g['params']} if any(flags) else {}
    assert not rates or sorted(set(rates.values())) == [2.**(k + 1 - n) for k in range(n)]


class Straight(nn.Module):
    "Two heads, of which the one that runs last is thrown away."
    def __init__(self):
        super().__init__()
        self.aside, self.head, self.body = nn.Linear(4, 9), nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    def forward(self, x):
        x = self.body(x)
        out = self.head(x)
        self.aside(x)
        return out


def test_the_head_is_what_feeds_the_output():
    groups = layer_groups(Straight(), example=torch.ones(2, 4))
    assert [g.paths for g in groups] == [['body.0'], ['body.2'], ['head', 'aside']]


# ---- nothing is left of looking

class Counts(nn.Module):
    "Everything that a pass might touch; asks for a value if told to, so that it cannot run without them."
    def __init__(self, asks):
        super().__init__()
        self.asks, self.conv, self.norm, self.drop, self.fc = asks, nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)
        self.register_buffer('seen', torch.zeros(()), persistent=False)
    def forward(self, x):
        self.seen += 1
        self.last = x
        if self.asks and x.sum().item() > 1e9: return x
        return self.fc(self.drop(self.norm(self.conv(x))).mean(-1))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('asks', [True, False], ids=['values', 'meta'])
def test_no_trace(asks, training):
    model = Counts(asks).train(training)
    model.norm.eval()
    model.fc.bias.requires_grad_(False)
    x = torch.randn(3, 2, 8)
    model(x).sum().backward()
    handle = model.conv.register_forward_hook(lambda m, i, o: o)
    def state():
        return ([(n, p.detach().clone(), p.requires_grad, None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()], [b.clone() for b in model.buffers()],
                [(id(m), m.training, dict(m._forward_hooks), dict(m._forward_pre_hooks), {k: v for k, v in vars(m).items() if k[0] != '_'}) for m in model.modules()], torch.get_rng_state())
    def same(a, b):
        if isinstance(a, torch.Tensor): return a is b or a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a) if isinstance(a, dict) else a == b
    odd, kept = torch.randn(3, 5, 8), x.clone()
    before = state()
    assert [g.paths for g in layer_groups(model, example=x)] == [['conv', 'norm'], ['fc']]
    assert same(before, state()) and torch.equal(x, kept)
    with pytest.raises(ArgumentError, match='example'): layer_groups(model, example=odd)
    assert same(before, state())
    freeze(model, example=x)
    handle.remove()


# ---- models of all kinds

class Words(nn.Module):
    "Defined from back to front; takes whole numbers, or a pair, or names."
    def __init__(self):
        super().__init__()
        self.out, self.rnn, self.embed = nn.Linear(6, 3), nn.LSTM(5, 6, 2, batch_first=True), nn.Embedding(11, 5)
    def forward(self, ids, lengths=None):
        x = self.embed(ids)
        if lengths is not None: x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.out(self.rnn(x)[1][0][-1])


IDS = torch.zeros(2, 7, dtype=torch.long)

@pytest.mark.parametrize('example', [IDS, None, dict(ids=IDS), (IDS, torch.tensor([3, 7])), dict(ids=IDS, lengths=torch.tensor([7, 2]))], ids=['ids', 'guessed', 'named', 'pair', 'two names'])
def test_words(example):
    model = Words()
    groups = layer_groups(model, example=example)
    assert [g.paths for g in groups] == [['embed'], ['rnn'], ['out']] and is_partition(groups, model)


class Takes(nn.Module):
    "One argument that is itself a pair, or a dictionary."
    def __init__(self, key):
        super().__init__()
        self.key, self.b, self.a = key, nn.Linear(2, 2), nn.Linear(2, 2)
    def forward(self, batch): return self.b(self.a(batch[self.key]))


@pytest.mark.parametrize('key, example', [(1, (torch.ones(3, 2), torch.ones(3, 2))), ('x', dict(x=torch.ones(3, 2), z=4)), (0, [torch.ones(3, 2)])])
def test_one_argument_that_holds_several(key, example): assert [g.paths for g in layer_groups(Takes(key), example=example)] == [['a'], ['b']]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.out, self.mid, self.embed = nn.Linear(4, 9, bias=False), nn.Linear(4, 4), nn.Embedding(9, 4)
        self.out.weight = self.embed.weight
    def forward(self, x): return self.out(self.mid(self.embed(x)))


def test_tied_weights_stay_together():
    model = Tied()
    groups = layer_groups(model, example=IDS)
    assert [g.paths for g in groups] == [['embed'], ['mid']] and groups[0].names == ['out.weight'] and is_partition(groups, model)


def test_transformer_with_bare_parameters():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.pos, self.token = nn.Linear(8, 3), nn.Parameter(torch.zeros(6, 8)), nn.Parameter(torch.zeros(1, 1, 8))
            self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
            self.embed, self.scales = nn.Linear(4, 8), nn.ParameterList([torch.ones(8), torch.ones(8)])
        def forward(self, x):
            x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)*self.scales[0]], 1) + self.pos
            return self.head(self.blocks(x)[:, 0]*self.scales[1])
    model = Net()
    groups = layer_groups(model, example=torch.zeros(2, 5, 4))
    assert is_partition(groups, model) and [g.paths for g in groups] == [['token', 'embed', 'scales.0', 'pos'], ['blocks.layers.0'], ['blocks.layers.1'], ['blocks.layers.2', 'scales.1'], ['head']]


def test_wrapped_models_and_weight_norm():
    model = cnn()
    names = [g.names for g in layer_groups(model, example=batch()[0])]
    assert [g.names for g in layer_groups(torch.compile(model, backend='eager'), example=batch()[0])] == names
    assert [g.names for g in layer_groups(nn.DataParallel(model), example=batch()[0])] == names
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    assert is_partition(layer_groups(normed), normed)
    assert [g.paths for g in layer_groups(normed)][-1] == ['2']


def test_without_an_example():
    groups = layer_groups(cnn())
    assert groups.order == 'execution' and 'guessed: floats of shape (2, 1, 224, 224)' in repr(groups)
    model = Counts(True)
    with pytest.warns(UserWarning, match='example='): other = layer_groups(model)
    assert other.order == 'definition' and 'In order of definition' in repr(other) and is_partition(other, model)


def test_groups_that_are_given():
    model = cnn()
    groups = layer_groups(model, by=['0', ['1', '3'], ''])
    assert is_partition(groups, model) and [g.names for g in groups] == [['0.weight'], ['1.weight', '1.bias', '3.weight'], ['4.weight', '4.bias', '8.weight', '8.bias']]
    assert [len(g.statistics) for g in groups] == [0, 1, 1] and groups.order == 'given'
    split = layer_groups(model, by=lambda m: [m[:3], [m[3], list(m[4].parameters())], m[8]])
    assert is_partition(split, model) and [len(g) for g in split] == [3, 3, 2]
    assert [g.frozen for g in freeze(model, groups=split)] == [True, True, False]


# ---- every classification family of torchvision

SIZES = dict(alexnet=64, googlenet=64, inception_v3=75, maxvit_t=224, vit_b_32=224)
MEMBERS = 'alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet0_5 mobilenet_v2 regnet_x_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t vgg11 vit_b_32 wide_resnet50_2'.split()
HEADS = dict(googlenet='fc', inception='fc', regnet='fc', resnet='fc', resnext='fc', shufflenet='fc', swin='head', vit='heads', wide_resnet='fc') # the others call it classifier


def every_member():
    from torchvision import models
    return models.list_models(module=models)


def made(name):
    from torchvision import models
    return models.get_model(name, **(dict(init_weights=False) if name in ('googlenet', 'inception_v3') else {}))


def family_is_right(name, model, example, seconds):
    began = process_time()
    groups = layer_groups(model, example=example)
    assert process_time() - began < seconds
    head = next((h for f, h in HEADS.items() if name.startswith(f)), 'classifier')
    assert is_partition(groups, model) and groups.order == 'execution' and 4 <= len(groups) <= 6
    assert groups[-1].paths[0] == head or groups[-1].paths[0].startswith(f'{head}.')
    assert next(n for n, p in model.named_parameters() if p.dim() == 4 and 'aux' not in n.lower()) in groups[0].names
    for k, g in enumerate(groups): assert not any('aux' in n.lower() for n in g.names) or k == len(groups) - 1
    return groups


@pytest.mark.parametrize('name', MEMBERS)
def test_one_of_each_family(name):
    model, size = made(name), SIZES.get(name, 32)
    family_is_right(name, model, torch.zeros(2, 3, size, size), 2.)


@pytest.fixture
def without_drawing(monkeypatch):
    "Nobody looks at these weights."
    for f in ('trunc_normal_', 'kaiming_normal_', 'kaiming_uniform_', 'xavier_uniform_', 'normal_', 'uniform_', 'constant_', 'zeros_', 'ones_'): monkeypatch.setattr(nn.init, f, lambda *args, **kw: args[0] if args else kw['tensor'])


@pytest.mark.parametrize('name', every_member())
def test_every_member_on_the_meta_device(name, without_drawing):
    if name in MEMBERS: return
    from dlpractice.execution_order import meta_copy
    try:
        with torch.device('meta'): model = made(name)
    except (NotImplementedError, RuntimeError): model = meta_copy(made(name)) # it computes its widths from tensors
    size = 299 if name.startswith('inception') else 224
    family_is_right(name, model, torch.zeros(2, 3, size, size, device='meta'), 20.)


def test_a_resnet_has_the_groups_that_one_would_give_it():
    model = made('resnet18')
    paths = lambda **kw: [g.paths for g in layer_groups(model, example=torch.zeros(1, 3, 64, 64), **kw)]
    assert paths() == [['conv1', 'bn1'], ['layer1'], ['layer2'], ['layer3'], ['layer4'], ['fc']]
    assert paths(n=3) == [['conv1', 'bn1', 'layer1', 'layer2'], ['layer3', 'layer4'], ['fc']] and paths(n=2)[1] == ['fc']
    assert paths(n=1) == [['conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4', 'fc']] and len(paths(n=12)) == 12


@pytest.mark.parametrize('name', ['resnet18', 'vit_tiny_patch16_224', 'convnext_atto', 'efficientnet_b0'])
def test_timm(name):
    timm = pytest.importorskip('timm')
    model = timm.create_model(name, pretrained=False)
    groups = layer_groups(model, example=torch.zeros(2, 3, 224, 224))
    assert is_partition(groups, model) and groups.order == 'execution' and groups[-1].paths[0].split('.')[0] in ('head', 'fc', 'classifier')


@pytest.mark.parametrize('kind', ['Bert', 'DistilBert', 'GPT2'])
def test_transformers(kind):
    transformers = pytest.importorskip('transformers')
    model = getattr(transformers, f'{kind}ForSequenceClassification')(getattr(transformers, f'{kind}Config')(num_labels=3, pad_token_id=0))
    groups = layer_groups(model, example=dict(input_ids=IDS + 5, attention_mask=torch.ones_like(IDS)))
    assert is_partition(groups, model) and len(groups) == 6 and any(w in groups[-1].paths[-1] for w in ('classifier', 'score'))


# ---- rates

@pytest.mark.parametrize('n', range(1, 9))
@pytest.mark.parametrize('factor', [1, 1.5, 2.6, 10, 0.5])
def test_rates(n, factor):
    rates = group_rates(0.01, n, factor)
    assert rates[-1] == 0.01 and all(b/a == pytest.approx(factor) for a, b in zip(rates, rates[1:]))
    by_slice = group_rates(slice(1e-5, 1e-2), n)
    assert by_slice[-1] == pytest.approx(1e-2) and (n == 1 or by_slice[0] == pytest.approx(1e-5)) and all(b/a == pytest.approx(1e3**(1/(n - 1))) for a, b in zip(by_slice, by_slice[1:]))
    assert group_rates(slice(0.01), n) == [0.001]*(n - 1) + [0.01] and group_rates(list(range(n)), n) == list(map(float, range(n)))


OPTIMIZERS = {'SGD': dict(lr=0.1), 'AdamW': {}, 'Adam': {}, 'RMSprop': {}, 'Adagrad': {}, 'NAdam': {}, 'RAdam': {}, 'Adamax': {}, 'Adadelta': {}, 'ASGD': {}, 'Rprop': {}}

@pytest.mark.parametrize('name', OPTIMIZERS)
def test_any_optimizer_and_schedule(name):
    model, (x, y) = cnn(), batch()
    groups = discriminative(model, 0.01, 2., weight_decay=0.1, example=x)
    opt = getattr(torch.optim, name)(groups, **OPTIMIZERS[name])
    ratios = lambda: [g['lr']/opt.param_groups[-1]['lr'] for g in opt.param_groups]
    begin, seen = ratios(), []
    assert sorted(set(begin)) == [0.25, 0.5, 1.]
    class See:
        def after_step(self, learner): seen.append(ratios())
    learner = Learner(model, (Batches(x, y, size=4), None), F.cross_entropy, opt, callbacks=[See()])
    learner.fit(2, schedule=lambda p: 0.1 + p, progress=False)
    assert len(seen) == 8 and all(r == pytest.approx(begin) for r in seen) and ratios() == begin
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
    for _ in range(5): opt.step(), scheduler.step()
    assert ratios() == pytest.approx(begin)


def test_ratios_survive_a_range_test():
    model, (x, y) = cnn(), batch()
    opt = torch.optim.AdamW(discriminative(model, 0.01, 2.6, example=x))
    before, seen = [g['lr'] for g in opt.param_groups], []
    def step(m, b):
        seen.append([g['lr']/opt.param_groups[-1]['lr'] for g in opt.param_groups])
        return F.cross_entropy(m(b[0]), b[1])
    lr_range_test(model, train_dl=[(x, y)], step_fn=step, optimizer=opt, steps=10, repeats=1, most=1, progress=False)
    assert len(seen) >= 10 and all(s == pytest.approx([o/before[-1] for o in before]) for s in seen)
    assert [g['lr'] for g in opt.param_groups] == before


def test_what_decays():
    model = nn.Sequential(nn.Embedding(5, 4), nn.LSTM(4, 4), nn.Identity())
    model[1].flatten_parameters()
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 1))
    kinds = lambda m, **kw: {n: g['weight_decay'] > 0 for g in discriminative(layer_groups(m, by=['']), 1., weight_decay=0.1, **kw) for n, p in m.named_parameters() for q in g['params'] if p is q}
    assert {n for n, d in kinds(net).items() if d} == {'0.weight', '2.in_proj_weight', '2.out_proj.weight'}
    assert {n for n, d in kinds(net, no_decay='norm').items() if not d} == {'1.weight', '1.bias'} and all(kinds(net, no_decay='').values())
    assert {n for n, d in kinds(model, no_decay=['embedding', 'bias']).items() if not d} == {'0.weight', '1.bias_ih_l0', '1.bias_hh_l0'}
    own = discriminative(layer_groups(net, by=['']), 1.)
    assert ['weight_decay' in g for g in own] == [False, True] and [g['weight_decay'] for g in torch.optim.AdamW(own).param_groups] == [0.01, 0.]


def test_tables():
    model, (x, _) = cnn(), batch()
    groups = freeze(model, to=1, example=x)
    opt = torch.optim.SGD(discriminative(groups, 0.26))
    text = repr(show_groups(groups, opt)).split('\n')
    assert text[0].split() == ['group', 'layers', 'parameters', 'rate', 'frozen'] and [r.split()[-1] for r in text[2:]] == ['yes', 'no', 'no']
    assert [r.split()[-2] for r in text[2:]] == ['0.0385', '0.1', '0.26']
    assert [r.split()[-4:] for r in repr(show_groups(opt)).split('\n')[2:4]] == [['36', '0.0385', '0', 'yes'], ['8', '0.0385', '0', 'yes']]
    model[3].weight.requires_grad_(False)
    assert 'partly' in repr(groups) and 'frozen' in repr(groups[0])


def test_how_far_groups_moved():
    model, (x, _) = cnn(), batch()
    groups, before = layer_groups(model, example=x), copy.deepcopy(model)
    with torch.no_grad(): model[3].weight.mul_(3.)
    far = distance_moved(groups, before.state_dict())
    assert far[0] == far[2] == 0 and far == distance_moved(groups, before)
    w, rest = before[3].weight.square().sum(), before[4].weight.square().sum()
    assert far[1] == pytest.approx(float((4*w/(w + rest)).sqrt()), rel=1e-5)


# ---- what is refused

WRONG = [(lambda m, x: discriminative(m, 0.1, 0, example=x), 'argument factor'), (lambda m, x: discriminative(m, 0.1, -2.6, example=x), 'above 0'), (lambda m, x: discriminative(m, 0.1, True, example=x), 'argument factor'),
         (lambda m, x: discriminative(m, slice(0.1, 0.001), example=x), 'Swap them'), (lambda m, x: discriminative(m, slice(1e-4, 0.1, 3), example=x), 'slice'), (lambda m, x: discriminative(m, slice(None), example=x), 'slice'),
         (lambda m, x: discriminative(m, [0.1, 0.2], example=x), 'each of 3 groups'), (lambda m, x: discriminative(m, 0., example=x), 'above 0'), (lambda m, x: discriminative(m, float('nan'), example=x), 'argument lr'),
         (lambda m, x: discriminative(m, 'fast', example=x), 'argument lr'), (lambda m, x: discriminative(m, [0.1, -0.1, 1.], example=x), 'argument lr'), (lambda m, x: discriminative(m, 0.1, weight_decay=-1, example=x), 'weight_decay'),
         (lambda m, x: discriminative(m, 0.1, no_decay='nrom', example=x), "'norm'"), (lambda m, x: discriminative(m.requires_grad_(False), 0.1, example=x), 'all frozen'),
         (lambda m, x: layer_groups(m, 9, x), '1 to 3 groups'), (lambda m, x: layer_groups(m, 0, x), 'argument n'), (lambda m, x: layer_groups(m, 2.5, x), 'argument n'), (lambda m, x: layer_groups(m, 2, by=['']), 'not both'),
         (lambda m, x: layer_groups([m]), 'an nn.Module'), (lambda m, x: layer_groups(nn.ReLU()), 'without any'), (lambda m, x: layer_groups(nn.LazyLinear(3)), 'lazy'), (lambda m, x: layer_groups(m, example=(x, x)), 'without the target'),
         (lambda m, x: layer_groups(m, by=['0', '7']), "'7'"), (lambda m, x: layer_groups(nn.ModuleDict(dict(features=m, head=nn.Linear(2, 2))), by=['featuers', 'head']), "'features'"),
         (lambda m, x: layer_groups(m, by=['0', '1']), 'left over: 3.weight'), (lambda m, x: layer_groups(m, by=lambda m: [m[0], m]), 'in groups 0 and 1'), (lambda m, x: layer_groups(m, by=lambda m: [m, []]), 'none in group 1'),
         (lambda m, x: layer_groups(m, by=lambda m: [m, nn.Linear(2, 2)]), 'does not have'), (lambda m, x: freeze(m, 3, example=x), 'left to train'), (lambda m, x: freeze(m, -4, example=x), 'argument to'), (lambda m, x: freeze(m, 'head', example=x), 'argument to'),
         (lambda m, x: freeze(m, groups=layer_groups(cnn(), example=x)), 'groups of another one'), (lambda m, x: freeze(m, groups=[1]), 'argument groups'), (lambda m, x: freeze_batchnorm(nn.Linear(2, 2)), 'running statistics'),
         (lambda m, x: distance_moved(layer_groups(m, example=x), {}), 'argument before'), (lambda m, x: add_groups(torch.optim.SGD(m.parameters(), lr=0.1), discriminative(m, 0.1, example=x)), 'does not hold yet')]


@pytest.mark.parametrize('call, words', WRONG, ids=range(len(WRONG)))
def test_refused(call, words):
    with pytest.raises(ArgumentError, match=words): call(cnn(), batch()[0])


def test_groups_are_added_once():
    model, (x, _) = cnn(), batch()
    *body, head = discriminative(layer_groups(model, example=x), 0.1, no_decay=None)
    opt = torch.optim.SGD([head], lr=0.1)
    add_groups(opt, body)
    assert [g['name'] for g in opt.param_groups] == ['8', '0, 1', '3, 4']
    with pytest.raises(ArgumentError, match="2 of 2 of '8'"): add_groups(opt, [dict(params=[nn.Parameter(torch.ones(1))]), head])
    assert len(opt.param_groups) == 3
