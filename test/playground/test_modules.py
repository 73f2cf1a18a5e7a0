"""The page's own modules: the tree that grows, the timeline's layout, the stream, copies."""

from __future__ import annotations

from typing import Any

import pytest

from demo.pieces import LINEAR, PIECES
from playground.node import needs_node, run
from sglang_multiverse.structure import MULTIVERSE, TagTable, parse

pytestmark = needs_node

GROW = """
const { Transcript } = await load("transcript");
const t = new Transcript();
"""


def test_live_pieces_become_the_linear_text() -> None:
    found = run(
        GROW + "data.forEach(([path, text], at) => t.add(path, text, at * 10));"
        "result = { text: t.text, blocks: t.blocks.map((b) => [b.parent.path, b.joined,"
        " b.branches.map((x) => [x.path, x.title, x.closed])]) };",
        PIECES,
    )
    assert found["text"] == LINEAR
    assert found["blocks"] == [
        ["", True, [["1", "first", True], ["2", "second", True]]],
        ["2", True, [["2.1", "a", True], ["2.2", "b", True]]],
        ["", True, [["1", "third", True]]],
    ]


def test_who_is_decoding_now() -> None:
    growing = run(
        GROW + "result = data.map(([path, text]) => { t.add(path, text);"
        " return t.growing.map((b) => b.path); });",
        PIECES,
    )
    assert growing[0] == [""]
    assert growing[1] == []  # forked, and no branch has written
    assert growing[4] == growing[5] == ["1", "2"]
    assert growing[6] == ["2"]  # 1 is closed
    assert growing[7] == []  # 2 waits for its own
    assert growing[9] == ["2.1", "2.2"]
    assert growing[11] == []
    assert growing[12] == []
    assert growing[13] == [""]


def test_what_a_sink_is_told() -> None:
    said = run(
        """
        const { Transcript } = await load("transcript");
        const said = [];
        const t = new Transcript({
          prose: (b, text, stray) => said.push(["prose", b.path, text, stray]),
          fork: (block) => said.push(["fork", block.outlines]),
          begin: (b) => said.push(["begin", b.path]),
          close: (b) => said.push(["close", b.path]),
          join: (block) => said.push(["join", block.number]),
          conclude: (block, text) => said.push(["conclude", text]),
        });
        for (const [path, text] of data) t.add(path, text);
        result = said;
        """,
        [
            ["", "a <Parallel><Goal><Outline>1: x</Outline></Goal>"],
            ["1", "\n<Path>\n1"],
            ["1", ":"],
            ["1", " then </Goal> text</Path>"],
            ["", "\n<Conclusion>c</Conclusion></Parallel>z"],
        ],
    )
    assert said == [
        ["prose", "", "a ", False],
        ["fork", ["1: x"]],
        ["begin", "1"],
        ["prose", "1", " then ", False],
        ["prose", "1", "</Goal>", True],
        ["prose", "1", " text", False],
        ["close", "1"],
        ["join", 1],
        ["conclude", "c"],
        ["prose", "", "z", False],
    ]


