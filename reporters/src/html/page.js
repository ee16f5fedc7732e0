"use strict";
(() => {
const D = JSON.parse(document.getElementById("data").textContent);
const GLYPH = {pass: "✓", flaky: "~", fail: "✗", "timed-out": "T", crashed: "C", unfinished: "U", skip: "-", lost: "L", missing: "M", "not-run": "N"};
const WORDS = {pass: "passed", flaky: "flaky", fail: "failed", "timed-out": "timed out", crashed: "crashed", unfinished: "unfinished", skip: "skipped", lost: "lost", missing: "missing", "not-run": "not run"};
const ORDER = ["fail", "timed-out", "crashed", "unfinished", "lost", "missing", "not-run", "flaky", "skip", "pass"];
const BAD = new Set(ORDER.slice(0, 7));
const ABSENT = new Set(["lost", "missing", "not-run", "boot", "ship", "image", "host", "capacity", "plan", "build"]);
const PACKAGE = "(package)";
const ROW = 24;

// Everything from outside goes in as text, never as markup.
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const plural = (n, word) => n.toLocaleString("en") + " " + word + (n === 1 ? "" : "s");
function time(ms) {
  if (ms < 1000) return ms + " ms";
  const s = ms / 1000;
  if (s < 60) return s.toFixed(1) + " s";
  const m = Math.floor(s / 60);
  return m < 60 ? m + " min " + Math.round(s % 60) + " s" : Math.floor(m / 60) + " h " + (m % 60) + " min";
}
const bytes = n => n < 1048576 ? (n / 1024).toFixed(1) + " KiB" : (n / 1048576).toFixed(1) + " MiB";
const result = (row, cell) => D.letters[D.results[cell][row]];
const testName = row => D.tests[row][1] || PACKAGE;
const packageName = row => D.packages[D.tests[row][0]];
const short = id => id.replace(/^custom\//, "");
const ms = (() => {
  const known = [];
  return (row, cell) => parseInt((known[cell] = known[cell] || D.ms[cell].split(","))[row] || "0", 36);
})();
const details = new Map(D.details.map(detail => [detail.c + ":" + detail.t, detail]));

// ---- the head -------------------------------------------------------------------------------------------------------
function hero() {
  const total = ORDER.reduce((sum, name) => sum + D.counts[name], 0);
  const bar = el("div", {class: "bar", role: "img", "aria-label": ORDER.filter(n => D.counts[n]).map(n => D.counts[n] + " " + WORDS[n]).join(", ")});
  for (const name of [...ORDER].reverse()) {
    if (!D.counts[name]) continue;
    const part = el("i", {class: "r-" + name, title: D.counts[name] + " " + WORDS[name]});
    part.style.flexGrow = D.counts[name];
    bar.append(part);
  }
  const fact = (name, value) => value ? el("span", {}, name + " ", el("b", {}, value)) : null;
  const ran = D.cells.filter(cell => !cell.skipped).length;
  return el("section", {class: "card hero", id: "summary"},
    el("div", {class: "hero-line"},
      el("span", {class: "badge"}, D.outcome.replace(/-/g, " ")),
      el("h1", {}, D.component || "kmt-run"),
      el("span", {class: "grow"}),
      el("span", {class: "note mono"}, D.run)),
    bar,
    el("div", {class: "chips"}, ORDER.filter(name => D.counts[name]).map(name =>
      el("button", {class: "chip", "aria-pressed": "false", "data-result": name, title: "show only rows with " + WORDS[name], onclick: () => setFilter(name)},
        el("span", {class: "dot r-" + name}), el("b", {}, D.counts[name].toLocaleString("en")), WORDS[name]))),
    el("div", {class: "facts"},
      fact("", plural(total, "result") + " on " + plural(ran, "cell")),
      fact("took", time(D.wall)), fact("inside tests", time(D.inTests)), fact("stack", D.stack),
      fact("started", D.started ? D.started.replace("T", " ").replace(/\.\d+/, "").replace("Z", " UTC") : ""),
      fact("failed as known flaky", D.knownFlaky ? String(D.knownFlaky) : ""),
      fact("exit code", String(D.exit)),
      D.complete ? null : fact("the log", "ends early"),
      fact("cancelled by", D.cancelledBy)),
    D.command.length ? el("div", {class: "facts"}, el("code", {}, D.command.join(" ").replace(/^\S*\/kmt-run/, "kmt-run"))) : null);
}

function testLink(row, cell) {
  const at = cell !== undefined ? cell : D.results.findIndex((_, c) => BAD.has(result(row, c)));
  const name = testName(row) === PACKAGE ? packageName(row) : testName(row);
  return el("button", {class: "link", title: packageName(row), onclick: () => openDetail(row, at < 0 ? 0 : at)}, name);
}

function boundaries() {
  if (!D.boundaries.length) return null;
  const line = b => {
    const shown = b.tests.slice(0, 6);
    const names = shown.flatMap((row, i) => [i ? ", " : "", testLink(row)]);
    if (b.count > shown.length) names.push(" and " + (b.count - shown.length) + " more");
    return el("div", {}, el("span", {}, names), el("strong", {}, (b.count === 1 ? "fails " : "fail ") + b.fails),
      b.or.length ? el("span", {class: "or"}, "or: " + b.or.join("; ")) : null,
      el("span", {class: "or"}, plural(b.bad, "cell") + " fail" + (b.bad === 1 ? "s" : "") + ", " + b.good + " pass"));
  };
  const first = D.boundaries.slice(0, 5).map(line);
  const box = el("div", {class: "boundary"}, first);
  if (D.boundaries.length > 5) {
    const more = el("button", {onclick: () => more.replaceWith(...D.boundaries.slice(5).map(line))}, "show " + (D.boundaries.length - 5) + " more");
    box.append(more);
  }
  return section("boundaries", "Where it fails", "the smallest statement that parts the cells that fail from those that pass", null, box);
}

function section(id, title, note, tools, ...body) {
  return el("section", {class: "card", id, "aria-label": title},
    el("header", {}, el("h2", {}, title), note ? el("span", {class: "note"}, note) : null, el("span", {class: "grow"}), tools), ...body);
}

// ---- failures by signature ------------------------------------------------------------------------------------------
function groups() {
  if (!D.groups.length) return null;
  const box = el("div", {class: "groups"});
  const make = (group, index) => {
    const cells = group.cells.length;
    const width = plural(cells, "cell") + (group.count ? ", " + plural(group.count, "test") : "");
    const body = el("div", {class: "group-body"});
    const fill = () => {
      if (body.childNodes.length) return;
      if (group.tests.length) {
        body.append(el("div", {}, el("h3", {}, "Tests"), el("div", {class: "tags"}, group.tests.map(row => {
          const cell = group.cells.find(c => BAD.has(result(row, c)));
          return el("span", {class: "tag"}, testLink(row, cell));
        }))));
        if (group.count > group.tests.length) body.append(el("p", {class: "wide"}, "and " + (group.count - group.tests.length) + " more"));
      }
      body.append(el("div", {}, el("h3", {}, "Cells"), el("div", {class: "tags"}, group.cells.map(c => el("span", {class: "tag"}, D.cells[c].id)))));
    };
    const item = el("details", {class: "group", ontoggle: fill},
      el("summary", {}, el("span", {class: "kind" + (ABSENT.has(group.kind) ? " absent" : "")}, WORDS[group.kind] || group.kind),
        el("span", {class: "sig"}, group.example || group.kind), el("span", {class: "wide"}, width)), body);
    if (index === 0 && D.groups.length < 4) { item.open = true; fill(); }
    return item;
  };
  box.append(...D.groups.slice(0, 12).map(make));
  if (D.groups.length > 12) {
    const more = el("button", {class: "more", onclick: () => more.replaceWith(...D.groups.slice(12).map(make))}, "show " + (D.groups.length - 12) + " more");
    box.append(more);
  }
  return section("failures", "Failures", plural(D.groups.length, "cause") + ", the widest first", null, box);
}

// ---- the heat map ---------------------------------------------------------------------------------------------------
const state = {filter: "notgreen", words: [], rows: [], at: [0, 0]};
const interesting = row => D.results.some((_, c) => { const r = result(row, c); return r === "flaky" || BAD.has(r); });
const notGreen = D.tests.map((_, row) => interesting(row));
let grid, inner, head, counter, input;

function columns() {
  // Cells without any test have no column of their own.
  return D.cells.map((_, c) => c).filter(c => /[^.]/.test(D.results[c]));
}
const COLS = columns();

function pick() {
  const wanted = state.filter;
  const has = row => wanted === "all" || (wanted === "notgreen" ? notGreen[row] : COLS.some(c => result(row, c) === wanted));
  const text = row => (packageName(row) + " " + testName(row)).toLowerCase();
  const cellWords = state.words.filter(word => word.startsWith("@")).map(word => word.slice(1));
  const words = state.words.filter(word => !word.startsWith("@"));
  state.cols = cellWords.length ? COLS.filter(c => cellWords.every(word => D.cells[c].id.toLowerCase().includes(word))) : COLS;
  const rows = [];
  let last = -1, tests = 0;
  for (let row = 0; row < D.tests.length; row++) {
    if (!has(row) || !words.every(word => text(row).includes(word))) continue;
    if (D.tests[row][0] !== last) rows.push({package: last = D.tests[row][0]});
    rows.push({row});
    tests++;
  }
  state.rows = rows;
  state.at = [Math.min(state.at[0], Math.max(0, rows.length - 1)), Math.min(state.at[1], Math.max(0, state.cols.length - 1))];
  counter.textContent = plural(tests, "test") + " of " + D.tests.length.toLocaleString("en") + " × " + plural(state.cols.length, "cell");
  for (const chip of document.querySelectorAll("[data-result]")) chip.setAttribute("aria-pressed", String(chip.dataset.result === wanted));
}

function setFilter(name) {
  state.filter = state.filter === name ? "notgreen" : name;
  refresh();
  document.getElementById("matrix").scrollIntoView({block: "start"});
}

function refresh() {
  pick();
  head.replaceChildren(el("div", {class: "corner"}, "test"), ...state.cols.map((c, i) =>
    el("div", {class: "col", "data-col": i, title: D.cells[c].id}, el("span", {}, short(D.cells[c].id)))));
  grid.scrollTop = 0;
  label();
  draw();
}

function label() {
  const width = grid.clientWidth || 800;
  const px = Math.max(width > 900 ? 300 : 150, Math.min(width * 0.5, width - state.cols.length * 20 - 40, 640));
  const longest = state.rows.reduce((most, item) => Math.max(most, (item.row === undefined ? D.packages[item.package] : testName(item.row)).length), 12);
  const need = longest * 7.3 + 36;
  state.label = Math.round(Math.min(need, width < 560 ? Math.max(150, width * 0.46) : px));
  head.firstChild.style.width = state.label + "px";
}

function draw() {
  const top = head.offsetHeight || 100;
  const from = Math.max(0, Math.floor(grid.scrollTop / ROW) - 6);
  const to = Math.min(state.rows.length, from + Math.ceil((grid.clientHeight || 600) / ROW) + 14);
  inner.style.height = (state.rows.length * ROW + top + 4) + "px";
  inner.setAttribute("aria-rowcount", state.rows.length);
  const nodes = [];
  for (let i = from; i < to; i++) nodes.push(line(i, top));
  for (const old of inner.querySelectorAll(".row")) old.remove();
  inner.append(...nodes);
  mark();
  grid.hidden = !state.rows.length;
  document.getElementById("nothing").hidden = !!state.rows.length;
  document.getElementById("why-nothing").textContent = state.filter === "notgreen" && !state.words.length ? "All of it is green. " : "No row is like that. ";
}

function line(i, top) {
  const item = state.rows[i];
  const node = el("div", {class: "row", role: "row", "aria-rowindex": i + 1});
  node.style.top = (top + i * ROW) + "px";
  const name = item.row === undefined ? D.packages[item.package] : testName(item.row);
  const text = el("div", {class: "label", role: "rowheader", title: name}, el("span", {}, el("bdi", {}, name)));
  text.style.width = state.label + "px";
  node.append(text);
  if (item.row === undefined) { node.classList.add("package"); return node; }
  state.cols.forEach((c, j) => {
    const r = result(item.row, c);
    const box = el("div", {class: "cell" + (r ? "" : " none"), role: "gridcell", id: "x" + i + "-" + j, "data-i": i, "data-j": j});
    if (r) box.append(el("i", {class: "r-" + r, title: testName(item.row) + "\n" + D.cells[c].id + ": " + WORDS[r]}, GLYPH[r]));
    node.append(box);
  });
  return node;
}

function mark() {
  const [i, j] = state.at;
  for (const old of inner.querySelectorAll(".at")) old.classList.remove("at");
  for (const col of head.querySelectorAll(".col")) col.classList.toggle("on", document.activeElement === grid && Number(col.dataset.col) === j);
  const box = document.getElementById("x" + i + "-" + j);
  if (box && document.activeElement === grid) {
    box.classList.add("at");
    grid.setAttribute("aria-activedescendant", box.id);
    const row = state.rows[i], c = state.cols[j];
    document.getElementById("live").textContent = testName(row.row) + ", " + D.cells[c].id + ": " + (WORDS[result(row.row, c)] || "not there");
  } else grid.removeAttribute("aria-activedescendant");
}

function move(di, dj) {
  let [i, j] = state.at;
  j = Math.max(0, Math.min(state.cols.length - 1, j + dj));
  const step = Math.sign(di);
  for (let left = Math.abs(di); left > 0 || (state.rows[i] && state.rows[i].row === undefined);) {
    const next = i + (step || 1);
    if (next < 0 || next >= state.rows.length) break;
    i = next;
    if (state.rows[i].row !== undefined) left--;
  }
  if (state.rows[i] && state.rows[i].row === undefined) i = state.rows.findIndex(item => item.row !== undefined);
  show(i, j);
}

function show(i, j) {
  if (i < 0) return;
  state.at = [i, j];
  const top = i * ROW, high = grid.clientHeight - head.offsetHeight - ROW;
  if (top < grid.scrollTop + ROW) grid.scrollTop = Math.max(0, top - ROW);
  if (top > grid.scrollTop + high) grid.scrollTop = top - high;
  const x = state.label + j * 20;
  if (x - state.label < grid.scrollLeft) grid.scrollLeft = x - state.label;
  if (x + 40 > grid.scrollLeft + grid.clientWidth) grid.scrollLeft = x + 40 - grid.clientWidth;
  draw();
}

// The next place, in reading order, that went wrong.
function seek(step) {
  const wide = state.cols.length, all = state.rows.length * wide;
  let place = state.at[0] * wide + state.at[1];
  for (let n = 0; n < all; n++) {
    place = (place + step + all) % all;
    const row = state.rows[Math.floor(place / wide)].row;
    if (row !== undefined && BAD.has(result(row, state.cols[place % wide]))) {
      grid.focus({preventScroll: true});
      return show(Math.floor(place / wide), place % wide);
    }
  }
}

function matrix() {
  counter = el("span", {class: "note", "aria-live": "polite"});
  input = el("input", {type: "search", placeholder: "Search tests, @cell", "aria-label": "Search tests and packages; @word for cells", spellcheck: "false", autocomplete: "off",
    oninput: () => { state.words = input.value.toLowerCase().split(/\s+/).filter(Boolean); refresh(); }});
  const choice = (name, text) => el("button", {class: "chip", "aria-pressed": "false", "data-result": name, onclick: () => { state.filter = name; refresh(); }}, text);
  head = el("div", {class: "grid-head", role: "row"});
  inner = el("div", {class: "grid-in"}, head);
  grid = el("div", {class: "grid", tabindex: "0", role: "grid", "aria-label": "Tests by cell. Arrow keys move, Enter opens.",
    onscroll: draw, onfocus: () => { if (!state.rows[state.at[0]] || state.rows[state.at[0]].row === undefined) move(1, 0); else draw(); }, onblur: mark,
    onclick: event => {
      const box = event.target.closest(".cell");
      if (!box || box.classList.contains("none")) return;
      state.at = [Number(box.dataset.i), Number(box.dataset.j)];
      openDetail(state.rows[state.at[0]].row, state.cols[state.at[1]]);
      mark();
    },
    onkeydown: event => {
      const page = Math.max(1, Math.floor(grid.clientHeight / ROW) - 8);
      const by = {ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], j: [1, 0], k: [-1, 0], h: [0, -1], l: [0, 1], PageDown: [page, 0], PageUp: [-page, 0], Home: [0, -9999], End: [0, 9999]}[event.key];
      if (by && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); event.stopPropagation(); move(...by); }
      else if (event.key === "Enter" || event.key === " ") {
        const item = state.rows[state.at[0]];
        if (item && item.row !== undefined && result(item.row, state.cols[state.at[1]])) { event.preventDefault(); openDetail(item.row, state.cols[state.at[1]]); }
      }
    }}, inner);
  const legend = el("div", {class: "legend only-wide"}, ORDER.filter(name => D.counts[name]).map(name =>
    el("span", {}, el("span", {class: "dot r-" + name}), GLYPH[name] + " " + WORDS[name])));
  return section("matrix", "Tests by cell", null, counter,
    el("div", {class: "tools"}, el("div", {class: "search"}, input, el("kbd", {}, "/")), choice("notgreen", "not green"), choice("all", "all"), legend),
    grid, el("p", {class: "empty", id: "nothing", hidden: true}, el("span", {id: "why-nothing"}), el("button", {onclick: () => { state.filter = "all"; input.value = ""; state.words = []; refresh(); }}, "show all")),
    el("p", {class: "sr", id: "live", "aria-live": "polite"}));
}

// ---- machines over time ---------------------------------------------------------------------------------------------
function lanes() {
  if (!D.lanes.length) return null;
  const end = Math.max(D.wall, 1);
  const place = (node, from, to) => { node.style.left = (from / end * 100) + "%"; node.style.width = (Math.max(0, to - from) / end * 100) + "%"; return node; };
  const track = () => el("div", {class: "track"});
  const box = el("div", {class: "lanes"});
  const bar = (kind, name, from, to, failed, more) => place(el("button", {class: kind + (failed ? " failed" : ""), tabindex: "-1",
    title: name + "\n" + time(from) + " to " + (to === null ? "the end" : time(to)) + ", " + time((to === null ? end : to) - from) + (failed ? "\nended badly" : "") + (more || "")}, kind === "package" ? name.split("/").pop() : ""), from, to === null ? end : to);
  for (const [arch, from, to] of D.builds) {
    const lane = track();
    lane.append(bar("build", "build " + arch, from, to, D.failedBuilds.some(build => build[0] === arch)));
    box.append(el("div", {class: "lane"}, el("span", {class: "name"}, "build " + arch), lane));
  }
  for (const item of D.lanes) {
    const lane = track(), cell = D.cells[item.cell];
    const phases = item.phases.map(([name, at]) => "\n" + name + " at " + time(at)).join("");
    for (const [kind, name, from, to, failed] of item.spans) lane.append(bar(kind, name, from, to === null ? item.lost : to, failed, kind === "boot" ? phases : ""));
    if (item.lost !== null) { const lost = el("span", {class: "lost", title: "lost at " + time(item.lost)}); lost.style.left = "calc(" + item.lost / end * 100 + "% - 3px)"; lane.append(lost); }
    box.append(el("div", {class: "lane", title: item.machine}, el("span", {class: "name"}, cell ? cell.id : item.machine), lane));
  }
  const axis = el("div", {class: "axis"});
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].map(s => s * 1000);
  const step = steps.find(s => end / s <= 6) || 14400000;
  for (let at = 0; at <= end; at += step) { const tick = el("span", {}, time(at)); tick.style.left = (at / end * 100) + "%"; axis.append(tick); }
  box.append(el("div", {class: "lane"}, el("span"), axis));
  const legend = el("div", {class: "legend"}, [["boot", "boot"], ["ship", "ship"], ["package", "tests"], ["fail", "ended badly"]].map(([kind, text]) => {
    const dot = el("span", {class: "dot" + (kind === "fail" ? " r-fail" : "")});
    if (kind !== "fail") dot.style.background = "var(--" + kind + ")";
    return el("span", {}, dot, text);
  }));
  return section("machines", "Machines over time", plural(D.lanes.length, "machine"), legend, box);
}

