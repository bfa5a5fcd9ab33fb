// The WebSocket of a canvas. It reconnects by itself, and collects the binary frames that belong to a message.
// app/web/canvas_socket.py describes the messages.

class CanvasConnection {
  constructor(name, { onMessage, onState }) {
    this.name = name;
    this.onMessage = onMessage;
    this.onState = onState;
    this.wait = 250; // ms until the next attempt
    this.closed = false;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${BASE}/canvas?name=${encodeURIComponent(this.name)}`);
    let pending = null; // the message whose frames have not all arrived
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.wait = 250;
      this.onState(true);
      for (const message of this.waiting?.splice(0) ?? []) socket.send(message);
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const message = JSON.parse(data);
        const frames = message.type === "step" ? message.rows.length : message.type === "done" ? message.pictures.length : 0;
        pending = { message, frames, images: [] };
      } else pending?.images.push(new Blob([data], { type: pending.message.type === "done" ? "image/png" : "image/webp" }));
      if (pending && pending.images.length === pending.frames) {
        const { message, images } = pending;
        pending = null;
        this.onMessage(message, images);
      }
    };
    socket.onclose = ({ code, reason }) => {
      if (this.closed || this.socket !== socket) return;
      this.onState(false, code >= 4000 ? reason : "");
      if (code >= 4000) return; // the server refused the connection, and the reason is shown
      setTimeout(() => this.closed || this.open(), this.wait);
      this.wait = Math.min(4000, this.wait * 2);
    };
  }

  // Send a message, or keep it until the socket is open. Returns false where the connection is lost.
  send(message) {
    const text = JSON.stringify(message);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(text);
    else if (this.socket.readyState === WebSocket.CONNECTING) (this.waiting ??= []).push(text);
    else return false;
    return true;
  }

  close() {
    this.closed = true;
    this.socket.close();
  }
}
