<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --text: #1c1e21; --page: #fff; --quiet: #5c636b; --line: #d8dce0;
  --bar: #f4f5f7; --link: #0b5cad; --warn: #8a4b00; --warnpage: #fff4e0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6e8; --page: #16181b; --quiet: #a0a6ad; --line: #383d43; --bar: #202327;
    --link: #7db8f2; --warn: #ffc978; --warnpage: #3a2c14; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 4rem; }
body { margin: 0; color: var(--text); background: var(--page); font: 16px/1.5 system-ui, sans-serif; }
nav { position: sticky; top: 0; z-index: 1; display: flex; gap: .2rem 1.2rem; overflow-x: auto;
  padding: .6rem 1.5rem; background: var(--bar); border-bottom: 1px solid var(--line); }
a { color: var(--link); }
nav a { text-decoration: none; white-space: nowrap; }
main { max-width: 1200px; margin: 0 auto; padding: 0 1.5rem 3rem; }
h1 { margin: 1.2rem 0 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 1.8rem 0 .3rem; font-size: 1.3rem; }
h3 { margin: 1.1rem 0 .2rem; font-size: 1.05rem; }
p { margin: .3rem 0 .7rem; max-width: 50rem; }
small { color: var(--quiet); }
code { overflow-wrap: anywhere; }
.lead { font-size: 1.25rem; line-height: 1.4; }
.measures { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .6rem; margin: .8rem 0; }
.measures div { padding: .5rem .8rem; border: 1px solid var(--line); border-radius: 4px; }
.measures dt { color: var(--quiet); }
.measures dd { margin: 0; }
.measures b { font-size: 1.25rem; }
.closer { color: var(--warn); }
.figure { position: relative; margin: .4rem 0 1rem; }
.figure > input { position: absolute; opacity: 0; }
.figure > label { display: inline-block; margin: 0 .3rem .4rem 0; padding: .2rem .8rem; cursor: pointer;
  border: 1px solid var(--line); border-radius: 1rem; }
.figure > :checked + label { color: var(--page); background: var(--link); border-color: var(--link); }
.figure > .outlined + label { margin-left: .6rem; }
.figure > :focus-visible + label { outline: 3px solid var(--warn); outline-offset: 1px; }
.picture { background: #000; border-radius: 4px; overflow-x: auto; }
.picture svg { display: block; width: 100%; min-width: 58rem; height: auto; }
.show0:checked ~ .picture :is(.layer1, .layer2), .show1:checked ~ .picture .layer2,
.outlined:not(:checked) ~ .picture .outlines { visibility: hidden; }
.flicker:checked ~ .picture .layer1 { animation: flicker 1.6s infinite; }
@keyframes flicker { 0%, 45% { opacity: 1; } 50%, 95% { opacity: 0; } }
.warning { padding: .6rem 1rem; color: var(--warn); background: var(--warnpage);
  border-left: 4px solid currentColor; }
.table { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; }
th, td { padding: .3rem 1.2rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th[scope=row] { font-weight: 500; min-width: 7rem; }
th + td:last-child { overflow-wrap: anywhere; }
pre { padding: 1rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--bar); border: 1px solid var(--line); border-radius: 4px; font-size: .85rem; }
button { margin: .4rem 0; padding: .4rem 1rem; font: inherit; cursor: pointer; }
@media (min-width: 62rem) { .sideways { display: none; } }
details { margin: .5rem 0; }
summary { cursor: pointer; }
@media (max-width: 40rem) { th, td { padding-right: .7rem; } main { padding: 0 1rem 2rem; } nav { padding: .6rem 1rem; } }
@media print { nav, .figure > label, .sideways, button { display: none; } }
</style>
</head>
<body>
<nav aria-label="Sections">
{% for section in sections %}
<a href="#{{ section.anchor }}">{{ section.name }}</a>
{% endfor %}
</nav>
<main>
<h1>{{ title }}</h1>
{% for section in sections %}
<section id="{{ section.anchor }}">
<h2>{{ section.name }}</h2>
{% for part in section.parts %}
{% if part.title %}<h3>{{ part.title }}</h3>{% endif %}
{% if part.text %}<p>{{ part.text }}</p>{% endif %}
{{ part | show | safe }}
{% endfor %}
</section>
{% endfor %}
</main>
<script>
for (const button of document.querySelectorAll('button[data-copy]')) {
  button.hidden = false;
  const words = button.textContent;
  button.addEventListener('click', () => {
    const text = document.getElementById(button.dataset.copy);
    getSelection().selectAllChildren(text);
    // works in a page opened from a file, where navigator.clipboard may not
    button.textContent = document.execCommand('copy') ? 'Copied' : 'Selected: copy with Ctrl+C';
    setTimeout(() => { button.textContent = words; }, 2000);
  });
}
</script>
</body>
</html>
