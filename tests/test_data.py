"The glyph world, batches, splits, statistics, and pictures from folders."
import hashlib, os, pickle, random, subprocess, sys, time, warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from dlpractice import data as D
from dlpractice.data import Batches, Images, channel_stats, digits, glyph_loaders, glyphs, has_real, image_folder, image_loaders, real
from dlpractice.errors import ArgumentError, DataError, ShapeError
from dlpractice.glyph_fonts import FAMILIES, HELD_OUT, SCRIPTS, characters, covers, font_names, fonts_found
from dlpractice.splits import check_leak, split_by_group, split_random, split_stratified

seeds = st.integers(0, 2**31)


# ---- glyphs

def digest(g): return hashlib.sha256(g.images.numpy().tobytes() + g.labels.numpy().tobytes()).hexdigest()


worlds = dict(n=70, size=24, colour=True, polarity='random', fonts='all', seed=5)


def test_same_seed_same_bits_in_another_process_with_other_threads():
    code = ("import torch, hashlib; from dlpractice.data import glyphs; torch.set_num_threads(2); torch.manual_seed(9)\n"
            f"g = glyphs(**{worlds!r}); print(hashlib.sha256(g.images.numpy().tobytes() + g.labels.numpy().tobytes()).hexdigest())")
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env={**os.environ, 'OMP_NUM_THREADS': '2'})
    assert out.stdout.split()[-1] == digest(glyphs(**worlds))


def test_threads_do_not_matter():
    before = torch.get_num_threads()
    try:
        seen = set()
        for k in (1, 2, 4):
            torch.set_num_threads(k)
            seen.add(digest(glyphs(200, size=64)))
        assert len(seen) == 1
    finally: torch.set_num_threads(before)


def test_global_random_states_are_untouched():
    torch.manual_seed(3); np.random.seed(3); random.seed(3)
    a = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    g = glyphs(50)
    g.clean, g.boxes, split_random(50), split_stratified([0, 1]*25), split_by_group(range(50))
    glyph_loaders(40, 20)
    assert torch.equal(a[0], torch.get_rng_state()) and a[1:] == (np.random.get_state()[1].tolist(), random.getstate())


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 100), more=st.integers(0, 80), size=st.sampled_from([8, 17, 32]), seed=seeds, colour=st.booleans(),
       polarity=st.sampled_from(['light', 'dark', 'random']), level=st.sampled_from(list(D.LEVELS)), script=st.sampled_from(list(SCRIPTS)))
def test_first_pictures_do_not_depend_on_n(n, more, size, seed, colour, polarity, level, script):
    kw = dict(size=size, seed=seed, colour=colour, polarity=polarity, level=level, script=script)
    a, b = glyphs(n, **kw), glyphs(n+more, **kw)
    assert a.images.shape == (n, 3 if colour else 1, size, size) and a.images.dtype == torch.uint8 and a.labels.dtype == torch.int64
    assert torch.equal(a.images, b.images[:n]) and torch.equal(a.labels, b.labels[:n]) and torch.equal(a.boxes, b[:n].boxes)
    assert 0 <= a.labels.min() and a.labels.max() < len(a.classes)
    assert (a.boxes[:, 2:] > a.boxes[:, :2]).all() and a.boxes.min() >= 0 and a.boxes.max() <= size


def test_seeds_differ_and_settings_keep_the_pose():
    a = glyphs(300)
    assert digest(a) != digest(glyphs(300, seed=1))
    for kw in (dict(noise=.2), dict(contrast=(.1, .2)), dict(polarity='dark'), dict(colour=True)):
        b = glyphs(300, **kw)
        assert torch.equal(a.labels, b.labels) and torch.equal(a.boxes, b.boxes)


def test_noise_is_as_asked():
    for noise in (.03, .07):
        g = glyphs(500, noise=noise)
        rest = (g.images.float() - g.clean.float())/255
        assert abs(rest.mean()) < 1e-3 and rest.std() == pytest.approx(noise, rel=.03)
    g = glyphs(20, noise=0)
    assert torch.equal(g.images, g.clean)


