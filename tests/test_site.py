"The offline site: complete, no dead link, and nothing on it comes from elsewhere. Read here independently of what builds it."
import json, re, shutil, subprocess, tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from conftest import root, site_pages

pytestmark = pytest.mark.skipif(shutil.which('npm') is None, reason='the offline site needs npm')
loads = {'script': 'src', 'img': 'src', 'iframe': 'src', 'source': 'src', 'video': 'src', 'audio': 'src', 'embed': 'src', 'object': 'data'}
style_address = re.compile(r'''(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)''')


class Page(HTMLParser):
    "Ids, links, what is loaded, and the text of a page."
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded, self.title, self._in = set(), [], [], '', None
        self.feed(path.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self._in = tag
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        if tag == 'link' and a.get('rel') not in ('canonical', 'alternate', 'prev', 'next', 'search', 'index', 'author'): self.loaded.append(a.get('href', ''))
        if a.get(loads.get(tag)): self.loaded.append(a[loads[tag]])
        self.loaded += style_address.findall(a.get('style') or '')
    def handle_data(self, data):
        if self._in == 'title': self.title += data
        if self._in == 'style': self.loaded += style_address.findall(data)
        if self._in == 'script': self.loaded += re.findall(r'''\.src\s*=\s*["']((?:https?:)?//[^"']+)''', data)


@pytest.fixture(scope='session')
def pages(site): return {p: Page(p) for p in sorted(site.rglob('*.html')) if '_static' not in p.parts and 'notebooks' not in p.relative_to(site).parts}


def test_every_page_is_there(site, pages):
    for notebook, name in site_pages.items():
        page = site/f'{name}.html'
        assert page in pages, f'{notebook} has no page'
        assert len(page.read_text(encoding='utf-8')) > 3000


def broken(site, pages):
    "Internal links and anchors that lead nowhere."
    for path, page in pages.items():
        for href in page.links + page.loaded:
            url = urlsplit(href)
            if url.scheme or url.netloc: continue
            to = (path.parent/unquote(url.path)).resolve() if url.path else path
            if to.is_dir(): to /= 'index.html'
            if not to.exists(): yield f'{path.relative_to(site)}: {href}'
            elif url.fragment and to in pages and unquote(url.fragment) not in pages[to].ids: yield f'{path.relative_to(site)}: no anchor {href}'


def foreign(site, pages):
    "What is loaded from outside the site."
    for path, page in pages.items():
        for o in page.loaded:
            if urlsplit(o).netloc or urlsplit(o).scheme not in ('', 'data'): yield f'{path.relative_to(site)}: {o}'
    for sheet in site.rglob('*.css'):
        for o in style_address.findall(sheet.read_text(encoding='utf-8')): yield f'{sheet.relative_to(site)}: {o}'


def test_no_broken_link(site, pages): assert not list(broken(site, pages))


def test_nothing_from_elsewhere(site, pages): assert not list(foreign(site, pages))


def test_the_checks_refuse(tmp_path):
    (tmp_path/'a.html').write_text('<h1 id="x">a</h1><a href="b.html">b</a><a href="#y">y</a><a href="#x">x</a><a href="https://example.org">out</a>'
        '<script src="https://cdn.example.org/a.js"></script><img src="//example.org/a.png"><link rel="stylesheet" href="http://example.org/a.css"><div style="background:url(https://example.org/b.png)"></div>')
    pages = {tmp_path/'a.html': Page(tmp_path/'a.html')}
    assert len(list(broken(tmp_path, pages))) == 2 and len(list(foreign(tmp_path, pages))) == 4


# ---- valid HTML

def faults_of_html(*files):
    "What html-validate says of files, by the rules of the HTML standard: one line each."
    with tempfile.TemporaryFile('w+', encoding='utf-8') as out: # a pipe would be cut off when node ends
        done = subprocess.run([shutil.which('node'), 'docs/node_modules/html-validate/bin/html-validate.mjs', '--config', 'docs/htmlvalidate.json', '--formatter', 'json', *map(str, files)],
                              cwd=root, stdout=out, stderr=subprocess.PIPE, text=True, encoding='utf-8', timeout=600)
        out.seek(0)
        said = out.read()
    assert said.startswith('['), done.stderr
    return [f"{Path(o['filePath']).name}:{m['line']}: {m['ruleId']}: {m['message']}" for o in json.loads(said) for m in o['messages'] if m['message'] != carried]


# what a cell prints, such as a table of pandas or the board, carries its style with it; browsers take that
carried = '<style> element is not permitted as content under <div>'


def test_html_is_valid(pages): assert faults_of_html(*pages) == []


def test_invalid_html_is_seen(site, tmp_path):
    (tmp_path/'a.html').write_text('<!DOCTYPE html><html lang="en"><head><title>a</title></head><body><p id="x"><div id="x">a</div></body></html>')
    assert faults_of_html(tmp_path/'a.html')


# ---- what a page offers

class Headings(HTMLParser):
    "Headings of the article: do they have a link to themselves?"
    def __init__(self, text):
        super().__init__()
        self.found, self._tag, self._item = [], None, None
        self.feed(text[text.index('<article'):text.index('</article>')])
    def handle_starttag(self, tag, attrs):
        if tag == 'li': self._item = dict(attrs).get('id') # an item of the board: its own place
        if re.fullmatch('h[1-5]', tag): self._tag, self.links, self.text = tag, [f'#{self._item}'] if self._item else [], ''
        elif self._tag and tag == 'a' and 'headerlink' in dict(attrs).get('class', ''): self.links.append(dict(attrs)['href'])
    def handle_data(self, data):
        if self._tag: self.text += data
    def handle_endtag(self, tag):
        if tag == 'li': self._item = None
        if tag == self._tag:
            self.found.append((self.text, self.links))
            self._tag = None


def test_every_heading_can_be_linked_to(site, pages):
    for path, page in pages.items():
        if path.name == 'search.html': continue
        headings = Headings(path.read_text(encoding='utf-8')).found
        assert headings
        for text, links in headings: assert len(links) == 1 and links[0][1:] in page.ids, f'{path.name}: {text}'


lessons = [o for o in site_pages if o.startswith('lessons/')]


@pytest.mark.parametrize('notebook', lessons)
def test_lesson_says_what_it_costs_and_how_to_run_it(site, pages, notebook):
    path = site/f'{site_pages[notebook]}.html'
    text = path.read_text(encoding='utf-8')
    for o in ('Time:', 'Needs:', 'Before it:', 'In JupyterLab:', 'In the cloud:'): assert text.count(f'<strong>{o}</strong>') == 1, o
    card = text[text.index('<div class="about'):]
    card = card[:card.index('</ul>')]
    mine = f'../notebooks/{notebook}'
    assert re.search(rf'<a class="button" href="{re.escape(mine)}" download', card) and (path.parent/mine).resolve().exists()
    assert re.search(r'<a class="button[^>]*colab', card) and notebook.split('/')[1] in card
    assert 'dlpractice lab' in re.sub('<[^>]*>', '', card)
    assert 'class="right-next"' in text and 'class="left-prev"' in text


def test_pages_follow_each_other_in_the_order_of_the_sidebar(site):
    names = list(site_pages.values())
    for name, before, after in zip(names, [None, *names], [*names[1:], None]):
        text = (site/f'{name}.html').read_text(encoding='utf-8')
        for kind, to in (('left-prev', before), ('right-next', after)):
            tag = re.search(rf'<a\b[^>]*class="{kind}"[^>]*>', text)
            assert bool(tag) == bool(to), f'{name}: {kind}'
            if to: assert (site/name).parent.joinpath(re.search('href="([^"]*)"', tag[0])[1]).resolve() == site/f'{to}.html', f'{name}: {kind}'


def test_functions_lead_to_their_source_and_lesson(site):
    text = (site/'core'/'runs.html').read_text(encoding='utf-8')
    part = text[text.index('<section id="run">'):]
    part = part[:part.index('</section>')]
    assert re.search(r'class="api-source[^>]*runs\.py#L\d+', part) and '../lessons/lr_range_test.html' in part
    part = (site/'core'/'lanczos.html').read_text(encoding='utf-8')
    assert 'api-lessons' in part and '../lessons/landscape.html' in part    # by way of the modules between


# ---- for programs that read

def test_markdown_twins(site):
    listed = re.findall(r'^- \[.+\]\((.*)\): \S', (site/'llms.txt').read_text(encoding='utf-8'), re.M)
    assert [urlsplit(o).path.removeprefix('/dlpractice/') for o in listed] == [f'{o}.html.md' for o in site_pages.values()]
    for name in site_pages.values():
        text = (site/f'{name}.html.md').read_text(encoding='utf-8')
        words = re.sub(r'^(`{3,}).*?^\1$|`[^`\n]+`', '', text, flags=re.S | re.M)
        assert text.startswith('# ') and len(text) > 500 and not re.search(r'^:::|#\|', words, re.M), name
