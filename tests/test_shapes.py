"Shape checks outside of a notebook: compilers, transforms, pickles, threads, subprocesses, real networks, and that nothing is left behind."
import copy, inspect, io, os, pickle, subprocess, sys, threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import grad, jacrev, vmap

from dlpractice import shapes
from dlpractice.errors import ArgumentError, ShapeError
from dlpractice.shapes import (ShapeAssert, allow, asserting, broadcast_guard, check_shape, mean_keep, remove_asserts, shaped, trace_shapes)


@shaped('b c h w, c -> b c')
def pool_scale(x, scale):
    "Mean over the pixels."
    return x.mean((2, 3))*scale


class Head(nn.Module):
    def __init__(self, n_in=8, n_out=4):
        super().__init__()
        self.n_in, self.n_out, self.linear = n_in, n_out, nn.Linear(n_in, n_out)

    @shaped('b {n_in} -> b {n_out}')
    def forward(self, x): return self.linear(x)


class Gate(nn.Module):
    "Keeps its width over calls; a mask may be missing."
    @shaped('b t d, b t? -> b t d', keep='d')
    def forward(self, x, mask=None): return x if mask is None else x*mask[..., None]


class Wrong(nn.Module):
    "Its result is not what it promises."
    @shaped('b c -> b')
    def forward(self, x): return x.mean(0)


def flat(x): return x.reshape(check_shape(x, 'b 3 h w')['b'], -1)


x, scale = torch.randn(4, 3, 5, 5), torch.randn(3)
net = nn.Sequential(Head(), ShapeAssert('b 4'), nn.ReLU())


# --- compilers and transforms

@pytest.mark.parametrize('backend', ['eager', 'aot_eager', 'inductor'])
@pytest.mark.parametrize('f, args', [(pool_scale, (x, scale)), (net, (torch.randn(5, 8),)), (flat, (x,)), (Gate(), (torch.randn(2, 3, 4),))],
                         ids=['function', 'modules', 'check_shape', 'kept sizes'])
def test_compile_fullgraph(f, args, backend):
    if backend == 'inductor' and sys.platform == 'win32': pytest.skip('needs a C++ compiler')
    torch._dynamo.reset()
    want = f(*args)      # sizes that are kept are learned in the first call
    compiled = torch.compile(f, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(*args), want)
    more = tuple(a.repeat(2, *[1]*(a.dim() - 1)) if a.dim() > 1 else a for a in args)
    torch.testing.assert_close(compiled(*more), f(*more))    # another batch size


@pytest.mark.parametrize('f, args, said', [
    (pool_scale, (x, scale[:2]), 'pool_scale, argument scale: expected (c=3,), got (2,): axis 0 (c) is 2; c is 3 in argument x, axis 1'),
    (net, (torch.randn(5, 7),), 'Head.forward (layer 0 of Sequential), argument x: expected (b, n_in=8), got (5, 7): axis 1 (n_in) is 7'),
    (flat, (x[:, :2],), 'check_shape, argument x: expected (b, 3, h, w), got (4, 2, 5, 5): axis 1 is 2, not 3'),
    (Wrong(), (torch.randn(2, 3),), 'Wrong.forward, return value: expected (b=2,), got (3,): axis 0 (b) is 3; b is 2 in argument x, axis 0'),
], ids=['function', 'modules', 'check_shape', 'result'])
def test_compile_says_what_is_wrong(f, args, said):
    for fullgraph, kind in ((False, ShapeError), (True, torch._dynamo.exc.TorchDynamoException)):
        torch._dynamo.reset()
        with pytest.raises(kind) as e: torch.compile(f, fullgraph=fullgraph, backend='eager')(*args)
        assert said in str(e.value)


def test_transforms():
    xs = torch.randn(7, *x.shape)
    torch.testing.assert_close(vmap(pool_scale, (0, None))(xs, scale), torch.stack([pool_scale(o, scale) for o in xs]))
    assert vmap(grad(lambda o, s: pool_scale(o, s).sum()), (0, None))(xs, scale).shape == xs.shape
    assert jacrev(pool_scale, 1)(x, scale).shape == (4, 3, 3)
    with pytest.raises(ShapeError, match='argument scale: expected'): vmap(pool_scale, (0, None))(xs, scale[:2])


def test_export_with_a_free_batch_size():
    program = torch.export.export(net.eval(), (torch.randn(5, 8),), dynamic_shapes=({0: torch.export.Dim('batch', min=2)},))
    data = torch.randn(9, 8)
    torch.testing.assert_close(program.module()(data), net(data))


def test_symbolic_trace_passes():
    data = torch.randn(6, 8)
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(data), net(data))


