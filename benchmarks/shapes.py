"""Shape checks: time per call beside other tools, the step of a small CNN, and what each tool says of one mistake.

python benchmarks/shapes.py"""
import ctypes, warnings
from time import process_time

import torch
from torch import nn
from torch.nn import functional as F
from common import figure, figures_table, median, number, one_thread, paired, ratio, table

CALLS = 5000


def pool_scale(x, scale): return x.mean((2, 3))*scale


def by_hand(x, scale):
    b, c, h, w = x.shape
    assert scale.shape == (c,), f'{scale.shape} is not ({c},)'
    out = x.mean((2, 3))*scale
    assert out.shape == (b, c), f'{out.shape} is not ({b}, {c})'
    return out


def torch_assert(x, scale):
    torch._assert(x.dim() == 4 and scale.dim() == 1, 'ranks')
    torch._assert(x.shape[1] == scale.shape[0], 'channels differ')
    out = x.mean((2, 3))*scale
    torch._assert(out.shape == (x.shape[0], x.shape[1]), 'result')
    return out


def ways():
    "name -> function of two tensors; and name -> why it is missing."
    from dlpractice.shapes import off, shaped
    found, missing = {'plain': pool_scale, 'dlpractice': shaped('b c h w, c -> b c')(pool_scale)}, {}
    with off(): found['dlpractice, off when decorated'] = shaped('b c h w, c -> b c')(pool_scale)
    found['assert by hand'], found['torch._assert by hand'] = by_hand, torch_assert
    try:
        from einops import parse_shape
        def einops(x, scale):
            sizes = parse_shape(x, 'b c h w')
            assert parse_shape(scale, 'c') == {'c': sizes['c']}
            out = x.mean((2, 3))*scale
            assert parse_shape(out, 'b c') == {'b': sizes['b'], 'c': sizes['c']}
            return out
        found['einops.parse_shape by hand'] = einops
    except ImportError as e: missing['einops.parse_shape by hand'] = str(e)
    for checker in 'beartype', 'typeguard':
        name = f'jaxtyping + {checker}'
        try:
            from jaxtyping import Float, jaxtyped
            T = torch.Tensor
            def hinted(x: Float[T, 'b c h w'], scale: Float[T, 'c']) -> Float[T, 'b c']: return x.mean((2, 3))*scale
            check = getattr(__import__(checker), {'beartype': 'beartype', 'typeguard': 'typechecked'}[checker])
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                found[name] = jaxtyped(typechecker=check)(hinted)
            found[name](torch.zeros(2, 3, 4, 4), torch.zeros(3))
        except Exception as e:
            found.pop(name, None)
            missing[name] = f'{type(e).__name__}: {str(e).splitlines()[0][:90] if str(e) else ""}'
    return found, missing


def repeat(f, *args, calls=CALLS):
    def run():
        for _ in range(calls): f(*args)
    return lambda: run


