"Heads of every family of torchvision, pretrained nets and their cache, and `Learner.fine_tune`: what the notebooks do not show."
import hashlib, threading, time, warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

import dlpractice.pretrained_nets as pretrained_nets
from dlpractice.data import Batches, Loaders, glyphs
from dlpractice.errors import ArgumentError, DataError, ShapeError, TrainingError
from dlpractice.fine_tuning import find_head, replace_head
from dlpractice.metrics import accuracy
from dlpractice.param_groups import layer_groups
from dlpractice.pretrained_nets import check_norm, embedded_path, fetch, norm_stats, pretrained, read_weights, save_weights
from dlpractice.snapshots import seeded
from dlpractice.training import Learner

FAMILIES = {'alexnet': 'classifier.6', 'convnext_tiny': 'classifier.2', 'densenet121': 'classifier', 'efficientnet_b0': 'classifier.1', 'efficientnet_v2_s': 'classifier.1', 'googlenet': 'fc', 'inception_v3': 'fc',
            'maxvit_t': 'classifier.5', 'mnasnet0_5': 'classifier.1', 'mobilenet_v2': 'classifier.1', 'mobilenet_v3_small': 'classifier.3', 'regnet_x_400mf': 'fc', 'resnet18': 'fc', 'resnext50_32x4d': 'fc',
            'shufflenet_v2_x0_5': 'fc', 'squeezenet1_1': 'classifier.1', 'swin_t': 'head', 'swin_v2_t': 'head', 'vgg11': 'classifier.6', 'vit_b_16': 'heads.head', 'wide_resnet50_2': 'fc'}


def on_meta(name):
    "A net without memory for its weights: shapes alone. (RegNet computes its sizes with tensors, and is small enough to be real at first.)"
    if name.startswith('regnet'): return models.get_model(name, weights=None).eval().to('meta')
    with torch.device('meta'): return models.get_model(name, weights=None, **(dict(init_weights=False) if name in ('googlenet', 'inception_v3') else {})).eval()


def picture(name): return torch.empty(2, 3, *(2*[299 if name == 'inception_v3' else 224]), device='meta')


# ---- heads

def test_every_family_is_here():
    "A family that torchvision adds has to be added here, too."
    modules = {models.get_model_builder(n).__module__.rpartition('.')[2] for n in models.list_models(models)}
    assert modules == {models.get_model_builder(n).__module__.rpartition('.')[2] for n in FAMILIES}


@pytest.mark.parametrize('name', FAMILIES)
def test_head_of_every_family(name, capsys):
    net = on_meta(name)
    assert find_head(net).path == FAMILIES[name] and find_head(net).classes == 1000
    assert replace_head(net, 7) is net
    assert net(picture(name)).shape == (2, 7) and FAMILIES[name] in capsys.readouterr().out
    assert not [m for n, m in net.named_modules() if getattr(m, 'out_features', 0) == 1000], 'a side branch was forgotten'


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_b0', 'regnet_x_400mf', 'googlenet', 'inception_v3'])
def test_concat_pool_doubles_the_features(name):
    net = on_meta(name)
    before = find_head(net).features
    replace_head(net, 7, 'concat_pool', verbose=False)
    assert net(picture(name)).shape == (2, 7) and find_head(net).features == 2*before


@pytest.mark.parametrize('name', ['densenet121', 'vit_b_16', 'mobilenet_v3_small', 'convnext_tiny', 'squeezenet1_1', 'vgg11', 'mnasnet0_5'])
def test_concat_pool_is_refused_where_it_cannot_be(name):
    net = on_meta(name)
    with pytest.raises(ArgumentError, match="Use head='linear'"): replace_head(net, 7, 'concat_pool')
    assert find_head(net).classes == 1000, 'refused, but changed'


def test_head_with_real_weights_and_a_small_picture():
    with seeded(0): net = models.squeezenet1_1()
    x = torch.randn(1, 3, 40, 40)
    replace_head(net, 3, example=x, verbose=False)
    assert net(x).shape == (1, 3) and net.classifier[1].weight.requires_grad


class Out(nn.Module):
    "A recurrent net whose head is defined first."
    def __init__(self):
        super().__init__()
        self.out, self.emb, self.rnn = nn.Linear(4, 9), nn.Embedding(10, 3), nn.LSTM(3, 4, batch_first=True)
    def forward(self, x): return self.out(self.rnn(self.emb(x))[0][:, -1])


