"""Turns a notebook that nbdev has processed for Quarto into one for MyST: front matter, callouts, figures with captions and
alt texts, folded and hidden code, cross-references, and the tables of `show_doc`."""
import re

import yaml

import pages, usage

admonitions = {'note', 'tip', 'warning', 'caution', 'important'}
kinds = {'fig': 'Figure', 'sec': 'Section'}
option = re.compile(r'^#\|[ \t]*(.*?)[ \t]*$')
reference = re.compile(r'(`+)(?:(?!\1).)+?\1|@((?:fig|eq|sec)-[\w-]+)')       # a code span stays; a reference is group 2
heading_id = re.compile(r'^(#{1,6} .*?)\s*\{#([\w-]+)\}\s*$')
div = re.compile(r'^(:{3,})\s*\{(.*)\}\s*$')
picture = re.compile(r'^!\[(?P<cap>.*)\]\((?P<src>[^)\s]+)\)(?:\{(?P<attrs>[^}]*)\})?\s*$')
notebook_link = re.compile(r'(\]\()(?!\w+:)([^)\s#]+)\.ipynb(#[^)\s]*)?\)')
site_link = re.compile(rf'(\]\(){re.escape(pages.url)}/([\w/-]+)\.(?:html|md)((?:#[^)\s]*)?)\)')   # as nbdev links names in backticks
defines = re.compile(r'^\s*(?:async )?(?:def|class) ', re.M)
about = ['Time', 'Needs', 'Before it', 'In JupyterLab', 'In the cloud']   # the list at the top of each lesson
about_item = re.compile(rf'^- \*\*({"|".join(about)}):\*\* ')
unknown = re.compile(r'\{\{<|@tbl-|\{#tbl-|\.panel-tabset|@lst-')


def slug(title):
    "The id of a heading, as Quarto makes it: the lower-case letters, digits, dots and hyphens of its text."
    return re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', title.lower()).strip())


def short_types(text):
    "A signature with the names that one types: `nn.Module`, not `torch.nn.modules.module.Module`."
    text = re.sub(r'\btorch\.nn\.modules\.\w+\.(\w+)', r'nn.\1', text)
    text = re.sub(r'\btorch\.(?:_tensor|optim\.optimizer|utils\.data\.\w+)\.(\w+)', r'\1', text)
    return re.sub(r'\bnumpy\.(\w+)', r'np.\1', re.sub(r'\b(?:pathlib|collections\.abc|dlpractice\.\w+|matplotlib\.axes\._axes|pandas\.core\.\w+)\.(\w+)', r'\1', text))


def md_cell(source): return {'cell_type': 'markdown', 'id': 'cell', 'metadata': {}, 'source': source}


def options(source):
    "The `#| key: value` lines at the top of a cell as a dict, and the code below them."
    lines, found = source.split('\n'), {}
    while lines and (m := option.match(lines[0])):
        key, sep, value = m[1].partition(':')
        found[key.strip()] = yaml.safe_load(value) if sep else True
        lines.pop(0)
    return found, '\n'.join(lines).strip('\n')


def attributes(text):
    "`#id .class key=\"value\"` as (id, classes, dict)."
    ids, classes = re.findall(r'(?:^|\s)#([\w-]+)', text), re.findall(r'(?:^|\s)\.([\w-]+)', text)
    return (ids or [None])[0], classes, {k: a or b for k, a, b in re.findall(r'([\w-]+)=(?:"([^"]*)"|(\S+))', text)}


def segments(text):
    "(is it code?, lines) for each stretch of `text` inside and outside fenced blocks."
    fence, part, code = None, [], False
    for line in text.split('\n'):
        m = re.match(r'^\s*(`{3,}|~{3,})', line)
        if fence is None and m:
            yield False, part
            fence, part = m[1], [line]
        elif fence and m and m[1].startswith(fence) and not line.strip().strip(fence[0]):
            yield True, part + [line]
            fence, part = None, []
        else: part.append(line)
    yield bool(fence), part


