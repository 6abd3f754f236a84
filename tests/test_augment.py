"Augmentation beside torchvision v2: the same numbers give the same pictures, and the numbers have the same distributions."
import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from dlpractice.affine_maps import flips, follow_boxes, follow_masks, resample, turns
from dlpractice.augment import AVERAGES, AugmentBatches, Augment, tta
from dlpractice.augmentations import Affine, Change, ColourJitter, CutMix, Cutout, Flip, Mixup, Noise, ResizedCrop, Rotate
from dlpractice.crops import _by_matrices, crop_resize, draw_crops, draw_holes
from dlpractice.data import Batches
from dlpractice.errors import ArgumentError, DataError, ShapeError
from dlpractice.mixing import PairLoss, draw_shares
from dlpractice.snapshots import seeded
from dlpractice.training import Learner

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
sides = st.integers(5, 24)
BILINEAR, NEAREST = V.InterpolationMode.BILINEAR, V.InterpolationMode.NEAREST
ALL = [Flip(0.5, 0.5), ResizedCrop(), ResizedCrop(9), Affine(20, (0.1, 0.2), (0.8, 1.2), (-10, 10, -5, 5)), Rotate(30), ColourJitter(0.4, 0.4, 0.4, 0.1), Noise((0., 0.2)), Cutout(), Mixup(), CutMix()]


def generator(seed=0): return torch.Generator().manual_seed(seed)


def pictures(n=6, c=3, h=20, w=28, seed=0, dtype=torch.uint8, last=False):
    x = torch.randint(256, (n, c, h, w), generator=generator(seed), dtype=torch.uint8)
    x = x if dtype == torch.uint8 else x.float()/255
    return x.contiguous(memory_format=torch.channels_last) if last else x


# ---- the same numbers, the same pictures

@few
@given(seeds, sides, sides, st.sampled_from([1, 2, 3, 4]), sides, sides, st.booleans())
def test_crops_of_bytes_are_torchvisions_to_the_bit(seed, h, w, c, oh, ow, last):
    x, boxes = pictures(4, c, h, w, seed, last=last), draw_crops(4, (h, w), generator=generator(seed))
    right = torch.stack([V.resized_crop(p, t, l, b - t, r - l, [oh, ow], antialias=True) for p, (l, t, r, b) in zip(x, boxes.tolist())])
    assert torch.equal(crop_resize(x, boxes, (oh, ow)), right)
    assert (_by_matrices(x, boxes, (oh, ow)).int() - right.int()).abs().max() <= 1 # the way of other devices


@few
@given(seeds, sides, sides, sides)
def test_crops_of_floats(seed, h, w, out):
    x, boxes = pictures(4, 3, h, w, seed, torch.float32), draw_crops(4, (h, w), generator=generator(seed))
    right = torch.stack([V.resized_crop(p, t, l, b - t, r - l, [out, out], antialias=True) for p, (l, t, r, b) in zip(x, boxes.tolist())])
    assert torch.allclose(crop_resize(x, boxes, (out, out)), right, atol=1e-5)
    assert torch.allclose(_by_matrices(x, boxes, (out, out)), right, atol=1e-3)


def test_crops_of_a_view_keep_its_offset():
    x = pictures(8)[3:6, :, 2:, 1:]
    boxes = draw_crops(3, (18, 27))
    assert torch.equal(crop_resize(x, boxes, (8, 8)), crop_resize(x.clone(), boxes, (8, 8)))


@few
@given(seeds, sides, sides)
def test_affine_maps_of_floats(seed, h, w):
    change, x = Affine(40, (0.2, 0.3), (0.8, 1.3), (-15, 15, -10, 10)), pictures(4, 2, h, w, seed, torch.float32)
    d = change.draw(4, (h, w), generator(seed))
    right = torch.stack([V.affine(p, a, t, s, k, interpolation=BILINEAR) for p, a, t, s, k in zip(x, *(o.tolist() for o in d))])
    assert (change.apply(x, d) - right).abs().max() < 1e-3


