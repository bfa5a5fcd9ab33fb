// Import of pictures that the visitor drops, pastes or chooses. PNG files are sent to the server unchanged, with their
// settings. The browser decodes other formats, with their orientation and colors, and they are sent as PNG.

const LARGEST = 2048; // pixels a side of an imported picture of another format

async function importPicture(file) {
  let data = file;
  if (file.type !== "image/png") {
    let bitmap;
    try { bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }); }
    catch { throw new Error(`“${file.name || "The file"}” is no picture that this browser can read: choose a PNG, JPG or WebP.`); }
    const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    data = await new Promise((done) => canvas.toBlob(done, "image/png"));
  }
  const picture = await studio.post("import", data);
  studio.tell("pictures");
  return { ...picture, seed: picture.settings?.seed };
}

// Call `take` with pictures that are dropped on an element, pasted into the page, or chosen with an input. Returns a
// function that removes the paste listener.
function acceptPictures(element, input, take) {
  const files = (list) => [...(list ?? [])].filter((file) => file.type.startsWith("image/"));
  const give = (event, list) => {
    const found = files(list);
    if (!found.length) return;
    event.preventDefault();
    take(found);
  };
  // Every drop is handled here, because a browser would otherwise leave the page and show the file.
  const drop = (event) => {
    event.preventDefault();
    element.classList.remove("dragging");
    if (event.dataTransfer?.files.length) take([...event.dataTransfer.files]);
  };
  const paste = (event) => give(event, event.clipboardData?.files);
  element.ondragover = (event) => { event.preventDefault(); element.classList.add("dragging"); };
  element.ondragleave = () => element.classList.remove("dragging");
  element.ondrop = drop;
  input.onchange = (event) => { give(event, input.files); input.value = ""; };
  document.addEventListener("paste", paste);
  return () => document.removeEventListener("paste", paste);
}
