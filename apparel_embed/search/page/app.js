"use strict";

// The page of the search service. It contacts no other server and stores only the API key, for this
// tab.

const ALL = "*";
const PREDICTED = "";
const MEASURED = "?";
const VERDICTS = {
  "same item": "Same item: the nearest image is close enough to be this garment.",
  "similar only": "Similar only: no image is close enough to be this garment.",
};
const byId = (id) => document.getElementById(id);

const state = {
  info: null,
  key: sessionStorage.getItem("api-key") || "",
  file: null, // The image to search by, or null.
  more: [], // Further images of the same garment, searched together with `file`.
  similarTo: null, // The key of a clicked hit to search by instead, or null.
  vertical: null, // The kind that the user chose; a found garment overrides it temporarily.
  detected: false, // Whether the image was searched for garments.
  box: null, // [left, top, right, bottom] in pixels of the image, or null.
  running: null, // The search in progress, which the next one aborts.
  urls: [],
};

class Refused extends Error {}

async function request(path, options = {}) {
  const headers = state.key ? { "X-API-Key": state.key } : {};
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
    throw new Refused(state.key ? "This API key is wrong." : "An API key is required.");
  }
  if (!response.ok) {
    let detail = `The service returned status ${response.status}.`;
    try {
      detail = sentence((await response.json()).detail);
    } catch (error) {
      // Not JSON, so not from the service itself but from a proxy.
    }
    const wait = response.headers.get("Retry-After");
    throw new Refused(wait ? `${detail} Wait ${wait} s.` : detail);
  }
  return response;
}

function sentence(text) {
  const line = String(text);
  return line.charAt(0).toUpperCase() + line.slice(1) + (/[.!?]$/.test(line) ? "" : ".");
}

// If a key is required, images are loaded with fetch, because <img> cannot send it.
async function show(image, path) {
  if (!state.key) {
    image.src = path;
    return;
  }
  try {
    const url = URL.createObjectURL(await (await request(path)).blob());
    state.urls.push(url);
    image.src = url;
  } catch (error) {
    image.dispatchEvent(new Event("error"));
  }
}

async function start() {
  try {
    state.info = await (await request("api/info")).json();
  } catch (error) {
    showError(error);
    return;
  }
  const { info } = state;
  byId("key-form").hidden = true;
  byId("about").textContent =
    `Find the garments that look like the one in your image, among ${info.images.toLocaleString("en")} images.`;
  byId("model").textContent = `Model ${info.model.slice(0, 16)} · version ${info.version}`;
  const select = byId("vertical");
  select.replaceChildren();
  if (info.predicts) {
    select.append(new Option("Automatic", MEASURED));
  }
  select.append(new Option("All kinds", ALL));
  if (info.predicts) {
    select.append(new Option("Predicted kind", PREDICTED));
  }
  for (const name of info.verticals) {
    select.append(new Option(name, `=${name}`));
  }
  state.vertical = select.value;
  addExamples(info.examples);
  showError(null);
}

function addExamples(count) {
  byId("examples-section").hidden = count === 0;
  byId("examples").replaceChildren(
    ...Array.from({ length: count }, (_, number) => {
      const image = new Image();
      image.alt = `Example ${number + 1}`;
      show(image, `examples/${number}`);
      const button = document.createElement("button");
      button.type = "button";
      button.append(image);
      button.addEventListener("click", async () => {
        try {
          // An example shows a single garment, so there is nothing to detect.
          useImage(await (await request(`examples/${number}`)).blob(), search);
        } catch (error) {
          showError(error);
        }
      });
      const entry = document.createElement("li");
      entry.append(button);
      return entry;
    }),
  );
}

function useImages([file, ...more]) {
  if (file) {
    useImage(file, more.length || !state.info?.detects ? search : detect, more);
  }
}

function useImage(file, next, more = []) {
  const { info } = state;
  if (!info) {
    return;
  }
  const size = [file, ...more].reduce((sum, one) => sum + one.size, 0);
  if (size > info.max_bytes || more.length >= info.max_images) {
    const images = more.length ? `These ${more.length + 1} images have` : "This image has";
    const limit = more.length ? ` and at most ${info.max_images} images of one garment` : "";
    showError(
      new Refused(
        `${images} ${(size / 1e6).toFixed(1)} MB; expected at most ${info.max_bytes / 1e6} MB${limit}.`,
      ),
    );
    return;
  }
  state.more = more;
  state.file = file;
  state.similarTo = null;
  showImage(URL.createObjectURL(file), true);
  if (more.length) {
    byId("found").textContent =
      `${more.length + 1} images of one garment, searched together. A box searches with this image only.`;
  }
  next();
}

function showImage(url, owned) {
  const image = byId("image");
  const old = image.dataset.owned;
  if (old) {
    URL.revokeObjectURL(old);
  }
  image.dataset.owned = owned ? url : "";
  image.src = url;
  byId("preview").hidden = false;
  for (const id of ["left", "top", "right", "bottom"]) {
    byId(id).value = "";
  }
  showGarments(null);
  setBox(null);
}

