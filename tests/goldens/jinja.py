"""What Python's jinja2 makes of expressions that chat templates use, set up as transformers sets it up.

    python3 -m venv venv && venv/bin/pip install jinja2==3.1.6
    venv/bin/python tests/goldens/jinja.py

Writes tests/goldens/jinja.json: pairs of a template and what it renders to.
"""

import json
import re
from pathlib import Path

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A line of several expressions is a template each; a line with a statement is one.
LINES = r'''
{{ '%s' % 'a' }}|{{ '%s-%s' % ('a', 1) }}|{{ '%d' % 3 }}|{{ '%5.2f' % 3.14159 }}|{{ '%%' % () }}|{{ '%r' % 'a' }}|{{ '%x' % 255 }}|{{ '%05d' % 42 }}|{{ '%-5s|' % 'a' }}
{{ '%(a)s %(b)s' % {'a': 1, 'b': 'x'} }}
{{ '%s' % [1, 2] }}{{ '%s' % none }}{{ '%s' % true }}{{ '%s' % 1.0 }}{{ '%e' % 12345.678 }}{{ '%g' % 0.0001 }}{{ '%c' % 65 }}{{ '%o' % 8 }}{{ '%+d' % 5 }}{{ '% d' % 5 }}{{ '%#x' % 255 }}{{ '%.3s' % 'abcdef' }}{{ '%*d' % (5, 3) }}
{{ 'Hello World'.swapcase() }} {{ 'ß'.upper() }} {{ 'aB'.casefold() }}
{{ 123456|filesizeformat }} {{ 123456|filesizeformat(true) }} {{ 1|filesizeformat }} {{ 999|filesizeformat }} {{ 1000|filesizeformat }} {{ 10**12|filesizeformat }}
{{ 'a b c'.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', 1) }} {{ 'a\nb\r\nc'.splitlines() }}
{{ 'abc'.partition('b') }} {{ 'abcbd'.rpartition('b') }}
{{ 'x'.center(5, '*') }} {{ 'x'.ljust(4, '.') }} {{ 'x'.rjust(4) }} {{ '42'.zfill(5) }} {{ '-42'.zfill(5) }}
{{ 'a-b'.replace('-', '+') }} {{ 'aaa'.replace('a', 'b', 2) }}
{{ 'abc'.startswith('a') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('c') }} {{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abcabc'.index('b') }} {{ 'abcabc'.rindex('b') }} {{ 'abcabc'.count('a') }}
{{ 'abc'.isalpha() }} {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'A'.isupper() }} {{ 'a'.islower() }} {{ 'Ab Cd'.istitle() }} {{ '12'.isnumeric() }} {{ '1'.isdecimal() }} {{ 'a'.isidentifier() }} {{ 'a'.isascii() }}
{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abc'.removeprefix('a') }}|{{ 'abc'.removesuffix('c') }}
{{ 'hello world'.title() }} {{ 'hello world'.capitalize() }} {{ 'Hello'.lower() }} {{ 'Hello'.upper() }}
{{ '{} {}'.format(1, 'a') }} {{ '{0} {1} {0}'.format(1, 2) }} {{ '{a}'.format(a=3) }} {{ '{:>5}'.format('x') }} {{ '{:.2f}'.format(3.14159) }} {{ '{:05d}'.format(42) }} {{ '{:,}'.format(1234567) }}
{{ 'a\tb'.expandtabs(4) }} {{ ','.join(['a', 'b']) }} {{ 'abc'[::-1] }} {{ 'abc'[1:] }} {{ 'abc'[-1] }}
{{ [3,1,2]|sort }} {{ [3,1,2]|sort(reverse=true) }} {{ ['b','A','c']|sort }} {{ ['b','A','c']|sort(case_sensitive=true) }} {{ [{'a': 2}, {'a': 1}]|sort(attribute='a') }}
{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3,4,5]|batch(2, 0)|list }} {{ [1,2,3,4,5]|slice(2)|list }}
{{ [1,2,3]|sum }} {{ [{'a': 2}, {'a': 1}]|sum(attribute='a') }} {{ [1,2,2,3]|unique|list }} {{ [1,2,3]|first }} {{ [1,2,3]|last }} {{ [1,2,3]|length }} {{ [1,2,3]|reverse|list }} {{ 'abc'|reverse }} {{ [1,2,3]|max }} {{ [1,2,3]|min }}
{{ ['a','b']|join('-') }} {{ [{'n': 'x'}, {'n': 'y'}]|map(attribute='n')|join(',') }} {{ ['a','b']|map('upper')|list }} {{ [1,2,3]|map('string')|join }} {{ [{'n': 1}, {}]|map(attribute='n', default=0)|list }}
{{ [1,2,3,4]|select('odd')|list }} {{ [1,2,3,4]|reject('odd')|list }} {{ [{'a': 1}, {'a': 0}]|selectattr('a')|list }} {{ [{'a': 1}, {'a': 2}]|selectattr('a', 'equalto', 2)|list }} {{ [{'a': 1}, {'a': 2}]|rejectattr('a', '==', 2)|list }} {{ [0,1,'']|select|list }}
{% for g in [{'c': 'x', 'v': 1}, {'c': 'y', 'v': 2}, {'c': 'x', 'v': 3}]|groupby('c') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}
{{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }} {{ {'b': 1, 'a': 2}|dictsort(reverse=true) }} {{ {'b': 1, 'a': 2}|items|list }} {{ {'a': 1}.items()|list }} {{ {'a': 1}.keys()|list }} {{ {'a': 1}.values()|list }} {{ {'a': 1}.get('b', 3) }} {{ {'a': 1}.get('b') }}
{{ 3.7|int }} {{ '3'|int }} {{ 'x'|int(5) }} {{ '0x1f'|int(0, 16) }} {{ '3.5'|float }} {{ 'x'|float(1.5) }} {{ 3.456|round(2) }} {{ 3.5|round }} {{ 2.5|round }} {{ 3.2|round(0, 'ceil') }} {{ 3.8|round(0, 'floor') }} {{ -3|abs }}
{{ 'hello'|capitalize }} {{ 'hello world'|title }} {{ 'it\'s a dog-house'|title }} {{ '  x '|trim }} {{ 'xax'|trim('x') }} {{ 'hello'|center(11) }}| {{ 'a b c'|wordcount }} {{ 'a long text that wraps'|wordwrap(6) }} {{ 'a long text'|truncate(8) }} {{ 'a long text'|truncate(8, true) }} {{ 'a long text'|truncate(8, false, '!') }} {{ 'a long text'|truncate(8, false, '!', 0) }}
{{ 'a\nb'|indent }} {{ 'a\nb'|indent(2, true) }} {{ 'a\n\nb'|indent(2, false, true) }} {{ 'a\nb'|indent('>>') }}
{{ '<a href="x">&</a>'|escape }} {{ '<p>a  b</p>'|striptags }} {{ 'a b&c/d'|urlencode }} {{ {'a': 'b c'}|urlencode }} {{ {'a': 1, 'b': none}|xmlattr }} {{ '<a>'|e }} {{ '<a>'|forceescape }} {{ '<a>'|safe }}
{{ {'a': [1, 2.0, none, true, 'é<>&\'']}|tojson }} {{ {'b': 1, 'a': 2}|tojson(indent=2) }} {{ 'é'|tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ [1,2]|tojson(separators=(',', ':')) }}
{{ none|default('x') }} {{ ''|default('x', true) }} {{ undefined_thing|default('x') }} {{ undefined_thing|d('y') }} {{ 5|string }} {{ [1,'a']|string }} {{ 'abc'|list }} {{ {'a': 1}|list }} {{ {'a': 1}|length }} {{ 'a'|count }}
{{ {'a': {'b': 1}}|attr('a') }} {{ 'a'|format }} {{ '%s %s'|format('a', 1) }} {{ '%.2f'|format(1.0) }} {{ 'x'|replace('x', 'y') }} {{ 'xxx'|replace('x', 'y', 2) }} {{ [1,2]|pprint }}
{{ 1 is odd }} {{ 2 is even }} {{ 4 is divisibleby 2 }} {{ 1 is defined }} {{ q is undefined }} {{ none is none }} {{ 'a' is string }} {{ 1 is number }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ true is true }} {{ false is false }} {{ {} is mapping }} {{ [] is sequence }} {{ [] is iterable }} {{ 'a' is lower }} {{ 'A' is upper }} {{ 1 is eq 1 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is le 1 }} {{ 2 is gt 1 }} {{ 2 is ge 2 }} {{ 1 is in [1] }} {{ 1 is sameas 1 }} {{ range is callable }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 'a' is escaped }}
{{ range(3)|list }} {{ range(1, 7, 2)|list }} {{ dict(a=1, b=2) }} {% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b {% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}
{{ [1, 2] + [3] }} {{ [0] * 3 }} {{ 'ab' * 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 1e3 }} {{ 1_000 }} {{ 0.1 + 0.2 }} {{ 1 ~ 'a' }} {{ 10 ** 20 }} {{ 1.5e10 }} {{ 1e16 }} {{ 1e-5 }}
{{ (1, 2) }} {{ (1,) }} {{ () }} {{ [1, 'a', none, true, 1.5] }} {{ {'a': 'b', 1: 2} }} {{ "it's" }} {{ ["it's", 'a"b'] }} {{ ['é\n'] }} {{ none }} {{ true }} {{ 1.0 }}
{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.changed(i) }};{% else %}none{% endfor %}
{% for i in [1, [2, [3]]] recursive %}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% endfor %}{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{% endfor %}{% for i in [1,2,3,4] if i is even %}{{ i }}{% endfor %}
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% set x %}block {{ 1 }}{% endset %}{{ x }}{% set a, b = 1, 2 %}{{ a + b }}{% filter upper %}abc{% endfilter %}{% with z = 3 %}{{ z }}{% endwith %}{% raw %}{{ x }}{% endraw %}{# c #}
{{ 'yes' if 1 else 'no' }} {{ 'yes' if 0 }} {{ 1 < 2 < 3 }} {{ not 1 }} {{ 1 and 0 }} {{ 0 or 'x' }} {{ 1 in [1] }} {{ 'a' not in 'bc' }} {{ 1 == 1.0 }} {{ '1' == 1 }}
{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}{% set l2 = l.copy() %}{{ l2.index(2) }}{{ l.count(1) }}
{{ messages[0]['content'] }} {{ messages[0].get('x', 'none') }} {{ messages|length }} {{ messages[-1].role }} {{ messages[1:] }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ 'abc'.encode() if false else 'x' }} {{ 'a'|upper|lower }} {{ ('a' ~ 'b')|upper }} {{ ['x'] is not string }} {{ {'a': 1} == {'a': 1} }} {{ [1,2] < [1,3] }} {{ 'a' < 'b' }}
{{ {'a': 1, 'b': 2}.pop('a') if false else 1 }} {{ dict({'a': 1}, b=2) }} {{ {'a': 1}|tojson|safe }} {{ {'a': 1}.update }} 
{{ 'x'.join('abc') }} {{ 'abc'|map('upper')|join }} {{ 'a1b2'|list|select('in', ['1', '2'])|join }} {{ 'A'.translate({65: 'B'}) }} {{ 'abc'.isprintable() }} {{ "%s" % ("a" ~ "b") }} {{ ("%s" % 'x') ~ 'y' }}
'''


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
environment.filters["tojson"] = tojson

pairs = []
for line in LINES.strip().split("\n"):
    for source in [line] if "{%" in line else re.findall(r"\{\{.*?\}\}(?=[ |{]|$)", line):
        try:
            text = environment.from_string(source).render(messages=[{"role": "user", "content": "hi"}])
        except Exception:
            continue  # what jinja2 refuses is none of this file's business
        if not re.search("0x[0-9a-f]{6}", text):  # an address in memory
            pairs.append([source, text])
path = Path(__file__).parent / "jinja.json"
path.write_text("[\n" + ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs) + "\n]\n")
print(len(pairs), "templates")