def test_polarity_and_contrast():
    for polarity, lighter in dict(light=1., dark=0.).items():
        g = glyphs(200, polarity=polarity, noise=0, shift=0, scale=0)
        x = g.images[:, 0].float()
        ground = x[:, 0, 0]
        ink = (x - ground[:, None, None]).flatten(1)
        strongest = ink.gather(1, ink.abs().argmax(1, keepdim=True))
        assert ((strongest > 0).float().mean()).item() == lighter
        assert 255*.5+2 > strongest.abs().max() > 255*.35 # no more than the contrast, and thick letters reach it


def test_boxes_hold_the_ink():
    g = glyphs(400, size=48, noise=0, level='hard', fonts='all')
    x = ((g.images[:, 0].float() - g.scene['ground'][:, :, None]) / g.scene['ink'][:, :, None]).clamp(0, 1)
    rows, cols = torch.meshgrid(torch.arange(48)+.5, torch.arange(48)+.5, indexing='ij')
    l, t, r, b = (o[:, None, None] for o in g.boxes.T)
    inside = (cols > l-1.5) & (cols < r+1.5) & (rows > t-1.5) & (rows < b+1.5)
    assert (x*~inside).max() < .1                                        # nothing outside
    for i, side in enumerate((l, t, r, b)):                               # and no side far from it
        line = cols if i in (0, 2) else rows
        near = (x > .2) & ((line-side).abs() < 2)
        assert near.flatten(1).any(1).float().mean() > .98


def test_fonts_unseen_are_not_seen():
    for a, b in (('train', 'unseen'), ('train_family', 'unseen_family')):
        assert not set(glyphs(50, fonts=a).font_names) & set(glyphs(50, fonts=b).font_names)
    assert set(font_names('all')) == {f for f, n in fonts_found().items() if n} and set(HELD_OUT) == set(font_names('unseen'))
    assert not any('LastResort' in f or f in ('cmsy10', 'cmex10', 'cmmi10') for f in font_names('all'))
    assert sorted({f for f in glyphs(2000).fonts.tolist()}) == list(range(len(font_names('train'))))


def test_fonts_have_their_characters():
    from matplotlib.ft2font import FT2Font
    from dlpractice.glyph_fonts import _file
    for script, chars in SCRIPTS.items():
        for f in font_names('all', chars):
            font = FT2Font(str(_file(f)))
            assert all(font.get_char_index(ord(c)) for c in chars), (f, script)
    assert not covers('cmr10', 'é') and not covers('STIXGeneral', SCRIPTS['armenian'])


def test_look_alikes_are_dropped_only_where_scripts_meet():
    assert characters('greek_upper') == SCRIPTS['greek_upper']
    assert len(characters('greek_upper', unlike='latin_upper')) == 10
    assert characters('AΑА') == 'A' and characters('latin_lower+digits') == SCRIPTS['latin_lower'] + SCRIPTS['digits']
    both = characters('latin_lower+cyrillic_lower')
    assert not set('аеорсху') & set(both) and 'ж' in both
    assert glyphs(10, 'cyrillic_lower', unlike='latin_lower').classes == list(both[26:])


@pytest.mark.parametrize('kw, text', [
    (dict(n=0), 'argument n'), (dict(size=7), '8 to 256'), (dict(size=257), '8 to 256'), (dict(seed=-1), 'seed'), (dict(level='easi'), "'easy'"),
    (dict(polarity='white'), 'polarity'), (dict(contrast=(.5, .2)), 'contrast'), (dict(contrast=(.5, 1.2)), 'contrast'), (dict(noise=-1), 'noise'),
    (dict(scale=1.), 'scale'), (dict(script=''), 'script'), (dict(script='latin_lowr'), 'latin_lower'), (dict(fonts='unsean'), "'unseen'"),
    (dict(rotation=float('nan')), 'rotation')])
def test_bad_arguments(kw, text):
    with pytest.raises(ArgumentError, match=text): glyphs(**{**dict(n=4), **kw})


def test_no_font_for_a_script():
    with pytest.raises(DataError, match='DejaVuSans'): glyphs(4, 'armenian', fonts='STIX')
    with pytest.raises(DataError, match='no font|none'): glyphs(4, '漢字')


