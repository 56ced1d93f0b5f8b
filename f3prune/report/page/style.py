"""How the page looks: light and dark, wide and narrow, on screen and on paper."""

from __future__ import annotations

from itertools import pairwise

from f3prune.report.page.cells import LEVELS

_LIGHT_RAMP = ((0.0, "#eef2f7"), (0.35, "#a9c6e6"), (0.7, "#3b78bd"), (1.0, "#0c2f5e"))
_DARK_RAMP = ((0.0, "#1c242f"), (0.35, "#244f80"), (0.7, "#5a9ddb"), (1.0, "#def0ff"))
_LIGHT = {
    "ink": "#1a2029", "soft": "#566070", "paper": "#f7f8fa", "card": "#ffffff", "line": "#dfe3e9", "rule": "#eceff3",
    "dense": "#7a8596", "pruned": "#2563b4", "gone": "#c2410c", "good": "#15733f", "bad": "#b42318", "plain": "#6b7687",
    "tint": "#eef2f7",
}  # fmt: skip
_DARK = {
    "ink": "#e4e8ee", "soft": "#a0aab8", "paper": "#10141a", "card": "#171c24", "line": "#2c3440", "rule": "#222934",
    "dense": "#8b97a8", "pruned": "#6aa8ee", "gone": "#ff9259", "good": "#5fc98c", "bad": "#ff8b80", "plain": "#8a95a6",
    "tint": "#1f2732",
}  # fmt: skip
_KINDS = ("dense", "pruned", "gone", "good", "bad", "plain")

