<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
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
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem;
  padding: .7rem 1.5rem; background: var(--bar); border-bottom: 1px solid var(--line); }
nav strong { margin-right: auto; }
a { color: var(--link); }
nav a { text-decoration: none; }
main { max-width: 1200px; margin: 0 auto; padding: 0 1.5rem 3rem; }
h1 { margin: 2.2rem 0 .4rem; font-size: 1.6rem; }
h2 { margin: 1.4rem 0 .2rem; font-size: 1.1rem; color: var(--quiet); font-weight: 600; }
h3 { margin: 1.2rem 0 .2rem; font-size: 1.1rem; }
p { margin: .4rem 0 .8rem; max-width: 50rem; }
small { color: var(--quiet); }
.reportlet { background: #000; border-radius: 4px; overflow: hidden; }
.reportlet img, .reportlet object { display: block; width: 100%; }
.warning { padding: .6rem 1rem; color: var(--warn); background: var(--warnpage);
  border-left: 4px solid currentColor; }
.table { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; }
th, td { padding: .3rem 1.2rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th[scope=row] { font-weight: 500; min-width: 9rem; }
pre { padding: 1rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--bar); border: 1px solid var(--line); border-radius: 4px; font-size: .85rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
</style>
</head>
<body>
<nav><strong>{{ title }}</strong>
{% for section in sections %}
<a href="#{{ section.name }}">{{ section.name }}</a>
{% endfor %}
</nav>
<main>
{% for section in sections %}
<section id="{{ section.name }}">
<h1>{{ section.name }}</h1>
{% for reportlet in section.reportlets %}
{% set label = (reportlet.subtitle or section.name) | e %}
{% if reportlet.title %}<h2>{{ reportlet.title }}</h2>{% endif %}
{% if reportlet.subtitle %}<h3>{{ label }}</h3>{% endif %}
{% if reportlet.description %}<p>{{ reportlet.description }}</p>{% endif %}
{% for content, caption in reportlet.components %}
{% if caption %}<p>{{ caption }}</p>{% endif %}
{{ content | replace('<img class="', '<img alt="' ~ label ~ '" class="')
           | replace('<object class="', '<object aria-label="' ~ label ~ '" class="') }}
{% endfor %}
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
