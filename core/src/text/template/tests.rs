//! What the goldens of real templates do not reach: refusals, bounds, and corners of Python.

use serde_json::{Map, Value, json};

use super::ChatTemplate;

fn render(source: &str) -> Result<String, String> {
    let extra = json!({ "d": { "b": 1e16, "a": [1.5, -0.0, "it's", null, true] }, "s": " é\u{2028}x ", "none": null });
    let Value::Object(extra) = extra else { unreachable!() };
    let template = ChatTemplate::new(source, &Map::new()).map_err(|e| e.to_string())?;
    let user = json!({ "role": "user", "content": "hi" });
    template.render(&[user], None, true, &extra).map_err(|e| e.to_string())
}

#[test]
fn values_print_as_in_python() {
    let cases = [
        ("{{ d }}", r#"{'b': 1e+16, 'a': [1.5, -0.0, "it's", None, True]}"#),
        ("{{ d|string + '!' }}", r#"{'b': 1e+16, 'a': [1.5, -0.0, "it's", None, True]}!"#),
        ("{{ d|tojson }}", r#"{"b": 1e+16, "a": [1.5, -0.0, "it's", null, true]}"#),
        ("{{ d|tojson(sort_keys=true, separators=(',', ':')) }}", r#"{"a":[1.5,-0.0,"it's",null,true],"b":1e+16}"#),
        ("{{ [1, {}, []]|tojson(indent=2) }}", "[\n  1,\n  {},\n  []\n]"),
        ("{{ s|tojson(ensure_ascii=true) }}", r#"" \u00e9\u2028x ""#),
        ("{{ ('a', 1) }}{{ ('a',) }}{{ {} }}", "('a', 1)('a',){}"),
        ("{{ s.strip() }}|{{ s.split() }}", "é\u{2028}x|['é', 'x']"),
        ("{{ 'a-b-c'.rsplit('-', 1) }}{{ ' a b  c '.rsplit(none, 1) }}", "['a-b', 'c'][' a b', 'c']"),
        ("{{ 'a=b'.partition('=') }}{{ 'ab'.removeprefix('a') }}", "('a', '=', 'b')b"),
        ("{{ nothing }}{{ nothing|length }}{% for x in nothing %}x{% endfor %}", "0"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "hi"),
        ("{% for c in 'ab' %}{{ c }}{{ loop.last }}{% endfor %}", "aFalsebTrue"),
        ("{{ 'x'|int }}{{ ' 7 '|int }}{{ 7.9|int }}{{ 'x'|float(1) }}{{ true|float }}", "07711.0"),
        ("{{ 'x'.center(4, '-') }}{{ '7'.zfill(3) }}{{ 'aa'.replace('a', 'b', 1) }}", "-x--007ba"),
        ("a\r\n{{ '-'.join(['x', 'y']) }}", "a\nx-y"),
        ("{{ '<' + 'b'|safe + '&' }}", "&lt;b&amp;"),
    ];
    for (source, wanted) in cases {
        assert_eq!(render(source).as_deref(), Ok(wanted), "{source}");
    }
}

#[test]
fn what_python_refuses_is_refused() {
    let cases = [
        ("{% for x in none %}{% endfor %}", "'NoneType' object is not iterable"),
        ("{{ none|length }}", "has no len()"),
        ("{{ nothing.a }}", "undefined"),
        ("{{ [].append(1) }}", "append"),
        ("{{ nothing|tojson }}", "not JSON serializable"),
        ("{{ 'a' + 1 }}", "+"),
        ("\n{{ raise_exception('No ' + messages[0].role) }}", "line 2 cannot render this conversation: No user"),
        ("{{ strftime_now('%Q') }}", "no time format"),
        ("{{ 'x'|unheard }}", "unheard"),
        ("{% if %}", "does not compile"),
    ];
    for (source, wanted) in cases {
        let error = render(source).unwrap_err();
        assert!(error.contains(wanted), "{source}: {error}");
    }
}

#[test]
fn what_a_template_may_cost_is_bounded() {
    let nested = "{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% for j in range(9999) %}\
                  {% set n.x = WRAPPED %}{% endfor %}{% endfor %}{{ n.x }}";
    let hostile = [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% set n = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}"
            .into(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(),
        "{{ 'x' * 10000000000 }}".into(),
        "{{ 'x'|indent(10000000) }}".into(),
        "{{ '{:>4000000000}'.format('x') }}{{ 'x'.ljust(4000000000) }}".into(),
        "{% set x = 'x' * 1000000 %}{{ x.replace('x', x) }}".into(),
        "{% set x = 'x' * 1000000 %}{{ x.join(x|list) }}".into(),
        "{{ ('x\n' * 9000000)|indent(100) }}".into(),
        "{% for x in 'x' * 90000000 %}{% endfor %}".into(),
        nested.replace("WRAPPED", "[n.x, n.x]").replace("9999", "8"),
        nested.replace("WRAPPED", "[n.x, n.x]").replace("9999", "8").replace("n.x }}", "n.x|tojson }}"),
        nested.replace("WRAPPED", "[n.x]"),
        nested.replace("WRAPPED", "[[[[[[[[[[[[[[[[[[[[[[[[[[n.x]]]]]]]]]]]]]]]]]]]]]]]]]]"),
        nested.replace("WRAPPED", "{'x': n.x}"),
        format!("{{{{ {}1 }}}}{{{{ nothing.x }}}}", "-".repeat(200_000)),
        format!("{{{{ 1{} }}}}{{{{ nothing.x }}}}", "|abs".repeat(60_000)),
        format!("{{{{ a{} }}}}", ".a".repeat(120_000)),
        "{% set x = [x] %}".repeat(15_000) + "{{ x }}",
        "{% if x %}".repeat(20_000),
        "x".repeat(1 << 20),
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(120_000)) + "{{ nothing.x }}",
    ];
    for source in hostile {
        assert!(render(&source).is_err(), "{}", &source[..source.len().min(100)]);
    }
}

#[test]
fn tools_choose_their_template() {
    let sources = [("default", "plain"), ("tool_use", "{{ tools|length }} tools")];
    let sources = sources.map(|(name, source)| (name.to_owned(), source.to_owned())).into();
    let template = ChatTemplate::with_names(sources, &Map::new()).unwrap();
    let render = |tools| template.render(&[], tools, false, &Map::new()).unwrap();
    assert_eq!(render(None), "plain");
    assert_eq!(render(Some(&[json!({})])), "1 tools");
}
