"Sizes: pictures against Pillow and torch, costs against torch's counter, weights against torchvision, plans and batches that add up."
import math, warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dlpractice.data import Batches, Loaders
from dlpractice.errors import ArgumentError, DataError, ShapeError
from dlpractice.resizing import (HOWS, ConcatPoolHead, FillBatches, GlobalPoolHead, ProgressiveResize, SizePlan, SpatialPyramidHead, best_size_range, check_sizes,
    flops, layer_costs, linear_to_conv, nearest_size, port_weights, recalibrate_batchnorm, resize_batch, several_crops, size_multiple)
from dlpractice.snapshots import seeded
from dlpractice.training import Learner
from dlpractice.widgets_resizing import resize_explorer

few = settings(max_examples=15, deadline=None)
side = st.integers(1, 24)


def noise(*shape, dtype=torch.float32):
    with seeded(0): x = torch.rand(shape)
    return (x*255).to(torch.uint8) if dtype == torch.uint8 else x.to(dtype)


# ---- pictures

@few
@given(side, side, side, side)
def test_squash_is_torchs_antialiasing(h, w, H, W):
    x = noise(2, 3, h, w)
    assert torch.equal(resize_batch(x, (H, W)), x if (h, w) == (H, W) else F.interpolate(x, (H, W), mode='bilinear', antialias=True))


@few
@given(side, side, side)
def test_uint8_is_pillows_within_a_grey_level(h, w, s):
    x = noise(1, 3, h, w, dtype=torch.uint8)
    theirs = np.asarray(Image.fromarray(x[0].permute(1, 2, 0).numpy()).resize((s, s), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize_batch(x, s)[0].permute(1, 2, 0).numpy() - theirs).max() <= 1


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('how', HOWS)
def test_dtype_and_memory_format_stay(how, dtype):
    x = noise(2, 3, 20, 30, dtype=dtype).contiguous(memory_format=torch.channels_last)
    y = resize_batch(x, 12, how)
    assert y.dtype == dtype and y.shape == (2, 3, 12, 12) and y.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y.float(), resize_batch(x.contiguous(), 12, how).float(), atol=1 if dtype == torch.uint8 else 1e-2)


@few
@given(st.integers(2, 24), st.integers(2, 24), side, st.sampled_from([0., 0.3, 1.]))
def test_crop_is_a_cut_and_a_squash(h, w, s, at):
    x, m = noise(1, 1, h, w), min(h, w)
    top, left = round(at*(h - m)), round(at*(w - m))
    assert torch.equal(resize_batch(x, s, 'crop', at=(at, at)), resize_batch(x[..., top:top + m, left:left + m], s))


def test_padding():
    x = noise(1, 1, 10, 20)
    y = resize_batch(x, 20, 'pad', fill=0.5)
    assert torch.equal(y[..., 5:15, :], x) and (y[..., :5, :] == 0.5).all() and (y[..., 15:, :] == 0.5).all()
    edge = resize_batch(x, 20, 'pad', fill='edge')
    assert torch.equal(edge[..., 0, :], x[..., 0, :]) and torch.equal(edge[..., 19, :], x[..., 9, :])
    assert torch.equal(resize_batch(x, 20, 'pad', at=(0., 0.))[..., :10, :], x)


@few
@given(side, side, side, st.sampled_from(HOWS))
def test_a_mask_has_no_new_values(h, w, s, how):
    mask = torch.arange(h*w).view(1, h, w)*7 + 3
    out = resize_batch(mask, s, how, 'mask', fill=3)
    assert out.dtype == mask.dtype and out.shape == (1, s, s) and set(out.unique().tolist()) <= set(mask.unique().tolist())


def test_a_mask_is_torchs_nearest_exact():
    mask = noise(2, 1, 13, 17)
    for size in ((7, 9), (26, 34), (5, 17)): assert torch.equal(resize_batch(mask, size, kind='mask'), F.interpolate(mask, size, mode='nearest-exact'))