_BASE = """
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
color:var(--ink);background:var(--paper)}
main{max-width:70rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}
.eyebrow{margin:0;font-size:.75rem;font-weight:600;letter-spacing:.08em;text-transform:uppercase;color:var(--soft)}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.02em;margin:.15rem 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;letter-spacing:-.01em;margin:0 0 .75rem}h3{font-size:.95rem;margin:1.75rem 0 .35rem}
p{margin:0 0 .75rem}.lead{max-width:46rem;color:var(--soft)}.soft,figcaption{color:var(--soft);max-width:50rem}
figcaption{font-size:.85rem;margin-top:.5rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1.4rem 1.5rem;
margin-top:1.25rem;scroll-margin-top:1rem}
nav{display:flex;flex-wrap:wrap;gap:.35rem 1.1rem;padding-top:.25rem}
nav a{color:var(--pruned);text-decoration:none;padding:.2rem 0}nav a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--pruned);outline-offset:2px;border-radius:2px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.75rem .9rem;
display:flex;flex-direction:column-reverse;justify-content:flex-end}
.tile dd{margin:0;font-size:1.45rem;font-weight:600;letter-spacing:-.02em;line-height:1.25;
font-variant-numeric:tabular-nums}
.tile dt{font-size:.8rem;line-height:1.35;color:var(--soft)}
figure{margin:0 0 1.25rem}code{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.scroll{overflow-x:auto;max-width:100%;margin-bottom:.75rem}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.35rem}
th,td{text-align:left;padding:.35rem 1.1rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
thead th{color:var(--soft);font-weight:500;font-size:.8rem;border-bottom-color:var(--line);white-space:nowrap}
tbody th{font-weight:500;min-width:8rem}.heat tbody th{min-width:0}
td{white-space:nowrap}th.n,td.n{text-align:right}tbody tr:last-child>*{border-bottom:0}
.facts td{white-space:normal;overflow-wrap:anywhere;min-width:12rem}
.facts th{color:var(--soft);white-space:nowrap}
.heat{border-spacing:3px;border-collapse:separate}.heat th,.heat td{border:0;padding:.3rem .6rem}
.heat td{text-align:right;border-radius:3px;min-width:3.4rem}.heat thead th{text-align:right}
.heat tr>th:first-child{padding-left:0;text-align:left}
.heat tbody th{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.heat del{text-decoration:none}.heat td:has(del){box-shadow:0 0 0 2px var(--gone)}
details{margin:.75rem 0}summary{cursor:pointer;color:var(--pruned);padding:.25rem 0;width:fit-content}
details>.scroll,details>.panels{margin-top:.5rem}
.chip{display:inline-block;font:500 .75rem/1.5 system-ui,sans-serif;padding:0 .5em;border-radius:1em;
border:1px solid currentColor;white-space:nowrap}
.prompt{margin:0 0 1rem;padding:.1rem 0 .1rem .9rem;border-left:3px solid var(--line);font-size:1.02rem;
overflow-wrap:anywhere}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:1rem;max-width:40rem}
.pair figure{margin:0}video{display:block;width:100%;border-radius:.35rem;background:#000;image-rendering:pixelated}
.player{display:flex;flex-wrap:wrap;align-items:center;gap:.5rem;max-width:40rem;margin:.75rem 0 1.25rem}
.player[hidden]{display:none}.player input{flex:1 1 8rem;min-width:0;accent-color:var(--pruned)}
.player output{font-size:.85rem;color:var(--soft);min-width:4.5rem;font-variant-numeric:tabular-nums}
button{font:inherit;font-size:.88rem;color:var(--ink);background:var(--tint);border:1px solid var(--line);
border-radius:.35rem;padding:.25rem .7rem;cursor:pointer;min-width:2.6rem}
button:hover{border-color:var(--soft)}button[data-do=play]{min-width:4.4rem}
.sheet{display:block;max-width:none;border-radius:.35rem;background:#fff}
.key{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.45em;background:currentColor}
.keys,.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;font-size:.82rem;color:var(--soft);margin-bottom:.75rem}
.legend{align-items:start}.ramp{display:flex;flex-wrap:wrap;justify-content:space-between;width:11rem}
.ramp svg{flex:1 0 100%;border-radius:2px}.mark::before{content:"";display:inline-block;width:1.6em;
border-top:2px solid var(--gone);margin-right:.5em;vertical-align:.28em}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(13rem,100%),1fr));gap:1rem 1.25rem}
.panels+p{margin-top:1rem}.panels.small{grid-template-columns:repeat(auto-fill,minmax(min(8.25rem,45%),1fr))}
.panel{margin:0;min-width:0;display:flex;flex-direction:column;justify-content:flex-end}
.panel figcaption{display:flex;flex-wrap:wrap;gap:.1rem .5rem;align-items:baseline;
margin:0 0 .3rem;font-size:.8rem}
.panel.mean{flex-direction:column-reverse;justify-content:flex-start}
.cells{display:block;width:100%;shape-rendering:crispEdges;border-radius:2px}
.cells .gone{stroke:var(--gone);stroke-width:1.5;vector-effect:non-scaling-stroke;fill:none;shape-rendering:auto}
.hint{fill:transparent}
.row{display:grid;grid-template-columns:minmax(7rem,13rem) 1fr minmax(6.5rem,auto);gap:.75rem;align-items:center;
font-size:.88rem}
.row+.row{border-top:1px solid var(--rule)}.row.axis{border:0;color:var(--soft);font-size:.8rem}
.row .value{font-variant-numeric:tabular-nums;text-align:right}.ends{display:flex;justify-content:space-between}
.tick{color:var(--soft);font-size:.72rem;line-height:1.5}
.track{display:block;width:100%;overflow:visible}
svg text{font:11px system-ui,-apple-system,sans-serif;fill:var(--soft);font-variant-numeric:tabular-nums}
.zero,.axis>line,line.axis{stroke:var(--line);stroke-width:1}.limit{stroke:var(--gone);stroke-width:1.5;
stroke-dasharray:4 3}.rule{stroke:var(--rule)}
.spread line{stroke:var(--ink);stroke-width:1.25}
.bar.dense,.bar.pruned{fill-opacity:.85}
.whisker,.whisker line{stroke:var(--plain);stroke-width:1.5}.dot{stroke:var(--card);stroke-width:1}
.line{fill:none;stroke-width:1.75;vector-effect:non-scaling-stroke}.dashed{stroke-dasharray:5 4}
.plot{padding:0 1rem .25rem 3.2rem}.area{display:block;width:100%;overflow:visible;margin-bottom:1.6rem}
.axis-title{font-size:.8rem;color:var(--soft);margin:0 0 .6rem -3.2rem}.axis-title.x{text-align:right;margin:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(18rem,100%),1fr));gap:1rem;margin-bottom:1.25rem}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.9rem 1rem}.card h3{margin:0 0 .5rem;display:flex;
flex-wrap:wrap;gap:.2rem .6rem;align-items:center}
.flow{display:flex;flex-wrap:wrap;gap:.3rem .5rem;font-size:.85rem;margin:0 0 .6rem}
.flow>span:not(.arrow){background:var(--tint);border-radius:.3rem;padding:.1rem .5rem}.arrow{color:var(--soft)}
.card dl{margin:0;display:grid;gap:.2rem}.card dl div{display:flex;flex-wrap:wrap;justify-content:space-between;
gap:0 1rem;font-size:.88rem}
.card dt{color:var(--soft)}.card dd{margin:0;font-variant-numeric:tabular-nums}ul.bad{color:var(--bad);margin:.5rem 0 0;
padding-left:1.2rem;overflow-wrap:anywhere}
@media(max-width:40rem){main{padding:1.5rem .75rem 3rem}section{padding:1.1rem .9rem}h1{font-size:1.55rem}
.tiles{grid-template-columns:repeat(2,1fr);gap:.5rem}
.row{grid-template-columns:1fr auto;gap:.1rem .75rem;padding:.3rem 0}.row .track,.row .ends{grid-column:1/-1;grid-row:2}
.row.axis>span:empty{display:none}.pair{gap:.6rem}.plot{padding-right:.6rem}.axis-title{margin-left:-3.2rem}}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{body{background:none}main{max-width:none;padding:0}section{border:0;padding:1rem 0;break-inside:auto}
nav,.player,.videos{display:none}.panel,.card,tr,.row{break-inside:avoid}.scroll{overflow:visible}
h2,h3{break-after:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}.sheet{max-width:100%}}
"""