def test_order_of_execution_and_path():
    net, x = Out(), torch.randint(10, (2, 5))
    with pytest.raises(ArgumentError, match='LSTM.*Name the head'): replace_head(net, 3)
    assert find_head(net, x).path == find_head(net, at='out').path == 'out'
    assert replace_head(net, 3, example=x, verbose=False)(x).shape == (2, 3)
    with pytest.raises(ArgumentError, match="'out'"): find_head(net, at='outt')
    assert net.training


def test_what_is_no_head_is_refused():
    tied = nn.Sequential(nn.Embedding(6, 4), nn.Flatten(0, 1), nn.Linear(4, 6, bias=False))
    tied[2].weight = tied[0].weight
    for net, words in ((nn.Sequential(nn.ReLU()), 'without any'), (nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), 'LayerNorm'), (nn.Sequential(nn.Conv2d(1, 2, 3)), 'Conv2d'), (tied, 'shares')):
        with pytest.raises(ArgumentError, match=words): replace_head(net, 3)
    for n in (0, 2.5, True, '3'):
        with pytest.raises(ArgumentError, match='n_classes'): replace_head(nn.Linear(2, 3), n)


def test_own_head_is_tried():
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.randn(2, 4)
    with pytest.raises(ShapeError, match='takes what the old one took'): replace_head(net, 5, nn.Linear(3, 5), example=x)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    assert replace_head(net, 5, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)), example=x, verbose=False)(x).shape == (2, 5)
    before = find_head(net).layer
    with pytest.raises(ShapeError, match='5'): replace_head(net, 5, nn.Linear(8, 6), example=x)
    assert find_head(net).layer is before, 'refused, but changed'


def test_a_head_that_is_the_model_and_inputs_that_are_none():
    with pytest.raises(ArgumentError, match='lone Linear'): replace_head(nn.Linear(2, 3), 4)
    with pytest.raises(ArgumentError, match='nn.Module'): find_head('resnet18')
    with pytest.raises(ArgumentError, match='one that fails'): find_head(nn.Sequential(nn.Linear(2, 3)), torch.randn(4, 5))
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(2, 3)
        def forward(self, x): return x @ self.out.weight.T
    with pytest.raises(ArgumentError, match='other ways'): find_head(Bare(), torch.randn(4, 2))
    assert find_head(Bare(), torch.randn(4, 2), at='out').path == 'out'


def test_inputs_by_name():
    class Named(Out):
        def forward(self, *, ids): return super().forward(ids)
    net, x = Named(), dict(ids=torch.randint(10, (2, 5)))
    assert find_head(net, x).path == 'out' and replace_head(net, 3, example=x, verbose=False)(**x).shape == (2, 3)


def test_head_keeps_dtype_and_bias():
    net = nn.Sequential(nn.Linear(4, 3, bias=False)).double()
    replace_head(net, 2, verbose=False)
    assert net[0].weight.dtype == torch.float64 and net[0].bias is None


# ---- statistics

@pytest.mark.parametrize('name', FAMILIES)
def test_statistics_of_torchvision(name):
    mean, std = norm_stats(name)
    assert len(mean) == len(std) == 3 and all(0 < s < 1 for s in std)


def test_statistics_from_other_places():
    s = norm_stats(dict(mean=[0.1], std=[0.2], other=3))
    assert s == ((0.1,), (0.2,)) == norm_stats((0.1, 0.2)) == norm_stats(s)
    net = nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match='carries its statistics'): norm_stats(net)
    net.pretrained_cfg = dict(mean=(0.5, 0.5), std=(1, 1))
    assert norm_stats(net).mean == (0.5, 0.5)
    for bad in (3, 'nothing', dict(mean=[1.]), (0.5, 0.), ((1., 2.), (1.,))):
        with pytest.raises(ArgumentError): norm_stats(bad)