// ---- consoles -------------------------------------------------------------------------------------------------------
function lines(list, guilty) {
  const marked = new Set(guilty);
  return el("pre", {tabindex: "0"}, list.map((text, i) => el("span", {class: "l" + (marked.has(i) ? " guilty" : "")}, text || " ")));
}
function consoleBox(index, open) {
  const item = D.consoles[index];
  const body = el("div");
  const fill = () => {
    if (body.childNodes.length) return;
    const pre = lines(item.lines, item.guilty);
    if (item.cause) body.append(el("div", {class: "cause"}, el("b", {}, item.cause[0]), el("span", {}, item.cause[1])));
    body.append(pre);
    const first = pre.querySelector(".guilty");
    if (first) requestAnimationFrame(() => { pre.scrollTop = first.offsetTop - pre.offsetTop - 80; });
  };
  const box = el("details", {class: "console", ontoggle: fill},
    el("summary", {}, el("b", {}, D.cells[item.cell].id), el("span", {}, item.title)), body);
  if (open) { box.open = true; fill(); }
  return box;
}
function consoles() {
  if (!D.consoles.length) return null;
  return section("consoles", "Consoles", plural(D.consoles.length, "machine") + " in trouble; the guilty lines are marked", null,
    el("div", {class: "consoles"}, D.consoles.map((_, i) => consoleBox(i, i === 0))));
}

