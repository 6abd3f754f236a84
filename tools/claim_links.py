"""Writes the links between lessons and claims, from `LESSONS` in `dlpractice/claim_list.py`, as the last cell of each page.

`claim_links.py`: writes them. `claim_links.py --check`: only says which pages are out of step, exit code 1."""
import hashlib, json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))
from dlpractice.claim_board import claim_pages, page_of
from dlpractice.claim_list import LESSONS, RULES, lessons_of

mark = '<!-- Made by tools/claim_links.py: edit LESSONS in nbs/core/14d_claim_list.ipynb. -->'
board = 'claims/00_board.ipynb'


def title(path): return re.match(r'# (.+)', ''.join(json.loads((root/'nbs'/path).read_text(encoding='utf-8'))['cells'][0]['source']))[1]


def lesson_text(ids):
    "What a lesson says of its claims."
    lines = [f'- [{id}](../{page_of(id) or board}): {RULES[id].rule}' for id in ids]
    return '\n'.join([mark, '', f'**Claims that this lesson touches** (all are on [the board](../{board})):', '', *lines])


def page_text(ids):
    "What a page of claims says of its lessons."
    lessons = {}
    for id in ids:
        for o in lessons_of(id): lessons.setdefault(o, []).append(id)
    lines = [f'- [{title(o)}](../{o}): {", ".join(v)}' for o, v in lessons.items()]
    return '\n'.join([mark, '', '**Lessons that touch these claims:**', '', *lines, '', f'All rules are on [the board](../{board}).'] if lines else [mark, '', f'All rules are on [the board](../{board}).'])


def texts():
    "notebook under nbs/ -> text of its cell."
    pages = {}
    for id, page in claim_pages().items():
        if id in RULES: pages.setdefault(page, []).append(id)
    return {o: lesson_text(ids) for o, ids in LESSONS.items()} | {o: page_text(ids) for o, ids in sorted(pages.items())}


def linked(nb, text, name):
    "The notebook with its cell, which is the last."
    cells = [c for c in nb['cells'] if not ''.join(c['source']).startswith(mark)]
    ours = dict(cell_type='markdown', id=hashlib.sha1(name.encode()).hexdigest()[:8], metadata={}, source=text.splitlines(True))
    return nb | dict(cells=[*cells, ours])


if __name__ == '__main__':
    stale = []
    for name, text in texts().items():
        path = root/'nbs'/name
        nb = json.loads(path.read_text(encoding='utf-8'))
        new = linked(nb, text, name)
        if new == nb: continue
        if '--check' in sys.argv: stale.append(name)
        else:
            path.write_text(json.dumps(new, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
            print('wrote the links of', name)
    if stale: sys.exit(f'{", ".join(stale)}: links between lessons and claims are out of step; run tools/claim_links.py')