def test_check_norm():
    d, stats = glyphs(20, colour=True), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    right = d.floats(*stats)
    assert check_norm(right, stats) == '' == check_norm((right, d.labels), stats)
    assert check_norm(F.interpolate(right, 20, mode='bilinear'), stats) == '', 'resized, but normalised right'
    for x, words in ((d.images, '0 to 255'), (d.images.float(), '0 to 255'), (d.images.float()/255, 'not to be normalised'), ((d.images.float()/255 - 0.5)/0.05, 'other statistics'), (right[:, :1], 'channel')):
        with pytest.warns(UserWarning, match=words): assert words in check_norm(x, stats, warn=True)
    with pytest.raises(ShapeError): check_norm(right[0], stats)


# ---- the cache

@pytest.fixture
def cache(tmp_path, monkeypatch):
    "An empty cache, and a pretraining that takes no time; gives the list of its calls."
    calls = []
    def quick(name, seed, progress):
        calls.append(seed)
        time.sleep(0.2)
        with seeded(seed): return pretrained_nets.glyph_net().state_dict(), dict(classes='abcdefghijklmnopqrstuvwxyz', mean=f'[{0.25*(seed + 1)}]', std='[0.5]', accuracy='0.9', seconds='1')
    monkeypatch.setenv('DLPRACTICE_CACHE', str(tmp_path))
    path = embedded_path()
    monkeypatch.setattr(pretrained_nets, '_pretrain', quick)
    monkeypatch.setattr(pretrained_nets, 'embedded_path', lambda name='latin', seed=0: path.with_name(f'{name}-{seed}.safetensors'))
    return calls


def test_embedded_net_is_made_once(cache):
    a, b = pretrained(), pretrained()
    assert cache == [0] and all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters())) and not a.training
    assert norm_stats(a) == norm_stats('latin') == ((0.25,), (0.5,))
    assert norm_stats(pretrained(seed=1)) == ((0.5,), (0.5,)), 'the statistics of another seed'
    assert cache == [0, 1]
    assert pretrained(n_classes=3, verbose=False)(torch.zeros(1, 1, 16, 16)).shape == (1, 3)


@pytest.mark.parametrize('harm', [lambda b: b[:50], lambda b: b[:-4] + bytes(4), lambda b: b'', lambda b: b'no safetensors at all' * 9])
def test_damaged_weights_are_made_again(cache, harm):
    pretrained()
    path = pretrained_nets.embedded_path()
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    with pytest.warns(UserWarning, match='made again'): pretrained()
    assert cache == [0, 0] and read_weights(path)[1]['accuracy'] == '0.9'


def test_interrupt_leaves_nothing(cache, monkeypatch):
    def interrupted(*args): raise KeyboardInterrupt
    quick = pretrained_nets._pretrain
    monkeypatch.setattr(pretrained_nets, '_pretrain', interrupted)
    with pytest.raises(KeyboardInterrupt): pretrained()
    folder = pretrained_nets.embedded_path().parent
    assert not [p for p in folder.iterdir() if p.suffix != '.lock']
    monkeypatch.setattr(pretrained_nets, '_pretrain', quick)
    pretrained() # nothing is locked


def test_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path/'a.safetensors'
    save_weights(path, dict(w=torch.ones(2)), {})
    monkeypatch.setattr('os.replace', lambda *a: (_ for _ in ()).throw(OSError('full')))
    with pytest.raises(OSError, match='full'): save_weights(path, dict(w=torch.zeros(2)), {})
    assert read_weights(path)[0]['w'].sum() == 2 and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_one_trains_and_the_others_wait(cache):
    threads = [threading.Thread(target=pretrained) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert cache == [0]


def test_recipe_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv('DLPRACTICE_CACHE', str(tmp_path))
    path = embedded_path()
    monkeypatch.setitem(pretrained_nets.EMBEDDED, 'latin', dict(script='latin_upper'))
    assert embedded_path() != path and path.parent.parent == tmp_path
    with pytest.raises(ArgumentError, match="'latin'"): embedded_path('latn')


def test_fetch(tmp_path):
    data, folder = b'some weights', tmp_path/'cache'
    name = f'net-{hashlib.sha256(data).hexdigest()[:8]}.pth'
    (tmp_path/name).write_bytes(data)
    url = (tmp_path/name).as_uri()
    path = fetch(url, folder, False)
    (tmp_path/name).unlink()
    assert fetch(url, folder, False) == path and path.read_bytes() == data, 'from the cache'
    path.write_bytes(b'damaged')
    with pytest.warns(UserWarning, match='damaged'), pytest.raises(DataError, match='by hand'): fetch(url, folder, False)
    (tmp_path/name).write_bytes(b'something else')
    path.unlink()
    with pytest.raises(DataError, match='hash'): fetch(url, folder, False)
    assert not list(folder.iterdir()), 'a wrong file was kept'


def test_torchvision_by_name(tmp_path, monkeypatch):
    "With a file in place of the address, as with a network."
    with seeded(0): net = models.squeezenet1_1()
    torch.save(net.state_dict(), tmp_path/'weights')
    data = (tmp_path/'weights').read_bytes()
    file = tmp_path/f'squeezenet1_1-{hashlib.sha256(data).hexdigest()[:8]}.pth'
    file.write_bytes(data)
    weights = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    monkeypatch.setattr(weights.value, 'url', file.as_uri())
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path/'hub'))
    got = pretrained('squeezenet1_1', progress=False)
    assert all(torch.equal(a, b) for a, b in zip(got.state_dict().values(), net.state_dict().values())) and norm_stats(got) == norm_stats(weights)
    file.unlink()
    assert pretrained('SqueezeNet1_1_Weights.IMAGENET1K_V1', 4, progress=False, verbose=False)(torch.zeros(1, 3, 40, 40)).shape == (1, 4)
    with pytest.raises(ArgumentError, match="'resnet18'"): pretrained('resnet81')


