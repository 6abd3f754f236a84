"""The site in a headless Chromium: every page loads quietly and fits, widgets move and their pictures follow, search and
navigation lead somewhere, and axe-core finds no serious fault. No request leaves this machine: others are refused, and count as faults."""
import functools, http.server, json, shutil, threading

import pytest

from conftest import root, site_pages

chromium = next((p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')) if p), None)
pytestmark = [pytest.mark.skipif(chromium is None, reason='no Chromium here (Debian: apt-get install chromium)'),
              pytest.mark.skipif(shutil.which('npm') is None, reason='the offline site needs npm')]
flags = ['--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',    # whoever asks for another machine gets no answer
         '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
wide, narrow = {'width': 1280, 'height': 900}, {'width': 390, 'height': 844}
widget_view = 'application/vnd.jupyter.widget-view+json'
every_page = [*(f'{o}.html' for o in site_pages.values()), 'search.html']


def has_widgets(path):
    cells = json.loads((root/'nbs'/path).read_text(encoding='utf-8'))['cells']
    return any(widget_view in o.get('data', {}) for c in cells for o in c.get('outputs', []))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@pytest.fixture(scope='module')
def browser():
    "Chromium with an empty profile."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, headless=True, args=flags)
        yield b
        b.close()


@pytest.fixture(scope='module')
def served(site):
    "The address of the site."
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()
    server.server_close()


class Visit:
    "A tab, and what went wrong in it."
    def __init__(self, context, base):
        self.base, self.faults, self.page = base, [], context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on('request', lambda r: None if r.url.startswith((base, 'data:', 'blob:')) else self.faults.append(f'request for {r.url}'))
        self.page.on('console', lambda m: self.faults.append(f'console: {m.text}') if m.type == 'error' else None)
        self.page.on('pageerror', lambda e: self.faults.append(f'exception: {e}'))
        self.page.on('response', lambda r: self.faults.append(f'{r.status}: {r.url}') if r.status >= 400 else None)
    def open(self, name):
        "Load a page; wait for its formulas and widgets."
        self.page.goto(self.base + name, wait_until='load')
        drawn = self.page.evaluate("""async () => {
            if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
            const all = o => document.querySelectorAll(o).length;
            const want = all('script[type="application/vnd.jupyter.widget-view+json"]');
            for (let i = 0; i < 300 && all('.widget-subarea > .jupyter-widgets') < want; i++) await new Promise(r => setTimeout(r, 100));
            return [all('.widget-subarea > .jupyter-widgets'), want];
        }""")
        if drawn[0] < drawn[1]: self.faults.append(f'{drawn[0]} widgets drawn, of {drawn[1]}')
        return self.page


@pytest.fixture(scope='module')
def contexts(browser):
    "Settings -> a browsing context of its own; tabs with the same settings share its cache."
    made = {}
    def get(**kw):
        key = json.dumps(kw, sort_keys=True)
        if key not in made: made[key] = browser.new_context(**kw)
        return made[key]
    yield get
    for o in made.values(): o.close()


@pytest.fixture
def tabs(contexts, served):
    "Opens tabs, and closes them in the end."
    made = []
    def new(viewport=wide, **kw):
        made.append(Visit(contexts(viewport=viewport, **kw), served))
        return made[-1]
    yield new
    for v in made: v.page.close()


@pytest.fixture
def visit(tabs):
    "Opens tabs; in the end none of them may have had a fault."
    made = []
    def new(**kw):
        made.append(tabs(**kw))
        return made[-1]
    yield new
    assert not [o for v in made for o in v.faults]


# what sticks out of the window, and not inside of something that scrolls
overflow = """() => {
    const right = document.documentElement.clientWidth, out = [];
    if (document.documentElement.scrollWidth > right) out.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${right}`);
    const scrolls = o => o && !o.matches('article, body') && (!['visible', 'clip'].includes(getComputedStyle(o).overflowX) || getComputedStyle(o).position === 'fixed' || scrolls(o.parentElement));
    for (const o of document.querySelectorAll('main *')) {
        const box = o.getBoundingClientRect();
        if (box.width && box.height && box.right > right + 1 && !o.closest('mjx-assistive-mml, .visually-hidden, dialog') && !scrolls(o)) out.push(`${o.tagName} ${o.className} to ${Math.round(box.right)}: ${o.textContent.trim().slice(0, 40)}`);
    }
    return out.slice(0, 5);
}"""


@pytest.mark.parametrize('name', every_page)
def test_page_loads_quietly_and_fits(visit, name):
    tab = visit()
    page = tab.open(name)
    assert page.evaluate(overflow) == []
    page.set_viewport_size(narrow)
    page.evaluate('() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))')
    assert page.evaluate(overflow) == []


def test_faults_are_seen(tabs):
    tab = tabs(viewport=narrow)
    tab.open('index.html')
    tab.page.evaluate("""() => {
        console.error('bad'); setTimeout(() => { throw new Error('worse') });
        const i = new Image(); i.src = 'https://example.org/a.png'; document.body.append(i); const j = new Image(); j.src = 'none.png';
        const d = document.createElement('div'); d.style.width = '900px'; d.textContent = 'broad'; document.querySelector('article').append(d);
    }""")
    tab.page.wait_for_timeout(500)
    said, out = ' '.join(tab.faults), ' '.join(tab.page.evaluate(overflow))
    for o in ('console: bad', 'worse', 'request for https://example.org/a.png', '404'): assert o in said
    assert 'broad' in out


# ---- widgets

# the pictures of a widget that can be seen now, as text that differs when they do
pictures = """root => {
    const seen = o => o.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) && o.getBoundingClientRect().width > 20;
    const draws = [...root.querySelectorAll('img, svg, canvas, .widget-html-content, .widget-htmlmath-content')].filter(o => seen(o) && !o.closest('button, .widget-play, .widget-slider'));
    return draws.map(o => o.tagName === 'CANVAS' ? o.toDataURL() : o.outerHTML).join('\\n');
}"""
controls = '.noUi-handle, input[type=range], select, input[type=radio]:not(:checked), input[type=checkbox], .widget-play button:first-of-type, .widget-toggle-button, .widget-toggle-buttons button:not(.mod-active), .jupyter-button:not(.widget-play button, .widget-toggle-button, .widget-toggle-buttons button)'


def changes(page, area, before, wait=4000):
    "Does the picture differ from `before`, soon?"
    for _ in range(wait//50):
        if area.evaluate(pictures) != before: return True
        page.wait_for_timeout(50)
    return False


def by_keyboard(page, area, control, wait=4000):
    "Move a control with keys alone; does the picture follow?"
    before = area.evaluate(pictures)
    control.focus()
    kind = control.evaluate("o => o.matches('.noUi-handle, input[type=range]') ? 'slider' : o.matches('select') ? 'select' : o.closest('.widget-play') ? 'play' : 'button'")
    if kind == 'play':
        page.keyboard.press('Enter')
        moved = changes(page, area, before, wait)
        control.focus()
        page.keyboard.press('Enter')    # pause
        return moved
    for key in {'slider': ['ArrowRight', 'ArrowLeft'], 'select': ['ArrowDown', 'ArrowUp'], 'button': ['Space']}[kind]:
        page.keyboard.press(key)
        if changes(page, area, before, wait//2): return True
    return False


def by_mouse(page, area, handle):
    "Drag the handle of a slider; does the picture follow?"
    track = handle.locator('xpath=ancestor-or-self::*[contains(@class, "noUi-target") or self::input]').last
    track.scroll_into_view_if_needed()
    before, at, box = area.evaluate(pictures), handle.bounding_box(), track.bounding_box()
    middle = at['x'] + at['width']/2
    page.mouse.move(middle, at['y'] + at['height']/2)
    page.mouse.down()
    page.mouse.move(box['x'] + box['width']*(.8 if middle < box['x'] + box['width']/2 else .1), box['y'] + box['height']/2, steps=8)
    page.mouse.up()
    return changes(page, area, before)


with_widgets = [f'{name}.html' for path, name in site_pages.items() if has_widgets(path)]


@pytest.mark.parametrize('name', with_widgets)
def test_widgets_move_and_their_picture_follows(visit, name):
    page = visit().open(name)
    areas = page.locator('.widget-subarea')
    moved = 0
    for k in range(areas.count()):
        area = areas.nth(k)
        area.scroll_into_view_if_needed()
        found = area.locator(controls)
        for i in range(found.count()):
            control = found.nth(i)
            if not control.is_visible(): continue
            label = control.evaluate("o => o.getAttribute('aria-label') || [...(o.labels || [])].map(l => l.textContent).join(' ') || o.textContent.trim() || o.title")
            assert label, f'widget {k + 1}: control {i + 1} has no name'
            assert by_keyboard(page, area, control), f'widget {k + 1}: {label!r} does not change the picture'
            moved += 1
    assert moved
    sliders = areas.locator('.noUi-handle:visible, input[type=range]:visible')
    if sliders.count():
        first = areas.filter(has=page.locator('.noUi-handle, input[type=range]')).first
        assert by_mouse(page, first, first.locator('.noUi-handle, input[type=range]').first), 'a slider dragged with the mouse'


def test_a_control_with_no_effect_is_seen(tabs):
    tab = tabs()
    tab.page.set_content('<div class="widget-subarea"><input type="range" aria-label="idle"><svg width="50" height="50"><circle r="5"/></svg></div>')
    area = tab.page.locator('.widget-subarea')
    idle = by_keyboard(tab.page, area, area.locator(controls).first, wait=300)
    tab.page.evaluate("() => { document.querySelector('input').oninput = e => document.querySelector('circle').setAttribute('r', e.target.value) }")
    works = by_keyboard(tab.page, area, area.locator(controls).first)
    assert not idle and works


# ---- search, navigation, code, dark mode

@pytest.mark.parametrize('viewport', [wide, narrow], ids=['1280', '390'])
def test_search_finds_lr_range_test(visit, viewport):
    page = visit(viewport=viewport).open('index.html')
    page.keyboard.press('Control+k')
    field = page.locator('input[name=q]:visible').first
    field.fill('lr_range_test')
    field.press('Enter')
    page.wait_for_url('**/search.html?q=lr_range_test*')
    first = page.locator('ul.search li a').first
    first.wait_for()
    hrefs = page.locator('ul.search li a').evaluate_all('all => all.map(o => o.getAttribute("href"))')
    assert any(o.startswith('lessons/lr_range_test.html') for o in hrefs[:5]), hrefs[:5]
    page.locator('ul.search li a[href^="lessons/lr_range_test.html"]').first.click()
    page.wait_for_url('**/lessons/lr_range_test.html*')


def title(page): return page.locator('article h1').first.inner_text().rstrip('#').strip()


@pytest.mark.parametrize('viewport', [wide, narrow], ids=['1280', '390'])
def test_navigation(visit, viewport):
    page = visit(viewport=viewport).open('index.html')
    lessons = [o for o in site_pages.values() if o.startswith('lessons/')]
    def sidebar(name):
        if viewport is narrow: page.locator('button.primary-toggle').click()
        link = page.locator(f'.site-nav a[href$="{name}.html"]:visible').first
        link.click()
        page.wait_for_url(f'**/{name}.html')
    sidebar(lessons[0])
    first = title(page)
    page.locator('.prev-next-footer a.right-next').click()
    page.wait_for_url(f'**/{lessons[1]}.html')
    assert title(page) != first
    page.locator('.prev-next-footer a.left-prev').click()
    page.wait_for_url(f'**/{lessons[0]}.html')
    assert title(page) == first
    if viewport is wide:
        place = page.locator('.page-toc a').nth(1)
        place.click()
        assert page.evaluate('location.hash') == place.get_attribute('href')


def test_code_is_copied(visit):
    tab = visit(permissions=['clipboard-read', 'clipboard-write'])
    page = tab.open('index.html')
    block = page.locator('div.cell_input').first
    block.hover()
    block.locator('button.copybtn').click()
    page.wait_for_function('async () => (await navigator.clipboard.readText()).includes("import torch")')


def test_dark_mode_is_chosen_and_kept(visit):
    page = visit(color_scheme='light', locale='en-GB').open('index.html')    # a context of its own: the choice is stored
    colour = 'getComputedStyle(document.body).backgroundColor'
    light = page.evaluate(colour)
    for _ in range(3):
        if page.evaluate('document.documentElement.dataset.theme') == 'dark': break
        page.locator('.theme-switch-button:visible').first.click()
        if (dark := page.locator('[data-mode=dark]:visible, .theme-switch-dropdown [data-bs-theme-value=dark]:visible')).count(): dark.first.click()
    assert page.evaluate('document.documentElement.dataset.theme') == 'dark' and page.evaluate(colour) != light
    page.reload()
    assert page.evaluate('document.documentElement.dataset.theme') == 'dark'


# ---- can everybody use it?

def serious(page):
    "What axe-core finds that is serious or critical."
    if page.evaluate('!window.axe'): page.add_script_tag(path=root/'docs'/'node_modules'/'axe-core'/'axe.min.js')
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [f"{v['id']}: {v['help']}: {n['html'][:160]}" for v in found if v['impact'] in ('serious', 'critical') for n in v['nodes']]


@pytest.mark.parametrize('name', ['index.html', 'lessons/lr_range_test.html'])
def test_no_serious_accessibility_fault(visit, name):
    page = visit(color_scheme='light').open(name)
    for scheme in ('light', 'dark'):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f'document.documentElement.dataset.theme === "{scheme}"')
        assert serious(page) == [], scheme


def test_accessibility_faults_are_seen(tabs):
    tab = tabs()
    tab.page.set_content('<html lang="en"><title>a</title><main><h1>a</h1><img src="data:,"><p style="color:#ccc;background:#fff">faint</p></main>')
    found = ' '.join(serious(tab.page))
    assert 'image-alt' in found and 'color-contrast' in found