def test_affine_maps_of_bytes():
    change, x = Affine(40, (0.2, 0.3), (0.8, 1.3), 15), pictures(16)
    d = change.draw(16, (20, 28), generator())
    right = torch.stack([V.affine(p, a, t, s, k, interpolation=BILINEAR) for p, a, t, s, k in zip(x, *(o.tolist() for o in d))])
    assert change.apply(x, d).dtype == torch.uint8 and (change.apply(x, d).int() - right.int()).abs().max() <= 1


@pytest.mark.parametrize('kind', range(4), ids=['brightness', 'contrast', 'saturation', 'hue'])
@pytest.mark.parametrize('channels', [1, 3])
def test_colours(kind, channels):
    change, theirs = ColourJitter(*[0.5*(i == kind) for i in range(4)]), (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)[kind]
    for dtype, off in ((torch.float32, 1e-3), (torch.uint8, 1)):
        x = pictures(12, channels, dtype=dtype)
        d = change.draw(12, (20, 28), generator())
        right = torch.stack([theirs(p, f) for p, f in zip(x, d.factors[:, kind].tolist())])
        ours = change.apply(x, d)
        assert ours.dtype == dtype and (ours.double() - right.double()).abs().max() <= off


def test_colours_in_any_order():
    x, change = pictures(24, dtype=torch.float32), ColourJitter(0.4, 0.4, 0.4, 0.1)
    d, steps = change.draw(24, (20, 28), generator()), (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)
    assert len({tuple(o) for o in d.order.tolist()}) > 10
    for p, f, order, ours in zip(x, d.factors.tolist(), d.order.tolist(), change.apply(x, d)):
        for k in order: p = steps[k](p, f[k])
        assert (ours - p).abs().max() < 1e-3


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_holes(dtype):
    x, change = pictures(12, dtype=dtype), Cutout(0.7)
    d = change.draw(12, (20, 28), generator())
    right = torch.stack([V.erase(p, t, l, b - t, r - l, torch.zeros(3, b - t, r - l, dtype=dtype)) for p, (l, t, r, b) in zip(x, d.boxes.tolist())])
    assert torch.equal(change.apply(x, d), right)


def test_mixup_and_cutmix():
    x, y, roll = pictures(6, dtype=torch.float32), torch.tensor([0, 1, 2, 1, 0, 2]), torch.arange(6).roll(1)
    given = dict(labels=y, batch_size=6)
    d = Mixup(3).draw(6, (20, 28))._replace(share=torch.full((6,), 0.3), partner=roll)
    theirs = v2.MixUp(num_classes=3)
    assert torch.allclose(Mixup(3).apply(x, d), theirs.transform(x, dict(lam=0.3, **given)), atol=1e-6)
    assert torch.allclose(Mixup(3).labels(y, d, (20, 28)), theirs.transform(y, dict(lam=0.3, **given)), atol=1e-6)
    d = CutMix(3).draw(6, (20, 28))._replace(boxes=torch.tensor([[3, 2, 20, 11]]).repeat(6, 1), partner=roll)
    share, theirs = 1 - 17*9/(20*28), v2.CutMix(num_classes=3)
    assert torch.equal(CutMix(3).apply(x, d), theirs.transform(x, dict(box=(3, 2, 20, 11), lam_adjusted=share, **given)))
    assert torch.allclose(CutMix(3).labels(y, d, (20, 28)), theirs.transform(y, dict(box=(3, 2, 20, 11), lam_adjusted=share, **given)), atol=1e-6)


