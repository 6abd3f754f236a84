"The LR range test against a bare loop and against torch-lr-finder, fastai and Lightning: time, faults, spread."
import math, random
from importlib.metadata import version
import numpy as np
import torch
from torch import nn
from finders import (Case, Net, RecordedSGD, bare_test, installed, letters, loader, workdir)
from common import bits, figure, figures_table, median, model_state, number, one_thread, paired, ratio, silent, table

CLASSES, SHUFFLES = 26, 6
ITEMS = ('parameters', 'buffers', 'non-persistent buffers', 'gradients', 'requires_grad', 'training flags', 'optimizer state', 'hyperparameters',
         'global random states', "loader's generator")
ONE = dict(repeats=1, most=1) # dlpractice repeats a test by default; one against one is timed
TIME, BACK = 'time against a bare loop', f'kinds of state back bit for bit, of {len(ITEMS)}'
SPREAD = f'spread of the suggestion over {SHUFFLES} shuffles'


def net(seed=0, **kw):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(CLASSES, **kw)


# --- time ---------------------------------------------------------------------------------------------------------------

def times(finders, steps=100, rounds=15, peer_rounds=5):
    "Seconds per step, over rates at which nothing diverges, so that every tool takes all its steps."
    x, y = letters()
    rates = dict(start=1e-7, end=1e-2, steps=steps)
    def case():
        model = net()
        return Case(model, loader(x, y), torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9))
    taken = {}
    with workdir() as d:
        def bare():
            c = case()
            return lambda: bare_test(c, **rates)
        def way(finder):
            def prepare():
                tool = finder(case(), d)
                extra = ONE if finder.name == 'dlpractice' else {}
                def run():
                    with silent(): tool.run(**rates, **extra)
                    taken.setdefault(finder.name, tool)
                return run
            return prepare
        ways = {f.name: way(f) for f in finders}
        ours = {k: v for k, v in ways.items() if k == 'dlpractice'}
        pair = paired({'bare loop': bare, **ours}, rounds, warmup=2) if ours else None
        all_ = paired({'bare loop': bare, **ways}, peer_rounds)
        with silent(): points = {name: len(tool.found().losses) for name, tool in taken.items()}
    return pair, all_, points, steps


def time_report(finders, quick):
    pair, all_, points, steps = times(finders, **(dict(rounds=5) if quick else {}))
    rows = [['bare loop', f'{1e3*median(all_["bare loop"])/steps:.2f}', '1', '', steps]]
    figures = []
    for name in all_:
        if name == 'bare loop': continue
        use = pair if name == 'dlpractice' else all_
        mid, low, high = ratio(use, name, 'bare loop')
        rows.append([name, f'{1e3*median(use[name])/steps:.2f}', number(mid, 'x'), f'{number(low, "x")} to {number(high, "x")}', points[name]])
        figures.append(figure(f'range test, {TIME}: {name}', mid, 1.02 if name == 'dlpractice' else None, 'x',
                              note=f'median of {len(use[name])} paired rounds; quartiles {number(low, "x")} to {number(high, "x")}'))
    text = table(['way', 'ms per step', 'ratio to the bare loop', 'quartiles', 'steps recorded'], rows)
    return figures, text


# --- what is left behind ------------------------------------------------------------------------------------------------

def fingerprint(case):
    "Everything that a test should put back."
    return {**model_state(case.model, case.optimizer),
            'global random states': bits([torch.get_rng_state(), np.random.get_state(), random.getstate()]),
            "loader's generator": bits(case.loader.generator.get_state())}


def used_case(groups=False, scheduler=False):
    "A model in the middle of a fine-tuning: a frozen block, momentum, gradients, a buffer outside of state_dict, noisy data."
    x, y = letters()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    model = net(drop=0.1, odd=True)
    params = list(model.parameters())
    parts = [dict(params=list(model.body.parameters()), lr=1e-2), dict(params=list(model.head.parameters()), lr=1e-1)]
    optimizer = RecordedSGD(parts if groups else params, lr=1e-2, momentum=0.9, weight_decay=1e-4)
    case = Case(model, loader(x, y, jitter=True), optimizer)
    if scheduler:
        case.scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for _, (xb, yb) in zip(range(3), case.loader):
        optimizer.zero_grad()
        case.loss(model(xb), yb).backward()
        optimizer.step()
        if scheduler: case.scheduler.step()
    model.modes.clear(), RecordedSGD.rates.clear()
    return case


def attempt(finder, case, d, **rates):
    "Run a test on `case`: what came back or was raised, and in words what is no longer as it was."
    tool, before = finder(case, d), fingerprint(case)
    changed = lambda after: [k for k in ITEMS if before[k] != after[k]]
    raised = None
    try:
        with silent(): tool.run(**rates)
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt) and getattr(case.model, 'fault', None) is None: raise # a real one: the person at the keyboard
        raised = e
    after, found = changed(fingerprint(case)), None
    if raised is not None and getattr(tool, 'tidy', None):
        tool.tidy()
        after = Left(after)
        after.tidied = changed(fingerprint(case))
    if raised is None:
        try:
            with silent(): found = tool.found()
        except Exception as e: raised = e
    return found, raised, after


