"""Run the benchmarks, each in a process of its own with one thread, and write `results.md` beside this file.

python benchmarks/run.py                      all of them, and results.md
python benchmarks/run.py --only glyphs        one (or several) of them: printed, nothing written
python benchmarks/run.py --without landscape  all but that one (or several), and results.md, which says so
python benchmarks/run.py --quick              fewer rounds, to see that everything runs: printed, nothing written
"""
import argparse, contextlib, importlib, inspect, io, json, os, subprocess, sys, tempfile, time
from pathlib import Path
from common import figure, figures_table, machine, one_thread, versions

HERE = Path(__file__).resolve().parent
TITLES = {'range_test': 'LR range test', 'shapes': 'Shape checks', 'training_overhead': 'Overhead of the training loop',
          'import_time': 'Import', 'snapshots': 'Snapshot and restore', 'glyphs': 'Glyph world', 'augment': 'Augmentation of batches', 'landscape': 'Loss planes', 'schedules': 'Schedules'}
LIMITS = {'landscape': 1500} # seconds for one benchmark
LIMIT = 420 # the others'
ENV = dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', OMP_WAIT_POLICY='passive', MPLBACKEND='agg')


def overhead(figures):
    "training_overhead's figures by way, beside the target, in the form of all others."
    return [figure(f'training loop, time per step above a bare loop: {way.replace("_", " ")}', f['extra_us'], 10 if way == 'dlpractice' else None,
                   'µs', note=f'from {f["extra_low"]:.1f} to {f["extra_high"]:.1f}; {f["us_per_step"]:.0f} µs per step')
            for way, f in figures.items() if way != 'bare']


def child(name, path, quick):
    "In the process of one benchmark: its figures and what it printed go to `path`, whatever the peers print to the terminal."
    out = io.StringIO()
    module = importlib.import_module(name)
    with contextlib.redirect_stdout(out):
        figures = module.main(**({'quick': True} if quick and 'quick' in inspect.signature(module.main).parameters else {}))
    if isinstance(figures, dict): figures = overhead(figures)
    Path(path).write_text(json.dumps(dict(figures=figures, text=out.getvalue()), default=float))


def measure(name, quick):
    "Run one benchmark in its own process: dict(figures, text, seconds), and `error` where it failed."
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'figures.json'
        command = [sys.executable, __file__, '--child', name, '--json', str(path), *(['--quick'] if quick else [])]
        try:
            done = subprocess.run(command, cwd=folder, env={**os.environ, **ENV}, capture_output=True, text=True, timeout=LIMITS.get(name, LIMIT))
            error = None if done.returncode == 0 else (done.stderr.strip().splitlines() or ['no message'])[-1]
            if error: print(done.stderr, file=sys.stderr)
        except subprocess.TimeoutExpired: error = f'stopped after {LIMITS.get(name, LIMIT)} s'
        got = json.loads(path.read_text()) if error is None else dict(figures=[], text=f'Failed: {error}\n')
    return dict(got, seconds=time.time() - start, error=error)


def body(text, figures):
    "A benchmark's text without its table of figures (they stand at the top of the page)."
    last = figures_table(figures) if figures else ''
    return text.replace(last, '').strip() if last else text.strip()


def page(results, about, without=()):
    "The text of results.md."
    goals = [f for r in results.values() for f in r['figures'] if f['target'] is not None]
    others = [f for r in results.values() for f in r['figures'] if f['target'] is None]
    missed = [f for f in goals if not f['reached']]
    failed = [n for n, r in results.items() if r['error']]
    lines = ['# Benchmarks', '', '<!-- Written by `make bench` (benchmarks/run.py); do not edit. -->', '',
             f'{len(goals) - len(missed)} of {len(goals)} figures reached their targets.'
             + (f' Not measured, since it failed: {", ".join(failed)}.' if failed else '')
             + (f' Left out of this run: {", ".join(TITLES[o] for o in without)}.' if without else ''), '',
             'Ways are timed interleaved, in rounds that pair them; a ratio is the median of the paired ratios. '
             'Each benchmark runs in a process of its own. Peers are pinned in `benchmarks/requirements.txt`.', '',
             *(f'- {k}: {v}' for k, v in about.items()),
             '- versions: ' + ', '.join(f'{k} {v}' for k, v in versions().items()),
             f'- time taken: {sum(r["seconds"] for r in results.values())/60:.1f} minutes', '',
             '## Figures with a target', '', figures_table(goals), '', '## Figures to compare with', '', figures_table(others), '']
    for name, r in results.items():
        lines += [f'## {TITLES.get(name, name)}', '', f'`benchmarks/{name}.py`, {r["seconds"]:.0f} s', '', body(r['text'], r['figures']).replace('#### ', '### '), '']
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', action='append', choices=list(TITLES), help='run this one; may be repeated')
    parser.add_argument('--without', action='append', default=[], choices=list(TITLES), help='leave this one out; may be repeated')
    parser.add_argument('--quick', action='store_true', help='fewer rounds')
    parser.add_argument('--child', choices=list(TITLES), help=argparse.SUPPRESS)
    parser.add_argument('--json', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child: return child(args.child, args.json, args.quick)
    os.environ.update(ENV)
    one_thread()
    about, results = machine(), {}
    for name in args.only or [o for o in TITLES if o not in args.without]:
        print(f'{name} ...', end=' ', flush=True)
        results[name] = measure(name, args.quick)
        print(f'{results[name]["seconds"]:.0f} s' + (f': {results[name]["error"]}' if results[name]['error'] else ''), flush=True)
    text = page(results, about, args.without)
    if args.only or args.quick: print('\n' + text)
    else:
        (HERE/'results.md').write_text(text)
        print(f'\n{figures_table([f for r in results.values() for f in r["figures"] if f["target"] is not None])}\n\nWritten: {HERE/"results.md"}')
    return 1 if any(r['error'] for r in results.values()) else 0


if __name__ == '__main__': sys.exit(main())