@pytest.mark.parametrize('how', HOWS)
@pytest.mark.parametrize('source', [(40, 60), (60, 40), (40, 40)])
def test_boxes_follow_what_they_frame(how, source):
    l, t, r, b = 18, 16, 30, 28
    x = torch.zeros(1, 1, *source)
    x[..., t:b, l:r] = 1
    y = resize_batch(x, 80, how)[0, 0] > 0.5
    rows, cols = y.any(1).nonzero().flatten(), y.any(0).nonzero().flatten()
    box = resize_batch(torch.tensor([[l, t, r, b]]), 80, how, 'boxes', source=source)[0]
    seen = torch.tensor([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1])
    assert box.is_floating_point() and (box - seen).abs().max() <= 1


def test_boxes_are_cut_with_their_picture():
    box = resize_batch(torch.tensor([[0., 0., 10., 10.]]), 20, 'crop', 'boxes', source=(20, 60))
    assert box.tolist() == [[0., 0., 0., 10.]]


def test_several_crops_see_all():
    x = torch.arange(30.).expand(1, 1, 10, 30)
    crops = several_crops(x, 10, 3)
    assert crops.shape == (1, 3, 1, 10, 10) and torch.equal(torch.cat(list(crops[0]), -1), x[0])
    assert torch.equal(several_crops(x, 10, 1)[:, 0], resize_batch(x, 10, 'crop'))


# ---- costs

def strided(head=None, classes=5):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1, groups=4), nn.ReLU(), *(head or [GlobalPoolHead(16, classes)]))


class Attention(nn.Module):
    "Patches, attention by hand and by module, a transposed convolution, einsum."
    def __init__(self):
        super().__init__()
        self.patches, self.mha = nn.Conv2d(3, 16, 4, 4), nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Linear(16, 3)

    def forward(self, x):
        maps = self.patches(x)
        t = maps.flatten(2).transpose(1, 2)
        t = self.mha(t, t, t, need_weights=False)[0]
        t = F.scaled_dot_product_attention(t, t, t)
        t = (t @ t.transpose(1, 2)) @ t
        t = torch.einsum('bld,de->ble', t, self.out.weight.T @ self.out.weight)
        return self.out(t).mean(1) + self.up(maps).mean()


def counted(model, size):
    with FlopCounterMode(display=False) as counter: model(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()


@pytest.mark.parametrize('make', [strided, Attention])
@pytest.mark.parametrize('size', [16, 32])
def test_flops_are_those_of_torchs_counter(make, size):
    model = make()
    assert flops(model, size) == counted(model, size) == sum(o.flops for o in layer_costs(model, size))


@pytest.mark.parametrize('name', ['resnet18', 'mobilenet_v3_small'])
def test_flops_of_torchvisions_nets(name):
    import torchvision
    model = getattr(torchvision.models, name)()
    assert flops(model, 64) == counted(model.eval(), 64) and size_multiple(model, 64) == 32


def test_flops_leave_no_trace():
    model = strided().train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ArgumentError): flops(model, 0)
    flops(model, 16)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training and not model[1].training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_sizes_that_do_not_fit_name_the_layer():
    bare = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.MaxPool2d(3), nn.Conv2d(2, 2, 3))
    with pytest.raises(ShapeError, match=r'layer 2 \(Conv2d\).*shrunk to nothing.*smallest size that works is (\d+)') as e: flops(bare, 12)
    least = int(str(e.value).split('works is ')[1].split('.')[0])
    check_sizes(bare, [least, least + 7])
    with pytest.raises(ShapeError): check_sizes(bare, [least - 1])
    with pytest.raises(ShapeError, match=r'layer 6 \(Linear\).*GlobalPoolHead.*port_weights'): check_sizes(strided([nn.Flatten(), nn.Linear(256, 2)]), [16, 32])


def test_a_vit_says_that_it_knows_one_size():
    import torchvision
    vit = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 16)
    assert size_multiple(vit) == 8 and flops(vit, 32) > 0
    with pytest.raises(ShapeError, match='port_weights'): flops(vit, 64)