# ---- fine_tune

class Net(nn.Sequential):
    def __init__(self):
        block = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        super().__init__(block(1, 4), block(4, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def make(optimizer=torch.optim.AdamW, metrics=(accuracy,), **kw):
    "A small net, and 24 pictures of three letters."
    with seeded(0): net = Net()
    d = glyphs(24, 'abc', size=8)
    x = d.floats()
    data = Loaders(Batches(x, d.labels, size=8, generator=torch.Generator().manual_seed(0)), Batches(x, d.labels, shuffle=False))
    return Learner(net, data, F.cross_entropy, optimizer, metrics, **kw)


class Watch:
    "What is trained in each epoch, and how the body looks at its beginning."
    def __init__(self): self.open, self.states, self.rates = [], [], []
    def before_epoch(self, learner):
        self.open.append([any(p.requires_grad for p in g.parameters) for g in layer_groups(learner.model, example=torch.zeros(2, 1, 8, 8))])
        self.states.append({k: v.clone() for k, v in learner.model.state_dict().items()})
        self.rates.append([g['lr'] for g in learner.optimizer.param_groups])


def test_two_steps():
    watch, learner = Watch(), make()
    learner.callbacks.append(watch)
    history = learner.fine_tune(2, 2, lr=(0.1, 0.01), progress=False)
    assert history is learner.history and len(history) == 4
    assert watch.open == [[False, False, True]]*2 + [[True]*3]*2
    body = [k for k in watch.states[0] if not k.startswith('4')]
    assert all(torch.equal(watch.states[0][k], watch.states[2][k]) for k in body), 'the frozen body moved, or its statistics did'
    assert not torch.equal(watch.states[0]['4.weight'], watch.states[2]['4.weight'])
    assert not any(torch.equal(watch.states[2][k], v) for k, v in learner.model.state_dict().items() if k in body)
    rates = [g['lr'] for g in learner.optimizer.param_groups]
    assert max(rates) == 0.01 and min(rates) == pytest.approx(0.01/2.6**2)
    assert all(p.requires_grad for p in learner.model.parameters()) and all(m.training for m in learner.model.modules())


def test_gradual():
    watch, learner = Watch(), make()
    learner.callbacks.append(watch)
    learner.fine_tune(3, 1, lr=0.01, gradual=True, progress=False)
    assert watch.open == [[False, False, True], [False, True, True], [True]*3, [True]*3]
    assert torch.equal(watch.states[1]['0.1.running_mean'], watch.states[2]['0.1.running_mean']) and torch.equal(watch.states[1]['0.0.weight'], watch.states[2]['0.0.weight'])


def test_head_alone_leaves_the_body_frozen():
    learner = make(partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    learner.fine_tune(0, 3, lr=0.1, progress=False)
    moved = {k for k, v in learner.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {'4.weight', '4.bias'} and [p.requires_grad for p in learner.model.parameters()] == [False]*6 + [True]*2


def test_without_a_first_step_and_with_one_rate():
    learner = make(partial(torch.optim.SGD, lr=9.))
    learner.fine_tune(1, 0, lr=0.01, factor=1, progress=False)
    assert {g['lr'] for g in learner.optimizer.param_groups} == {0.01} and len(learner.history) == 1


def test_rate_by_range_test():
    learner = make()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learner.fine_tune(1, 1, test=dict(steps=20, repeats=1, most=1), progress=False)
    rates = [g['lr'] for g in learner.optimizer.param_groups]
    assert 1e-7 < min(rates) < max(rates) < 10 and max(rates)/min(rates) == pytest.approx(2.6**2)


def test_range_test_that_finds_nothing_is_told_and_leaves_nothing_changed():
    learner = make()
    learner.model[0][0].weight.requires_grad_(False)
    before, optimizer = {k: v.clone() for k, v in learner.model.state_dict().items()}, learner.optimizer
    with pytest.raises(TrainingError, match='Pass lr'): learner.fine_tune(0, 1, test=dict(start=1e-12, end=1e-10, steps=20, repeats=1, most=1), progress=False)
    assert all(torch.equal(v, before[k]) for k, v in learner.model.state_dict().items()) and learner.optimizer is optimizer
    assert [p.requires_grad for p in learner.model.parameters()] == [False] + [True]*7
    assert learner.model.train() and all(m.training for m in learner.model.modules()), 'BatchNorm is not held any longer'


def test_inputs_by_name_are_not_looked_at():
    class Named(Net):
        def forward(self, x): return super().forward(x['pixels'] if isinstance(x, dict) else x)
    plain = make()
    with seeded(0): net = Named()
    net.input_stats = norm_stats(((0.2,), (0.5,)))
    batches = [dict(pixels=x, y=y) for x, y in plain.data.train]
    step = lambda model, b: F.cross_entropy(model(dict(pixels=b['pixels'])), b['y'])
    learner = Learner(net, (batches, None), optimizer=torch.optim.AdamW, step_fn=step)
    groups = layer_groups(net, example=batches[0]['pixels'])
    assert len(learner.fine_tune(1, 1, lr=0.01, groups=groups, progress=False)) == 2


@pytest.mark.parametrize('kwargs, words', [(dict(epochs=-1), 'epochs'), (dict(epochs=0, freeze_epochs=0), 'at least one epoch'), (dict(epochs=1, lr=0.), 'above 0'), (dict(epochs=1, lr=float('nan')), 'above 0'), (dict(epochs=1, lr=(0.1,)), 'a pair'),
                                           (dict(epochs=1, lr=True), 'above 0'), (dict(epochs=1, factor=0), 'factor'), (dict(epochs=1, factor=-2.6), 'factor'), (dict(epochs=1, gradual=True), 'at least 2'), (dict(epochs=1.5), 'whole number'), (dict(epochs=1, n=1), 'a single group')])
def test_bad_arguments(kwargs, words):
    learner = make()
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    with pytest.raises(ArgumentError, match=words): learner.fine_tune(**kwargs, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in learner.model.state_dict().items()) and all(p.requires_grad for p in learner.model.parameters())


def test_optimizer_must_be_a_callable():
    net = make().model
    learner = make()
    learner = Learner(net, learner.data, F.cross_entropy, torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(ArgumentError, match='a callable.*instance of SGD.*functools.partial'): learner.fine_tune(1, lr=0.1)
    odd = make(lambda params: torch.optim.SGD([p for p in params if p.requires_grad], lr=0.1))
    with pytest.raises(ArgumentError, match='takes parameter groups'): odd.fine_tune(1, lr=0.1)
    assert make(None).fine_tune(1, 0, lr=0.01, progress=False), 'None stands for AdamW'


def test_wrong_statistics_are_warned_of():
    learner = make()
    learner.model.input_stats = norm_stats(((0.2,), (0.5,)))
    with pytest.warns(UserWarning, match='other statistics'): learner.fine_tune(1, lr=0.01, progress=False)


def test_looking_at_a_batch_leaves_no_trace():
    learner = make()
    state = learner.data.train.generator.get_state()
    with pytest.raises(ArgumentError): learner.fine_tune(1, factor=0)
    assert torch.equal(learner.data.train.generator.get_state(), state)