def test_steps_are_laid_out_as_positions() -> None:
    found = run(
        """
        const { splitAtTags } = await load("dialect");
        const { runOfText, transcriptOf } = await load("run");
        const { layout } = await load("layout");
        const run = runOfText(data, "", "");
        const t = transcriptOf(run);
        result = { layout: layout(t, "steps"), units: splitAtTags(data).flatMap((part) =>
          part.startsWith("<") ? [part] : part.match(/\\s*\\S+|\\s+$/g) ?? []) };
        """,
        LINEAR,
    )
    tags = TagTable.from_ids(MULTIVERSE, {tag: i for i, tag in enumerate(MULTIVERSE.tags)})
    ids = [MULTIVERSE.tags.index(u) if u in MULTIVERSE.tags else 99 for u in found["units"]]
    trace = parse(ids, tags)
    statistics = trace.statistics()
    layout = found["layout"]
    assert layout["total"] == statistics.tokens
    assert layout["critical"] == layout["end"] == statistics.critical_path_tokens
    assert [lane["path"] for lane in layout["lanes"]] == ["", "1", "2", "2.1", "2.2"]
    starts = {
        trace.positions[branch.span.lo] for block in trace.blocks for branch in block.branches
    }
    assert {bar["from"] for bar in layout["bars"] if bar["path"] == "1"} <= starts
    critical = sum(bar["size"] for bar in layout["bars"] if bar["critical"])
    assert critical == statistics.critical_path_tokens
    # A fork begins where the branch does; a join meets the parent where it goes on.
    forks = [link for link in layout["links"] if link["kind"] == "fork"]
    joins = [link for link in layout["links"] if link["kind"] == "join"]
    assert len(forks) == len(joins) == 5
    begins = {(bar["path"], bar["from"]) for bar in layout["bars"]}
    paths = [lane["path"] for lane in layout["lanes"]]
    assert all((paths[link["to"]], link["end"]) in begins for link in forks)
    assert all((paths[link["from"]], link["at"]) in begins for link in joins)


def test_time_is_laid_out_as_it_came() -> None:
    bars = run(
        GROW
        + """
        const { layout } = await load("layout");
        data.forEach(([path, text], at) => t.add(path, text, at * 10));
        result = layout(t, "time").bars.map(({ path, from, to }) => [path, from, to]);
        """,
        PIECES,
    )
    assert bars == [
        ["", 0, 10],
        ["1", 20, 60],
        ["2", 30, 70],
        ["2.1", 90, 110],
        ["2.2", 80, 100],
        ["2", 120, 120],
        ["", 130, 140],
        ["1", 150, 150],
        ["", 160, 160],
    ]


def test_a_branch_that_waits_its_turn_has_a_gap() -> None:
    pieces = [("", "<Parallel><Goal><Outline>1: a</Outline><Outline>2: b</Outline></Goal>")]
    pieces += [("1", "\n<Path>\n1:"), ("2", "\n<Path>\n2:")]
    together = [(path, " w") for _ in range(10) for path in ("1", "2")]
    in_turn = [(path, " w") for path in ("1", "2") for _ in range(10)]
    bars = run(
        """
        const { Transcript } = await load("transcript");
        const { layout } = await load("layout");
        result = data.map((pieces) => {
          const t = new Transcript();
          pieces.forEach(([path, text], at) => t.add(path, text, at));
          return layout(t, "time").bars.map(({ path, from, to }) => [path, from, to]);
        });
        """,
        [pieces + together, pieces + in_turn],
    )
    assert bars[0] == [["", 0, 0], ["1", 1, 21], ["2", 2, 22]]
    assert bars[1] == [["", 0, 0], ["1", 1, 12], ["2", 2, 2], ["2", 13, 22]]


STREAM = """
const { Server, ServerError } = await load("stream");
const asked = [];
globalThis.fetch = async (url, init) => {
  asked.push([String(url), init.headers.get("authorization"), JSON.parse(init.body)]);
  const bytes = new TextEncoder().encode(data.text);
  const body = new ReadableStream({ start(controller) {
    for (let at = 0; at < bytes.length; at += data.size) {
      controller.enqueue(bytes.slice(at, at + data.size));
    }
    controller.close();
  } });
  return new Response(body, { status: data.status });
};
const server = new Server(new URL("http://host/a/"), "k");
const events = [];
let error = null;
try {
  const { signal } = new AbortController();
  for await (const e of server.ask({ model: "m" }, { max_depth: 1 }, signal)) events.push(e);
} catch (caught) {
  if (!(caught instanceof ServerError)) throw caught;
  error = [caught.status, caught.message];
}
result = { asked, events, error };
"""

