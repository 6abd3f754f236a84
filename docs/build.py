"""Builds the offline site: every page of `_quarto.yml`, from stored outputs, with no Quarto and no address outside itself.

`build.py [--out DIR]`: nbdev processes the notebooks into `_proc/`, `markup.py` turns them into MyST, Sphinx makes the pages,
and `check.py` reads them: a dead link or anything fetched from elsewhere fails the build."""
import argparse, ast, json, os, re, shutil, subprocess, sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

docs = Path(__file__).resolve().parent
root = docs.parent
sys.path[:0] = [str(root), str(docs), str(root/'tools')]   # this tree's library and modules, in worker processes too
import check, markup, pages, readme

staged, source, assets, html, npm = docs/'_build'/'nbs', docs/'_src', docs/'_build'/'static', docs/'_build'/'html', docs/'node_modules'
served = { # npm file -> its place under _static/
    'requirejs/require.js': 'widgets/require.js',
    '@jupyter-widgets/html-manager/dist/embed-amd.js': 'widgets/embed-amd.js',
    'mathjax/es5/tex-svg-full.js': 'mathjax/tex-svg-full.js'}


def fresh(folder):
    "`folder`, empty."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def scripts():
    "Install the npm packages unless they are there, and put the files that pages load into one folder."
    package = json.loads((docs/'package.json').read_text())
    wanted = package['dependencies'] | package['devDependencies']
    def installed(name):
        file = npm/name/'package.json'
        return json.loads(file.read_text())['version'] if file.exists() else None
    if any(installed(k) != v for k, v in wanted.items()):
        exe = shutil.which('npm')
        if not exe: sys.exit("docs: the site's widgets and math need npm, and there is none on the PATH. Install Node.js (Debian: apt-get install npm; macOS: brew install node), then run this again.")
        print('docs: installing', ', '.join(wanted), 'into docs/node_modules', flush=True)
        done = subprocess.run([exe, 'install', '--no-audit', '--no-fund', '--no-package-lock', '--ignore-scripts', '--loglevel=error'], cwd=docs)
        if done.returncode: sys.exit('docs: npm could not install the packages of docs/package.json (see its message above); the first build needs a network.')
    fresh(assets)
    for src, dest in served.items():
        (assets/dest).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(npm/src, assets/dest)


def unevaluated(nb):
    "Mark the cells that only demonstrate, lest nbdev run those with an import in them: pages show stored outputs."
    for cell in nb['cells']:
        code = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or re.search(r'^#\|\s*(export|exec_doc|eval)', code, re.M): continue
        try: tree = ast.parse(code)
        except SyntaxError: tree = None   # magics
        if tree is None or any(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.walk(tree)): cell['source'] = '#| eval: false\n' + code
    return nb


def stage():
    "Copy the pages of the site, and all that is not a notebook, to where nbdev processes them; returns what was wrong."
    missing = [o for o in pages.notebooks() if not (root/'nbs'/o).exists()]
    if missing: sys.exit('docs: _quarto.yml lists pages that do not exist under nbs/: ' + ', '.join(missing))
    fresh(staged)
    wrong = []
    for file in sorted((root/'nbs').rglob('*')):
        path = file.relative_to(root/'nbs')
        if not file.is_file() or any(o[0] in '._' for o in path.parts) or 'runs' in path.parts: continue
        if file.suffix == '.ipynb' and path.as_posix() not in pages.notebooks(): continue
        (staged/path).parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != '.ipynb': shutil.copy2(file, staged/path)
        else:
            nb = json.loads(file.read_text(encoding='utf-8'))
            wrong += [f'nbs/{path.as_posix()}: put this in a cell below the title, nbdev drops it here: {o}' for o in markup.lost(nb)]
            (staged/path).write_text(json.dumps(unevaluated(nb)), encoding='utf-8')
    return wrong