// ---- cells ----------------------------------------------------------------------------------------------------------
function cells() {
  const row = (cell, c) => {
    const counts = {};
    for (const letter of D.results[c]) if (letter !== ".") counts[D.letters[letter]] = (counts[D.letters[letter]] || 0) + 1;
    const bar = el("div", {class: "bar"});
    for (const name of [...ORDER].reverse()) if (counts[name]) { const part = el("i", {class: "r-" + name, title: counts[name] + " " + WORDS[name]}); part.style.flexGrow = counts[name]; bar.append(part); }
    const bad = ORDER.filter(name => BAD.has(name)).reduce((sum, name) => sum + (counts[name] || 0), 0);
    return el("tr", {}, el("td", {class: "mono"}, cell.id), el("td", {class: "mono"}, cell.release || "–"), el("td", {}, cell.os || (cell.distro + " " + cell.version)),
      el("td", {class: "num"}, cell.boot === null ? "–" : (cell.reused ? "reused" : time(cell.boot))),
      el("td", {class: "num"}, time(cell.inTests)), el("td", {}, bar), el("td", {class: "num"}, String(bad)),
      el("td", {class: "trouble"}, cell.skipped ? "left out: " + cell.skipped : cell.trouble ? cell.trouble.stage + ": " + cell.trouble.message.split("\n")[0] : ""));
  };
  const heads = ["cell", "kernel", "system", "boot", "tests", "results", "bad", ""];
  return section("cells", "Cells", plural(D.cells.length, "cell"), null, el("div", {class: "scroll"},
    el("table", {}, el("thead", {}, el("tr", {}, heads.map(text => el("th", {scope: "col"}, text)))), el("tbody", {}, D.cells.map(row)))));
}