@given(st.integers(1, 500), st.integers(1, 64))
def test_nearest_size(size, multiple):
    got = nearest_size(size, multiple)
    assert got % multiple == 0 and got >= multiple and (abs(got - size) <= multiple/2 or got == multiple)


# ---- heads and weights

@pytest.mark.parametrize('head', [GlobalPoolHead, ConcatPoolHead, SpatialPyramidHead])
def test_heads_take_any_size(head):
    h = head(6, 4)
    for size in ((1, 1), (3, 7), (10, 10)): assert h(torch.randn(2, 6, *size)).shape == (2, 4)
    with pytest.raises(ShapeError, match=head.__name__): h(torch.randn(2, 5, 3, 3))
    with pytest.raises(ShapeError, match=head.__name__): h(torch.randn(2, 6))


def test_heads_against_torchs_pools():
    with seeded(0): x, h, s = torch.randn(2, 6, 5, 7), ConcatPoolHead(6, 4), SpatialPyramidHead(6, 4, (1, 3))
    pools = lambda *o: torch.cat([f(k)(x).flatten(1) for f, k in o], 1)
    assert torch.allclose(h(x), h.linear(pools((nn.AdaptiveAvgPool2d, 1), (nn.AdaptiveMaxPool2d, 1))), atol=1e-6)
    assert torch.allclose(s(x), s.linear(pools((nn.AdaptiveMaxPool2d, 1), (nn.AdaptiveMaxPool2d, 3))), atol=1e-6)


def test_a_flattened_head_slides():
    with seeded(0): flat, x = nn.Linear(6*3*3, 4), torch.randn(2, 6, 5, 4)
    out = linear_to_conv(flat, 3)(x)
    assert out.shape == (2, 4, 3, 2)
    for i in range(3):
        for j in range(2): assert torch.allclose(out[:, :, i, j], flat(x[..., i:i + 3, j:j + 3].flatten(1)), atol=1e-5)


@pytest.mark.parametrize('small, large', [(32, 48), (48, 32)])
def test_positions_are_torchvisions(small, large):
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings
    make = lambda s: VisionTransformer(s, 8, 1, 2, 16, 32)
    with seeded(0): a, b = make(small), make(large)
    nn.init.normal_(a.encoder.pos_embedding)
    nn.init.normal_(a.heads.head.weight)
    report = port_weights(a, b)
    theirs = interpolate_embeddings(large, 8, {k: v.clone() for k, v in a.state_dict().items()})
    assert all(torch.allclose(v, theirs[k], atol=1e-6) for k, v in b.state_dict().items())
    assert [o.name for o in report.changed] == ['encoder.pos_embedding'] and f'{small//8} × {small//8} → {large//8} × {large//8}' in repr(report)


def test_a_ported_head_keeps_what_a_flat_map_gives():
    make = lambda n: nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(4*n*n, 3))
    with seeded(0): a, b = make(4), make(10)
    port_weights(a, b)
    x = torch.rand(5, 1, 1, 1)
    assert torch.allclose(a(x.expand(-1, 1, 4, 4)), b(x.expand(-1, 1, 10, 10)), atol=1e-5)


def test_porting_refuses_and_then_nothing_has_changed():
    a, b = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Linear(7, 3)), nn.Sequential(nn.Conv2d(1, 4, 1), nn.Linear(9, 3))
    before = {k: v.clone() for k, v in b.state_dict().items()}
    with pytest.raises(ArgumentError, match='1.weight'): port_weights(a, b)
    with pytest.raises(ArgumentError, match='only one of them'): port_weights(a, nn.Linear(2, 2))
    assert all(torch.equal(before[k], v) for k, v in b.state_dict().items())


# ---- plans

