"use strict";
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const figures = JSON.parse($("figures").textContent);
const chosen = new Set(); // places of runs
const charts = {}; // by scale: the Bokeh sources of runs, means and bands
let byRun = data.configurations.length === data.runs.length;
let sort = data.main;
let descending = data.mode === "max";
let moving = !matchMedia("(prefers-reduced-motion: reduce)").matches;

function element(tag, text, classes) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function press(id, on) {
  $(id).setAttribute("aria-pressed", String(on));
}

function number(value) {
  const short = Number(value.toPrecision(5));
  const size = Math.abs(short);
  return size && (size < 1e-4 || size >= 1e7) ? short.toExponential() : String(short);
}

// A cell is null, a text, a number, or [mean, sd or null, n].
const key = (cell) => (Array.isArray(cell) ? cell[0] : cell);

function show(cell) {
  if (cell === null) return "";
  if (typeof cell === "string") return cell;
  if (!Array.isArray(cell)) return number(cell);
  return cell[1] === null ? number(cell[0]) : `${number(cell[0])} \u00b1 ${cell[1].toPrecision(2)}`;
}

function compare(one, other) {
  const [a, b] = [key(one.cells[sort]), key(other.cells[sort])];
  if (a === null || b === null) return (a === null) - (b === null); // nothing comes last
  let order;
  if (typeof a === "number" && typeof b === "number") order = a - b;
  else order = String(a).localeCompare(String(b), "en", { numeric: true });
  return descending ? -order : order;
}

function columns() {
  return data.columns.map((column, place) => ({ ...column, place }))
    .filter((column) => $("all-columns").checked || !column.more);
}

function found(row, word) {
  return `${row.cells.filter((cell) => !Array.isArray(cell)).join(" ")} ${row.title}`
    .toLowerCase().includes(word);
}

function table() {
  press("by-run", byRun);
  press("by-configuration", !byRun);
  const shown = columns();
  const head = element("tr");
  for (const column of shown) {
    const cell = element("th", undefined, (column.text ? "text" : "") + (column.place === data.main ? " main" : ""));
    const button = element("button", column.label);
    button.type = "button";
    button.title = column.title;
    button.onclick = () => {
      descending = sort === column.place ? !descending : false;
      sort = column.place;
      table();
    };
    if (sort === column.place) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    cell.append(button);
    head.append(cell);
  }
  document.querySelector("thead").replaceChildren(head);
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = (byRun ? data.runs : data.configurations)
    .filter((row) => words.every((word) => found(row, word))).sort(compare);
  document.querySelector("tbody").replaceChildren(...rows.map((row) => line(row, shown)));
  mark();
}

function line(row, shown) {
  const made = element("tr");
  made.members = row.members;
  if (row.best) made.classList.add("best");
  shown.forEach((column, n) => {
    const value = row.cells[column.place];
    const cell = element("td", undefined, column.text ? "text" : "");
    if (n === 0) {
      const dot = element("span", undefined, "dot");
      dot.style.background = row.colour;
      cell.append(dot);
    }
    cell.append(show(value));
    if (Array.isArray(value)) cell.title = `of ${value[2]} runs`;
    if (n === 0) cell.title = row.title;
    made.append(cell);
  });
  made.onclick = () => toggle(row.members);
  return made;
}

function toggle(members) {
  const all = members.every((place) => chosen.has(place));
  for (const place of members) all ? chosen.delete(place) : chosen.add(place);
  mark();
}

function mark() {
  for (const row of document.querySelectorAll("tbody tr"))
    row.classList.toggle("chosen", row.members.every((place) => chosen.has(place)));
  for (const card of document.querySelectorAll("figure[data-run]")) {
    const place = Number(card.dataset.run);
    card.classList.toggle("chosen", chosen.has(place));
  }
  $("clear").disabled = !chosen.size;
  $("table-note").textContent = chosen.size ? `${chosen.size} of ${data.runs.length} runs selected` : "";
  for (const chart of Object.values(charts)) select(chart);
}

function select(chart) {
  const places = chart.runs.data.place || [];
  const indices = [];
  places.forEach((place, index) => chosen.has(place) && indices.push(index));
  const now = chart.runs.selected.indices;
  if (indices.length !== now.length || indices.some((each, n) => each !== now[n])) {
    chart.quiet = true;
    chart.runs.selected.indices = indices;
    chart.quiet = false;
  }
}

function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.float32), (c) => c.charCodeAt(0));
  const all = new Float32Array(bytes.buffer);
  let start = 0;
  return packed.lengths.map((length) => all.subarray(start, (start += length)));
}

function alpha(count) {
  return Math.max(0.2, Math.min(0.9, 12 / count));
}