// ---- one test in one cell -------------------------------------------------------------------------------------------
const quote = word => /^[A-Za-z0-9/._:@+,-]+$/.test(word) ? word : "'" + word.replace(/'/g, "'\\''") + "'";
function command(row, cell) {
  const vms = D.cells[cell].vms;
  if (!vms || !D.root) return null;
  const words = ["kmt-run", "-C", quote(D.root), "run", "--vms", quote(vms), "--packages", quote("./" + packageName(row))];
  if (D.tests[row][1]) {
    const pattern = D.tests[row][1].split("/").map(part => "^" + part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + "$").join("/");
    words.push("--run", quote(pattern));
  }
  return words.join(" ");
}

let drawer, back;
function openDetail(row, cell) {
  const r = result(row, cell), detail = details.get(cell + ":" + row) || {};
  if (drawer.hidden) back = document.activeElement;
  const body = el("div", {class: "body"});
  const part = (title, ...nodes) => body.append(el("div", {}, el("h3", {}, title), ...nodes));
  if (detail.known) body.append(el("p", {}, BAD.has(r) ? "It is known to be flaky: its failure is counted apart." : "It is known to be flaky."));
  if (detail.owners) body.append(el("p", {}, "Owner: ", el("b", {}, detail.owners.join(" "))));
  if (detail.why) body.append(el("div", {class: "why"}, detail.why));
  if (detail.blames) body.append(el("p", {}, "It failed since a subtest of it did."));
  part("In every cell", el("div", {class: "strip"}, COLS.filter(c => result(row, c)).map(c => el("button", {class: "r-" + result(row, c) + (c === cell ? " on" : ""), title: D.cells[c].id + ": " + WORDS[result(row, c)], onclick: () => openDetail(row, c)}, GLYPH[result(row, c)]))));
  if (detail.text !== undefined && detail.text !== null) part(detail.package ? "Output of the whole package" : "Output", lines(D.texts[detail.text].replace(/\n$/, "").split("\n"), guiltyOutput(D.texts[detail.text])));
  else if (detail.file && !detail.blames) part("Output", el("p", {}, "in ", el("code", {}, detail.file), " of the run directory"));
  if (detail.console !== undefined && detail.console !== null) part("Console", consoleBox(detail.console, true));
  for (const [number, was, why, text] of detail.earlier || []) {
    part("Attempt " + number + ": " + WORDS[was] + (why ? ": " + why : ""), text === null ? "" : lines(D.texts[text].replace(/\n$/, "").split("\n"), guiltyOutput(D.texts[text])));
  }
  const text = command(row, cell);
  if (text) {
    const copy = el("button", {class: "icon", onclick: () => { const done = () => { copy.textContent = "copied"; }; if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => select(code)); else select(code); }}, "copy");
    const code = el("code", {}, text);
    part("Run it again", el("div", {class: "command"}, code, copy));
  }
  drawer.replaceChildren(el("header", {},
    el("div", {class: "grow"}, el("h2", {}, testName(row)), el("div", {class: "where"}, packageName(row)), el("div", {class: "where mono"}, D.cells[cell].id)),
    el("span", {class: "kind" + (ABSENT.has(r) ? " absent" : "")}, (WORDS[r] || "not there") + (ms(row, cell) ? ", " + time(ms(row, cell)) : "")),
    el("button", {class: "icon", "aria-label": "Close", onclick: closeDetail}, "✕")), body);
  drawer.hidden = false;
  drawer.querySelector("header button").focus({preventScroll: true});
}
function guiltyOutput(text) {
  const found = [];
  text.split("\n").forEach((line, i) => { if (/\.go:\d+: ?\S|^\s*Error:\s+\S|^panic: |^fatal error: |^--- FAIL|WARNING: DATA RACE/.test(line)) found.push(i); });
  return found;
}
function select(node) { const range = document.createRange(); range.selectNodeContents(node); const s = getSelection(); s.removeAllRanges(); s.addRange(range); }
function closeDetail() {
  if (drawer.hidden) return;
  drawer.hidden = true;
  if (back && back.isConnected) back.focus({preventScroll: true});
}

