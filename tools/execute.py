"""Runs notebooks from top to bottom in a fresh kernel and stores their outputs, cleaned.

`execute.py [PATH …]`: those notebooks, or every one under `nbs/`. A notebook whose cells ask for a real dataset
(`real('name')`) that is not on this machine is run but not written, so that outputs made with the data stay."""
import os, re, sys, time
from pathlib import Path

import nbformat
from fastcore.nbio import read_nb, write_nb
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import _nbdev_clean

root = Path(__file__).resolve().parent.parent
os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'   # with another backend no picture would be stored
asks_real = re.compile(r'''\breal\(\s*['"]([\w-]+)['"]''')


def notebooks(paths):
    "The notebooks named, or all."
    if paths: return [Path(p).resolve() for p in paths]
    return sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(q[0] in '._' for q in p.relative_to(root).parts))


def missing_data(nb):
    "Names of the real datasets that `nb` asks for and that are not here."
    code = '\n'.join(c['source'] for c in nb.cells if c['cell_type'] == 'code' and '#| export' not in c['source'])
    names = set(asks_real.findall(code))
    if not names: return []
    from dlpractice.data import has_real
    return sorted(n for n in names if not has_real(n))


def is_bar(output):
    "A progress bar that a slow machine drew: it would be stored half done."
    text = output.get('text') or output.get('data', {}).get('text/plain') or ''
    drawn = output.get('name') == 'stderr' or 'application/vnd.jupyter.widget-view+json' in output.get('data', {})
    return drawn and bool(re.search(r'\d+%\|', ''.join(text)))


def clean(path):
    "Drop progress bars, and apply nbdev's cleaning, as the git hook does."
    nb = read_nb(path)
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.outputs = [o for o in cell.get('outputs', []) if not is_bar(o)]
    _nbdev_clean(nb)
    write_nb(nb, path)


def execute(path):
    "Run one notebook; write it unless it lacks its data. Returns seconds."
    nb = nbformat.read(path, as_version=4)
    lacks, start = missing_data(nb), time.time()
    NotebookClient(nb, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}).execute()
    seconds = time.time() - start
    if lacks: print(f'{path.relative_to(root)}: not written, its stored outputs were made with {", ".join(lacks)}, which is not here (set DLPRACTICE_DATA)')
    else:
        nbformat.write(nb, path)
        clean(path)
    return seconds


if __name__ == '__main__':
    failed = []
    for p in notebooks(sys.argv[1:]):
        try: print(f'{p.relative_to(root)}: {execute(p):.0f} s', flush=True)
        except CellExecutionError as e:
            failed.append(p)
            print(f'{p.relative_to(root)}: FAILED\n{e}', flush=True)
    sys.exit(bool(failed))
