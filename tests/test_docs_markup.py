"The offline site's conversion of Quarto's markup, and its reading of finished pages."
import re, sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'docs'))
import check, markup, pages, usage


def md(*sources): return [{'cell_type': 'markdown', 'metadata': {}, 'source': o} for o in sources]


def code(source, *outputs): return {'cell_type': 'code', 'metadata': {}, 'source': source, 'outputs': list(outputs)}


def shows(mime, data): return {'output_type': 'display_data', 'metadata': {}, 'data': {mime: data}}


def stream(text, name='stdout'): return {'output_type': 'stream', 'name': name, 'text': text}


def convert(*cells, shown=None): return markup.convert({'cells': list(cells), 'metadata': {}}, 'a/b', shown)


def prose(source):
    "One markdown cell, converted; nothing may be wrong with it."
    nb, faults = convert(*md(source))
    assert not faults
    return nb['cells'][0]['source']


png = shows('image/png', 'iVBORw0KGgo=')


def test_pages_follow_quarto():
    assert pages.notebooks()[0] == 'index.ipynb' and pages.docname('lessons/20_lr_range_test.ipynb') == 'lessons/lr_range_test'
    assert pages.docname('core/03a_glyph_fonts.ipynb') == 'core/glyph_fonts' and pages.docname('index.ipynb') == 'index'
    found = pages.sections(['a.ipynb', {'section': 'S', 'contents': ['b.ipynb', {'text': 'C', 'href': 'c.ipynb'}]}])
    assert found == [(None, ['a.ipynb']), ('S', ['b.ipynb', 'c.ipynb'])]


def test_front_matter():
    nb, faults = convert({'cell_type': 'raw', 'metadata': {}, 'source': '---\ndescription: What it *is*\ntitle: A title\n---\n\n'})
    assert nb['cells'][0]['source'] == '# A title\n\n:::{div} lead\nWhat it *is*\n:::' and not faults


@pytest.mark.parametrize('text, expected', [
    ('# T\n\n> sub', []), ('# T\n> sub\n- skip_exec: true', []), ('no title', []),
    ('# T\n> sub\n\nMore', ['More']), ('# T\n> one\n> two', ['> two'])])
def test_words_that_nbdev_drops(text, expected): assert markup.lost({'cells': md(text)}) == expected


def test_callouts():
    assert prose('::: {.callout-note}\n## Think\ntext\n:::') == ':::{admonition} Think\n:class: note\n\ntext\n:::'
    assert prose('::: {.callout-warning}\ntext\n:::').startswith(':::{admonition} Warning\n:class: warning')
    assert prose('::: {.callout-tip title="A hint" collapse="true"}\ntext\n:::').startswith(':::{dropdown} A hint\n:class-container: callout-tip')
    assert ':open:' in prose('::: {.callout-tip collapse="false"}\n## H\ntext\n:::')
    assert prose('::::: {.wide .quiet}\ntext\n:::::').startswith(':::::{div} wide quiet')


def test_references():
    text = prose('## Part {#sec-part}\n\n$$\nx\n$$ {#eq-x}\n\nSee @eq-x in @sec-part, not `@fig-code`.')
    assert '(a-b-sec-part)=\n## Part' in text and '$$ (a-b-eq-x)' in text
    assert 'See {eq}`a-b-eq-x` in [Part](#a-b-sec-part), not `@fig-code`.' in text


def test_code_blocks_stay_as_they_are():
    text = '```python\n@fig-x\n::: {.callout-note}\n[a](../core/00_errors.ipynb)\n```'
    assert prose(text) == text


def test_links():
    assert prose('[a](../core/00_errors.ipynb#say) [b](02_b.ipynb)') == '[a](../core/errors.ipynb#say) [b](b.ipynb)'
    assert prose('[n](https://example.org/1_a.ipynb)') == '[n](https://example.org/1_a.ipynb)'
    shown = {'core/errors': {'say', 'result', 'result.best'}}
    for name, place in [('say', '#say'), ('result.best', '#result.best'), ('result.plot', '#result'), ('gone', '')]:
        nb, _ = convert(*md(f'[`x`]({pages.url}/core/errors.html#{name})'), shown=shown)
        assert nb['cells'][0]['source'] == f'[`x`](/core/errors.ipynb{place})'


