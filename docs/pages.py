"The site's title, order of pages and repository, read from `_quarto.yml`, so that both builders make the same site."
import re
from pathlib import Path

import yaml

root = Path(__file__).resolve().parent.parent
website = yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))['website']
title, description = website['title'], website.get('description', '')
url, repo, branch = website['site-url'].rstrip('/'), website['repo-url'].rstrip('/'), website.get('repo-branch', 'main')
raw = repo.replace('//github.com/', '//raw.githubusercontent.com/') + f'/{branch}'
colab = repo.replace('//github.com/', '//colab.research.google.com/github/') + f'/blob/{branch}'


def sections(
    contents=None, # sidebar contents as Quarto writes them; those of `_quarto.yml` by default
)->list: # (section title or None, its notebooks as paths under nbs/), in the order of the sidebar
    "The notebooks of the site by section."
    found = []
    for entry in website['sidebar']['contents'] if contents is None else contents:
        if isinstance(entry, dict): found.append((entry.get('section') or entry.get('text'), [_href(o) for o in entry.get('contents', [entry])]))
        elif found and found[-1][0] is None: found[-1][1].append(entry)
        else: found.append((None, [entry]))
    return found


def _href(entry): return entry['href'] if isinstance(entry, dict) else entry


def notebooks():
    "Every notebook of the site, in reading order."
    return [o for _, paths in sections() for o in paths]


def docname(
    path, # a notebook under nbs/: 'lessons/20_lr_range_test.ipynb'
)->str: # its page: 'lessons/lr_range_test', the address that nbdev gives it too
    "The page of a notebook: no number in front, no suffix."
    folder, _, name = str(path).removesuffix('.ipynb').rpartition('/')
    name = re.sub(r'^\d+[a-zA-Z0-9]*_', '', name.lower())
    return f'{folder}/{name}' if folder else name


def notebook(
    name, # a page: 'lessons/lr_range_test'
)->str: # its notebook under nbs/, or None
    "The notebook of a page."
    return next((o for o in notebooks() if docname(o) == name), None)