@pytest.mark.parametrize('last, dtype', [*product([False, True], [torch.uint8, torch.float32])], ids=str)
def test_flips_around_a_crop_and_normalised(last, dtype):
    x, mean, std = pictures(16, dtype=dtype, last=last), [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
    augment = Augment(Flip(0.5, 0.5), ResizedCrop((12, 10)), Flip(0.5, 0.3), normalise=(mean, std))
    d = augment.draw(16, (20, 28), generator())
    right = []
    for i, p in enumerate(x):
        if d[0].across[i]: p = V.horizontal_flip(p)
        if d[0].down[i]: p = V.vertical_flip(p)
        l, t, r, b = d[1].boxes[i].tolist()
        p = V.resized_crop(p, t, l, b - t, r - l, [12, 10], antialias=True)
        if d[2].across[i]: p = V.horizontal_flip(p)
        if d[2].down[i]: p = V.vertical_flip(p)
        right.append(V.normalize(V.to_dtype(p, torch.float32, scale=True), mean, std))
    assert torch.allclose(augment.apply(x, d), torch.stack(right), atol=1e-5)


# ---- the same distributions

def far(ours, theirs):
    "How far two samples lie apart: the statistic of Kolmogorov and Smirnov, over what chance allows once in a million times."
    a, b = (torch.as_tensor(o, dtype=torch.float64).sort().values for o in (ours, theirs))
    both = torch.cat([a, b])
    d = (torch.searchsorted(a, both, right=True)/len(a) - torch.searchsorted(b, both, right=True)/len(b)).abs().max().item()
    return d/(math.sqrt(-0.5*math.log(0.5e-6))*math.sqrt(1/len(a) + 1/len(b)))


def theirs_of(transform, keys, n=3000, size=(40, 50)):
    x = [torch.empty(3, *size)]
    with seeded(1): made = [transform.make_params(x) for _ in range(n)]
    return [[float(o[k]) for o in made] for k in keys]


def test_the_statistic_sees_a_difference():
    a, b, c = (torch.rand(3000, generator=generator(s)) for s in (0, 1, 2))
    assert far(a, b) < 1 < far(a, c**1.2)


@pytest.mark.parametrize('kw', [{}, dict(scale=(0.5, 0.9), ratio=(0.5, 1.)), dict(scale=(0.9, 1.), ratio=(2., 3.))], ids=str)
def test_crops_are_drawn_as_torchvisions(kw):
    boxes = draw_crops(6000, (40, 50), generator=generator(), **kw)
    l, t, r, b = boxes.unbind(1)
    for ours, theirs in zip((l, t, r - l, b - t), theirs_of(v2.RandomResizedCrop(8, **kw), ('left', 'top', 'width', 'height'))): assert far(ours, theirs) < 1


def test_wrong_crops_are_seen():
    boxes = draw_crops(6000, (40, 50), ratio=(0.9, 1.1), generator=generator())
    assert far(boxes[:, 2] - boxes[:, 0], theirs_of(v2.RandomResizedCrop(8), ('width',))[0]) > 1


def test_holes_are_drawn_as_torchvisions():
    l, t, r, b = draw_holes(6000, (40, 50), 1., generator=generator()).unbind(1)
    for ours, theirs in zip((l, t, r - l, b - t), theirs_of(v2.RandomErasing(1.), ('j', 'i', 'w', 'h'))): assert far(ours, theirs) < 1


def test_turns_are_drawn_as_torchvisions():
    ours = Affine((-10, 30), (0.1, 0.2), (0.7, 1.2), (-5, 10, 0, 20)).draw(6000, (40, 50), generator())
    theirs = v2.RandomAffine((-10, 30), (0.1, 0.2), (0.7, 1.2), (-5, 10, 0, 20))
    with seeded(1): made = [theirs.make_params([torch.empty(3, 40, 50)]) for _ in range(3000)]
    columns = [(ours.angle, [o['angle'] for o in made]), (ours.scale, [o['scale'] for o in made])]
    columns += [(getattr(ours, a)[:, i], [o[b][i] for o in made]) for a, b in (('shift', 'translate'), ('shear', 'shear')) for i in (0, 1)]
    for a, b in columns: assert far(a, b) < 1


def test_colours_are_drawn_as_torchvisions():
    ours, theirs = ColourJitter(0.4, 1.5, 0.3, 0.2).draw(6000, (4, 4), generator()), v2.ColorJitter(0.4, 1.5, 0.3, 0.2)
    with seeded(1): made = [theirs.make_params([]) for _ in range(3000)]
    for i, k in enumerate(('brightness_factor', 'contrast_factor', 'saturation_factor', 'hue_factor')): assert far(ours.factors[:, i], [float(o[k]) for o in made]) < 1
    assert far(ours.order[:, 0], [int(o['fn_idx'][0]) for o in made]) < 1


def test_mixing_is_drawn_as_torchvisions():
    share, partner = draw_shares(6000, 0.4, generator=generator())
    with seeded(1): theirs = [v2.MixUp(alpha=0.4, num_classes=2).make_params([])['lam'] for _ in range(2000)]
    assert far(share, theirs) < 1 and sorted(partner.tolist()) == list(range(6000))
    cut = v2.CutMix(num_classes=2)
    with seeded(1): made = [cut.make_params([torch.empty(2, 3, 40, 50)])['box'] for _ in range(2000)]
    for i, ours in enumerate(CutMix().draw(6000, (40, 50), generator()).boxes.unbind(1)): assert far(ours, [o[i] for o in made]) < 1


# ---- drawing and applying

@pytest.mark.parametrize('change', ALL, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_apply_is_pure_and_keeps_the_dtype(change, dtype):
    x = pictures(dtype=dtype)
    before, d = x.clone(), change.draw(6, (20, 28), generator())
    again = change.draw(6, (20, 28), generator())
    a, b = change.apply(x, d), change.apply(x, again)
    assert a.dtype == dtype and torch.equal(a, b) and torch.equal(x, before)
    assert all(len(o) == 6 for o in d if o.ndim) and all(o.device.type == 'cpu' for o in d)
    with seeded(0): first = torch.rand(1)
    with seeded(0):
        change.apply(x, d)
        assert torch.equal(torch.rand(1), first) # nothing was drawn


@pytest.mark.parametrize('change', ALL, ids=lambda o: type(o).__name__)
def test_a_generator_alone_decides(change):
    x = pictures()
    with seeded(0):
        first = torch.rand(1)
    with seeded(0):
        a = change(x, generator=generator(5))
        assert torch.equal(torch.rand(1), first)
    assert torch.equal(a, change(x, generator=generator(5)))


@pytest.mark.parametrize('change', [o for o in ALL if getattr(o, 'size', None) is None], ids=lambda o: type(o).__name__)
def test_without_strength_nothing_changes(change):
    x = pictures(h=20, w=20)
    try:
        change.strength = 0.
        assert torch.equal(change(x), x)
    finally: change.strength = 1.


def test_strength_scales_what_is_drawn():
    augment = Augment(Rotate(40), Noise((0.2, 0.2)), Cutout(1.))
    full = augment.draw(500, (20, 20), generator())
    augment.strength = 0.25
    quarter = augment.draw(500, (20, 20), generator())
    assert torch.allclose(quarter[0].angle, full[0].angle/4) and torch.allclose(quarter[1].sigma, full[1].sigma/4)
    assert (full[2].boxes[:, 2] > 0).float().mean() > 0.9 and 0.15 < (quarter[2].boxes[:, 2] > 0).float().mean() < 0.35


def test_each_picture_has_its_own_numbers():
    for change in ALL:
        columns = [o for o in change.draw(64, (20, 28), generator()) if o.ndim]
        assert any(len(o.unique(dim=0)) > 1 for o in columns)


# ---- one resampling, and what follows

def test_a_run_is_one_resampling():
    x, augment = pictures(dtype=torch.float32), Augment(Rotate(30), Flip(), Affine(shear=20), ResizedCrop(16))
    d = augment.draw(6, (20, 28), generator())
    maps = augment.changes[0].maps(d[0], (20, 28))
    for c, o in zip(augment.changes[1:], d[1:]): maps = c.maps(o, (20, 28)) @ maps
    assert torch.equal(augment.apply(x, d), resample(x, maps, (16, 16)))


@few
@given(seeds, st.booleans())
def test_masks_and_boxes_follow(seed, turned):
    n, h, w = 5, 30, 40
    augment = Augment(Flip(0.5, 0.5), *([Rotate(25)] if turned else []), ResizedCrop((24, 32), scale=(0.5, 1.)), targets=('mask', 'boxes', 'image', 'label', None))
    boxes = torch.tensor([[10., 8., 30., 24.]]).repeat(n, 1)
    x = torch.zeros(n, 1, h, w)
    x[:, :, 8:24, 10:30] = 1
    picture, mask, after, image, label, other = augment(x, x[:, 0].long(), boxes, x, torch.arange(n), 'kept', generator=generator(seed))
    assert mask.dtype == torch.long and set(mask.unique().tolist()) <= {0, 1} and torch.equal(picture, image) and torch.equal(label, torch.arange(n)) and other == 'kept'
    assert ((picture[:, 0] > 0.5).long() - mask).abs().float().mean() < 0.06 # but for the edges
    for m, (l, t, r, b) in zip(mask, after.tolist()):
        ink = m.nonzero()
        if len(ink): assert l - 1 <= ink[:, 1].min() and ink[:, 1].max() < r + 1 and t - 1 <= ink[:, 0].min() and ink[:, 0].max() < b + 1
        if len(ink) and not turned: assert abs(ink[:, 1].min() - l) <= 1.1 and abs(ink[:, 0].max() + 1 - b) <= 1.1


def test_boxes_as_torchvision_turns_them():
    boxes = torch.tensor([[4., 5., 14., 12.]])
    maps = turns(torch.tensor([20.]), torch.tensor([[2., -1.]]), torch.tensor([1.1]), torch.tensor([[5., 0.]]), (20, 28))
    from torchvision.tv_tensors import BoundingBoxes
    right = V.affine(BoundingBoxes(boxes, format='XYXY', canvas_size=(20, 28)), 20., [2, -1], 1.1, [5., 0.])
    assert torch.allclose(follow_boxes(boxes, maps, (20, 28)), right.as_subclass(torch.Tensor), atol=0.51) # theirs are shifted by half a pixel about the centre
    mask = (torch.rand(1, 20, 28, generator=generator()) > 0.5).long()
    assert torch.equal(follow_masks(mask, flips(torch.tensor([True]), torch.tensor([True]), (20, 28))), mask.flip(-1, -2))


def test_cutmix_pastes_masks_and_mixup_refuses():
    x = pictures()
    masks = x[:, 0].long()
    picture, mask = Augment(CutMix(), targets='mask')(x, masks)
    assert torch.equal(picture[:, 0].long(), mask)
    with pytest.raises(ArgumentError, match='can be mixed'): Augment(Mixup(), targets='mask')(x, masks)
    with pytest.raises(ArgumentError, match='mixed already'): Augment(Mixup(), CutMix())(x, torch.arange(6))
    assert torch.allclose(Augment(Mixup(6), CutMix(6))(x, torch.arange(6))[1].sum(1), torch.ones(6), atol=1e-5)


# ---- in a loader, a loop, a learner

def net(size=5): return nn.Sequential(nn.Flatten(), nn.Linear(3*20*28, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, size))


def test_as_a_batch_transform():
    x, y = pictures(10), torch.arange(10) % 5
    batches = Batches(x, y, size=5, transform=Augment(Flip(), ResizedCrop(8), Mixup(5), normalise=(0.5, 0.2)))
    for a, b in batches: assert a.shape == (5, 3, 8, 8) and a.dtype == torch.float32 and b.shape == (5, 5)


@pytest.mark.parametrize('classes, loss', [(5, F.cross_entropy), (None, PairLoss(lambda p, t: F.cross_entropy(p, t, reduction='none')))], ids=['soft labels', 'triples'])
def test_in_a_learner(classes, loss):
    x, y = pictures(20, dtype=torch.float32), torch.arange(20) % 5
    augment = Augment(Rotate(10), Mixup(classes, 1.))
    learner = Learner(net(), (Batches(x, y, size=5), Batches(x, y, size=10)), loss, callbacks=[AugmentBatches(augment, strength=lambda p: p)])
    with seeded(0): history = learner.fit(2, progress=False)
    assert len(history.losses) == 8 and all(map(math.isfinite, history.losses)) and augment.strength == 1.


def test_the_strength_needs_a_length():
    x, y = pictures(10, dtype=torch.float32), torch.arange(10) % 5
    class Endless:
        def __iter__(self): return iter([(x, y)])
    learner = Learner(net(), (Endless(), None), F.cross_entropy, callbacks=[AugmentBatches(Augment(Flip()), strength=lambda p: p)])
    with pytest.raises(ArgumentError, match='with a length'): learner.fit(1, progress=False)


# ---- test-time augmentation

def test_tta_averages_what_it_says():
    model, x, change = net(), pictures(7, dtype=torch.float32), Rotate(20)
    found = {a: tta(model, x, 3, change, average=a, generator=generator(2)) for a in AVERAGES}
    draws, views, g = model.eval(), [model(x)], generator(2)
    for _ in range(3): views.append(model(change(x, generator=g)))
    assert torch.allclose(found['logits'], torch.stack(views).mean(0), atol=1e-5)
    assert torch.allclose(found['probabilities'], torch.stack([v.softmax(1) for v in views]).mean(0), atol=1e-5)


def test_tta_leaves_no_trace():
    model, x = net(), pictures(7, dtype=torch.float32)
    model[2].eval() # frozen
    before = {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]
    with seeded(0): first = torch.rand(1)
    with seeded(0):
        a = tta(model, x, 2)
        assert torch.equal(torch.rand(1), first)
    class Broken(Change):
        def draw(self, n, size, generator=None): raise RuntimeError
    with pytest.raises(RuntimeError): tta(model, x, 2, Broken())
    assert [m.training for m in model.modules()] == before[1] and all(torch.equal(v, model.state_dict()[k]) for k, v in before[0].items())
    assert not a.requires_grad and all(p.grad is None for p in model.parameters()) and torch.equal(a, tta(model, x, 2))


def test_tta_of_bytes_that_are_normalised_and_resized():
    x, augment = pictures(7, h=30, w=30), Augment(ResizedCrop((20, 28)), normalise=(0.5, 0.2))
    plain = tta(net(), x, 0, augment)
    assert plain.shape == (7, 5) and torch.allclose(plain.sum(1), torch.ones(7), atol=1e-5)


REFUSED = [
    (lambda: Augment(Flip), ArgumentError, 'Pass an instance'), (lambda: Augment(lambda x: x), ArgumentError, 'augmentations such as'), (lambda: Augment(targets='box'), ArgumentError, "'boxes'"),
    (lambda: Augment(Flip())(pictures(), 1, 2), ArgumentError, '1 targets'), (lambda: Augment(padding='same'), ArgumentError, 'outside of a picture'), (lambda: setattr(Augment(Flip()), 'strength', 2.), ArgumentError, r'in \[0, 1\]'),
    (lambda: Flip(-0.1), ArgumentError, 'a share'), (lambda: ResizedCrop(scale=(0.5, 1.5)), ArgumentError, 'share of the area'), (lambda: ResizedCrop(ratio=(2, 1)), ArgumentError, 'width over height'),
    (lambda: Rotate((5, -5)), ArgumentError, 'degrees'), (lambda: ColourJitter(hue=0.6), ArgumentError, 'hue at most'), (lambda: ColourJitter(0.5)(pictures(dtype=torch.float32)*4 - 2), DataError, 'before you normalise'),
    (lambda: ColourJitter(0.5, 0.5)(pictures(c=2)), ShapeError, 'one or three channels'), (lambda: Mixup(alpha=0.).draw(3, (4, 4)), ArgumentError, 'above 0'), (lambda: Augment(Mixup(3))(pictures(), torch.arange(6)), DataError, 'labels from 0 to 2'),
    (lambda: crop_resize(pictures(), torch.zeros(2, 4), (4, 4)), ShapeError, 'boxes'), (lambda: tta(net(), pictures(), average='votes'), ArgumentError, 'argument average'), (lambda: tta(net(), pictures(), -1), ArgumentError, 'argument n'),
    (lambda: tta(net(), pictures(), augment=Augment(Mixup(5))), ArgumentError, 'views of one picture'), (lambda: PairLoss(F.mse_loss)(torch.zeros(3, 2), torch.zeros(3, 2)), ShapeError, "reduction='none'")]


@pytest.mark.parametrize('call, error, match', REFUSED, ids=range(len(REFUSED)))
def test_wrong_calls(call, error, match):
    with pytest.raises(error, match=match): call()