def test_gradients_are_the_same():
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    pool_scale(a, scale).sum().backward()
    pool_scale.__wrapped__(b, scale).sum().backward()
    assert torch.equal(a.grad, b.grad)


# --- copies, pickles, processes

def test_pickle_and_deepcopy():
    assert pickle.loads(pickle.dumps(pool_scale)) is pool_scale
    for model in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        model(torch.randn(2, 8))
        with pytest.raises(ShapeError, match=r'Head.forward \(layer 0 of Sequential\)'): model(torch.randn(2, 9))
        model[0].linear = nn.Linear(8, 5)
        model[0].n_out = 5
        with pytest.raises(ShapeError, match=r'ShapeAssert \(layer 1 of Sequential\)'): model(torch.randn(2, 8))
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.load(file, weights_only=False)(torch.randn(2, 8)).shape == (2, 4)
    assert not any('_pass' in k for k in net.state_dict()) and repr(net[1]) == "ShapeAssert('b 4')"


def test_replicas_share_the_checker():
    replica = net._modules['0']._replicate_for_data_parallel() if hasattr(nn.Module, '_replicate_for_data_parallel') else copy.copy(net[0])
    replica.linear = net[0].linear
    assert replica(torch.randn(2, 8)).shape == (2, 4)
    with pytest.raises(ShapeError): replica(torch.randn(2, 9))


