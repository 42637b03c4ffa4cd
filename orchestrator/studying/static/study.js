// The raters' page: shows what the server says is next, and lets go of an answer only when the
// server has confirmed it. A clip is one picture of all its frames, left to right, drawn one by one,
// so that clips loop without a seam and two of them keep step.
"use strict";

const GUARD_MS = 200; // a second tap of the same finger is not an answer to the next question
const RETRY_MS = 2000;
const TIMEOUT_MS = 15000;
const ENLARGED = 6; // canvas pixels a pixel of the clip

const byId = (id) => document.getElementById(id);
const memory = `rater of ${location.pathname}`;
const pictures = new Map(); // by address, loaded or loading
let study = null;
let key = null;
let state = null;
let busy = true;
let playing = []; // [canvas, picture]
let still = matchMedia("(prefers-reduced-motion: reduce)").matches; // until Play is pressed once
let paused = false;
let begun = 0; // when the clips began, or were paused at
let drawn = -1;

// The server ----------------------------------------------------------------------------------

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Asks until there is an answer to act on: the network, a full disk and 429 are waited for.
async function ask(path, body) {
  const request = { cache: "no-store", headers: {} };
  if (key !== null) request.headers["X-Rater"] = key;
  if (body !== undefined) Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  for (;;) {
    let wait = RETRY_MS;
    try {
      request.signal = AbortSignal.timeout(TIMEOUT_MS);
      const response = await fetch(path, request);
      if (response.status !== 429 && response.status < 500) {
        byId("notice").textContent = "";
        return response;
      }
      wait = 1000 * Number(response.headers.get("Retry-After")) || RETRY_MS;
      if (response.status >= 500) tell("The server cannot save just now. Trying again …");
    } catch {
      tell("No connection. Your answer is kept, and sent when there is one …");
    }
    await sleep(wait);
  }
}

const tell = (text) => { byId("notice").textContent = text; };

function remember(value) {
  key = value;
  try {
    if (value === null) localStorage.removeItem(memory);
    else localStorage.setItem(memory, value);
  } catch { /* private windows: the key lives as long as the page */ }
}

function recall() {
  try { return localStorage.getItem(memory); } catch { return null; }
}

// The clips -----------------------------------------------------------------------------------

function load(address) {
  if (!pictures.has(address)) {
    const image = new Image();
    const loaded = new Promise((done) => {
      image.onload = () => image.decode().then(() => done(image), () => done(image));
      image.onerror = async () => {
        pictures.delete(address);
        await sleep(RETRY_MS);
        done(load(address));
      };
    });
    image.src = address;
    pictures.set(address, loaded);
  }
  return pictures.get(address);
}

// canvases[i] plays images[i]; all begin now, at their first frame.
function play(canvases, images) {
  playing = canvases.map((canvas, i) => {
    canvas.width = canvas.height = ENLARGED * images[i].naturalHeight;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    return [context, images[i]];
  });
  drawn = -1;
  begun = paused ? 0 : performance.now();
  draw(performance.now());
}

function draw(now) {
  const frame = Math.floor((paused ? begun : now - begun) * study.fps / 1000);
  if (frame === drawn) return;
  drawn = frame;
  for (const [context, image] of playing) {
    const size = image.naturalHeight;
    const left = size * (Math.max(0, frame) % (image.naturalWidth / size));
    const { width, height } = context.canvas;
    context.drawImage(image, left, 0, size, size, 0, 0, width, height);
  }
}

function tick(now) {
  if (!paused) draw(now);
  requestAnimationFrame(tick);
}

function setPaused(value) {
  if (value !== paused) begun = performance.now() - begun; // a time, or what has been played
  paused = value;
  if (!paused) still = false;
  byId("pause").textContent = paused ? "Play" : "Pause";
}

// The views -----------------------------------------------------------------------------------

function view(name) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== name;
  byId("bar").hidden = name !== "pairs" && name !== "rating";
  document.body.dataset.view = name;
}

