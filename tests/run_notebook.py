"""Runs notebooks from top to bottom, each in a process of its own, in its own folder, with no network.

`run_notebook.py [--nbdev] [NB …]`: those notebooks, or every one under `nbs/`. With `--nbdev`, as nbdev's tests do;
without, by IPython alone, as in an installation that has neither nbdev nor Jupyter."""
import json, os, re, subprocess, sys, time
from pathlib import Path
from tempfile import TemporaryDirectory

here = Path(__file__).resolve().parent


def notebooks(folder=here.parent/'nbs'):
    "Every notebook under `folder`."
    return sorted(p for p in Path(folder).rglob('*.ipynb') if not any(q[0] in '._' for q in p.relative_to(folder).parts))


def run(path, nbdev=False, python=sys.executable, timeout=900, folder=None):
    "Run one notebook in a fresh process; gives the finished process, all it printed in `stdout`."
    path = Path(path).resolve()
    path_too = os.pathsep.join([str(here/'no_network'), *filter(None, [os.environ.get('PYTHONPATH')])])
    env = os.environ | {'MPLBACKEND': 'agg', 'PYTHONPATH': path_too, 'OMP_WAIT_POLICY': 'passive', 'PYTHONIOENCODING': 'utf-8'}
    cmd = [python, str(here/'run_notebook.py'), '--one', *(['--nbdev'] if nbdev else []), str(path)]
    with TemporaryDirectory() as home: # where a learner's progress goes: never into the user's own
        return subprocess.run(cmd, cwd=folder or path.parent, env=env | {'DLPRACTICE_HOME': home}, timeout=timeout, text=True, encoding='utf-8', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def with_nbdev(path):
    "Run with nbdev's own test."
    from nbdev.test import test_nb
    return test_nb(path)[0]


def with_ipython(path):
    "Run with IPython's shell: magics work, outputs are thrown away."
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.io import capture_output
    shell = InteractiveShell.instance()
    sys.path.insert(0, os.getcwd())
    for i, cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']):
        code = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or re.search(r'^#\|\s*eval:\s*false', code, re.M): continue
        with capture_output() as out: result = shell.run_cell(code, store_history=True)
        if not result.success and 'raises-exception' not in cell['metadata'].get('tags', []):
            print(f'cell {i} of {path.name}:\n{code}\n{out.stdout}{out.stderr}')
            return False
    return True


if __name__ == '__main__':
    args = sys.argv[1:]
    nbdev, one = '--nbdev' in args, '--one' in args
    paths = [Path(o).resolve() for o in args if not o.startswith('--')] or notebooks()
    if one: sys.exit(not (with_nbdev if nbdev else with_ipython)(paths[0]))
    failed = 0
    for p in paths:
        start, done = time.time(), run(p, nbdev)
        print(f'{p.name}: {"ok" if not done.returncode else "FAILED"}, {time.time() - start:.0f} s', flush=True)
        if done.returncode: print(done.stdout, flush=True)
        failed += bool(done.returncode)
    print(f'{len(paths) - failed} passed, {failed} failed')
    sys.exit(bool(failed))
