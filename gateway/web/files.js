// Files: listed page by page, sent, fetched, deleted.

import { call, send } from "./api.js";
import { byId, bytes, complain, count, date, element, say } from "./dom.js";

const PAGE = 100;
let next = null;
/// Of lists that are under way only the newest is shown.
let asked = 0;

const bucket = () => byId("bucket").value;
const query = (more) => new URLSearchParams({ bucket: bucket(), ...more }).toString();
const pathOf = (file) => `/api/v1/files/${encodeURIComponent(file.id)}?${new URLSearchParams({ bucket: file.bucket })}`;

/// Shows the first page, or with `after` the one behind it.
export async function list(after = null) {
  const turn = ++asked;
  const more = { prefix: byId("prefix").value, limit: PAGE, ...(after === null ? {} : { after }) };
  let page;
  try {
    page = await (await call(`/api/v1/files?${query(more)}`)).json();
  } catch (error) {
    if (turn === asked) complain(error);
    return;
  }
  if (turn !== asked) return;
  const rows = page.files.map(row);
  if (after === null) byId("list").replaceChildren(...rows);
  else byId("list").append(...rows);
  if (after !== null) rows[0]?.querySelector("button").focus();
  next = page.next;
  byId("more").hidden = next === null;
  const shown = byId("list").rows.length;
  byId("count").textContent = shown ? `${count(shown, "file")}${next === null ? "" : ", and there are more"}` : "No file has such a name.";
}

function row(file) {
  const fetch = element("button", { type: "button", ariaLabel: `Download ${file.id}` }, "Download");
  const remove = element("button", { type: "button", className: "danger", ariaLabel: `Delete ${file.id}` }, "Delete");
  fetch.addEventListener("click", () => download(file));
  remove.addEventListener("click", () => erase(file));
  return element("tr", {},
    element("td", {}, file.id),
    element("td", { className: "number", title: `${file.size} bytes` }, bytes(file.size)),
    element("td", {}, element("time", { dateTime: file.modified }, date(file.modified))),
    element("td", { className: "acts" }, fetch, remove));
}

/// Asks before something is done that can't be undone.
function sure(text, yes) {
  const dialog = byId("question");
  byId("question-text").textContent = text;
  byId("yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

async function erase(file) {
  if (!await sure(`Delete ${file.id} (${bytes(file.size)})?`, "Delete")) return;
  try {
    await call(pathOf(file), { method: "DELETE" });
    say(`${file.id} is deleted.`);
    await list();
  } catch (error) {
    complain(error);
  }
}

/// A line that shows how far something is, with a button that stops it.
function transfer(name) {
  const stop = new AbortController();
  const bar = element("progress", { max: 1, ariaLabel: name });
  const cancel = element("button", { type: "button", ariaLabel: `Stop ${name}` }, "Stop");
  cancel.addEventListener("click", () => stop.abort());
  const line = element("li", {}, element("span", {}, `${name} `), cancel, bar);
  byId("transfers").append(line);
  const progress = (moved, all) => { if (all) bar.value = moved / all; };
  return { stop: stop.signal, progress, end: () => line.remove() };
}

/// Into the file that was picked where the browser can write one, so that no memory holds it; else by way of a blob.
async function download(file) {
  const name = file.id.split("/").pop() || "file";
  let target = null;
  try {
    target = await window.showSaveFilePicker?.({ suggestedName: name });
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  const line = transfer(`Download ${file.id}`);
  try {
    const response = await call(pathOf(file), { signal: line.stop });
    let moved = 0;
    const counted = response.body.pipeThrough(new TransformStream({
      transform(piece, out) {
        line.progress(moved += piece.byteLength, file.size);
        out.enqueue(piece);
      },
    }));
    if (target) await counted.pipeTo(await target.createWritable(), { signal: line.stop });
    else save(name, await new Response(counted).blob());
  } catch (error) {
    complain(new Error(`${file.id} was not downloaded: ${line.stop.aborted ? "stopped" : error.message}`));
  } finally {
    line.end();
  }
}

function save(name, blob) {
  // Never as what it says it is: a page among the files would be a page of this origin.
  const url = URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/// One after the other: each has the whole line.
export async function upload(picked) {
  for (const file of picked) {
    const line = transfer(`Upload ${file.name}`);
    try {
      const stored = await store(file, line);
      if (stored) say(`${file.name} is stored${stored.receipt.exposed ? ", in one site so far" : ""}.`);
    } catch (error) {
      complain(new Error(`${file.name} was not stored: ${error.message}`));
    } finally {
      line.end();
    }
  }
  await list();
}

async function store(file, line) {
  try {
    return await send("POST", `/api/v1/files?${query({ id: file.name })}`, file, line);
  } catch (error) {
    if (error.code !== "AlreadyExists") throw error;
    if (!await sure(`${file.name} is there already. Replace it?`, "Replace")) return null;
    return await send("PUT", pathOf({ id: file.name, bucket: bucket() }), file, line);
  }
}

export function begin() {
  byId("search").addEventListener("submit", (event) => { event.preventDefault(); list(); });
  let typing = 0;
  byId("prefix").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(list, 300); });
  byId("more").addEventListener("click", () => list(next));
  byId("no").addEventListener("click", () => byId("question").close(""));
  byId("yes").addEventListener("click", () => byId("question").close("yes"));
  const form = byId("upload");
  byId("picked").addEventListener("change", async (event) => {
    const picked = [...event.target.files];
    form.reset();
    await upload(picked);
  });
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    form.addEventListener(name, (event) => {
      event.preventDefault();
      form.classList.toggle("over", over);
      if (name === "drop") upload([...event.dataTransfer.files]);
    });
  }
}