def labels(cells):
    "Label -> text of a reference to it, figures numbered in the order of the page."
    found = {}
    def add(label, title):
        number = sum(o.startswith('fig-') for o in found) + 1
        found[label] = title or f'Figure {number}'
    for cell in cells:
        if cell['cell_type'] == 'code':
            label = str(options(cell['source'])[0].get('label', ''))
            if label.startswith('fig-'): add(label, None)
            continue
        for line in (l for code, part in segments(cell['source']) if not code for l in part):
            if (m := picture.match(line)) and m['attrs'] and (name := attributes(m['attrs'])[0]): add(name, None)
            elif m := heading_id.match(line): add(m[2], m[1].lstrip('# '))
    return found


def in_order(cells):
    "Where one cell defines several things, nbdev shows the last first: back to the order of the source, with the source below."
    made, run = [], []
    def line(cell):
        shown = ''.join(''.join(o['data'].get('text/markdown', '')) for o in cell.get('outputs', []) if 'data' in o)
        m = re.search(r'^\[source\]\([^)]*#L(\d+)\)', shown, re.M)
        return int(m[1]) if m else None
    def flush():
        docs = {re.search(r'show_doc\((.*?)\)', o['source'])[1].split('.')[-1]: line(o) for o in run if is_doc(o)}
        keys, last = [], 0
        for o in run:
            own = [docs[n] for n in re.findall(r'^(?:async )?(?:def|class) (\w+)', o['source'], re.M) if n in docs]
            if is_doc(o): last = line(o)
            keys.append((last, 0) if is_doc(o) else (max(own), 1) if own and None not in own else (last, -1))   # one with nothing shown was moved below the next
        if None not in docs.values(): run[:] = [o for _, o in sorted(zip(keys, run), key=lambda ko: ko[0])]
        made.extend(run)
        run.clear()
    for cell in cells:
        if is_doc(cell) or run and 'Exported source' in cell['source']: run.append(cell)
        else:
            flush()
            made.append(cell)
    flush()
    return made


def is_doc(cell): return cell['cell_type'] == 'code' and options(''.join(cell['source']))[1].startswith('show_doc(')


