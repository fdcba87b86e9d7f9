// Style and script of the report.
#include "trainer/report/report_page.h"

namespace dtrain {

// Colours: text at least 4.5 : 1 against its ground, lines 3 : 1 (WCAG 2.1, 1.4.3 and 1.4.11); lines differ in dashes
// too.
const std::string_view kReportStyle = R"css(
:root { color-scheme: light dark; --page: #f4f5f7; --card: #ffffff; --text: #1b1f24; --quiet: #57606a; --edge: #d4d8dd;
  --grid: #e6e8eb; --mark: #fff4cc; --good: #11663a; --bad: #a40e26;
  --c0: #0b62b8; --c1: #b84800; --c2: #0a7553; --c3: #8a3ca0; --c4: #8a6a00; --c5: #5a6570; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --card: #171b22; --text: #e6e9ed; --quiet: #a3abb5;
  --edge: #333a44; --grid: #272d36; --mark: #3d3512; --good: #5fd08f; --bad: #ff8f98;
  --c0: #63aefc; --c1: #ff9b54; --c2: #45c89a; --c3: #d295ea; --c4: #d9b73c; --c5: #9aa5b1; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1.25rem 1rem 3rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: .3rem 0; }
small, .quiet { color: var(--quiet); font-size: .85rem; font-weight: normal; }
.state { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .7rem; font-weight: 600; }
.done { color: var(--good); } .failed { color: var(--bad); }
.notes { margin: .8rem 0 0; padding: .5rem .8rem .5rem 1.9rem; background: var(--mark); border-radius: .4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1.2rem 0 0; }
.cards div { background: var(--card); border: 1px solid var(--edge); border-radius: .5rem; padding: .55rem .8rem; }
.cards dt { color: var(--quiet); font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.3rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.cards dd small { display: block; line-height: 1.35; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: .8rem; }
.chart { display: flex; flex-direction: column; min-width: 0; margin: 0; padding: .7rem .9rem .6rem; background: var(--card);
  border: 1px solid var(--edge); border-radius: .5rem; }
.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; list-style: none; margin: 0; padding: 0; font-size: .85rem; }
.swatch { width: 24px; height: 10px; margin-right: .35rem; overflow: visible; }
.plot { display: grid; grid-template-columns: 3.4rem 1fr; margin: .7rem .9rem 0 0; font-size: .75rem; color: var(--quiet);
  font-variant-numeric: tabular-nums; }
.plot > svg { width: 100%; height: 11rem; overflow: visible; display: block; touch-action: pan-y; }
.wide .plot > svg { height: 16rem; }
.values { position: relative; overflow-wrap: normal; }
.values span { position: absolute; right: .5rem; transform: translateY(50%); white-space: nowrap; line-height: 1; }
.steps { grid-column: 1 / -1; position: relative; height: 1.7rem; margin-left: 3.4rem; overflow-wrap: normal; }
.steps span { position: absolute; top: .5rem; transform: translateX(-50%); white-space: nowrap; line-height: 1; }
.steps b { position: absolute; top: .75rem; left: -3.4rem; line-height: 1; font-weight: normal; }
.plot path { vector-effect: non-scaling-stroke; }
path { fill: none; }
.grid { stroke: var(--grid); }
.line { stroke-width: 1.8; stroke-linejoin: round; }
.line.faint { stroke-width: 1; stroke-dasharray: none; opacity: .55; }
.dots { stroke-width: 5.5; stroke-linecap: round; }
.best { stroke: var(--quiet); stroke-dasharray: 2 3; stroke-width: 1.5; }
.cursor { stroke: var(--quiet); }
.line.c1 { stroke-dasharray: 7 3; } .line.c2 { stroke-dasharray: 2 3; } .line.c3 { stroke-dasharray: 8 3 2 3; }
.line.c4 { stroke-dasharray: 12 4; } .line.c5 { stroke-dasharray: 4 2; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.area:not(.dense) { stroke: var(--card); } .area { stroke-width: 1; }
.area.c0 { fill: var(--c0); } .area.c1 { fill: var(--c1); } .area.c2 { fill: var(--c2); } .area.c3 { fill: var(--c3); }
.area.c4 { fill: var(--c4); } .area.c5 { fill: var(--c5); }
.readout { margin: .2rem 0 0; font-size: .85rem; color: var(--quiet); font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: .5rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 600; }
.settings table th, .settings td { text-align: left; white-space: normal; vertical-align: top; font-weight: normal; }
.settings th, .settings code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85rem; }
.settings { max-width: 60rem; } .settings th { width: 45%; }
tr.marked { background: var(--mark); } tr.marked th { font-weight: 700; }
summary { cursor: pointer; padding: .3rem 0; }
footer { margin-top: 2.5rem; }
@media print { body { max-width: none; padding: 0; background: none; } .chart, .cards div, tr { break-inside: avoid; }
  .charts { grid-template-columns: 1fr 1fr; } .area, .notes, .marked { print-color-adjust: exact; } }
)css";

// For each chart: under the pointer, the nearest step that has a value of the first line, and all values there.
const std::string_view kReportScript = R"js(
for (const figure of document.querySelectorAll('.chart')) {
  const plot = figure.querySelector('.plot > svg'), out = figure.querySelector('.readout'), before = out.textContent;
  const cursor = plot.querySelector('.cursor'), low = +plot.dataset.low, high = +plot.dataset.high;
  const lines = [...plot.querySelectorAll('[data-name]')].map(line => ({name: line.dataset.name,
    steps: line.dataset.steps.split(' ').map(Number), values: line.dataset.values.split(' ')}));
  const nearest = (steps, step) => {
    let a = 0, b = steps.length - 1;
    while (b - a > 1) { const m = (a + b) >> 1; if (steps[m] < step) a = m; else b = m; }
    return Math.abs(steps[a] - step) <= Math.abs(steps[b] - step) ? a : b;
  };
  plot.addEventListener('pointermove', event => {
    const box = plot.getBoundingClientRect(), at = low + (event.clientX - box.left) / box.width * (high - low);
    const step = lines[0].steps[nearest(lines[0].steps, at)];
    out.textContent = 'step ' + step + ': ' + lines.map(line => {
      const i = nearest(line.steps, step);
      return line.name + ' ' + (line.values[i] === '-' ? 'not a number' : line.values[i]) +
        (line.steps[i] === step ? '' : ' (step ' + line.steps[i] + ')');
    }).join(' · ');
    cursor.setAttribute('d', 'M' + (step - low) / (high - low) * 1000 + ' 0V1000');
  });
  plot.addEventListener('pointerleave', () => { out.textContent = before; cursor.setAttribute('d', ''); });
}
)js";

const std::string_view kReportScriptDigest = "sha256-8SE6bSuIq/qkMxJm023yiG1OWuqvDeBMArhmstJsbqw=";

}  // namespace dtrain