def run(code, **env):
    done = subprocess.run([sys.executable, '-c', code], env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_off_from_the_start():
    code = '''
from dlpractice.shapes import shaped, ShapeAssert, checking
import torch
def f(x): return x
print(checking(), shaped('b c')(f) is f, tuple(ShapeAssert('b c')(torch.zeros(3)).shape))'''
    assert run(code, DLPRACTICE_SHAPES='0') == 'False True (3,)'
    assert run(code.replace('torch.zeros(3)', 'torch.zeros(3, 3)'), DLPRACTICE_SHAPES='1') == 'True False (3, 3)'


def test_the_compiler_is_not_imported():
    code = "import sys, dlpractice.shapes, torch\ntry: dlpractice.shapes.check_shape(torch.zeros(2), 'b c')\nexcept ValueError: print('torch._dynamo' in sys.modules)"
    assert run(code) == 'False'


def test_off_and_on():
    bad = torch.randn(4, 3, 5), scale
    with shapes.off():
        with pytest.raises((IndexError, RuntimeError)): pool_scale(*bad)     # PyTorch's own
        with shapes.on():
            with pytest.raises(ShapeError): pool_scale(*bad)
        with pytest.raises(ShapeError): check_shape(bad[0], 'b c')            # asked for by name: always
    shapes.off()
    try: assert not shapes.checking()
    finally: shapes.on()
    with pytest.raises(ShapeError): pool_scale(*bad)
    try:
        with shapes.off(): raise KeyError
    except KeyError: assert shapes.checking()


# --- the wrapper is the function

def test_signature_survives():
    def f(a, /, b, *rest, c: int = 3, d=None, **more) -> torch.Tensor:
        "Doc."
        return a
    g = shaped('n, n, rest=n, d=n, more=n k -> n')(f)
    assert inspect.signature(g) == inspect.signature(f) and (g.__name__, g.__doc__, g.__module__) == (f.__name__, f.__doc__, f.__module__)
    assert inspect.get_annotations(g) == inspect.get_annotations(f) and g.__kwdefaults__ == f.__kwdefaults__ and g.__defaults__ == f.__defaults__
    v = torch.zeros(3)
    assert g(v, v, v, v, d=v, e=torch.zeros(3, 2)) is v
    for bad in (lambda: g(v, torch.zeros(2)), lambda: g(v, v, v, torch.zeros(2)), lambda: g(v, v, d=torch.zeros(2)), lambda: g(v, v, e=torch.zeros(2, 2))):
        with pytest.raises(ShapeError): bad()
    with pytest.raises(TypeError): g(v)


def test_methods_of_all_kinds():
    class A:
        width = 3
        @shaped('b {width}')
        def method(self, x): return x
        @staticmethod
        @shaped('b 3')
        def below(x): return x
        @shaped('b 3')
        @staticmethod
        def above(x): return x
        @shaped('b {width}')
        @classmethod
        def of_class(cls, x): return x
    good, bad = torch.zeros(2, 3), torch.zeros(2, 4)
    for f in (A().method, A.below, A.above, A.of_class, A().of_class):
        assert f(good) is good
        with pytest.raises(ShapeError, match='axis 1'): f(bad)


def test_what_cannot_be_decorated():
    async def a(x): return x
    def g(x): yield x
    for bad in (a, g, nn.Linear(2, 3), torch.add, Head):
        with pytest.raises(ArgumentError, match='a plain function or method'): shaped('b c')(bad)


def test_an_error_inside_comes_out_unchanged():
    @shaped('b -> b')
    def f(x): raise ValueError('mine')
    with pytest.raises(ValueError, match='^mine$') as e: f(torch.zeros(2))
    assert not isinstance(e.value, ShapeError) and e.value.__context__ is None


def test_the_traceback_is_short():
    with pytest.raises(ShapeError) as e: pool_scale(x, scale[:2])
    assert len(e.traceback) == 2 and e.value.__cause__ is None and e.value.__context__ is None


# --- names

def test_kept_sizes_belong_to_one_object():
    a, b = Gate(), Gate()
    a(torch.zeros(2, 3, 4))
    b(torch.zeros(2, 3, 5))
    a(torch.zeros(5, 6, 4), torch.zeros(5, 6))
    with pytest.raises(ShapeError, match=r'axis 2 \(d\) is 5; d was 4 in the first call'): a(torch.zeros(2, 3, 5))
    c = copy.deepcopy(a)
    with pytest.raises(ShapeError): c(torch.zeros(2, 3, 5))
    c.kept_sizes.clear()
    c(torch.zeros(2, 3, 5))
    assert (a.kept_sizes, c.kept_sizes) == ({'d': 4}, {'d': 5})
    with pytest.raises(ArgumentError): shaped('b c', keep='d')(Gate.forward.__wrapped__)
    with pytest.raises(ArgumentError): shaped('b c', keep='c')(lambda x: x)


def test_no_leak_over_threads_and_recursion():
    @shaped('n, n -> n')
    def down(a, b): return a if len(a) == 1 else torch.cat([down(a[1:], b[1:]), a[:1]])
    failed = []
    def work(n):
        for _ in range(200):
            if down(torch.zeros(n), torch.zeros(n)).shape != (n,): failed.append(n)
            try: down(torch.zeros(n), torch.zeros(n + 1)); failed.append(n)
            except ShapeError as e:
                if f'n is {n} in argument a' not in str(e): failed.append(str(e))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(2, 8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not failed


def test_numpy():
    assert check_shape(np.zeros((4, 3), dtype='>f4'), 'b c:f32') == {'b': 4, 'c': 3}      # big-endian: the careful half accepts it
    assert pool_scale.__wrapped__ and shaped('b c -> b 1')(lambda a: mean_keep(a, 1))(np.ones((4, 3))).shape == (4, 1)
    with pytest.raises(ShapeError, match=r'of f32, got \(4,\) of float64.*NumPy makes float64'): check_shape(np.zeros(4), 'b:f32')


# --- models

MODELS = ['resnet18', 'vgg11', 'densenet121', 'convnext_tiny', 'efficientnet_b0', 'mobilenet_v3_small', 'vit_b_16', 'swin_t', 'googlenet', 'squeezenet1_0']


@pytest.mark.parametrize('name', MODELS)
def test_real_models_are_traced_without_a_trace(name):
    import torchvision
    kwargs = dict(init_weights=False) if name == 'googlenet' else {}
    model = getattr(torchvision.models, name)(weights=None, **kwargs).eval()
    data = torch.randn(2, 3, 224, 224)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        want = model(data)
        trace = trace_shapes(model, data)
        assert trace.error is None and trace.rows[-1].depth >= 1 and trace.rows[0].outputs == '(2, 1000)'
        assert trace.parameters == sum(p.numel() for p in model.parameters())
        assert torch.equal(model(data), want)
        asserting(model)
        assert torch.equal(model(data), want)
        assert model(data[:1]).shape == (1, 1000)     # another batch size
        with pytest.raises((ShapeError, AssertionError), match='axis 2 is 192, not 224'): model(data[..., :192, :])
        remove_asserts(model)
        assert torch.equal(model(data), want)
    assert before.keys() == model.state_dict().keys() and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_with_kwargs or m._forward_pre_hooks_with_kwargs for m in model.modules())


def test_asserting_in_training_and_evaluation():
    import torchvision
    model = asserting(torchvision.models.googlenet(weights=None, init_weights=False))
    data = torch.randn(2, 3, 96, 96)
    model(data)                  # training: a named tuple with two helpers
    model.eval()(data)           # evaluation: one tensor
    model.train()(data[:2])
    model.fc = nn.Linear(1024, 7)
    remove = asserting(copy.deepcopy(model).eval(), data)
    assert remove(data[:1]).shape == (1, 7)


def test_asserting_finds_the_layer():
    model = asserting(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(2), nn.Linear(36, 5)), torch.randn(3, 3, 8, 8))
    assert model(torch.randn(7, 3, 8, 8)).shape == (7, 8, 5)
    model[0] = nn.Conv2d(3, 9, 3)                # has no hook of its own: the next layer tells
    with pytest.raises(ShapeError, match=r'1 \(ReLU\) of Sequential, its output: expected \(7, 8, 6, 6\).*axis 1 is 9, not 8'): model(torch.randn(7, 3, 8, 8))
    with shapes.off(): model(torch.randn(7, 3, 8, 8))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        with pytest.raises(ShapeError): other(torch.randn(7, 3, 8, 8))


