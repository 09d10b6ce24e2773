"use strict";

// Boxes on the image: those of the garments that the service finds, and one that the user draws or
// types.

const EDGES = ["left", "top", "right", "bottom"];

byId("image").addEventListener("load", () => {
  const image = byId("image");
  byId("size").textContent = `${image.naturalWidth} × ${image.naturalHeight}`;
  byId("stage").classList.remove("unseen");
});
// The service may read a format that the browser does not, such as TIFF.
byId("image").addEventListener("error", () => {
  byId("stage").classList.add("unseen");
});

function place(element, box, width, height) {
  const percent = (value, of) => `${(100 * value) / of}%`;
  element.style.left = percent(box[0], width);
  element.style.top = percent(box[1], height);
  element.style.width = percent(box[2] - box[0], width);
  element.style.height = percent(box[3] - box[1], height);
}

function setBox(box) {
  state.box = box;
  byId("box").hidden = !box;
  byId("stage").classList.toggle("boxed", Boolean(box));
  byId("whole").hidden = !box && !state.detected;
  byId("vertical").value = state.vertical;
  for (const garment of byId("garments").children) {
    garment.removeAttribute("aria-current");
  }
  if (!box) {
    return;
  }
  const image = byId("image");
  place(byId("box"), box, image.naturalWidth, image.naturalHeight);
  EDGES.forEach((id, edge) => {
    byId(id).value = Math.round(box[edge]);
  });
}

// Searches in a box of the user, or in the whole image for null.
function searchIn(box) {
  setBox(box);
  search();
}

function detect() {
  const send = (running) => {
    const form = new FormData();
    form.append("file", state.file, "image");
    return request("api/detect", { method: "POST", body: form, signal: running.signal });
  };
  byId("hits").replaceChildren();
  byId("predicted").textContent = "";
  byId("empty").hidden = true;
  work("Looking for garments …", send, showGarments);
}

// Shows the garments of an answer; null removes those of the previous image.
function showGarments(answer) {
  // Small boxes go above the large boxes that they overlap.
  const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  const garments = answer ? answer.garments.sort((a, b) => area(b) - area(a)) : [];
  state.detected = Boolean(answer);
  const buttons = garments.map((garment) => buttonOf(garment, answer));
  byId("garments").replaceChildren(...buttons);
  byId("found").textContent = "";
  if (!answer) {
    return;
  }
  setBox(null);
  byId("status").textContent = "";
  const count = garments.length;
  byId("found").textContent = count
    ? `${count} ${count === 1 ? "garment" : "garments"} found: ${garments.map(({ vertical }) => vertical).join(", ")}`
    : "No garment found. Draw a box, or search the whole image.";
  byId("empty").hidden = false;
  byId("empty").textContent = count
    ? "Choose a garment, draw a box, or search the whole image."
    : "Nothing searched yet.";
  if (count === 1) {
    buttons[0].click();
  }
}

function buttonOf(garment, { width, height }) {
  const { box, score, vertical } = garment;
  const button = textOf("button", "garment", "");
  button.type = "button";
  button.append(textOf("span", "", vertical));
  button.setAttribute(
    "aria-label",
    `${vertical}, ${Math.round(100 * score)} %, search this garment`,
  );
  place(button, box, width, height);
  button.addEventListener("click", () => {
    setBox(box);
    button.setAttribute("aria-current", "true");
    // The index may have no such kind.
    byId("vertical").value = state.info.verticals.includes(vertical) ? `=${vertical}` : ALL;
    search();
  });
  return button;
}

function addDrawing() {
  const stage = byId("stage");
  let corner = null; // Where the pointer was pressed.
  let drawn = null; // The box drawn since then.
  const at = (event) => {
    const image = byId("image");
    const frame = image.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return [
      within((event.clientX - frame.left) / frame.width) * image.naturalWidth,
      within((event.clientY - frame.top) / frame.height) * image.naturalHeight,
    ];
  };
  const between = (a, b) => [
    Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1]),
  ];
  const isSmall = (box) => {
    const image = byId("image");
    const least = Math.max(image.naturalWidth, image.naturalHeight) / 50;
    return box[2] - box[0] < least || box[3] - box[1] < least;
  };
  stage.addEventListener("pointerdown", (event) => {
    drawn = null;
    if (!state.file || event.button !== 0 || !byId("image").naturalWidth) {
      return;
    }
    corner = at(event);
    // A garment must get its own focus and click.
    if (!event.target.closest(".garment")) {
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
    }
  });
  stage.addEventListener("pointermove", (event) => {
    // If no box was drawn from a garment, its pointerup event may have been missed.
    corner = event.buttons ? corner : null;
    if (!corner) {
      return;
    }
    const box = between(corner, at(event));
    if (drawn || !isSmall(box)) {
      stage.setPointerCapture(event.pointerId);
      drawn = box;
      setBox(box);
    }
  });
  stage.addEventListener("pointerup", (event) => {
    if (!corner) {
      return;
    }
    const box = between(corner, at(event));
    corner = null;
    // A click is not a box.
    if (!isSmall(box)) {
      drawn = box;
      searchIn(box);
    } else if (drawn || !event.target.closest(".garment")) {
      searchIn(null);
    }
  });
  // Releasing the pointer on a garment after drawing is not a click on the garment.
  const swallow = (event) => {
    if (drawn && event.detail) {
      event.stopPropagation();
    }
    drawn = null;
  };
  stage.addEventListener("click", swallow, true);
  stage.addEventListener("pointercancel", () => {
    corner = null;
    if (drawn) {
      setBox(null);
    }
  });
}

byId("whole").addEventListener("click", () => searchIn(null));
byId("use-box").addEventListener("click", () => {
  const image = byId("image");
  const [left, top, right, bottom] = EDGES.map((id) => byId(id).value);
  const box = [
    Number(left), Number(top), Number(right || image.naturalWidth), Number(bottom || image.naturalHeight),
  ];
  if (!state.file || !(box[0] < box[2] && box[1] < box[3])) {
    showError(new Refused("Left must be less than right, and top less than bottom."));
    return;
  }
  searchIn(box);
});
addDrawing();