def style() -> str:
    """The style sheet: the base, and the colours of both schemes."""
    kinds = "".join(
        f".{kind}.bar,.{kind}.dot{{fill:var(--{kind})}}.{kind}.line,.whisker.{kind},.whisker.{kind} line"
        f"{{stroke:var(--{kind})}}.key.{kind},.chip.{kind}{{color:var(--{kind})}}"
        for kind in _KINDS
    )
    cells = "".join(f".q{level}{{fill:var(--q{level})}}" for level in range(LEVELS))
    light = _variables(_LIGHT, _LIGHT_RAMP)
    dark = _variables(_DARK, _DARK_RAMP)
    backgrounds = "".join(f".b{level}{{background:var(--q{level});color:var(--t{level})}}" for level in range(LEVELS))
    return (
        f":root{{color-scheme:light dark;{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"{_BASE}{kinds}{cells}{backgrounds}"
    )


def _variables(colours: dict[str, str], ramp: tuple[tuple[float, str], ...]) -> str:
    named = "".join(f"--{name}:{colour};" for name, colour in colours.items())
    levels = [_colour(level / (LEVELS - 1), ramp) for level in range(LEVELS)]
    filled = "".join(f"--q{index}:{_hex(colour)};" for index, colour in enumerate(levels))
    # Whichever of black and white stands out more from the cell.
    texts = "".join(f"--t{i}:{'#101418' if _luminance(colour) > 0.18 else '#fff'};" for i, colour in enumerate(levels))
    return named + filled + texts


def _colour(share: float, ramp: tuple[tuple[float, str], ...]) -> tuple[float, float, float]:
    for (start, first), (stop, last) in pairwise(ramp):
        if share <= stop:
            part = (share - start) / (stop - start)
            red, green, blue = (a + (b - a) * part for a, b in zip(_rgb(first), _rgb(last), strict=True))
            return red, green, blue
    return _rgb(ramp[-1][1])


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance as WCAG 2 has it."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
