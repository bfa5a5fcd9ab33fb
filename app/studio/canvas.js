// The Draw page's canvas: the prompt, drawing while the visitor types, and the pictures with their buttons.
// data: model, settings (of the next drawings), number (of pictures), examples, hint, placeholder, prompt {text, stamp},
// restarted. Triggers: use (a picture whose seed the next drawings take), new_seed.

const TYPING_PAUSE = 150; // ms after the last key until a draft begins
const SETTLED_PAUSE = 1200; // ms after the last key until the last word counts as complete
const REFINE_PAUSE = 700; // ms after a draft until it is drawn again with all steps

class Canvas {
  constructor(root) {
    this.root = root;
    this.name = root.dataset.name || "draw";
    this.find = (name) => root.querySelector(name);
    this.data = {};
    this.busy = false; // whether a drawing is running
    this.asked = false; // whether a picture to keep was requested and has not arrived
    this.live = stored("localStorage", "studio.live") !== "off";
    this.surprised = new Set(); // prompts that "Surprise me" has used
    this.seed = null; // of drafts, until the next press of Draw
    this.sheet = new PictureSheet(this.find(".sheet"), { onReplay: (...all) => this.replay(...all) });
    this.connection = new CanvasConnection(this.name, {
      onMessage: (message, images) => this.receive(message, images),
      onState: (open, reason) => this.connected(open, reason),
    });
    this.start = new StartPicture(root, { onError: (text) => this.say(text, Boolean(text)), onProgress: (text) => this.showProgress(text) });
    this.handlers = {
      start: (picture) => this.start.take(picture),
      vary: (picture) => this.vary(picture),
      seed: (picture) => this.trigger("use", picture),
      drawing: (drawing) => this.bringBack(drawing),
      prompt: ({ prompt }) => { this.prompt.value = prompt; this.remember(); this.read(); this.draw(); },
      add: ({ prompt }) => { this.prompt.value = `${this.prompt.value.trim()} ${prompt}`.trim(); this.typed(true); },
    };
    this.prompt = this.find(".prompt");
    this.endReach = keepInReach(this.find(".ask"));
    this.prompt.value = new URLSearchParams(location.search).get("prompt") ?? stored("localStorage", "studio.prompt") ?? "";
    this.listen();
    this.sheet.empty("The canvas is empty", "Write a sentence, or take one of the examples.");
  }

