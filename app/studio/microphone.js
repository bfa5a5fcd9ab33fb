// The microphone of the Speak page. It sends sound over the /live WebSocket as 16 kHz int16, and receives words and
// pictures. app/web/live_socket.py describes the messages.

const RATE = 16000;
const STOPPED = [1001, 1006, 1012]; // close codes when the server, or the connection to it, is gone

// Explanations of a browser's errors, by name (DOMException of getUserMedia).
const REASONS = {
  NotAllowedError: "this page may not use it. Allow the microphone in the browser's address bar, then press again.",
  SecurityError: "this page may not use it. Allow the microphone in the browser's address bar, then press again.",
  NotFoundError: "there is none. Connect a microphone, then press again.",
  NotReadableError: "another program uses it, or the system forbids it. Close that program, then press again.",
  AbortError: "the browser gave up opening it. Press again.",
};
const BY_SYSTEM = "the system forbids it to this browser. Allow the browser to use the microphone in the system's privacy settings, then press again.";
const INSECURE = "this browser gives the microphone to https:// and localhost only. Open this page by https://, or on the machine that serves it by http://localhost.";
const NO_WORKLET = "this browser cannot record on this page. Open it by https:// or localhost in a current browser.";
const PROXY = "the server answers, but its WebSocket /live does not: a proxy or a filter in between blocks WebSockets. Whoever runs the server finds the proxy's settings in docs/serving.md.";
const GONE = "the server does not answer. Is it still running?";
const QUIET_LEVEL = 0.001; // share of full scale, below which a microphone counts as silent
const QUIET_SECONDS = 6; // of silence, after which the page says so
const HELD_IDLE = 50000; // ms after the button is released, until the microphone is switched off

// Why the microphone cannot be used, from an error of the browser.
function reasonOf(error) {
  if (error.name === "NotAllowedError" && /system/i.test(error.message)) return BY_SYSTEM;
  return REASONS[error.name] || error.message || String(error);
}

// Resamples mono samples of any rate to frames of 512 int16 at 16 kHz. Each output sample is the mean of the input that it
// covers.
const RECORDER = `
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frame = new Int16Array(512); this.filled = 0;
    this.step = sampleRate / ${RATE}; this.left = this.step; this.sum = 0;
  }
  process([[samples]]) {
    for (const sample of samples || []) {
      let rest = 1;
      while (rest >= this.left) {
        this.put((this.sum + sample * this.left) / this.step);
        rest -= this.left; this.sum = 0; this.left = this.step;
      }
      this.sum += sample * rest; this.left -= rest;
    }
    return true;
  }
  put(sample) {
    this.frame[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
    if (this.filled === 512) { this.port.postMessage(this.frame.slice()); this.filled = 0; }
  }
}
registerProcessor("recorder", Recorder);`;

