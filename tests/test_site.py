"The offline site: complete, no dead link, and nothing on it comes from elsewhere. Read here independently of what builds it."
import re, shutil, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from conftest import call, root

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
def site(tmp_path_factory):
    "The site, built into a folder of its own."
    out = tmp_path_factory.mktemp('site')/'_docs'
    call([sys.executable, 'docs/build.py', '--out', out], cwd=root, timeout=1800)
    return out


@pytest.fixture(scope='session')
def pages(site): return {p: Page(p) for p in sorted(site.rglob('*.html')) if '_static' not in p.parts and 'notebooks' not in p.relative_to(site).parts}


def listed(o):
    if isinstance(o, str): return [o]
    if isinstance(o, dict): return listed(o.get('contents', o.get('href', [])))
    return [p for e in o for p in listed(e)]


def test_every_page_is_there(site, pages):
    contents = listed(yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents'])
    for o in contents:
        folder, name = Path(o).parent, re.sub(r'^\d+[a-z]?_', '', Path(o).stem)
        page = site/folder/f'{name}.html'
        assert page in pages, f'{o} has no page'
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