def test_asserting_a_first_batch_that_fails_teaches_nothing():
    model = asserting(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    with pytest.raises(RuntimeError): model(torch.zeros(2, 5))
    model(torch.zeros(2, 4))
    with pytest.raises(ShapeError): model(torch.zeros(2, 6, 4))


def test_asserting_time_first_and_shared_layers():
    class Net(nn.Module):
        def __init__(self): super().__init__(); self.rnn, self.act, self.out = nn.GRU(4, 6), nn.ReLU(), nn.Linear(6, 3)
        def forward(self, x): return self.act(self.out(self.act(self.rnn(x)[0])))
    model = asserting(Net(), torch.zeros(10, 5, 4), batch_axis=1)
    assert model(torch.zeros(10, 2, 4)).shape == (10, 2, 3)
    with pytest.raises(ShapeError, match='axis 0 is 9, not 10'): model(torch.zeros(9, 2, 4))


def test_trace_of_lazy_and_of_failing_models():
    lazy = nn.Sequential(nn.LazyLinear(5), nn.Dropout(), nn.BatchNorm1d(5))
    state = torch.get_rng_state()
    assert trace_shapes(lazy, torch.zeros(4, 3)).rows[1].outputs == '(4, 5)'
    assert lazy[0].has_uninitialized_params() and torch.equal(torch.get_rng_state(), state)
    failing = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)), Head(5))
    data = torch.randn(2, 3)
    kept = data.clone()
    trace = trace_shapes(failing, data)
    assert isinstance(trace.error, ShapeError) and 'Head.forward (layer 1 of Sequential)' in trace.why and '0.1' in [r.path for r in trace.rows]
    assert torch.equal(data, kept) and 'failed' in repr(trace) and trace.table(1).count('\n') == 4


@pytest.mark.parametrize('layer, data, said', [
    (nn.Conv2d(3, 4, 3), torch.zeros(2, 5, 8, 8), 'axis 1 (in_channels) is 5'),
    (nn.BatchNorm1d(4), torch.zeros(2, 7, 4), 'Axes 1 and 2 look swapped'),
    (nn.LayerNorm((4, 5)), torch.zeros(2, 5, 4), 'look swapped'),
    (nn.GRU(4, 5), torch.zeros(3, 2, 6), 'axis 2 (input_size) is 6'),
    (nn.Embedding(10, 3), torch.zeros(2, 3), 'the dtype is float32'),
    (nn.MultiheadAttention(8, 2), torch.zeros(3, 2, 6), 'axis 2 (embed_dim) is 6'),
], ids=lambda o: type(o).__name__)
def test_layers_that_pytorch_brings_along(layer, data, said):
    args = (data, data, data) if isinstance(layer, nn.MultiheadAttention) else (data,)
    trace = trace_shapes(nn.ModuleList([layer])[0], *args)
    assert trace.error is not None and said in trace.why


# --- broadcasting

def test_guard_of_threads_and_after_errors():
    a, b = torch.zeros(3), torch.zeros(3, 1)
    with pytest.raises(ShapeError):
        with broadcast_guard(): a + b
    assert (a + b).shape == (3, 3)                    # gone after the error
    done = []
    with broadcast_guard():
        with allow():
            with broadcast_guard(): assert (a*b).shape == (3, 3)     # allowed is allowed
        t = threading.Thread(target=lambda: done.append((a - b).shape))
        t.start()
        t.join()
        with pytest.raises(ShapeError, match='test_shapes.py, line'): a.add_(1).sub(b)
    assert done == [(3, 3)]


def test_guard_sees_losses_inside_modules_and_backward_passes():
    net = nn.Linear(2, 1)
    with broadcast_guard():
        nn.MSELoss()(net(torch.zeros(4, 2)), torch.zeros(4, 1)).backward()
        for loss in (nn.MSELoss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.L1Loss(), nn.PoissonNLLLoss()):
            with pytest.raises(ShapeError, match=r'\(4, 1\) and \(4,\), which become \(4, 4\)'): loss(net(torch.zeros(4, 2)), torch.zeros(4))
        nn.Transformer(8, 2, 1, 1, 8)(torch.zeros(5, 2, 8), torch.zeros(6, 2, 8), tgt_mask=nn.Transformer.generate_square_subsequent_mask(6))