@few
@given(st.lists(st.tuples(st.floats(0.01, 0.98), st.integers(8, 64)), max_size=5, unique_by=lambda o: o[0]), st.integers(8, 64))
def test_the_cost_of_a_plan_is_its_mean(steps, first):
    plan = SizePlan([(0., first), *sorted(steps)])
    full = plan.steps[-1][1]
    mean = np.mean([(plan((k + 0.5)/4000)/full)**2 for k in range(4000)])
    assert plan.cost() == pytest.approx(mean, rel=0.02, abs=0.02*max(plan.sizes)**2/full**2)
    assert math.isclose(sum(q - p for p, q, _ in plan.parts()), 1)


def test_linear_rounded_and_shown():
    plan = SizePlan.linear(60, 100, until=0.5, step=20)
    assert plan.steps == [(0., 60), (0.25, 80), (0.5, 100)] and plan.rounded(32).sizes == [64, 96]
    assert '60 px from 0%' in repr(plan) and SizePlan([(0., (20, 30)), (0.5, (40, 60))]).cost() == pytest.approx(0.625)
    ax = plan.plot()
    assert f'{1 - plan.cost():.0%}' in ax.get_title()


@pytest.mark.parametrize('steps', [[], [(0.1, 32)], [(0., 32), (0., 64)], [(0., 32), (1., 64)], [(0., 0)], 'words', [(0., 32), (0.6, 48), (0.5, 64)]])
def test_bad_plans(steps):
    with pytest.raises(ArgumentError): SizePlan(steps)


# ---- training

class Watch:
    "Notes sizes, examples and rates at each step."
    def __init__(self): self.seen = []
    def after_loss(self, learner): self.seen.append((learner.batch[0].shape[-1], len(learner.batch[0]), learner.optimizer.param_groups[0]['lr']))


def learner(model=None, n=40, size=16, batch=5, **kw):
    with seeded(0): x, y = torch.randn(n, 3, size, size), torch.randint(5, (n,))
    data = Loaders(Batches(x, y, size=batch, generator=torch.Generator().manual_seed(0)), Batches(x, y, size=20, shuffle=False))
    return Learner(model or strided(), data, F.cross_entropy, lambda p: torch.optim.SGD(p, lr=0.1), **kw)


def test_sizes_follow_the_plan_and_validation_stays():
    watch, resize, sizes = Watch(), ProgressiveResize([(0., 8), (0.5, 12), (0.75, 16)]), []
    l = learner()
    l.model.register_forward_hook(lambda m, a, o: None if m.training else sizes.append(a[0].shape[-1]))
    l.fit(2, callbacks=[resize, watch], progress=False)
    assert [s for s, *_ in watch.seen] == [8]*8 + [12]*4 + [16]*4 and resize.log == [(0, 8), (8, 12), (12, 16)]
    assert sizes[-4:] == [16]*4


def test_the_callback_does_what_the_bare_loop_does():
    plan, models = SizePlan([(0., 8), (0.5, 16)]), []
    for way in ('callback', 'loop'):
        with seeded(3): l = learner()
        if way == 'callback': l.fit(2, callbacks=[ProgressiveResize(plan)], progress=False)
        else:
            for k, (x, y) in enumerate(b for _ in range(2) for b in l.data.train):
                loss = F.cross_entropy(l.model.train()(resize_batch(x, plan(k/16))), y)
                l.optimizer.zero_grad(); loss.backward(); l.optimizer.step()
        models.append(l.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(m.values() for m in models)))


@pytest.mark.parametrize('rate, factor', [('keep', 1), ('linear', 4), ('sqrt', 2)])
def test_filled_batches(rate, factor):
    watch, l = Watch(), learner()
    train = l.data.train
    l.fit(2, schedule=lambda p: 1 - p, callbacks=[ProgressiveResize([(0., 8), (0.5, 16)], batch='fill', rate=rate), watch], progress=False)
    assert [(s, n) for s, n, _ in watch.seen] == [(8, 20)]*2 + [(16, 5)]*8
    assert [lr for *_, lr in watch.seen] == pytest.approx([0.1*(1 - k/9)*(factor if k < 2 else 1) for k in range(10)])
    assert l.data.train is train and l.optimizer.param_groups[0]['lr'] == pytest.approx(0.1)