def test_figures_are_numbered_in_the_order_of_the_page():
    cell = code('#| label: fig-curve\n#| fig-cap: "A *curve*; see @fig-file"\n#| fig-alt: "It falls"\nplot()', stream('done'), png)
    nb, faults = convert(cell, *md('![A file](a.png){#fig-file fig-alt="A square" width=50%}\n\n@fig-curve'))
    assert not faults
    shown, picture, text = nb['cells']
    assert shown['source'] == 'plot()' and [o['output_type'] for o in shown['outputs']] == ['stream']
    assert picture['metadata'] == {'tags': ['remove-input'], 'mystnb': {'image': {'alt': 'It falls'},
        'figure': {'name': 'a-b-fig-curve', 'caption': 'Figure 1: A *curve*; see [Figure 2](#a-b-fig-file)'}}}
    assert text['source'] == '```{figure} a.png\n:name: a-b-fig-file\n:alt: A square\n:width: 50%\n\nFigure 2: A file\n```\n\n[Figure 1](#a-b-fig-curve)'


def test_faults_are_named():
    _, faults = convert(*md('@fig-none {{< include x >}}\n\n![](a.png)'), code('draw()', png))
    assert len(faults) == 4
    for o, words in zip(faults, ['{{<', '@fig-none', 'a.png', "'draw()'"]): assert words in o


def test_hidden_and_folded_code():
    nb, _ = convert(
        code('#| echo: false\nMarkdown(x)', shows('text/markdown', 'It is **2**')), code('#| include: false\nx', stream('x')),
        code('#| code-fold: true\n#| code-summary: "How"\nplot()'), code('#| warning: false\nf()', stream('w', 'stderr'), stream('o')),
        code('#| echo: false\nprint(1)', stream('1')))
    text, folded, warned, silent = nb['cells']
    assert text['cell_type'] == 'markdown' and text['source'] == 'It is **2**'
    assert folded['metadata'] == {'tags': ['hide-input'], 'mystnb': {'code_prompt_show': 'How', 'code_prompt_hide': 'How'}}
    assert [o['name'] for o in warned['outputs']] == ['stdout'] and silent['metadata']['tags'] == ['remove-input']


def exported(name, line, kind='def'):
    "What nbdev makes of an exported definition: its documentation."
    text = f'---\n\n[source](https://example.org/a.py#L{line}){{target="_blank" style="x"}}\n\n### {name}\n\n```python\ndef {name}(\n    a:NoneType=None, # it\n)->__main__.A:\n```\n\n*Does `a`.*'
    return code(f"#| echo: false\n#| output: asis\nshow_doc({name})", shows('text/markdown', text))


def test_show_doc():
    source = '#| code-fold: show\n#| code-summary: "Exported source"\ndef f(a): pass'
    nb, faults = convert(*md('## Part'), exported('f', 3), code(source), exported('Result', 9))
    _, doc, folded, kind = nb['cells']
    assert doc['source'].startswith('### `f`\n\n::::{div} api\n[source](https://example.org/a.py#L3){.api-source}\n\n```python\ndef f(')
    assert '    a=None, # it\n)->A:' in doc['source']
    assert folded['metadata']['tags'] == ['hide-input'] and 'class Result(' in kind['source'] and not faults
    assert markup.documented({'cells': [exported('RangeTest.plot', 1), code('x')]}) == {'rangetest.plot'}


def test_definitions_of_one_cell_come_in_the_order_of_the_source():
    source = code('#| code-fold: show\n#| code-summary: "Exported source"\nclass A: pass\ndef b(): pass')
    nb, _ = convert(exported('b', 20), source, exported('A', 10), code('b()'))
    assert [c['source'].split('\n')[0] for c in nb['cells']] == ['## `A`', '## `b`', 'class A: pass', 'b()']