def test_parts_and_pickles():
    g = glyphs(40, seed=2)
    for i in (slice(3, 9), [5, 1, 1], torch.tensor([4, 2]), g.labels == g.labels[0]):
        part = g[i]
        assert torch.equal(part.images, g.images[i]) and torch.equal(part.clean, g.clean[i]) and torch.equal(part.boxes, g.boxes[i])
    image, label = g[7]
    assert torch.equal(image, g.images[7]) and label == g.labels[7]
    assert torch.equal(pickle.loads(pickle.dumps(g)).clean, g.clean)
    assert len(list(torch.utils.data.DataLoader(g, batch_size=16))) == 3


def test_fast_enough():
    "A guard against a slip of several times, not a measurement."
    def best(size, n):
        glyphs(10, size=size)
        spent = []
        for seed in range(5):
            start = time.perf_counter()
            glyphs(n, size=size, seed=seed)
            spent.append(time.perf_counter() - start)
        return n/min(spent)
    assert best(32, 1000) > 15_000 and best(64, 500) > 5_000


# ---- batches and statistics

@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 70), size=st.integers(1, 80), shuffle=st.booleans(), drop=st.booleans(), seed=seeds)
def test_batches(n, size, shuffle, drop, seed):
    x, y = torch.arange(n), torch.arange(n)*3
    if drop and size > n:
        with pytest.raises(DataError, match='drop_last'): Batches(x, y, size=size, drop_last=True)
        return
    b = Batches(x, y, size=size, shuffle=shuffle, drop_last=drop, generator=torch.Generator().manual_seed(seed))
    out = list(b)
    assert len(out) == len(b) and all(len(a) == size for a, _ in out[:-1]) and all(torch.equal(3*p, q) for p, q in out)
    seen = torch.cat([a for a, _ in out])
    assert len(seen) == (n//size*size if drop else n) and len(seen.unique()) == len(seen)
    again = Batches(x, y, size=size, shuffle=shuffle, drop_last=drop, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.cat([a for a, _ in again]), seen)
    if not shuffle: assert torch.equal(seen, x[:len(seen)])


def test_batches_use_the_global_state_unless_given_a_generator():
    b = Batches(torch.arange(50), size=50)
    torch.manual_seed(1); a = next(iter(b))[0]
    torch.manual_seed(1); assert torch.equal(a, next(iter(b))[0])
    state = torch.get_rng_state()
    list(Batches(torch.arange(50), generator=torch.Generator()))
    assert torch.equal(state, torch.get_rng_state())


def test_bad_batches():
    with pytest.raises(ShapeError, match='3 and 4'): Batches(torch.zeros(3), torch.zeros(4))
    with pytest.raises(DataError, match='empty'): Batches(torch.zeros(0))
    with pytest.raises(ArgumentError): Batches()
    with pytest.raises(ArgumentError, match='size'): Batches(torch.zeros(3), size=0)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 600), c=st.integers(1, 4), seed=seeds, mean=st.floats(-100, 100), spread=st.floats(.1, 10), size=st.integers(1, 300))
def test_channel_stats_equal_a_float64_oracle(n, c, seed, mean, spread, size):
    g = torch.Generator().manual_seed(seed)
    for x in (mean + spread*torch.randn(n, c, 3, 2, generator=g), torch.randint(0, 256, (n, c, 3, 2), generator=g, dtype=torch.uint8)):
        d = x.numpy().astype(np.float64)/(255 if x.dtype == torch.uint8 else 1)
        for images in (x, x.split(size), [(b, None) for b in x.split(size)]):
            m, s = channel_stats(images)
            np.testing.assert_allclose(m, d.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(s, d.std((0, 2, 3)), rtol=1e-6, atol=1e-6)


def test_channel_stats_with_a_large_mean():
    "Where sums of squares would have lost every digit."
    x = 1e6 + torch.randn(500, 1, 4, 4, dtype=torch.float64)*1e-2
    assert channel_stats(x)[1].item() == pytest.approx(x.std(correction=0).item(), rel=1e-6)
    with pytest.raises(DataError): channel_stats([])
    with pytest.raises(ShapeError): channel_stats(torch.zeros(3, 4, 4))


def test_loaders_are_normalised_by_the_training_set():
    t, v = glyphs(600, seed=1), glyphs(300, seed=2, polarity='dark')
    dls = image_loaders(t, v, batch=100)
    mean, std = channel_stats(t.images)
    assert torch.allclose(dls.valid.tensors[0], (v.images.float()/255 - mean)/std, atol=1e-5)
    assert image_loaders(t).valid is None and len(dls.train) == 6 and not dls.valid.shuffle


def test_digits():
    from sklearn.datasets import load_digits
    d = digits()
    assert torch.equal((d.images[:, 0]/255.*16).round(), torch.from_numpy(load_digits().images).float()) and len(d.classes) == 10


# ---- splits

shares = st.sampled_from([(.8, .2), (.5, .5), (.7, .2, .1), (.05, .95), (1/3, 1/3, 1/3)])


def whole(parts, n): return torch.equal(torch.cat(parts).sort()[0], torch.arange(n))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 300), parts=shares, seed=seeds)
def test_split_random(n, parts, seed):
    s = split_random(n, parts, seed)
    assert whole(s, n) and all(abs(len(o) - p*n) < 1 for o, p in zip(s, parts))
    assert all(torch.equal(a, b) for a, b in zip(s, split_random(n, parts, seed)))


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=200), parts=shares, seed=seeds, text=st.booleans())
def test_split_stratified(labels, parts, seed, text):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        s = split_stratified([f'c{o}' for o in labels] if text else labels, parts, seed)
    y = np.array(labels)
    assert whole(s, len(y))
    for k in set(labels):
        for o, p in zip(s, parts): assert abs((y[o] == k).sum() - p*(y == k).sum()) < 1