  listen() {
    this.find(".ask").onsubmit = (event) => { event.preventDefault(); this.draw(); };
    this.find(".combine").onsubmit = (event) => { event.preventDefault(); this.combine(); };
    this.find(".stop").onclick = () => this.stop();
    this.prompt.oninput = () => this.typed();
    this.prompt.onblur = () => this.settle();
    this.find(".live").checked = this.live;
    this.find(".live").onchange = ({ target }) => {
      this.live = target.checked;
      store("localStorage", "studio.live", this.live ? "on" : "off");
      this.typed();
    };
    this.find(".undo").onclick = () => studio.undo();
    this.find(".redo").onclick = () => studio.redo();
    this.find(".surprise").onclick = () => this.surprise();
    this.find(".seed").onclick = () => this.trigger("new_seed", true);
    this.onKey = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.draw();
      else if (event.key === "Escape" && !this.root.getRootNode().querySelector("dialog[open]")) this.stop();
    };
    document.addEventListener("keydown", this.onKey);
    this.events = {
      history: () => this.tools(),
      removed: ({ detail }) => this.sheet.mark(detail.ids, true),
      restored: ({ detail }) => this.sheet.mark(detail.ids, false),
    };
    for (const [name, handler] of Object.entries(this.events)) studio.addEventListener(name, handler);
    this.tools();
  }

  // Take the settings of the next drawings from the page.
  take(data, trigger) {
    this.trigger = trigger;
    const first = !this.data.settings;
    const restyled = !first && this.data.style !== data.style;
    this.data = data;
    if (restyled) this.read();
    if (first && studio.shown[this.name]) this.put(withAddresses(studio.shown[this.name]));
    this.prompt.placeholder = data.placeholder;
    const seed = this.find(".seed");
    seed.hidden = data.settings.seed === null;
    seed.replaceChildren(icon("lock"), `Seed ${data.settings.seed} for every picture`, icon("close"));
    if (data.prompt && data.prompt.stamp !== this.stamp) {
      this.stamp = data.prompt.stamp;
      const seen = stored("sessionStorage", "studio.stamp") === data.prompt.stamp; // by this canvas, before the visitor left the page
      store("sessionStorage", "studio.stamp", data.prompt.stamp);
      if (!seen) {
        this.prompt.value = data.prompt.text;
        this.remember();
        this.read();
        if (data.prompt.draw) this.draw();
      }
    }
    if (first) {
      for (const [name, chosen] of [[".x-name", "steps"], [".y-name", "temperature"]])
        this.find(name).replaceChildren(...data.options.map((option) => make("option", { value: option, selected: option === chosen }, option.replaceAll("_", " "))));
      this.mounted = true;
      studio.offer(this.handlers);
      if (matchMedia("(min-width: 641px)").matches) this.prompt.focus({ preventScroll: true });
      this.read();
    }
  }

  remember() { store("localStorage", "studio.prompt", this.prompt.value); }

  // The prompt with the words of the chosen style.
  get text() {
    const words = this.prompt.value.trim();
    const { style } = this.data;
    return !words || !style || words.includes(style) ? words : `${words} ${style}`;
  }

  // A message that asks for a drawing of the prompt.
  about(type, more = {}) { return { type, prompt: this.text, settings: { ...this.data.settings, ...more } }; }

  // Request a picture to keep. Returns false, and shows an error, where the server cannot be reached.
  ask(message) {
    clearTimeout(this.timer);
    this.say("");
    this.asked = this.connection.send(message);
    if (this.asked) this.work(true);
    else this.say("The server cannot be reached. Try again in a moment.", true);
    return this.asked;
  }

  // Request a draft or its refinement, which is not kept.
  requestDraft(type) {
    this.say("");
    const { seed } = this.data.settings;
    const { result } = this.sheet;
    const shown = result && !result.draft ? result.job : ""; // a kept picture stays if the draft would be the same
    this.connection.send({ ...this.about(type, { seed: seed ?? this.seed }), shown, fixed: seed !== null });
  }

  // Draw a picture and keep it. If the canvas already shows a refined draft of the same words, keep that draft.
  draw() {
    clearTimeout(this.timer);
    this.settle();
    this.remember();
    this.read();
    const { result } = this.sheet;
    const start = this.start.message;
    if (!start && this.refined && result?.draft && result.prompt === this.text && this.data.number === 1) {
      this.connection.send({ type: "keep" });
      return;
    }
    const more = this.seed !== null && this.data.settings.seed === null ? { seed: this.seed } : {};
    if (!this.ask({ ...this.about("draw", more), ...start })) return;
    this.seed = null;
    this.refined = false;
    if (this.data.settings.size) this.sheet.begin(this.data.number, this.data.settings.size);
  }

  // Handle a changed prompt. `complete`: it was not typed key by key, so its last word is complete.
  typed(complete = false) {
    this.remember();
    clearTimeout(this.timer);
    clearTimeout(this.settling);
    this.typing = !complete;
    this.settling = setTimeout(() => this.settle(), SETTLED_PAUSE);
    this.timer = setTimeout(() => { this.read(); this.draft(); }, TYPING_PAUSE);
  }

  // The visitor has stopped typing: the last word counts as complete.
  settle() {
    clearTimeout(this.settling);
    if (!this.typing) return;
    this.typing = false;
    if (this.reading) this.describe(this.reading);
  }

  draft() {
    if (!this.live || !this.text || this.start.picture) return;
    this.asked = this.refining = false; // the new words replace both
    this.seed ??= Math.floor(Math.random() * 2 ** 31);
    this.refined = false;
    this.requestDraft("draft");
  }

  refine() {
    this.requestDraft("refine");
    this.refining = true;
  }

  read() {
    if (this.text) this.connection.send({ type: "read", prompt: this.text, model: this.data.model });
    else {
      this.shownReading = "";
      this.find(".reading").replaceChildren();
    }
  }

  stop() {
    clearTimeout(this.timer);
    if (this.busy) this.connection.send({ type: "stop" });
  }

  surprise() {
    const all = [...this.data.examples, ...(this.data.surprises ?? [])];
    const others = all.filter((prompt) => prompt !== this.text && !this.surprised.has(prompt));
    if (!others.length) { this.surprised.clear(); if (all.length > 1) this.surprise(); return; }
    this.prompt.value = others[Math.floor(Math.random() * others.length)];
    this.surprised.add(this.prompt.value);
    this.remember();
    this.read();
    this.draw();
  }

  // Draw all combinations of two settings' values as one picture.
  combine() {
    const axis = (name) => ({ name: this.find(`.${name}-name`).value, values: this.find(`.${name}-values`).value.split(",").map((value) => value.trim()).filter(Boolean) });
    const asked = this.ask({ ...this.about("sheet"), x: axis("x"), y: axis("y") });
    if (asked && this.start.picture) this.say("A sheet is drawn without the start picture.");
  }

  vary(picture) {
    if (this.ask({ type: "edit", kind: "vary", id: picture.id, settings: this.data.settings }))
      this.showProgress(`Variation of “${picture.prompt}” ...`);
  }

  receive(message, images) {
    const { type } = message;
    if (type === "done" && message.draft && this.asked) return; // a draft that was sent before the picture was requested
    if (type === "done" && studio.seen.includes(message.pictures[0].id)) { // the server's last drawing, which may have been undone
      if (!this.asked) this.work(false);
      return;
    }
    if (["done", "stopped"].includes(type) || (type === "error" && !message.draft)) this.asked = false;
    if (type === "caution") this.say(message.text);
    if (type === "reading") this.describe(message);
    if (type === "queued") { this.work(true); if (message.position > 0) this.showProgress(message.position > 1 ? `Waiting: ${message.position - 1} before you` : "Waiting: you are next"); }
    if (type === "step" && this.busy) { this.advance(message); this.sheet.step(message, images); }
    if (type === "sheet") this.showProgress(`Picture ${message.number} of ${message.of}`);
    if (type === "done") this.done(message, images);
    if (type === "kept") this.kept(message);
    if (type === "stopped") { this.work(false); this.restore(); this.showProgress("Stopped. Nothing was kept."); }
    if (type === "error" && message.draft) return; // the chips show what cannot be drawn
    if (type === "error") { this.work(false); this.restore(); this.say(message.message, true); }
  }

  advance({ step, of, remaining }) {
    const bar = this.find(".progress");
    bar.hidden = false;
    bar.setAttribute("aria-valuenow", Math.round((100 * step) / of));
    bar.firstElementChild.style.width = `${(100 * step) / of}%`;
    this.showProgress(remaining === null || remaining < 1.5 ? "" : `Step ${step} of ${of}, about ${Math.round(remaining)} s left`);
  }

  async done(message, images) {
    const pictures = message.pictures.map((picture, row) => ({ ...picture, url: URL.createObjectURL(images[row]) }));
    const result = { ...message, pictures };
    this.work(false);
    this.tellNotes(message);
    if (message.draft) {
      this.refined = this.refining;
      this.refining = false;
      if (this.text === message.prompt && !this.refined) this.timer = setTimeout(() => this.refine(), REFINE_PAUSE);
    }
    await this.put(result);
    if (!message.draft) this.arrived(result);
  }

  kept(message) {
    const before = this.sheet.result;
    const result = { ...before, draft: false, pictures: before.pictures.map((picture, row) => ({ ...picture, ...message.pictures[row] })) };
    this.seed = null;
    this.refined = false;
    this.tellNotes(message);
    this.put(result);
    this.arrived(result);
  }

  // Show the notes on a picture. How its words were read is shown under the prompt; if the prompt has changed since, it is
  // shown here.
  tellNotes({ prompt, notes, reading = [] }) {
    this.say([...(prompt === this.text ? [] : reading), ...notes].join(" "));
  }

  // A kept drawing is on the canvas. Undo brings back the kept drawing before it, not a draft.
  arrived({ job, prompt, facts, size, pictures }) {
    if (pictures.every(({ id }) => id)) { // they are in the gallery
      const drawing = { job, prompt, facts, size, pictures: pictures.map(({ id, seed }) => ({ id, seed })) };
      const before = studio.show(this.name, drawing);
      if (before && before.pictures[0].id !== drawing.pictures[0].id) studio.did("the last drawing", "drawing", "draw", before, drawing);
    }
    studio.tell("pictures");
  }

  // Show a kept drawing again. A canvas that is out of sight, as on the Speak page while one speaks, leaves it to Draw.
  async bringBack(drawing) {
    if (this.name !== "draw" && !this.root.checkVisibility()) return studio.actOn("drawing", drawing, "draw");
    studio.show(this.name, drawing);
    await this.put(withAddresses(drawing));
  }

  async put(result) {
    this.find(".facts").textContent = result.draft ? "Not kept yet: press Draw to keep this picture." : result.facts;
    await this.sheet.show(result);
  }

  // Show what was on the canvas before a drawing that was stopped or failed.
  restore() {
    if (this.sheet.result) this.put(this.sheet.result);
    else this.sheet.empty("The canvas is empty", "Write a sentence, or take one of the examples.");
  }

  async replay(figure, result, row) {
    try {
      const data = await studio.get(`replay/${result.job}/${row}`);
      const player = make("div", { class: "player" });
      player.innerHTML = this.find("template").innerHTML;
      const close = () => { stop(); player.remove(); figure.view.hidden = false; };
      player.append(iconButton("close", "Close the replay", close));
      figure.view.hidden = true;
      figure.node.prepend(player);
      const stop = showTokenPlayer({ parentElement: player, data });
      player.querySelector(".play").click();
    } catch (error) {
      this.say(error.message, true);
    }
  }

  // Show how the model reads the prompt (prompt_chips.js).
  describe(reading) {
    if (reading.prompt !== this.text) return;
    this.reading = reading;
    const unfinished = this.typing && /[\p{L}\p{N}]$/u.test(this.prompt.value);
    const shown = JSON.stringify([reading, unfinished]);
    if (shown === this.shownReading) return; // building the same chips again would close an open explanation
    this.shownReading = shown;
    const use = (prompt) => { this.prompt.value = prompt; this.typed(true); };
    this.find(".reading").replaceChildren(...promptChips(reading, use, unfinished));
  }

  work(busy) {
    this.busy = busy;
    this.find(".stop").hidden = !busy;
    this.find(".draw").hidden = busy;
    if (!busy) this.find(".progress").hidden = true;
    this.root.toggleAttribute("aria-busy", busy);
  }

  // Show an error or the notes on a picture above the canvas.
  say(text, isError = false) {
    const status = this.find(".status");
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("error", isError);
    this.showProgress("");
  }

  // Show progress on the canvas itself, so that the canvas does not move.
  showProgress(text) {
    const pill = this.find(".pill");
    if (pill.textContent !== text) pill.textContent = text;
  }

  tools() {
    this.find(".undo").disabled = !studio.past.length;
    this.find(".redo").disabled = !studio.future.length;
  }

  connected(open, reason) {
    if (open) {
      if (this.lost) this.say("");
      this.lost = false;
      this.connection.send({ type: "watch" });
      if (this.data.settings) this.read();
    } else {
      this.lost = true;
      this.asked = this.refined = this.refining = false; // the server drops drafts when the connection closes
      this.work(false);
      this.say(reason || "The connection to the server is lost. Reconnecting ...", true);
    }
  }

  leave() {
    clearTimeout(this.timer);
    clearTimeout(this.settling);
    this.connection.close();
    this.start.end();
    document.removeEventListener("keydown", this.onKey);
    for (const [name, handler] of Object.entries(this.events)) studio.removeEventListener(name, handler);
    studio.withdraw(this.handlers);
    this.endReach();
  }
}

// A drawing as a canvas shows it, with the addresses of its pictures.
function withAddresses(drawing) {
  return { ...drawing, draft: false, pictures: drawing.pictures.map((picture) => ({ ...picture, url: studio.url(picture.id) })) };
}

const canvases = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".canvas-view");
  if (data.name) root.dataset.name = data.name;
  if (!canvases.has(root)) canvases.set(root, new Canvas(root));
  const canvas = canvases.get(root);
  canvas.take(data, setTriggerValue);
  return () => setTimeout(() => { if (!root.isConnected) { canvas.leave(); canvases.delete(root); } });
}
