"""Makes README.md from `nbs/index.ipynb`, CONTRIBUTING.md from `nbs/guides/contribute.ipynb`, and `nbs/llms.txt`, the list of all pages.

`readme.py`: writes them. `readme.py --check`: only says which are out of step, exit code 1."""
import json, posixpath, re, sys
from pathlib import Path

import yaml

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'docs'))
import pages

made = {'README.md': 'index.ipynb', 'CONTRIBUTING.md': 'guides/contribute.ipynb'}
link = re.compile(r'(\]\()(?!\w+:|#)([^)\s#]+)\.ipynb(#[^)\s]*)?\)')


def prose(source, name):
    "Markdown without Quarto's markup, its links to notebooks leading to the site."
    source = re.sub(r'\A---\n.*?\n---\n?', '', source, flags=re.S)
    source = re.sub(r'<!--.*?-->\n?', '', source, flags=re.S)
    source = re.sub(r'^(#{1,6} .*?)\s*\{[#.][^}]*\}[ \t]*$', r'\1', source, flags=re.M)
    folder = posixpath.dirname(name)
    def address(m): return f'{m[1]}{pages.url}/{pages.docname(posixpath.normpath(posixpath.join(folder, m[2])) + ".ipynb")}.html{m[3] or ""})'
    source = link.sub(address, source)
    def callout(m): return '\n'.join(f'> {o}'.rstrip() for o in [f'**{m[1].title()}.**', *m[2].strip().split('\n')])
    return re.sub(r'^:::+ *\{\.callout-(\w+)[^}]*\}\n(.*?)\n:::+[ \t]*$', callout, source, flags=re.S | re.M).strip()


def caption(cell, name):
    "The caption of a picture, which is left to the site; only where the code that draws it is hidden."
    m = re.search(r'^#\| *fig-cap: *(.*)$', ''.join(cell['source']), re.M)
    return prose(yaml.safe_load(m[1]), name) if m and re.search(r'^#\| *echo: *false', ''.join(cell['source']), re.M) else ''


def fenced(text, language=''):
    "A code block, whose fence is longer than any in the text."
    fence = '`'*max([3, *(len(o) + 1 for o in re.findall(r'^`{3,}', text, re.M))])
    return f'{fence}{language}\n{text}\n{fence}'


def outputs(cell, name):
    "What a code cell printed or gave, as text; of pictures the captions."
    for o in cell['outputs']:
        if o['output_type'] == 'stream': text = ''.join(o['text'])
        elif 'text/markdown' in o.get('data', {}):
            yield prose(''.join(o['data']['text/markdown']), name)
            continue
        elif 'image/png' in o.get('data', {}):
            yield caption(cell, name)
            continue
        else: text = ''.join(o.get('data', {}).get('text/plain', ''))
        if text.strip(): yield fenced(text.rstrip())


def blocks(name):
    "The parts of the Markdown made from notebook `name`."
    for cell in json.loads((root/'nbs'/name).read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': yield prose(source, name)
        if cell['cell_type'] != 'code': continue
        directives = re.findall(r'^#\| *(.*?) *$', source, re.M)
        code = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()
        if 'hide' in directives or any(o.startswith('default_exp') for o in directives) or 'include: false' in directives: continue
        if code and 'echo: false' not in directives: yield fenced(code, 'python')
        yield from outputs(cell, name)


def llms():
    "The site's pages with a line about each, as llmstxt.org has it; the links lead to their Markdown twins."
    lines = [f'# {pages.title}', '', f'> {pages.description}']
    for section, paths in pages.sections():
        lines += ['', f'## {section or pages.title}', '']
        for path in paths:
            first = next(c for c in json.loads((root/'nbs'/path).read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown')
            title, about = re.match(r'# (.*?)\n+> (.*)', ''.join(first['source'])).groups()
            lines.append(f'- [{title}]({pages.url}/{pages.docname(path)}.html.md): {about}')
    return '\n'.join(lines) + '\n'


def text(name):
    "Notebook `name` as plain Markdown."
    return '\n\n'.join(o for o in blocks(name) if o) + '\n'


def marked(name): return f'<!-- Made from nbs/{name} by tools/readme.py (make export). Edit that. -->\n\n{text(name)}'


if __name__ == '__main__':
    stale = []
    for file, new in {**{k: marked(v) for k, v in made.items()}, 'nbs/llms.txt': llms()}.items():
        path = root/file
        if path.exists() and path.read_text(encoding='utf-8') == new: continue
        if '--check' in sys.argv: stale.append(file)
        else:
            path.write_text(new, encoding='utf-8')
            print('wrote', file)
    if stale: sys.exit(f'{", ".join(stale)} differ from the notebooks: run make export')