def test_constants_stay_above_what_follows():
    fold = '#| code-fold: show\n#| code-summary: "Exported source"\n'
    nb, _ = convert(exported('f', 20), code(fold + 'SIZE = 3'), code(fold + 'def f(): pass'))   # as nbdev leaves them
    assert [c['source'].split('\n')[0] for c in nb['cells']] == ['SIZE = 3', '## `f`', 'def f(): pass']
    assert [c['metadata'].get('tags') for c in nb['cells']] == [[], None, ['hide-input']]


def test_slug(): assert [markup.slug(o) for o in ('Range test: why?', 'Learner.fit', 'lr_range_test')] == ['range-test-why', 'learner.fit', 'lr_range_test']


def test_finished_pages_are_read(tmp_path):
    (tmp_path/'b').mkdir()
    (tmp_path/'a.css').write_text('@font-face {src: url(https://example.org/f.woff)}')
    (tmp_path/'b'/'c.html').write_text('<p id="here"><a href="../index.html">x</a><a href="https://example.org">elsewhere is fine</a>')
    (tmp_path/'index.html').write_text('<a href="b/c.html#here">x</a><a href="b/c.html#gone">x</a><a href="d.html">x</a><img src="//example.org/i.png" alt="x"><img src="data:x">')
    assert check.site(tmp_path) == ['index.html: fetches //example.org/i.png', 'index.html: no such place: b/c.html#gone',
        'index.html: no such file: d.html', 'index.html: picture with no alt text: data:x', 'a.css: fetches https://example.org/f.woff']


# ---- what is new for readers: the list of a lesson, shorter types, the lessons of a function

def test_the_list_of_a_lesson_becomes_a_card():
    text = prose(f'''- **Time:** a minute.
- **Needs:** nothing.
- **Before it:** nothing.
- **In JupyterLab:** `dlpractice lab`. Or [download it]({pages.raw}/nbs/a/1_b.ipynb).
- **In the cloud:** [Colab]({pages.colab}/nbs/a/1_b.ipynb)''')
    assert text.startswith('::::{div} about\n\n- **Time:**') and text.endswith('{.button}\n\n::::')
    assert '<a class="button" href="../notebooks/a/1_b.ipynb" download>download it</a>' in text


def test_types_are_as_one_types_them():
    assert markup.short_types('model:torch.nn.modules.module.Module, x:torch.Tensor=None, p:pathlib.Path') == 'model:nn.Module, x:torch.Tensor=None, p:Path'
    assert markup.short_types(')->numpy.ndarray: # a numpy.int') == ')->np.ndarray: # a np.int'


def test_lessons_of_functions():
    lessons = [o for o in pages.notebooks() if o.startswith('lessons/')]
    assert 'lessons/20_lr_range_test.ipynb' in usage.lessons_of('unchanged', 'core/02_snapshots.ipynb')
    assert usage.lessons_of('lanczos', 'core/10a_lanczos.ipynb') and usage.lessons_of('lab', 'core/06_cli.ipynb') == []
    assert usage.lessons_of('lr_range_test', 'lessons/20_lr_range_test.ipynb') == []
    assert len(usage.lessons_of('say', 'core/00_errors.ipynb')) == min(3, len(lessons))


# ---- `_quarto.yml`: Quarto refuses a key that it does not know

anything, menu = object(), {'text', 'href', 'icon', 'aria-label', 'section', 'contents', 'menu', 'file'}
navigation = {'title', 'logo', 'background', 'foreground', 'search', 'left', 'right', 'pinned', 'collapse', 'tools', 'id', 'style', 'type', 'contents', 'border', 'alignment', 'collapse-level'}
known = {
    'project': {'type', 'output-dir', 'resources', 'preview', 'render', 'lib-dir', 'execute-dir', 'pre-render', 'post-render'},
    'project.preview': {'port', 'host', 'browser', 'watch-inputs', 'navigate'},
    'website': {'title', 'description', 'site-url', 'site-path', 'repo-url', 'repo-branch', 'repo-subdir', 'repo-actions', 'search', 'page-navigation', 'back-to-top-navigation', 'bread-crumbs',
                'navbar', 'sidebar', 'page-footer', 'favicon', 'image', 'open-graph', 'twitter-card', 'google-analytics', 'cookie-consent', 'reader-mode', 'margin-header', 'body-header'},
    'website.navbar': navigation, 'website.sidebar': navigation,
    'format': {'html', 'commonmark'},
    'format.html': {'theme', 'css', 'toc', 'toc-depth', 'toc-title', 'toc-location', 'code-copy', 'code-tools', 'code-fold', 'code-line-numbers', 'code-overflow', 'code-link', 'html-math-method',
                    'fig-responsive', 'fig-width', 'fig-height', 'anchor-sections', 'smooth-scroll', 'link-external-newwindow', 'include-in-header', 'keep-md', 'highlight-style', 'lang'},
    'format.html.theme': {'light', 'dark'}}
