"Sphinx's settings; `build.py` calls it. Title and repository come from `_quarto.yml`."
import sys
from pathlib import Path

docs = Path(__file__).resolve().parent
sys.path.insert(0, str(docs))
import pages

project, author, copyright = pages.title, 'The dlpractice authors', 'The dlpractice authors'
html_title = pages.title
extensions = ['myst_nb', 'sphinx_design', 'sphinx_copybutton']
language = 'en'
show_warning_types = True

# notebooks, as stored
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'
nb_ipywidgets_js = {'widgets.js': {}, 'widgets/require.js': {}, 'widgets/embed-amd.js': {}}
myst_enable_extensions = ['amsmath', 'attrs_inline', 'colon_fence', 'dollarmath', 'deflist']
myst_dmath_double_inline = True
myst_heading_anchors = 5
myst_heading_slug_func = 'markup.slug'

# math, served from here
mathjax_path = 'mathjax/tex-svg-full.js'
mathjax3_config = {'options': {'enableMenu': False}, 'svg': {'fontCache': 'local'}}

# look
templates_path = ['templates']
html_theme = 'pydata_sphinx_theme'
html_static_path = ['static', '_build/static']
html_css_files, html_js_files = ['custom.css'], ['names.js']
html_favicon = 'static/icon.svg'
html_show_sourcelink = html_copy_source = html_use_index = False
html_sidebars = {'**': ['site-nav.html']}
html_context = {
    'default_mode': 'auto', 'description': pages.description,
    'notebook_of': {pages.docname(o): o for o in pages.notebooks()},
    'source_url': f'{pages.repo}/blob/{pages.branch}/nbs'}
html_theme_options = {
    'logo': {'text': pages.title}, 'navbar_center': [], 'navbar_end': ['theme-switcher', 'navbar-icon-links'],
    'icon_links': [{'name': 'Source', 'url': pages.repo, 'icon': 'fa-brands fa-github'}],
    'article_header_start': [], 'article_header_end': ['page-links'], 'secondary_sidebar_items': {'*/*': ['page-toc'], 'index': []},
    'footer_start': ['copyright'], 'footer_end': [], 'show_toc_level': 2, 'search_bar_text': 'Search',
    'pygments_light_style': 'a11y-high-contrast-light', 'pygments_dark_style': 'a11y-high-contrast-dark'}
copybutton_selector = 'div.cell_input div.highlight pre, div.highlight-python pre, div.highlight-sh pre, div.highlight-bash pre'
copybutton_exclude = '.linenos, .gp'