def test_split_stratified_warns_of_small_classes():
    with pytest.warns(UserWarning, match='class 7'): split_stratified([3]*20 + [7])


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(0, 30), min_size=3, max_size=200).filter(lambda g: len(set(g)) > 2), parts=shares, seed=seeds)
def test_split_by_group(groups, parts, seed):
    s = split_by_group(groups, parts, seed)
    assert whole(s, len(groups)) and all(len(o) for o in s)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert check_leak(groups, *s) == []


def test_split_by_group_meets_the_shares():
    groups = np.random.default_rng(0).integers(0, 200, 4000)
    for seed in range(5):
        t, v = split_by_group(groups, (.8, .2), seed)
        assert abs(len(v)/4000 - .2) < .02
    firsts = [set(np.unique(groups[split_by_group(groups, seed=s)[1]])) for s in range(5)]
    assert len(set.union(*firsts)) > 2*len(firsts[0]) # other seeds, other groups


def test_check_leak_finds_a_leak():
    with pytest.warns(UserWarning, match='1 of 3 groups'): assert check_leak(['a', 'a', 'b', 'c'], [0], [1, 2], [3]) == ['a']


@pytest.mark.parametrize('parts', [(1.,), (.5, .6), (1.2, -.2), (.5, 0, .5)])
def test_bad_shares(parts):
    for f in (lambda: split_random(9, parts), lambda: split_stratified([0]*9, parts), lambda: split_by_group(range(9), parts)):
        with pytest.raises(ArgumentError, match='sum to 1'): f()


# ---- pictures from folders

