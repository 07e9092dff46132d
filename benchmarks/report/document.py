"""A report as a list of blocks, and its three forms: text for the terminal, Markdown, and one page of HTML."""
from collections import namedtuple
from html import escape

Heading = namedtuple("Heading", "level text")
Paragraph = namedtuple("Paragraph", "text")
Table = namedtuple("Table", "header lines align")  # lines of cells; l, r or w (left and wrapped) for each column
Figures = namedtuple("Figures", "title svgs caption")  # in HTML alone
Fold = namedtuple("Fold", "summary blocks")  # opened by the reader, in HTML


class Cell(str):
    """Text with a CSS class, for a verdict."""

    def __new__(cls, text, kind):
        cell = super().__new__(cls, text)
        cell.kind = kind
        return cell


STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --dim: #5f6770; --rule: #dfe3e8; --band: #f5f7f9;
  --own: #0072b2; --other: #00865f; --rival: #c14d00; --rival2: #a8508b; --naive: #7a828a; --bad: #b3261e;
  --f0: #0072b2; --f1: #c14d00; --f2: #00865f; --f3: #a8508b; --f4: #9a6b00; --f5: #2a7f9e; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --ink: #e4e8ec; --dim: #9aa3ac; --rule: #31373d;
  --band: #1c2024; --own: #56b4e9; --other: #35c39a; --rival: #f28c52; --rival2: #d990c2; --naive: #8e969e;
  --bad: #ff8a80; --f0: #56b4e9; --f1: #f28c52; --f2: #35c39a; --f3: #d990c2; --f4: #e0b040; --f5: #8ad4ee; } }
body { background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; max-width: 1380px;
  margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--rule); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 7px; text-align: left; white-space: nowrap; vertical-align: top; }
th { border-bottom: 2px solid var(--rule); color: var(--dim); font-weight: 600; }
th.r, td.r { text-align: right; }
td.w { white-space: normal; min-width: 8rem; overflow-wrap: anywhere; }
tbody tr:nth-child(even) { background: var(--band); }
summary { cursor: pointer; margin: .5rem 0; color: var(--own); }
.met { color: var(--other); font-weight: 600; } .not-met { color: var(--bad); font-weight: 600; }
.not-measured { color: var(--dim); }
figure { margin: 1rem 0; } figcaption { color: var(--dim); font-size: 13px; max-width: 60rem; }
figure div { display: flex; flex-wrap: wrap; gap: 1rem; }
svg { max-width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--dim); } svg .head { font-size: 12px; font-weight: 600; } svg .label { font-weight: 600; }
.faint { opacity: .45; }
.grid { stroke: var(--rule); } .one { stroke: var(--dim); stroke-width: 1.4; } .path { fill: none; stroke-width: 2; }
""" + "".join(f".{name}, svg text.{name} {{ fill: var(--{name}); }} .path.{name}, .roof.{name} "
              f"{{ fill: none; stroke: var(--{name}); }}\n"
              for name in ("own", "other", "rival", "rival2", "naive", "f0", "f1", "f2", "f3", "f4", "f5"))


def text(blocks):
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"\n{block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Fold):
            parts.append(text(block.blocks))
        elif isinstance(block, Table):
            widths = [max(len(line[i]) for line in [block.header, *block.lines]) for i in range(len(block.header))]
            for line in [block.header, ["-" * width for width in widths], *block.lines]:
                cells = [cell.rjust(width) if align == "r" else cell.ljust(width)
                         for cell, width, align in zip(line, widths, block.align)]
                parts.append("  ".join(cells).rstrip())
    return "\n".join(part for part in parts if part)


def markdown(blocks):
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Fold):
            parts.append(markdown(block.blocks))
        elif isinstance(block, Table):
            rule = ["---:" if align == "r" else "---" for align in block.align]
            lines = [block.header, rule, *block.lines]
            parts.append("\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines))
    return "\n\n".join(part for part in parts if part)


def html_table(table):
    def row(tag, line):
        cells = (f'<{tag} class="{align} {getattr(cell, "kind", "")}">{escape(cell)}</{tag}>'
                 for cell, align in zip(line, table.align))
        return f"<tr>{''.join(cells)}</tr>"

    body = "\n".join(row("td", line) for line in table.lines)
    return f'<div class="scroll"><table><thead>{row("th", table.header)}</thead>\n<tbody>{body}</tbody></table></div>'


def html_body(blocks):
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{escape(block.text)}</h{block.level}>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{escape(block.text)}</p>")
        elif isinstance(block, Fold):
            parts.append(f"<details><summary>{escape(block.summary)}</summary>{html_body(block.blocks)}</details>")
        elif isinstance(block, Table):
            parts.append(html_table(block))
        elif isinstance(block, Figures) and block.svgs:
            if block.title:
                parts.append(f"<h2>{escape(block.title)}</h2>")
            parts.append(f"<figure><div>{''.join(block.svgs)}</div>"
                         f"<figcaption>{escape(block.caption)}</figcaption></figure>")
    return "\n".join(parts)


def html(title, blocks):
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
            f"<body>\n{html_body(blocks)}\n</body></html>\n")
