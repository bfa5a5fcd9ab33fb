// A row with the visitor's last pictures, shown on every page, and short notes such as "Deleted one picture. Undo".

const LENGTH = 20; // pictures

class Strip {
  constructor(root) {
    this.root = root;
    this.find = (name) => root.querySelector(name);
    this.events = { pictures: () => this.load(), note: ({ detail }) => this.note(detail) };
    for (const [name, handler] of Object.entries(this.events)) studio.addEventListener(name, handler);
    this.load();
  }

  async load() {
    const request = (this.loading = {}); // the answer to an earlier request is dropped
    try {
      const { pictures } = await studio.get(`list?limit=${LENGTH}`);
      if (this.loading !== request) return;
      const shown = pictures.map((picture) => ({ ...picture, seed: picture.settings?.seed }));
      const row = this.find(".row");
      const old = new Map([...row.children].map((node) => [node.dataset.id, node]));
      row.replaceChildren(...shown.map((picture, i) => {
        const node = old.get(picture.id) ?? make("div", { role: "listitem", "data-id": picture.id },
          make("button", { type: "button", "aria-label": `Open: ${picture.prompt}`, title: picture.prompt },
            make("img", { src: studio.url(picture.id, "webp", "thumb=1"), alt: "", loading: "lazy" })));
        node.firstElementChild.onclick = () => this.open(shown, i);
        return node;
      }));
    } catch { /* the page shows that the server cannot be reached */ }
  }

  open(pictures, i) {
    if (studio.handlers.pick) studio.handlers.pick(pictures[i]);
    else openViewer(this.root.getRootNode(), pictures, i);
  }

  note({ text, undo }) {
    const note = this.find(".note");
    clearTimeout(this.timer);
    note.replaceChildren(text, ...(undo ? [make("button", { type: "button", onclick: () => studio.undo() }, "Undo")] : []));
    this.timer = setTimeout(() => note.replaceChildren(), 7000);
  }

  leave() {
    for (const [name, handler] of Object.entries(this.events)) studio.removeEventListener(name, handler);
  }
}

const strips = new WeakMap();

export default function ({ parentElement }) {
  const root = parentElement.querySelector(".strip");
  if (!strips.has(root)) strips.set(root, new Strip(root));
  return () => setTimeout(() => { if (!root.isConnected) { strips.get(root)?.leave(); strips.delete(root); } });
}
