"""Runs notebooks from top to bottom in a fresh kernel and stores their outputs, cleaned.

`execute.py [PATH …]`: those notebooks, or every one under `nbs/`. A notebook whose cells ask for a real dataset
(`real('name')`) that is not on this machine is run but not written, so that outputs made with the data stay."""
import atexit, base64, io, json, os, re, shutil, sys, tempfile, time
from pathlib import Path

import nbformat
from PIL import Image
from fastcore.nbio import read_nb, write_nb
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import _nbdev_clean

root = Path(__file__).resolve().parent.parent
os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'   # with another backend no picture would be stored
os.environ['DLPRACTICE_STATIC'] = '1'                                    # quizzes: what a page shows, no buttons that need a kernel
os.environ['DLPRACTICE_HOME'] = tempfile.mkdtemp(prefix='dlpractice-')    # nothing goes into the user's own progress
atexit.register(shutil.rmtree, os.environ['DLPRACTICE_HOME'], ignore_errors=True)
asks_real = re.compile(r'''\breal\(\s*['"]([\w-]+)['"]''')


never_run = re.compile(r'^#\| *eval: *false', re.M)                        # cells for readers who have more than a test: a network, a GPU


class Client(NotebookClient):
    "Leaves cells alone that say so."
    async def async_execute_cell(self, cell, cell_index, **kwargs):
        return cell if never_run.search(cell['source']) else await super().async_execute_cell(cell, cell_index, **kwargs)


def notebooks(paths):
    "The notebooks named, or all."
    if paths: return [Path(p).resolve() for p in paths]
    return sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(q[0] in '._' for q in p.relative_to(root).parts))


def missing_data(nb):
    "Names of the real datasets that `nb` asks for and that are not here."
    code = '\n'.join(c['source'] for c in nb.cells if c['cell_type'] == 'code' and '#| export' not in c['source'] and not never_run.search(c['source']))
    names = set(asks_real.findall(code))
    if not names: return []
    from dlpractice.data import has_real
    return sorted(n for n in names if not has_real(n))


def is_bar(output):
    "A progress bar that a slow machine drew: it would be stored half done."
    text = output.get('text') or output.get('data', {}).get('text/plain') or ''
    drawn = output.get('name') == 'stderr' or 'application/vnd.jupyter.widget-view+json' in output.get('data', {})
    return drawn and bool(re.search(r'\d+%\|', ''.join(text)))


def few_colours(png, limit=40_000):
    "A picture (base64) with 128 colours, where it is large and that makes it a third smaller."
    raw, out = base64.b64decode(png), io.BytesIO()
    if len(raw) < limit: return png
    Image.open(io.BytesIO(raw)).convert('RGB').quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, 'PNG', optimize=True)
    return base64.b64encode(out.getvalue()).decode() if len(out.getvalue()) < 0.67*len(raw) else png


def prune_widgets(nb):
    "Keep the state of widgets that are shown, and of what they are made of; progress bars that were never drawn leave theirs."
    states = nb.metadata.get('widgets', {}).get('application/vnd.jupyter.widget-state+json', {}).get('state')
    if not states: return
    shown = json.dumps([o.get('data', {}).get('application/vnd.jupyter.widget-view+json') for c in nb.cells for o in c.get('outputs', [])])
    todo, keep = [k for k in states if k in shown], set()
    while todo:
        k = todo.pop()
        if k in keep: continue
        keep.add(k)
        todo += [o for o in re.findall(r'IPY_MODEL_(\w+)', json.dumps(states[k])) if o in states]
    links = [k for k, s in states.items() if s.get('model_name') in ('LinkModel', 'DirectionalLinkModel')]
    for k in links: keep |= {k} if set(re.findall(r'IPY_MODEL_(\w+)', json.dumps(states[k]))) <= keep else set()
    for k in states.keys() - keep: del states[k]


def clean(path):
    "Drop progress bars, make pictures small, and apply nbdev's cleaning, as the git hook does."
    nb = read_nb(path)
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        cell.outputs = [o for o in cell.get('outputs', []) if not is_bar(o)]
        for o in cell.outputs:
            if 'image/png' in o.get('data', {}): o['data']['image/png'] = few_colours(''.join(o['data']['image/png']))
    prune_widgets(nb)
    _nbdev_clean(nb)
    write_nb(nb, path)


def execute(path):
    "Run one notebook; write it unless it lacks its data. Returns seconds."
    nb = nbformat.read(path, as_version=4)
    lacks, start = missing_data(nb), time.time()
    Client(nb, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}).execute()
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