function search() {
  if (state.file || state.similarTo) {
    work("Searching …", state.similarTo ? requestSimilar : requestSearch, showFound);
  }
}

// Sends a request to the service and aborts the one in progress.
async function work(message, send, present) {
  state.running?.abort();
  const running = new AbortController();
  state.running = running;
  document.body.classList.add("busy");
  byId("results").setAttribute("aria-busy", "true");
  byId("status").textContent = message;
  showVerdict(null);
  const started = performance.now();
  try {
    const found = await (await send(running)).json();
    showError(null);
    present(found, performance.now() - started);
  } catch (error) {
    if (error.name !== "AbortError") {
      showError(error);
      byId("hits").replaceChildren();
      byId("status").textContent = "";
    }
  } finally {
    if (state.running === running) {
      document.body.classList.remove("busy");
      byId("results").setAttribute("aria-busy", "false");
    }
  }
}

function requestedVerticals() {
  const chosen = byId("vertical").value;
  if (chosen === ALL) {
    return { all_verticals: "true" };
  }
  if (chosen === MEASURED) {
    return {};
  }
  return chosen.startsWith("=") ? { vertical: chosen.slice(1) } : { all_verticals: "false" };
}

function requestSearch(running) {
  const form = new FormData();
  form.append("file", state.file, "image");
  if (state.box) {
    form.append("box", state.box.map((edge) => edge.toFixed(1)).join(","));
  } else {
    state.more.forEach((one) => form.append("file", one, "image"));
  }
  for (const [name, value] of Object.entries(requestedVerticals())) {
    form.append(name, value);
  }
  return request("api/search", { method: "POST", body: form, signal: running.signal });
}

function requestSimilar(running) {
  const query = new URLSearchParams({ key: state.similarTo, ...requestedVerticals() });
  return request(`api/similar?${query}`, { signal: running.signal });
}

function showFound(found, milliseconds) {
  const where = found.vertical === null ? "all kinds" : found.vertical;
  const count = found.hits.length;
  byId("status").textContent =
    `${count} ${count === 1 ? "item" : "items"} in ${where} (${found.why}) · ${milliseconds.toFixed(0)} ms ` +
    `(${found.milliseconds.total.toFixed(0)} ms in the service)`;
  showVerdict(found.verdict);
  const best = found.scores.filter(({ score }) => score >= 0.01).slice(0, 3).map(
    ({ vertical, score }) => `${vertical} ${Math.round(100 * score)} %`,
  );
  byId("predicted").textContent = best.length ? `Predicted: ${best.join(", ")}` : "";
  byId("empty").hidden = count > 0;
  byId("empty").textContent = "Nothing found.";
  for (const url of state.urls.splice(0)) {
    URL.revokeObjectURL(url);
  }
  byId("hits").replaceChildren(...found.hits.map(entryOf));
  // On a phone the results are below everything else.
  const results = byId("results");
  if (results.getBoundingClientRect().top > window.innerHeight * 0.7) {
    results.scrollIntoView({ block: "start" });
  }
}

function entryOf(hit, place) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute(
    "aria-label",
    `${place + 1}: item ${hit.item}, ${hit.vertical}, distance ${hit.distance.toFixed(3)}. Search with it`,
  );
  const image = new Image();
  image.alt = "";
  image.addEventListener("error", () => {
    image.replaceWith(textOf("span", "none", "no image"));
  });
  show(image, `images/${hit.key}`);
  const facts = textOf("span", "facts", "");
  facts.append(textOf("span", "", hit.vertical), textOf("span", "distance", hit.distance.toFixed(3)));
  button.append(
    textOf("span", "rank", place === 0 ? "1 · nearest" : String(place + 1)),
    image,
    textOf("span", "item", hit.item),
    facts,
  );
  button.addEventListener("click", () => {
    state.file = null;
    state.similarTo = hit.key;
    showImage(image.src, false);
    byId("results").focus();
    search();
  });
  const entry = document.createElement("li");
  entry.append(button);
  return entry;
}

function textOf(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function showVerdict(verdict) {
  byId("verdict").textContent = VERDICTS[verdict] || "";
}

function showError(error) {
  const line = byId("error");
  line.hidden = !error;
  if (!error) {
    line.textContent = "";
    return;
  }
  line.textContent = error instanceof Refused ? error.message : "The service cannot be reached.";
}

byId("file").addEventListener("change", (event) => {
  useImages(event.target.files);
  event.target.value = ""; // The same file may be chosen again.
});
byId("vertical").addEventListener("change", (event) => {
  state.vertical = event.target.value;
  search();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = byId("key").value;
  sessionStorage.setItem("api-key", state.key);
  start();
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files].filter((one) => one.type.startsWith("image/"));
  if (files.length) {
    event.preventDefault();
    useImages(files);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) {
    byId("drop").classList.remove("over");
  }
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  useImages(event.dataTransfer.files);
});
start();
