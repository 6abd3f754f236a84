"`import dlpractice` against `import torch`: time and peak memory, in fresh interpreters."
import json, subprocess, sys, tempfile
from common import figure, figures_table, median, number, paired, ratio, table

WAYS = {'import torch': 'import torch', 'import dlpractice': 'import dlpractice',
        'from dlpractice import lr_range_test': 'from dlpractice import lr_range_test',
        'from dlpractice import Learner': 'from dlpractice import Learner'}

CHILD = '''
import time, sys, json
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
import resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(seconds=seconds, mib=peak/(2**20 if sys.platform == 'darwin' else 2**10),
                      loaded=[m for m in ('torch', 'torchvision', 'matplotlib.pyplot', 'pandas', 'sklearn') if m in sys.modules])))
'''


def child(statement, folder):
    "Run one statement in a fresh interpreter, away from the checkout."
    done = subprocess.run([sys.executable, '-c', CHILD.format(statement=statement)], cwd=folder, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def main(quick=False):
    "Print the table; return the figures."
    rounds, seen, missing = 5 if quick else 9, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, statement in WAYS.items(): # also the warm-up: compiles and brings the files into the disk cache
            try: child(statement, folder)
            except RuntimeError as e: missing[name] = str(e)
        here = {k: v for k, v in WAYS.items() if k not in missing}
        seen = {name: [] for name in here}
        def way(name): return lambda: (lambda: seen[name].append(child(here[name], folder)))
        whole = paired({name: way(name) for name in here}, rounds, warmup=0)
    inner = {name: [o['seconds'] for o in runs] for name, runs in seen.items()}
    memory = {name: [o['mib'] for o in runs] for name, runs in seen.items()}
    figures, rows = [], []
    for name in here:
        (time_, low, high), (mem, *_), (all_, *_) = (ratio(t, name, 'import torch') for t in (inner, memory, whole))
        rows.append([f'`{name}`', f'{1e3*median(inner[name]):.1f}', number(time_, 'x'), f'{1e3*median(whole[name]):.0f}', number(all_, 'x'),
                     f'{median(memory[name]):.0f}', number(mem, 'x'), ', '.join(seen[name][0]['loaded']) or 'none of them'])
        if name == 'import torch': continue
        target = None if name.endswith('Learner') else 1.1
        figures += [figure(f'`{name}`, time against `import torch`', time_, target, 'x', note=f'quartiles {number(low, "x")} to {number(high, "x")}'),
                    figure(f'`{name}`, peak memory against `import torch`', mem, target, 'x')]
    figures += [figure(f'`{name}`', None, 1.1, 'x', note=why) for name, why in missing.items()]
    print(f'Fresh interpreters, interleaved, {rounds} rounds, files in the disk cache. The statement is timed inside the interpreter (so that '
          'its own start does not soften the ratio); the whole process stands beside it. Loaded: of torch, torchvision, matplotlib.pyplot, '
          'pandas and sklearn.\n')
    print(table(['statement', 'ms', 'ratio', 'whole process, ms', 'ratio', 'peak memory, MiB', 'ratio', 'loaded'], rows) + '\n')
    print(figures_table(figures))
    return figures


if __name__ == '__main__': main()