class Left(list):
    "Names of what changed, and what is still changed after the tool's own way to put things back was called."
    tidied = None


def left(changed):
    words = lambda names: 'nothing' if not names else 'everything' if len(names) == len(ITEMS) else ', '.join(names)
    tidied = getattr(changed, 'tidied', None)
    return words(changed) + ('' if tidied is None else f' (once `reset()` is called: {words(tidied)})')


def said(found, raised):
    "What a tool gave back, in a few words."
    if raised is not None:
        why = f' ({raised})' if str(raised) else ''
        return f'raised {type(raised).__name__}' + (why if len(why) < 60 else '')
    s = 'no suggestion' if found.suggestion is None else f'suggests {found.suggestion:.1e}'
    why = found.verdict or found.no_suggestion
    return s + (f' ({why})' if why and (found.suggestion is None or why != 'clear') else '') + (', marked as interrupted' if found.interrupted else '')


RATES = dict(start=1e-6, end=1e-1, steps=60, **ONE)


def restoration(finder, d):
    _, raised, changed = attempt(finder, used_case(), d, **RATES)
    if raised is not None: return {k: f'raised {type(raised).__name__}' for k in ITEMS}, []
    return {k: 'changed' if k in changed else 'back' for k in ITEMS}, changed


def nan(finder, d, at=5):
    case = used_case()
    case.model.fault = (at, None)
    found, raised, changed = attempt(finder, case, d, **RATES)
    return f'{len(case.model.modes)} of {RATES["steps"]} batches run; {said(found, raised)}', left(changed)


def interrupt(finder, d, error=KeyboardInterrupt):
    case = used_case()
    case.model.fault = (5, error())
    found, raised, changed = attempt(finder, case, d, **RATES)
    points = '' if found is None else f', {len(found.losses)} points kept'
    return f'{said(found, raised)}{points}', left(changed)


def in_eval(finder, d):
    case = used_case()
    case.model.eval()
    found, raised, changed = attempt(finder, case, d, **RATES)
    modes = set(case.model.modes)
    mode = {True: 'trained in train mode', False: 'trained in eval mode'}.get(modes.pop() if len(modes) == 1 else None, 'modes mixed')
    after = 'eval' if not any(m.training for m in case.model.modules()) else 'train'
    return f'{said(found, raised) if raised else mode}, left in {after} mode', left(changed)


def groups(finder, d):
    case = used_case(groups=True)
    found, raised, changed = attempt(finder, case, d, **RATES)
    if not RecordedSGD.rates: return said(found, raised), left(changed)
    ratios = [r[-1]/r[0] for r in RecordedSGD.rates]
    low, high = min(ratios), max(ratios)
    seen = f'ratio {low:.3g} at every step' if math.isclose(low, high, rel_tol=1e-6) else f'ratio {low:.3g} to {high:.3g}'
    return ('kept: ' if math.isclose(low, 10, rel_tol=1e-6) and math.isclose(high, 10, rel_tol=1e-6) else 'not kept: ') + seen, left(changed)


def scheduler(finder, d):
    case = used_case(scheduler=True)
    state, rate = bits(case.scheduler.state_dict()), [g['lr'] for g in case.optimizer.param_groups]
    found, raised, changed = attempt(finder, case, d, **RATES)
    if raised is not None: return said(found, raised), left(changed)
    same = bits(case.scheduler.state_dict()) == state
    after = [g['lr'] for g in case.optimizer.param_groups]
    kept = f'rate {rate[0]:.3g} as before' if after == rate else f'rate {rate[0]:.3g} became {after[0]:.3g}'
    return f'{"scheduler as before" if same else "scheduler changed"}; {kept}', left(changed)


def faults_report(finders):
    with workdir() as d:
        back = {f.name: restoration(f, d) for f in finders}
        rows = [[item, *(back[f.name][0][item] for f in finders)] for item in ITEMS]
        one = table(['after a finished test', *(f.name for f in finders)], rows)
        tests = {'NaN at batch 5': nan, 'NaN at batch 40': lambda f, d: nan(f, d, 40), 'KeyboardInterrupt at batch 5': interrupt,
                 'RuntimeError at batch 5': lambda f, d: interrupt(f, d, RuntimeError),
                 'model given in eval mode': in_eval, 'two groups, rates 1 to 10': groups, 'scheduler attached': scheduler}
        rows = [[name, f.name, *test(f, d)] for name, test in tests.items() for f in finders]
        two = table(['case', 'way', 'what it does', 'not as before afterwards'], rows)
    figures = [figure(f'range test, {BACK}: {name}',
                      sum(v == 'back' for v in items.values()), len(ITEMS) if name == 'dlpractice' else None, at_least=True)
               for name, (items, _) in back.items()]
    return figures, one + '\n\n' + two