EVENTS = (
    'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    'data: {"choices":[{"index":0,"delta":{"content":"hé"},"multiverse":{"path":"2.1"}}]}\r\n\r\n'
    ": a comment\n\n"
    'data: {"choices":[{"delta":{},"finish_reason":"stop","multiverse":{"tokens":3}}]}\n\n'
    'data: {"choices":[],"usage":{}}\n\n'
    "data: [DONE]\n\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_stream_in_pieces_of_any_size(size: int) -> None:
    found = run(STREAM, {"text": EVENTS, "size": size, "status": 200})
    assert found["error"] is None
    assert found["events"] == [
        {"path": "2.1", "text": "hé"},
        {"finish": "stop", "summary": {"tokens": 3}},
    ]
    body = {"model": "m", "stream": True, "multiverse": {"max_depth": 1, "stream": "branches"}}
    assert found["asked"] == [["http://host/a/v1/chat/completions", "Bearer k", body]]


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (400, '{"object":"error","message":"max_depth=9: allowed"}', [400, "max_depth=9: allowed"]),
        (401, '{"error":"Unauthorized"}', [401, "Unauthorized"]),
        (502, "<html>bad gateway", [502, "<html>bad gateway"]),
        (500, "", [500, "HTTP 500"]),
        (200, EVENTS.split(": a")[0], [0, "the connection broke in the middle of the answer"]),
        (200, 'data: {"error":{"message":"aborted","code":503}}\n\n', [503, "aborted"]),
    ],
)
def test_what_goes_wrong_is_said(status: int, text: str, said: list[Any]) -> None:
    assert run(STREAM, {"text": text, "size": 50, "status": status})["error"] == said


def test_markdown_nests_as_the_branches_do() -> None:
    found = run(
        'const { runOfText } = await load("run"); const { toMarkdown } = await load("markdown");'
        'result = toMarkdown(runOfText(data, "", ""));',
        LINEAR,
    )
    lines = found.splitlines()
    assert lines[0] == "Let's think in parallel."
    assert "> **1** first" in lines and "> one done" in lines
    assert "> > **2.1** a" in lines and "> > ay" in lines
    assert "both" in lines and lines[-1] == "Answer: 3"
    assert "<" not in found


def test_traces_are_found_in_what_people_have() -> None:
    found = run(
        'const { tracesOf } = await load("traces");'
        'result = data.map((text) => tracesOf(text, "f"));',
        [
            '{"id": 3, "user": "q", "output": "o"}\n\n{"no": 1}\nnot json\n{"text": "t"}',
            '{"messages": [{"role": "user", "content": "q"}, '
            '{"role": "assistant", "content": "a"}]}',
            "plain <Parallel>",
        ],
    )
    assert found[0]["traces"] == [
        {"title": "3", "question": "q", "text": "o"},
        {"title": "line 5", "question": "", "text": "t"},
    ]
    assert found[0]["skipped"] == [3, 4]
    assert found[1]["traces"] == [{"title": "line 1", "question": "q", "text": "a"}]
    assert found[2]["traces"] == [{"title": "f", "question": "", "text": "plain <Parallel>"}]


def test_formulas_are_cut_out_and_prices_are_not() -> None:
    found = run(
        'const { splitAtFormulas } = await load("maths");'
        "result = data.map((text) => splitAtFormulas(text).map((p) => "
        "[p.text, p.tex, p.display]));",
        [r"so \(x\) and $$y$$", r"\[a\nb\]", "costs $5 and $6, $7", "$a_1$, $b$."],
    )
    assert found[0] == [
        ["so ", None, False],
        [r"\(x\)", "x", False],
        [" and ", None, False],
        ["$$y$$", "y", True],
    ]
    assert found[1] == [[r"\[a\nb\]", r"a\nb", True]]
    assert all(tex is None for _, tex, _ in found[2])
    assert [tex for _, tex, _ in found[3]] == ["a_1", None, "b", None]