top = {'project', 'website', 'format', 'format-links', 'metadata-files', 'execute', 'lang', 'filters', 'resources'}


def unknown_keys(d):
    "Keys and values that Quarto would refuse, or that lead nowhere."
    found = [k for k in d if k not in top]
    def at(path):
        o = d
        for k in path.split('.'): o = o.get(k, {}) if isinstance(o, dict) else {}
        return o if isinstance(o, dict) else {}
    found += [f'{path}.{k}' for path, keys in known.items() for k in at(path) if k not in keys]
    def entries(o):
        for e in o:
            if isinstance(e, dict):
                found.extend(f'entry {k}' for k in e if k not in menu)
                entries(e.get('contents', []))
            elif not str(e).endswith('.ipynb'): found.append(f'entry {e}')
    entries(at('website.sidebar').get('contents', []))
    entries(o for side in ('left', 'right') for o in at('website.navbar').get(side, []))
    html = at('format.html')
    if html.get('html-math-method') not in ('plain', 'webtex', 'gladtex', 'mathml', 'mathjax', 'katex'): found.append('format.html.html-math-method')
    if at('website.sidebar').get('style') not in ('docked', 'floating'): found.append('website.sidebar.style')
    if at('project').get('type') not in ('default', 'website', 'book', 'manuscript'): found.append('project.type')
    return found


def settings(): return yaml.safe_load((pages.root/'_quarto.yml').read_text(encoding='utf-8'))


def test_quarto_knows_every_key(): assert unknown_keys(settings()) == []


def test_what_the_site_promises_is_asked_of_quarto():
    d = settings()
    site, html = d['website'], d['format']['html']
    assert site['search'] and site['page-navigation'] and site['navbar'] and html['toc'] and html['code-copy'] and set(html['theme']) == {'light', 'dark'}
    assert d['format']['commonmark'] and 'llms.txt' in d['project']['resources'] and any(isinstance(o, dict) and o.get('format') == 'commonmark' for o in d['format-links'])
    assert [o for o, _ in pages.sections()] == ['Start', 'Lessons', 'Claims', 'Guides', 'API']


def test_keys_that_quarto_does_not_know_are_seen():
    d = settings()
    d['websit'] = d['website']['side-bar'] = d['format']['html']['math'] = 1
    d['website']['sidebar']['contents'] += ['page.html', {'sektion': 'x'}]
    d['format']['html']['html-math-method'] = 'mathjaxx'
    assert len(unknown_keys(d)) == 6


# ---- options of cells

both = {'echo', 'include', 'output', 'warning', 'label', 'fig-cap', 'fig-alt', 'code-fold', 'code-summary', 'classes', 'eval'}    # Quarto's, that `markup.py` reads or that do nothing on a finished page
of_nbdev = {'default_exp', 'export', 'exports', 'hide', 'exec_doc'}


def strange_options(source): return [o for o in re.findall(r'^#\|[ \t]*([\w-]+)', source, re.M) if o not in both | of_nbdev]


@pytest.mark.parametrize('path', pages.notebooks())
def test_options_of_cells_are_known_to_both_builders(path):
    assert [o for c in usage.cells(path) for o in strange_options(c)] == []


def test_strange_options_are_seen(): assert strange_options('#| layout-ncol: 2\n#| echo: false\n#|column: page\nx') == ['layout-ncol', 'column']