# --- spread -------------------------------------------------------------------------------------------------------------

def mlp(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(32*32, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def sgd(params): return torch.optim.SGD(params, lr=1e-2, momentum=0.9)
def adamw(params): return torch.optim.AdamW(params, lr=1e-3)

SETTINGS = {'CNN, SGD with momentum': (net, sgd), 'CNN, AdamW': (net, adamw), 'MLP, SGD with momentum': (mlp, sgd)}


def spread_report(finders):
    "Each tool's own default suggestion, over shuffles of the same data for the same net."
    x, y = letters()
    rows, figures = [], []
    with workdir() as d:
        for label, (build, make) in SETTINGS.items():
            ways = {f.name: (f, {}) for f in finders}
            if 'dlpractice' in ways: ways['dlpractice, one test'] = (ways['dlpractice'][0], ONE)
            got, steps = {name: [] for name in ways}, dict.fromkeys(ways, 0)
            for seed in range(SHUFFLES):
                for name, (f, options) in ways.items():
                    model = build()
                    case = Case(model, loader(x, y, seed=seed), make(model.parameters()))
                    calls = []
                    hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
                    torch.manual_seed(seed)
                    found, raised, _ = attempt(f, case, d, **options)
                    hook.remove()
                    steps[name] += len(calls)
                    got[name].append(None if raised else found.suggestion)
            for name, all_ in got.items():
                some = [s for s in all_ if s]
                value = max(some)/min(some) if len(some) > 1 else None
                missing = len(all_) - len(some)
                rows.append([name, label, number(value, 'x') if value else '', f'{min(some):.1e}' if some else '',
                             f'{max(some):.1e}' if some else '', missing, f'{steps[name]/SHUFFLES:.0f}'])
                note = [f'no suggestion in {missing} of {SHUFFLES}'] if missing else []
                figures.append(figure(f'range test, {SPREAD}, {label}: {name}', value, 1.3 if name == 'dlpractice' else None, 'x',
                                      note='; '.join([*note, f'{steps[name]/SHUFFLES:.0f} steps each'])))
    return figures, table(['way', 'net and optimizer', 'largest / smallest', 'smallest', 'largest', 'no suggestion', 'mean steps'], rows)


def main(quick=False):
    "Print the tables; return the figures."
    one_thread()
    finders, missing = installed()
    for name, why in missing: print(f'{name} was not measured: {why}\n')
    figures = [figure(f'range test, {what}: {name}', None, target if name == 'dlpractice' else None, unit, at_least, why)
               for name, why in missing for what, target, unit, at_least in (
                   (TIME, 1.02, 'x', False), (BACK, len(ITEMS), '', True), *((f'{SPREAD}, {s}', 1.3, 'x', False) for s in SETTINGS))]
    said = ', '.join(f'{f.name} {version(f.package)}' for f in finders)
    print(f'One CNN with BatchNorm ({sum(p.numel() for p in net().parameters()):,} parameters), 32 px letters in {CLASSES} classes, '
          f'batches of 64, the same DataLoader and `torch.optim` optimizer for all: {said}.\n')
    parts = (('Time', lambda: time_report(finders, quick),
              'SGD with momentum, 100 rates from 1e-7 to 1e-2, at which nothing diverges, so that no tool stops early. The whole call is timed, '
              'with what the tool copies before and puts back after, and without plotting; dlpractice with `repeats=1, most=1`. The loop records the '
              'loss with `.item()`. Without fastai\'s progress bar; torch-lr-finder and Lightning always draw theirs (to nowhere).'),
             ('Faults', lambda: faults_report(finders),
              'The model is in the middle of a fine-tuning: momentum, gradients, a frozen block in eval mode, dropout, a buffer outside of '
              '`state_dict`; the data draw from NumPy\'s and Python\'s random states. torch-lr-finder\'s `reset()` is called where the test '
              'returned; an exception passes it by, as in a script, and what `reset()` would mend then stands in brackets. Lightning with '
              '`update_attr=False`. dlpractice with `repeats=1, most=1`. fastai keeps a ratio between groups when it is given lists of start and end rates.'),
             ('Spread', lambda: spread_report(finders),
              'Each tool\'s defaults, rates included (torch-lr-finder from 1e-7, its README\'s start), for one initialisation of a net and six shuffles of one training set. '
              'A narrow spread alone '
              'proves nothing: read the rates beside it, and the steps that it took: dlpractice repeats its test by default.'))
    for title, report, about in parts:
        new, text = report()
        figures += new
        print(f'#### {title}\n\n{about}\n\n{text}\n')
    print(figures_table(figures))
    return figures


if __name__ == '__main__': main()
