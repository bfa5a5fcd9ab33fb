// The microphone of the Speak page: sound goes up the /live socket as 16 kHz int16, words and pictures come down.
// What the messages are is written in app/web/live_socket.py.

const RATE = 16000;
const STOPPED = [1001, 1006, 1012]; // how a connection ends when the other side does, or the way there

// What a browser's error means, by its name (DOMException of getUserMedia).
const REASONS = {
  NotAllowedError: "this page may not use it. Allow the microphone in the browser's address bar, then press again.",
  NotFoundError: "there is none. Connect a microphone, then press again.",
  NotReadableError: "another program uses it, or the system forbids it. Close that program, then press again.",
};

// Mono samples of any rate -> frames of 512 int16 at 16 kHz, each sample the mean of those that it covers.
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
    this.finished = new Map(); // job -> its picture, which may turn out to be kept
    this.kept = new Map(); // job -> its picture, which "undo" may show again
    this.starting = false; // from the press until all is open, or refused: a second press would open it twice
    this.attempt = null; // what is being opened, or is open; what comes late for another one is put away again
    this.find(".mic").onclick = () => this.starting || (this.stream ? this.end() : this.start());
  }

  say(text) { this.find(".state").textContent = text; }

  complain(text) { this.find(".complaint").textContent = text; }

  async start() {
    this.starting = true;
    try { await this.open(); } finally { this.starting = false; }
  }

  async open() {
    const mine = (this.attempt = {});
    const over = () => this.attempt !== mine; // the page was left, or the studio hung up, while we waited
    this.complain("");
    this.say("Opening the microphone ...");
    try {
      if (!navigator.mediaDevices) throw new Error("this browser gives the microphone to https:// and localhost only");
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
      if (over()) return stream.getTracks().forEach((track) => track.stop());
      this.stream = stream;
      for (const track of stream.getTracks()) track.onended = () => this.lost(stream);
      await this.connect();
      if (over()) return;
      await this.record(over);
      if (over()) return;
    } catch (error) {
      if (over()) return; // the reason was given
      this.socket?.close();
      this.hush();
      this.complain(`The microphone cannot be used: ${REASONS[error.name] || error.message || error}`);
      return;
    }
    this.find(".mic").setAttribute("aria-pressed", "true");
    this.find(".label").textContent = "Stop listening";
  }

  connect() {
    const base = location.pathname.replace(/\/[^/]*$/, "");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${base}/live`);
    let expecting = null; // the message that the next PNG belongs to
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") { if (expecting) this.paint(expecting, data); expecting = null; return; }
      const message = JSON.parse(data);
      if (message.type === "step" || message.type === "picture") expecting = message;
      else this.read(message);
    };
    socket.onclose = ({ code }) => {
      if (this.socket === socket) {
        this.hush(); // the studio hung up: it says why, unless it ended itself
        if (STOPPED.includes(code)) this.complain("The studio was stopped, or cannot be reached any more: press again.");
      } else if (!this.stream) this.rest(); // it has heard and drawn all
    };
    return new Promise((opened, failed) => {
      socket.onopen = () => { this.tell(); opened(); };
      socket.onerror = () => failed(new Error("the studio does not answer; is it still running?"));
    });
  }

  async record(over) {
    try {
      this.audio = new AudioContext({ sampleRate: RATE });
      this.source = this.audio.createMediaStreamSource(this.stream);
    } catch {
      this.audio = new AudioContext(); // Firefox keeps the microphone's own rate
      this.source = this.audio.createMediaStreamSource(this.stream);
    }
    const url = URL.createObjectURL(new Blob([RECORDER], { type: "application/javascript" }));
    await this.audio.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    if (over()) return;
    const recorder = new AudioWorkletNode(this.audio, "recorder");
    recorder.port.onmessage = ({ data }) => {
      if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(data.buffer);
      const power = data.reduce((sum, sample) => sum + sample * sample, 0) / data.length;
      this.find(".ring").style.setProperty("--level", Math.min(1, Math.sqrt(power) / 6000));
    };
    this.source.connect(recorder);
  }

  // Nothing more will be said. The studio hears and draws what was, and then hangs up itself.
  end() {
    const waiting = this.socket?.readyState === WebSocket.OPEN;
    if (waiting) this.socket.send(JSON.stringify({ type: "end" }));
    else this.socket?.close();
    this.hush();
    if (waiting) this.say("Finishing what you said ...");
  }

  // Unplugged, or taken away by the browser.
  lost(stream) {
    if (this.stream !== stream) return;
    this.end();
    this.complain("The microphone is gone: it was unplugged, or its use was forbidden.");
  }

  hush() {
    this.attempt = null;
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.audio && this.audio.state !== "closed") this.audio.close();
    this.stream = this.audio = this.socket = null;
    this.find(".mic").setAttribute("aria-pressed", "false");
    this.find(".label").textContent = "Start listening";
    this.find(".ring").style.setProperty("--level", 0);
    this.rest();
  }

  rest() {
    this.find(".bar").hidden = true;
    this.say("Press, and say what you would like to see.");
  }

  // Settings go up when the socket opens, and again whenever the page changes them.
  tell(settings = this.settings) {
    this.settings = settings;
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "settings", ...settings }));
  }

  read(message) {
    const { type } = message;
    if (type === "ready") this.say("Listening ...");
    if (type === "start") { this.say("I hear you ..."); this.words([], []); this.complain(""); }
    if (type === "words") this.words(message.committed, message.pending);
    if (type === "final") { this.listening(); this.words(message.text.split(" "), []); }
    if (type === "nothing") { this.listening(); this.complain(message.reason); }
    if (type === "unsure") { this.listening(); this.complain(`${message.reason} I heard “${message.text}”. Say it again.`); }
    if (type === "undone") this.undo(message.job);
    if (type === "cleared") this.hidePicture();
    if (type === "error") this.complain(message.message);
    if (type === "kept" && this.finished.has(message.job)) this.keep(this.finished.get(message.job));
  }

  listening() { if (this.stream) this.say("Listening ..."); }

  words(sure, maybe) {
    this.find(".sure").textContent = sure.join(" ");
    this.find(".maybe").textContent = maybe.join(" ");
  }

  paint(message, png) {
    message.png = new Blob([png], { type: "image/png" });
    if (message.type === "picture") {
      this.finished.set(message.job, message);
      if (this.finished.size > 8) this.finished.delete(this.finished.keys().next().value); // guesses that were wrong
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

  // Show an earlier picture of this talk again; without one, none.
  undo(job) {
    const message = this.kept.get(job);
    if (!message) return this.hidePicture();
    const picture = this.find(".picture"), before = picture.src;
    picture.onload = () => URL.revokeObjectURL(before);
    picture.src = URL.createObjectURL(message.png);
    picture.hidden = false;
    this.name(message);
  }

  hidePicture() {
    this.find(".picture").hidden = true;
    this.find(".bar").hidden = true;
    this.find(".caption").replaceChildren();
  }

  // Under the picture, its prompt; words that the model does not know are underlined.
  name({ prompt, seed, unknown, notes = [] }) {
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
    this.find(".caption").replaceChildren(...parts, ...(notes.length ? [document.createElement("br"), note] : []));
  }

  // Add the picture to those of this talk; pressing one downloads it.
  keep(message) {
    this.finished.delete(message.job);
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