def test_rates_and_loader_are_back_after_an_error():
    class Stop:
        def after_loss(self, learner): raise RuntimeError
    l = learner()
    train = l.data.train
    with pytest.raises(RuntimeError): l.fit(1, callbacks=[ProgressiveResize([(0., 8), (0.5, 16)], batch='fill', rate='linear'), Stop()], progress=False)
    assert l.data.train is train and l.optimizer.param_groups[0]['lr'] == pytest.approx(0.1)


@few
@given(st.integers(1, 30), st.integers(1, 4), st.sampled_from([[(0., 8), (0.3, 11), (0.8, 16)], [(0., 4), (0.5, 16)], [(0., 16)]]))
def test_filled_batches_lose_nothing(n, epochs, steps):
    plan = SizePlan(steps)
    fill, done = FillBatches(Batches(torch.arange(3*n), size=3, shuffle=False), plan, epochs), 0
    for e in range(epochs):
        count = len(fill)
        parts = [b for b, in fill]
        assert torch.equal(torch.cat(parts), torch.arange(3*n)) and len(parts) == count
        for size, k in fill.groups(e):
            assert k*size**2 <= 16**2 and plan(done/(n*epochs)) == size == plan((done + k - 1)/(n*epochs))
            done += k


def test_loaders_that_decode_at_a_size():
    class Loader:
        size = 16
        def __len__(self): return 4
        def __iter__(self): return iter([(torch.randn(5, 3, self.size, self.size), torch.zeros(5).long()) for _ in range(4)])
    loader, watch, asked = Loader(), Watch(), []
    def decode(size):
        asked.append(size)
        loader.size = size
    l = Learner(strided(), (loader, None), F.cross_entropy)
    l.fit(4, callbacks=[ProgressiveResize([(0., 8), (0.4, 12), (0.6, 16)], decode=decode), watch], progress=False)
    assert asked == [8, 12, 16] and [s for s, *_ in watch.seen] == [8]*8 + [12]*4 + [16]*4


def test_targets_go_along():
    seen = []
    def loss(pred, target):
        seen.append((tuple(pred.shape[-2:]), tuple(target.shape[-2:]), target.dtype))
        return F.cross_entropy(pred, target)
    x, y = torch.randn(8, 3, 16, 16), torch.randint(4, (8, 16, 16))
    l = Learner(nn.Conv2d(3, 4, 3, padding=1), (Batches(x, y, size=4), None), loss)
    l.fit(1, callbacks=[ProgressiveResize([(0., 8), (0.5, 16)], target='mask')], progress=False)
    assert seen == [((8, 8), (8, 8), torch.int64), ((16, 16), (16, 16), torch.int64)]


def test_sizes_are_rounded_to_what_the_model_needs():
    watch = Watch()
    learner().fit(1, callbacks=[ProgressiveResize([(0., 9), (0.5, 16)]), watch], progress=False)
    assert [s for s, *_ in watch.seen] == [8]*4 + [16]*4


