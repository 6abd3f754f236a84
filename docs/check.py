"Reads a built site: every link inside it leads somewhere, and nothing on it is fetched from elsewhere."
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

fetched = {'script': 'src', 'img': 'src', 'iframe': 'src', 'source': 'src', 'video': 'src', 'audio': 'src', 'embed': 'src', 'object': 'data'}
css_address = re.compile(r'(?:url\(\s*|@import\s+)["\']?((?:https?:)?//[^"\')\s]+)')


class Reader(HTMLParser):
    "Collects what a page fetches, where it links, the ids it has, and pictures with no alt text."
    def __init__(self, text):
        super().__init__()
        self.fetches, self.links, self.ids, self.silent = [], [], {'', 'top'}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = {k: v or '' for k, v in attrs}
        if 'id' in attrs: self.ids.add(attrs['id'])
        if tag == 'a' and 'href' in attrs: self.links.append(attrs['href'])
        if tag == 'link' and not {'canonical', 'alternate'} & set(attrs.get('rel', '').split()): self.fetches.append(attrs.get('href', ''))
        if attrs.get(fetched.get(tag)): self.fetches.append(attrs[fetched[tag]])
        self.fetches += css_address.findall(attrs.get('style', '')) + [o.split()[0] for o in attrs.get('srcset', '').split(',') if o.split()]
        if tag == 'img' and not attrs.get('alt'): self.silent.append(attrs.get('src', ''))


def site(
    out, # folder of the site
)->list: # what is wrong, one line each
    "Dead links, foreign addresses and pictures with no alt text in the site at `out`."
    out, wrong = Path(out).resolve(), []
    read = {p: Reader(p.read_text(encoding='utf-8')) for p in sorted(out.rglob('*.html')) if p.relative_to(out).parts[0] not in ('_static', 'notebooks')}
    for page, found in read.items():
        name = page.relative_to(out)
        for address in found.fetches + found.links:
            where = urlsplit(address)
            if where.scheme == 'data' or (where.scheme or where.netloc) and address in found.links: continue
            if where.scheme or where.netloc:
                wrong.append(f'{name}: fetches {address[:80]}')
                continue
            target = (page.parent/unquote(where.path)).resolve() if where.path else page
            if target.is_dir(): target /= 'index.html'
            if not target.exists(): wrong.append(f'{name}: no such file: {address}')
            elif target in read and unquote(where.fragment) not in read[target].ids: wrong.append(f'{name}: no such place: {address}')
        wrong += [f'{name}: picture with no alt text: {o[:80]}' for o in found.silent]
    for sheet in out.rglob('*.css'):
        wrong += [f'{sheet.relative_to(out)}: fetches {o}' for o in css_address.findall(sheet.read_text(encoding='utf-8'))]
    return wrong
