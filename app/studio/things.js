// Buttons for what a model can draw: a thing replaces the prompt and is drawn, a place or a style is added to the prompt.
// data: groups [{title, items: [{label, hint, words}], is_prompt}], columns and picture (the image that holds the tiles of
// all things, and how many a row has; picture is empty where there is none).

function thingButton(item, index, count, { columns, picture }) {
  const button = make("button", { type: "button", title: item.hint || item.label });
  if (picture) {
    const rows = Math.ceil(count / columns);
    const tile = make("span", { class: "tile", "aria-hidden": "true" });
    tile.style.backgroundImage = `url(${BASE}/pictures/${picture})`;
    tile.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
    const place = (at, of) => (of > 1 ? (100 * at) / (of - 1) : 0);
    tile.style.backgroundPosition = `${place(index % columns, columns)}% ${place(Math.floor(index / columns), rows)}%`;
    button.append(tile);
  }
  button.append(item.label);
  button.onclick = () => studio.act("prompt", { prompt: item.words }, "draw");
  return button;
}

function thingGrid(group, data) {
  const buttons = group.items.map((item, index) => thingButton(item, index, group.items.length, data));
  const grid = make("div", { class: data.picture ? "grid" : "row" }, ...buttons);
  const none = make("div", { class: "none", role: "status", hidden: true }, "No thing has this name. Type it into the prompt: the nearest thing is drawn.");
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search the things" });
  search.oninput = () => {
    const wanted = search.value.trim().toLowerCase();
    buttons.forEach((button, i) => { button.hidden = !`${group.items[i].label} ${group.items[i].hint}`.toLowerCase().includes(wanted); });
    none.hidden = buttons.some((button) => !button.hidden);
  };
  return group.items.length > 20 ? [search, grid, none] : [grid];
}

function plainRow(group) {
  const items = group.items.map(({ label, hint, words }) => {
    if (!words) return make("span", { title: hint }, label);
    const button = make("button", { type: "button", title: hint ? `Also: ${hint}` : label }, label);
    button.onclick = () => studio.act("add", { prompt: words }, "draw");
    return button;
  });
  return [make("div", { class: "row" }, ...items)];
}

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".things");
  const version = JSON.stringify(data);
  if (root.dataset.version === version) return;
  root.dataset.version = version;
  root.replaceChildren(...data.groups.flatMap((group) => [make("b", {}, group.title), ...(group.is_prompt ? thingGrid(group, data) : plainRow(group))]));
}