async function showIntro() {
  const pairs = study.mode === "pairs";
  byId("title").textContent = pairs ? "Which video is more realistic?" : "How good do these look?";
  byId("task").textContent = pairs
    ? "You will see two short videos at a time, which repeat. Choose the one that looks more "
      + "realistic to you, even where it is hard to say."
    : "You will see short videos, one at a time, which repeat. Rate how good each looks to you, "
      + "from 1, very poor, to 10, as good as an original video.";
  const minutes = Math.max(1, Math.round(study.of * 5 / 60));
  byId("length").textContent =
    `${study.of} ${pairs ? "pairs" : "videos"}, about ${minutes} minute${minutes > 1 ? "s" : ""}.`;
  const box = byId("references");
  box.hidden = byId("references-text").hidden = study.references.length === 0;
  box.ariaLabel = "Original videos";
  const images = await Promise.all(study.references.map(load));
  box.replaceChildren(...images.map(() => document.createElement("canvas")));
  play([...box.children], images);
  setPaused(still);
  view("intro");
}

// Shows what the state says is next; the question appears when its clips are there.
async function show(next) {
  state = next;
  if (state.shown.length === 0) {
    byId("code").textContent = state.code;
    playing = [];
    view("end");
    return;
  }
  const images = await Promise.all(state.shown.map(load));
  byId("place").textContent = `${state.done + 1} of ${state.of}`;
  byId("progress").max = state.of;
  byId("progress").value = state.done;
  for (const button of answers()) button.setAttribute("aria-pressed", "false");
  view(study.mode);
  setPaused(still); // a pause is for one question
  play([...byId(study.mode).querySelectorAll("canvas")], images);
  for (const address of pictures.keys()) {
    if (!state.shown.includes(address) && !state.coming.includes(address)) pictures.delete(address);
  }
  state.coming.forEach(load);
  setTimeout(() => setBusy(false), GUARD_MS);
}

function setBusy(value) {
  busy = value;
  document.body.toggleAttribute("data-busy", value);
}

const answers = () => byId(study.mode).querySelectorAll("button[data-value]");

async function join() {
  byId("start").disabled = true; // a second click would be a second rater
  const response = await ask("raters", {});
  byId("start").disabled = false;
  if (!response.ok) {
    tell((await response.json()).error);
    return;
  }
  remember((await response.json()).key);
  await resume();
}

async function resume() {
  const response = await ask("state");
  if (response.ok) {
    await show(await response.json());
  } else {
    remember(null);
    await showIntro();
  }
}

async function choose(value) {
  if (busy) return;
  setBusy(true);
  for (const button of answers()) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.value) === value));
  }
  const response = await ask("answers", { position: state.done, value });
  if (response.ok) await show(await response.json());
  else await resume(); // answered in another window: go on from what the server has
}

// The hands -----------------------------------------------------------------------------------

const KEYS = {
  pairs: { 1: 0, ArrowLeft: 0, 2: 1, ArrowRight: 1 },
  rating: { 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 0: 10 },
};

function onKey(event) {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (document.body.dataset.view !== study.mode) return;
  if (event.key === "p") {
    setPaused(!paused);
  } else if (event.key in KEYS[study.mode]) {
    event.preventDefault();
    choose(KEYS[study.mode][event.key]);
  }
}

async function main() {
  study = await (await ask("study")).json();
  for (let n = 1; n <= 10; n += 1) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = button.dataset.value = String(n);
    document.querySelector(".scale").append(button);
  }
  for (const button of answers()) {
    button.addEventListener("click", (event) => {
      if (event.detail < 2) choose(Number(button.dataset.value));
    });
  }
  byId("start").addEventListener("click", join);
  byId("pause").addEventListener("click", () => setPaused(!paused));
  document.addEventListener("keydown", onKey);
  requestAnimationFrame(tick);
  key = recall();
  if (key === null) await showIntro();
  else await resume();
}

main();
