// The first question: is it safe, and who is active? What everybody may see comes from /health and /lease, the rest from
// /api/v1/status, which needs a token.

import { Refusal, call, look, signedIn } from "./api.js";
import { byId, bytes, count, duration, element } from "./dom.js";

const EVERY = 5000;

/// How it is, as a level and a sentence. `status` is null for who is not signed in.
export function verdict(health, status) {
  if (health === null) return ["bad", "This gateway does not answer."];
  const failed = health.checks.find((check) => !check.ok);
  if (health.status === "failed") return ["bad", `Files can't be served here: ${failed.name}: ${failed.detail}`];
  const extents = status?.health;
  if (extents?.unrecoverable) return ["bad", `${count(extents.unrecoverable, "extent")} can't be read anywhere: fewer rows are left than are needed.`];
  if (extents?.unreadable_here) return ["bad", `${count(extents.unreadable_here, "extent")} can't be read from this site alone.`];
  if (extents?.degraded) return ["warn", `Whole, with less margin: ${count(extents.degraded, "extent")} lack rows and are repaired.`];
  if (failed) return ["warn", `Files are served; not all is well: ${failed.name}: ${failed.detail}`];
  if (!status) return ["unknown", `Files are served. ${signedIn() ? "The status of the site is not to be had." : "Sign in to see whether all of it is protected."}`];
  if (extents.wanted) return ["warn", `This site still lacks ${bytes(extents.wanted_bytes)} that it was told of.`];
  const { exposure } = status;
  if (exposure?.extents || exposure?.commits) return ["warn", `${bytes(exposure.bytes)} lie in this site only, the oldest for ${duration(exposure.age_ms)}.`];
  if (status.prediction?.obstacle) return ["warn", "Whole, but a failover would not happen by itself."];
  return ["good", exposure === null ? "Safe: all rows are there. There is no second site." : "Safe: whole, and with all its rows."];
}

function active(health, lease) {
  const role = lease?.role ?? health?.role;
  const site = lease?.site ?? health?.site;
  if (!role) return "";
  if (role === "active") return `Site ${site} is active, and it is this one.`;
  if (role === "passive") return `Site ${site} is passive: it reads its own copy, and hands writes on to the active site.`;
  return `Site ${site} is ${role}: it takes no writes until it knows which site is active.`;
}

/// What a person should know besides, each a sentence of the site's own.
function notes(status) {
  if (!status) return [];
  const { lease, prediction, name_trouble, journal, feed, failback, edge } = status;
  const said = [lease.waiting_for, lease.witness_trouble, prediction?.obstacle, name_trouble, journal.trouble, feed.trouble, failback?.waiting_for, edge?.waiting];
  if (status.exposure !== null && !lease.peer_connected) said.push("The other site does not answer.");
  if (status.exposure !== null && !lease.witness_reachable) said.push("The witness does not answer.");
  return [...new Set(said.filter(Boolean))];
}

function facts(health, lease, status) {
  const shown = [];
  const fact = (name, value) => shown.push(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  if (lease) {
    fact("Role", lease.role);
    fact("Epoch", String(lease.epoch));
    const left = lease.expires_in_ms === null ? "none runs here" : `runs another ${duration(lease.expires_in_ms)}`;
    fact("Lease", lease.never_expires ? "never ends" : left);
  }
  if (!status) return shown;
  const { exposure, health: extents, prediction, repair, nodes } = status;
  fact("Stored here", `${bytes(extents.bytes)} in ${count(extents.extents, "extent")}`);
  if (status.role !== "active") fact("Still to come", extents.wanted ? `${bytes(extents.wanted_bytes)} in ${count(extents.wanted, "extent")}` : "nothing");
  else if (exposure) fact("Exposed", exposure.extents || exposure.commits ? `${bytes(exposure.bytes)}, ${count(exposure.commits, "commit")}` : "nothing");
  const margins = Object.entries(extents.margin).sort(([one], [other]) => one - other);
  fact("Margin", margins.map(([losses, number]) => `${losses} more: ${count(number, "extent")}`).join(", ") || "nothing stored");
  const queue = repair.waiting + repair.running;
  const left = repair.seconds_left === null ? "it stands still" : duration(repair.seconds_left * 1000);
  fact("Repair", queue ? `${count(queue, "extent")}, ${bytes(repair.bytes)}, ${left}` : "nothing waits");
  fact("Nodes", `${nodes.filter((node) => node.state === "live").length} of ${nodes.length} live`);
  if (prediction) {
    const { recovery_time: time, recovery_point: point } = prediction;
    fact("A failover now", time === null ? "not by itself" : `${duration(time)}, losing ${point ? `the last ${duration(point)}` : "nothing"}`);
  }
  return shown;
}

function check({ name, ok, response_ms, detail }) {
  const well = element("td", { className: ok ? "good" : "bad" }, ok ? "yes" : "no");
  return element("tr", {}, element("td", {}, name), well, element("td", { className: "number" }, `${response_ms.toFixed(1)} ms`), element("td", {}, detail));
}

/// The site's status; null where it is not to be had: to who is not signed in, or may not see it.
async function siteStatus() {
  if (!signedIn()) return null;
  try {
    return await (await call("/api/v1/status")).json();
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}

export async function refresh() {
  const [health, lease, status] = await Promise.all([look("/health"), look("/lease"), siteStatus()]);
  const [level, sentence] = verdict(health, status);
  const line = byId("verdict");
  line.dataset.level = level;
  // Said again only when it is another: those who hear the page hear each change.
  if (line.textContent !== sentence) line.textContent = sentence;
  byId("active").textContent = active(health, lease);
  byId("who").textContent = health ? `${health.site}, ${health.role}` : "";
  byId("notes").replaceChildren(...notes(status).map((note) => element("li", {}, note)));
  byId("facts").replaceChildren(...facts(health, lease, status));
  byId("checks").replaceChildren(...(health?.checks ?? []).map(check));
}

/// Refreshes again and again while somebody looks.
export async function watch() {
  for (;;) {
    if (document.visibilityState === "visible") await refresh();
    await new Promise((done) => setTimeout(done, EVERY));
  }
}
