"""Chat templates that know tools, in the ways of three families of models; written for tests."""

TOOLS = """\
{%- for tool in tools or [] -%}{{ tool | tojson }}{%- endfor -%}
"""
REPLY = """\
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
# A call between tags, as Hermes and Qwen write it; tools stand in the system message.
TAGGED = (
    """\
{%- if tools -%}
<|im_start|>system
Tools: {% for tool in tools %}{{ tool.function | tojson }}{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ 'user' if message.role == 'tool' else message.role }}
{{ '<tool_response>' if message.role == 'tool' }}{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
"""
    + REPLY
)
# The object alone, as Llama 3 writes it.
BARE = (
    TOOLS
    + """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.tool_calls -%}
{%- set function = message.tool_calls[0].function -%}
{"name": {{ function.name | tojson }}, "parameters": {{ function.arguments | tojson }}}
{%- else -%}{{ message.content }}{%- endif -%}
<|im_end|>
{% endfor -%}
"""
    + REPLY
)
# A list behind a word, as Mistral writes it.
LISTED = (
    TOOLS
    + """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.tool_calls -%}
[TOOL_CALLS] [
{%- for call in message.tool_calls -%}
{{ call.function | tojson }}{{ ', ' if not loop.last }}
{%- endfor -%}]
{%- else -%}{{ message.content }}{%- endif -%}
<|im_end|>
{% endfor -%}
"""
    + REPLY
)
# Tools are known, calls are no JSON.
PYTHONIC = (
    TOOLS
    + """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] -%}{{ call.function.name }}(){%- endfor -%}
<|im_end|>
{% endfor -%}
"""
    + REPLY
)
