"use strict";
/* The answers of a person as plain data with pure functions, followed by the page that shows them.
   marks: class by number of the object; history: for undo; classes: name and colour; at: shown object. */
const judge = (() => {
  const RESERVED = ["undo", "unsure", "none"];
  const start = (classes) => ({ marks: {}, history: [], classes: classes.slice(), at: 0 });

  function put(state, index, name) {
    const marks = { ...state.marks };
    if (name === null) delete marks[index];
    else marks[index] = name;
    return { ...state, marks };
  }

  function assign(state, index, name) {
    const before = state.marks[index] ?? null;
    return { ...put(state, index, name), history: [...state.history, [index, before]] };
  }

  function undo(state) {
    if (!state.history.length) return state;
    const [index, before] = state.history[state.history.length - 1];
    return { ...put(state, index, before), history: state.history.slice(0, -1), at: index };
  }

  /* The next object without a class, starting again at the end; the same if all have one. */
  function onward(state, n) {
    for (let step = 1; step <= n; step++) {
      const index = (state.at + step) % n;
      if (!(index in state.marks)) return { ...state, at: index };
    }
    return state;
  }

  function addClass(state, name, color) {
    const clean = name.trim();
    const taken = state.classes.some((one) => one.name === clean) || RESERVED.includes(clean.toLowerCase());
    return clean && !taken ? { ...state, classes: [...state.classes, { name: clean, color }] } : state;
  }

  /* A saved state, or null if it is not valid for n objects. */
  function restore(text, n) {
    try {
      const found = JSON.parse(text);
      const good = (i) => Number.isInteger(Number(i)) && Number(i) >= 0 && Number(i) < n;
      if (!Array.isArray(found.classes) || !Array.isArray(found.history) || !good(found.at)) return null;
      if (!found.classes.every((one) => typeof one.name === "string" && /^#[0-9a-f]{6}$/i.test(one.color))) return null;
      if (!Object.entries(found.marks).every(([i, name]) => good(i) && typeof name === "string")) return null;
      if (!found.history.every(([i, name]) => good(i) && (name === null || typeof name === "string"))) return null;
      return found;
    } catch {
      return null;
    }
  }

  const quoted = (value) => (/[",\r\n]/.test(value) || value !== value.trim() ? `"${value.replaceAll('"', '""')}"` : value);

  /* Rows of the judged objects, with their class and its colour. */
  function toCsv(columns, rows, state) {
    const colors = Object.fromEntries(state.classes.map((one) => [one.name, one.color]));
    const place = columns.indexOf("class");
    const lines = [[...columns, "color"]];
    rows.forEach((row, index) => {
      const name = state.marks[index];
      if (name === undefined) return;
      const filled = row.slice();
      filled[place] = name;
      lines.push([...filled, Object.hasOwn(colors, name) ? colors[name] : ""]);
    });
    return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
  }

  return { start, assign, undo, onward, addClass, restore, toCsv, RESERVED };
})();

function startPage() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const n = data.items.length;
  const byId = (id) => document.getElementById(id);
  const key = `sketchscale-judge-${data.digest}`;
  const builtIn = [
    { name: "unsure", title: "unsure", key: "0", color: "" },
    { name: "none", title: "not an object", key: "-", color: "" },
  ];
  let state = judge.start(data.classes);
  let isSaved = true;

  try {
    state = judge.restore(localStorage.getItem(key), n) ?? state;
  } catch {
    byId("stored").textContent = "This browser keeps nothing between visits: save the CSV before you leave.";
  }

  function change(next) {
    isSaved = isSaved && next.marks === state.marks;
    state = next;
    try {
      localStorage.setItem(key, JSON.stringify(state));
    } catch {
      byId("stored").textContent = "Not kept between visits: save the CSV before you leave.";
    }
    show();
  }

  const titleOf = (name) => builtIn.find((one) => one.name === name)?.title ?? name;
  const colorOf = (name) => state.classes.find((one) => one.name === name)?.color ?? "";

  function give(name) {
    change(judge.onward(judge.assign(state, state.at, name), n));
    byId("live").textContent = `${titleOf(name)}. ${spoken()}`;
  }

  const move = (by) => change({ ...state, at: (state.at + by + n) % n });
  const spoken = () => `Object ${state.at + 1} of ${n}${state.marks[state.at] ? `, ${titleOf(state.marks[state.at])}` : ""}`;

  function made(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function dot(color) {
    const element = made("i", { "aria-hidden": "true" });
    if (color) element.style.background = color;
    return element;
  }

  function button(one, shortcut) {
    const isChosen = state.marks[state.at] === one.name;
    const count = Object.values(state.marks).filter((name) => name === one.name).length;
    const element = made("button", { type: "button", "aria-pressed": isChosen }, dot(one.color), made("span", {}, one.title ?? one.name));
    element.append(made("small", {}, count ? String(count) : ""), made("kbd", {}, shortcut));
    element.addEventListener("click", () => give(one.name));
    return element;
  }

  function showClasses() {
    const classes = state.classes.map((one, i) => button(one, i < 9 ? String(i + 1) : ""));
    byId("classes").replaceChildren(...classes);
    byId("others").replaceChildren(...builtIn.map((one) => button(one, one.key)));
    byId("no-classes").hidden = state.classes.length > 0;
  }

  function showObject() {
    const item = data.items[state.at];
    byId("picture").src = item.image;
    byId("picture").alt = `Object ${state.at + 1}: ${item.caption}`;
    byId("outline").src = item.layer;
    byId("place").textContent = item.caption;
    const given = state.marks[state.at];
    byId("given").replaceChildren(...(given === undefined ? [] : [dot(colorOf(given)), titleOf(given)]));
  }

  function showProgress() {
    const done = Object.keys(state.marks).length;
    byId("done").textContent = done;
    byId("number").textContent = state.at + 1;
    byId("bar").value = done;
    byId("finished").hidden = done < n;
    byId("save").classList.toggle("ready", done === n && !isSaved);
    byId("undo").disabled = !state.history.length;
    strip.forEach((thumb, i) => {
      thumb.setAttribute("aria-current", i === state.at);
      thumb.setAttribute("aria-label", `Object ${i + 1}${state.marks[i] ? `, ${titleOf(state.marks[i])}` : ""}`);
      thumb.classList.toggle("judged", i in state.marks);
      thumb.style.setProperty("--class-color", colorOf(state.marks[i]) || "var(--faint)");
    });
    const box = byId("strip");
    const thumb = strip[state.at];
    box.scrollLeft = thumb.offsetLeft - box.offsetLeft - (box.clientWidth - thumb.offsetWidth) / 2;
  }

  function show() {
    showClasses();
    showObject();
    showProgress();
  }

  function save() {
    const text = judge.toCsv(data.columns, data.rows, state);
    const link = made("a", { download: data.file, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    isSaved = true;
    byId("live").textContent = `${data.file} saved with ${Object.keys(state.marks).length} objects`;
    show();
  }

  function undo() {
    change(judge.undo(state));
    byId("live").textContent = `Taken back. ${spoken()}`;
  }

  const strip = data.items.map((item, i) => {
    const thumb = made("button", { type: "button", tabindex: "-1" }, made("img", { src: item.image, alt: "", loading: "lazy" }));
    thumb.addEventListener("click", () => change({ ...state, at: i }));
    return thumb;
  });
  byId("strip").replaceChildren(...strip);

  const turnOutline = () => {
    byId("outlined").checked = !byId("outlined").checked;
    byId("outlined").dispatchEvent(new Event("change"));
  };
  byId("outlined").addEventListener("change", () => {
    byId("outline").hidden = !byId("outlined").checked;
  });
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("undo").addEventListener("click", undo);
  byId("save").addEventListener("click", save);
  byId("add").addEventListener("submit", (event) => {
    event.preventDefault();
    const before = state.classes.length;
    change(judge.addClass(state, byId("name").value, data.palette[before % data.palette.length]));
    byId("wrong").hidden = state.classes.length > before;
    if (state.classes.length > before) {
      byId("name").value = "";
      byId("name").blur();
    }
  });
  byId("name").addEventListener("keydown", (event) => {
    if (event.key === "Escape") byId("name").blur();
  });

  const keys = {
    ArrowLeft: () => move(-1),
    ArrowRight: () => move(1),
    Home: () => change({ ...state, at: 0 }),
    End: () => change({ ...state, at: n - 1 }),
    u: undo,
    r: undo,
    o: turnOutline,
    s: save,
    a: () => byId("name").focus(),
    0: () => give("unsure"),
    "-": () => give("none"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === byId("name")) return;
    const one = /^[1-9]$/.test(event.key) ? state.classes[Number(event.key) - 1] : undefined;
    const action = one ? () => give(one.name) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!isSaved) event.preventDefault();
  });
  show();
}

if (typeof document !== "undefined") startPage();