function fill(chart) {
  const curves = data.curves[Number($("metric").value)];
  const [xs, ys] = [unpack(curves.steps), unpack(curves.values)];
  const of = curves.runs.map((place) => data.runs[place]);
  chart.quiet = true;
  chart.runs.selected.indices = [];
  chart.runs.data = {
    xs, ys,
    place: curves.runs,
    colour: of.map((run) => run.colour),
    alpha: of.map((run) => (run.best ? 1 : alpha(of.length))),
    faint: of.map(() => Math.min(0.08, 8 / of.length)),
    width: of.map((run) => (run.best ? 3 : 1.3)),
    name: of.map((run) => run.name),
    says: of.map((run) => run.says),
  };
  const means = $("bands").getAttribute("aria-pressed") === "true" && curves.bands;
  const groups = means ? curves.bands.configurations.map((place) => data.configurations[place]) : [];
  const [bx, mean, sd] = means
    ? [curves.bands.steps, curves.bands.mean, curves.bands.sd].map(unpack)
    : [[], [], []];
  const shifted = (n, sign) => Array.from(mean[n], (value, k) => value + sign * sd[n][k]);
  chart.means.data = {
    xs: bx, ys: mean,
    colour: groups.map((each) => each.colour),
    name: groups.map((each) => `mean of ${each.members.length} runs`),
    says: groups.map((each) => each.says),
  };
  chart.areas.data = {
    xs: bx.map((x) => Float32Array.from([...x, ...[...x].reverse()])),
    ys: mean.map((_, n) => Float32Array.from([...shifted(n, -1), ...shifted(n, 1).reverse()])),
    colour: groups.map((each) => each.colour),
  };
  chart.glyphs.visible = !means;
  for (const axis of chart.axes) axis.axis_label = curves.metric;
  chart.quiet = false;
  select(chart);
  $("bands").hidden = !curves.bands;
  $("curves-note").textContent = curves.note;
}

async function chart(scale) {
  if (!charts[scale]) {
    const before = new Set(Bokeh.documents);
    await Bokeh.embed.embed_item(figures[scale], `${scale}-chart`);
    const made = Bokeh.documents.find((each) => !before.has(each));
    const named = (name) => made.get_model_by_name(name);
    charts[scale] = {
      runs: named("runs"), means: named("means"), areas: named("areas"), glyphs: named("lines"),
      axes: [named("values")], quiet: false,
    };
    const { runs } = charts[scale];
    runs.selected.properties.indices.change.connect(() => {
      if (charts[scale].quiet) return;
      chosen.clear();
      for (const index of runs.selected.indices) chosen.add(runs.data.place[index]);
      mark();
    });
  }
  fill(charts[scale]);
}

function scale() {
  return $("log").getAttribute("aria-pressed") === "true" ? "log" : "linear";
}

function draw() {
  $("linear-chart").hidden = scale() !== "linear";
  $("log-chart").hidden = scale() !== "log";
  return chart(scale());
}

function gallery() {
  const cards = data.gallery.map((card) => {
    const run = card.run === null ? null : data.runs[card.run];
    const figure = element("figure", undefined, run ? (run.best ? "best" : "") : "real");
    const caption = element("figcaption");
    caption.append(element("b", run ? run.says || run.name : "Real clips"));
    if (run) caption.append(`${run.best ? "best: " : ""}${run.told} \u00b7 step ${card.step}`);
    const image = element("img");
    const [url, width, height] = moving ? card.moving : card.still;
    image.src = url;
    image.width = width * data.zoom;
    image.classList.toggle("exact", Number.isInteger(data.zoom));
    image.height = height * data.zoom;
    image.alt = `${moving ? "Moving samples" : "Frames of samples"} of ${run ? run.name : "the data"}`;
    figure.append(caption, image);
    if (run) {
      figure.dataset.run = card.run;
      figure.title = run.name;
      figure.onclick = () => toggle([card.run]);
    }
    return figure;
  });
  $("gallery-part").hidden = !cards.length;
  $("gallery").replaceChildren(...cards);
  $("gallery-note").textContent = data.gallery_note;
  press("play", !moving);
  const box = $("gallery");
  $("unfold").hidden = box.scrollHeight <= box.clientHeight + 4 && !box.classList.contains("all");
  mark();
}

document.title = data.title;
document.querySelector("h1").textContent = data.headline[0];
$("best").textContent = data.headline[1];
$("differs").textContent = data.headline.slice(2).join(" ");
for (const [name, value] of Object.entries(data.same)) {
  const pair = element("div");
  pair.append(element("dt", name), element("dd", value));
  $("same").append(pair);
}
$("method").append(...data.method.map((text) => element("li", text)));
data.curves.forEach((each, place) => {
  const option = element("option", each.metric);
  option.value = place;
  $("metric").append(option);
});
$("by-configuration").hidden = data.configurations.length === data.runs.length;
$("by-run").hidden = $("by-configuration").hidden;
$("by-run").onclick = () => { byRun = true; table(); };
$("by-configuration").onclick = () => { byRun = false; table(); };
$("find").oninput = table;
$("all-columns").onchange = table;
$("clear").onclick = () => { chosen.clear(); mark(); };
$("metric").onchange = draw;
$("log").onclick = () => { press("log", scale() === "linear"); draw(); };
$("bands").onclick = () => {
  press("bands", $("bands").getAttribute("aria-pressed") !== "true");
  draw();
};
$("play").onclick = () => { moving = !moving; gallery(); };
$("unfold").onclick = () => {
  press("unfold", $("gallery").classList.toggle("all"));
};
gallery();
table();
window.drawn = data.curves.length ? draw() : Promise.resolve();
