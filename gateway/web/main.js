// The page: signed out it shows how the site is, signed in the files besides.

import { signIn, signOut, signedIn } from "./api.js";
import { byId, complain, say } from "./dom.js";
import * as files from "./files.js";
import * as status from "./status.js";

function show() {
  byId("entrance").hidden = signedIn();
  byId("files").hidden = !signedIn();
  byId("sign-out").hidden = !signedIn();
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = byId("token");
  const token = field.value.trim();
  try {
    const withheld = await signIn(token);
    field.value = "";
    if (withheld) say(`Reads only, no session was begun. ${withheld.message}`, "bad");
    show();
    byId("prefix").focus();
    await Promise.all([files.list(), status.refresh()]);
  } catch (error) {
    complain(error);
  }
});

/// Nothing of the files stays on the screen.
async function leave() {
  byId("list").replaceChildren();
  show();
  byId("token").focus();
  await status.refresh();
}

window.addEventListener("signed-out", leave);

byId("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
  } catch (error) {
    complain(error);
  }
  await leave();
});

files.begin();
show();
status.watch();