// ---- keys, theme, start ---------------------------------------------------------------------------------------------
function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}
const KEYS = [["/", "search"], ["f", "not green, or all"], ["n N", "next, previous failure"], ["↑ ↓ ← →", "move in the matrix"], ["Enter", "open"], ["Esc", "close"], ["1 … 6", "go to a section"], ["t", "light or dark"], ["?", "this"]];
const help = el("dialog", {"aria-label": "Keys"}, el("h2", {}, "Keys"), el("dl", {}, KEYS.flatMap(([key, text]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)])), el("form", {method: "dialog"}, el("button", {}, "close")));

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (event.target === input) { input.value = ""; state.words = []; refresh(); grid.focus({preventScroll: true}); }
    return closeDetail();
  }
  if (event.target === input) { if (event.key === "Enter") grid.focus(); return; }
  const act = {
    "/": () => { input.focus(); input.select(); document.getElementById("matrix").scrollIntoView({block: "start"}); },
    f: () => { state.filter = state.filter === "notgreen" ? "all" : "notgreen"; refresh(); },
    n: () => seek(1), N: () => seek(-1), t: theme, "?": () => help.showModal(),
  }[event.key];
  if (act) { event.preventDefault(); return act(); }
  const link = /^[1-9]$/.test(event.key) && document.querySelectorAll(".top nav a")[Number(event.key) - 1];
  if (link) document.querySelector(link.getAttribute("href")).scrollIntoView({block: "start"});
}

