// Calls of REST. Tokens are in the memory of this module and nowhere else: what is not stored can't be read from a storage,
// and a tab that closes forgets them.

/// `{token}`, and of a session `{refresh, expires}` besides.
let credentials = null;
let renewing = null;

/// What the API answered instead of what was asked for, in its own words.
export class Refusal extends Error {
  constructor(status, code, message) {
    super(code ? `${code}: ${message}` : message);
    this.status = status;
    this.code = code;
  }

  /// Of an answer's body. What stands before the gateway (an edge, a proxy) does not speak JSON.
  static of(status, text) {
    try {
      const { code, message } = JSON.parse(text).error;
      return new Refusal(status, code, message);
    } catch {
      return new Refusal(status, "", `the answer was HTTP ${status}, and not one of Diptych's own`);
    }
  }
}

async function ask(path, options = {}) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Refusal(0, "", `no answer to ${options.method ?? "GET"} ${path}: the gateway can't be reached`);
  }
}

async function good(response) {
  if (!response.ok) throw refused(response.status, await response.text());
  return response;
}

/// What was shown opens nothing any more: the window is told, and asks for another.
function refused(status, text) {
  if (status === 401 && credentials !== null) {
    credentials = null;
    window.dispatchEvent(new Event("signed-out"));
  }
  return Refusal.of(status, text);
}

const bearer = (token) => ({ authorization: `Bearer ${token}` });

function keep(pair) {
  credentials = { token: pair.token, refresh: pair.refresh_token, expires: Date.parse(pair.expires) };
}

export const signedIn = () => credentials !== null;

/// Begins a session with a token. Gives null, or why there is none: without an active site nothing can be begun, and what was
/// shown opens reads all the same.
export async function signIn(token) {
  const response = await ask("/api/v1/sessions", { method: "POST", headers: bearer(token) });
  if (response.status === 503) {
    credentials = { token };
    return Refusal.of(response.status, await response.text());
  }
  keep(await (await good(response)).json());
  await known();
  return null;
}

/// A passive site hears of a session that it asked the active one for a moment after that.
async function known() {
  for (let tries = 0; tries < 20; tries += 1) {
    const response = await ask("/api/v1/files?limit=1", { headers: bearer(credentials.token) });
    if (response.status !== 401) return;
    await new Promise((done) => setTimeout(done, 250));
  }
}

export async function signOut() {
  const { token, refresh } = credentials;
  credentials = null;
  if (refresh) await good(await ask("/api/v1/sessions", { method: "DELETE", headers: bearer(token) }));
}

/// Changes the refresh token for new ones. All who need that wait for one call: a refresh token that is shown twice ends its
/// session.
function renew() {
  const change = async () => {
    const body = JSON.stringify({ refresh_token: credentials.refresh });
    const response = await ask("/api/v1/sessions/refresh", { method: "POST", body });
    keep(await (await good(response)).json());
  };
  renewing ??= change().finally(() => { renewing = null; });
  return renewing;
}

/// A token that is good for another minute at least.
async function token() {
  if (credentials === null) throw new Refusal(401, "", "sign in first");
  if (credentials.refresh && credentials.expires < Date.now() + 60000) await renew();
  return credentials.token;
}

/// An answer to one who is signed in; its refusal is thrown.
export async function call(path, options = {}) {
  return good(await ask(path, { ...options, headers: bearer(await token()) }));
}

/// JSON that everybody may have, whatever the status of the answer; null: there is no answer.
export async function look(path) {
  try {
    return await (await fetch(path, { cache: "no-store" })).json();
  } catch {
    return null;
  }
}

/// Sends a file, and says how far it is: `fetch` can't. `stop` is an AbortSignal.
export async function send(method, path, file, { progress, stop }) {
  const shown = await token();
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    request.setRequestHeader("authorization", `Bearer ${shown}`);
    request.setRequestHeader("content-type", file.type || "application/octet-stream");
    request.upload.addEventListener("progress", (event) => progress(event.loaded, file.size));
    request.addEventListener("load", () => {
      if (request.status < 300) done(JSON.parse(request.responseText));
      else failed(refused(request.status, request.responseText));
    });
    request.addEventListener("error", () => failed(new Refusal(0, "", "the connection broke: list to see whether it was stored")));
    request.addEventListener("abort", () => failed(new Refusal(0, "", "stopped")));
    stop.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