def process():
    "Run nbdev's processors; returns page -> notebook, and copies the other files to where Sphinx reads."
    from nbdev.serve import proc_nbs
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    proc = Path(proc_nbs(staged.relative_to(root).as_posix(), force=True, n_workers=min(4, os.cpu_count() or 1)))
    shutil.copytree(proc, fresh(source), ignore=shutil.ignore_patterns('*.ipynb', '_quarto.yml'), dirs_exist_ok=True)
    return {o: json.loads((proc/o).read_text(encoding='utf-8')) for o in pages.notebooks()}


def convert(notebooks):
    "Turn processed notebooks into the source tree that Sphinx reads; returns what was wrong, one line each."
    wrong, shown = [], {pages.docname(path): markup.documented(nb) for path, nb in notebooks.items()}
    for path, nb in notebooks.items():
        nb, faults = markup.convert(nb, pages.docname(path), shown)
        wrong += [f'nbs/{path}: {o}' for o in faults]
        if path == 'index.ipynb': nb['cells'].append(markup.md_cell(toctrees()))
        (source/f'{pages.docname(path)}.ipynb').write_text(json.dumps(nb), encoding='utf-8')
    return wrong


def toctrees():
    "The order of pages, as Sphinx wants it, a tree per section."
    trees = []
    for section, paths in pages.sections():
        names = [pages.docname(o) for o in paths if o != 'index.ipynb']
        if names: trees.append('\n'.join(['```{toctree}', ':hidden:', *([f':caption: {section}'] if section else []), '', *names, '```']))
    return '\n\n'.join(trees)


def sphinx(out):
    "Make the pages; returns Sphinx's warnings and errors, one line each."
    from sphinx.cmd.build import build_main
    said = StringIO()
    with redirect_stderr(said): code = build_main(['-q', '-E', '-a', '-b', 'html', '-c', str(docs), '-d', str(docs/'_build'/'doctrees'), '--no-color', str(source), str(out)])
    lines = [o.replace(str(source) + os.sep, '') for o in said.getvalue().splitlines() if o.strip()]
    return lines or ([f'Sphinx ended with code {code}'] if code else [])


def tidy(out):
    "Mend what is no valid HTML: paragraphs in the summaries of folded cells."
    fold = re.compile(r'<summary aria-label="Toggle hidden content">\s*<p class="collapsed admonition-title">(.*?)</p>.*?</summary>', re.S)
    for page in out.rglob('*.html'):
        text = page.read_text(encoding='utf-8')
        if fold.search(text): page.write_text(fold.sub(r'<summary><span>\1</span></summary>', text), encoding='utf-8')


def twins(out):
    "A Markdown twin beside each page, under the name that nbdev gives it, and `llms.txt`, which lists them."
    for path in pages.notebooks(): (out/f'{pages.docname(path)}.html.md').write_text(readme.text(path), encoding='utf-8')
    shutil.copy2(root/'nbs'/'llms.txt', out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=root/'_docs', help='folder for the site, replaced when it exists (default: _docs)')
    out = parser.parse_args().out.resolve()
    if out.exists() and not (out/'.buildinfo').exists() and any(out.iterdir()): sys.exit(f'docs: {out} is not empty and holds no site; name another folder.')
    os.chdir(root)
    wrong = stage()
    scripts()
    print('docs: processing', len(pages.notebooks()), 'notebooks', flush=True)
    wrong += convert(process())
    print('docs: making the pages', flush=True)
    wrong += sphinx(fresh(html))   # myst-nb leaves a folder beside its output, so not right at `out`
    shutil.copytree(html, fresh(out), dirs_exist_ok=True)
    for path in pages.notebooks():
        dest = out/'notebooks'/path
        dest.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root/'nbs'/path, dest)
    tidy(out)
    twins(out)
    wrong += check.site(out)
    if wrong: sys.exit('\n'.join(wrong) + f'\ndocs: {len(wrong)} problem{"s"[:len(wrong) > 1]}, listed above; the pages made so far are in {out}')
    print(f'docs: done. Open {out/"index.html"}, or serve it: {Path(sys.executable).name} -m http.server --directory {out}')


if __name__ == '__main__': main()