function start() {
  const parts = [hero(), boundaries(), groups(), matrix(), consoles(), lanes(), cells()].filter(Boolean);
  const names = {boundaries: ["Boundary", D.boundaries.length], failures: ["Failures", D.groups.length], matrix: ["Matrix", D.tests.length], consoles: ["Consoles", D.consoles.length], machines: ["Machines", D.lanes.length], cells: ["Cells", D.cells.length]};
  const nav = el("nav", {"aria-label": "Sections"}, parts.filter(part => names[part.id]).map(part => el("a", {href: "#" + part.id}, names[part.id][0], el("span", {class: "n"}, names[part.id][1].toLocaleString("en")))));
  drawer = el("aside", {class: "drawer", role: "dialog", "aria-label": "One test in one cell", hidden: true});
  const notes = D.warnings.map(([subject, text]) => el("div", {}, el("b", {}, subject + ": "), text));
  const builds = D.failedBuilds.map(([arch, subject, text]) => section("build-" + arch, "The build for " + arch + " failed", subject, null, el("div", {class: "consoles"}, lines(text.split("\n").slice(0, 200), []))));
  const app = document.getElementById("app");
  app.replaceChildren(
    el("div", {class: "top"}, el("div", {class: "top-in"}, el("span", {class: "brand"}, "kmt-run"), nav,
      el("button", {class: "icon", "aria-label": "Light or dark", title: "light or dark (t)", onclick: theme}, "◐"),
      el("button", {class: "icon", "aria-label": "Keys", title: "keys (?)", onclick: () => help.showModal()}, "?"))),
    el("main", {}, parts[0], builds, parts.slice(1), notes.length ? section("notes", "Notes", null, null, el("div", {class: "consoles"}, notes)) : null),
    el("footer", {}, "kmt-run " + D.version + ". This page loads nothing."), drawer, help);
  refresh();
  grid.scrollLeft = 0;
  document.addEventListener("keydown", keys);
  addEventListener("resize", () => { label(); draw(); });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
start();
})();