def picture(path, w=40, h=30, mode='RGB', **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    a = np.random.default_rng(w*h).integers(0, 256, (h, w, 3), dtype=np.uint8)
    Image.fromarray(a).resize((w, h)).convert(mode).save(path, **kw)
    return path


@pytest.fixture
def folder(tmp_path):
    for c in 'ab':
        for i in range(3): picture(tmp_path/'pets'/'train'/c/f'{i}.jpg', 40+i, 30)
    picture(tmp_path/'pets'/'validation'/'a'/'x.png')
    picture(tmp_path/'pets'/'validation'/'b'/'y.PNG')
    return tmp_path/'pets'


@pytest.fixture
def named(folder, monkeypatch):
    monkeypatch.setenv('DLPRACTICE_DATA', str(folder.parent))
    monkeypatch.setenv('DLPRACTICE_CACHE', str(folder.parent/'cache'))
    return folder


def test_image_folder(folder):
    (folder/'train'/'a'/'notes.txt').write_text('not a picture')
    (folder/'train'/'.hidden').mkdir()
    d = image_folder(folder/'train', size=16)
    assert d.images.shape == (6, 3, 16, 16) and d.labels.tolist() == [0]*3 + [1]*3 and d.classes == ['a', 'b'] and d.skipped == []
    assert [Path(f).name for f in d.files] == ['0.jpg', '1.jpg', '2.jpg']*2
    assert image_folder(folder/'train', size=16, colour=False).images.shape == (6, 1, 16, 16)
    assert d[[4]].files == [d.files[4]]


@pytest.mark.parametrize('w, h', [(60, 20), (20, 60), (80, 40), (24, 24)])
def test_equal_to_resizing_and_cropping(tmp_path, w, h):
    "torchvision's two steps, where the short side is a multiple and the crop falls on whole pixels."
    from torchvision.transforms import functional as TF
    f, size = picture(tmp_path/'c'/'0.png', w, h), min(w, h)//4
    want = TF.center_crop(TF.resize(Image.open(f), size), size)
    assert (image_folder(tmp_path, size=size).images[0].int() - TF.pil_to_tensor(want).int()).abs().max() <= 1


@pytest.mark.parametrize('mode, suffix', [('L', 'png'), ('P', 'png'), ('RGBA', 'png'), ('CMYK', 'jpg'), ('1', 'png'), ('LA', 'png'), ('RGB', 'webp'), ('RGB', 'bmp')])
def test_modes(tmp_path, mode, suffix):
    picture(tmp_path/'c'/f'0.{suffix}', mode=mode)
    assert image_folder(tmp_path, size=8).images.shape == (1, 3, 8, 8)


def test_transparent_16_bit_and_turned(tmp_path):
    (tmp_path/'c').mkdir()
    Image.new('RGBA', (8, 8), (0, 0, 0, 0)).save(tmp_path/'c'/'0.png')
    Image.fromarray(np.full((8, 8), 257*50, np.uint16)).save(tmp_path/'c'/'1.png')
    turned = Image.fromarray(np.repeat(np.array([[[250]*3]*8]*4 + [[[0]*3]*8]*4, np.uint8), 1, 0))
    exif = turned.getexif(); exif[0x112] = 3 # upside down
    turned.save(tmp_path/'c'/'2.jpg', exif=exif)
    x = image_folder(tmp_path, size=8).images
    assert (x[0] == 255).all() and (x[1] == 50).all() and x[2, :, 0].float().mean() < 50 and x[2, :, -1].float().mean() > 200


def test_damaged_pictures(folder):
    cut, junk, empty, png = (folder/'train'/'a'/n for n in ('0.jpg', '1.jpg', '2.jpg', '3.png'))
    cut.write_bytes(cut.read_bytes()[:-200]); junk.write_bytes(b'not a picture'*20); empty.write_bytes(b'')
    picture(png); raw = bytearray(png.read_bytes()); raw[len(raw)//2] ^= 0xff; png.write_bytes(raw)
    with pytest.raises(DataError, match='0.jpg'): image_folder(folder/'train')
    d = image_folder(folder/'train', size=16, on_error='skip')
    assert sorted(Path(f).name for f, _ in d.skipped) == ['0.jpg', '1.jpg', '2.jpg', '3.png'] and len(d) == 3 and '4 skipped' in repr(d)
    assert d.labels.tolist() == [1]*3 and all(reason for _, reason in d.skipped)


def test_bad_folders(folder, tmp_path):
    with pytest.raises(DataError, match='nowhere'): image_folder(tmp_path/'nowhere')
    with pytest.raises(DataError, match='folder per class'): image_folder(folder/'train'/'a')
    (folder/'train'/'c').mkdir()
    with pytest.raises(DataError, match='class .*c: expected at least one picture'): image_folder(folder/'train')
    d = image_folder(folder/'train', on_error='skip')
    assert d.classes == ['a', 'b', 'c'] and d.skipped == [(str(folder/'train'/'c'), 'no picture')] # labels keep their meaning
    with pytest.raises(ArgumentError, match='on_error'): image_folder(folder/'train', on_error='ignore')
    (tmp_path/'empty'/'x').mkdir(parents=True)
    with pytest.raises(DataError, match='readable'): image_folder(tmp_path/'empty', on_error='skip')


def test_real_by_name(named):
    assert has_real('pets') and has_real('pets', 'valid') and not has_real('pets', 'test') and not has_real('cats') and not has_real('mnist')
    assert len(real('pets', size=8)) == 6 and len(real('pets', 'valid', size=8)) == 2 and len(real('pets', 'validation', size=8)) == 2
    with pytest.raises(DataError, match="'pets'"): real('pet')
    with pytest.raises(DataError, match='train, validation'): real('pets', 'test')
    with pytest.raises(DataError, match='download=True'): real('mnist')
    with pytest.raises(DataError, match="'train'"): real('mnist', 'trian')


def test_real_in_the_cache_and_without_splits(folder, monkeypatch):
    monkeypatch.delenv('DLPRACTICE_DATA', raising=False)
    monkeypatch.setenv('DLPRACTICE_CACHE', str(folder))
    assert has_real('train', None) and len(real('train', split=None, size=8)) == 6
    monkeypatch.setenv('DLPRACTICE_DATA', str(folder/'nowhere'))
    assert len(real('train', split=None, size=8)) == 6


def test_torchvision_is_asked_only_with_leave(named, monkeypatch):
    import torchvision.datasets
    asked = []

    class Fake:
        classes = ['zero', 'one']
        def __init__(self, root, train, download):
            asked.append(download)
            if download: Path(root).mkdir(parents=True, exist_ok=True)
            if not Path(root).name == 'mnist' or not Path(root).exists(): raise RuntimeError('Dataset not found.')
        def __len__(self): return 4
        def __getitem__(self, i): return Image.new('L', (28, 28), 60*i), i % 2

    monkeypatch.setattr(torchvision.datasets, 'MNIST', Fake)
    with pytest.raises(DataError): real('mnist')
    assert not any(asked)
    d = real('mnist', size=14, download=True)
    assert d.images.shape == (4, 1, 14, 14) and d.labels.tolist() == [0, 1, 0, 1] and d.classes == ['zero', 'one']
    assert (named.parent/'cache'/'mnist').is_dir() and has_real('mnist') and len(real('mnist', 'test')) == 4

    def broken(*a, **k): raise OSError('no network')
    monkeypatch.setattr(torchvision.datasets, 'KMNIST', broken)
    with pytest.raises(DataError, match='no network'): real('kmnist', download=True)


def test_names_of_torchvision_exist():
    import inspect, torchvision.datasets
    for kind, splits in D.TORCHVISION.values():
        takes = set(inspect.signature(getattr(torchvision.datasets, kind)).parameters)
        assert all(set(s) | {'root', 'download'} <= takes for s in splits.values()), kind


# ---- the clothing photos

where = Path(os.environ.get('DLPRACTICE_DATA') or Path(__file__).resolve().parents[2]/'shared'/'data')


@pytest.mark.skipif(not (where/'clothing').is_dir(), reason='the clothing photos are not here (set DLPRACTICE_DATA)')
def test_real_clothing(monkeypatch):
    monkeypatch.setenv('DLPRACTICE_DATA', str(where))
    assert has_real('clothing')
    d = real('clothing', 'valid', size=64)
    assert d.images.shape == (341, 3, 64, 64) and len(d.classes) == 10 and 't-shirt' in d.classes and not d.skipped
    mean, std = channel_stats(d.images)
    assert (mean > .3).all() and (mean < .9).all() and (std > .1).all()


def test_a_batch_may_be_any_mapping():
    "As tokenizers give it: neither a dict nor a tuple, but with keys."
    from collections import UserDict
    from dlpractice import curvature, loss_plane
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    batch, model = UserDict(x=x, labels=y), torch.nn.Linear(4, 2)
    def step_fn(model, batch): return torch.nn.functional.cross_entropy(model(batch['x']), batch['labels'])
    assert D.batch_size(batch) == D.batch_size([batch]) == 8
    plane = loss_plane(model, step_fn=step_fn, batch=batch, n=3)
    assert plane.center == pytest.approx(step_fn(model, batch).item(), rel=1e-5)
    assert loss_plane(model, step_fn=step_fn, batch=[batch, UserDict(x=x[:2], labels=y[:2])], n=3).center == pytest.approx(
        (8*step_fn(model, batch) + 2*step_fn(model, dict(x=x[:2], labels=y[:2]))).item()/10, rel=1e-5)
    assert curvature(model, step_fn=step_fn, batch=batch, k=1, probes=0).loss == pytest.approx(plane.center, rel=1e-5)