class Talk {
  constructor(root) {
    this.root = root;
    this.find = (name) => root.querySelector(name);
    this.settings = {};
    this.finished = new Map(); // job -> its picture; the server may still say that it is kept
    this.kept = new Map(); // job -> its picture, which "undo" may show again
    this.starting = false; // true from the press until the microphone is open or refused: a second press is ignored
    this.attempt = null; // a mark of the current attempt to open; results of an earlier attempt are closed
    this.hold = stored("localStorage", "studio.talk") === "hold"; // push to talk
    this.held = false;
    this.find(".mic").onclick = () => this.hold || this.starting || (this.stream ? this.end() : this.start());
    this.listenToHolding(this.find(".mic"));
    this.find(".free").onclick = () => this.choose(false);
    this.find(".hold").onclick = () => this.choose(true);
    this.find(".device").onchange = ({ target }) => this.use(target.value);
    this.find(".mend").onsubmit = (event) => { event.preventDefault(); this.draw(this.find(".mended").value, this.shown?.seed ?? null); };
    this.find(".examples").open = matchMedia("(min-width: 641px)").matches;
    this.choose(this.hold);
    this.listDevices();
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.listDevices());
  }

  // Push to talk: by pointer, or by the space bar or Enter on the button.
  listenToHolding(button) {
    button.onpointerdown = (event) => { if (this.hold) { event.preventDefault(); button.focus(); this.press(); } };
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) button.addEventListener(name, () => this.release());
    button.oncontextmenu = (event) => { if (this.hold) event.preventDefault(); }; // a long touch
    button.onblur = () => this.release();
    const key = ({ key }) => this.hold && (key === " " || key === "Enter");
    button.onkeydown = (event) => { if (key(event)) { event.preventDefault(); if (!event.repeat) this.press(); } };
    button.onkeyup = (event) => { if (key(event)) { event.preventDefault(); this.release(); } };
  }

  choose(hold) {
    if (this.stream && hold !== this.hold) this.end();
    this.hold = hold;
    store("localStorage", "studio.talk", hold ? "hold" : "free");
    this.find(".free").setAttribute("aria-pressed", String(!hold));
    this.find(".hold").setAttribute("aria-pressed", String(hold));
    this.showIdle();
  }

  async press() {
    clearTimeout(this.idle);
    this.held = true;
    if (!this.stream && !this.starting) await this.start();
    this.showHeld();
  }

  // Releasing the button ends the sentence.
  release() {
    if (!this.held) return;
    this.held = false;
    this.showHeld();
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "flush" }));
    this.idle = setTimeout(() => { if (this.hold && !this.held && this.stream) this.end(); }, HELD_IDLE);
  }

  showHeld() {
    if (!this.hold || !this.stream) return;
    this.find(".mic").setAttribute("aria-pressed", String(this.held));
    this.find(".label").textContent = this.held ? "Listening: let go when you are done" : "Hold to talk";
    this.say(this.held ? "Listening ..." : "Hold the button, and say what you would like to see.");
  }

  // List the microphones. Browsers give their names only after the visitor has allowed one.
  async listDevices() {
    const all = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
    const named = all.filter(({ kind, label, deviceId }) => kind === "audioinput" && label && deviceId);
    const chosen = stored("localStorage", "studio.microphone") ?? "";
    this.find(".device").replaceChildren(make("option", { value: "" }, "System default"),
      ...named.filter(({ deviceId }) => deviceId !== "default").map(({ deviceId, label }) => make("option", { value: deviceId, selected: deviceId === chosen }, label)));
    this.find(".pick").hidden = !named.length;
  }

  async use(device) {
    store("localStorage", "studio.microphone", device);
    if (!this.stream) return;
    this.end();
    if (!this.hold) await this.start();
  }

  // Open the chosen microphone, or the default one where the chosen one is no longer there.
  async openMicrophone() {
    const device = stored("localStorage", "studio.microphone");
    const constraints = (more) => ({ audio: { channelCount: 1, ...more } });
    if (!device) return navigator.mediaDevices.getUserMedia(constraints({}));
    try {
      return await navigator.mediaDevices.getUserMedia(constraints({ deviceId: { exact: device } }));
    } catch (error) {
      if (error.name !== "OverconstrainedError" && error.name !== "NotFoundError") throw error;
      store("localStorage", "studio.microphone", null);
      return navigator.mediaDevices.getUserMedia(constraints({}));
    }
  }

  say(text) { this.find(".state").textContent = text; }

  complain(text) { this.find(".complaint").textContent = text; }

  async start() {
    this.starting = true;
    try { await this.open(); } finally { this.starting = false; }
  }

  async open() {
    const attempt = (this.attempt = {});
    const over = () => this.attempt !== attempt; // the page was left, or the server closed the socket, while we waited
    this.complain("");
    this.say("Opening the microphone ...");
    try {
      if (!navigator.mediaDevices) throw new Error(INSECURE);
      const stream = await this.openMicrophone();
      if (over()) return stream.getTracks().forEach((track) => track.stop());
      this.stream = stream;
      for (const track of stream.getTracks()) track.onended = () => this.lost(stream);
      await this.connect();
      if (over()) return;
      await this.record(over);
      if (over()) return;
    } catch (error) {
      if (over()) return; // the reason is already shown
      this.socket?.close();
      this.closeMicrophone();
      this.complain(error.server ? `Nothing can be heard: ${error.message}` : `The microphone cannot be used: ${reasonOf(error)}`);
      return;
    }
    this.listDevices();
    this.find(".level").hidden = false;
    if (this.hold) return this.showHeld();
    this.find(".mic").setAttribute("aria-pressed", "true");
    this.find(".label").textContent = "Stop listening";
  }

  connect() {
    const base = location.pathname.replace(/\/[^/]*$/, "");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${base}/live`);
    let expecting = null; // the message that the next PNG belongs to
    let opened = false; // `onerror` reports a socket that never opens
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") { if (expecting) this.paint(expecting, data); expecting = null; return; }
      const message = JSON.parse(data);
      if (message.type === "step" || message.type === "picture") expecting = message;
      else this.read(message);
    };
    socket.onclose = ({ code }) => {
      if (!opened) return;
      if (this.socket === socket) {
        this.closeMicrophone(); // the server closed the socket, and said why unless it stopped
        if (STOPPED.includes(code)) this.complain("The studio was stopped, or cannot be reached any more: press again.");
      } else if (!this.stream) this.showIdle(); // everything was transcribed and drawn
    };
    return new Promise((done, failed) => {
      socket.onopen = () => { opened = true; this.tell(); done(); };
      socket.onerror = async () => failed(Object.assign(new Error(await this.unreachable(base)), { server: true }));
    });
  }

  // The reason why no socket opens: the server does not answer, or a proxy blocks WebSockets.
  async unreachable(base) {
    try { return (await fetch(`${base}/_stcore/health`)).ok ? PROXY : GONE; } catch { return GONE; }
  }

  async record(over) {
    try {
      this.audio = new AudioContext({ sampleRate: RATE });
      this.source = this.audio.createMediaStreamSource(this.stream);
    } catch {
      this.audio = new AudioContext(); // Firefox keeps the microphone's own rate
      this.source = this.audio.createMediaStreamSource(this.stream);
    }
    if (!this.audio.audioWorklet) throw new Error(NO_WORKLET);
    const url = URL.createObjectURL(new Blob([RECORDER], { type: "application/javascript" }));
    await this.audio.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    if (over()) return;
    const recorder = new AudioWorkletNode(this.audio, "recorder");
    recorder.port.onmessage = ({ data }) => {
      const power = data.reduce((sum, sample) => sum + sample * sample, 0) / data.length;
      if (this.socket?.readyState === WebSocket.OPEN && (!this.hold || this.held)) this.socket.send(data.buffer);
      this.meter(Math.sqrt(power) / 32768);
    };
    this.source.connect(recorder);
  }

  // Show the level, from -60 to -6 dB, and a message when the microphone gives no sound.
  meter(loudness) {
    const level = Math.max(0, Math.min(1, (20 * Math.log10(Math.max(loudness, 1e-6)) + 60) / 54));
    const bar = this.find(".level");
    bar.style.setProperty("--level", level);
    bar.setAttribute("aria-valuenow", String(Math.round(100 * level)));
    this.find(".ring").style.setProperty("--level", Math.min(1, loudness * 5));
    if (loudness > QUIET_LEVEL || !this.quietSince) this.quietSince = Date.now();
    const quiet = Date.now() - this.quietSince > 1000 * QUIET_SECONDS && (!this.hold || this.held);
    if (quiet && !this.toldQuiet) this.say("No sound comes from this microphone. Is it muted? Otherwise choose another one.");
    if (!quiet && this.toldQuiet) this.listening();
    this.toldQuiet = quiet;
  }

  // End the talk. The server transcribes and draws what was said, and then closes the socket.
  end() {
    const waiting = this.socket?.readyState === WebSocket.OPEN;
    if (waiting) this.socket.send(JSON.stringify({ type: "end" }));
    else this.socket?.close();
    this.closeMicrophone();
    if (waiting) this.say("Finishing what you said ...");
  }

  // The microphone was unplugged, or the browser withdrew it.
  lost(stream) {
    if (this.stream !== stream) return;
    this.end();
    this.complain("The microphone is gone: it was unplugged, or its use was forbidden.");
  }

  closeMicrophone() {
    this.attempt = null;
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.audio && this.audio.state !== "closed") this.audio.close();
    this.stream = this.audio = this.socket = null;
    this.find(".mic").setAttribute("aria-pressed", "false");
    this.find(".ring").style.setProperty("--level", 0);
    this.find(".level").hidden = true;
    this.quietSince = 0;
    this.toldQuiet = false;
    this.showIdle();
  }

  showIdle() {
    this.find(".bar").hidden = true;
    if (this.stream) return;
    this.find(".label").textContent = this.hold ? "Hold to talk" : "Start listening";
    this.say(this.hold ? "Hold the button, and say what you would like to see." : "Press, and say what you would like to see.");
  }

  // Draw typed words over the open socket, or over a new one that closes afterwards.
  async draw(text, seed = null) {
    if (!text.trim() || this.starting) return;
    const message = JSON.stringify({ type: "say", text: text.trim(), seed });
    this.complain("");
    if (this.stream && this.socket?.readyState === WebSocket.OPEN) return this.socket.send(message);
    this.starting = true;
    try {
      await this.connect();
      const socket = this.socket;
      this.socket = null; // it closes by itself
      socket.send(message);
      socket.send(JSON.stringify({ type: "end" }));
      this.say("Drawing ...");
    } catch (error) {
      this.socket = null;
      this.complain(error.message);
    } finally {
      this.starting = false;
    }
  }

  // Send the settings when the socket opens, and again whenever the page changes them.
  tell(settings = this.settings) {
    this.settings = settings;
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "settings", ...settings }));
  }

  read(message) {
    const { type } = message;
    if (type === "ready") this.listening();
    if (type === "start") { this.say("I hear you ..."); this.words([], []); this.complain(""); }
    if (type === "words") this.words(message.committed, message.pending);
    if (type === "final") { this.listening(); this.words(message.text.split(" "), []); }
    if (type === "nothing") { this.listening(); this.complain(message.reason); }
    if (type === "unsure") {
      this.listening();
      this.complain(`${message.reason} I heard “${message.text}”. Say it again, or correct the words below the picture.`);
      this.offer(message.text, null);
    }
    if (type === "undone") this.undo(message.job);
    if (type === "cleared") this.hidePicture();
    if (type === "error") this.complain(message.message);
    if (type === "kept" && this.finished.has(message.job)) this.keep(this.finished.get(message.job), message.id);
  }

  listening() {
    if (!this.stream) return;
    if (this.hold) this.showHeld();
    else this.say("Listening ...");
  }

  // Show words to correct and draw, and the buttons of a kept picture (null: no buttons).
  offer(words, picture) {
    this.shown = picture;
    const input = this.find(".mended");
    if (input !== input.getRootNode().activeElement) input.value = words;
    this.find(".mend").hidden = false;
    const after = this.find(".after");
    after.hidden = !picture;
    if (!picture) return;
    const buttons = [iconButton("refresh", "Draw again", () => this.draw(picture.prompt))];
    if (picture.id) buttons.push(
      iconButton("edit", "Edit", () => studio.actOn("edit", picture, "edit")),
      iconButton("shuffle", "Vary", () => studio.actOn("vary", picture, "draw")));
    after.replaceChildren(...buttons);
  }

  words(sure, maybe) {
    this.find(".sure").textContent = sure.join(" ");
    this.find(".maybe").textContent = maybe.join(" ");
  }

  paint(message, png) {
    message.png = new Blob([png], { type: "image/png" });
    this.latest = message.job;
    if (message.type === "picture") {
      this.finished.set(message.job, message);
      if (this.finished.size > 8) this.finished.delete(this.finished.keys().next().value); // pictures of words that changed
    }
    const picture = this.find(".picture"), before = picture.src;
    picture.onload = () => URL.revokeObjectURL(before);
    picture.src = URL.createObjectURL(message.png);
    picture.hidden = false;
    const bar = this.find(".bar");
    bar.hidden = message.type === "picture";
    if (message.type === "step") bar.firstElementChild.style.width = `${(100 * message.step) / message.of}%`;
    else this.name(message);
  }

  // Show an earlier picture of this talk again, or none where there is none.
  undo(job) {
    const message = this.kept.get(job);
    if (!message) return this.hidePicture();
    const picture = this.find(".picture"), before = picture.src;
    picture.onload = () => URL.revokeObjectURL(before);
    picture.src = URL.createObjectURL(message.png);
    picture.hidden = false;
    this.name(message);
    this.offer(message.prompt, message);
  }

  hidePicture() {
    this.find(".picture").hidden = true;
    this.find(".mend").hidden = this.find(".after").hidden = true;
    this.shown = null;
    this.find(".bar").hidden = true;
    this.find(".caption").replaceChildren();
    this.find(".reading").replaceChildren();
  }

  // Show under the picture its prompt, with the unknown words underlined, and chips as under a typed prompt. The words that
  // a chip offers are drawn with the same seed.
  name({ prompt, seed, unknown, notes = [], reading = null }) {
    const picture = this.find(".picture");
    picture.alt = prompt;
    picture.dataset.seed = seed;
    const parts = prompt.split(/(\s+)/).map((text) => {
      const node = document.createElement(unknown.includes(text) ? "mark" : "span");
      node.textContent = text;
      return node;
    });
    const note = document.createElement("small");
    note.textContent = notes.join("; ");
    this.find(".reading").replaceChildren(...(reading ? promptChips(reading, (mended) => this.draw(mended, seed)) : []));
    this.find(".caption").replaceChildren(...parts, ...(notes.length ? [document.createElement("br"), note] : []));
  }

  // Add the picture to the list of this talk, where pressing it downloads it.
  keep(message, id = "") {
    message.id = id;
    this.finished.delete(message.job);
    if (this.latest === message.job) this.offer(message.prompt, message);
    this.kept.set(message.job, message);
    if (this.kept.size > 24) this.kept.delete(this.kept.keys().next().value);
    studio.tell("pictures"); // the strip shows it, with its buttons
    const url = URL.createObjectURL(message.png);
    const link = document.createElement("a");
    link.href = url;
    link.download = `${message.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 60) || "picture"}.png`;
    link.title = "Download";
    const small = document.createElement("img");
    small.src = url;
    small.alt = "";
    link.append(small, message.prompt);
    const past = this.find(".past");
    past.prepend(link);
    while (past.children.length > 24) {
      URL.revokeObjectURL(past.lastElementChild.href);
      past.lastElementChild.remove();
    }
  }
}

const talks = new WeakMap();

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".live");
  if (!talks.has(root)) talks.set(root, new Talk(root));
  const talk = talks.get(root);
  talk.tell(data);
  return () => setTimeout(() => { if (!root.isConnected) talk.end(); });
}
