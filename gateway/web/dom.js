// What the other modules build the page with. Text only ever becomes text: names of files are others' words.

export const byId = (id) => document.getElementById(id);

/// An element with properties, and with texts and elements in it.
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/// Says something above the page until it is put away.
export function say(text, level = "good") {
  const away = element("button", { type: "button", textContent: "OK" });
  const message = element("p", { className: `message ${level}` }, element("span", {}, text), away);
  away.addEventListener("click", () => message.remove());
  byId("messages").prepend(message);
}

export const complain = (error) => say(error.message, "bad");

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// `1.5 MiB`
export function bytes(count) {
  let unit = 0;
  for (; count >= 1024 && unit < UNITS.length - 1; unit += 1) count /= 1024;
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${UNITS[unit]}`;
}

/// `850 ms`, `4.2 s`, `3 min`, `2 h`, `5 days`
export function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 1) return `${Math.round(milliseconds)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/// `1 extent`, `12 extents`
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export const date = (instant) => DATE.format(new Date(instant));
