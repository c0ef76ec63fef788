"use strict";
// The live page: shows the log as it grows and the list of one user as it changes. All text of the server is set by
// textContent, so that no title or ID can become markup.
const SHOWN = 15, EVERY = 1000; // rows of the log; milliseconds between two looks
const place = (id) => document.getElementById(id);
const state = { last: 0, user: "", before: new Map(), rows: [], secret: "" };

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (state.secret) headers.Authorization = `Bearer ${state.secret}`;
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const found = await answer.json();
  place("token-form").hidden = answer.status !== 401;
  if (!answer.ok) throw new Error(`${found.error}: ${found.remedy}`);
  return found;
}

function cell(row, text, kind, below) {
  const made = row.insertCell();
  made.textContent = text;
  if (kind) made.className = kind;
  if (below) {
    const small = document.createElement("small");
    small.textContent = below;
    made.append(small);
  }
  return made;
}

function tell(error) {
  place("error").textContent = error ? error.message : "";
  place("error").hidden = !error;
}

function drawLog() {
  const body = place("log");
  body.replaceChildren();
  for (const event of state.rows) {
    const row = body.insertRow();
    if (event.fresh) row.className = "fresh";
    cell(row, event.number, "number");
    cell(row, event.user_id);
    cell(row, event.title || event.item_id, "", event.title ? event.item_id : "");
  }
  place("log-empty").hidden = state.rows.length > 0;
}

function drawList(found) {
  const body = place("list"), ranks = new Map(found.items.map((item) => [item.item_id, item.rank]));
  body.replaceChildren();
  for (const item of found.items) {
    const before = state.before.get(item.item_id), row = body.insertRow();
    if (state.before.size && before === undefined) row.className = "fresh";
    cell(row, item.rank, "number");
    cell(row, item.title || item.item_id, "", item.title ? item.item_id : "");
    cell(row, item.code, "code");
    const like = item.because;
    const codes = like ? `${like.shared_codes} shared code${like.shared_codes > 1 ? "s" : ""}` : "";
    cell(row, like ? like.title || like.item_id : "–", "", codes);
    cell(row, state.before.size ? before || "not listed" : "–", "number");
  }
  const words = { history: "by the history", popularity: "no events: the most popular items" };
  place("basis").textContent = `User ${found.user_id}, ${words[found.basis] || found.basis}`;
  state.shown = ranks;
}

async function show(user, changed) {
  const found = await ask(`/recommend/${encodeURIComponent(user)}?k=10&explain=true&new=true`);
  state.before = changed && user === state.user && state.shown ? state.shown : new Map();
  state.user = user;
  place("user").value = user;
  drawList(found);
}

async function look() {
  try {
    const found = await ask(`/events?after=${state.last}`);
    place("counts").textContent = `${found.total.toLocaleString("en")} live events`;
    if (found.events.length) {
      const first = state.last === 0;
      state.rows = [...found.events.map((event) => ({ ...event, fresh: !first })).reverse(),
        ...state.rows.map((event) => ({ ...event, fresh: false }))].slice(0, SHOWN);
      state.last = found.events[found.events.length - 1].number;
      drawLog();
      const newest = found.events[found.events.length - 1].user_id;
      const mine = found.events.some((event) => event.user_id === state.user);
      if (place("follow").checked && newest !== state.user) await show(newest, false);
      else if (mine) await show(state.user, true);
    }
    tell(null);
  } catch (error) {
    tell(error);
  }
}

function onSubmit(id, work) {
  place(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await work();
      tell(null);
    } catch (error) {
      tell(error);
    }
  });
}

onSubmit("user-form", () => show(place("user").value, false));
onSubmit("event-form", async () => {
  const event = { user_id: place("event-user").value, item_id: place("event-item").value, event_id: `page-${crypto.randomUUID()}` };
  await ask("/events", { events: [event] });
  await look();
});
onSubmit("token-form", async () => {
  state.secret = place("token").value;
  await look();
});

async function start() {
  const about = await ask("/healthz");
  place("run").textContent = about.run;
  await look();
  setInterval(look, EVERY);
}
start().catch(tell);