def extra(times, way, to='plain', calls=CALLS):
    "Microseconds per call above the plain call: median, and the quartiles, of the differences round by round."
    d = sorted(1e6*(a - b)/calls for a, b in zip(times[way], times[to]))
    return median(d), d[len(d)//4], d[3*len(d)//4]


def calls_report(repeats):
    found, missing = ways()
    x, scale = torch.randn(4, 8, 5, 5), torch.randn(8)
    times = paired({k: repeat(f, x, scale) for k, f in found.items()}, repeats=repeats, warmup=2)
    figures = []
    for name in found:
        if name == 'plain': continue
        mid, low, high = extra(times, name)
        figures.append(figure(f'shape check of two tensors and a result, time above the plain call: {name}', mid, 1 if name == 'dlpractice' else None, 'µs',
                              note=f'from {low:.2f} to {high:.2f}; plain {1e6*median(times["plain"])/CALLS:.1f} µs'))
    figures += [figure(f'shape check of two tensors and a result: {k}', None, None, 'µs', note=why) for k, why in missing.items()]
    return figures, found


def tensors_report(repeats):
    "The price of one more tensor: from two to eight arguments."
    from dlpractice.shapes import shaped
    made = {}
    for n in (2, 8):
        names = ', '.join(f'x{i}' for i in range(n))
        space = {}
        exec(f'def f({names}): return x0', space)
        made[f'plain {n}'], made[f'shaped {n}'] = space['f'], shaped(', '.join(['b c']*n) + ' -> b c')(space['f'])
    x = torch.randn(4, 8)
    times = paired({k: repeat(f, *[x]*int(k.split()[1])) for k, f in made.items()}, repeats=repeats, warmup=2)
    per = [1e6*((a8 - p8) - (a2 - p2))/6/CALLS for a8, p8, a2, p2 in zip(*(times[k] for k in ('shaped 8', 'plain 8', 'shaped 2', 'plain 2')))]
    dtypes = {'without': shaped('b c, b c -> b c')(made['plain 2']), 'with': shaped('b c:f32, b c:f32 -> b c:f32')(made['plain 2'])}
    t2 = paired({k: repeat(f, x, x) for k, f in dtypes.items()}, repeats=repeats, warmup=2)
    return [figure('shape check, each further tensor', median(per), 0.2, 'µs', note='from two to eight tensors of two axes'),
            figure('dtype check, each tensor', median([1e6*(a - b)/3/CALLS for a, b in zip(t2['with'], t2['without'])]), None, 'µs')]


def compiled_report(found, repeats):
    "Which tools a compiled function takes, and what is left of the check in it."
    x, scale, rows, made = torch.randn(4, 8, 5, 5), torch.randn(8), [], {}
    for name, f in found.items():
        torch._dynamo.reset()
        said = []
        for kind, options in (('eager', dict(backend='eager')), ('inductor', {})):
            try:
                g = torch.compile(f, fullgraph=True, **options)
                g(x, scale)
                said.append('works')
                if kind == 'inductor' and name in ('plain', 'dlpractice'): made[name] = g
            except Exception as e: said.append(f'fails ({type(e).__name__})')
        rows.append([name, *said])
    times = paired({k: repeat(g, x, scale, calls=1000) for k, g in made.items()}, repeats=repeats, warmup=2) if len(made) == 2 else None
    figures = [figure('compiled function, checked against plain', ratio(times, 'dlpractice', 'plain')[0], None, 'x', note='inductor, fullgraph=True')] if times else []
    return figures, table(['way', 'fullgraph, backend eager', 'fullgraph, inductor'], rows)


def keep_memory():
    "Tell glibc to keep freed memory: page faults of fresh memory would drown differences of one per cent."
    try: ctypes.CDLL(None).mallopt(-3, 1 << 30), ctypes.CDLL(None).mallopt(-1, 1 << 30)   # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    except (OSError, AttributeError): pass


def small_cnn():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def steps_report(repeats):
    "A training step of a small CNN with every layer asserted."
    from dlpractice.shapes import ShapeAssert, asserting
    keep_memory()
    patterns = ['b 16 h w']*3 + ['b 32 h w']*3 + ['b 32 1 1', 'b 32', 'b 10']
    plain = small_cnn()
    nets = {'plain': plain, 'ShapeAssert after every layer': nn.Sequential(*(m for pair in zip(plain, map(ShapeAssert, patterns)) for m in pair))}
    x, y = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    nets['asserting(model)'] = asserting(small_cnn(), x)
    def step(net):
        F.cross_entropy(net(x), y).backward()
        for p in net.parameters(): p.grad = None
    times = {k: [] for k in nets}
    for i in range(-5, repeats):
        for k in list(nets)[::1 if i % 2 else -1]:
            start = process_time()      # of this process and its one thread: what else runs on the machine counts less
            step(nets[k])
            if i >= 0: times[k].append(process_time() - start)
    chains = {k: nn.Sequential(*(nn.Identity() for _ in patterns)) for k in ('plain', 'asserting(model)')}
    asserting(chains['asserting(model)'], x[:, 0, 0])
    chains['ShapeAssert after every layer'] = nn.Sequential(*(ShapeAssert('b 32') for _ in patterns))
    alone = paired({k: repeat(chain, x[:, 0, 0], calls=300) for k, chain in chains.items()}, repeats=21, warmup=2)
    alone['nothing'] = [0.]*21
    share = lambda k: 100*extra(alone, k, 'plain' if k[0] == 'a' else 'nothing', 300)[0]/(1e6*median(times['plain']))
    return [figure(f'the checks of nine layers alone, as a share of that step: {k}', share(k), 1, '%') for k in nets if k != 'plain'] + [
            figure(f'training step of a small CNN, batch of 64, processor time: {k}', ratio(times, k, 'plain')[0], None, 'x',
                   note=f'quartiles {ratio(times, k, "plain")[1]:.3f} to {ratio(times, k, "plain")[2]:.3f}; plain {1e3*median(times["plain"]):.1f} ms') for k in nets if k != 'plain']


def messages(found):
    "What each says of one mistake: 3 scales for 8 channels."
    rows = []
    for name, f in found.items():
        try: said = f'passes, result {tuple(f(torch.zeros(4, 8, 5, 5), torch.zeros(3)).shape)}'
        except Exception as e: said = ' '.join(str(e).split()) or f'{type(e).__name__}, without a message'
        rows.append([name, said if len(said) < 240 else said[:240] + ' …'])
    try:
        from einops.layers.torch import EinMix
        EinMix('b c -> b d', weight_shape='c d', c=8, d=4)(torch.zeros(5, 3))
    except Exception as e: rows.append(['einops EinMix built for c=8, given 3', ' '.join(str(e).split())[:240]])
    return table(['way', 'message'], rows)


def main(quick=False):
    "Print the tables; return the figures."
    one_thread()
    repeats = 7 if quick else 21
    figures, found = calls_report(repeats)
    figures += tensors_report(repeats)
    new, compiled = compiled_report(found, repeats)
    figures += new + steps_report(repeats if quick else 301)
    print(f'`x.mean((2, 3))*scale` with `x` of (4, 8, 5, 5) and `scale` of (8,); {CALLS} calls per round, {repeats} rounds.\n')
    print(f'#### What torch.compile takes\n\n{compiled}\n\n#### What is said of a scale with 3 sizes for 8 channels\n\n{messages(found)}\n')
    print(figures_table(figures))
    return figures


if __name__ == '__main__': main()
