// Widgets load from this site, never from a CDN, whatever the depth of the page. Runs before require.js.
(() => {
  const here = new URL(`${document.documentElement.dataset.content_root || './'}_static/widgets/`, location.href).href;
  window.require = {baseUrl: here};
  document.currentScript.setAttribute('data-jupyter-widgets-cdn', here);
  // their labels ask for math in MathJax 2's words
  if (window.MathJax) window.MathJax.startup = {ready() {
    MathJax.startup.defaultReady();
    MathJax.Hub = {Queue: ([, , element]) => MathJax.typesetPromise([element])};
  }};
})();