def test_a_plan_that_ends_early_is_warned_of():
    with pytest.warns(UserWarning, match='ends at 12 px.*1.3 times larger'): learner().fit(1, callbacks=[ProgressiveResize([(0., 8), (0.5, 12)])], progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learner().fit(1, callbacks=[ProgressiveResize([(0., 8), (0.5, 16)])], progress=False)


def test_a_model_for_one_size_is_refused_before_it_is_trained():
    l = learner(strided([nn.Flatten(), nn.Linear(256, 5)]))
    before = {k: v.clone() for k, v in l.model.state_dict().items()}
    with pytest.raises(ShapeError, match='layer 6.*GlobalPoolHead'): l.fit(1, callbacks=[ProgressiveResize([(0., 8), (0.5, 16)])], progress=False)
    assert all(torch.equal(before[k], v) for k, v in l.model.state_dict().items())


def test_few_sizes_are_few_compilations():
    from torch._dynamo.testing import CompileCounter
    torch._dynamo.reset()
    counter, model = CompileCounter(), strided().to(memory_format=torch.channels_last)
    compiled = torch.compile(model, backend=counter)
    assert flops(compiled, 16) == flops(model, 16)
    learner(compiled).fit(2, callbacks=[ProgressiveResize([(0., 8), (0.5, 16)])], progress=False)
    assert 1 <= counter.frame_count <= 4 # at most one for each size, in training and in evaluation


@pytest.mark.parametrize('kw', [dict(how='stretch'), dict(batch='more'), dict(rate='cubic'), dict(target='words'), dict(batch='fill', decode=print)])
def test_callback_refuses(kw):
    with pytest.raises(ArgumentError): ProgressiveResize([(0., 8)], **kw)


@pytest.mark.parametrize('call', [lambda x: resize_batch(x, 8, 'stretch'), lambda x: resize_batch(x, 0), lambda x: resize_batch(x, 8, kind='words'), lambda x: resize_batch(x, 8, at=(2, 0)),
    lambda x: resize_batch(x[0], 8), lambda x: resize_batch(x.long(), 8), lambda x: resize_batch(x, 8, kind='boxes', source=(9, 9)), lambda x: resize_batch(torch.zeros(1, 4), 8, kind='boxes'), lambda x: resize_batch(x, 8, mode='cubic')])
def test_resize_batch_refuses(call):
    with pytest.raises((ArgumentError, ShapeError), match='resize_batch'): call(torch.zeros(1, 1, 9, 9))


# ---- afterwards

def test_batchnorm_measured_anew_is_torchs():
    from copy import deepcopy
    from torch.optim.swa_utils import update_bn
    with seeded(0): model, x = strided(), torch.randn(30, 3, 12, 12)*2 + 1
    loader, theirs = Batches(x, size=10, shuffle=False), deepcopy(model)
    update_bn(loader, theirs)
    model.eval()
    assert recalibrate_batchnorm(model, loader) is model and not model[1].training and model[1].momentum == 0.1
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(model.state_dict().values(), theirs.state_dict().values()))
    recalibrate_batchnorm(model, loader, 8, batches=1)
    assert torch.allclose(model[1].running_mean, model[0](resize_batch(x[:10], 8)).mean((0, 2, 3)), atol=1e-5)
    with pytest.raises(DataError): recalibrate_batchnorm(model, [])


def test_size_range():
    class Wide(nn.Module):
        "Right where the picture is 12 wide, half right at 16."
        def forward(self, x): return torch.eye(2)[torch.tensor([0, 0, 1, 1]) if x.shape[-1] == 12 else torch.tensor([0, 1, 1, 0]) if x.shape[-1] == 16 else torch.tensor([1, 1, 0, 0])]
    r = best_size_range(Wide().train(), [(torch.zeros(4, 1, 16, 16), torch.tensor([0, 0, 1, 1]))], [8, 12, 16], within=0.5)
    assert r.scores == [0., 1., 0.5] and r.best == 12 and r.good == [12, 16] and 'best at 12 px' in repr(r)
    assert best_size_range(Wide(), [(torch.zeros(4, 1, 16, 16), torch.tensor([0, 0, 1, 1]))], [8, 12], detail=True).scores == [0.5, 0.5]
    with pytest.raises(DataError): best_size_range(Wide(), [], [8])


def test_explorer_says_what_a_plan_costs():
    o = resize_explorer(noise(4, 1, 24, 24), [(0., 12), (0.5, 24)], firsts=[6, 12, 24], times=(0., 1.))
    assert '6 px, 6% of the cost' in o.html(0, 0) and f'saves {1 - (0.5*(6/24)**2 + 0.5):.0%}' in o.html(0, 0) and 'saves 0%' in o.html(2, 0) and '24 px, 100%' in o.html(1, 1)
    for bad in (dict(firsts=[30]), dict(times=(0., 2.)), dict(firsts=[])):
        with pytest.raises(ArgumentError): resize_explorer(noise(4, 1, 24, 24), [(0., 12), (0.5, 24)], **bad)