class Page:
    "The conversion of one notebook: knows its labels (Sphinx wants them unique over all pages, hence the prefix), collects faults."
    def __init__(self, cells, name, shown):
        self.name, self.labels, self.prefix, self.shown, self.faults, self.level = name, labels(cells), name.replace('/', '-') + '-', shown, [], 1

    def text(self, line):
        "References and links of a line of prose."
        def ref(m):
            if not m[2]: return m[0]
            if m[2].startswith('eq-'): return f'{{eq}}`{self.prefix}{m[2]}`'
            if m[2] not in self.labels: self.faults.append(f'@{m[2]} refers to nothing on this page')
            return f'[{self.labels.get(m[2], m[2])}](#{self.prefix}{m[2]})'
        line = reference.sub(ref, line)
        line = site_link.sub(self.place, line)
        return notebook_link.sub(lambda m: f'{m[1]}{pages.docname(m[2])}.ipynb{m[3] or ""})', line)

    def place(self, m):
        "A link that nbdev made from a name, to a page of this site: methods that are not shown are found at their class."
        if m[2] not in self.shown: return m[0]
        name = m[3].lstrip('#')
        while name and name not in self.shown[m[2]]: name = name.rpartition('.')[0]
        return f'{m[1]}/{m[2]}.ipynb{"#"*bool(name)}{name})'

    def prose(self, source):
        "A markdown cell."
        if m := unknown.search(source): self.faults.append(f'markup that the offline site does not know: {m[0]}')
        return '\n'.join(l for code, part in segments(source) for l in (part if code else self.lines(part)))

    def lines(self, part):
        "Prose outside code blocks: callouts, headings, pictures, equations, references."
        out, part = [], list(part)
        while part:
            line = part.pop(0)
            if m := div.match(line): out += self.div(m[1], m[2], part)
            elif m := heading_id.match(line): out += [f'({self.prefix}{m[2]})=', self.text(m[1])]
            elif m := re.match(r'^\$\$\s*\{#(eq-[\w-]+)\}\s*$', line): out.append(f'$$ ({self.prefix}{m[1]})')
            elif m := picture.match(line): out += self.picture(m)
            elif m := about_item.match(line):
                out += ['::::{div} about', '']*(m[1] == about[0]) + [self.buttons(line)] + ['', '::::']*(m[1] == about[-1])
            else: out.append(self.text(line))
            if m := re.match(r'^(#+) ', out[-1]): self.level = len(m[1])
        return out

    def buttons(self, line):
        "The ways to run a lesson: its links, the first of which leads to this site's own copy of the notebook."
        up = '../'*self.name.count('/')
        line = re.sub(rf'\[([^]]*)\]\({re.escape(pages.raw)}/nbs/([^)]*)\)', rf'<a class="button" href="{up}notebooks/\2" download>\1</a>', line)
        return self.text(re.sub(r'(\[[^]]*\]\(https://colab\.[^)]*\))', r'\1{.button}', line))

    def div(self, colons, attrs, part):
        "The first lines of a fenced block: a callout, or a plain one with classes."
        _, classes, values = attributes(attrs)
        kind = next((o[8:] for o in classes if o.startswith('callout-')), None)
        if kind not in admonitions: return [f'{colons}{{div}} {" ".join(classes)}']
        while part and not part[0].strip(): part.pop(0)
        title = values.get('title')
        if part and (m := re.match(r'^#+ (.*)$', part[0])): title = m[1]; part.pop(0)
        title = self.text(title or kind.capitalize())
        if 'collapse' not in values: return [f'{colons}{{admonition}} {title}', f':class: {kind}', '']
        return [f'{colons}{{dropdown}} {title}', *([':open:'] if values['collapse'] == 'false' else []), f':class-container: callout-{kind}', '']

    def picture(self, m):
        "A picture on a line of its own: a figure when it has a label."
        name, _, values = attributes(m['attrs'] or '')
        alt = values.get('fig-alt') or m['cap']
        if not alt: self.faults.append(f'picture {m["src"]} has no alt text')
        directive = [f':alt: {alt}', *([f':width: {values["width"]}'] if 'width' in values else [])]
        if not name: return [f'```{{image}} {m["src"]}', *directive, '```']
        return [f'```{{figure}} {m["src"]}', f':name: {self.prefix}{name}', *directive, '', self.caption(name, m['cap']), '```']

    def caption(self, label, text): return f'{self.labels[label]}: {self.text(str(text))}' if text else self.labels[label]

    def show_doc(self, source):
        "What `show_doc` wrote: heading, then signature, docstring and parameters in a box, with the link to the source."
        link = re.search(r'^\[source\]\(([^)]*)\)\{.*\}$', source, re.M)
        head = re.search(r'^#+ (.*)$', source, re.M)
        body = source[head.end():].strip().replace('__main__.', '').replace(':NoneType=None', '=None')
        if head[1].split('.')[-1][0].isupper(): body = re.sub(r'^def ', 'class ', body, count=1, flags=re.M)
        where = [f'[source]({link[1]}){{.api-source}}', ''] if link else []
        lessons = usage.lessons_of(head[1].split('.')[0], pages.notebook(self.name)) if pages.notebook(self.name) else []
        used = ['', ':::{div} api-lessons', 'Lesson: ' + ' · '.join(f'[{usage.title(o)}](/{pages.docname(o)}.ipynb)' for o in lessons), ':::']*bool(lessons)
        return '\n'.join(['#'*min(3, self.level+1) + f' `{head[1]}`', '', '::::{div} api', *where, self.prose(re.sub(r'^```python\n.*?^```', lambda m: short_types(m[0]), body, flags=re.S | re.M)), *used, '::::'])

    def code(self, cell):
        "A code cell as one or several cells."
        opts, source = options(cell['source'])
        shown, outputs = opts.get('echo', True) is not False, cell.get('outputs', [])
        if opts.get('include') is False: return []
        if opts.get('output') is False: outputs = []
        if opts.get('warning') is False: outputs = [o for o in outputs if o.get('name') != 'stderr']
        marked = [''.join(o['data']['text/markdown']) for o in outputs if 'text/markdown' in o.get('data', {})]
        if is_doc(cell): return [md_cell(self.show_doc(o)) for o in marked]
        if not shown and marked and len(marked) == len(outputs): return [md_cell(self.prose(o)) for o in marked]
        for o in outputs:
            if 'text/markdown' in o.get('data', {}): o['data']['text/markdown'] = self.prose(''.join(o['data']['text/markdown']))
        meta = {'tags': [] if shown and source else ['remove-input']}
        exported = opts.get('code-summary') == 'Exported source'
        if shown and opts.get('code-fold') and not (exported and not defines.search(source)):
            summary = 'Source' if exported else opts.get('code-summary', 'Code')
            meta['tags'].append('hide-input')
            meta['mystnb'] = {'code_prompt_show': summary, 'code_prompt_hide': summary}
        pictures = [o for o in outputs if any(k.startswith('image/') for k in o.get('data', {}))]
        rest = [o for o in outputs if o not in pictures]
        made = [{'cell_type': 'code', 'execution_count': None, 'metadata': meta, 'source': source, 'outputs': rest}] if rest or (shown and source) else []
        return made + [self.figure(o, opts, source, o is pictures[-1]) for o in pictures]

    def figure(self, output, opts, source, last):
        "A picture that a cell drew, in a cell of its own; the last one of a cell bears its label and caption."
        alt, label = opts.get('fig-alt'), str(opts.get('label', ''))
        if not alt: self.faults.append(f'a picture without alt text (#| fig-alt) in the cell that begins {source.split(chr(10))[0]!r}')
        meta = {'tags': ['remove-input', *str(opts.get('classes', '')).split()], 'mystnb': {'image': {'alt': ' '.join(str(alt or '').split())}}}
        if label.startswith('fig-') and last: meta['mystnb']['figure'] = {'name': self.prefix + label, 'caption': self.caption(label, opts.get('fig-cap'))}
        return {'cell_type': 'code', 'execution_count': None, 'metadata': meta, 'source': 'picture', 'outputs': [{**output, 'metadata': {}}]}   # myst-nb skips cells with no source

    def front(self, source):
        "The title and the line below it, which nbdev made into front matter."
        fm = yaml.safe_load(source.strip().strip('-'))
        lead = [':::{div} lead', self.text(fm['description']), ':::'] if fm.get('description') else []
        return md_cell('\n'.join([f'# {fm["title"]}', '', *lead]))


