// Names, for screen readers, of what the theme and the widgets leave unnamed.
(() => {
  const buttons = {'fa-play': 'Play or pause', 'fa-pause': 'Play or pause', 'fa-stop': 'Stop', 'fa-retweet': 'Repeat'};
  const each = (selector, act) => document.querySelectorAll(selector).forEach(act);
  function name() {
    each('summary[aria-label="Toggle hidden content"], .search-button-field[aria-label]', o => o.removeAttribute('aria-label'));
    each('.widget-play button:not([aria-label])', o => {
      const icon = Object.keys(buttons).find(k => o.querySelector(`.${k}`));
      if (icon) o.setAttribute('aria-label', buttons[icon]);
    });
    each('.widget-slider .noUi-handle:not([aria-label])', o => o.setAttribute('aria-label', o.closest('.widget-slider').querySelector('.widget-label')?.textContent || 'value'));
  }
  document.addEventListener('DOMContentLoaded', () => {
    name();
    new MutationObserver(name).observe(document.querySelector('article') || document.body, {childList: true, subtree: true});
  });
})();
