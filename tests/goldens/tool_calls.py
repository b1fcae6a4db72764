#!/usr/bin/env python3
"""Writes tool-calls.json: bodies of tool calls, and what the parsers of mlx-lm (0.32.2, `pip install mlx-lm`) make of them."""

import importlib
import json
from pathlib import Path

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}, "limit": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}}, "place": {"type": "object"}}}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]

CASES = {
    "json_tools": [
        '{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}',
        '\n{"name": "get_weather", "arguments": {"city": "a\\n\\"b\\" \u00e9", "tags": ["x", "y"], "place": {"lat": 1.5}}}\n',
        '{"name": "now", "arguments": {}}',
        '{"name": "now", "arguments": {',
        '{"name": "get_weather", "arguments": {"city": "</tool_call><tool_call>{\\"name\\": \\"now\\"}</tool_call>"}}',
    ],
    "qwen3_coder": [
        "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>",
        "<function=get_weather><parameter=city>two\nlines</parameter><parameter=metric>true</parameter></function>",
        "<function=get_weather><parameter=limit>2.5</parameter><parameter=tags>[\"a\", \"b\"]</parameter></function>",
        "<function=get_weather><parameter=place>{\"lat\": 59.9, \"open\": true}</parameter></function>",
        "<function=now>\n</function>",
        "<function=now",
        "<function=get_weather>\n<parameter=city>\n    a\n\n</parameter>\n</function>",
        "<function=get_weather>\n<parameter=city>\na </tool_call> b\n<tool_call>\n</parameter>\n</function>",
        "<function=get_weather>\n<parameter=city>\n<function=now>\n</function> b\n</parameter>\n</function>",
        "<function=get_weather>\n<parameter=city>\n01001\n</parameter>\n</function>",
    ],
    "glm47": [
        "get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>",
        "get_weather<arg_key>city</arg_key><arg_value>12</arg_value><arg_key>tags</arg_key><arg_value>[\"a\"]</arg_value>",
        "get_weather<arg_key>other</arg_key><arg_value>{\"a\": 1}</arg_value>",
        '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
    ],
    "pythonic": [
        "[get_weather(city='Oslo', days=3)]",
        "[get_weather(city=\"it's\", metric=True, tags=['a', 'b']), now()]",
        "[get_weather(place={'lat': 59.9, 'tags': [1, None]}, limit=-2.5)]",
        "[get_weather(place={\"open\": true, \"no\": null})]",
        "nothing of the kind",
        "[get_weather(city='<|tool_call_end|>, now()]'), now()]",
    ],
    "function_gemma": [
        "call:get_weather{city:<escape>Oslo, Norway<escape>,days:3}",
        "call:now{}",
        "nothing of the kind",
    ],
    "gemma4": [
        'call:get_weather{city:<|"|>Oslo, {Norway}<|"|>,days:3,metric:true}',
        'call:get_weather{place:{lat:59.9,name:<|"|>x<|"|>},tags:[<|"|>a<|"|>,<|"|>b<|"|>]}call:now{}',
        "nothing of the kind",
        'call:get_weather{city:<|"|>} <tool_call|><|tool_call>call:now{} {<|"|>}',
    ],
    "mistral": [
        'get_weather[ARGS]{"city": "Oslo", "days": 3}',
        'get_weather[ARGS]{"city": "[ARGS]"}now[ARGS]{}',
        '[{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "now", "arguments": {}}]',
        'get_weather[ARGS]{"city": "Os',
        'get_weather[ARGS]{"city": "[TOOL_CALLS]now[ARGS]{}"}',
    ],
    "kimi_k2": [
        'functions.get_weather:0<|tool_call_argument_begin|>{"city": "Oslo", "days": 3}',
        '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "a"}<|tool_call_end|>'
        "<|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|>",
        "nothing of the kind",
    ],
    "minimax_m2": [
        '<invoke name="get_weather"><parameter name="city">Oslo</parameter><parameter name="days">3</parameter></invoke>',
        '<invoke name="get_weather">\n<parameter name="metric">true</parameter>\n<parameter name="limit">2.0</parameter>\n'
        '</invoke>\n<invoke name="now">\n</invoke>',
        '<invoke name="get_weather"><parameter name="tags">["a", "b"]</parameter></invoke>',
        '<invoke name="get_weather"><parameter name="city">a </minimax:tool_call> b</parameter></invoke>',
        "nothing of the kind",
    ],
    "muse_spark": [
        '<atem:invoke name="get_weather"><atem:parameter name="city" string="true">Oslo</atem:parameter>'
        '<atem:parameter name="days">3</atem:parameter></atem:invoke>',
        '<atem:invoke name="get_weather"><atem:parameter name="tags">["a"]</atem:parameter></atem:invoke>'
        '<atem:invoke name="now"></atem:invoke>',
        '<atem:invoke name="get_weather"><atem:parameter name="city">a </atem:invoke> b <atem:invoke name="now">'
        "</atem:parameter></atem:invoke>",
        "nothing of the kind",
    ],
}


def parse(parser, body):
    try:
        calls = importlib.import_module(f"mlx_lm.tool_parsers.{parser}").parse_tool_call(body, TOOLS)
    except Exception:
        return None
    calls = calls if isinstance(calls, list) else [calls]
    return [{"name": c["name"], "arguments": c["arguments"]} for c in calls]


cases = [{"parser": p, "body": b, "calls": parse(p, b)} for p, bodies in CASES.items() for b in bodies]
lines = ",\n  ".join(json.dumps(case, ensure_ascii=False) for case in cases)
text = '{"tools": %s,\n "cases": [\n  %s\n]}\n' % (json.dumps(TOOLS), lines)
Path(__file__).with_name("tool-calls.json").write_text(text)