def lost(
    nb:dict, # a notebook of ours, as JSON
)->list: # lines of its title cell that nbdev drops: it keeps the title, one quoted line and `- key: value`
    "What no page would show."
    for cell in nb['cells']:
        lines = ''.join(cell['source']).split('\n')
        if cell['cell_type'] != 'markdown' or not any(o.startswith('# ') for o in lines): continue
        quoted = [o for o in lines if o.startswith('> ')]
        return [o for o in lines if o.strip() and not re.match(r'# |> |- .*:', o)] + quoted[1:]
    return []


def documented(
    nb:dict, # a notebook out of `_proc/`, as JSON
)->set: # ids of the headings that `show_doc` makes on its page
    "The names that have a place of their own."
    text = ''.join(''.join(o['data'].get('text/markdown', '')) for c in nb['cells'] if is_doc(c) for o in c['outputs'] if 'data' in o)
    return {slug(o) for o in re.findall(r'^#+ (.*)$', text, re.M)}


def convert(
    nb:dict,    # a notebook out of `_proc/`, as JSON
    name:str='page', # its page
    shown=None, # page -> what `documented` says of it
)->tuple: # (the notebook for MyST, list of faults: what a reader would miss)
    "One page."
    cells = [{**o, 'source': ''.join(o.get('source', []))} for o in nb['cells']]
    cells = in_order(cells)
    page, made = Page(cells, name, shown or {}), []
    for cell in cells:
        source = cell['source']
        if cell['cell_type'] == 'code': made += page.code(cell)
        elif cell['cell_type'] == 'raw' and source.startswith('---'): made.append(page.front(source))
        elif source.strip() and not source.startswith('<!-- WARNING: THIS FILE'): made.append(md_cell(page.prose(source)))
    for n, cell in enumerate(made): cell['id'] = f'cell-{n}'
    meta = {k: v for k, v in nb['metadata'].items() if k in ('kernelspec', 'widgets')}
    meta['language_info'] = {'name': 'python', 'pygments_lexer': 'ipython3'}
    return {'cells': made, 'metadata': meta, 'nbformat': 4, 'nbformat_minor': 5}, page.faults
