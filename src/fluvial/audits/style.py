"""The style sheet of reports: system fonts, aligned numerals, light and dark, phone, desk and paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --line: #d9dee3; --page: #ffffff; --card: #f5f7f9;
  --good: #1a7f4b; --bad: #b3372b; --neutral: #2f5f9e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa5af; --line: #343c44; --page: #14181c;
  --card: #1d2329; --good: #58c48c; --bad: #f0857a; --neutral: #86b3ec; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { color: var(--soft); margin-bottom: 1.5rem; }
.verdicts { list-style: none; margin: 1.25rem 0; padding: 0; display: grid; gap: .6rem; }
.verdicts li { background: var(--card); border-left: .3rem solid var(--neutral); border-radius: .35rem;
  padding: .7rem 1rem; overflow-wrap: anywhere; }
.verdicts li.good { border-color: var(--good); } .verdicts li.bad { border-color: var(--bad); }
.verdicts b { display: block; }
.verdicts li.chief { padding: 1rem 1.25rem; border-left-width: .5rem; font-size: 1.1rem; }
.verdicts li.chief b { font-size: 1.4rem; line-height: 1.3; }
.verdicts li.chief b::first-letter { text-transform: uppercase; }
.verdicts li.good.chief b { color: var(--good); } .verdicts li.bad.chief b { color: var(--bad); }
.scroll { overflow-x: auto; margin: 1rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem; }
.note { color: var(--soft); font-size: .9rem; max-width: none; }
th, td { padding: .45rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 9rem; }
.prose th, .prose td { text-align: left; white-space: normal; vertical-align: top; }
.prose th:first-child { min-width: 6.5rem; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 500; }
figure { margin: 1.25rem 0 2rem; }
figure img { display: block; width: 100%; height: auto; border-radius: .35rem; border: 1px solid var(--line); }
figure.narrow img { max-width: 34rem; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .5rem; max-width: 46rem; }
figcaption b { color: var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; font-size: .92rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 34rem) { main { padding-top: 1.5rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; } th, td { padding: .4rem .5rem; } }
@media print { main { max-width: none; } figure, .verdicts li { break-inside: avoid; } }
"""
