"What every benchmark shares: paired timing, figures beside their targets, the machine, a markdown table."
import gc, os, platform, statistics, sys, time
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ('torch', 'torchvision', 'numpy', 'torch-lr-finder', 'fastai', 'lightning', 'accelerate',
            'jaxtyping', 'beartype', 'typeguard', 'einops', 'loss-landscapes')


def paired(
    ways,      # name -> function that prepares, untimed, and returns the function to time
    repeats=7, # rounds, at least 5; every round times each way once, so that a slow spell of the machine meets all of them
    warmup=1,  # rounds thrown away
):             # name -> list of seconds, one per round
    "Time several ways interleaved; every other round runs backwards, so that none always follows the same one."
    names, times = list(ways), {name: [] for name in ways}
    for i in range(-warmup, repeats):
        for name in names if i % 2 else names[::-1]:
            run = ways[name]()
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            gc.enable()
            if i >= 0: times[name].append(seconds)
            del run
    return times


def ratio(
    times, # from `paired`
    way,   # name of the way
    to,    # name of the way it is compared with
):         # (median, lower quartile, upper quartile) of the ratios taken round by round
    "Median of the paired ratios, with the quartiles."
    ratios = [a/b for a, b in zip(times[way], times[to])]
    low, mid, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return mid, low, high


def median(values): return statistics.median(values)


def figure(
    name,             # what was measured, in words
    value,            # the number measured, or None where it could not be
    target=None,      # the number to reach, None for a figure shown only to compare with
    unit='',          # 'x', 'ms', 'images/s', ...
    at_least=False,   # True where more is better
    note='',          # what a reader must know to judge the figure
):                    # dict
    "A figure beside its target; `reached` is None without a target."
    reached = None if target is None else value is not None and (value >= target if at_least else value <= target)
    return dict(name=name, value=value, target=target, unit=unit, at_least=at_least, reached=reached, note=note)


def number(value, unit=''):
    "A number as a reader wants it: three digits or so, thousands parted; ratios keep three decimals near one."
    if value is None: return 'not measured'
    if isinstance(value, str): return value
    size = abs(value)
    if unit == 'x': text = f'{value:.3f}' if 0.9 < size < 1.2 else f'{value:.2g}' if size < 1 else f'{value:.3g}'
    elif isinstance(value, int) or size >= 1000: text = f'{value:,.0f}'
    elif size and size < 0.01: text = f'{value:.1e}'
    else: text = f'{value:.3g}'
    return f'{text}{"" if unit == "x" else " "}{unit}'.strip()


def table(
    headers, # list of str
    rows,    # list of lists; anything with a str
):           # markdown text
    "A markdown table."
    cells = [[str(c).replace('|', '\\|').replace('\n', ' ') for c in row] for row in [headers, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    line = lambda row: '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths)) + ' |'
    return '\n'.join([line(cells[0]), '|' + '|'.join('-'*(w + 2) for w in widths) + '|', *map(line, cells[1:])])


def figures_table(figures):
    "The figures beside their targets, reached or not."
    def row(f):
        sign = '≥' if f['at_least'] else '≤'
        target = '' if f['target'] is None else f'{sign} {f["target"]:,g}{"" if f["unit"] == "x" else " "}{f["unit"]}'
        verdict = {None: '', True: 'reached', False: '**not reached**'}[f['reached']]
        if f['value'] is None and f['target'] is not None: verdict = '**not measured**'
        return [f['name'], number(f['value'], f['unit']), target, verdict, f['note']]
    return table(['figure', 'measured', 'target', '', 'note'], [row(f) for f in figures])


def bits(value):
    "A nest of tensors, arrays and plain values as something that compares bit for bit."
    import numpy as np, torch
    if isinstance(value, torch.Tensor): return str(value.dtype), tuple(value.shape), value.detach().contiguous().numpy().tobytes()
    if isinstance(value, np.ndarray): return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict): return tuple((str(k), bits(v)) for k, v in sorted(value.items(), key=lambda kv: str(kv[0])))
    if isinstance(value, (list, tuple)): return tuple(map(bits, value))
    return repr(value)


def model_state(model, optimizer):
    "Everything that a model and its optimizer hold, kind by kind, as bits."
    params, kept = list(model.parameters()), model.state_dict()
    buffers = lambda persistent: {k: b for k, b in model.named_buffers() if (k in kept) == persistent}
    return {k: bits(v) for k, v in {
        'parameters': params, 'buffers': buffers(True), 'non-persistent buffers': buffers(False),
        'gradients': [p.grad for p in params], 'requires_grad': [p.requires_grad for p in params],
        'training flags': [m.training for m in model.modules()],
        'optimizer state': {i: dict(optimizer.state[p]) for i, p in enumerate(params) if p in optimizer.state},
        'hyperparameters': [{k: v for k, v in g.items() if k != 'params'} for g in optimizer.param_groups]}.items()}


def versions():
    "Versions of dlpractice and of the packages measured, as name -> version; a missing one says so."
    def one(name):
        try: return version(name)
        except PackageNotFoundError: return 'not installed'
    return {name: one(name) for name in ('dlpractice', *PACKAGES)}


def _cpu():
    try:
        with open('/proc/cpuinfo') as f:
            names = [l.split(':', 1)[1].strip() for l in f if l.startswith('model name')]
        if names: return names[0]
    except OSError: pass
    return platform.processor() or platform.machine()


def _memory():
    try: return f"{os.sysconf('SC_PAGE_SIZE')*os.sysconf('SC_PHYS_PAGES')/2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError): return 'unknown'


def machine():
    "What it ran on, as name -> text."
    import torch
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    return {
        'date': date.today().isoformat(),
        'CPU': f'{_cpu()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}',
        'memory': _memory(),
        'system': f'{platform.system()} {platform.machine()}',
        'Python': platform.python_version(),
        'threads': f'{torch.get_num_threads()} (torch), OMP_WAIT_POLICY={os.environ.get("OMP_WAIT_POLICY", "not set")}',
        'load when it began': 'unknown' if load is None else f'{load:.1f}',
    }


def one_thread():
    "One torch thread: call it first in `main`."
    import torch
    torch.set_num_threads(1)


@contextmanager
def silent():
    "Whatever prints, logs or draws progress bars inside goes nowhere."
    with open(os.devnull, 'w') as null:
        out, err = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = null
        try: yield
        finally: sys.stdout, sys.stderr = out, err
